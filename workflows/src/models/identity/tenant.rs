//! Tenants.

use crate::models::Db;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A tenant as somebody sees it who comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// Its id.
    pub id: Uuid,
    /// What it is called.
    pub name: String,
    /// Whether anybody may register: the setting `registration`, which is `open` when it is not set. Nobody does while the tenant is
    /// suspended.
    pub registers: bool,
}

/// The tenant called `slug`, unless it is closed.
///
/// # Errors
/// Those of the database.
pub async fn entrance(db: Db<'_>, slug: &str) -> sqlx::Result<Option<Entrance>> {
    sqlx::query_as!(
        Entrance,
        r#"select id, name, status = 'active' and coalesce(settings ->> 'registration', 'open') = 'open' as "registers!"
           from identity.tenants where lower(slug) = lower($1) and status <> 'closed'"#,
        slug
    )
    .fetch_optional(db)
    .await
}

/// The same of a tenant by its id.
///
/// # Errors
/// Those of the database.
pub async fn entrance_of(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<Entrance>> {
    sqlx::query_as!(
        Entrance,
        r#"select id, name, status = 'active' and coalesce(settings ->> 'registration', 'open') = 'open' as "registers!"
           from identity.tenants where id = $1 and status <> 'closed'"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// Somebody owns the tenant, when nobody does yet.
///
/// # Errors
/// Those of the database.
pub async fn own(db: Db<'_>, id: Uuid, user_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("update identity.tenants set owner_user_id = $2 where id = $1 and owner_user_id is null", id, user_id)
        .execute(db)
        .await
        .map(drop)
}

/// A tenant.
#[derive(Debug, Clone, PartialEq, serde::Serialize)]
pub struct Tenant {
    /// Its id.
    pub id: Uuid,
    /// What its addresses call it.
    pub slug: String,
    /// What people call it.
    pub name: String,
    /// `platform` or `reseller`.
    pub kind: String,
    /// `active`, `suspended` or `closed`.
    pub status: String,
    /// Why it is suspended.
    pub suspended_reason: Option<String>,
    /// Its language, by BCP 47.
    pub locale: String,
    /// Its time zone, by IANA.
    pub timezone: String,
    /// Whether anybody may register.
    pub registers: bool,
    /// When it was made.
    #[serde(skip)]
    pub created_at: DateTime<Utc>,
    /// How often it was changed.
    #[serde(skip)]
    pub rev: i32,
}

/// A limit of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct Limit {
    /// Of what, such as `requests`.
    pub name: String,
    /// Warned from here on.
    pub soft: Option<i64>,
    /// Refused beyond.
    pub hard: i64,
    /// Counted over so many seconds.
    pub window_seconds: Option<i32>,
}

/// Makes a reseller and gives its id; none when the slug is taken.
///
/// # Errors
/// Those of the database.
pub async fn create(db: Db<'_>, slug: &str, name: &str, locale: &str, timezone: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into identity.tenants (id, slug, name, locale, timezone, created_at) values ($1, $2, $3, $4, $5, workflow.now())
         on conflict (lower(slug)) do nothing returning id",
        Uuid::now_v7(),
        slug,
        name,
        locale,
        timezone
    )
    .fetch_optional(db)
    .await
}

/// One tenant.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<Tenant>> {
    sqlx::query_as!(
        Tenant,
        r#"select id, slug, name, kind, status, suspended_reason, locale, timezone,
                  coalesce(settings ->> 'registration', 'open') = 'open' as "registers!", created_at, rev
           from identity.tenants where id = $1"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// The same, held until the transaction ends, so that nobody changes it meanwhile.
///
/// # Errors
/// Those of the database.
pub async fn hold(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<Tenant>> {
    // By itself, so that what is read is what whoever held it before has left.
    sqlx::query!("select from identity.tenants where id = $1 for no key update", id).fetch_optional(&mut *db).await?;
    find(db, id).await
}

/// The ids of all tenants, the oldest first.
///
/// # Errors
/// Those of the database.
pub async fn ids(db: Db<'_>) -> sqlx::Result<Vec<Uuid>> {
    sqlx::query_scalar!("select id from identity.tenants order by id").fetch_all(db).await
}

/// Up to `limit` tenants, newest first: those before `before`.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Tenant>> {
    sqlx::query_as!(
        Tenant,
        r#"select id, slug, name, kind, status, suspended_reason, locale, timezone,
                  coalesce(settings ->> 'registration', 'open') = 'open' as "registers!", created_at, rev
           from identity.tenants where $1::uuid is null or id < $1 order by id desc limit $2"#,
        before,
        limit
    )
    .fetch_all(db)
    .await
}

/// What to change of a tenant; what is absent stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// What people call it.
    pub name: Option<&'a str>,
    /// Its language.
    pub locale: Option<&'a str>,
    /// Its time zone.
    pub timezone: Option<&'a str>,
    /// Whether anybody may register.
    pub registers: Option<bool>,
}

/// Changes a tenant.
///
/// # Errors
/// Those of the database.
pub async fn update(db: Db<'_>, id: Uuid, change: Change<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.tenants
         set name = coalesce($2, name), locale = coalesce($3, locale), timezone = coalesce($4, timezone),
             settings = case when $5::boolean is null then settings
                             else settings || jsonb_build_object('registration', case when $5 then 'open' else 'closed' end) end,
             updated_at = workflow.now(), rev = rev + 1
         where id = $1",
        id,
        change.name,
        change.locale,
        change.timezone,
        change.registers
    )
    .execute(db)
    .await
    .map(drop)
}

/// Suspends a tenant, for a reason, or lets it go on. False when it is closed.
///
/// # Errors
/// Those of the database.
pub async fn suspend(db: Db<'_>, id: Uuid, reason: Option<&str>) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update identity.tenants
         set status = case when $2::text is null then 'active' else 'suspended' end, suspended_reason = $2,
             updated_at = workflow.now(), rev = rev + 1
         where id = $1 and status <> 'closed'",
        id,
        reason
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Closes a tenant for good: nobody of it comes in any more. False when it is closed.
///
/// # Errors
/// Those of the database; the platform's own tenant cannot be closed.
pub async fn close(db: Db<'_>, id: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update identity.tenants set status = 'closed', closed_at = workflow.now(), updated_at = workflow.now(), rev = rev + 1
         where id = $1 and status <> 'closed'",
        id
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// The limits of a tenant.
///
/// # Errors
/// Those of the database.
pub async fn limits(db: Db<'_>, id: Uuid) -> sqlx::Result<Vec<Limit>> {
    sqlx::query_as!(
        Limit,
        "select name, soft, hard, window_seconds from identity.tenant_limits where tenant_id = $1 order by name",
        id
    )
    .fetch_all(db)
    .await
}

/// Sets a limit of a tenant.
///
/// # Errors
/// Those of the database.
pub async fn set_limit(db: Db<'_>, id: Uuid, limit: &Limit) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into identity.tenant_limits (tenant_id, name, soft, hard, window_seconds, updated_at)
         values ($1, $2, $3, $4, $5, workflow.now())
         on conflict (tenant_id, name) do update set soft = excluded.soft, hard = excluded.hard,
             window_seconds = excluded.window_seconds, updated_at = excluded.updated_at",
        id,
        limit.name,
        limit.soft,
        limit.hard,
        limit.window_seconds
    )
    .execute(db)
    .await
    .map(drop)
}
