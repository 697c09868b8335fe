//! Named uses of content: uploads, films, contact sheets.

use super::blob;
use crate::{
    contracts::storage::BlobRef,
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

/// A file to add; its content is already stored.
#[derive(Debug, Clone)]
pub struct NewFile<'a> {
    /// Whose it is; none for what is the tenant's.
    pub owner_id: Option<Uuid>,
    /// 1 to 255 characters, no slash, no control characters.
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

/// Those of `ids` that are files of the tenant, in no order.
pub async fn find(db: Db<'_>, tenant_id: Uuid, ids: &[Uuid]) -> sqlx::Result<Vec<File>> {
    let rows = sqlx::query!(
        r#"select f.id, f.name, f.kind, f.mime_detected, f.width, f.height, f.duration_ms, f.created_at,
                  b.sha256, b.size_bytes
           from file_mgr.files f join file_mgr.blobs b on b.id = f.blob_id
           where f.tenant_id = $1 and f.id = any($2)"#,
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
