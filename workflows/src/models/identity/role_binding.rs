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

/// A person with roles.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Member {
    /// The person.
    pub id: Uuid,
    /// Their address.
    pub email: Option<String>,
    /// What they are called.
    pub display_name: String,
    /// `invited`, `active`, `locked` or `disabled`.
    pub status: String,
    /// Their roles within the tenant, the highest first.
    pub roles: Vec<String>,
    /// The rank of the highest, of those on the platform, too; 0 without one.
    pub rank: i32,
}

/// A role within a tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TenantRole {
    /// Its name.
    pub name: String,
    /// Higher is more.
    pub rank: i32,
}

/// The roles that a tenant gives, the lowest first.
///
/// # Errors
/// Those of the database.
pub async fn roles(db: Db<'_>) -> sqlx::Result<Vec<TenantRole>> {
    sqlx::query_as!(TenantRole, "select name, rank from identity.roles where not platform order by rank")
        .fetch_all(db)
        .await
}

/// Up to `limit` people of a tenant by id, those after `after`.
///
/// # Errors
/// Those of the database.
pub async fn members(db: Db<'_>, tenant_id: Uuid, after: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Member>> {
    sqlx::query_as!(
        Member,
        r#"select u.id, u.email, u.display_name, u.status,
                  array(select b.role from identity.role_bindings b join identity.roles r on r.name = b.role
                        where b.user_id = u.id and not r.platform order by r.rank desc) as "roles!",
                  coalesce((select max(r.rank) from identity.role_bindings b join identity.roles r on r.name = b.role
                            where b.user_id = u.id), 0) as "rank!"
           from identity.users u
           where u.tenant_id = $1 and u.deleted_at is null and ($2::uuid is null or u.id > $2)
           order by u.id limit $3"#,
        tenant_id,
        after,
        limit
    )
    .fetch_all(db)
    .await
}

/// How many people have a role of a tenant.
///
/// # Errors
/// Those of the database.
pub async fn seats(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<i64> {
    sqlx::query_scalar!(
        r#"select count(distinct b.user_id) as "it!" from identity.role_bindings b
           join identity.roles r on r.name = b.role and not r.platform where b.tenant_id = $1"#,
        tenant_id
    )
    .fetch_one(db)
    .await
}

/// One person of a tenant. Changes to who is what in the tenant take turns from here to the end of the transaction.
///
/// # Errors
/// Those of the database.
pub async fn member_to_change(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Option<Member>> {
    sqlx::query!("select from identity.tenants where id = $1 for no key update", tenant_id)
        .fetch_optional(&mut *db)
        .await?;
    member(db, tenant_id, user_id).await
}

/// One person of a tenant.
///
/// # Errors
/// Those of the database.
pub async fn member(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Option<Member>> {
    sqlx::query_as!(
        Member,
        r#"select u.id, u.email, u.display_name, u.status,
                  array(select b.role from identity.role_bindings b join identity.roles r on r.name = b.role
                        where b.user_id = u.id and not r.platform order by r.rank desc) as "roles!",
                  coalesce((select max(r.rank) from identity.role_bindings b join identity.roles r on r.name = b.role
                            where b.user_id = u.id), 0) as "rank!"
           from identity.users u where u.tenant_id = $1 and u.id = $2 and u.deleted_at is null"#,
        tenant_id,
        user_id
    )
    .fetch_optional(db)
    .await
}

/// Gives a person these roles of the tenant and no others. False, and nothing done, when nobody would own the tenant any more.
///
/// # Errors
/// Those of the database.
pub async fn set(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, roles: &[String], by: Option<Uuid>) -> sqlx::Result<bool> {
    let last = sqlx::query_scalar!(
        r#"select not 'owner' = any ($3)
              and exists (select from identity.role_bindings where tenant_id = $1 and user_id = $2 and role = 'owner')
              and not exists (select from identity.role_bindings b join identity.users u on u.id = b.user_id
                              where b.tenant_id = $1 and b.user_id <> $2 and b.role = 'owner' and u.status in ('active', 'invited')) as "it!""#,
        tenant_id,
        user_id,
        roles
    )
    .fetch_one(&mut *db)
    .await?;
    if last {
        return Ok(false);
    }
    sqlx::query!(
        "delete from identity.role_bindings b using identity.roles r
         where b.tenant_id = $1 and b.user_id = $2 and r.name = b.role and not r.platform and b.role <> all ($3)",
        tenant_id,
        user_id,
        roles
    )
    .execute(&mut *db)
    .await?;
    for role in roles {
        grant(&mut *db, tenant_id, user_id, role, by).await?;
    }
    Ok(true)
}

/// Whether a person is more than whoever manages a tenant: owns it, or runs the platform.
///
/// # Errors
/// Those of the database.
pub async fn is_above_managers(db: Db<'_>, user_id: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from identity.role_bindings b join identity.roles r on r.name = b.role
                          where b.user_id = $1 and r.rank > (select rank from identity.roles where name = 'admin')) as "it!""#,
        user_id
    )
    .fetch_one(db)
    .await
}

/// Somebody may no longer sign in, or may again, once they have proven their address. Nothing changes for who was deleted.
///
/// # Errors
/// Those of the database.
pub async fn set_active(db: Db<'_>, user_id: Uuid, active: bool) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.users set status = case when not $2 then 'disabled' when email_verified_at is null then 'invited' else 'active' end, updated_at = workflow.now(), rev = rev + 1
         where id = $1 and status in ('active', 'disabled', 'locked', 'invited')",
        user_id,
        active
    )
    .execute(db)
    .await
    .map(drop)
}
