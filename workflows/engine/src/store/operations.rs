//! Operations: their functions, their audit, and what they look at.

pub(crate) use super::{bulk::*, find::*, retention::*};
use crate::failpoint::{At as _, Point};
use crate::operations::{
    AttemptRow, AuditRow, By, Facts, KindTotal, Lineage, MarkRow, Offer, PausedQueue, QueueDepth, Total,
};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection, PgExecutor, Postgres, QueryBuilder, Result};
use uuid::Uuid;

// ------------------------------------------------------------------------------------------- audit

/// Notes an operation, in its own transaction.
pub(crate) async fn audit(
    db: &mut PgConnection,
    by: &By,
    action: &str,
    tenant_id: Option<Uuid>,
    target: &str,
    before: Option<Value>,
    after: Option<Value>,
) -> Result<()> {
    sqlx::query(
        "insert into workflow.audit (at, actor, action, tenant_id, target, reason, before, after)
         values (workflow.now(), $1, $2, $3, $4, $5, $6, $7)",
    )
    .bind(&by.actor)
    .bind(action)
    .bind(tenant_id)
    .bind(target)
    .bind(&by.reason)
    .bind(before)
    .bind(after)
    .execute(db)
    .at(Point::Audit)
    .await
    .map(|_| ())
}

pub(crate) async fn audit_of(db: impl PgExecutor<'_>, target: &str, limit: i64) -> Result<Vec<AuditRow>> {
    sqlx::query_as(
        "select id, at, actor, action, tenant_id, target, reason, before, after
         from workflow.audit where target = $1 order by id desc limit $2",
    )
    .bind(target)
    .bind(limit)
    .fetch_all(db)
    .await
}

// ------------------------------------------------------------------------------------------- one run

/// What the audit keeps of a task.
#[derive(Debug, Clone, Serialize, FromRow)]
pub(crate) struct TaskNote {
    pub run_id: Uuid,
    pub tenant_id: Uuid,
    pub queue: String,
    step_key: String,
    activity: String,
    state: String,
    attempt_no: i32,
    failures: i32,
    leased_by: Option<String>,
}

pub(crate) async fn task_of(db: impl PgExecutor<'_>, task_id: i64) -> Result<Option<TaskNote>> {
    sqlx::query_as(
        "select run_id, tenant_id, queue, step_key, activity, state, attempt_no, failures, leased_by
         from workflow.tasks where id = $1",
    )
    .bind(task_id)
    .fetch_optional(db)
    .await
}

/// See `workflow.retry_now`.
pub(crate) async fn retry_now(db: &mut PgConnection, task_id: i64) -> Result<String> {
    sqlx::query_scalar("select workflow.retry_now($1)").bind(task_id).fetch_one(db).at(Point::RetryNow).await
}

/// See `workflow.force_release`.
pub(crate) async fn force_release(db: &mut PgConnection, task_id: i64, why: &str) -> Result<String> {
    sqlx::query_scalar("select workflow.force_release($1, $2)")
        .bind(task_id)
        .bind(why)
        .fetch_one(db)
        .at(Point::ForceRelease)
        .await
}

/// See `workflow.skip_activity`.
pub(crate) async fn skip(db: &mut PgConnection, task_id: i64, output: &Value) -> Result<String> {
    sqlx::query_scalar("select workflow.skip_activity($1, $2)")
        .bind(task_id)
        .bind(output)
        .fetch_one(db)
        .at(Point::Skip)
        .await
}

/// See `workflow.set_priority`.
pub(crate) async fn set_priority(db: &mut PgConnection, run_id: Uuid, priority: i16) -> Result<String> {
    sqlx::query_scalar("select workflow.set_priority($1, $2)")
        .bind(run_id)
        .bind(priority)
        .fetch_one(db)
        .at(Point::SetPriority)
        .await
}

/// See `workflow.purge_run`.
pub(crate) async fn purge(db: &mut PgConnection, run_id: Uuid) -> Result<String> {
    sqlx::query_scalar("select workflow.purge_run($1)").bind(run_id).fetch_one(db).at(Point::Purge).await
}

