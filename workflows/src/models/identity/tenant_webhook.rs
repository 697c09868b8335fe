//! Where tenants hear of their events. Secrets come and go sealed: no statement ever sees one.

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::time::Duration;
use uuid::Uuid;

/// What there is to hear of.
pub const EVENTS: [&str; 18] = [
    "render.completed",
    "render.failed",
    "render.cancelled",
    "snapshot_batch.completed",
    "payment.paid",
    "payment.failed",
    "payment.review",
    "payment.disputed",
    "refund.done",
    "subscription.renewed",
    "subscription.past_due",
    "subscription.cancelled",
    "subscription.expired",
    "usage.threshold",
    "gift.earned",
    "export.expiring",
    "webhook.paused",
    "webhook.disabled",
];
/// What is sent on demand, to try a webhook: nobody subscribes to it.
pub const TEST_EVENT: &str = "webhook.test";
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
    /// `v1`: a secret that both sides have; `v1a`: a key pair.
    pub signing: String,
    /// `active`, `paused`, or `disabled` by its receiver.
    pub state: String,
    /// Why the platform has paused or disabled it.
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
    /// How often it was changed.
    #[serde(skip)]
    pub rev: i32,
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
    signing: &str,
    sealed: &[u8],
) -> sqlx::Result<bool> {
    let made = sqlx::query!(
        "insert into identity.tenant_webhooks (id, tenant_id, url, event_types, signing, secret_enc, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, workflow.now(), workflow.now())",
        id,
        tenant_id,
        url,
        event_types,
        signing,
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
        "select id, url, event_types, signing, state, disabled_reason, consecutive_failures, prev_valid_until, created_at, updated_at, rev
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
        "select id, url, event_types, signing, state, disabled_reason, consecutive_failures, prev_valid_until, created_at, updated_at, rev
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
        "select id, url, event_types, signing, state, disabled_reason, consecutive_failures, prev_valid_until, created_at, updated_at, rev
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

/// How a webhook has fared with a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fared {
    /// Whether the call arrived.
    pub well: bool,
    /// How long it took, in milliseconds.
    pub took_ms: i32,
    /// Whether the receiver said that it has too much to do.
    pub overloaded: bool,
}

/// How long a webhook has failed by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failing {
    /// Calls in a row.
    pub times: i32,
    /// For at least a day.
    pub a_day: bool,
    /// For at least five days.
    pub five_days: bool,
}

/// Notes how a call went; gives how long it has failed, if it has and the webhook is still there and active. Half as much is sent at a
/// time for ten minutes to one that has too much to do.
///
/// # Errors
/// Those of the database.
pub async fn note(db: Db<'_>, tenant_id: Uuid, id: Uuid, fared: Fared) -> sqlx::Result<Option<Failing>> {
    let failing = sqlx::query!(
        r#"update identity.tenant_webhooks
           set consecutive_failures = case when $3 then 0 else consecutive_failures + 1 end,
               first_failure_at = case when $3 then null else coalesce(first_failure_at, workflow.now()) end,
               recent_ms = ($4::int || recent_ms)[1:20],
               eased_until = case when $5 then workflow.now() + interval '10 minutes' else eased_until end
           where tenant_id = $1 and id = $2
           returning state = 'active' and not $3 as "failing!", consecutive_failures as times,
               coalesce(first_failure_at <= workflow.now() - interval '1 day', false) as "a_day!",
               coalesce(first_failure_at <= workflow.now() - interval '5 days', false) as "five_days!""#,
        tenant_id,
        id,
        fared.well,
        fared.took_ms,
        fared.overloaded
    )
    .fetch_optional(db)
    .await?;
    Ok(failing.filter(|f| f.failing).map(|f| Failing { times: f.times, a_day: f.a_day, five_days: f.five_days }))
}

/// Pauses or disables an active webhook, and says why. False when it is not active: then nothing has changed.
///
/// # Errors
/// Those of the database.
pub async fn put_off(db: Db<'_>, tenant_id: Uuid, id: Uuid, state: &str, reason: &str) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update identity.tenant_webhooks set state = $3, disabled_reason = $4, updated_at = workflow.now(), rev = rev + 1
         where tenant_id = $1 and id = $2 and state = 'active'",
        tenant_id,
        id,
        state,
        reason
    );
    Ok(done.execute(db).await?.rows_affected() > 0)
}
