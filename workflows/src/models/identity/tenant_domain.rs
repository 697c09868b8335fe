//! Host names of tenants. One selects its tenant once it is proven to be theirs.

use crate::models::Db;
use uuid::Uuid;

/// The tenant whose proven host name this is, in small letters.
///
/// # Errors
/// Those of the database.
pub async fn tenant_at(db: Db<'_>, hostname: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select tenant_id from identity.tenant_domains where hostname = $1 and state = 'verified'",
        hostname
    )
    .fetch_optional(db)
    .await
}
