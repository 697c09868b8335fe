//! Folders: a tree for people, of the whole tenant.

use super::tree::{Change, Standing, TreeError, hold};
use crate::{contracts::file_name::FileName, models::Db};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folder {
    /// Its id.
    pub id: Uuid,
    /// The folder it lies in; none: it is at the top.
    pub parent_id: Option<Uuid>,
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed.
    pub updated_at: DateTime<Utc>,
    /// When it was put into the trash.
    pub trashed_at: Option<DateTime<Utc>>,
    /// What was put into the trash, and it with that: itself or a folder above it.
    pub trashed_with: Option<Uuid>,
    /// When it goes for good.
    pub purge_after: Option<DateTime<Utc>>,
    /// Counts its changes.
    pub rev: i32,
}

/// Which folders to list, in the order in which they were made.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// Those in this folder; none: at the top. Of those in the trash: wherever they lay.
    pub parent_id: Option<Uuid>,
    /// Those that were put into the trash, without what went with them, instead of those that are there.
    pub trashed: bool,
    /// Those whose names begin so, whatever the case.
    pub prefix: &'a str,
    /// Those made after this one.
    pub after: Option<Uuid>,
    /// How many at most.
    pub limit: i64,
}

/// Makes a folder.
///
/// # Errors
/// [`TreeError::FolderMissing`], [`TreeError::FolderInTrash`], [`TreeError::NameTaken`], [`TreeError::TooDeep`]
pub async fn create(
    db: Db<'_>,
    tenant_id: Uuid,
    parent_id: Option<Uuid>,
    name: &FileName,
) -> Result<Folder, TreeError> {
    hold(&mut *db, tenant_id).await?;
    let folder = sqlx::query_as!(
        Folder,
        "insert into file_mgr.folders (id, tenant_id, parent_id, name) values ($1, $2, $3, $4)
         returning id, parent_id, name, created_at, updated_at, trashed_at, trashed_with, purge_after, rev",
        Uuid::now_v7(),
        tenant_id,
        parent_id,
        name.as_str(),
    );
    Ok(folder.fetch_one(db).await?)
}

/// A folder, in the trash or not.
pub async fn get(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Folder>> {
    let folder = sqlx::query_as!(
        Folder,
        "select id, parent_id, name, created_at, updated_at, trashed_at, trashed_with, purge_after, rev
         from file_mgr.folders where tenant_id = $1 and id = $2",
        tenant_id,
        id,
    );
    folder.fetch_optional(db).await
}

/// The folders that fit `filter`.
pub async fn list(db: Db<'_>, tenant_id: Uuid, filter: &Filter<'_>) -> sqlx::Result<Vec<Folder>> {
    let folders = sqlx::query_as!(
        Folder,
        "select id, parent_id, name, created_at, updated_at, trashed_at, trashed_with, purge_after, rev
         from file_mgr.folders
         where tenant_id = $1 and starts_with(name_key, file_mgr.name_key($4)) and ($5::uuid is null or id > $5)
           and case when $3 then trashed_with = id else trashed_at is null and parent_id is not distinct from $2 end
         order by id limit $6",
        tenant_id,
        filter.parent_id,
        filter.trashed,
        filter.prefix,
        filter.after,
        filter.limit,
    );
    folders.fetch_all(db).await
}

/// Renames or moves a folder, if it is at `rev` or nobody says at which.
///
/// # Errors
/// As for [`create`]; [`TreeError::Missing`], [`TreeError::InTrash`], [`TreeError::Changed`], [`TreeError::Loop`]
pub async fn change(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    rev: Option<i32>,
    change: &Change,
) -> Result<Folder, TreeError> {
    hold(&mut *db, tenant_id).await?;
    standing(&mut *db, tenant_id, id).await?.check_live(rev)?;
    let folder = sqlx::query_as!(
        Folder,
        "update file_mgr.folders
         set name = coalesce($3, name), parent_id = case when $4 then $5 else parent_id end, updated_at = workflow.now(), rev = rev + 1
         where tenant_id = $1 and id = $2
         returning id, parent_id, name, created_at, updated_at, trashed_at, trashed_with, purge_after, rev",
        tenant_id,
        id,
        change.name.as_ref().map(FileName::as_str),
        change.folder.is_some(),
        change.folder.flatten(),
    );
    Ok(folder.fetch_one(db).await?)
}

/// Whether something of this name may come into a folder. It stays so until the transaction ends.
///
/// # Errors
/// Those of the database.
pub(super) async fn has_place(db: Db<'_>, tenant_id: Uuid, id: Uuid, name: &str) -> sqlx::Result<bool> {
    hold(&mut *db, tenant_id).await?;
    sqlx::query_scalar!(
        r#"select exists (select from file_mgr.folders where tenant_id = $1 and id = $2 and trashed_at is null)
              and not exists (select from file_mgr.folders
                              where parent_id = $2 and name_key = file_mgr.name_key($3) and trashed_at is null)
              and not exists (select from file_mgr.files where folder_id = $2 and name_key = file_mgr.name_key($3)
                              and state not in ('trashed', 'purged', 'rejected')) as "it!""#,
        tenant_id,
        id,
        name,
    )
    .fetch_one(db)
    .await
}

pub(super) async fn standing(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Standing, TreeError> {
    let found = sqlx::query_as!(
        Standing,
        r#"select rev, trashed_at is not null as "is_trashed!", trashed_with from file_mgr.folders
           where tenant_id = $1 and id = $2 for no key update"#,
        tenant_id,
        id,
    );
    found.fetch_optional(db).await?.ok_or(TreeError::Missing)
}
