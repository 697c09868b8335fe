//! Tenants, and whose data a transaction sees.

use crate::models::Db;
use uuid::Uuid;

/// Says whose transaction this is, until it ends: the setting that row-level security will read. Until there are
/// policies, each statement names the tenant itself.
pub async fn enter(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<()> {
    sqlx::query_scalar!("select set_config('app.tenant_id', $1, true)", tenant_id.to_string()).fetch_one(db).await?;
    Ok(())
}

/// Makes a tenant and gives its id. `slug` is 1 to 64 of `a-z 0-9 -` and not taken.
pub async fn create(db: Db<'_>, slug: &str, name: &str) -> sqlx::Result<Uuid> {
    let id = Uuid::now_v7();
    sqlx::query!("insert into identity.tenants (id, slug, name) values ($1, $2, $3)", id, slug, name)
        .execute(db)
        .await?;
    Ok(id)
}
