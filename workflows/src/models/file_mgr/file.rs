//! Named uses of content: uploads, films, contact sheets.

use super::{
    blob,
    tree::{Change, Standing, TreeError, hold},
};
use crate::{
    contracts::{
        file_name::FileName,
        storage::{BlobHash, BlobRef},
    },
    models::{Db, content::project::blob_ref},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A file of a tenant.
#[derive(Debug, Clone)]
pub struct File {
    /// Its id.
    pub id: Uuid,
    /// Its name, as given.
    pub name: String,
    /// `image`, `audio` or `video`, found in its content.
    pub kind: String,
    /// Media type, found in its content.
    pub mime: String,
    /// Its content.
    pub blob: BlobRef,
    /// Pixels, of images and videos.
    pub width: Option<i32>,
    /// Pixels, of images and videos.
    pub height: Option<i32>,
    /// Length of sounds and videos.
    pub duration_ms: Option<i64>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// A file and where it is.
#[derive(Debug, Clone)]
pub struct Entry {
    /// What it is.
    pub file: File,
    /// The folder it lies in; none: in no folder.
    pub folder_id: Option<Uuid>,
    /// What it is for: `asset`, `export` …
    pub purpose: String,
    /// `ready` or `trashed`; or what an upload is on its way there.
    pub state: String,
    /// Whether everybody may see its content while it is ready.
    pub is_public: bool,
    /// When it was changed.
    pub updated_at: DateTime<Utc>,
    /// When it was put into the trash.
    pub trashed_at: Option<DateTime<Utc>>,
    /// When it goes for good.
    pub purge_after: Option<DateTime<Utc>>,
    /// Counts its changes.
    pub rev: i32,
}

/// What everybody may see of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicFile {
    /// Its media type.
    pub mime: String,
    /// Its content.
    pub blob: BlobRef,
}

/// Which files to list, newest first.
#[derive(Debug, Clone, Default)]
pub struct Filter<'a> {
    /// Those in this folder; none: wherever they are.
    pub folder_id: Option<Uuid>,
    /// Those in no folder.
    pub top: bool,
    /// Of this kind.
    pub kind: Option<&'a str>,
    /// In this state. Those in the trash are those that were put there, without what went with a folder.
    pub state: &'a str,
    /// Those whose names begin so, whatever the case.
    pub prefix: &'a str,
    /// Those older than this one.
    pub after: Option<Uuid>,
    /// How many at most.
    pub limit: i64,
}

/// A file to add; its content is already stored.
#[derive(Debug, Clone)]
pub struct NewFile<'a> {
    /// Whose it is; none for what is the tenant's.
    pub owner_id: Option<Uuid>,
    /// As [`FileName`] has it.
    pub name: &'a str,
    /// `asset`, `export` or `contact_sheet`.
    pub purpose: &'a str,
    /// `image`, `audio` or `video`.
    pub kind: &'a str,
    /// Media type found in the content.
    pub mime: &'a str,
    /// The content.
    pub blob: &'a BlobRef,
    /// Pixels.
    pub width: Option<i32>,
    /// Pixels.
    pub height: Option<i32>,
    /// Milliseconds.
    pub duration_ms: Option<i64>,
}

/// Adds a file and gives its id.
pub async fn insert(db: Db<'_>, tenant_id: Uuid, file: &NewFile<'_>) -> sqlx::Result<Uuid> {
    let blob_id = blob::record(&mut *db, tenant_id, file.blob).await?;
    let id = Uuid::now_v7();
    sqlx::query!(
        r#"insert into file_mgr.files
               (id, tenant_id, blob_id, name, purpose, kind, mime_detected, width, height, duration_ms, owner_id)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"#,
        id,
        tenant_id,
        blob_id,
        file.name,
        file.purpose,
        file.kind,
        file.mime,
        file.width,
        file.height,
        file.duration_ms,
        file.owner_id,
    )
    .execute(db)
    .await?;
    Ok(id)
}

/// Those of `ids` that are files of the tenant and not in the trash, in no order.
pub async fn find(db: Db<'_>, tenant_id: Uuid, ids: &[Uuid]) -> sqlx::Result<Vec<File>> {
    let rows = sqlx::query!(
        r#"select f.id, f.name, f.kind, f.mime_detected, f.width, f.height, f.duration_ms, f.created_at,
                  b.sha256, b.size_bytes
           from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id
           where f.tenant_id = $1 and f.id = any($2) and f.state = 'ready'"#,
        tenant_id,
        ids,
    )
    .fetch_all(db)
    .await?;
    rows.into_iter()
        .map(|r| {
            Ok(File {
                id: r.id,
                name: r.name,
                kind: r.kind,
                mime: r.mime_detected,
                blob: blob_ref(r.sha256, r.size_bytes)?,
                width: r.width,
                height: r.height,
                duration_ms: r.duration_ms,
                created_at: r.created_at,
            })
        })
        .collect()
}

/// As [`find`], for who is about to name them in this transaction: until its end none of them is purged. Waits for whoever purges one at this
/// moment, who is found to have done so. After the tenant's turn, when that is taken, too.
///
/// # Errors
/// Those of the database.
pub async fn find_to_name(db: Db<'_>, tenant_id: Uuid, ids: &[Uuid]) -> sqlx::Result<Vec<File>> {
    // Whoever purges locks them as well before it is asked who names them.
    sqlx::query!(
        "select id from file_mgr.files where tenant_id = $1 and id = any($2) order by id for key share",
        tenant_id,
        ids
    )
    .fetch_all(&mut *db)
    .await?;
    find(db, tenant_id, ids).await
}

