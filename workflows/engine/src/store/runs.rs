//! Runs: starting, cancelling, looking.

use super::{News, NewsRow, read_news};
use crate::{
    client::{RunRow, StartRequest},
    failpoint::{At as _, Point},
    worker::RUN_QUEUE,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, Result};
use uuid::Uuid;

/// Workers in a row that a run may lose without a new record before it is given up.
pub(crate) const MAX_LOSSES: i32 = 10;

/// Inserts a run and its task. `None` when its business key is taken; waits for an uncommitted rival.
pub(crate) async fn insert(db: &mut PgConnection, run: &StartRequest<'_>) -> Result<Option<Uuid>> {
    sqlx::query_scalar(
        "with new as materialized (
            select workflow.new_run_id(n.at) as id, n.at from (select workflow.now() as at) n
        ), named as (
            insert into workflow.run_keys (kind, tenant_id, business_key, run_id)
            select $2, $1, $4, id from new where $4 is not null
            on conflict do nothing
            returning run_id
        ), fresh as (
            insert into workflow.runs (id, tenant_id, kind, version, business_key, input, priority, created_at, traceparent)
            select id, $1, $2, $3, $4, $5, $6, at, $10 from new where $4 is null or id = (select run_id from named)
            returning id, tenant_id, priority, created_at
        ), queued as (
            insert into workflow.tasks
                (kind, run_id, tenant_id, step_key, queue, activity, priority, run_at, max_failures, max_losses,
                 backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds, traceparent)
            select 'run', id, tenant_id, '', $7, $8, priority, created_at, 1, $9, 0, 0, 30, 1e9, $10
            from fresh
        )
        select id from fresh",
    )
    .bind(run.tenant_id)
    .bind(run.kind)
    .bind(run.version)
    .bind(run.business_key)
    .bind(&run.input)
    .bind(run.priority)
    .bind(RUN_QUEUE)
    .bind(run_name(run.kind, run.version))
    .bind(MAX_LOSSES)
    .bind(run.traceparent.map(|t| t.to_string()))
    .fetch_optional(db)
    .at(Point::RunInsert)
    .await
}

/// Inserts many runs of one kind, and their tasks, in one statement; gives their ids in the order of the inputs.
pub(crate) async fn insert_all(
    db: &mut PgConnection,
    shared: &StartRequest<'_>,
    inputs: &[Value],
    priorities: &[i16],
) -> Result<Vec<Uuid>> {
    sqlx::query_scalar(
        // Ids a microsecond apart: they have the order of the inputs.
        "with given as materialized (
            select g.*, n.at, workflow.new_run_id(n.at + g.n * interval '1 us') as id
            from (select workflow.now() as at) n, unnest($4, $5) with ordinality as g (input, priority, n)
        ), fresh as (
            insert into workflow.runs (id, tenant_id, kind, version, input, priority, created_at, traceparent)
            select id, $1, $2, $3, input, priority, at, $9 from given
        ), queued as (
            insert into workflow.tasks
                (kind, run_id, tenant_id, step_key, queue, activity, priority, run_at, max_failures, max_losses,
                 backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds, traceparent)
            select 'run', id, $1, '', $6, $7, priority, at, 1, $8, 0, 0, 30, 1e9, $9 from given
        )
        select id from given order by n",
    )
    .bind(shared.tenant_id)
    .bind(shared.kind)
    .bind(shared.version)
    .bind(inputs)
    .bind(priorities)
    .bind(RUN_QUEUE)
    .bind(run_name(shared.kind, shared.version))
    .bind(MAX_LOSSES)
    .bind(shared.traceparent.map(|t| t.to_string()))
    .fetch_all(db)
    .at(Point::RunInsertAll)
    .await
}

/// The name under which the task of a run is claimed: only workers that know this version of the kind take it.
pub(crate) fn run_name(kind: &str, version: i32) -> String {
    format!("{kind}.v{version}")
}

/// The kind in a name made by [`run_name`].
pub(crate) fn kind_of(name: &str) -> &str {
    name.rsplit_once(".v").map_or(name, |(kind, _)| kind)
}

/// The run that holds a business key, also when its row is gone.
pub(crate) async fn by_key(
    db: &mut PgConnection,
    kind: &str,
    tenant_id: Uuid,
    business_key: Option<&str>,
) -> Result<Option<Uuid>> {
    sqlx::query_scalar("select run_id from workflow.run_keys where kind = $1 and tenant_id = $2 and business_key = $3")
        .bind(kind)
        .bind(tenant_id)
        .bind(business_key)
        .fetch_optional(db)
        .at(Point::RunByKey)
        .await
}

/// Whose run it is.
pub(crate) async fn tenant_of(db: impl PgExecutor<'_>, run_id: Uuid) -> Result<Option<Uuid>> {
    sqlx::query_scalar("select tenant_id from workflow.runs where id = $1").bind(run_id).fetch_optional(db).await
}

/// An id for a new run.
pub(crate) async fn new_id(db: impl PgExecutor<'_>) -> Result<Uuid> {
    sqlx::query_scalar("select workflow.new_run_id(workflow.now())").fetch_one(db).at(Point::RunId).await
}

/// The time by the only clock.
pub(crate) async fn now(db: impl PgExecutor<'_>) -> Result<DateTime<Utc>> {
    sqlx::query_scalar("select workflow.now()").fetch_one(db).at(Point::RunNow).await
}

/// See `workflow.cancel`; empty when there is nothing left to cancel.
pub(crate) async fn cancel(db: &mut PgConnection, run_id: Uuid, reason: &str) -> Result<Vec<News>> {
    sqlx::query_as::<_, NewsRow>("select * from workflow.cancel($1, $2)")
        .bind(run_id)
        .bind(reason)
        .fetch_all(db)
        .at(Point::RunCancel)
        .await
        .map(read_news)
}

/// See `workflow.signal`: what became of it, and whom to tell.
pub(crate) async fn signal(
    db: &mut PgConnection,
    run_id: Uuid,
    name: &str,
    dedupe_key: Option<&str>,
    payload: &Value,
) -> Result<(String, Vec<News>)> {
    let rows = sqlx::query_as::<_, NewsRow>("select * from workflow.signal($1, $2, $3, $4)")
        .bind(run_id)
        .bind(name)
        .bind(dedupe_key)
        .bind(payload)
        .fetch_all(db)
        .at(Point::RunSignal)
        .await?;
    let delivery = rows.iter().find(|row| row.what == "signalled").and_then(|row| row.name.clone());
    Ok((delivery.unwrap_or_default(), read_news(rows)))
}

/// See `workflow.resume`; empty when the run is not parked.
pub(crate) async fn resume(db: &mut PgConnection, run_id: Uuid) -> Result<Vec<News>> {
    sqlx::query_as::<_, NewsRow>("select * from workflow.resume($1)")
        .bind(run_id)
        .fetch_all(db)
        .at(Point::RunResume)
        .await
        .map(read_news)
}

pub(crate) async fn find(db: impl PgExecutor<'_>, run_id: Uuid) -> Result<Option<RunRow>> {
    sqlx::query_as(
        "select id, tenant_id, kind, version, business_key, state, input, output, error, priority,
                cancel_requested_at, cancel_reason, created_at, finished_at,
                parent_run_id, parent_key, root_run_id, detached, continued_from, continued_as, traceparent
         from workflow.runs where id = $1",
    )
    .bind(run_id)
    .fetch_optional(db)
    .await
}
