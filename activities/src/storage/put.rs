//! Writing a blob: complete or absent.

use super::{errors, intake, intake::Intake, keys, read};
use flatrender_workflows::contracts::storage::{BlobHash, BlobRef, ByteStream, Shelf, StorageError};
use object_store::{MultipartUpload, ObjectStore, ObjectStoreExt, PutPayload, path::Path as Key};
use std::path::Path;

/// Stores `body` under its hash. See the contract.
pub(super) async fn put(
    store: &dyn ObjectStore,
    shelf: &Shelf,
    expected: Option<&BlobHash>,
    body: ByteStream,
    limit_bytes: u64,
) -> Result<BlobRef, StorageError> {
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
    put_large(store, shelf, expected, first, intake).await
}

/// Stores a file. It is read twice, so that one that is already there is not written.
pub(super) async fn put_file(store: &dyn ObjectStore, shelf: &Shelf, path: &Path) -> Result<BlobRef, StorageError> {
    let file = path.to_owned();
    let blob = tokio::task::spawn_blocking(move || read::hash_file(std::fs::File::open(file)?))
        .await
        .map_err(errors::from_join)?
        .map_err(errors::from_io)?;
    if read::is_intact(store, shelf, &blob.sha256, Some(blob.size_bytes)).await? {
        return Ok(blob);
    }
    let (body, _) = intake::file_body(path).await?;
    put(store, shelf, Some(&blob.sha256), body, blob.size_bytes).await
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
    match upload_parts(upload.as_mut(), expected, first, intake).await {
        Ok(blob) => publish(store, shelf, upload, &target, blob).await,
        Err(error) => {
            // The refusal is what the caller must hear; what is left behind is removed as stale.
            let _ = upload.abort().await;
            Err(error)
        }
    }
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

async fn publish(
    store: &dyn ObjectStore,
    shelf: &Shelf,
    mut upload: Box<dyn MultipartUpload>,
    target: &Key,
    blob: BlobRef,
) -> Result<BlobRef, StorageError> {
    let key = keys::blob(shelf, &blob.sha256);
    if *target != key && read::is_intact(store, shelf, &blob.sha256, Some(blob.size_bytes)).await? {
        upload.abort().await.map_err(errors::from_store)?;
        return Ok(blob);
    }
    upload.complete().await.map_err(errors::from_store)?;
    if *target != key {
        store.rename(target, &key).await.map_err(errors::from_store)?;
    }
    Ok(blob)
}