/// A run to be made out of another; see `workflow.fork_run`.
pub(crate) struct NewFork<'a> {
    pub origin: Uuid,
    pub new: Uuid,
    pub how: &'a str,
    pub from: Option<&'a str>,
    pub input: Option<&'a Value>,
    pub version: Option<i32>,
    pub step: Option<&'a Value>,
}

pub(crate) async fn fork(db: &mut PgConnection, asked: &NewFork<'_>) -> Result<String> {
    sqlx::query_scalar("select workflow.fork_run($1, $2, $3, $4, $5, $6, $7)")
        .bind(asked.origin)
        .bind(asked.new)
        .bind(asked.how)
        .bind(asked.from)
        .bind(asked.input)
        .bind(asked.version)
        .bind(asked.step)
        .fetch_one(db)
        .at(Point::Fork)
        .await
}

const LINEAGE: &str = "run_id, origin_run_id, root_run_id, how, from_key, copied, edited, created_at";

pub(crate) async fn lineage_of(db: impl PgExecutor<'_>, run_id: Uuid) -> Result<Option<Lineage>> {
    let sql = format!("select {LINEAGE} from workflow.run_lineage where run_id = $1");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(run_id).fetch_optional(db).await
}

pub(crate) async fn made_from(db: impl PgExecutor<'_>, run_id: Uuid) -> Result<Vec<Lineage>> {
    let sql = format!("select {LINEAGE} from workflow.run_lineage where origin_run_id = $1 order by run_id limit 500");
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(run_id).fetch_all(db).await
}

