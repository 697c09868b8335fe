//! Takes an upload in that came in pieces, and removes the pieces of those that have ended.

use super::{
    Media, disk_failure, files, unless_ended,
    upload::{Upload, UploadError, UploadInspector, UploadLimits},
};
use crate::storage::failure;
use bytes::Bytes;
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::{
    storage::{BlobHash, BlobRef, DirectUploads, Shelf, StorageError},
    upload::{ClearUploads, Pieces, TakeUpload, TakenUpload},
};
use futures::TryStreamExt;
use sha2::{Digest, Sha256};
use std::path::Path;
use tokio::io::AsyncWriteExt;

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
    async fn handle(&self, cx: &Attempt, input: ClearUploads) -> Result<(), Failure> {
        let clear = async {
            for ended in &input.uploads {
                let shelf = Shelf::Upload { tenant_id: ended.tenant_id, upload_id: ended.upload_id };
                self.storage.clear(&shelf).await.map_err(|e| failure(&e))?;
                if let (Some(direct), Some(name)) = (self.storage.direct(), &ended.storage_upload) {
                    direct.discard(ended.upload_id, name).await.map_err(|e| failure(&e))?;
                }
            }
            Ok(())
        };
        unless_ended(cx, clear).await
    }
}

impl Media {
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
        let looked = UploadInspector::new(self.ffprobe.clone(), limits).inspect(path).await;
        looked.map_err(refusal)
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
    match error.code() {
        Some(code) => Failure::permanent(code, error.to_string()),
        None => Failure::transient("media.unchecked", format!("{error}: {:?}", std::error::Error::source(&error))),
    }
}
