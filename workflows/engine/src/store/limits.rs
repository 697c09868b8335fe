//! Terms of queues: setting them, and where things stand.

use crate::{
    failpoint::{At as _, Point},
    operations::{By, Facts, Rate, Share, Terms},
};
use chrono::{DateTime, Utc};
use sqlx::{FromRow, PgConnection, PgExecutor, Result};
use std::time::Duration;
use uuid::Uuid;

/// A rate as bound parameters: how many, in how many seconds, how many beyond.
type Parts = (Option<i32>, Option<f64>, Option<i32>);

fn parts(rate: Option<Rate>) -> Parts {
    let whole = |n: u32| n.min(i32::MAX as u32) as i32;
    (rate.map(|r| whole(r.n)), rate.map(|r| r.per.as_secs_f64()), rate.map(|r| whole(r.burst)))
}

#[derive(FromRow)]
struct TermsRow {
    queue: String,
    caps: Vec<Option<i32>>,
    ns: Vec<Option<i32>>,
    seconds: Vec<Option<f64>>,
    bursts: Vec<Option<i32>>,
}

impl TermsRow {
    fn read(self) -> (String, Terms) {
        let whole = |n: i32| n.max(0) as u32;
        let cap = |i: usize| self.caps.get(i).copied().flatten().map(whole);
        let rate = |i: usize| {
            Some(Rate {
                n: whole(self.ns.get(i).copied()??),
                per: Duration::from_secs_f64(self.seconds.get(i).copied()??.max(0.0)),
                burst: whole(self.bursts.get(i).copied()??),
            })
        };
        let terms = Terms {
            cap: cap(0),
            tenant_cap: cap(1),
            key_cap: cap(2),
            rate: rate(0),
            tenant_rate: rate(1),
            key_rate: rate(2),
        };
        (self.queue, terms)
    }
}

const TERMS: &str = "select queue, array[cap, tenant_cap, key_cap] as caps,
        array[(rate).n, (tenant_rate).n, (key_rate).n] as ns,
        array[(rate).seconds, (tenant_rate).seconds, (key_rate).seconds] as seconds,
        array[(rate).burst, (tenant_rate).burst, (key_rate).burst] as bursts
    from workflow.queue_terms where not ended";

pub(crate) async fn terms(db: impl PgExecutor<'_>, queue: &str) -> Result<Option<Terms>> {
    let sql = format!("{TERMS} and queue = $1");
    let row: Option<TermsRow> = sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(queue).fetch_optional(db).await?;
    Ok(row.map(|row| row.read().1))
}

pub(crate) async fn all_terms(db: impl PgExecutor<'_>) -> Result<Vec<(String, Terms)>> {
    let rows: Vec<TermsRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(format!("{TERMS} order by queue"))).fetch_all(db).await?;
    Ok(rows.into_iter().map(TermsRow::read).collect())
}

pub(crate) async fn set_terms(db: &mut PgConnection, by: &By, queue: &str, terms: &Terms) -> Result<()> {
    let cap = |cap: Option<u32>| cap.map(|n| n.min(i32::MAX as u32) as i32);
    let (all, tenant, key) = (parts(terms.rate), parts(terms.tenant_rate), parts(terms.key_rate));
    sqlx::query(
        "insert into workflow.queue_terms as q (queue, set_at, set_by, cap, tenant_cap, key_cap, rate, tenant_rate, key_rate)
         values ($1, workflow.now(), $2, $3, $4, $5,
                 case when $6::int is not null then row ($6, $7, $8)::workflow.rate end,
                 case when $9::int is not null then row ($9, $10, $11)::workflow.rate end,
                 case when $12::int is not null then row ($12, $13, $14)::workflow.rate end)
         on conflict (queue) do update set
             ended = false, set_at = excluded.set_at, set_by = excluded.set_by, cap = excluded.cap, tenant_cap = excluded.tenant_cap,
             key_cap = excluded.key_cap, rate = excluded.rate, tenant_rate = excluded.tenant_rate, key_rate = excluded.key_rate",
    )
    .bind(queue)
    .bind(&by.actor)
    .bind(cap(terms.cap))
    .bind(cap(terms.tenant_cap))
    .bind(cap(terms.key_cap))
    .bind(all.0)
    .bind(all.1)
    .bind(all.2)
    .bind(tenant.0)
    .bind(tenant.1)
    .bind(tenant.2)
    .bind(key.0)
    .bind(key.1)
    .bind(key.2)
    .execute(&mut *db)
    .at(Point::PauseQueue)
    .await?;
    sqlx::query("select workflow.terms_changed($1)").bind(queue).execute(db).at(Point::PauseQueue).await.map(drop)
}

