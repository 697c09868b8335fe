//! Links to a file for somebody without an account.

use crate::{
    contracts::storage::BlobRef,
    models::{Db, Secret, content::project::blob_ref},
};
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// What the token of a link begins with.
pub const TOKEN_KIND: &str = "fr_share_";
/// Links of a file that work at the same time.
pub const LIVE_LINKS: i64 = 20;

/// A link. Its token is kept as a hash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShareLink {
    /// Its id.
    pub id: Uuid,
    /// The file it leads to.
    pub file_id: Uuid,
    /// Until when it leads there.
    pub expires_at: DateTime<Utc>,
    /// How often; none: as often as somebody likes.
    pub max_downloads: Option<i32>,
    /// How often it did.
    pub used: i32,
    /// When somebody ended it.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// The file that a link leads to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shared {
    /// Whose it is.
    pub tenant_id: Uuid,
    /// Its name.
    pub name: String,
    /// Its media type.
    pub mime: String,
    /// Its content.
    pub blob: BlobRef,
    /// Whether the link leads there so many times only.
    pub is_counted: bool,
}

/// Makes a link to a file that is there, good for `seconds`; its token cannot be had again. None when the file has
/// [`LIVE_LINKS`] that work.
pub async fn create(
    db: Db<'_>,
    tenant_id: Uuid,
    file_id: Uuid,
    seconds: i32,
    max_downloads: Option<i32>,
) -> sqlx::Result<Option<(ShareLink, Secret)>> {
    let token = Secret::generate(TOKEN_KIND);
    // Whoever makes links of one file takes turns.
    sqlx::query!(
        "select id from file_mgr.files where tenant_id = $1 and id = $2 for no key update",
        tenant_id,
        file_id
    )
    .fetch_optional(&mut *db)
    .await?;
    let live = sqlx::query_scalar!(
        r#"select count(*) as "it!" from file_mgr.share_links where tenant_id = $1 and file_id = $2 and revoked_at is null
           and expires_at > workflow.now() and used < coalesce(max_downloads, used + 1)"#,
        tenant_id,
        file_id,
    );
    if live.fetch_one(&mut *db).await? >= LIVE_LINKS {
        return Ok(None);
    }
    let link = sqlx::query_as!(
        ShareLink,
        "insert into file_mgr.share_links (id, tenant_id, file_id, token_hash, expires_at, max_downloads)
         values ($1, $2, $3, $4, workflow.now() + make_interval(secs => $5), $6)
         returning id, file_id, expires_at, max_downloads, used, revoked_at, created_at",
        Uuid::now_v7(),
        tenant_id,
        file_id,
        token.hash(),
        f64::from(seconds),
        max_downloads,
    );
    Ok(Some((link.fetch_one(db).await?, token)))
}

/// The links of a file in the order in which they were made, after that one.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    file_id: Uuid,
    after: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<ShareLink>> {
    let links = sqlx::query_as!(
        ShareLink,
        "select id, file_id, expires_at, max_downloads, used, revoked_at, created_at from file_mgr.share_links
         where tenant_id = $1 and file_id = $2 and ($3::uuid is null or id > $3) order by id limit $4",
        tenant_id,
        file_id,
        after,
        limit,
    );
    links.fetch_all(db).await
}

/// Ends a link at once; whether there is one. Ending it twice is harmless.
pub async fn revoke(db: Db<'_>, tenant_id: Uuid, file_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update file_mgr.share_links set revoked_at = coalesce(revoked_at, workflow.now())
         where tenant_id = $1 and file_id = $2 and id = $3",
        tenant_id,
        file_id,
        id,
    );
    Ok(done.execute(db).await?.rows_affected() == 1)
}

/// Where a token leads: none when it is unknown, expired, revoked or used up, or the file is not there any more.
pub async fn look(db: Db<'_>, token: &str) -> sqlx::Result<Option<Shared>> {
    let row = sqlx::query!(
        r#"select f.tenant_id, f.name, f.mime_detected, b.sha256, b.size_bytes, l.max_downloads is not null as "is_counted!"
           from file_mgr.share_links l join file_mgr.files f on f.id = l.file_id join file_mgr.blobs b on b.id = f.blob_id
           where l.token_hash = $1 and l.revoked_at is null and l.expires_at > workflow.now() and f.state = 'ready'
             and l.used < coalesce(l.max_downloads, l.used + 1)"#,
        Secret::hash_of(token),
    );
    let Some(r) = row.fetch_optional(db).await? else { return Ok(None) };
    let blob = blob_ref(r.sha256, r.size_bytes)?;
    Ok(Some(Shared { tenant_id: r.tenant_id, name: r.name, mime: r.mime_detected, blob, is_counted: r.is_counted }))
}

/// Takes one of the downloads of a link, if one is left: it is taken when the transaction commits. Those who share a link take
/// turns, so that it is never used more often than it may.
pub async fn take(db: Db<'_>, token: &str) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        "update file_mgr.share_links set used = used + 1
         where token_hash = $1 and revoked_at is null and expires_at > workflow.now() and used < coalesce(max_downloads, used + 1)",
        Secret::hash_of(token),
    );
    Ok(taken.execute(db).await?.rows_affected() == 1)
}

/// Forgets up to `limit` links that have led nowhere for three months; gives how many.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from file_mgr.share_links where id in (
             select id from file_mgr.share_links where least(expires_at, revoked_at) < workflow.now() - interval '90 days' limit $1)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}
