//! Stills that were rendered, by what decides how they look.

use super::{snapshot_job::Claimant, still_key::StillKey};
use crate::{
    contracts::{snapshot::MadeStill, storage::BlobHash},
    models::Db,
};
use std::collections::HashMap;
use uuid::Uuid;

/// A still that can be shown again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// Its id.
    pub id: Uuid,
    /// Where everybody sees it.
    pub url: String,
}

/// Real stills by their keys; the mock's are none.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, tenant_id: Uuid, keys: &[BlobHash]) -> sqlx::Result<HashMap<BlobHash, Snapshot>> {
    let keys: Vec<String> = keys.iter().map(ToString::to_string).collect();
    let found = sqlx::query!(
        r#"with found as (
               select id, encode(cache_key, 'hex') as key, public_url, last_used_at from render.snapshots
               where tenant_id = $1 and source = 'aerender' and cache_key in (select decode(k, 'hex') from unnest($2::text[]) k)
           ), noted as (
               -- An hour is exact enough, and nobody waits for another's note.
               update render.snapshots s set last_used_at = workflow.now() from (
                   select id from render.snapshots where id in (select id from found where last_used_at < workflow.now() - interval '1 hour')
                   order by id for update skip locked) used
               where s.id = used.id
           )
           select id, key as "key!", public_url from found"#,
        tenant_id,
        &keys,
    )
    .fetch_all(db)
    .await?;
    let known = found.into_iter().filter_map(|f| Some((f.key.parse().ok()?, Snapshot { id: f.id, url: f.public_url })));
    Ok(known.collect())
}

/// Content of real stills, in both sizes, by hash, after `after`: what storage has to have for everybody. Of all tenants, which share
/// content: each of it is there once.
///
/// # Errors
/// Those of the database.
pub async fn used(db: Db<'_>, after: Option<&BlobHash>, limit: i64) -> sqlx::Result<Vec<String>> {
    sqlx::query_scalar!(
        r#"select u.sha256 as "sha256!" from (
               (select distinct sha256 from render.snapshots
                where source = 'aerender' and sha256 > coalesce($1, '') order by 1 limit $2)
               union
               (select distinct right(small_url, 64) from render.snapshots
                where source = 'aerender' and right(small_url, 64) > coalesce($1, '') order by 1 limit $2)) u
           order by 1 limit $2"#,
        after.map(BlobHash::as_str),
        limit,
    )
    .fetch_all(db)
    .await
}

/// What is known of a picture.
pub(super) struct NewSnapshot<'a> {
    pub(super) url: String,
    pub(super) small_url: Option<String>,
    pub(super) size: [u32; 2],
    pub(super) sha256: BlobHash,
    pub(super) size_bytes: u64,
    pub(super) source: &'a str,
}

impl<'a> NewSnapshot<'a> {
    /// Pictures on the public shelf, reached below `base_url`.
    pub(super) fn made(still: &MadeStill, base_url: &str) -> Self {
        let blob = &still.large.blob;
        let url = |hash: &BlobHash| format!("{base_url}/snap/{hash}");
        Self {
            url: url(&blob.sha256),
            small_url: Some(url(&still.small.blob.sha256)),
            size: still.large.size,
            sha256: blob.sha256.clone(),
            size_bytes: blob.size_bytes,
            source: "aerender",
        }
    }

    /// A picture of the mock, in its own address.
    pub(super) fn placeholder(data_url: &str, size: [u32; 2]) -> Self {
        let sha256 = BlobHash::of(data_url.as_bytes());
        let size_bytes = data_url.len() as u64;
        Self { url: data_url.to_owned(), small_url: None, size, sha256, size_bytes, source: "mock" }
    }
}

/// Keeps a picture under its key and gives what is now there: a real one is replaced by a real one only.
pub(super) async fn keep(
    db: Db<'_>,
    whose: &Claimant,
    key: &StillKey,
    new: &NewSnapshot<'_>,
) -> sqlx::Result<Snapshot> {
    let digest = key.digest();
    sqlx::query!(
        r#"insert into render.snapshots as s (tenant_id, cache_key, project_version_id, scene_id, frame, width, height, inputs_hash,
               renderer_version, public_url, small_url, size_bytes, sha256, source)
           values ($1, decode($2, 'hex'), $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14)
           on conflict (tenant_id, cache_key) do update
           set public_url = excluded.public_url, small_url = excluded.small_url, width = excluded.width, height = excluded.height,
               size_bytes = excluded.size_bytes, sha256 = excluded.sha256, source = excluded.source, last_used_at = workflow.now()
           where s.source = 'mock' or excluded.source = 'aerender'"#,
        whose.tenant_id,
        digest.as_str(),
        whose.project_version_id,
        whose.scene_id,
        key.frame as i32,
        new.size[0] as i32,
        new.size[1] as i32,
        key.inputs.as_str(),
        key.renderer,
        new.url,
        new.small_url,
        new.size_bytes as i64,
        new.sha256.as_str(),
        new.source,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query_as!(
        Snapshot,
        "select id, public_url as url from render.snapshots where tenant_id = $1 and cache_key = decode($2, 'hex')",
        whose.tenant_id,
        digest.as_str(),
    )
    .fetch_one(db)
    .await
}
