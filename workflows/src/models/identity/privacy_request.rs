//! What people ask of their data: the law gives thirty days for it.

use crate::models::Db;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A request whose day is near, or past.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Due {
    /// The request.
    pub id: Uuid,
    /// Whose person asks.
    pub tenant_id: Uuid,
    /// `export` or `delete`.
    pub kind: String,
    /// The last moment for it.
    pub due_at: DateTime<Utc>,
    /// The day that it is.
    pub today: DateTime<Utc>,
}

/// Up to `limit` requests that have not ended and are due within a week, the most urgent first.
///
/// # Errors
/// Those of the database.
pub async fn due(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<Due>> {
    sqlx::query_as!(
        Due,
        r#"select id, tenant_id, kind, due_at, date_trunc('day', workflow.now(), 'UTC') as "today!"
           from identity.privacy_requests
           where finished_at is null and due_at < workflow.now() + interval '7 days'
           order by due_at, id limit $1"#,
        limit
    )
    .fetch_all(db)
    .await
}