/// Merges attributes. False: there is no such run.
pub(crate) async fn set_attributes(db: &mut PgConnection, run_id: Uuid, attributes: &Value) -> Result<bool> {
    let done = sqlx::query(
        "insert into workflow.run_attributes as a (run_id, tenant_id, attributes)
         select id, tenant_id, $2 from workflow.runs where id = $1
         on conflict (run_id) do update set attributes = a.attributes || excluded.attributes",
    )
    .bind(run_id)
    .bind(attributes)
    .execute(db)
    .at(Point::SetAttributes)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that a run was started in the place of one that failed.
pub(crate) async fn note_anew(db: &mut PgConnection, failed: Uuid, new: Uuid) -> Result<()> {
    sqlx::query(
        "insert into workflow.run_lineage (run_id, origin_run_id, root_run_id, how, copied, edited, created_at)
         select $2, $1, coalesce((select root_run_id from workflow.run_lineage where run_id = $1), $1), 'retry', 0, false, workflow.now()",
    )
    .bind(failed)
    .bind(new)
    .execute(db)
    .at(Point::Fork)
    .await
    .map(|_| ())
}

/// The last `limit` attempts that are over, the last one at each of `limit` tasks that nobody works on, and `limit` of those under way, the
/// run's own before the newest; in the order of their starts.
pub(crate) async fn attempts_of(db: impl PgExecutor<'_>, run_id: Uuid, limit: i64) -> Result<Vec<AttemptRow>> {
    sqlx::query_as(
        "(select step_key, attempt_no, worker, started_at, ended_at, outcome
          from workflow.attempts where run_id = $1 order by started_at desc, attempt_no desc limit $2)
         union
         (select a.step_key, a.attempt_no, a.worker, a.started_at, a.ended_at, a.outcome
          from workflow.tasks t
          join workflow.attempts a on a.run_id = t.run_id and a.task_id = t.id and a.attempt_no = t.attempt_no
          where t.run_id = $1 and t.state <> 'leased' order by t.id limit $2)
         union all
         (select step_key, attempt_no, leased_by, leased_at, null, null
          from workflow.tasks where run_id = $1 and state = 'leased' order by kind = 'run' desc, leased_at desc limit $2)
         order by 4, 2",
    )
    .bind(run_id)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// The last `limit` records, in the order of their times.
pub(crate) async fn marks_of(db: impl PgExecutor<'_>, run_id: Uuid, limit: i64) -> Result<Vec<MarkRow>> {
    sqlx::query_as(
        "select key, kind, outcome, recorded_at
         from (select key, kind, outcome, recorded_at, seq from workflow.steps where run_id = $1 order by seq desc limit $2) newest
         order by recorded_at, seq",
    )
    .bind(run_id)
    .bind(limit)
    .fetch_all(db)
    .await
}

// ------------------------------------------------------------------------------------------- totals

pub(crate) async fn totals(db: impl PgExecutor<'_>, tenant: Option<Uuid>) -> Result<Vec<Total>> {
    sqlx::query_as(
        "select kind, tenant_id, state, n from workflow.run_totals where ($1::uuid is null or tenant_id = $1)
         order by kind, tenant_id, state",
    )
    .bind(tenant)
    .fetch_all(db)
    .await
}

pub(crate) async fn totals_by_kind(db: impl PgExecutor<'_>, tenant: Option<Uuid>) -> Result<Vec<KindTotal>> {
    sqlx::query_as(
        "select kind, state, sum(n)::bigint as n from workflow.run_totals where ($1::uuid is null or tenant_id = $1)
         group by kind, state order by kind, state",
    )
    .bind(tenant)
    .fetch_all(db)
    .await
}

/// See `workflow.fold_counts`. Says as well whether an operation on many runs is under way.
pub(crate) async fn fold_counts(db: impl PgExecutor<'_>) -> Result<(i64, bool)> {
    sqlx::query_as(
        "select workflow.fold_counts(20000), exists (select from workflow.bulk_operations where state = 'running')",
    )
    .fetch_one(db)
    .at(Point::FoldCounts)
    .await
}

// ------------------------------------------------------------------------------------------- queues

/// False: it is paused already.
pub(crate) async fn pause_queue(db: &mut PgConnection, by: &By, queue: &str) -> Result<bool> {
    let done = sqlx::query(
        "insert into workflow.queue_controls (queue, paused_at, paused_by, reason) values ($1, workflow.now(), $2, $3)
         on conflict (queue) do nothing",
    )
    .bind(queue)
    .bind(&by.actor)
    .bind(&by.reason)
    .execute(db)
    .at(Point::PauseQueue)
    .await?;
    Ok(done.rows_affected() == 1)
}

pub(crate) async fn resume_queue(db: &mut PgConnection, queue: &str) -> Result<Option<PausedQueue>> {
    sqlx::query_as("delete from workflow.queue_controls where queue = $1 returning queue, paused_at, paused_by, reason")
        .bind(queue)
        .fetch_optional(db)
        .at(Point::ResumeQueue)
        .await
}

pub(crate) async fn paused_queues(db: impl PgExecutor<'_>) -> Result<Vec<PausedQueue>> {
    sqlx::query_as("select queue, paused_at, paused_by, reason from workflow.queue_controls order by queue")
        .fetch_all(db)
        .await
}

pub(crate) async fn paused(db: &mut PgConnection, queue: &str) -> Result<Option<PausedQueue>> {
    sqlx::query_as("select queue, paused_at, paused_by, reason from workflow.queue_controls where queue = $1")
        .bind(queue)
        .fetch_optional(db)
        .await
}

// ------------------------------------------------------------------------------------------- why not

/// What is known about a task, or about all tasks of a run.
pub(crate) async fn facts(db: &mut PgConnection, task_id: Option<i64>, run_id: Option<Uuid>) -> Result<Vec<Facts>> {
    let mut sql = QueryBuilder::<Postgres>::new(
        "select t.id, t.kind, t.run_id, t.step_key as key, t.queue, t.activity, t.required_labels as labels, t.tenant_id, t.limit_key, t.priority, t.state,
                nullif(t.run_at, 'infinity') as run_at, t.attempt_no, t.failures, t.max_failures, t.leased_by, t.leased_at,
                t.lease_expires_at, t.progress, t.cancel_requested, t.parked_reason,
                (select coalesce(a.failure ->> 'code', case a.outcome when 'lost' then 'workflow.lost' end)
                 from workflow.attempts a where a.task_id = t.id and a.attempt_no = t.attempt_no and a.run_id = t.run_id) as last_code
         from workflow.tasks t where ",
    );
    match (task_id, run_id) {
        (Some(task_id), _) => sql.push("t.id = ").push_bind(task_id),
        (None, run_id) => sql.push("t.run_id = ").push_bind(run_id),
    };
    sql.push(" order by t.id limit 1000");
    sql.build_query_as().fetch_all(db).await
}

/// Who, alive, does `name` from `queue`: worker processes, and who claimed over HTTP in the last minutes.
pub(crate) async fn offers(db: &mut PgConnection, queue: &str, name: &str, remote: bool) -> Result<Vec<Offer>> {
    sqlx::query_as(
        "select o.worker_id, o.labels, o.slots::bigint as slots
         from workflow.worker_offers o join workflow.workers w on w.id = o.worker_id and w.ended_at is null
         where o.queue = $1 and $2 = any (o.names)
         union all
         select null, r.labels, 0 from workflow.remote_workers r
         where $3 and $1 = any (r.queues) and r.seen_at > workflow.now() - interval '2 min'",
    )
    .bind(queue)
    .bind(name)
    .bind(remote)
    .fetch_all(db)
    .await
}

/// Tasks that are claimed before this one, at most 1000.
pub(crate) async fn ahead(db: &mut PgConnection, task: &Facts) -> Result<i64> {
    sqlx::query_scalar(
        "select count(*) from (
            select from workflow.tasks t
            where t.queue = $1 and t.state = 'ready' and not t.lined
              and (t.priority > $2 or (t.priority = $2 and (t.run_at, t.id) < ($3, $4)))
            order by t.priority desc, t.run_at, t.id limit 1000) before",
    )
    .bind(&task.queue)
    .bind(task.priority)
    .bind(task.run_at)
    .bind(task.id)
    .fetch_one(db)
    .await
}