/// A file, in the trash or not; none once it is gone for good.
pub async fn get(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Entry>> {
    let row = sqlx::query_as!(
        Row,
        r#"select f.id, f.name, f.kind, f.mime_detected, f.width, f.height, f.duration_ms, f.created_at, b.sha256, b.size_bytes,
                f.folder_id, f.purpose, f.state, f.visibility = 'public' as "is_public!", f.updated_at, f.trashed_at, f.purge_after, f.rev
         from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id
         where f.tenant_id = $1 and f.id = $2 and f.state <> 'purged'"#,
        tenant_id,
        id,
    );
    row.fetch_optional(db).await?.map(Row::entry).transpose()
}

/// The files that fit `filter`.
pub async fn list(db: Db<'_>, tenant_id: Uuid, filter: &Filter<'_>) -> sqlx::Result<Vec<Entry>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select f.id, f.name, f.kind, f.mime_detected, f.width, f.height, f.duration_ms, f.created_at, b.sha256, b.size_bytes,
                f.folder_id, f.purpose, f.state, f.visibility = 'public' as "is_public!", f.updated_at, f.trashed_at, f.purge_after, f.rev
         from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id
         where f.tenant_id = $1 and f.state <> 'purged' and f.state = $5 and ($2::uuid is null or f.folder_id = $2)
           and (not $3 or f.folder_id is null) and ($4::text is null or f.kind = $4)
           and (f.state <> 'trashed' or coalesce(f.trashed_with, f.id) = f.id)
           and starts_with(f.name_key, file_mgr.name_key($6)) and ($7::uuid is null or f.id < $7)
         order by f.id desc limit $8"#,
        tenant_id,
        filter.folder_id,
        filter.top,
        filter.kind,
        filter.state,
        filter.prefix,
        filter.after,
        filter.limit,
    );
    rows.fetch_all(db).await?.into_iter().map(Row::entry).collect()
}

/// What everybody may see under this hash of a tenant; none when no file that is public and not in the trash has it. Several files may:
/// what is in them is the same.
pub async fn find_public(db: Db<'_>, tenant_id: Uuid, hash: &BlobHash) -> sqlx::Result<Option<PublicFile>> {
    let row = sqlx::query!(
        "select f.mime_detected, b.sha256, b.size_bytes
         from file_mgr.blobs b join file_mgr.files f on f.tenant_id = b.tenant_id and f.blob_id = b.id
         where b.tenant_id = $1 and b.sha256 = $2 and f.visibility = 'public' and f.state = 'ready' limit 1",
        tenant_id,
        hash.as_str(),
    );
    let Some(r) = row.fetch_optional(db).await? else { return Ok(None) };
    Ok(Some(PublicFile { mime: r.mime_detected, blob: blob_ref(r.sha256, r.size_bytes)? }))
}

/// Renames a file, moves it to another folder or says who may see it, if it is at `rev` or nobody says at which.
///
/// # Errors
/// [`TreeError::Missing`], [`TreeError::InTrash`], [`TreeError::Changed`], [`TreeError::FolderMissing`],
/// [`TreeError::FolderInTrash`], [`TreeError::NameTaken`], [`TreeError::NotForEverybody`]
pub async fn change(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    rev: Option<i32>,
    change: &Change,
) -> Result<Entry, TreeError> {
    hold(&mut *db, tenant_id).await?;
    standing(&mut *db, tenant_id, id).await?.check_live(rev)?;
    sqlx::query!(
        "update file_mgr.files
         set name = coalesce($3, name), folder_id = case when $4 then $5 else folder_id end,
             visibility = case $6::bool when true then 'public' when false then 'private' else visibility end,
             updated_at = workflow.now(), rev = rev + 1
         where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        change.name.as_ref().map(FileName::as_str),
        change.folder.is_some(),
        change.folder.flatten(),
        change.is_public,
    )
    .execute(&mut *db)
    .await?;
    get(db, tenant_id, id).await?.ok_or(TreeError::Missing)
}

pub(super) async fn standing(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> Result<Standing, TreeError> {
    let found = sqlx::query_as!(
        Standing,
        r#"select rev, state = 'trashed' as "is_trashed!", trashed_with from file_mgr.files
           where tenant_id = $1 and id = $2 and state in ('ready', 'trashed') for no key update"#,
        tenant_id,
        id,
    );
    found.fetch_optional(db).await?.ok_or(TreeError::Missing)
}

struct Row {
    id: Uuid,
    name: String,
    kind: String,
    mime_detected: String,
    width: Option<i32>,
    height: Option<i32>,
    duration_ms: Option<i64>,
    created_at: DateTime<Utc>,
    sha256: String,
    size_bytes: i64,
    folder_id: Option<Uuid>,
    purpose: String,
    state: String,
    is_public: bool,
    updated_at: DateTime<Utc>,
    trashed_at: Option<DateTime<Utc>>,
    purge_after: Option<DateTime<Utc>>,
    rev: i32,
}

impl Row {
    fn entry(self) -> sqlx::Result<Entry> {
        Ok(Entry {
            file: File {
                id: self.id,
                name: self.name,
                kind: self.kind,
                mime: self.mime_detected,
                blob: blob_ref(self.sha256, self.size_bytes)?,
                width: self.width,
                height: self.height,
                duration_ms: self.duration_ms,
                created_at: self.created_at,
            },
            folder_id: self.folder_id,
            purpose: self.purpose,
            state: self.state,
            is_public: self.is_public,
            updated_at: self.updated_at,
            trashed_at: self.trashed_at,
            purge_after: self.purge_after,
            rev: self.rev,
        })
    }
}
