//! What was sent to webhooks, and what came of it.
//!
//! ```text
//! pending ─▶ delivered | failed | cancelled
//!    └─────▶ missed: its webhook was paused or disabled; it can be sent by hand
//! ```

use crate::models::{
    Db, Role, Scope,
    time_series::{self, Series},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use std::time::Duration;
use uuid::Uuid;

/// How a delivery stands.
pub const STATES: [&str; 5] = ["pending", "delivered", "failed", "cancelled", "missed"];
/// Of the last 20 calls 95 of a hundred have to be this fast: who is slower waits among the slow.
const SLOW_MS: i32 = 5000;

/// A delivery as its row holds it.
#[derive(Debug, Clone)]
pub struct Delivery {
    /// Its id.
    pub id: Uuid,
    /// The event, and the `webhook-id`.
    pub event_id: Uuid,
    /// What happened.
    pub event_type: String,
    /// When it happened.
    pub occurred_at: DateTime<Utc>,
    /// 0, or how often it had been sent by hand then.
    pub replay_no: i32,
    /// One of [`STATES`].
    pub state: String,
    /// Attempts so far.
    pub attempt_no: i32,
    /// What came of each.
    pub attempts: Json<Vec<Tried>>,
    /// When it is tried again.
    pub next_at: Option<DateTime<Utc>>,
    /// The status of the last answer.
    pub last_status: Option<i32>,
    /// Why the last attempt failed.
    pub last_error: Option<String>,
    /// The begin of the last answer.
    pub response_excerpt: Option<String>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// An attempt, as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tried {
    /// From 1.
    pub no: i32,
    /// When it began.
    pub at: DateTime<Utc>,
    /// The status of the answer; none when there was none.
    pub status: Option<i32>,
    /// Why it failed.
    pub error: Option<String>,
    /// How long the answer took; none when there was none: how long nobody answered tells of networks.
    pub latency_ms: Option<i32>,
}

/// Which deliveries of a webhook.
#[derive(Debug, Clone, Copy, Default)]
pub struct Which<'a> {
    /// In this state.
    pub state: Option<&'a str>,
    /// Of events of this type.
    pub kind: Option<&'a str>,
    /// Of events from then on.
    pub from: Option<DateTime<Utc>>,
    /// Of events before.
    pub until: Option<DateTime<Utc>>,
    /// Older than this one: when its event occurred, and its id.
    pub before: Option<(DateTime<Utc>, Uuid)>,
}

/// A delivery to be made.
#[derive(Debug, Clone, Copy)]
pub struct NewDelivery {
    /// Its id.
    pub id: Uuid,
    /// Where it goes.
    pub webhook_id: Uuid,
    /// The run that sends it; without one it was missed.
    pub run_id: Option<Uuid>,
}

/// Writes the deliveries of an event.
///
/// # Errors
/// Those of the database.
pub async fn insert(
    db: Db<'_>,
    tenant_id: Uuid,
    event_id: Uuid,
    occurred_at: DateTime<Utc>,
    new: &[NewDelivery],
) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = new.iter().map(|d| d.id).collect();
    let webhooks: Vec<Uuid> = new.iter().map(|d| d.webhook_id).collect();
    let runs: Vec<Option<Uuid>> = new.iter().map(|d| d.run_id).collect();
    time_series::expect(&mut *db, Series::WebhookDeliveries, occurred_at).await?;
    sqlx::query!(
        "insert into identity.tenant_webhook_deliveries
             (id, occurred_at, tenant_id, webhook_id, event_id, state, workflow_run_id, created_at, updated_at)
         select n.id, $2, $1, n.webhook_id, $3, case when n.run_id is null then 'missed' else 'pending' end, n.run_id,
                workflow.now(), workflow.now()
         from unnest($4::uuid[], $5::uuid[], $6::uuid[]) n (id, webhook_id, run_id)",
        tenant_id,
        occurred_at,
        event_id,
        &ids,
        &webhooks,
        &runs as _
    )
    .execute(db)
    .await
    .map(drop)
}

/// What a run is to send, or that there is nothing to send.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Look {
    /// Send this.
    Due(Box<Due>),
    /// It has ended like this.
    Over(String),
    /// Its webhook was removed, with everything that was delivered to it.
    Gone,
}

