//! Tables that are partitioned by month: a row that comes before its month was made has it made.

use super::Db;
use chrono::{DateTime, Utc};
use sqlx::Acquire as _;

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

/// Writes rows of the time `at`. When the month is missing it is made, and the rows are written again; a second
/// refusal is the caller's. That it had to be made means that cron did not: it is logged.
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
        tracing::warn!(series = series.table(), %at, "a month was missing and had to be made by its writer");
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
        tracing::warn!(series = series.table(), at = %now.at, "a month was missing and had to be made by its writer");
    }
    Ok(now.at)
}

/// Makes the month of `at`; says whether it was missing. Of several at once one makes it.
pub async fn ensure_month(db: Db<'_>, series: Series, at: DateTime<Utc>) -> sqlx::Result<bool> {
    sqlx::query_scalar!(r#"select platform.ensure_month($1, $2) as "made!""#, series.table(), at).fetch_one(db).await
}

/// Makes the months of every series from the one before `at` to three after it; gives how many were missing.
pub async fn ensure_months(db: Db<'_>, at: DateTime<Utc>) -> sqlx::Result<i32> {
    sqlx::query_scalar!(r#"select platform.ensure_months($1) as "made!""#, at).fetch_one(db).await
}

/// Detaches the months that were kept long enough and drops those that were detached a week before `at`; says which.
pub async fn retire_months(db: Db<'_>, at: DateTime<Utc>) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(r#"select what || ' ' || month as "done!" from platform.retire_months($1)"#, at)
        .fetch_all(db)
        .await
}
