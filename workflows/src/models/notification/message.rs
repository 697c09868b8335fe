//! What a user was told: the list within the platform.

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

/// Something that a user was told.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// Its id.
    pub id: Uuid,
    /// What preferences are about.
    pub category: String,
    /// What of, as in `render.completed`.
    pub template_code: String,
    /// In one line.
    pub title: String,
    /// More.
    pub body: String,
    /// What the event said.
    pub data: Value,
    /// `info`, `success`, `warning` or `critical`.
    pub severity: String,
    /// When it was read.
    pub read_at: Option<DateTime<Utc>>,
    /// When it was told.
    pub created_at: DateTime<Utc>,
}

/// How much there is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Not read yet.
    pub unread: i64,
    /// In all.
    pub total: i64,
}

/// Up to `limit` messages of a user, newest first, those before `before`; of a category, or only what is unread, if that is said.
///
/// # Errors
/// Those of the database; so with all that follow.
pub async fn list(
    db: Db<'_>,
    user: (Uuid, Uuid),
    before: Option<(DateTime<Utc>, Uuid)>,
    category: Option<&str>,
    unread: bool,
    limit: i64,
) -> sqlx::Result<Vec<Message>> {
    let (before_at, before_id) = before.unzip();
    sqlx::query_as!(
        Message,
        "select id, category, template_code, title, body, data, severity, read_at, created_at from notification.notifications
         where tenant_id = $1 and user_id = $2 and archived_at is null
           and ($3::timestamptz is null or (created_at, id) < ($3, $4)) and ($5::text is null or category = $5) and (not $6 or read_at is null)
         order by created_at desc, id desc limit $7",
        user.0,
        user.1,
        before_at,
        before_id,
        category,
        unread,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Up to `limit` messages of a user that were told after `since`, oldest first.
pub async fn since(db: Db<'_>, user: (Uuid, Uuid), since: DateTime<Utc>, limit: i64) -> sqlx::Result<Vec<Message>> {
    sqlx::query_as!(
        Message,
        "select id, category, template_code, title, body, data, severity, read_at, created_at from notification.notifications
         where tenant_id = $1 and user_id = $2 and archived_at is null and created_at > $3 order by created_at, id limit $4",
        user.0,
        user.1,
        since,
        limit,
    )
    .fetch_all(db)
    .await
}

/// A message of a user.
pub async fn find(db: Db<'_>, user: (Uuid, Uuid), id: Uuid) -> sqlx::Result<Option<Message>> {
    sqlx::query_as!(
        Message,
        "select id, category, template_code, title, body, data, severity, read_at, created_at from notification.notifications
         where tenant_id = $1 and user_id = $2 and id = $3 and archived_at is null",
        user.0,
        user.1,
        id,
    )
    .fetch_optional(db)
    .await
}

/// How many messages a user has.
pub async fn counts(db: Db<'_>, user: (Uuid, Uuid)) -> sqlx::Result<Counts> {
    sqlx::query_as!(
        Counts,
        r#"select count(*) filter (where read_at is null) as "unread!", count(*) as "total!" from notification.notifications
           where tenant_id = $1 and user_id = $2 and archived_at is null"#,
        user.0,
        user.1,
    )
    .fetch_one(db)
    .await
}

/// A message is read from now on, or unread again; false when there is none.
pub async fn mark(db: Db<'_>, user: (Uuid, Uuid), id: Uuid, read: bool) -> sqlx::Result<bool> {
    let marked = sqlx::query!(
        "update notification.notifications set read_at = case when $4 then coalesce(read_at, workflow.now()) end
         where tenant_id = $1 and user_id = $2 and id = $3 and archived_at is null",
        user.0,
        user.1,
        id,
        read,
    );
    Ok(marked.execute(db).await?.rows_affected() > 0)
}

/// All messages that were told until `until` are read; gives how many were not.
pub async fn mark_all(db: Db<'_>, user: (Uuid, Uuid), until: Option<DateTime<Utc>>) -> sqlx::Result<u64> {
    let marked = sqlx::query!(
        "update notification.notifications set read_at = workflow.now()
         where tenant_id = $1 and user_id = $2 and read_at is null and archived_at is null and created_at <= coalesce($3, workflow.now())",
        user.0,
        user.1,
        until,
    );
    Ok(marked.execute(db).await?.rows_affected())
}

/// A message is put away; false when there is none.
pub async fn archive(db: Db<'_>, user: (Uuid, Uuid), id: Uuid) -> sqlx::Result<bool> {
    let archived = sqlx::query!(
        "update notification.notifications set archived_at = workflow.now(), read_at = coalesce(read_at, workflow.now())
         where tenant_id = $1 and user_id = $2 and id = $3 and archived_at is null",
        user.0,
        user.1,
        id,
    );
    Ok(archived.execute(db).await?.rows_affected() > 0)
}

/// Forgets up to `limit` messages that were read half a year ago, or put away then, as those are that nobody wanted; gives how many.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from notification.notifications where id in (
             select id from notification.notifications
             where coalesce(read_at, archived_at) < workflow.now() - interval '180 days' limit $1)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}
