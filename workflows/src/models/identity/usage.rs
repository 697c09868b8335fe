//! What tenants used on each day, by UTC: counted from what was written down, and counted again while it may change.

use crate::models::Db;
use chrono::{DateTime, NaiveDate, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Days after which a day is final: nothing of it comes later any more.
pub const DAYS_OPEN: u64 = 3;

/// What can be used.
pub const METRICS: [&str; 12] = [
    "api_calls",
    "egress_bytes",
    "exports",
    "frames",
    "notifications_email",
    "notifications_inapp",
    "notifications_push",
    "notifications_sms",
    "notifications_telegram",
    "render_seconds",
    "snapshots",
    "storage_byte_hours",
];

/// What a tenant used of something on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The day, by UTC.
    pub day: NaiveDate,
    /// Of what, one of [`METRICS`].
    pub metric: String,
    /// How much, with what was corrected afterwards.
    pub quantity: i64,
    /// Whether it is counted for the last time.
    pub is_final: bool,
}

/// What was found out about a day after it was final.
#[derive(Debug, Clone)]
pub struct Correction<'a> {
    /// Whose day.
    pub tenant_id: Uuid,
    /// Which day.
    pub day: NaiveDate,
    /// Of what.
    pub metric: &'a str,
    /// How much more, or less.
    pub delta: i64,
    /// Why, 1 to 500 characters.
    pub reason: &'a str,
    /// Who says so.
    pub made_by: &'a str,
}

/// Notes what every tenant keeps at the begin of this hour; the first note of an hour counts. As an administrator; so with all that
/// follow but [`list`].
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn sample(db: Db<'_>) -> sqlx::Result<u64> {
    let sampled = sqlx::query!(
        "insert into identity.storage_samples (tenant_id, hour, bytes)
         select t.id, date_trunc('hour', workflow.now(), 'UTC'), b.bytes
         from identity.tenants t
         cross join lateral (select coalesce(sum(size_bytes), 0)::bigint as bytes from file_mgr.blobs where tenant_id = t.id and refcount > 0) b
         on conflict do nothing"
    );
    Ok(sampled.execute(db).await?.rows_affected())
}

/// Forgets up to `limit` notes that are older than three months; gives how many. Days are counted, and what was counted is checked, for two
/// months; the newest older note of a tenant stays, because it tells of the hours after it.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from identity.storage_samples where (tenant_id, hour) in (
             select s.tenant_id, s.hour from identity.storage_samples s
             where s.hour < workflow.now() - interval '90 days'
               and exists (select from identity.storage_samples n where n.tenant_id = s.tenant_id and n.hour > s.hour
                           and n.hour < workflow.now() - interval '90 days')
             limit $1)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}

/// The first day that may still be counted on `today`: three days back, or as far as days were missed before.
pub async fn first_open(db: Db<'_>, today: NaiveDate) -> sqlx::Result<NaiveDate> {
    sqlx::query_scalar!(
        r#"select greatest(least($1::date - $2::int, coalesce((select max(day) + 1 from identity.tenant_usage_daily where final), $1::date - $2::int)),
                           $1::date - 60) as "day!""#,
        today,
        DAYS_OPEN as i32,
    )
    .fetch_one(db)
    .await
}

/// Counts what every tenant used on a day; gives how many figures changed. A figure is replaced, not added to, so that
/// counting again is harmless; what is found no more is nothing; a final one stays.
pub async fn count(db: Db<'_>, day: NaiveDate) -> sqlx::Result<u64> {
    let counted = sqlx::query!(
        "with found as (select tenant_id, metric, quantity from identity.usage_of($1))
         insert into identity.tenant_usage_daily as u (tenant_id, day, metric, quantity, source_watermark, computed_at)
         select tenant_id, $1, metric, quantity, workflow.now(), workflow.now() from (
             select tenant_id, metric, quantity from found
             union all
             select tenant_id, metric, 0 from identity.tenant_usage_daily d
             where day = $1 and not final and quantity > 0
               and not exists (select from found f where f.tenant_id = d.tenant_id and f.metric = d.metric)) c
         on conflict (tenant_id, day, metric) do update
             set quantity = excluded.quantity, source_watermark = excluded.source_watermark, computed_at = excluded.computed_at
             where not u.final and u.quantity <> excluded.quantity",
        day
    );
    Ok(counted.execute(db).await?.rows_affected())
}

