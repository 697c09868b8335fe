//! Takes an upload in that came in pieces, and removes the pieces of those that have ended.

use super::{
    Media, disk_failure,
    ffmpeg::RunError,
    files, unless_ended,
    upload::{Upload, UploadError, UploadInspector, UploadLimits},
};
use crate::storage::failure;
use bytes::Bytes;
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::{
    storage::{BlobHash, BlobRef, DirectUploads, Shelf, StorageError},
    upload::{ClearUploads, EndedUpload, Pieces, TakeUpload, TakenUpload, Uncleared},
};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use std::{error::Error, io, path::Path, time::Duration};
use tokio::io::AsyncWriteExt;

/// After so many of which none could be cleared no more are tried.
const MOST_IN_VAIN: usize = 10;
/// How long after the others those are tried once more that could not be cleared.
const BREATH: Duration = Duration::from_secs(2);
/// The file it is put together in.
const WHOLE: &str = "whole";

impl Handler<TakeUpload> for Media {
    async fn handle(&self, cx: &Attempt, input: TakeUpload) -> Result<TakenUpload, Failure> {
        let scratch = self.scratch(cx)?;
        let path = scratch.path().join(WHOLE);
        let take = async {
            let whole = self.put_together(cx, &input, &path).await?;
            // Nothing is kept before it was looked at.
            let upload = self.look(&path, input.total_bytes).await?;
            let blob = match (&input.from, &upload) {
                // Of a picture our own encoding takes the place of what came.
                (Pieces::Shelf(_), _) | (_, Upload::Image { .. }) => self.store(&files(cx), &path).await?,
                (Pieces::Direct, _) => {
                    let shelved = self.direct()?.shelve(input.upload_id, &files(cx), &whole).await;
                    shelved.map(|()| whole).map_err(|e| failure(&e))?
                }
            };
            Ok(taken(blob, upload))
        };
        unless_ended(cx, take).await
    }
}

impl Handler<ClearUploads> for Media {
    async fn handle(&self, cx: &Attempt, input: ClearUploads) -> Result<Option<Uncleared>, Failure> {
        let clear = async {
            let left = self.clear_all(&input.uploads).await?;
            if left.is_empty() {
                return Ok(None);
            }
            // What was in the way of a few may be gone by now.
            tokio::time::sleep(BREATH).await;
            let mut uncleared = Uncleared::default();
            for ended in left {
                let Err(error) = self.clear(ended).await else { continue };
                let why = failure(&error);
                tracing::warn!(upload = %ended.upload_id, %why, "the pieces of an upload that has ended stay for a while");
                uncleared.uploads.push(ended.upload_id);
                uncleared.why.get_or_insert(why);
            }
            Ok(Some(uncleared).filter(|left| left.why.is_some()))
        };
        unless_ended(cx, clear).await
    }
}

impl Media {
    /// Clears uploads and gives those that could not be; fails when none could, and says which were tried.
    async fn clear_all<'a>(&self, uploads: &'a [EndedUpload]) -> Result<Vec<&'a EndedUpload>, Failure> {
        let mut left = vec![];
        for (n, ended) in uploads.iter().enumerate() {
            let Err(error) = self.clear(ended).await else { continue };
            left.push(ended);
            // It is the storage, and none of them.
            if left.len() > n && (n + 1 == MOST_IN_VAIN || n + 1 == uploads.len()) {
                let tried: Vec<_> = left.iter().map(|ended| ended.upload_id).collect();
                return Err(Uncleared::of_none(&tried, failure(&error)));
            }
        }
        Ok(left)
    }

    async fn clear(&self, ended: &EndedUpload) -> Result<(), StorageError> {
        let shelf = Shelf::Upload { tenant_id: ended.tenant_id, upload_id: ended.upload_id };
        self.storage.clear(&shelf).await?;
        match (self.storage.direct(), &ended.storage_upload) {
            (Some(direct), Some(name)) => direct.discard(ended.upload_id, name).await,
            _ => Ok(()),
        }
    }

    /// Writes the whole upload to `path`, checks its length and hash, and tells them.
    async fn put_together(&self, cx: &Attempt, input: &TakeUpload, path: &Path) -> Result<BlobRef, Failure> {
        let whole = match &input.from {
            Pieces::Shelf(pieces) => {
                let shelf = Shelf::Upload { tenant_id: cx.task().tenant_id, upload_id: input.upload_id };
                self.join(&shelf, pieces, path).await?
            }
            Pieces::Direct => {
                let fetched = self.direct()?.fetch(input.upload_id, path, input.total_bytes).await;
                fetched.map_err(|e| failure(&e))?
            }
        };
        as_announced(input, &whole).map(|()| whole)
    }

    fn direct(&self) -> Result<&dyn DirectUploads, Failure> {
        let none = || Failure::permanent("storage.not_direct", "the storage takes no uploads by itself any more");
        self.storage.direct().ok_or_else(none)
    }

    /// Writes pieces one behind the other, each as it was recorded, and tells what they make.
    async fn join(&self, shelf: &Shelf, pieces: &[BlobRef], path: &Path) -> Result<BlobRef, Failure> {
        let mut file = tokio::fs::File::create(path).await.map_err(disk_failure)?;
        let (mut whole, mut size_bytes) = (Sha256::new(), 0);
        for piece in pieces {
            let mut hasher = Sha256::new();
            let body = self.storage.open(shelf, &piece.sha256, None).await.map_err(|e| failure(&e))?;
            let mut chunks = body.stream;
            while let Some(chunk) = chunks.try_next().await.map_err(|e| failure(&StorageError::Io(Box::new(e))))? {
                write(&mut file, &chunk, [&mut hasher, &mut whole]).await?;
                size_bytes += chunk.len() as u64;
            }
            let found = BlobHash::from_digest(hasher.finalize().into());
            if found != piece.sha256 {
                return Err(failure(&StorageError::Mismatch { expected: piece.sha256.clone(), found }));
            }
        }
        file.flush().await.map_err(disk_failure)?;
        Ok(BlobRef { sha256: BlobHash::from_digest(whole.finalize().into()), size_bytes })
    }

    /// The same look as at an upload in one piece; only longer ones are taken in.
    async fn look(&self, path: &Path, total_bytes: u64) -> Result<Upload, Failure> {
        let limits = UploadLimits { size_bytes: total_bytes, ..UploadLimits::default() };
        let inspector = UploadInspector::sharing(self.ffprobe.clone(), limits, self.looks.clone());
        inspector.inspect(path).await.map_err(refusal)
    }
}

