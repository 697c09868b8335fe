//! Tables that are partitioned by month: a row that comes before its month was made has it made.

use super::Db;
use crate::contracts::storage::BlobHash;
use bytes::Bytes;
use chrono::{DateTime, Utc};
use flatrender_engine::Failure;
use futures::stream::BoxStream;
use sqlx::{Acquire as _, AssertSqlSafe};

/// A table with months.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Series {
    /// Requests by API key.
    ApiRequestLogs,
    /// Deliveries of webhooks.
    WebhookDeliveries,
    /// What people did.
    AuditLog,
    /// How nodes fared.
    NodeHealthLogs,
    /// Deliveries of notifications.
    NotificationDeliveries,
}

impl Series {
    /// Its table.
    pub fn table(self) -> &'static str {
        match self {
            Self::ApiRequestLogs => "identity.tenant_api_request_logs",
            Self::WebhookDeliveries => "identity.tenant_webhook_deliveries",
            Self::AuditLog => "identity.audit_log",
            Self::NodeHealthLogs => "render.node_health_logs",
            Self::NotificationDeliveries => "notification.notification_deliveries",
        }
    }
}

/// PostgreSQL says this of a row without a partition, and of one that a check refuses.
const CHECK_VIOLATION: &str = "23514";

/// Counts months that a writer had to make, by `series`.
pub const MADE_LATE: &str = "flatrender_months_made_late_total";

/// Writes rows of the time `at`. When the month is missing it is made, and the rows are written again; a second
/// refusal is the caller's. That it had to be made means that cron did not: it is counted and logged.
///
/// # Errors
/// Those of `insert`.
pub async fn write<T>(
    db: Db<'_>,
    series: Series,
    at: DateTime<Utc>,
    insert: impl AsyncFn(Db<'_>) -> sqlx::Result<T>,
) -> sqlx::Result<T> {
    let mut attempt = db.begin().await?;
    match insert(&mut attempt).await {
        Ok(written) => return attempt.commit().await.map(|()| written),
        Err(sqlx::Error::Database(e)) if e.code().as_deref() == Some(CHECK_VIOLATION) && e.constraint().is_none() => {}
        Err(error) => return Err(error),
    }
    attempt.rollback().await?;
    if ensure_month(&mut *db, series, at).await? {
        was_missing(series, at);
    }
    insert(db).await
}

/// What time it is, for rows that are written now: their month is there afterwards. Cheaper than [`write`] for a single
/// row, because nothing has to be taken back.
///
/// # Errors
/// Those of the database.
pub async fn now(db: Db<'_>, series: Series) -> sqlx::Result<DateTime<Utc>> {
    let now = sqlx::query!(
        r#"select n.at as "at!", to_regclass(platform.month_table($1, (n.at at time zone 'UTC')::date)) is not null as "there!"
           from (select workflow.now() as at) n"#,
        series.table(),
    )
    .fetch_one(&mut *db)
    .await?;
    if !now.there && ensure_month(db, series, now.at).await? {
        was_missing(series, now.at);
    }
    Ok(now.at)
}

/// Makes the month of `at` where it is missing, for rows that are written next. Cheaper than [`write`] for a few of them.
///
/// # Errors
/// Those of the database.
pub async fn expect(db: Db<'_>, series: Series, at: DateTime<Utc>) -> sqlx::Result<()> {
    let there = sqlx::query_scalar!(
        r#"select to_regclass(platform.month_table($1, ($2::timestamptz at time zone 'UTC')::date)) is not null as "there!""#,
        series.table(),
        at,
    )
    .fetch_one(&mut *db)
    .await?;
    if !there && ensure_month(db, series, at).await? {
        was_missing(series, at);
    }
    Ok(())
}

/// Says that nobody had made a month ahead.
fn was_missing(series: Series, at: DateTime<Utc>) {
    metrics::counter!(MADE_LATE, "series" => series.table()).increment(1);
    tracing::warn!(series = series.table(), %at, "a month was missing and had to be made by its writer");
}

/// Makes the month of `at`; says whether it was missing. Of several at once one makes it.
pub async fn ensure_month(db: Db<'_>, series: Series, at: DateTime<Utc>) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select platform.ensure_month($1, $2) as "made!""#, series.table(), at).fetch_one(db).await
}

/// Makes the months of every series from the one before `at` to three after it; gives how many were missing.
pub async fn ensure_months(db: Db<'_>, at: DateTime<Utc>) -> sqlx::Result<i32> {
    sqlx::query_scalar!(r#"select platform.ensure_months($1) as "made!""#, at).fetch_one(db).await
}

/// Detaches the months that were kept long enough and drops those that were detached a week before `at` and are archived, where that
/// is wanted; says which, and which somebody was using for too long (`busy …`). Of one series: what loses a month is locked until the end
/// of the transaction. None: of all.
pub async fn retire_months(db: Db<'_>, at: DateTime<Utc>, series: Option<&str>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(r#"select what || ' ' || month as "done!" from platform.retire_months($1, $2)"#, at, series)
        .fetch_all(db)
        .await
}

/// The tables that have months.
pub async fn names(db: Db<'_>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!("select name from platform.time_series order by name").fetch_all(db).await
}

/// What is wrong with the months around `at`: missing ones, and those without the indexes or the row-level security of their series.
pub async fn faults(db: Db<'_>, at: DateTime<Utc>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(r#"select fault as "fault!" from platform.faults_of_months($1)"#, at).fetch_all(db).await
}

/// Detached months whose series wants them archived and that are not yet.
pub async fn unarchived(db: Db<'_>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        "select r.name from platform.retired_months r join platform.time_series s on s.name = r.series
         where s.archive and r.archived_at is null and r.dropped_at is null order by r.name"
    )
    .fetch_all(db)
    .await
}

/// Hashes of the files that months were archived as, after `after`: nothing else knows what was in those months.
pub async fn archives(db: Db<'_>, after: Option<&BlobHash>, limit: i64) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select distinct sha256 as "sha256!" from platform.retired_months where sha256 > coalesce($1, '') order by 1 limit $2"#,
        after.map(BlobHash::as_str),
        limit,
    )
    .fetch_all(db)
    .await
}

