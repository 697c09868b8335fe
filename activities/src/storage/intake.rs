//! A body on its way in: hashed, counted and limited while it streams, handed on in large parts.

use super::errors;
use bytes::Bytes;
use flatrender_workflows::contracts::storage::{BlobHash, BlobRef, ByteStream, StorageError};
use futures::StreamExt;
use object_store::PutPayload;
use sha2::{Digest, Sha256};

/// Length of a part; also the most memory a body takes. Object stores want at least 5 MiB.
pub(super) const PART_BYTES: usize = 8 * 1024 * 1024;

/// A body being read.
pub(super) struct Intake {
    body: ByteStream,
    hasher: Sha256,
    size_bytes: u64,
    limit_bytes: u64,
    /// What of the last chunk did not fit into the last part.
    rest: Bytes,
    ended: bool,
}

impl Intake {
    pub(super) fn new(body: ByteStream, limit_bytes: u64) -> Self {
        Self { body, hasher: Sha256::new(), size_bytes: 0, limit_bytes, rest: Bytes::new(), ended: false }
    }

    /// Whether the body was read to its end.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// The next part, exactly [`PART_BYTES`] long unless it is the last; an empty one after the end.
    pub(super) async fn part(&mut self) -> Result<PutPayload, StorageError> {
        let (mut chunks, mut room) = (Vec::new(), PART_BYTES);
        while room > 0 && !self.ended {
            let Some(chunk) = self.chunk(room).await? else { break };
            room -= chunk.len();
            chunks.push(chunk);
        }
        Ok(chunks.into_iter().collect())
    }

    /// Reads to the end and keeps nothing.
    pub(super) async fn drain(&mut self) -> Result<(), StorageError> {
        while self.chunk(usize::MAX).await?.is_some() {}
        Ok(())
    }

    /// What it was. To be asked after its end.
    pub(super) fn finish(self) -> BlobRef {
        BlobRef { sha256: BlobHash::from_digest(self.hasher.finalize().into()), size_bytes: self.size_bytes }
    }

    /// Up to `room` bytes more, or none at the end.
    pub(super) async fn chunk(&mut self, room: usize) -> Result<Option<Bytes>, StorageError> {
        if self.rest.is_empty() {
            let Some(next) = self.body.next().await else {
                self.ended = true;
                return Ok(None);
            };
            self.rest = self.take_in(next)?;
        }
        let length = room.min(self.rest.len());
        Ok(Some(self.rest.split_to(length)))
    }

    fn take_in(&mut self, next: std::io::Result<Bytes>) -> Result<Bytes, StorageError> {
        // A reader's own full disk is not ours: only errors of writing are looked at for that.
        let bytes = next.map_err(|error| StorageError::Io(Box::new(error)))?;
        self.size_bytes += bytes.len() as u64;
        if self.size_bytes > self.limit_bytes {
            return Err(StorageError::TooLong { limit_bytes: self.limit_bytes });
        }
        self.hasher.update(&bytes);
        Ok(bytes)
    }
}

/// Refuses `found` unless it is what was announced.
pub(super) fn check(expected: Option<&BlobHash>, found: &BlobHash) -> Result<(), StorageError> {
    match expected {
        Some(expected) if expected != found => {
            Err(StorageError::Mismatch { expected: expected.clone(), found: found.clone() })
        }
        _ => Ok(()),
    }
}

/// The chunks of a file of this machine.
pub(super) async fn file_body(path: &std::path::Path) -> Result<(ByteStream, u64), StorageError> {
    let file = tokio::fs::File::open(path).await.map_err(errors::from_io)?;
    let size_bytes = file.metadata().await.map_err(errors::from_io)?.len();
    Ok((tokio_util::io::ReaderStream::with_capacity(file, super::read::CHUNK_BYTES).boxed(), size_bytes))
}