async fn write(file: &mut tokio::fs::File, chunk: &Bytes, hashers: [&mut Sha256; 2]) -> Result<(), Failure> {
    for hasher in hashers {
        hasher.update(chunk);
    }
    file.write_all(chunk).await.map_err(disk_failure)
}

/// Refuses what is longer, shorter or other than it was said to be.
fn as_announced(input: &TakeUpload, whole: &BlobRef) -> Result<(), Failure> {
    if whole.size_bytes != input.total_bytes {
        let message = format!("{} bytes came and {} were announced", whole.size_bytes, input.total_bytes);
        return Err(Failure::permanent("blob.mismatch", message));
    }
    match &input.sha256 {
        Some(expected) if *expected != whole.sha256 => {
            Err(Failure::permanent("blob.mismatch", format!("the SHA-256 of what came is {}", whole.sha256)))
        }
        _ => Ok(()),
    }
}

fn taken(blob: BlobRef, upload: Upload) -> TakenUpload {
    let pixels = |i: usize| upload.size().map(|size| size[i] as i32);
    TakenUpload {
        blob,
        kind: upload.class().to_owned(),
        mime: upload.kind().content_type().to_owned(),
        width: pixels(0),
        height: pixels(1),
        duration_ms: upload.duration_ms().map(|ms| ms as i64),
    }
}

fn refusal(error: UploadError) -> Failure {
    match (error.code(), &error) {
        (Some(code), _) => Failure::permanent(code, error.to_string()),
        (None, UploadError::Unchecked(cause)) => unchecked(cause.as_ref()),
        (None, _) => Failure::transient("media.unchecked", error.to_string()),
    }
}

/// Why nobody could look at it: the program, the disk of this machine, or something else, which the file may have to do with.
fn unchecked(cause: &(dyn Error + Send + Sync + 'static)) -> Failure {
    let message = format!("cannot look at the file: {cause:?}");
    if let Some(RunError::Unusable { .. }) = cause.downcast_ref() {
        return Failure::transient("media.tool_missing", message);
    }
    match cause.downcast_ref::<io::Error>() {
        Some(error) if is_of_the_disk(error) => Failure::transient("media.disk", message),
        _ => Failure::transient("media.unchecked", message),
    }
}

/// Whether the system said so, and no decoder did of what it has read.
fn is_of_the_disk(error: &io::Error) -> bool {
    let is_full = matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded);
    is_full || error.raw_os_error().is_some()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::ObjectStorage;
    use std::{path::PathBuf, sync::Arc};
    use tokio::time::timeout;

    /// Which of them may pass is told by their codes.
    #[tokio::test]
    async fn a_missing_program_and_a_broken_disk_are_told_apart_from_a_file_that_nobody_can_look_at() {
        let folder = tempfile::tempdir().unwrap();
        let song = folder.path().join("song.flac");
        std::fs::write(&song, b"fLaC and no more").unwrap();
        let nowhere = PathBuf::from("/nowhere/ffprobe");
        let inspector = UploadInspector::new(nowhere, UploadLimits::default());
        let missing = inspector.inspect(&song).await.unwrap_err();
        let gone = inspector.inspect(&folder.path().join("gone")).await.unwrap_err();
        let odd = UploadError::Unchecked(Box::new(io::Error::other("a decoder is confused")));
        let full = UploadError::Unchecked(Box::new(io::Error::from(io::ErrorKind::StorageFull)));
        let codes = [missing, gone, full, odd].map(|error| refusal(error).code);
        assert_eq!(codes, ["media.tool_missing", "media.disk", "media.disk", "media.unchecked"]);
    }

    /// A picture takes hundreds of megabytes to be looked at.
    #[tokio::test]
    async fn uploads_that_are_taken_in_at_once_are_looked_at_in_turn() {
        let folder = tempfile::tempdir().unwrap();
        let storage = Arc::new(ObjectStorage::local(folder.path()).unwrap());
        let media = Media::new(storage, folder.path().join("scratch"));
        let path = folder.path().join("words");
        std::fs::write(&path, "no picture").unwrap();
        let busy = media.looks.clone().acquire_many_owned(media.looks.available_permits() as u32).await.unwrap();
        let other = media.clone();
        let looking = async { other.look(&path, 10).await };
        tokio::pin!(looking);
        assert!(timeout(Duration::from_millis(100), &mut looking).await.is_err(), "it waits");
        drop(busy);
        assert_eq!(looking.await.unwrap_err().code, "file.unsupported_type");
    }
}
