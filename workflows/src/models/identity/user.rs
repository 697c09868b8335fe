//! Users: a person within one tenant, and their password.

use crate::models::Db;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A person within one tenant.
#[derive(Debug, Clone, PartialEq)]
pub struct User {
    /// Their id.
    pub id: Uuid,
    /// Their tenant.
    pub tenant_id: Uuid,
    /// Where they are reached.
    pub email: Option<String>,
    /// When they proved that the address is theirs.
    pub email_verified_at: Option<DateTime<Utc>>,
    /// What they are called.
    pub display_name: String,
    /// The language they are spoken to in, by BCP 47.
    pub locale: String,
    /// The zone their times are shown in, by IANA.
    pub timezone: String,
    /// `invited`, `active`, `locked`, `disabled`, `deleting` or `deleted`.
    pub status: String,
    /// When they signed in last.
    pub last_login_at: Option<DateTime<Utc>>,
    /// When they came.
    pub created_at: DateTime<Utc>,
}

/// A person who is new.
#[derive(Debug, Clone, Copy)]
pub struct NewUser<'a> {
    /// Where they are reached; not proven yet.
    pub email: &'a str,
    /// What they are called; may be empty.
    pub display_name: &'a str,
    /// The language they are spoken to in.
    pub locale: &'a str,
}

/// Adds a person and gives their id; none when the tenant has somebody with this address.
///
/// # Errors
/// Those of the database.
pub async fn create(db: Db<'_>, tenant_id: Uuid, new: NewUser<'_>) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into identity.users (id, tenant_id, email, display_name, locale, created_at)
         values ($1, $2, $3, $4, $5, workflow.now())
         on conflict (tenant_id, lower(email)) where deleted_at is null do nothing returning id",
        Uuid::now_v7(),
        tenant_id,
        new.email,
        new.display_name,
        new.locale,
    )
    .fetch_optional(db)
    .await
}

/// A person of a tenant who has not been deleted.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<User>> {
    sqlx::query_as!(
        User,
        "select id, tenant_id, email, email_verified_at, display_name, locale, timezone, status, last_login_at, created_at
         from identity.users where tenant_id = $1 and id = $2 and deleted_at is null",
        tenant_id,
        id
    )
    .fetch_optional(db)
    .await
}

/// The same, held until the transaction ends, so that nobody changes them meanwhile.
///
/// # Errors
/// Those of the database.
pub async fn hold(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<User>> {
    sqlx::query_as!(
        User,
        "select id, tenant_id, email, email_verified_at, display_name, locale, timezone, status, last_login_at, created_at
         from identity.users where tenant_id = $1 and id = $2 and deleted_at is null for no key update",
        tenant_id,
        id
    )
    .fetch_optional(db)
    .await
}

/// The person with this address, whatever its case.
///
/// # Errors
/// Those of the database.
pub async fn by_email(db: Db<'_>, tenant_id: Uuid, email: &str) -> sqlx::Result<Option<User>> {
    sqlx::query_as!(
        User,
        "select id, tenant_id, email, email_verified_at, display_name, locale, timezone, status, last_login_at, created_at
         from identity.users where tenant_id = $1 and lower(email) = lower($2) and deleted_at is null",
        tenant_id,
        email
    )
    .fetch_optional(db)
    .await
}

/// Changes what is given of a profile.
///
/// # Errors
/// Those of the database.
pub async fn update(
    db: Db<'_>,
    id: Uuid,
    display_name: Option<&str>,
    locale: Option<&str>,
    timezone: Option<&str>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.users
         set display_name = coalesce($2, display_name), locale = coalesce($3, locale), timezone = coalesce($4, timezone),
             updated_at = workflow.now(), rev = rev + 1
         where id = $1",
        id,
        display_name,
        locale,
        timezone
    )
    .execute(db)
    .await
    .map(drop)
}

/// The person has proven that `email` is theirs: it is their address from now on, and somebody who was invited is active.
/// False when somebody else has it by now.
///
/// # Errors
/// Those of the database.
pub async fn prove_email(db: Db<'_>, id: Uuid, email: &str) -> sqlx::Result<bool> {
    let proven = sqlx::query!(
        "update identity.users u
         set email = $2, email_verified_at = workflow.now(), updated_at = workflow.now(), rev = rev + 1,
             status = case status when 'invited' then 'active' else status end
         where id = $1 and deleted_at is null and not exists (
             select from identity.users o
             where o.tenant_id = u.tenant_id and lower(o.email) = lower($2) and o.id <> u.id and o.deleted_at is null)",
        id,
        email
    )
    .execute(db)
    .await;
    match proven {
        Ok(done) => Ok(done.rows_affected() > 0),
        Err(sqlx::Error::Database(e)) if e.is_unique_violation() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The hash of a person's password; none when they have none.
///
/// # Errors
/// Those of the database.
pub async fn password_hash(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!("select password_hash from identity.user_credentials where user_id = $1", id)
        .fetch_optional(db)
        .await
}

/// Gives a person another password, by its hash.
///
/// # Errors
/// Those of the database.
pub async fn set_password(db: Db<'_>, tenant_id: Uuid, id: Uuid, hash: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into identity.user_credentials (user_id, tenant_id, password_hash, changed_at)
         values ($1, $2, $3, workflow.now())
         on conflict (user_id) do update set password_hash = excluded.password_hash, changed_at = excluded.changed_at, must_change = false",
        id,
        tenant_id,
        hash
    )
    .execute(db)
    .await
    .map(drop)
}

/// A person has no password any more.
///
/// # Errors
/// Those of the database.
pub async fn forget_password(db: Db<'_>, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from identity.user_credentials where user_id = $1", id).execute(db).await.map(drop)
}