/// Slots of a queue that these workers use.
pub(crate) async fn in_use(db: &mut PgConnection, queue: &str, workers: &[i64]) -> Result<i64> {
    sqlx::query_scalar(
        "select count(*) from workflow.tasks where lease_expires_at is not null and queue = $1 and worker_id = any ($2)",
    )
    .bind(queue)
    .bind(workers)
    .fetch_one(db)
    .await
}

/// A run that this one waits for.
pub(crate) async fn live_child(db: &mut PgConnection, run_id: Uuid) -> Result<Option<(Uuid, String)>> {
    sqlx::query_as(
        "select run_id, substring(activity from '^(.*)[.]v[0-9]+$') from workflow.tasks
         where parent_run_id = $1 order by run_id limit 1",
    )
    .bind(run_id)
    .fetch_optional(db)
    .await
}

/// Notes what a worker can do.
pub(crate) async fn offer(db: &mut PgConnection, worker_id: i64, offers: &[NewOffer]) -> Result<()> {
    for offer in offers {
        sqlx::query(
            "insert into workflow.worker_offers (worker_id, queue, names, labels, slots) values ($1, $2, $3, $4, $5)
             on conflict do nothing",
        )
        .bind(worker_id)
        .bind(&offer.queue)
        .bind(&offer.names)
        .bind(sqlx::types::Json(&offer.labels))
        .bind(offer.slots)
        .execute(&mut *db)
        .at(Point::WorkerOffer)
        .await?;
    }
    Ok(())
}

/// What a worker does from one queue.
#[derive(Debug, Clone)]
pub(crate) struct NewOffer {
    pub queue: String,
    pub names: Vec<String>,
    pub labels: crate::activity::Labels,
    pub slots: i32,
}

/// Notes who claims over HTTP, unless that was done of late.
pub(crate) async fn seen_remotely(db: impl PgExecutor<'_>, seen: &[crate::client::RemoteNote]) -> Result<()> {
    if seen.is_empty() {
        return Ok(());
    }
    let notes: Vec<_> = seen.iter().map(|(name, queues, labels)| json!([name, queues, labels])).collect();
    sqlx::query(
        "insert into workflow.remote_workers as r (name, queues, labels, seen_at)
         select n ->> 0, array (select jsonb_array_elements_text(n -> 1)), n -> 2, workflow.now()
         from jsonb_array_elements($1) n order by n ->> 0
         on conflict (name) do update set queues = excluded.queues, labels = excluded.labels, seen_at = excluded.seen_at
         where r.seen_at < excluded.seen_at - interval '10 s' or r.labels <> excluded.labels or r.queues <> excluded.queues",
    )
    .bind(sqlx::types::Json(notes))
    .execute(db)
    .at(Point::RemoteSeen)
    .await
    .map(|_| ())
}

