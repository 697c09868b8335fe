//! Tasks: claim, round trips of the pump, leases.

use super::{Fence, News, NewsRow, read_news, runs::MAX_LOSSES};
use crate::{
    activity::Labels,
    client::TaskRow,
    failpoint::{At as _, Point},
    failure::Failure,
    record::storable,
    trace::TraceContext,
    worker::RUN_QUEUE,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
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

/// The one thing that a run asks for, where it is a record of something it came by, or its end. See `workflow.advance_plain`.
#[derive(Debug, Clone, Default)]
pub(crate) struct Plain {
    /// The kind of the record, or the state in which the run ends.
    pub what: &'static str,
    /// The key of the record; none: the run ends.
    pub key: Option<String>,
    /// The run, when it ends.
    pub ends: Option<Uuid>,
    pub name: Option<&'static str>,
    /// The output, or the error of a run that does not succeed; none for null.
    pub body: Option<Value>,
    /// When the definition came by it; none: when it is recorded.
    pub at: Option<DateTime<Utc>>,
    /// The number that a last record has to have, for it and for the end of its run.
    pub seq: Option<i64>,
    /// What is recorded with the end of the run.
    pub last: Option<Box<Plain>>,
}

impl Plain {
    /// The entries of `workflow.advance_plain` that it makes.
    pub(crate) fn entries(&self) -> impl Iterator<Item = &Self> {
        self.last.as_deref().into_iter().chain([self])
    }
}

/// What one round trip carries.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Trip<'a> {
    /// Entries of `workflow.settle`.
    pub attempts: &'a [&'a Value],
    /// Entries of `workflow.advance`.
    pub ops: &'a [&'a Value],
    /// Entries of `workflow.advance_plain`, in the order of their tasks.
    pub plain: &'a [(Fence, &'a Plain)],
    /// Some of it may have been written before.
    pub again: bool,
    /// Runs to start, of which the first `lease` are to be the worker's own.
    pub starts: &'a [&'a NewRun],
    pub lease: usize,
    /// Entries of `workflow.claim`.
    pub claims: &'a [Value],
}

/// A run to start, without a business key.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct NewRun {
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub kind: &'static str,
    pub version: i32,
    pub input: Value,
    pub priority: i16,
    pub traceparent: Option<TraceContext>,
}

/// One round trip and one commit: ends of attempts, progress of runs, then claims. See `workflow.pump`.
pub(crate) async fn pump(
    db: impl PgExecutor<'_>,
    who: &Claimant,
    Trip { attempts, ops, plain, again, starts, lease, claims }: Trip<'_>,
) -> Result<Vec<News>> {
    let sql = "select * from workflow.pump($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19)";
    let plain: Vec<_> =
        plain.iter().flat_map(|(fence, plain)| plain.entries().map(move |entry| (fence, entry))).collect();
    sqlx::query_as::<_, NewsRow>(sql)
        .bind(who.worker_id)
        .bind(&who.name)
        .bind(Json(attempts))
        .bind(Json(ops))
        .bind(Json(claims))
        .bind(Json(&who.labels))
        .bind(plain.iter().map(|(fence, _)| fence.task_id).collect::<Vec<_>>())
        .bind(plain.iter().map(|(fence, _)| fence.token).collect::<Vec<_>>())
        .bind(plain.iter().map(|(_, plain)| plain.what).collect::<Vec<_>>())
        .bind(plain.iter().map(|(_, plain)| plain.key.as_deref()).collect::<Vec<_>>())
        .bind(plain.iter().map(|(_, plain)| plain.name).collect::<Vec<_>>())
        .bind(plain.iter().map(|(_, plain)| plain.body.as_ref()).collect::<Vec<_>>())
        .bind(plain.iter().map(|(_, plain)| plain.seq).collect::<Vec<_>>())
        .bind(plain.iter().map(|(_, plain)| plain.at).collect::<Vec<_>>())
        .bind(again)
        .bind(Json(starts))
        .bind(RUN_QUEUE)
        .bind(MAX_LOSSES)
        .bind(lease as i32)
        .fetch_all(db)
        .at(Point::TaskPump)
        .await
        .map(read_news)
}