/// A call to be made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Due {
    /// The webhook.
    pub webhook_id: Uuid,
    /// The event.
    pub event_id: Uuid,
    /// What happened.
    pub kind: String,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// What is told of it.
    pub data: Value,
    /// Where it goes.
    pub url: String,
    /// The secrets that sign right now, sealed, hexadecimal, the newest first.
    pub secrets: Vec<String>,
    /// How many calls it may get at a time.
    pub in_flight: i32,
    /// Whether it has been slow.
    pub slow: bool,
}

/// Looks what is to be sent right now. What a webhook that is paused or disabled was to get, it misses.
///
/// # Errors
/// Those of the database.
pub async fn look(db: Db<'_>, id: Uuid, occurred_at: DateTime<Utc>) -> sqlx::Result<Look> {
    let row = sqlx::query!(
        r#"select d.state, w.state = 'active' or e.type = 'webhook.test' and w.state = 'paused' as "open!", d.webhook_id, d.event_id,
                  e.type as kind, e.data, w.url, w.secret_enc,
                  case when w.prev_valid_until > workflow.now() then w.prev_secret_enc end as before,
                  case when w.eased_until > workflow.now() then greatest(w.max_in_flight / 2, 1) else w.max_in_flight end as "in_flight!",
                  coalesce((select percentile_disc(0.95) within group (order by ms) from unnest(w.recent_ms) ms) > $3, false) as "slow!"
           from identity.tenant_webhook_deliveries d
           join identity.tenant_webhook_events e on e.id = d.event_id
           join identity.tenant_webhooks w on w.id = d.webhook_id
           where d.occurred_at = $2 and d.id = $1"#,
        id,
        occurred_at,
        SLOW_MS
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(Look::Gone) };
    if row.state != "pending" {
        return Ok(Look::Over(row.state));
    }
    if !row.open {
        end(db, id, occurred_at, "missed").await?;
        return Ok(Look::Over("missed".to_owned()));
    }
    Ok(Look::Due(Box::new(Due {
        webhook_id: row.webhook_id,
        event_id: row.event_id,
        kind: row.kind,
        occurred_at,
        data: row.data,
        url: row.url,
        secrets: [Some(row.secret_enc), row.before].iter().flatten().map(hex::encode).collect(),
        in_flight: row.in_flight,
        slow: row.slow,
    })))
}

/// Ends a delivery that is pending without another attempt.
///
/// # Errors
/// Those of the database.
pub async fn end(db: Db<'_>, id: Uuid, occurred_at: DateTime<Utc>, state: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.tenant_webhook_deliveries set state = $3, next_at = null, updated_at = workflow.now()
         where occurred_at = $2 and id = $1 and state = 'pending'",
        id,
        occurred_at,
        state
    )
    .execute(db)
    .await
    .map(drop)
}

/// What came of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct Outcome<'a> {
    /// The attempt.
    pub tried: &'a Tried,
    /// The begin of the answer.
    pub excerpt: Option<&'a str>,
    /// How long it took, answered or not.
    pub took_ms: i32,
    /// How the delivery stands now: `pending` when it is tried again.
    pub state: &'a str,
    /// After how long it is tried again.
    pub again_after: Option<Duration>,
}

/// Notes what came of an attempt, and gives when it is tried again. None when there is nothing left to note: the webhook was removed.
///
/// # Errors
/// Those of the database.
pub async fn note(
    db: Db<'_>,
    id: Uuid,
    occurred_at: DateTime<Utc>,
    outcome: Outcome<'_>,
) -> sqlx::Result<Option<Option<DateTime<Utc>>>> {
    let Outcome { tried, excerpt, took_ms, state, again_after } = outcome;
    sqlx::query_scalar!(
        "update identity.tenant_webhook_deliveries
         set state = $3, attempt_no = $4, attempts = attempts || $5::jsonb, last_status = $6, last_error = $7,
             response_excerpt = left($8, 4096), latency_ms = $9, next_at = workflow.now() + make_interval(secs => $10),
             updated_at = workflow.now()
         where occurred_at = $2 and id = $1 and state = 'pending' returning next_at",
        id,
        occurred_at,
        state,
        tried.no,
        Json([tried]) as _,
        tried.status,
        tried.error,
        excerpt,
        took_ms,
        again_after.map(|pause| pause.as_secs_f64())
    )
    .fetch_optional(db)
    .await
}

