//! Files that go for good: which may, and that they are gone. Their rows stay and say so; what they used is given back by triggers,
//! in the same transaction.

use super::quota;
use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The reason of what a hold is placed on: nobody uses it.
pub const HELD: &str = "it is held";

/// Which of these files somebody needs, and one reason for each: they may not be purged.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn in_use(db: Db<'_>, files: &[Uuid]) -> sqlx::Result<Vec<(Uuid, String)>> {
    let rows = sqlx::query!(
        r#"select distinct on (file_id) file_id as "file_id!", why as "why!" from file_mgr.in_use($1) order by file_id, why"#,
        files
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.file_id, r.why)).collect())
}

/// All that somebody needs this file for. As [`in_use`].
pub async fn reasons(db: Db<'_>, file: Uuid) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(r#"select distinct why as "why!" from file_mgr.in_use(array[$1::uuid])"#, file)
        .fetch_all(db)
        .await
}

/// Purges files that nobody needs, as the caller has made sure of in this transaction; gives how many bytes they had. A film that loses
/// its file is no longer offered; one that loses its contact sheet alone stays. As an administrator.
pub async fn purge(db: Db<'_>, files: &[Uuid]) -> sqlx::Result<i64> {
    let bytes = sqlx::query_scalar!(
        r#"with purged as (
               update file_mgr.files set state = 'purged', updated_at = workflow.now()
               where id = any ($1) and state <> 'purged' returning blob_id)
           select coalesce(sum(b.size_bytes), 0)::bigint as "bytes!" from purged join file_mgr.blobs b on b.id = purged.blob_id"#,
        files
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query!("update render.exports set state = 'deleted' where state <> 'deleted' and file_id = any ($1)", files)
        .execute(&mut *db)
        .await?;
    // A film does without its contact sheet.
    sqlx::query!("update render.exports set sheet_file_id = null where sheet_file_id = any ($1)", files)
        .execute(&mut *db)
        .await?;
    // What was made of a film and is gone can be asked for again.
    sqlx::query!(
        "update render.derivatives
         set state = 'failed', error_code = 'file.purged', file_id = null, sha256 = null, size_bytes = null, updated_at = workflow.now()
         where file_id = any ($1)",
        files
    )
    .execute(db)
    .await?;
    Ok(bytes)
}

/// Up to where files were looked at, and what became of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Looked {
    /// The last one: look on after it; none when there are no more.
    pub last: Option<(DateTime<Utc>, Uuid)>,
    /// Files that are gone.
    pub purged: u64,
    /// Files whose time is over and that somebody needs.
    pub needed: u64,
}

/// Purges files of all tenants whose time is over (`purge_after`) and that nobody needs: looks at up to `limit` of them, after the one
/// `after`. As an administrator.
pub async fn overdue(db: Db<'_>, after: Option<(DateTime<Utc>, Uuid)>, limit: i64) -> sqlx::Result<Looked> {
    let (after_at, after_id) = after.unzip();
    let seen = sqlx::query!(
        r#"select id, tenant_id, purge_after as "at!" from file_mgr.files
           where purge_after <= workflow.now() and state in ('ready', 'rejected', 'trashed')
             and ($1::timestamptz is null or (purge_after, id) > ($1, $2::uuid))
           order by purge_after, id limit $3"#,
        after_at,
        after_id,
        limit
    )
    .fetch_all(&mut *db)
    .await?;
    let last = seen.last().map(|r| (r.at, r.id)).filter(|_| seen.len() as i64 == limit);
    let (seen, tenants): (Vec<Uuid>, Vec<Uuid>) = seen.into_iter().map(|r| (r.id, r.tenant_id)).unzip();
    // Before anything is looked at or locked: who places a hold takes the same turn.
    quota::take_turns(&mut *db, &tenants).await?;
    let due = sqlx::query_scalar!(
        "select id from file_mgr.files
         where id = any ($1) and purge_after <= workflow.now() and state in ('ready', 'rejected', 'trashed')
         order by id for update skip locked",
        &seen
    )
    .fetch_all(&mut *db)
    .await?;
    let needed: Vec<Uuid> = in_use(&mut *db, &due).await?.into_iter().map(|(id, _)| id).collect();
    let free: Vec<Uuid> = due.iter().copied().filter(|id| !needed.contains(id)).collect();
    purge(db, &free).await?;
    Ok(Looked { last, purged: free.len() as u64, needed: needed.len() as u64 })
}

/// Removes up to `limit` folders of all tenants that are in the trash, whose time is over, and that have nothing in them any more; gives how
/// many. What lay in them and is gone lies nowhere, and neither will uploads that were meant for them. As an administrator.
pub async fn overdue_folders(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let empty = sqlx::query_scalar!(
        "select id from file_mgr.folders f
         where trashed_at is not null and purge_after <= workflow.now()
           and not exists (select from file_mgr.folders c where c.parent_id = f.id)
           and not exists (select from file_mgr.files c where c.folder_id = f.id and c.state <> 'purged')
         order by id limit $1 for update skip locked",
        limit
    )
    .fetch_all(&mut *db)
    .await?;
    sqlx::query!("update file_mgr.files set folder_id = null where folder_id = any ($1) and state = 'purged'", &empty)
        .execute(&mut *db)
        .await?;
    sqlx::query!("update file_mgr.upload_sessions set folder_id = null where folder_id = any ($1)", &empty)
        .execute(&mut *db)
        .await?;
    Ok(sqlx::query!("delete from file_mgr.folders where id = any ($1)", &empty).execute(db).await?.rows_affected())
}

/// Forgets up to `limit` files that were purged three months ago and that nothing names any more; gives how many. As an administrator.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query_scalar!(r#"select file_mgr.forget_files($1) as "gone!""#, limit as i32);
    Ok(gone.fetch_one(db).await?.unsigned_abs().into())
}
