//! Operations on many runs: their frozen sets, and what became of each item.

use crate::failpoint::{At as _, Point};
use crate::operations::{Bulk, By, Cause, Evidence, Item, Total};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, Result};
use std::collections::HashSet;
use uuid::Uuid;

/// An operation about to be kept.
pub(crate) struct NewBulk<'a> {
    pub id: Uuid,
    pub by: &'a By,
    pub reason: &'a str,
    /// With `action` in it.
    pub action: Value,
    pub filter: Value,
    pub rate_per_second: Option<f64>,
}

pub(crate) async fn insert_bulk(db: &mut PgConnection, new: &NewBulk<'_>, runs: &[Uuid]) -> Result<()> {
    sqlx::query(
        "with kept as (
            insert into workflow.bulk_operations
                (id, actor, action, params, filter, reason, state, rate_per_second, total, created_at)
            values ($1, $2, $3 ->> 'action', $3, $4, $5, 'previewed', $6, cardinality($7), workflow.now())
            returning id)
         insert into workflow.bulk_items (bulk_id, n, run_id)
         select kept.id, r.n, r.id from kept, unnest($7) with ordinality as r (id, n)",
    )
    .bind(new.id)
    .bind(&new.by.actor)
    .bind(&new.action)
    .bind(&new.filter)
    .bind(new.reason)
    .bind(new.rate_per_second)
    .bind(runs)
    .execute(db)
    .at(Point::BulkInsert)
    .await
    .map(|_| ())
}

/// Keeps with an operation by which key it was asked for, and what else is to be known when it is asked for again.
pub(crate) async fn keep_key(db: &mut PgConnection, id: Uuid, known: &Value) -> Result<()> {
    sqlx::query("update workflow.bulk_operations set params = params || $2 where id = $1")
        .bind(id)
        .bind(known)
        .execute(db)
        .at(Point::BulkInsert)
        .await
        .map(|_| ())
}

/// The operation that `actor` has asked for by this key. Whoever asks by the same key waits until this transaction ends.
pub(crate) async fn bulk_by_key(db: &mut PgConnection, actor: &str, key: &str) -> Result<Option<Uuid>> {
    sqlx::query("select pg_advisory_xact_lock(hashtextextended('bulk ' || $1 || ' ' || $2, 0))")
        .bind(actor)
        .bind(key)
        .execute(&mut *db)
        .at(Point::BulkFind)
        .await?;
    sqlx::query_scalar(
        "select id from workflow.bulk_operations where actor = $1 and params ->> 'key' = $2 order by id desc limit 1",
    )
    .bind(actor)
    .bind(key)
    .fetch_optional(db)
    .at(Point::BulkFind)
    .await
}

/// The items of a set by the kind, state and tenant of their runs.
pub(crate) async fn bulk_counts(db: impl PgExecutor<'_>, id: Uuid) -> Result<Vec<Total>> {
    sqlx::query_as(
        "select r.kind, r.tenant_id, r.state, count(*) as n
         from workflow.bulk_items i join workflow.runs r on r.id = i.run_id
         where i.bulk_id = $1 group by 1, 2, 3 order by 1, 2, 3",
    )
    .bind(id)
    .fetch_all(db)
    .await
}

pub(crate) async fn bulk_of(db: &mut PgConnection, id: Uuid) -> Result<Option<Bulk>> {
    sqlx::query_as(
        "select id, actor, action, params, filter, reason, state, rate_per_second, total, next_n, done, skipped,
                conflicts, failed, created_at, started_at, finished_at
         from workflow.bulk_operations where id = $1",
    )
    .bind(id)
    .fetch_optional(db)
    .at(Point::BulkFind)
    .await
}

/// Moves an operation from one of the states `from`; answers which. Waits for a batch that is under way.
pub(crate) async fn turn_bulk(db: &mut PgConnection, id: Uuid, from: &[&str], to: &str) -> Result<Option<String>> {
    sqlx::query_scalar(
        "with old as (select id, state from workflow.bulk_operations where id = $1 for update)
         update workflow.bulk_operations b
         set state = $3, started_at = case $3 when 'running' then coalesce(b.started_at, workflow.now()) else b.started_at end,
             last_batch_at = null, finished_at = case $3 when 'aborted' then workflow.now() end
         from old where b.id = old.id and old.state = any ($2) returning old.state",
    )
    .bind(id)
    .bind(from)
    .bind(to)
    .fetch_optional(db).at(Point::BulkTurn)
    .await
}

/// Locks an operation that may go on, and says by how many items. Never waits.
pub(crate) async fn pick_bulk(db: &mut PgConnection, batch: i64) -> Result<Option<(Uuid, i64)>> {
    sqlx::query_as(
        "select id, least($1, greatest(1, floor(coalesce(rate_per_second
                    * least(extract(epoch from workflow.now() - last_batch_at), 1), $1))))::bigint
         from workflow.bulk_operations
         where state = 'running'
           and (rate_per_second is null or last_batch_at is null
                or last_batch_at + make_interval(secs => 1 / rate_per_second) <= workflow.now())
         order by id limit 1 for update skip locked",
    )
    .bind(batch)
    .fetch_optional(db)
    .at(Point::BulkPick)
    .await
}

