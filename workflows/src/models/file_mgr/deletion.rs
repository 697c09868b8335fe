//! Objects that nobody uses any more: queued in the transaction of the last use, removed from storage afterwards.
//!
//! ```text
//!   refcount 0 ──trigger──▶ queued ──an hour──▶ doomed ──removed from storage──▶ done
//!        ▲                     │                   └──not removed──▶ queued again, later each time
//!        └────used again───────┘      (who wants doomed content waits or is refused, and stores it again)
//! ```
//!
//! Content that somebody has stored and not yet recorded is claimed ([`super::blob_claim`]) and not doomed meanwhile. The row of what was
//! removed stays for a month, so that a file that was to be made of it is refused instead of leading to nothing.

use crate::{contracts::storage::BlobHash, models::Db};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Content whose object is about to be removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Doomed {
    /// Its owner.
    pub tenant_id: Uuid,
    /// Its hash.
    pub sha256: BlobHash,
}

/// Queues an object that nothing accounts for. Harmless when it is queued already.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn queue(db: Db<'_>, tenant_id: Uuid, hashes: &[String]) -> sqlx::Result<u64> {
    let queued = sqlx::query!(
        "insert into file_mgr.deletion_queue (tenant_id, sha256, not_before)
         select $1, h, workflow.now() from unnest($2::text[]) h on conflict do nothing",
        tenant_id,
        hashes,
    );
    Ok(queued.execute(db).await?.rows_affected())
}

/// Queues content that no file has ever used although its claim has ended, or a week has passed; gives how much that was.
pub async fn queue_never_used(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let queued = sqlx::query!(
        "insert into file_mgr.deletion_queue (tenant_id, sha256, not_before)
         select tenant_id, sha256, workflow.now() from file_mgr.blobs b
         where refcount = 0 and coalesce(wanted_until, created_at + interval '7 days') < workflow.now()
           and doomed_at is null and removed_at is null
           and not exists (select from file_mgr.deletion_queue q where q.tenant_id = b.tenant_id and q.sha256 = b.sha256 and q.done_at is null)
           and not exists (select from content.project_versions v where b.sha256 in (v.package_sha256, v.preview_sha256))
         order by created_at limit $1
         on conflict do nothing",
        limit,
    );
    Ok(queued.execute(db).await?.rows_affected())
}

/// Dooms up to `limit` pieces of content that are due: from here on nobody may use them until [`settle`] says what became of them. What
/// a file, a template or a film under way uses after all leaves the queue instead. Two who ask at once get different ones, and
/// what was given out is not given again within an hour. As an administrator.
pub async fn doom(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<Doomed>> {
    let due = sqlx::query!(
        "update file_mgr.deletion_queue set not_before = workflow.now() + interval '1 hour', attempts = attempts + 1
         where id in (select id from file_mgr.deletion_queue q where done_at is null and not_before <= workflow.now()
                        and not exists (select from file_mgr.blobs b where b.tenant_id = q.tenant_id and b.sha256 = q.sha256
                                          and b.wanted_until > workflow.now())
                      order by not_before limit $1 for update skip locked)
         returning tenant_id, sha256",
        limit,
    )
    .fetch_all(&mut *db)
    .await?;
    let (tenants, hashes): (Vec<Uuid>, Vec<String>) = due.into_iter().map(|r| (r.tenant_id, r.sha256)).unzip();
    // An object without a row gets one, so that whoever stores the same content meanwhile meets it. Its size is not known.
    let doomed = sqlx::query!(
        r#"insert into file_mgr.blobs as b (id, tenant_id, sha256, size_bytes, doomed_at)
           select gen_random_uuid(), d.tenant_id, d.sha256, 1, workflow.now() from unnest($1::uuid[], $2::text[]) d (tenant_id, sha256)
           where not exists (select from content.project_versions v where d.sha256 in (v.package_sha256, v.preview_sha256))
             and d.sha256 not in (select file_mgr.content_of_films_under_way())
           order by d.tenant_id, d.sha256
           on conflict (tenant_id, sha256) do update set doomed_at = workflow.now()
               where b.refcount = 0 and coalesce(b.wanted_until <= workflow.now(), true)
           returning tenant_id, sha256"#,
        &tenants,
        &hashes,
    )
    .fetch_all(&mut *db)
    .await?;
    let (kept_tenants, kept): (Vec<Uuid>, Vec<String>) = doomed.into_iter().map(|r| (r.tenant_id, r.sha256)).unzip();
    sqlx::query!(
        "delete from file_mgr.deletion_queue q using unnest($1::uuid[], $2::text[]) d (tenant_id, sha256)
         where q.tenant_id = d.tenant_id and q.sha256 = d.sha256 and q.done_at is null
           and not exists (select from unnest($3::uuid[], $4::text[]) k (t, s) where k.t = d.tenant_id and k.s = d.sha256)",
        &tenants,
        &hashes,
        &kept_tenants,
        &kept,
    )
    .execute(db)
    .await?;
    let kept = kept_tenants.into_iter().zip(kept);
    kept.map(|(tenant_id, sha256)| {
        let sha256 = sha256.parse().map_err(|e| sqlx::Error::Decode(Box::new(e)))?;
        Ok(Doomed { tenant_id, sha256 })
    })
    .collect()
}

/// What became of doomed content: what is `gone` from storage is there no more; what is `left` may be used again and is tried
/// later, later each time, up to a day. Repeating it is harmless.
pub async fn settle(db: Db<'_>, tenant_id: Uuid, gone: &[String], left: &[String], error: &str) -> sqlx::Result<()> {
    // Whoever still removes one of them, however late, has done so before anybody may store it anew.
    sqlx::query!(
        "select from file_mgr.blobs where tenant_id = $1 and (sha256 = any ($2) or sha256 = any ($3)) order by id for update",
        tenant_id,
        gone,
        left
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update file_mgr.blobs set doomed_at = null, removed_at = workflow.now()
         where tenant_id = $1 and sha256 = any ($2) and doomed_at is not null",
        tenant_id,
        gone
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update file_mgr.deletion_queue set done_at = workflow.now(), last_error = null
         where tenant_id = $1 and sha256 = any ($2) and done_at is null",
        tenant_id,
        gone
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update file_mgr.blobs set doomed_at = null where tenant_id = $1 and sha256 = any ($2)",
        tenant_id,
        left
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update file_mgr.deletion_queue
         set not_before = workflow.now() + least(interval '1 minute' * 2 ^ least(attempts, 12), interval '1 day'), last_error = left($3, 1000)
         where tenant_id = $1 and sha256 = any ($2) and done_at is null",
        tenant_id,
        left,
        error,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets up to `limit` removals that were done a month ago, and as much content that went then; gives how many removals.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    // A purged file still names its content.
    sqlx::query!(
        "delete from file_mgr.blobs where id in (
             select id from file_mgr.blobs b where refcount = 0 and removed_at < workflow.now() - interval '30 days'
               and not exists (select from file_mgr.files f where f.blob_id = b.id) limit $1)",
        limit
    )
    .execute(&mut *db)
    .await?;
    let gone = sqlx::query!(
        "delete from file_mgr.deletion_queue where id in (
             select id from file_mgr.deletion_queue where done_at < workflow.now() - interval '30 days' order by done_at limit $1)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}
