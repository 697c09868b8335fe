//! Legal holds: what nobody may remove while they stand.

use super::quota;
use crate::models::Db;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hold {
    /// Its id.
    pub id: Uuid,
    /// Whose files.
    pub tenant_id: Uuid,
    /// Of this person alone.
    pub owner_id: Option<Uuid>,
    /// Or of this file alone.
    pub file_id: Option<Uuid>,
    /// Why.
    pub reason: String,
    /// Who placed it.
    pub placed_by: String,
    /// When.
    pub created_at: DateTime<Utc>,
    /// Who released it.
    pub released_by: Option<String>,
    /// When.
    pub released_at: Option<DateTime<Utc>>,
}

/// What to hold.
#[derive(Debug, Clone)]
pub struct NewHold<'a> {
    /// Whose files.
    pub tenant_id: Uuid,
    /// Of this person alone.
    pub owner_id: Option<Uuid>,
    /// Or this file alone.
    pub file_id: Option<Uuid>,
    /// 1 to 1000 characters.
    pub reason: &'a str,
    /// Who places it.
    pub placed_by: &'a str,
}

/// Places a hold and gives its id; none when the tenant has no such file, or has it no more. Whatever removes files looks for holds after
/// it has taken the tenant's turn, as this does: what a hold is placed on is still there.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn place(db: Db<'_>, new: &NewHold<'_>) -> sqlx::Result<Option<Uuid>> {
    quota::take_turn(&mut *db, new.tenant_id).await?;
    sqlx::query_scalar!(
        "insert into file_mgr.holds (id, tenant_id, owner_id, file_id, reason, placed_by, created_at)
         select $1, $2, $3, $4, $5, $6, workflow.now()
         where $4::uuid is null or exists (select from file_mgr.files where tenant_id = $2 and id = $4 and state <> 'purged')
         returning id",
        Uuid::now_v7(),
        new.tenant_id,
        new.owner_id,
        new.file_id,
        new.reason,
        new.placed_by,
    )
    .fetch_optional(db)
    .await
}

/// Releases a hold; none when there is no such hold that stands.
pub async fn release(db: Db<'_>, id: Uuid, by: &str) -> sqlx::Result<Option<Hold>> {
    sqlx::query_as!(
        Hold,
        "update file_mgr.holds set released_at = workflow.now(), released_by = $2 where id = $1 and released_at is null returning *",
        id,
        by
    )
    .fetch_optional(db)
    .await
}

/// Holds, newest first, before the one `before`; with `standing` only those that are not released.
pub async fn list(
    db: Db<'_>,
    id: Option<Uuid>,
    standing: bool,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Hold>> {
    sqlx::query_as!(
        Hold,
        "select * from file_mgr.holds
         where ($1::uuid is null or id = $1) and (not $2 or released_at is null) and ($3::uuid is null or id < $3)
         order by id desc limit $4",
        id,
        standing,
        before,
        limit
    )
    .fetch_all(db)
    .await
}