/// Makes all days before `day` final; gives how many figures that were.
pub async fn close(db: Db<'_>, day: NaiveDate) -> sqlx::Result<u64> {
    let closed = sqlx::query!("update identity.tenant_usage_daily set final = true where day < $1 and not final", day);
    Ok(closed.execute(db).await?.rows_affected())
}

/// Corrects a day that is final: the day stays, the correction is a row of its own. False when it is not final, or would be less than
/// nothing.
pub async fn correct(db: Db<'_>, correction: &Correction<'_>) -> sqlx::Result<bool> {
    // One at a time: what is left is looked at and changed by different rows.
    sqlx::query!(
        "select from identity.tenant_usage_daily where tenant_id = $1 and day = $2 and metric = $3 for update",
        correction.tenant_id,
        correction.day,
        correction.metric,
    )
    .execute(&mut *db)
    .await?;
    let corrected = sqlx::query!(
        "insert into identity.tenant_usage_corrections (tenant_id, day, metric, delta, reason, made_by, created_at)
         select tenant_id, day, metric, $4, $5, $6, workflow.now() from identity.tenant_usage_daily u
         where tenant_id = $1 and day = $2 and metric = $3 and final
           and quantity + $4 + (select coalesce(sum(delta), 0) from identity.tenant_usage_corrections c
                                where c.tenant_id = u.tenant_id and c.day = u.day and c.metric = u.metric) >= 0",
        correction.tenant_id,
        correction.day,
        correction.metric,
        correction.delta,
        correction.reason,
        correction.made_by,
    );
    Ok(corrected.execute(db).await?.rows_affected() == 1)
}

/// That a tenant uses so much of what was agreed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Threshold {
    /// Whose.
    pub tenant_id: Uuid,
    /// Of what.
    pub quota: String,
    /// How much of it: 100, or what was agreed to be told of before; 80 when nothing was.
    pub percent: i32,
    /// When the period began that it is of: a month for storage, a day for films.
    pub began_at: DateTime<Utc>,
    /// How much is used.
    pub used: i64,
    /// Of how much.
    pub limit: i64,
}

/// Which tenants use all of what was agreed, or as much of it as they are to be warned at (80 % unless they have a soft limit): of storage in
/// this month, of films today. Who hears of them hears of each once a period.
pub async fn thresholds(db: Db<'_>) -> sqlx::Result<Vec<Threshold>> {
    sqlx::query_as!(
        Threshold,
        r#"with used as (
               select q.tenant_id, 'storage_bytes' as name, q.soft_bytes as soft, q.limit_bytes as hard, date_trunc('month', workflow.now(), 'UTC') as began_at,
                      q.used_bytes as used
               from file_mgr.quotas q where q.owner_id is null and q.limit_bytes > 0
               union all
               select l.tenant_id, l.name, l.soft, l.hard, date_trunc('day', workflow.now(), 'UTC'),
                      (select count(*) from render.render_jobs j where j.tenant_id = l.tenant_id and j.created_at >= date_trunc('day', workflow.now(), 'UTC'))
               from identity.tenant_limits l where l.name = 'renders_per_day' and l.hard > 0
           )
           select distinct u.tenant_id as "tenant_id!", u.name as "quota!", t.percent as "percent!", u.began_at as "began_at!", u.used as "used!",
                  u.hard as "limit!"
           from used u
           cross join lateral (values (coalesce(floor(u.soft * 100.0 / u.hard)::int, 80), coalesce(u.soft, u.hard::numeric * 80 / 100)), (100, u.hard)) t (percent, reached)
           where u.used > 0 and u.used >= t.reached
           order by 1, 2, 3"#
    )
    .fetch_all(db)
    .await
}

/// What a tenant used from the day `from` to the day `to`, both included, in their order; of one metric, or of all.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    from: NaiveDate,
    to: NaiveDate,
    metric: Option<&str>,
) -> sqlx::Result<Vec<Usage>> {
    sqlx::query_as!(
        Usage,
        r#"select day, metric, quantity + (select coalesce(sum(delta), 0)::bigint from identity.tenant_usage_corrections c
                      where c.tenant_id = u.tenant_id and c.day = u.day and c.metric = u.metric) as "quantity!", final as is_final
           from identity.tenant_usage_daily u
           where tenant_id = $1 and day between $2 and $3 and ($4::text is null or metric = $4) order by day, metric"#,
        tenant_id,
        from,
        to,
        metric
    )
    .fetch_all(db)
    .await
}
