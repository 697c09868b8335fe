//! Who is what within a tenant.

use crate::models::Db;
use uuid::Uuid;

/// Gives a person a role; having it already changes nothing.
///
/// # Errors
/// Those of the database.
pub async fn grant(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    role: &str,
    granted_by: Option<Uuid>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into identity.role_bindings (tenant_id, user_id, role, granted_by, created_at)
         values ($1, $2, $3, $4, workflow.now()) on conflict do nothing",
        tenant_id,
        user_id,
        role,
        granted_by
    )
    .execute(db)
    .await
    .map(drop)
}

/// Makes a person of the platform's own tenant one of its staff, or no longer.
///
/// # Errors
/// Those of the database; those of other tenants are no staff.
pub async fn set_staff(db: Db<'_>, user_id: Uuid, staff: bool) -> sqlx::Result<()> {
    sqlx::query!("update identity.users set is_platform_staff = $2 where id = $1", user_id, staff)
        .execute(db)
        .await
        .map(drop)
}
