//! Jobs: enqueueing, and the round trip of the lane that works them off.

use crate::{
    activity::{Labels, Policy},
    failpoint::{At as _, Point},
    trace::TraceContext,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection, PgExecutor, PgPool, Result, types::Json};
use std::time::Duration;
use uuid::Uuid;

/// Jobs that one statement inserts.
const INSERT: usize = 5000;

/// What all jobs of one call share.
pub(crate) struct NewJobs<'a> {
    pub tenant_id: Uuid,
    pub queue: &'a str,
    pub activity: &'a str,
    pub priority: i16,
    /// At once when there is none.
    pub run_at: Option<DateTime<Utc>>,
    pub traceparent: Option<TraceContext>,
}

/// One of them.
pub(crate) struct NewJob {
    pub input: Value,
    pub policy: Option<Value>,
    pub labels: Option<Value>,
    pub limit_key: String,
    pub warm_key: Option<String>,
}

/// A policy as the table keeps it; the default is kept as nothing.
pub(crate) fn stored_policy(policy: &Policy) -> Option<Value> {
    (*policy != Policy::default()).then(|| {
        json!({
            "max_failures": policy.max_failures.clamp(1, i32::MAX as u32),
            "max_losses": policy.max_losses.clamp(1, i32::MAX as u32),
            "backoff_base": policy.backoff_base.as_secs_f64().min(86_400.0),
            "backoff_cap": policy.backoff_cap.as_secs_f64().min(86_400.0),
            "start_to_close": policy.start_to_close.as_secs_f64().clamp(0.001, 1e9),
        })
    })
}

/// Inserts jobs; answers how many. Where the queue has terms, what is due at once goes in its line.
pub(crate) async fn insert(db: &mut PgConnection, shared: &NewJobs<'_>, jobs: Vec<NewJob>) -> Result<u64> {
    let mut inserted = 0;
    let mut jobs = jobs.into_iter().peekable();
    while jobs.peek().is_some() {
        let (mut inputs, mut policies, mut labels, mut limits, mut warm) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
        for job in jobs.by_ref().take(INSERT) {
            inputs.push(job.input);
            policies.push(job.policy);
            labels.push(job.labels);
            limits.push(job.limit_key);
            warm.push(job.warm_key);
        }
        inserted += sqlx::query(
            "with terms as (
                select from workflow.queue_terms where queue = $2 and not ended and $5 is null
             ), arrived as (
                insert into workflow.arrivals (queue, tenant_id, limit_key)
                select distinct $2, $1, k from unnest($9) k where exists (select from terms)
             )
             insert into workflow.jobs
                (tenant_id, queue, activity, priority, run_at, input, policy, required_labels, limit_key, warm_key, traceparent, lined)
             select $1, $2, $3, $4, now.at, g.input, g.policy, g.labels, g.limit_key, g.warm_key, $11, exists (select from terms)
             from (select coalesce($5, workflow.now()) as at) now,
                  unnest($6, $7, $8, $9, $10) as g (input, policy, labels, limit_key, warm_key)",
        )
        .bind(shared.tenant_id)
        .bind(shared.queue)
        .bind(shared.activity)
        .bind(shared.priority)
        .bind(shared.run_at)
        .bind(inputs)
        .bind(policies)
        .bind(labels)
        .bind(limits)
        .bind(warm)
        .bind(shared.traceparent.map(|t| t.to_string()))
        .execute(&mut *db)
        .at(Point::JobInsert)
        .await?
        .rows_affected();
    }
    Ok(inserted)
}

/// Inserts a job.
pub(crate) async fn insert_one(db: &mut PgConnection, shared: &NewJobs<'_>, job: NewJob) -> Result<i64> {
    sqlx::query_scalar(
        "with terms as (
            select from workflow.queue_terms where queue = $2 and not ended and $5 is null
         ), arrived as (
            insert into workflow.arrivals (queue, tenant_id, limit_key) select $2, $1, $9 where exists (select from terms)
         )
         insert into workflow.jobs
            (tenant_id, queue, activity, priority, run_at, input, policy, required_labels, limit_key, warm_key, traceparent, lined)
         values ($1, $2, $3, $4, coalesce($5, workflow.now()), $6, $7, $8, $9, $10, $11, exists (select from terms))
         returning id",
    )
    .bind(shared.tenant_id)
    .bind(shared.queue)
    .bind(shared.activity)
    .bind(shared.priority)
    .bind(shared.run_at)
    .bind(job.input)
    .bind(job.policy)
    .bind(job.labels)
    .bind(job.limit_key)
    .bind(job.warm_key)
    .bind(shared.traceparent.map(|t| t.to_string()))
    .fetch_one(db)
    .at(Point::JobInsert)
    .await
}

/// A unique key, with its scope.
pub(crate) struct KeyedJob {
    pub key: String,
    /// See `workflow.jobs.unique_for`.
    pub held: Option<Value>,
    /// It is put off: by how much, and by how much at most.
    pub waits: Option<(Duration, Duration)>,
}

