//! Tenants.

use crate::models::Db;
use uuid::Uuid;

/// Makes a tenant and gives its id. `slug` is 1 to 64 of `a-z 0-9 -` and not taken.
pub async fn create(db: Db<'_>, slug: &str, name: &str) -> sqlx::Result<Uuid> {
    let id = Uuid::now_v7();
    sqlx::query!("insert into identity.tenants (id, slug, name) values ($1, $2, $3)", id, slug, name)
        .execute(db)
        .await?;
    Ok(id)
}
