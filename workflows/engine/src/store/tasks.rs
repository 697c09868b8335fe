//! Tasks: claim, round trips of the pump, leases.

use super::{News, NewsRow, read_news};
use crate::{activity::Labels, client::TaskRow, failure::Failure, record::storable};
use serde_json::{Value, json};
use sqlx::{PgExecutor, Result, types::Json};
use uuid::Uuid;

/// Who claims.
#[derive(Debug, Clone)]
pub(crate) struct Claimant {
    /// Null for a node that speaks HTTP.
    pub worker_id: Option<i64>,
    pub name: String,
    pub labels: Labels,
}

/// One round trip and one commit: ends of attempts, progress of runs, then claims. See `workflow.pump`.
pub(crate) async fn pump(
    db: impl PgExecutor<'_>,
    who: &Claimant,
    attempts: &[Value],
    ops: &[Value],
    claims: &[Value],
) -> Result<Vec<News>> {
    sqlx::query_as::<_, NewsRow>("select * from workflow.pump($1, $2, $3, $4, $5, $6)")
        .bind(who.worker_id)
        .bind(&who.name)
        .bind(Json(attempts))
        .bind(Json(ops))
        .bind(Json(claims))
        .bind(Json(&who.labels))
        .fetch_all(db)
        .await
        .map(read_news)
}

/// An entry of `workflow.settle` for a failed attempt.
pub(crate) fn attempt_failed(task_id: i64, token: Uuid, failure: &Failure) -> Value {
    let outcome = if failure.is_cancelled() { "cancelled" } else { "failed" };
    let failure = storable(failure);
    json!({ "task_id": task_id, "token": token, "outcome": outcome, "failure": failure })
}

/// Gives back, uncounted, what an incarnation has leased without knowing: the answer to its claim was lost. Answers the
/// queues that have work now.
pub(crate) async fn disown(db: impl PgExecutor<'_>, worker_id: i64, known: &[i64]) -> Result<Vec<String>> {
    sqlx::query_scalar(
        "with freed as (
            update workflow.tasks
            set state = 'ready', lease_token = null, leased_by = null, worker_id = null, leased_at = null,
                lease_expires_at = null
            where id = any (array (
                select id from workflow.tasks
                where lease_expires_at is not null and worker_id = $1 and id <> all ($2) for update skip locked))
            returning queue
        )
        select distinct queue from freed",
    )
    .bind(worker_id)
    .bind(known)
    .fetch_all(db)
    .await
}

/// Renews leases and stores progress. A task that is missing in the answer was lost, or is being written right
/// now: ask [`standing`].
pub(crate) async fn renew(
    db: impl PgExecutor<'_>,
    ids: &[i64],
    tokens: &[Uuid],
    progress: &[Option<Value>],
) -> Result<Vec<(i64, bool)>> {
    sqlx::query_as("select task_id, cancel_requested from workflow.renew($1, $2, $3)")
        .bind(ids)
        .bind(tokens)
        .bind(progress)
        .fetch_all(db)
        .await
}

/// Which of these leases are held, and whether their run was cancelled. Waits for nobody.
pub(crate) async fn standing(db: impl PgExecutor<'_>, ids: &[i64], tokens: &[Uuid]) -> Result<Vec<(i64, bool)>> {
    sqlx::query_as(
        "select id, cancel_requested from workflow.tasks where id = any ($1) and lease_token = any ($2) and state = 'leased'",
    )
    .bind(ids)
    .bind(tokens)
    .fetch_all(db)
    .await
}

/// Whether a lease is held, by the clock of the database.
pub(crate) async fn holds(db: impl PgExecutor<'_>, task_id: i64, token: Uuid) -> Result<bool> {
    sqlx::query_scalar(
        "select exists (select from workflow.tasks
                        where id = $1 and lease_token = $2 and state = 'leased' and lease_expires_at > workflow.now())",
    )
    .bind(task_id)
    .bind(token)
    .fetch_one(db)
    .await
}

/// As [`holds`], and keeps the lease from being taken away until the caller's transaction ends.
pub(crate) async fn holds_for_share(db: impl PgExecutor<'_>, task_id: i64, token: Uuid) -> Result<bool> {
    let row: Option<i64> = sqlx::query_scalar(
        "select id from workflow.tasks
         where id = $1 and lease_token = $2 and state = 'leased' and lease_expires_at > workflow.now() for share",
    )
    .bind(task_id)
    .bind(token)
    .fetch_optional(db)
    .await?;
    Ok(row.is_some())
}

pub(crate) async fn input(db: impl PgExecutor<'_>, task_id: i64, token: Uuid) -> Result<Option<Value>> {
    sqlx::query_scalar("select input from workflow.tasks where id = $1 and lease_token = $2 and kind = 'activity'")
        .bind(task_id)
        .bind(token)
        .fetch_optional(db)
        .await
}

/// How an ended attempt ended; `None` when no attempt with this token has ended.
pub(crate) async fn ended_as(db: impl PgExecutor<'_>, task_id: i64, token: Uuid) -> Result<Option<String>> {
    sqlx::query_scalar("select outcome from workflow.attempts where task_id = $1 and lease_token = $2")
        .bind(task_id)
        .bind(token)
        .fetch_optional(db)
        .await
}

/// The live tasks of a run, its activities first come first.
pub(crate) async fn of_run(db: impl PgExecutor<'_>, run_id: Uuid) -> Result<Vec<TaskRow>> {
    sqlx::query_as(
        "select id, kind, step_key as key, queue, activity, state, attempt_no, failures, losses,
                nullif(run_at, 'infinity') as run_at, leased_by, leased_at,
                lease_expires_at, progress, cancel_requested, parked_reason, parked_failure
         from workflow.tasks where run_id = $1 order by kind desc, id",
    )
    .bind(run_id)
    .fetch_all(db)
    .await
}
