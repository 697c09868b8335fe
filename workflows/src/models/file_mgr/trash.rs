//! The trash: what is put into it goes with all below it, and exactly that comes back.
//!
//! Rows and bytes are removed by the clean-up, once [`DAYS`] are over or somebody empties the trash. What was to go sooner anyway, as a
//! preview, still does, in the trash and after it came back.

use super::{
    file,
    file::Entry,
    folder,
    folder::Folder,
    tree::{TreeError, hold},
};
use crate::models::Db;
use uuid::Uuid;

/// How long something stays in the trash.
pub const DAYS: i32 = 30;

/// Puts a folder and all below it into the trash. One that is there already stays as it is.
///
/// # Errors
/// [`TreeError::Missing`], [`TreeError::Changed`]
pub async fn trash_folder(db: Db<'_>, tenant_id: Uuid, id: Uuid, rev: Option<i32>) -> Result<Folder, TreeError> {
    hold(&mut *db, tenant_id).await?;
    if !folder::standing(&mut *db, tenant_id, id).await?.check(rev)?.is_trashed {
        sqlx::query!(
            "with recursive below (id) as (
                 select $2::uuid
                 union all select f.id from file_mgr.folders f join below b on f.parent_id = b.id
                 where f.tenant_id = $1 and f.trashed_at is null
             ), files as (
                 update file_mgr.files set state = 'trashed', trashed_at = workflow.now(), trashed_with = $2, rev = rev + 1,
                     purge_after = least(purge_after, workflow.now() + make_interval(days => $3)), updated_at = workflow.now()
                 where tenant_id = $1 and folder_id in (select id from below) and state = 'ready'
             )
             update file_mgr.folders set trashed_at = workflow.now(), trashed_with = $2, rev = rev + 1,
                 purge_after = workflow.now() + make_interval(days => $3), updated_at = workflow.now()
             where tenant_id = $1 and id in (select id from below)",
            tenant_id,
            id,
            DAYS,
        )
        .execute(&mut *db)
        .await?;
    }
    folder::get(db, tenant_id, id).await?.ok_or(TreeError::Missing)
}

/// Takes a folder out of the trash, with exactly what went there with it. One that is not there stays as it is. What had a time of its own has it
/// again, over or not; a time that came in the trash was the trash's.
///
/// # Errors
/// [`TreeError::Missing`], [`TreeError::Changed`], [`TreeError::ComesWith`], [`TreeError::FolderInTrash`], [`TreeError::NameTaken`]
pub async fn restore_folder(db: Db<'_>, tenant_id: Uuid, id: Uuid, rev: Option<i32>) -> Result<Folder, TreeError> {
    hold(&mut *db, tenant_id).await?;
    let standing = folder::standing(&mut *db, tenant_id, id).await?.check(rev)?;
    if let Some(with) = standing.trashed_with {
        if with != id {
            return Err(TreeError::ComesWith(with));
        }
        sqlx::query!(
            "update file_mgr.folders
             set trashed_at = null, trashed_with = null, purge_after = null, updated_at = workflow.now(), rev = rev + 1
             where tenant_id = $1 and trashed_with = $2",
            tenant_id,
            id,
        )
        .execute(&mut *db)
        .await?;
        // Whether there is a place for it is looked at as for one that is moved; below it nothing can have changed.
        sqlx::query!(
            "update file_mgr.folders set parent_id = parent_id where tenant_id = $1 and id = $2",
            tenant_id,
            id
        )
        .execute(&mut *db)
        .await?;
        sqlx::query!(
            "update file_mgr.files set state = 'ready', trashed_at = null, trashed_with = null, updated_at = workflow.now(), rev = rev + 1,
                 purge_after = case when retention <> 'keep' and (purge_after > workflow.now() or purge_after < trashed_at)
                          and purge_after < trashed_at + make_interval(days => $3) then purge_after end
             where tenant_id = $1 and trashed_with = $2 and state = 'trashed'",
            tenant_id,
            id,
            DAYS,
        )
        .execute(&mut *db)
        .await?;
    }
    folder::get(db, tenant_id, id).await?.ok_or(TreeError::Missing)
}

/// Puts a file into the trash. One that is there already stays as it is.
///
/// # Errors
/// [`TreeError::Missing`], [`TreeError::Changed`]
pub async fn trash_file(db: Db<'_>, tenant_id: Uuid, id: Uuid, rev: Option<i32>) -> Result<Entry, TreeError> {
    hold(&mut *db, tenant_id).await?;
    if !file::standing(&mut *db, tenant_id, id).await?.check(rev)?.is_trashed {
        sqlx::query!(
            "update file_mgr.files set state = 'trashed', trashed_at = workflow.now(), trashed_with = $2, rev = rev + 1,
                 purge_after = least(purge_after, workflow.now() + make_interval(days => $3)), updated_at = workflow.now()
             where tenant_id = $1 and id = $2",
            tenant_id,
            id,
            DAYS,
        )
        .execute(&mut *db)
        .await?;
    }
    file::get(db, tenant_id, id).await?.ok_or(TreeError::Missing)
}

/// Takes a file out of the trash. One that is not there stays as it is.
///
/// # Errors
/// As for [`restore_folder`].
pub async fn restore_file(db: Db<'_>, tenant_id: Uuid, id: Uuid, rev: Option<i32>) -> Result<Entry, TreeError> {
    hold(&mut *db, tenant_id).await?;
    let standing = file::standing(&mut *db, tenant_id, id).await?.check(rev)?;
    match standing.trashed_with {
        Some(with) if with != id => return Err(TreeError::ComesWith(with)),
        _ if standing.is_trashed => {
            sqlx::query!(
                "update file_mgr.files set state = 'ready', trashed_at = null, trashed_with = null, updated_at = workflow.now(), rev = rev + 1,
                     purge_after = case when retention <> 'keep' and (purge_after > workflow.now() or purge_after < trashed_at)
                          and purge_after < trashed_at + make_interval(days => $3) then purge_after end
                 where tenant_id = $1 and id = $2",
                tenant_id,
                id,
                DAYS,
            )
            .execute(&mut *db)
            .await?;
        }
        _ => {}
    }
    file::get(db, tenant_id, id).await?.ok_or(TreeError::Missing)
}

/// What the next clean-up removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Emptied {
    /// Files.
    pub files: i64,
    /// Their length together.
    pub bytes: i64,
    /// Folders.
    pub folders: i64,
}

/// Lets the next clean-up remove all that is in the trash of a tenant, whatever of its days is left. Repeating it is harmless.
///
/// # Errors
/// Those of the database.
pub async fn empty(db: Db<'_>, tenant_id: Uuid) -> Result<Emptied, TreeError> {
    hold(&mut *db, tenant_id).await?;
    let emptied = sqlx::query_as!(
        Emptied,
        r#"with files as (
               update file_mgr.files set purge_after = least(purge_after, workflow.now())
               where tenant_id = $1 and state = 'trashed' returning blob_id
           ), folders as (
               update file_mgr.folders set purge_after = least(purge_after, workflow.now())
               where tenant_id = $1 and trashed_at is not null returning id
           )
           select count(*) as "files!", coalesce(sum(b.size_bytes), 0)::bigint as "bytes!",
                  (select count(*) from folders) as "folders!"
           from files f join file_mgr.blobs b on b.id = f.blob_id"#,
        tenant_id,
    );
    Ok(emptied.fetch_one(db).await?)
}
