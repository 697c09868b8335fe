//! Bytes at rest: the contract of `contracts::storage` over any object store.
//!
//! Which keys mean what is here and in [`keys`]; who may read what never is.
//!
//! ```text
//! body ──▶ intake (hash, count, limit) ──▶ small: one put under the final key
//!                                    └──▶ large: parts under incoming/ ──▶ rename to the final key
//! ```
//!
//! A blob becomes visible only under its final key, by one rename or one finished upload, after all of it was
//! hashed. A crash leaves at most a temporary, which no read can see and [`ObjectStorage::remove_stale`] removes.

mod clear;
mod errors;
mod intake;
pub mod keys;
mod put;
mod read;

pub use errors::failure;

use flatrender_workflows::contracts::storage::{
    BlobBody, BlobHash, BlobRef, BlobStore, ByteStream, Shelf, StorageError,
};
use futures::future::BoxFuture;
use object_store::{ObjectStore, local::LocalFileSystem};
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
};

/// Blobs in an object store.
///
/// Memory stays flat: a body is held in parts of 8 MiB, whatever its length.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    /// For what tenants keep.
    files: Arc<dyn ObjectStore>,
    /// For what renders need only while they run.
    renders: Arc<dyn ObjectStore>,
    /// The folder, when both are folders of this machine.
    root: Option<PathBuf>,
}

impl ObjectStorage {
    /// Storage in `store`, which must publish whole objects only, as S3 and the local file system do.
    ///
    /// An upload longer than 8 MiB whose hash is not known beforehand is written below `incoming/` and then
    /// renamed; S3 does that by copying, at most 5 GB. Let the bucket expire `incoming/` and unfinished uploads.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { files: store.clone(), renders: store, root: None }
    }

    /// Storage in the folder `root` of this machine, which is created if need be.
    ///
    /// What a tenant keeps is flushed to the disk, file and folder, before `put` returns, and so is every whole file
    /// that a worker made. Frames are not: after a power cut their hash tells a lost one.
    ///
    /// # Errors
    /// [`StorageError`] when the folder cannot be created or opened.
    pub fn local(root: &Path) -> Result<Self, StorageError> {
        std::fs::create_dir_all(root).map_err(errors::from_io)?;
        let open = || LocalFileSystem::new_with_prefix(root).map_err(errors::from_store);
        Ok(Self {
            files: Arc::new(open()?.with_fsync(true)),
            renders: Arc::new(open()?),
            root: Some(root.canonicalize().map_err(errors::from_io)?),
        })
    }

    fn store(&self, shelf: &Shelf) -> &Arc<dyn ObjectStore> {
        match shelf {
            Shelf::Files { .. } | Shelf::Public => &self.files,
            Shelf::Render { .. } => &self.renders,
            Shelf::Scene { .. } => &self.files,
        }
    }
}

impl BlobStore for ObjectStorage {
    fn put<'a>(
        &'a self,
        shelf: &'a Shelf,
        expected: Option<&'a BlobHash>,
        body: ByteStream,
        limit_bytes: u64,
    ) -> BoxFuture<'a, Result<BlobRef, StorageError>> {
        Box::pin(put::put(self.store(shelf).as_ref(), shelf, expected, body, limit_bytes))
    }

    fn put_file<'a>(&'a self, shelf: &'a Shelf, path: &'a Path) -> BoxFuture<'a, Result<BlobRef, StorageError>> {
        Box::pin(put::put_file(self.files.as_ref(), shelf, path))
    }

    fn stat<'a>(&'a self, shelf: &'a Shelf, hash: &'a BlobHash) -> BoxFuture<'a, Result<Option<u64>, StorageError>> {
        Box::pin(read::stat(self.store(shelf).as_ref(), shelf, hash))
    }

    fn open<'a>(
        &'a self,
        shelf: &'a Shelf,
        hash: &'a BlobHash,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<BlobBody, StorageError>> {
        Box::pin(read::open(self.store(shelf).as_ref(), shelf, hash, range))
    }

    fn fetch<'a>(
        &'a self,
        shelf: &'a Shelf,
        hash: &'a BlobHash,
        path: &'a Path,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(read::fetch(self.store(shelf).as_ref(), shelf, hash, path))
    }

    fn clear<'a>(&'a self, shelf: &'a Shelf) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.clear_shelf(shelf))
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(self.write_read_remove())
    }
}
