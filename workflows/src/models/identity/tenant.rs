//! Whose data a transaction sees.

use crate::models::Db;
use uuid::Uuid;

/// Narrows the caller's transaction to one tenant, until it ends.
pub async fn enter(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<()> {
    sqlx::query_scalar!("select set_config('app.tenant_id', $1, true)", tenant_id.to_string()).fetch_one(db).await?;
    Ok(())
}