/// Leases tasks that somebody has chosen. See `workflow.claim_these`.
pub(crate) async fn claim_these(
    db: impl PgExecutor<'_>,
    who: &Claimant,
    queues: &[&str],
    names: Option<&[String]>,
    ids: &[i64],
) -> Result<Vec<News>> {
    sqlx::query_as::<_, NewsRow>("select * from workflow.claim_these($1, $2, $3, $4, $5)")
        .bind(ids)
        .bind(queues)
        .bind(names)
        .bind(Json(&who.labels))
        .bind(&who.name)
        .fetch_all(db)
        .at(Point::TaskPump)
        .await
        .map(read_news)
}

/// Starts a run that may have been started before; somebody is to claim it.
pub(crate) async fn start(db: impl PgExecutor<'_>, run: &NewRun) -> Result<()> {
    sqlx::query("select from workflow.start_here($1, $2, $3, 0, null, null)")
        .bind(Json([run]))
        .bind(RUN_QUEUE)
        .bind(MAX_LOSSES)
        .execute(db)
        .at(Point::TaskStart)
        .await
        .map(drop)
}

/// An entry of `workflow.settle` for a failed attempt.
pub(crate) fn attempt_failed(task_id: i64, token: Uuid, failure: &Failure) -> Value {
    let outcome = if failure.is_cancelled() { "cancelled" } else { "failed" };
    let failure = storable(failure);
    json!({ "task_id": task_id, "token": token, "outcome": outcome, "failure": failure })
}

/// Gives back, uncounted, what an incarnation has leased without knowing: the answer to its claim was lost, or it has taken the lease
/// for lost before anybody else did. What is being cancelled is nobody's to begin again: it is lost, and that ends it. Answers the
/// queues that have work now.
pub(crate) async fn disown(db: impl PgExecutor<'_>, worker_id: i64, known: &[i64]) -> Result<Vec<String>> {
    sqlx::query_scalar(
        "with held as materialized (
            select * from workflow.tasks
            where lease_expires_at is not null and worker_id = $1 and id <> all ($2)
              and not (kind = 'activity' and cancel_requested)
            for update skip locked
        ), noted as (
            insert into workflow.attempts
                (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome)
            select id, attempt_no, run_id, tenant_id, step_key, lease_token, leased_by, leased_at, workflow.now(), 'released'
            from held
        ), freed as (
            update workflow.tasks t
            set state = 'ready', lease_token = null, leased_by = null, worker_id = null, leased_at = null,
                lease_expires_at = null
            from held h where t.id = h.id
            returning t.queue
        )
        select distinct queue from freed",
    )
    .bind(worker_id)
    .bind(known)
    .fetch_all(db)
    .at(Point::TaskDisown)
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
        .at(Point::TaskRenew)
        .await
}

