//! Bytes at rest: the contract of `contracts::storage` over a folder or an S3-compatible bucket.
//!
//! Which keys mean what is here and in [`keys`]; who may read what never is.
//!
//! ```text
//! body ──▶ intake (hash, count, limit) ─┬▶ small, or its hash is known: straight under the final key
//!                                       └▶ else: parts under incoming/ ──▶ rename to the final key
//! ```
//!
//! A blob becomes visible only under its final key, by one rename or one finished upload, after all of it was
//! hashed. A crash leaves at most a temporary, which no read can see and [`ObjectStorage::remove_stale`] removes, and in a
//! bucket an unfinished upload, which no program sees: let the bucket expire those, and what is below `incoming/`.

mod clear;
mod direct;
mod errors;
mod intake;
pub mod keys;
mod put;
mod read;
mod s3;
mod settings;
mod sign;

pub use errors::failure;
pub use settings::{BadStorage, Credentials, S3Settings, StorageSettings};

use flatrender_workflows::contracts::storage::{
    BlobBody, BlobHash, BlobRef, BlobStore, BlobStream, ByteStream, Claims, DirectUploads, Shelf, SignedGet,
    StorageError,
};
use futures::future::BoxFuture;
use object_store::{ObjectStore, local::LocalFileSystem};
use put::Target;
use s3::Bucket;
use std::{
    ops::Range,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

/// Blobs in a folder or a bucket.
///
/// Memory stays flat: a body is held in parts of 8 MiB, whatever its length. In a bucket it has at most 10,000 of them.
#[derive(Debug, Clone)]
pub struct ObjectStorage {
    /// For what tenants keep.
    files: Arc<dyn ObjectStore>,
    /// For what renders need only while they run.
    renders: Arc<dyn ObjectStore>,
    /// The folder, when both are folders of this machine.
    root: Option<PathBuf>,
    /// The bucket, when both are that.
    bucket: Option<Arc<Bucket>>,
    /// Who keeps what is stored from being removed.
    claims: Option<Arc<dyn Claims>>,
}

impl ObjectStorage {
    /// Storage in `store`, which must publish whole objects only, as the local file system does, and rename them whatever
    /// their length.
    pub fn new(store: Arc<dyn ObjectStore>) -> Self {
        Self { files: store.clone(), renders: store, root: None, bucket: None, claims: None }
    }

    fn bucket(bucket: Bucket) -> Self {
        let bucket = Arc::new(bucket);
        let store: Arc<dyn ObjectStore> = Arc::new(bucket.store.clone());
        Self { bucket: Some(bucket), ..Self::new(store) }
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
            bucket: None,
            claims: None,
        })
    }

    /// Claims what is stored among files before it looks whether it is there: without that, content that somebody removes
    /// because nobody uses it may be gone before whoever stored it again has recorded it.
    #[must_use]
    pub fn with_claims(mut self, claims: Arc<dyn Claims>) -> Self {
        self.bucket = self.bucket.map(|bucket| Arc::new(Bucket { claims: Some(claims.clone()), ..(*bucket).clone() }));
        self.claims = Some(claims);
        self
    }

    /// Where something is written to.
    fn target<'a>(&'a self, shelf: &'a Shelf, store: &'a dyn ObjectStore) -> Target<'a> {
        Target { store, bucket: self.bucket.as_deref(), claims: self.claims.as_deref(), shelf }
    }

    fn store(&self, shelf: &Shelf) -> &Arc<dyn ObjectStore> {
        match shelf {
            Shelf::Files { .. } | Shelf::Upload { .. } | Shelf::Scene { .. } | Shelf::Public | Shelf::Archives => {
                &self.files
            }
            Shelf::Render { .. } => &self.renders,
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
        Box::pin(put::put(self.target(shelf, self.store(shelf).as_ref()), expected, body, limit_bytes))
    }

    fn put_file<'a>(&'a self, shelf: &'a Shelf, path: &'a Path) -> BoxFuture<'a, Result<BlobRef, StorageError>> {
        Box::pin(put::put_file(self.target(shelf, self.files.as_ref()), path))
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

    fn remove<'a>(&'a self, shelf: &'a Shelf, hash: &'a BlobHash) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.remove_blob(shelf, hash))
    }

    fn clear<'a>(&'a self, shelf: &'a Shelf) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(self.clear_shelf(shelf))
    }

    fn list(&self, shelf: &Shelf, first: Option<u8>) -> BlobStream {
        self.list_shelf(shelf, first)
    }

    fn sign_get<'a>(
        &'a self,
        shelf: &'a Shelf,
        hash: &'a BlobHash,
        says: SignedGet<'a>,
    ) -> BoxFuture<'a, Result<Option<String>, StorageError>> {
        Box::pin(async move {
            match &self.bucket {
                Some(bucket) => bucket.sign_get(shelf, hash, says).await.map(Some),
                None => Ok(None),
            }
        })
    }

    fn direct(&self) -> Option<&dyn DirectUploads> {
        self.bucket.as_deref().map(|bucket| bucket as &dyn DirectUploads)
    }

    fn tidy(&self) -> BoxFuture<'_, Result<u64, StorageError>> {
        // No upload to a bucket goes on for longer than nine days, and no file is written for a day.
        let days = if self.bucket.is_some() { 10 } else { 2 };
        Box::pin(self.remove_stale(Duration::from_secs(days * 86_400)))
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        Box::pin(self.write_read_remove())
    }
}