pub(crate) async fn end_terms(db: &mut PgConnection, by: &By, queue: &str) -> Result<()> {
    sqlx::query("update workflow.queue_terms set ended = true, set_at = workflow.now(), set_by = $2 where queue = $1")
        .bind(queue)
        .bind(&by.actor)
        .execute(&mut *db)
        .at(Point::PauseQueue)
        .await?;
    sqlx::query("delete from workflow.queue_shares where queue = $1")
        .bind(queue)
        .execute(db)
        .at(Point::PauseQueue)
        .await
        .map(drop)
}

/// Answers what it was before.
pub(crate) async fn set_share(
    db: &mut PgConnection,
    queue: &str,
    tenant_id: Uuid,
    share: Option<Share>,
) -> Result<Option<Share>> {
    let before: Option<(f64, Option<i32>)> =
        sqlx::query_as("delete from workflow.queue_shares where queue = $1 and tenant_id = $2 returning weight, cap")
            .bind(queue)
            .bind(tenant_id)
            .fetch_optional(&mut *db)
            .at(Point::PauseQueue)
            .await?;
    if let Some(share) = share {
        sqlx::query("insert into workflow.queue_shares (queue, tenant_id, weight, cap) values ($1, $2, $3, $4)")
            .bind(queue)
            .bind(tenant_id)
            .bind(share.weight)
            .bind(share.cap.map(|n| n as i32))
            .execute(&mut *db)
            .at(Point::PauseQueue)
            .await?;
    }
    sqlx::query("select workflow.terms_changed($1)").bind(queue).execute(db).at(Point::PauseQueue).await?;
    Ok(before.map(read_share))
}

fn read_share((weight, cap): (f64, Option<i32>)) -> Share {
    Share { weight, cap: cap.map(|n| n.max(0) as u32) }
}

pub(crate) async fn shares(db: impl PgExecutor<'_>, queue: &str) -> Result<Vec<(Uuid, Share)>> {
    let rows: Vec<(Uuid, f64, Option<i32>)> =
        sqlx::query_as("select tenant_id, weight, cap from workflow.queue_shares where queue = $1 order by tenant_id")
            .bind(queue)
            .fetch_all(db)
            .await?;
    Ok(rows.into_iter().map(|(tenant, weight, cap)| (tenant, read_share((weight, cap)))).collect())
}

/// What the terms of its queue say to a task that is ready, as of the last claim.
#[derive(Debug, FromRow)]
pub(crate) struct Limits {
    pub cap: Option<i32>,
    pub running: i32,
    pub tenant_cap: Option<i32>,
    pub tenant_running: i32,
    pub key_cap: Option<i32>,
    pub key_running: i32,
    pub queue_free_at: Option<DateTime<Utc>>,
    pub tenant_free_at: Option<DateTime<Utc>>,
    pub key_free_at: Option<DateTime<Utc>>,
    pub now: DateTime<Utc>,
    /// Tenants whose turn comes before; 1000 stands for at least so many.
    pub before: i64,
}

/// `None` when the queue has no terms.
pub(crate) async fn limits(db: &mut PgConnection, task: &Facts) -> Result<Option<Limits>> {
    sqlx::query_as(
        "select q.cap, q.running, coalesce(s.cap, q.tenant_cap) as tenant_cap, coalesce(t.running, 0) as tenant_running,
                case when $3 <> '' then q.key_cap end as key_cap, coalesce(l.running, 0) as key_running,
                nullif(workflow.rate_free_at(q.rate, q.booked_until), '-infinity') as queue_free_at,
                nullif(workflow.rate_free_at(q.tenant_rate, t.booked_until), '-infinity') as tenant_free_at,
                case when $3 <> '' then nullif(workflow.rate_free_at(q.key_rate, l.booked_until), '-infinity') end as key_free_at,
                workflow.now() as now,
                (select count(*) from (
                    select from workflow.turns o
                    where o.queue = q.queue and o.waiting and o.blocked_until is null and o.virtual_time < t.virtual_time
                    limit 1000) b) as before
         from workflow.queue_terms q
         left join workflow.turns t on t.queue = q.queue and t.tenant_id = $2
         left join workflow.lines l on l.queue = q.queue and l.tenant_id = $2 and l.limit_key = $3
         left join workflow.queue_shares s on s.queue = q.queue and s.tenant_id = $2
         where q.queue = $1 and not q.ended",
    )
    .bind(&task.queue)
    .bind(task.tenant_id)
    .bind(&task.limit_key)
    .fetch_optional(db)
    .await
}