/// Notes that a detached month is stored as a file with so many rows; from here on it may be dropped. False when it is noted already.
pub async fn note_archive(db: Db<'_>, month: &str, rows: u64, sha256: &str, at: DateTime<Utc>) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select platform.note_archive($1, $2, $3, $4) as "noted!""#,
        month,
        i64::try_from(rows).unwrap_or(i64::MAX),
        sha256,
        at
    )
    .fetch_one(db)
    .await
}

/// What time it is, by the clock of the database.
pub async fn moment(db: Db<'_>) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select workflow.now() as "now!""#).fetch_one(db).await
}

/// How many rows a detached month has, and all of them as CSV with a header. The month is nobody's to write any more. As the owner of the
/// tables: months have no other readers.
///
/// # Errors
/// `month.gone` for good when there is no such month; those of the database.
pub async fn read_out<'c>(db: Db<'c>, month: &str) -> Result<(u64, BoxStream<'c, sqlx::Result<Bytes>>), Failure> {
    let table = sqlx::query_scalar!(
        r#"select to_regclass(r.name)::text as "table" from platform.retired_months r where r.name = $1 and r.dropped_at is null"#,
        month
    )
    .fetch_optional(&mut *db)
    .await?
    .flatten()
    .ok_or_else(|| Failure::permanent("month.gone", format!("there is no month {month}")))?;
    // The name comes back from the catalogue, quoted where it has to be.
    let count = AssertSqlSafe(format!("select count(*) from {table}"));
    let rows: i64 = sqlx::query_scalar(count).fetch_one(&mut *db).await?;
    let columns = "select string_agg(quote_ident(attname), ', ' order by attnum) from pg_attribute
                   where attrelid = to_regclass($1) and attnum > 0 and not attisdropped";
    let columns: Option<String> = sqlx::query_scalar(columns).bind(&table).fetch_one(&mut *db).await?;
    // In the order of all columns: the same month gives the same file on every attempt.
    let order = columns.unwrap_or_default();
    let sql = format!("copy (select * from {table} order by {order}) to stdout with (format csv, header)");
    Ok((rows.unsigned_abs(), db.copy_out_raw(&sql).await?))
}
