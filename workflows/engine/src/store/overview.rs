//! What operators look at first. Every statement looks at a bounded number of rows of the large tables.

use crate::operations::{AuditFilter, AuditRow, Bulk, Child, Culprit, FailedIn, OfferNow, VersionNow};
use sqlx::{PgExecutor, Postgres, QueryBuilder, Result};
use std::time::Duration;
use uuid::Uuid;

/// Children are started soon after their parents: among the `window` runs after it, and those that are under way.
pub(crate) async fn children(db: impl PgExecutor<'_>, run_id: Uuid, window: i64) -> Result<Vec<Child>> {
    sqlx::query_as(
        "select r.id as run_id, r.kind, r.parent_key as key, r.state, r.created_at, r.finished_at
         from (select id from (select id, parent_run_id from workflow.runs where id > $1 order by id limit $2) next
               where parent_run_id = $1
               union
               select run_id from workflow.tasks where parent_run_id = $1) c
         join workflow.runs r on r.id = c.id
         order by r.id limit 500",
    )
    .bind(run_id)
    .bind(window)
    .fetch_all(db)
    .await
}

pub(crate) async fn offers_now(db: impl PgExecutor<'_>) -> Result<Vec<OfferNow>> {
    sqlx::query_as(
        "select w.id as worker_id, w.name as worker, w.started_at, o.queue, o.names, o.labels, o.slots, coalesce(l.busy, 0) as busy
         from workflow.workers w join workflow.worker_offers o on o.worker_id = w.id
         left join (select worker_id, queue, count(*) as busy from workflow.tasks
                    where lease_expires_at is not null group by worker_id, queue) l
             on l.worker_id = w.id and l.queue = o.queue
         where w.ended_at is null order by o.queue, w.name, w.id limit 2000",
    )
    .fetch_all(db)
    .await
}

pub(crate) async fn leased_by_queue(db: impl PgExecutor<'_>) -> Result<Vec<(String, i64)>> {
    sqlx::query_as(
        "select queue, count(*) from workflow.tasks where lease_expires_at is not null group by queue order by queue",
    )
    .fetch_all(db)
    .await
}

pub(crate) async fn versions(db: impl PgExecutor<'_>, window: i64) -> Result<Vec<VersionNow>> {
    sqlx::query_as(
        "with seen as (
            (select activity, run_id, parked_reason from workflow.tasks where kind = 'run' order by run_id limit $1)
            union
            (select activity, run_id, parked_reason from workflow.tasks where kind = 'run' order by run_id desc limit $1)
         ), live as (
            select activity as name, count(*) as live, count(parked_reason) as parked, min(run_id::text)::uuid as oldest
            from seen group by activity
         ), known as (
            select n.name, count(*) as workers
            from workflow.worker_offers o join workflow.workers w on w.id = o.worker_id and w.ended_at is null
            cross join lateral unnest(o.names) n (name)
            where o.queue = $2 group by n.name)
         select coalesce(l.name, k.name) as name, coalesce(l.live, 0) as live, coalesce(l.parked, 0) as parked,
                r.created_at as oldest_at, coalesce(k.workers, 0) as workers
         from live l full join known k on k.name = l.name left join workflow.runs r on r.id = l.oldest
         order by 1",
    )
    .bind(window)
    .bind(crate::worker::RUN_QUEUE)
    .fetch_all(db)
    .await
}

pub(crate) async fn failed_lately(
    db: impl PgExecutor<'_>,
    tenant: Option<Uuid>,
    back: Duration,
    every: Duration,
    window: i64,
) -> Result<Vec<FailedIn>> {
    sqlx::query_as(
        "select date_bin(make_interval(secs => $3), finished_at, 'epoch') as at, count(*) as n
         from (select finished_at, state from workflow.runs
               where error_fingerprint is not null and ($1::uuid is null or tenant_id = $1)
               order by id desc limit $4) newest
         where state = 'failed' and finished_at > workflow.now() - make_interval(secs => $2)
         group by 1 order by 1",
    )
    .bind(tenant)
    .bind(back.as_secs_f64())
    .bind(every.as_secs_f64())
    .bind(window)
    .fetch_all(db)
    .await
}