/// Which of these leases are held, and whether their run was cancelled. Waits for nobody.
pub(crate) async fn standing(db: impl PgExecutor<'_>, ids: &[i64], tokens: &[Uuid]) -> Result<Vec<(i64, bool)>> {
    sqlx::query_as(
        "select id, cancel_requested from workflow.tasks where id = any ($1) and lease_token = any ($2) and state = 'leased'",
    )
    .bind(ids)
    .bind(tokens)
    .fetch_all(db).at(Point::TaskStanding)
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

/// A remote worker's holder is its name, a colon and a UUID: so many characters of it are not its name.
const INCARNATION: i32 = 37;

/// The lease of `token`, if it is the newest of the task and was given to the remote worker `name`.
pub(crate) async fn lease_of(
    db: impl PgExecutor<'_>,
    name: &str,
    task_id: i64,
    token: Uuid,
) -> Result<Option<crate::remote::Lease>> {
    sqlx::query_as(
        "select run_id, tenant_id, activity, input, lease_seconds, lease_expires_at > workflow.now() as in_time
         from workflow.tasks
         where id = $1 and lease_token = $2 and state = 'leased' and kind = 'activity' and left(leased_by, -$4) = $3",
    )
    .bind(task_id)
    .bind(token)
    .bind(name)
    .bind(INCARNATION)
    .fetch_optional(db)
    .await
}

/// What the remote worker `name` was given under `token`, when that attempt is over and the task is not.
pub(crate) async fn past_lease(
    db: impl PgExecutor<'_>,
    name: &str,
    task_id: i64,
    token: Uuid,
) -> Result<Option<crate::remote::Lease>> {
    sqlx::query_as(
        "select run_id, tenant_id, activity, input, lease_seconds, false as in_time
         from workflow.tasks t
         where id = $1 and kind = 'activity'
           and exists (select from workflow.attempts a
                       where a.run_id = t.run_id and a.task_id = t.id and a.lease_token = $2 and left(a.worker, -$4) = $3)",
    )
    .bind(task_id)
    .bind(token)
    .bind(name)
    .bind(INCARNATION)
    .fetch_optional(db)
    .await
}

/// Whether `token` was given to the remote worker `name` for this task, and its attempt is over.
pub(crate) async fn had_lease(db: impl PgExecutor<'_>, name: &str, task_id: i64, token: Uuid) -> Result<bool> {
    sqlx::query_scalar(
        "select exists (select from workflow.attempts
                        where task_id = $1 and lease_token = $2 and left(worker, -$4) = $3)",
    )
    .bind(task_id)
    .bind(token)
    .bind(name)
    .bind(INCARNATION)
    .fetch_one(db)
    .await
}

/// Gives a lease that was taken for lost back to the remote worker `name` that held it, as a new attempt under the old token: if
/// the task was given to nobody since, and is still wanted. What was not lost after all does not count as a loss.
pub(crate) async fn adopt(db: impl PgExecutor<'_>, name: &str, task_id: i64, token: Uuid) -> Result<bool> {
    let adopted: Option<i64> = sqlx::query_scalar(
        "update workflow.tasks t
         set state = 'leased', attempt_no = t.attempt_no + 1, lease_token = a.lease_token, leased_by = a.worker,
             leased_at = a.started_at, lease_expires_at = workflow.now() + make_interval(secs => t.lease_seconds),
             losses = greatest(t.losses - 1, 0), lined = false
         from workflow.attempts a
         where t.id = $1 and t.kind = 'activity' and t.state in ('ready', 'waiting') and not t.cancel_requested
           and a.run_id = t.run_id and a.task_id = t.id and a.attempt_no = t.attempt_no
           and a.lease_token = $2 and a.outcome = 'lost' and left(a.worker, -$4) = $3
         returning t.id",
    )
    .bind(task_id)
    .bind(token)
    .bind(name)
    .bind(INCARNATION)
    .fetch_optional(db)
    .at(Point::TaskRenew)
    .await?;
    Ok(adopted.is_some())
}

pub(crate) async fn input(db: impl PgExecutor<'_>, task_id: i64, token: Uuid) -> Result<Option<(Uuid, Value)>> {
    sqlx::query_as(
        "select tenant_id, input from workflow.tasks where id = $1 and lease_token = $2 and kind = 'activity'",
    )
    .bind(task_id)
    .bind(token)
    .fetch_optional(db)
    .await
}

pub(crate) async fn tenant_of(db: impl PgExecutor<'_>, task_id: i64) -> Result<Option<Uuid>> {
    sqlx::query_scalar("select tenant_id from workflow.tasks where id = $1").bind(task_id).fetch_optional(db).await
}

/// How an ended attempt ended; `None` when no attempt with this token has ended.
pub(crate) async fn ended_as(db: impl PgExecutor<'_>, task_id: i64, token: Uuid) -> Result<Option<String>> {
    // A lease that was given back to its holder has more than one.
    sqlx::query_scalar(
        "select outcome from workflow.attempts where task_id = $1 and lease_token = $2 order by attempt_no desc limit 1",
    )
        .bind(task_id)
        .bind(token)
        .fetch_optional(db)
        .at(Point::TaskEndedAs)
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