/// Deliveries of a webhook, those of the newest events first.
///
/// # Errors
/// Those of the database.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    webhook_id: Uuid,
    which: Which<'_>,
    limit: i64,
) -> sqlx::Result<Vec<Delivery>> {
    let (before_at, before_id) = which.before.unzip();
    sqlx::query_as!(
        Delivery,
        r#"select d.id, d.event_id, e.type as event_type, d.occurred_at, d.replay_no, d.state, d.attempt_no,
                  d.attempts as "attempts: Json<Vec<Tried>>", d.next_at, d.last_status, d.last_error, d.response_excerpt, d.created_at
           from identity.tenant_webhook_deliveries d join identity.tenant_webhook_events e on e.id = d.event_id
           where d.tenant_id = $1 and d.webhook_id = $2 and ($3::text is null or d.state = $3) and ($4::text is null or e.type = $4)
             and ($5::timestamptz is null or d.occurred_at >= $5) and ($6::timestamptz is null or d.occurred_at < $6)
             and ($7::timestamptz is null or (d.occurred_at, d.id) < ($7, $8))
           order by d.occurred_at desc, d.id desc limit $9"#,
        tenant_id,
        webhook_id,
        which.state,
        which.kind,
        which.from,
        which.until,
        before_at,
        before_id,
        limit
    )
    .fetch_all(db)
    .await
}

/// One delivery to a webhook, and what was told.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, tenant_id: Uuid, webhook_id: Uuid, id: Uuid) -> sqlx::Result<Option<(Delivery, Value)>> {
    let row = sqlx::query!(
        r#"select d.id, d.event_id, e.type as event_type, d.occurred_at, d.replay_no, d.state, d.attempt_no,
                  d.attempts as "attempts: Json<Vec<Tried>>", d.next_at, d.last_status, d.last_error, d.response_excerpt, d.created_at, e.data
           from identity.tenant_webhook_deliveries d join identity.tenant_webhook_events e on e.id = d.event_id
           where d.tenant_id = $1 and d.webhook_id = $2 and d.id = $3"#,
        tenant_id,
        webhook_id,
        id
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|r| {
        let delivery = Delivery {
            id: r.id,
            event_id: r.event_id,
            event_type: r.event_type,
            occurred_at: r.occurred_at,
            replay_no: r.replay_no,
            state: r.state,
            attempt_no: r.attempt_no,
            attempts: r.attempts,
            next_at: r.next_at,
            last_status: r.last_status,
            last_error: r.last_error,
            response_excerpt: r.response_excerpt,
            created_at: r.created_at,
        };
        (delivery, r.data)
    }))
}

/// Of each event the newest delivery to a webhook that is as asked for, the oldest events first: what to send again. What was sent again
/// since and arrived is none of them.
///
/// # Errors
/// Those of the database.
pub async fn to_replay(
    db: Db<'_>,
    tenant_id: Uuid,
    webhook_id: Uuid,
    which: Which<'_>,
    limit: i64,
) -> sqlx::Result<Vec<(Uuid, DateTime<Utc>)>> {
    let rows = sqlx::query!(
        r#"select d.id, d.occurred_at from identity.tenant_webhook_deliveries d
           join identity.tenant_webhook_events e on e.id = d.event_id
           where d.tenant_id = $1 and d.webhook_id = $2 and d.state <> 'pending' and ($3::text is null or d.state = $3)
             and ($4::text is null or e.type = $4) and ($5::timestamptz is null or d.occurred_at >= $5)
             and ($6::timestamptz is null or d.occurred_at < $6)
             and not exists (select from identity.tenant_webhook_deliveries o where o.occurred_at = d.occurred_at
                             and o.webhook_id = d.webhook_id and o.event_id = d.event_id and o.replay_no > d.replay_no)
           order by d.occurred_at, d.id limit $7"#,
        tenant_id,
        webhook_id,
        which.state,
        which.kind,
        which.from,
        which.until,
        limit
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.id, r.occurred_at)).collect())
}

