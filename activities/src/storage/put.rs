//! Writing a blob: complete or absent.

use super::{errors, intake, intake::Intake, keys, read, s3, s3::Bucket};
use flatrender_workflows::contracts::storage::{BlobHash, BlobRef, ByteStream, Claims, Shelf, StorageError};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path as Key};
use std::path::Path;

/// A shelf that is written to.
#[derive(Clone, Copy)]
pub(super) struct Target<'a> {
    pub(super) store: &'a dyn ObjectStore,
    pub(super) bucket: Option<&'a Bucket>,
    pub(super) claims: Option<&'a dyn Claims>,
    pub(super) shelf: &'a Shelf,
}

impl Target<'_> {
    /// Whether the content is there and stays there. Claimed first: what is looked at before may be gone a moment later.
    async fn keeps(&self, hash: &BlobHash, size_bytes: Option<u64>) -> Result<bool, StorageError> {
        claim(self.claims, self.shelf, hash).await?;
        read::is_intact(self.store, self.shelf, hash, size_bytes).await
    }
}

/// Only what tenants keep is ever removed piece by piece.
pub(super) async fn claim(claims: Option<&dyn Claims>, shelf: &Shelf, hash: &BlobHash) -> Result<(), StorageError> {
    match (claims, shelf) {
        (Some(claims), Shelf::Files { tenant_id }) => claims.claim(*tenant_id, hash).await,
        _ => Ok(()),
    }
}

/// Stores `body` under its hash. See the contract.
pub(super) async fn put(
    target: Target<'_>,
    expected: Option<&BlobHash>,
    body: ByteStream,
    limit_bytes: u64,
) -> Result<BlobRef, StorageError> {
    let most = target.bucket.map_or(u64::MAX, |_| s3::PARTS * intake::PART_BYTES as u64);
    let limit_bytes = limit_bytes.min(most);
    let mut intake = Intake::new(body, limit_bytes);
    let first = intake.part().await?;
    if intake.ended() {
        return put_small(target, expected, first, intake.finish()).await;
    }
    if let Some(hash) = expected
        && target.keeps(hash, None).await?
    {
        drop(first);
        intake.drain().await?;
        let blob = intake.finish();
        intake::check(expected, &blob.sha256)?;
        return Ok(blob);
    }
    put_large(target, expected, first, intake).await
}

/// Stores a file. It is read twice, so that one that is already there is not written.
pub(super) async fn put_file(target: Target<'_>, path: &Path) -> Result<BlobRef, StorageError> {
    let file = path.to_owned();
    let blob = tokio::task::spawn_blocking(move || read::hash_file(std::fs::File::open(file)?))
        .await
        .map_err(errors::from_join)?
        .map_err(errors::from_io)?;
    if target.keeps(&blob.sha256, Some(blob.size_bytes)).await? {
        return Ok(blob);
    }
    let (body, _) = intake::file_body(path).await?;
    put(target, Some(&blob.sha256), body, blob.size_bytes).await
}

async fn put_small(
    target: Target<'_>,
    expected: Option<&BlobHash>,
    payload: PutPayload,
    blob: BlobRef,
) -> Result<BlobRef, StorageError> {
    intake::check(expected, &blob.sha256)?;
    if !target.keeps(&blob.sha256, Some(blob.size_bytes)).await? {
        let key = keys::blob(target.shelf, &blob.sha256);
        target.store.put(&key, payload).await.map_err(errors::from_store)?;
    }
    Ok(blob)
}

/// Uploads part by part; nothing can be seen before all of it was hashed.
async fn put_large(
    target: Target<'_>,
    expected: Option<&BlobHash>,
    first: PutPayload,
    intake: Intake,
) -> Result<BlobRef, StorageError> {
    let key = match expected {
        Some(hash) => keys::blob(target.shelf, hash),
        None => keys::temporary(keys::INCOMING),
    };
    let mut upload = target.store.put_multipart(&key).await.map_err(errors::from_store)?;
    let blob = match upload_parts(upload.as_mut(), expected, first, intake).await {
        Ok(blob) => blob,
        Err(error) => {
            // The refusal is what the caller must hear; what is left behind is removed as stale.
            let _ = upload.abort().await;
            return Err(error);
        }
    };
    upload.complete().await.map_err(errors::from_store)?;
    if expected.is_none() {
        place(target, &key, &blob).await?;
    }
    Ok(blob)
}

async fn upload_parts(
    upload: &mut dyn MultipartUpload,
    expected: Option<&BlobHash>,
    first: PutPayload,
    mut intake: Intake,
) -> Result<BlobRef, StorageError> {
    let mut part = first;
    while part.content_length() > 0 {
        upload.put_part(part).await.map_err(errors::from_store)?;
        part = intake.part().await?;
    }
    let blob = intake.finish();
    intake::check(expected, &blob.sha256)?;
    Ok(blob)
}

/// Moves a whole object that was hashed to the key of its content, or removes it when that is there already.
async fn place(target: Target<'_>, from: &Key, blob: &BlobRef) -> Result<(), StorageError> {
    let key = keys::blob(target.shelf, &blob.sha256);
    let known = target.keeps(&blob.sha256, Some(blob.size_bytes)).await?;
    match target.bucket {
        None if !known => return target.store.rename(from, &key).await.map_err(errors::from_store),
        Some(bucket) if !known => bucket.copy(from, &key, blob.size_bytes).await?,
        _ => {}
    }
    target.store.delete(from).await.map_err(errors::from_store)
}