pub(crate) async fn items_of(db: impl PgExecutor<'_>, id: Uuid, from: i32, limit: i64) -> Result<Vec<Item>> {
    sqlx::query_as(
        "select n, run_id, outcome, note, result_run_id from workflow.bulk_items
         where bulk_id = $1 and n >= $2 order by n limit $3",
    )
    .bind(id)
    .bind(from)
    .bind(limit)
    .fetch_all(db)
    .at(Point::BulkItems)
    .await
}

/// Locks the tasks of these runs in the order of their ids.
pub(crate) async fn lock_items(db: &mut PgConnection, items: &[Item]) -> Result<()> {
    sqlx::query("select workflow.lock_tasks(array (select id from workflow.tasks where run_id = any ($1)))")
        .bind(items.iter().map(|item| item.run_id).collect::<Vec<_>>())
        .execute(db)
        .at(Point::BulkItems)
        .await
        .map(drop)
}

/// What became of an item.
pub(crate) struct ItemEnd {
    pub n: i32,
    pub outcome: &'static str,
    pub note: Option<String>,
    pub result_run_id: Option<Uuid>,
}

/// Notes what became of a batch, and ends the operation with its last item; the caller holds its lock.
pub(crate) async fn end_items(db: &mut PgConnection, id: Uuid, ends: &[ItemEnd]) -> Result<()> {
    let numbers: Vec<i32> = ends.iter().map(|end| end.n).collect();
    let outcomes: Vec<&str> = ends.iter().map(|end| end.outcome).collect();
    let notes: Vec<Option<&str>> = ends.iter().map(|end| end.note.as_deref()).collect();
    let made: Vec<Option<Uuid>> = ends.iter().map(|end| end.result_run_id).collect();
    sqlx::query(
        "with ended as (
            update workflow.bulk_items i
            set outcome = g.outcome, note = left(g.note, 500), result_run_id = g.made, done_at = workflow.now()
            from unnest($2::int[], $3::text[], $4::text[], $5::uuid[]) as g (n, outcome, note, made)
            where i.bulk_id = $1 and i.n = g.n
            returning i.n, i.outcome)
         update workflow.bulk_operations b
         set next_n = e.next_n, last_batch_at = workflow.now(), done = b.done + e.done, skipped = b.skipped + e.skipped,
             conflicts = b.conflicts + e.conflicts, failed = b.failed + e.failed,
             state = case when e.next_n > b.total then 'finished' else b.state end,
             finished_at = case when e.next_n > b.total then workflow.now() end
         from (select coalesce(max(n) + 1, 2147483647) as next_n, count(*) filter (where outcome = 'done') as done,
                      count(*) filter (where outcome = 'skipped') as skipped,
                      count(*) filter (where outcome = 'conflict') as conflicts,
                      count(*) filter (where outcome = 'failed') as failed from ended) e
         where b.id = $1",
    )
    .bind(id)
    .bind(numbers)
    .bind(outcomes)
    .bind(notes)
    .bind(made)
    .execute(db)
    .at(Point::BulkEndItems)
    .await
    .map(|_| ())
}

/// The runs of items that failed or were in conflict.
pub(crate) async fn left_over(db: impl PgExecutor<'_>, id: Uuid) -> Result<Vec<Uuid>> {
    sqlx::query_scalar(
        "select run_id from workflow.bulk_items where bulk_id = $1 and outcome in ('failed', 'conflict') order by n",
    )
    .bind(id)
    .fetch_all(db)
    .await
}

/// Those of these runs that a retry has brought to a good end, or is under way for.
pub(crate) async fn mended(db: impl PgExecutor<'_>, runs: &[Uuid]) -> Result<HashSet<Uuid>> {
    let mended: Vec<Uuid> = sqlx::query_scalar(
        "select distinct g.id from unnest($1) as g (id)
         left join workflow.run_lineage own on own.run_id = g.id
         join workflow.run_lineage l on l.root_run_id = coalesce(own.root_run_id, g.id) and l.run_id > g.id and l.how = 'retry'",
    )
    .bind(runs)
    .fetch_all(db)
    .await?;
    Ok(mended.into_iter().collect())
}

pub(crate) async fn evidence_of(db: impl PgExecutor<'_>, run_id: Uuid) -> Result<Vec<Evidence>> {
    sqlx::query_as(
        "select step_key as key, attempt_no, worker, outcome, failure, ended_at from workflow.attempts
         where run_id = $1 and outcome in ('failed', 'lost', 'timeout') order by ended_at desc, attempt_no desc limit 100",
    )
    .bind(run_id)
    .fetch_all(db)
    .await
}

pub(crate) async fn causes(db: impl PgExecutor<'_>, tenant: Option<Uuid>, window: i64) -> Result<Vec<Cause>> {
    sqlx::query_as(
        "select error_fingerprint as fingerprint, min(error ->> 'code') as code,
                (array_agg(left(error ->> 'message', 500) order by id desc))[1] as message, array_agg(distinct kind || '.v' || version) as versions, count(*) as runs,
                count(distinct tenant_id) as tenants, min(finished_at) as first_at, max(finished_at) as last_at
         from (select * from workflow.runs
               where error_fingerprint is not null and ($1::uuid is null or tenant_id = $1)
               order by id desc limit $2) newest
         where state = 'failed'
         group by error_fingerprint order by runs desc, fingerprint limit 500",
    )
    .bind(tenant)
    .bind(window)
    .fetch_all(db)
    .await
}