// ------------------------------------------------------------------------------------------- metrics

/// How many runs there are, of all tenants: a label per tenant would be one too many.
pub(crate) async fn runs_by_kind(db: impl PgExecutor<'_>) -> Result<Vec<(String, String, i64)>> {
    sqlx::query_as("select kind, state, sum(n)::bigint from workflow.run_totals group by kind, state")
        .fetch_all(db)
        .at(Point::RunsByKind)
        .await
}

/// How many runs are parked, by every reason there is; 10 000 stands for at least so many.
pub(crate) async fn parked_by_reason(db: impl PgExecutor<'_>) -> Result<Vec<(String, i64)>> {
    sqlx::query_as(
        "select r.reason, count(p.parked_reason)
         from unnest(array['version_mismatch', 'lost_too_often', 'unrecordable', 'unreadable']) r (reason)
         left join (select parked_reason from workflow.tasks where parked_reason is not null limit 10000) p
             on p.parked_reason = r.reason
         group by r.reason",
    )
    .fetch_all(db)
    .at(Point::ParkedByReason)
    .await
}

/// The session that keeps the oldest snapshot of this database.
#[derive(Debug, FromRow)]
pub(crate) struct Snapshot {
    pub pid: i32,
    pub application: String,
    pub state: String,
    /// Since its transaction began.
    pub seconds: f64,
}

/// See [`Snapshot`]. Sessions of other roles are seen with the rights of `pg_read_all_stats` only.
pub(crate) async fn oldest_snapshot(db: impl PgExecutor<'_>) -> Result<Option<Snapshot>> {
    sqlx::query_as(
        "select pid, coalesce(application_name, '') as application, coalesce(state, '') as state,
                greatest(extract(epoch from clock_timestamp() - xact_start), 0)::float8 as seconds
         from pg_stat_activity
         where datname = current_database() and backend_xmin is not null and xact_start is not null
           and pid <> pg_backend_pid()
         order by age(backend_xmin) desc, xact_start limit 1",
    )
    .fetch_optional(db)
    .at(Point::OldestSnapshot)
    .await
}

/// Ready work by queue, of runs and activities or of jobs; 10 000 stands for at least so many. Jumps from queue to queue in the
/// index of the claim.
pub(crate) async fn ready_by_queue(db: impl PgExecutor<'_>) -> Result<Vec<QueueDepth>> {
    let depths = [
        ("tasks", "t.state = 'ready' and not t.lined"),
        ("tasks", "t.state = 'ready' and t.lined"),
        ("jobs", "t.worker_id is null and not t.lined"),
        ("jobs", "t.worker_id is null and t.lined"),
    ]
    .map(|(table, ready)| ready_in(table, ready))
    .join(" union all ");
    let sql = format!(
        "select queue, sum(ready)::bigint as ready, max(oldest_seconds) as oldest_seconds from ({depths}) d group by queue
         order by queue"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).fetch_all(db).at(Point::ReadyByQueue).await
}

fn ready_in(table: &str, ready: &str) -> String {
    format!(
        "(with recursive q as (
            (select t.queue from workflow.{table} t where {ready} order by t.queue limit 1)
            union all
            select (select t.queue from workflow.{table} t where {ready} and t.queue > q.queue order by t.queue limit 1)
            from q where q.queue is not null)
         select q.queue, r.ready, greatest(coalesce(r.oldest, 0), 0)::float8 as oldest_seconds
         from q cross join lateral (
            select count(*) filter (where run_at <= (select workflow.now())) as ready,
                   extract(epoch from (select workflow.now()) - min(run_at)) as oldest
            from (select t.run_at from workflow.{table} t where t.queue = q.queue and {ready} limit 10000) first) r
         where q.queue is not null)"
    )
}
