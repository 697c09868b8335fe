//! Writing a blob: complete or absent.

use super::{errors, intake, intake::Intake, keys, read, s3, s3::Bucket};
use flatrender_workflows::contracts::storage::{BlobHash, BlobRef, ByteStream, Shelf, StorageError};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path as Key};
use std::path::Path;

/// Stores `body` under its hash. See the contract.
pub(super) async fn put(
    store: &dyn ObjectStore,
    bucket: Option<&Bucket>,
    shelf: &Shelf,
    expected: Option<&BlobHash>,
    body: ByteStream,
    limit_bytes: u64,
) -> Result<BlobRef, StorageError> {
    let most = bucket.map_or(u64::MAX, |_| s3::PARTS * intake::PART_BYTES as u64);
    let limit_bytes = limit_bytes.min(most);
    let mut intake = Intake::new(body, limit_bytes);
    let first = intake.part().await?;
    if intake.ended() {
        return put_small(store, shelf, expected, first, intake.finish()).await;
    }
    if let Some(hash) = expected
        && read::is_intact(store, shelf, hash, None).await?
    {
        drop(first);
        intake.drain().await?;
        let blob = intake.finish();
        intake::check(expected, &blob.sha256)?;
        return Ok(blob);
    }
    put_large(store, bucket, shelf, expected, first, intake).await
}

/// Stores a file. It is read twice, so that one that is already there is not written.
pub(super) async fn put_file(
    store: &dyn ObjectStore,
    bucket: Option<&Bucket>,
    shelf: &Shelf,
    path: &Path,
) -> Result<BlobRef, StorageError> {
    let file = path.to_owned();
    let blob = tokio::task::spawn_blocking(move || read::hash_file(std::fs::File::open(file)?))
        .await
        .map_err(errors::from_join)?
        .map_err(errors::from_io)?;
    if read::is_intact(store, shelf, &blob.sha256, Some(blob.size_bytes)).await? {
        return Ok(blob);
    }
    let (body, _) = intake::file_body(path).await?;
    put(store, bucket, shelf, Some(&blob.sha256), body, blob.size_bytes).await
}

async fn put_small(
    store: &dyn ObjectStore,
    shelf: &Shelf,
    expected: Option<&BlobHash>,
    payload: PutPayload,
    blob: BlobRef,
) -> Result<BlobRef, StorageError> {
    intake::check(expected, &blob.sha256)?;
    if !read::is_intact(store, shelf, &blob.sha256, Some(blob.size_bytes)).await? {
        store.put(&keys::blob(shelf, &blob.sha256), payload).await.map_err(errors::from_store)?;
    }
    Ok(blob)
}

/// Uploads part by part; nothing can be seen before all of it was hashed.
async fn put_large(
    store: &dyn ObjectStore,
    bucket: Option<&Bucket>,
    shelf: &Shelf,
    expected: Option<&BlobHash>,
    first: PutPayload,
    intake: Intake,
) -> Result<BlobRef, StorageError> {
    let target = match expected {
        Some(hash) => keys::blob(shelf, hash),
        None => keys::temporary(keys::INCOMING),
    };
    let mut upload = store.put_multipart(&target).await.map_err(errors::from_store)?;
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
        place(store, bucket, shelf, &target, &blob).await?;
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
async fn place(
    store: &dyn ObjectStore,
    bucket: Option<&Bucket>,
    shelf: &Shelf,
    from: &Key,
    blob: &BlobRef,
) -> Result<(), StorageError> {
    let key = keys::blob(shelf, &blob.sha256);
    let known = read::is_intact(store, shelf, &blob.sha256, Some(blob.size_bytes)).await?;
    match bucket {
        None if !known => return store.rename(from, &key).await.map_err(errors::from_store),
        Some(bucket) if !known => bucket.copy(from, &key, blob.size_bytes).await?,
        _ => {}
    }
    store.delete(from).await.map_err(errors::from_store)
}
