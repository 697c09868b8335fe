//! What tenants used on each day, by UTC: counted from what was written down, and counted again while it may change.

use crate::models::Db;
use chrono::NaiveDate;
use uuid::Uuid;

/// Days after which a day is final: nothing of it comes later any more.
pub const DAYS_OPEN: u64 = 3;

/// What a tenant used of something on a day.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Usage {
    /// The day, by UTC.
    pub day: NaiveDate,
    /// Of what, such as `api_calls`.
    pub metric: String,
    /// How much.
    pub quantity: i64,
    /// Whether it is counted for the last time.
    pub is_final: bool,
}

/// Counts what every tenant used on a day; gives how many figures changed. A figure is replaced, not added to, so that
/// counting again is harmless; a final one stays. With the rights of an administrator: it reads several schemas.
///
/// # Errors
/// Those of the database.
pub async fn count(db: Db<'_>, day: NaiveDate) -> sqlx::Result<u64> {
    let counted = sqlx::query!(
        "with bounds as (
             select $1::date::timestamp at time zone 'UTC' as first, ($1::date + 1)::timestamp at time zone 'UTC' as next
         ), requests as (
             select tenant_id, count(*) as calls, sum(bytes_out) as bytes from identity.tenant_api_request_logs, bounds
             where at >= first and at < next group by tenant_id
         ), films as (
             select tenant_id, count(*) as films, sum(frame_count) as frames from render.exports, bounds
             where created_at >= first and created_at < next group by tenant_id
         ), figures as (
             select tenant_id, 'api_calls' as metric, calls as quantity from requests
             union all select tenant_id, 'egress_bytes', bytes from requests
             union all select tenant_id, 'exports', films from films
             union all select tenant_id, 'frames', frames from films
         )
         insert into identity.tenant_usage_daily as u (tenant_id, day, metric, quantity, source_watermark, computed_at)
         select tenant_id, $1, metric, quantity, workflow.now(), workflow.now() from figures
         on conflict (tenant_id, day, metric) do update
             set quantity = excluded.quantity, source_watermark = excluded.source_watermark, computed_at = excluded.computed_at
             where not u.final and u.quantity <> excluded.quantity",
        day
    );
    Ok(counted.execute(db).await?.rows_affected())
}

/// Makes all days before `day` final; gives how many figures that were.
///
/// # Errors
/// Those of the database.
pub async fn close(db: Db<'_>, day: NaiveDate) -> sqlx::Result<u64> {
    let closed = sqlx::query!("update identity.tenant_usage_daily set final = true where day < $1 and not final", day);
    Ok(closed.execute(db).await?.rows_affected())
}

/// What a tenant used from the day `from` to the day `to`, both included, in their order.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, tenant_id: Uuid, from: NaiveDate, to: NaiveDate) -> sqlx::Result<Vec<Usage>> {
    sqlx::query_as!(
        Usage,
        "select day, metric, quantity, final as is_final from identity.tenant_usage_daily
         where tenant_id = $1 and day between $2 and $3 order by day, metric",
        tenant_id,
        from,
        to
    )
    .fetch_all(db)
    .await
}