/// Inserts a job unless its key is taken; answers the job that has the key, and whether it is this one. See
/// `workflow.enqueue_keyed`.
pub(crate) async fn insert_keyed(
    db: &mut PgConnection,
    shared: &NewJobs<'_>,
    job: NewJob,
    keyed: &KeyedJob,
) -> Result<(i64, bool)> {
    sqlx::query_as(
        "select job_id, fresh from workflow.enqueue_keyed($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12,
            make_interval(secs => $13), make_interval(secs => $14), $15)",
    )
    .bind(shared.tenant_id)
    .bind(shared.queue)
    .bind(shared.activity)
    .bind(job.input)
    .bind(shared.priority)
    .bind(shared.run_at)
    .bind(job.policy)
    .bind(job.labels)
    .bind(job.limit_key)
    .bind(job.warm_key)
    .bind(&keyed.key)
    .bind(&keyed.held)
    .bind(keyed.waits.map(|(wait, _)| wait.as_secs_f64()))
    .bind(keyed.waits.map(|(_, most)| most.as_secs_f64()))
    .bind(shared.traceparent.map(|t| t.to_string()))
    .fetch_one(db)
    .at(Point::JobInsert)
    .await
}

/// See `workflow.throttle`.
pub(crate) async fn throttle(
    db: &mut PgConnection,
    key: &str,
    n: i32,
    per: Duration,
    deferred: bool,
) -> Result<Option<DateTime<Utc>>> {
    sqlx::query_scalar("select workflow.throttle($1, $2, make_interval(secs => $3), $4)")
        .bind(key)
        .bind(n)
        .bind(per.as_secs_f64())
        .bind(deferred)
        .fetch_one(db)
        .at(Point::JobInsert)
        .await
}

/// See `workflow.revive_job`: the outcome, whose job it is, and its queue.
pub(crate) async fn revive(db: &mut PgConnection, id: i64) -> Result<(String, Option<Uuid>, Option<String>)> {
    let outcome: String =
        sqlx::query_scalar("select workflow.revive_job($1)").bind(id).fetch_one(&mut *db).at(Point::JobRevive).await?;
    let job: Option<(Uuid, String)> = sqlx::query_as("select tenant_id, queue from workflow.jobs where id = $1")
        .bind(id)
        .fetch_optional(db)
        .at(Point::JobRevive)
        .await?;
    let (tenant, queue) = job.unzip();
    Ok((outcome, tenant, queue))
}

/// A claimed job, or one whose lease turned out to be lost.
#[derive(Debug, FromRow)]
pub(crate) struct JobNews {
    pub what: String,
    pub id: i64,
    pub tenant_id: Option<Uuid>,
    pub queue: Option<String>,
    pub activity: Option<String>,
    pub input: Option<Value>,
    pub attempt_no: Option<i32>,
    pub policy: Option<Value>,
    pub run_at: Option<DateTime<Utc>>,
    pub traceparent: Option<String>,
}

/// Jobs that went well: ids, tokens, outputs.
#[derive(Debug, Default)]
pub(crate) struct DoneJobs {
    pub ids: Vec<i64>,
    pub tokens: Vec<Uuid>,
    pub outputs: Vec<Option<Value>>,
}

/// Another end of a job.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct EndedJob {
    pub id: i64,
    pub token: Uuid,
    pub outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<Value>,
}

/// Which jobs to claim.
#[derive(Debug, Serialize)]
pub(crate) struct JobClaim<'a> {
    pub queue: &'a str,
    pub want: usize,
    pub names: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    pub holds: Option<&'a [String]>,
}

/// See `workflow.pump_jobs`.
pub(crate) async fn pump(
    db: impl PgExecutor<'_>,
    worker_id: i64,
    done: &DoneJobs,
    ended: &[EndedJob],
    claims: &[JobClaim<'_>],
    token: Uuid,
    labels: &Labels,
) -> Result<Vec<JobNews>> {
    sqlx::query_as("select * from workflow.pump_jobs($1, $2, $3, $4, $5, $6, $7, $8)")
        .bind(worker_id)
        .bind(&done.ids)
        .bind(&done.tokens)
        .bind(&done.outputs)
        .bind(Json(ended))
        .bind(Json(claims))
        .bind(token)
        .bind(Json(labels))
        .fetch_all(db)
        .at(Point::JobPump)
        .await
}

/// Gives back, uncounted, what this incarnation has claimed with these tokens.
pub(crate) async fn disown(db: impl PgExecutor<'_>, worker_id: i64, tokens: &[Uuid]) -> Result<u64> {
    let freed = sqlx::query(
        "update workflow.jobs set worker_id = null, lease_token = null, leased_at = null
         where id = any (array (
             select id from workflow.jobs where worker_id = $1 and lease_token = any ($2) for update skip locked))",
    )
    .bind(worker_id)
    .bind(tokens)
    .execute(db)
    .at(Point::JobDisown)
    .await?;
    Ok(freed.rows_affected())
}

/// Jobs that have not ended, leased ones included. Counts them all.
pub(crate) async fn unfinished(db: &PgPool) -> Result<i64> {
    sqlx::query_scalar("select count(*) from workflow.jobs").fetch_one(db).await
}