pub(crate) async fn culprits(db: impl PgExecutor<'_>, tenant: Option<Uuid>, fingerprint: &str) -> Result<Vec<Culprit>> {
    sqlx::query_as(
        "select a.worker, a.step_key as key, count(*) as attempts
         from (select id from workflow.runs where error_fingerprint = $2 and ($1::uuid is null or tenant_id = $1)
               order by id desc limit 200) r
         join workflow.attempts a on a.run_id = r.id and a.outcome in ('failed', 'lost', 'timeout')
         group by a.worker, a.step_key order by attempts desc, a.worker, a.step_key limit 50",
    )
    .bind(tenant)
    .bind(fingerprint)
    .fetch_all(db)
    .await
}

pub(crate) async fn bulks(
    db: impl PgExecutor<'_>,
    tenant: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<Bulk>> {
    sqlx::query_as(
        "select id, actor, action, params, filter, reason, state, rate_per_second, total, next_n, done, skipped,
                conflicts, failed, created_at, started_at, finished_at
         from workflow.bulk_operations
         where ($1::uuid is null or filter ->> 'tenant' = $1::text) and ($2::uuid is null or id < $2)
         order by id desc limit $3",
    )
    .bind(tenant)
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await
}

// ------------------------------------------------------------------------------------------- audit

const AUDIT: &str = "id, at, actor, action, tenant_id, target, reason, before, after";

/// Of one target by its index; else among the newest `window` before `before`, of the tenant if there is one.
pub(crate) async fn audit_before(
    db: impl PgExecutor<'_>,
    filter: &AuditFilter,
    before: Option<i64>,
    limit: i64,
    window: i64,
) -> Result<Vec<AuditRow>> {
    let mut sql = QueryBuilder::<Postgres>::new(format!("select {AUDIT} from "));
    match &filter.target {
        Some(target) => {
            sql.push("workflow.audit a where target = ").push_bind(target);
            if let Some(before) = before {
                sql.push(" and id < ").push_bind(before);
            }
        }
        None => {
            sql.push(format!("(select {AUDIT} from workflow.audit where true"));
            if let Some(tenant) = filter.tenant {
                sql.push(" and tenant_id = ").push_bind(tenant);
            }
            if let Some(before) = before {
                sql.push(" and id < ").push_bind(before);
            }
            sql.push(" order by id desc limit ").push_bind(window).push(") a where true");
        }
    }
    if let Some(tenant) = filter.tenant {
        sql.push(" and tenant_id = ").push_bind(tenant);
    }
    if let Some(actor) = &filter.actor {
        sql.push(" and actor = ").push_bind(actor);
    }
    if let Some(action) = &filter.action {
        sql.push(" and action = ").push_bind(action);
    }
    sql.push(" order by id desc limit ").push_bind(limit);
    sql.build_query_as().fetch_all(db).await
}

/// The oldest row that a look at `window` of them reaches; none when it reaches the first.
pub(crate) async fn audit_window_end(
    db: impl PgExecutor<'_>,
    tenant: Option<Uuid>,
    before: Option<i64>,
    window: i64,
) -> Result<Option<i64>> {
    let mut sql = QueryBuilder::<Postgres>::new("select id from workflow.audit where true");
    if let Some(tenant) = tenant {
        sql.push(" and tenant_id = ").push_bind(tenant);
    }
    if let Some(before) = before {
        sql.push(" and id < ").push_bind(before);
    }
    sql.push(" order by id desc limit 1 offset ").push_bind(window - 1);
    sql.build_query_scalar().fetch_optional(db).await
}

pub(crate) async fn audit_after(
    db: impl PgExecutor<'_>,
    tenant: Option<Uuid>,
    after: i64,
    known: &[i64],
    limit: i64,
) -> Result<Vec<AuditRow>> {
    let sql = format!(
        "select {AUDIT} from workflow.audit
         where id > $1 and ($2::uuid is null or tenant_id = $2) and id <> all ($4) order by id limit $3"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(after).bind(tenant).bind(limit).bind(known).fetch_all(db).await
}

pub(crate) async fn newest_audit(db: impl PgExecutor<'_>) -> Result<i64> {
    sqlx::query_scalar("select coalesce(max(id), 0) from workflow.audit").fetch_one(db).await
}
