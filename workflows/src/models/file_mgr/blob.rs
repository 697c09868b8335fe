//! Content that a tenant keeps.

use crate::{
    contracts::storage::{BlobHash, BlobRef},
    models::Db,
};
use uuid::Uuid;

/// Records stored content once a tenant and gives its id; a known content keeps its id. The row is locked until the transaction
/// ends: nobody begins to remove the content meanwhile.
///
/// # Errors
/// Those of the database. A file of content that has been removed since it was stored, or is being removed, is refused: see [`is_gone`].
pub async fn record(db: Db<'_>, tenant_id: Uuid, blob: &BlobRef) -> sqlx::Result<Uuid> {
    sqlx::query_scalar!(
        r#"insert into file_mgr.blobs (id, tenant_id, sha256, size_bytes) values ($1, $2, $3, $4)
           on conflict (tenant_id, sha256) do update set size_bytes = excluded.size_bytes
           returning id"#,
        Uuid::now_v7(),
        tenant_id,
        blob.sha256.as_str(),
        blob.size_bytes as i64,
    )
    .fetch_one(db)
    .await
}

/// Whether the database refused a file because its content is removed, or being removed: it has to be stored once more. Does not happen
/// within two days of its being stored ([`super::blob_claim`]).
pub fn is_gone(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|e| {
        e.code().is_some_and(|code| code == "40001") || e.constraint() == Some("what_is_used_is_there")
    })
}

/// Whether content of a tenant is doomed: nobody uses it, and its object may be removed as long as the transaction goes on. Until it ends
/// nobody says what became of it ([`super::deletion::settle`]), so nobody makes a file of it.
///
/// # Errors
/// Those of the database.
pub async fn stays_doomed(db: Db<'_>, tenant_id: Uuid, hash: &BlobHash) -> sqlx::Result<bool> {
    let doomed = sqlx::query_scalar!(
        "select id from file_mgr.blobs where tenant_id = $1 and sha256 = $2 and doomed_at is not null for key share",
        tenant_id,
        hash.as_str(),
    );
    Ok(doomed.fetch_optional(db).await?.is_some())
}

/// Which of these objects of a tenant nothing accounts for: no content is known by this hash, no template is made of it and no film
/// under way. As an administrator: it looks into several services.
///
/// # Errors
/// Those of the database.
pub async fn unaccounted(db: Db<'_>, tenant_id: Uuid, hashes: &[String]) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select h as "h!" from unnest($2::text[]) h
           where not exists (select from file_mgr.blobs b where b.tenant_id = $1 and b.sha256 = h and b.removed_at is null)
             and not exists (select from content.project_versions v where h in (v.package_sha256, v.preview_sha256))
             and h not in (select file_mgr.content_of_films_under_way())"#,
        tenant_id,
        hashes,
    )
    .fetch_all(db)
    .await
}

/// Content of a tenant that files use, or of which its templates are made, by hash, after `after`: what storage has to have. As an
/// administrator; so with the one below.
///
/// # Errors
/// Those of the database.
pub async fn used(db: Db<'_>, tenant_id: Uuid, after: Option<&BlobHash>, limit: i64) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select u.sha256 as "sha256!" from (
               (select sha256 from file_mgr.blobs where tenant_id = $1 and refcount > 0 and sha256 > coalesce($2, '') order by sha256 limit $3)
               union
               (select package_sha256 from content.project_versions where tenant_id = $1 and package_sha256 > coalesce($2, ''))
               union
               (select preview_sha256 from content.project_versions where tenant_id = $1 and preview_sha256 > coalesce($2, ''))) u
           order by 1 limit $3"#,
        tenant_id,
        after.map(BlobHash::as_str),
        limit,
    )
    .fetch_all(db)
    .await
}

/// Whether a file of a tenant uses this content now, or a template is made of it.
///
/// # Errors
/// Those of the database.
pub async fn is_used(db: Db<'_>, tenant_id: Uuid, hash: &BlobHash) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from file_mgr.blobs where tenant_id = $1 and sha256 = $2 and refcount > 0)
               or exists (select from content.project_versions where tenant_id = $1 and $2 in (package_sha256, preview_sha256)) as "it!""#,
        tenant_id,
        hash.as_str(),
    )
    .fetch_one(db)
    .await
}
