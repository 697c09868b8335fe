//! Where tenants hear of their events. Secrets come and go sealed: no statement ever sees one.

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::time::Duration;
use uuid::Uuid;

/// What there is to hear of.
pub const EVENTS: [&str; 3] = ["render.completed", "render.failed", "render.cancelled"];
/// Instead of naming all of them, also those that there will be.
pub const EVERY_EVENT: &str = "*";
/// Webhooks of a tenant.
pub const MOST_WEBHOOKS: usize = 20;

/// A webhook, without its secrets.
#[derive(Debug, Clone, Serialize)]
pub struct Webhook {
    /// Its id.
    pub id: Uuid,
    /// What is called.
    pub url: String,
    /// Some of [`EVENTS`], or [`EVERY_EVENT`].
    pub event_types: Vec<String>,
    /// `active`, `paused` by its tenant, or `disabled` by the platform.
    pub state: String,
    /// Why it is disabled.
    pub disabled_reason: Option<String>,
    /// How often it has failed since it worked.
    #[serde(skip)]
    pub consecutive_failures: i32,
    /// Until when the secret before this one signs, too; in the past when it does no longer.
    pub prev_valid_until: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed.
    #[serde(skip)]
    pub updated_at: DateTime<Utc>,
}

/// What to change of a webhook; what is absent stays.
#[derive(Debug, Clone, Copy, Default)]
pub struct Change<'a> {
    /// What is called.
    pub url: Option<&'a str>,
    /// What it hears of.
    pub event_types: Option<&'a [String]>,
    /// Whether it hears of anything. One that goes on again begins without failures.
    pub active: Option<bool>,
}

/// Makes a webhook. False when the tenant has as many as it may; then the transaction is spoilt.
///
/// # Errors
/// Those of the database.
pub async fn create(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    url: &str,
    event_types: &[String],
    sealed: &[u8],
) -> sqlx::Result<bool> {
    let made = sqlx::query!(
        "insert into identity.tenant_webhooks (id, tenant_id, url, event_types, secret_enc, created_at, updated_at)
         values ($1, $2, $3, $4, $5, workflow.now(), workflow.now())",
        id,
        tenant_id,
        url,
        event_types,
        sealed
    )
    .execute(db)
    .await;
    match made {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(e)) if e.constraint() == Some("at_most_20_webhooks") => Ok(false),
        Err(error) => Err(error),
    }
}

/// One webhook of a tenant.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Webhook>> {
    sqlx::query_as!(
        Webhook,
        "select id, url, event_types, state, disabled_reason, consecutive_failures, prev_valid_until, created_at, updated_at
         from identity.tenant_webhooks where tenant_id = $1 and id = $2",
        tenant_id,
        id
    )
    .fetch_optional(db)
    .await
}

/// The same, held until the transaction ends, so that nobody changes it meanwhile.
///
/// # Errors
/// Those of the database.
pub async fn hold(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Webhook>> {
    sqlx::query_as!(
        Webhook,
        "select id, url, event_types, state, disabled_reason, consecutive_failures, prev_valid_until, created_at, updated_at
         from identity.tenant_webhooks where tenant_id = $1 and id = $2 for no key update",
        tenant_id,
        id
    )
    .fetch_optional(db)
    .await
}

/// All webhooks of a tenant, newest first.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Vec<Webhook>> {
    sqlx::query_as!(
        Webhook,
        "select id, url, event_types, state, disabled_reason, consecutive_failures, prev_valid_until, created_at, updated_at
         from identity.tenant_webhooks where tenant_id = $1 order by id desc",
        tenant_id
    )
    .fetch_all(db)
    .await
}

/// Changes a webhook.
///
/// # Errors
/// Those of the database.
pub async fn update(db: Db<'_>, tenant_id: Uuid, id: Uuid, change: Change<'_>) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.tenant_webhooks
         set url = coalesce($3, url), event_types = coalesce($4, event_types),
             state = case when $5::boolean is null then state when $5 then 'active' else 'paused' end,
             disabled_reason = case when $5::boolean is null then disabled_reason end,
             consecutive_failures = case when $5 then 0 else consecutive_failures end,
             first_failure_at = case when $5 then null else first_failure_at end,
             updated_at = workflow.now(), rev = rev + 1
         where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        change.url,
        change.event_types,
        change.active
    )
    .execute(db)
    .await
    .map(drop)
}

/// Gives a webhook another secret. The one before signs as well for `overlap`, unless that is no time at all; the one before that
/// does no longer.
///
/// # Errors
/// Those of the database.
pub async fn rotate(db: Db<'_>, tenant_id: Uuid, id: Uuid, sealed: &[u8], overlap: Duration) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.tenant_webhooks
         set prev_secret_enc = case when $4::float8 > 0 then secret_enc end,
             prev_valid_until = case when $4::float8 > 0 then workflow.now() + make_interval(secs => $4) end,
             secret_enc = $3, updated_at = workflow.now(), rev = rev + 1
         where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        sealed,
        overlap.as_secs_f64()
    )
    .execute(db)
    .await
    .map(drop)
}

/// Removes a webhook with what was delivered to it. False when there is none.
///
/// # Errors
/// Those of the database.
pub async fn remove(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!("delete from identity.tenant_webhooks where tenant_id = $1 and id = $2", tenant_id, id);
    Ok(done.execute(db).await?.rows_affected() > 0)
}

/// The secrets that sign right now, sealed, the newest first.
///
/// # Errors
/// Those of the database.
pub async fn secrets(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Vec<Vec<u8>>> {
    let row = sqlx::query!(
        r#"select secret_enc, case when prev_valid_until > workflow.now() then prev_secret_enc end as before
           from identity.tenant_webhooks where tenant_id = $1 and id = $2"#,
        tenant_id,
        id
    )
    .fetch_optional(db)
    .await?;
    Ok(row.into_iter().flat_map(|r| [Some(r.secret_enc), r.before]).flatten().collect())
}