/// One more delivery of what another one delivers.
#[derive(Debug, Clone, Copy)]
pub struct Replay {
    /// Its id.
    pub id: Uuid,
    /// What is delivered again.
    pub of: Uuid,
    /// When that occurred.
    pub occurred_at: DateTime<Utc>,
    /// The run that sends it.
    pub run_id: Uuid,
}

/// Writes deliveries that repeat others. The caller holds the webhook: two at once would count alike.
///
/// # Errors
/// Those of the database.
pub async fn replay(db: Db<'_>, replays: &[Replay]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = replays.iter().map(|r| r.id).collect();
    let of: Vec<Uuid> = replays.iter().map(|r| r.of).collect();
    let at: Vec<DateTime<Utc>> = replays.iter().map(|r| r.occurred_at).collect();
    let runs: Vec<Uuid> = replays.iter().map(|r| r.run_id).collect();
    sqlx::query!(
        "insert into identity.tenant_webhook_deliveries
             (id, occurred_at, tenant_id, webhook_id, event_id, replay_no, workflow_run_id, created_at, updated_at)
         select n.id, d.occurred_at, d.tenant_id, d.webhook_id, d.event_id,
                1 + (select max(o.replay_no) from identity.tenant_webhook_deliveries o
                     where o.occurred_at = d.occurred_at and o.webhook_id = d.webhook_id and o.event_id = d.event_id),
                n.run_id, workflow.now(), workflow.now()
         from unnest($1::uuid[], $2::uuid[], $3::timestamptz[], $4::uuid[]) n (id, of, at, run_id)
         join identity.tenant_webhook_deliveries d on d.id = n.of and d.occurred_at = n.at",
        &ids,
        &of,
        &at,
        &runs
    )
    .execute(db)
    .await
    .map(drop)
}

/// How many attempts at a webhook there were within a day.
///
/// # Errors
/// Those of the database.
pub async fn attempts_within_a_day(db: Db<'_>, webhook_id: Uuid) -> sqlx::Result<i64> {
    // No delivery is tried for longer than four days.
    sqlx::query_scalar!(
        r#"select count(*) as "n!" from identity.tenant_webhook_deliveries d
           cross join lateral jsonb_array_elements(d.attempts) a (attempt)
           where d.webhook_id = $1 and d.updated_at > workflow.now() - interval '1 day'
             and d.occurred_at > workflow.now() - interval '5 days'
             and (a.attempt ->> 'at')::timestamptz > workflow.now() - interval '1 day'"#,
        webhook_id
    )
    .fetch_one(db)
    .await
}

/// Settles deliveries whose run the engine ended by itself, as one that killed its workers too often; gives how many. Looks at the
/// deliveries whose time has come, then at their runs: each service at its own table.
///
/// # Errors
/// Those of the database.
pub async fn settle_abandoned(db: Db<'_>) -> sqlx::Result<u64> {
    Scope::platform(Role::Identity).enter(&mut *db).await?;
    let runs = sqlx::query_scalar!(
        r#"select workflow_run_id as "id!" from identity.tenant_webhook_deliveries
           where state = 'pending' and workflow_run_id is not null and updated_at < workflow.now() - interval '1 minute'
             and (next_at is null or next_at <= workflow.now()) limit 10000"#
    )
    .fetch_all(&mut *db)
    .await?;
    if runs.is_empty() {
        return Ok(0);
    }
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let ended = sqlx::query_scalar!("select id from workflow.runs where id = any ($1) and state <> 'running'", &runs)
        .fetch_all(&mut *db)
        .await?;
    Scope::platform(Role::Identity).enter(&mut *db).await?;
    let settled = sqlx::query!(
        "update identity.tenant_webhook_deliveries set state = 'failed', last_error = 'webhook.abandoned', next_at = null,
                updated_at = workflow.now()
         where workflow_run_id = any ($1) and state = 'pending'",
        &ended
    );
    Ok(settled.execute(db).await?.rows_affected())
}
