//! Where bytes live: blobs named by their content, on shelves that keep tenants and renders apart.

use bytes::Bytes;
use chrono::{DateTime, Utc};
use futures::{future::BoxFuture, stream::BoxStream};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range, path::Path, str::FromStr, time::Duration};
use uuid::Uuid;

/// SHA-256 of some content, 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct BlobHash(String);

impl BlobHash {
    /// The digest of a finished hasher.
    pub fn from_digest(digest: [u8; 32]) -> Self {
        Self(hex::encode(digest))
    }

    /// The hash of `bytes`.
    pub fn of(bytes: &[u8]) -> Self {
        use sha2::Digest as _;
        Self::from_digest(sha2::Sha256::digest(bytes).into())
    }

    /// The 64 hexadecimal digits.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// The text is not 64 lowercase hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 is 64 lowercase hexadecimal digits")]
pub struct NotAHash;

impl FromStr for BlobHash {
    type Err = NotAHash;
    fn from_str(text: &str) -> Result<Self, NotAHash> {
        let hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if text.len() == 64 && text.bytes().all(hex) { Ok(Self(text.to_owned())) } else { Err(NotAHash) }
    }
}

impl TryFrom<String> for BlobHash {
    type Error = NotAHash;
    fn try_from(text: String) -> Result<Self, NotAHash> {
        text.parse()
    }
}

impl From<BlobHash> for String {
    fn from(hash: BlobHash) -> Self {
        hash.0
    }
}

impl fmt::Display for BlobHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Content and its length: enough to fetch it and to know that all of it came.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct BlobRef {
    /// Hash of the content.
    pub sha256: BlobHash,
    /// Length of the content.
    pub size_bytes: u64,
}

/// A place for blobs. But for the public one it can be emptied as a whole and is never shared between tenants.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Shelf {
    /// What a tenant keeps: uploads, packages, exports.
    Files {
        /// The owner.
        tenant_id: Uuid,
    },
    /// What one render needs until it ends: frames, encoded parts, mixed audio.
    Render {
        /// The owner.
        tenant_id: Uuid,
        /// The render.
        render_id: Uuid,
    },
    /// One scene that a tenant has had rendered, encoded.
    Scene {
        /// The owner.
        tenant_id: Uuid,
        /// Of all that decides how it looks.
        key: BlobHash,
    },
    /// The pieces of an upload that is under way.
    Upload {
        /// The owner.
        tenant_id: Uuid,
        /// The upload.
        upload_id: Uuid,
    },
    /// What everybody may see, for ever, under an address made of its hash: stills of scenes. Of no tenant, and never emptied.
    Public,
    /// What left the database for good: months of its time series. The platform's own, of no tenant, and never emptied.
    Archives,
}

/// Chunks of a body, in order.
pub type ByteStream = BoxStream<'static, std::io::Result<Bytes>>;

/// Content that was asked for.
pub struct BlobBody {
    /// Length of the whole blob, whatever range was asked for.
    pub size_bytes: u64,
    /// The bytes of the range.
    pub stream: ByteStream,
}

/// A blob that lies on a shelf.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredBlob {
    /// What it is.
    pub blob: BlobRef,
    /// When it was written, by the clock of the store.
    pub modified_at: DateTime<Utc>,
}

/// Blobs of a shelf, in no order.
pub type BlobStream = BoxStream<'static, Result<StoredBlob, StorageError>>;

/// What an address that is given away says of the content behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SignedGet<'a> {
    /// How long it works; at most seven days.
    pub valid_for: Duration,
    /// `Content-Type` of the answer.
    pub content_type: &'a str,
    /// `Content-Disposition` of the answer.
    pub disposition: &'a str,
}

/// Storage by content. Putting the same content twice is harmless; a blob is complete or absent, never half.
pub trait BlobStore: Send + Sync + 'static {
    /// Stores `body`, at most `limit_bytes` long, and tells what it was. With `expected`, other content is refused.
    fn put<'a>(
        &'a self,
        shelf: &'a Shelf,
        expected: Option<&'a BlobHash>,
        body: ByteStream,
        limit_bytes: u64,
    ) -> BoxFuture<'a, Result<BlobRef, StorageError>>;

    /// Stores a file of this machine.
    fn put_file<'a>(&'a self, shelf: &'a Shelf, path: &'a Path) -> BoxFuture<'a, Result<BlobRef, StorageError>>;

    /// Length of a blob, or none when it is not there.
    fn stat<'a>(&'a self, shelf: &'a Shelf, hash: &'a BlobHash) -> BoxFuture<'a, Result<Option<u64>, StorageError>>;

    /// Opens a blob, whole or a range of it (end exclusive).
    fn open<'a>(
        &'a self,
        shelf: &'a Shelf,
        hash: &'a BlobHash,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<BlobBody, StorageError>>;

    /// Writes a blob to `path` by temporary name and rename, checking its hash on the way.
    fn fetch<'a>(
        &'a self,
        shelf: &'a Shelf,
        hash: &'a BlobHash,
        path: &'a Path,
    ) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Removes a blob. Removing one that is not there is no error.
    fn remove<'a>(&'a self, shelf: &'a Shelf, hash: &'a BlobHash) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Removes everything on a shelf. Removing an empty shelf is no error.
    fn clear<'a>(&'a self, shelf: &'a Shelf) -> BoxFuture<'a, Result<(), StorageError>>;

    /// What lies on a shelf; with `first`, what has a hash that begins with this byte. Blobs that come or go meanwhile may or may not
    /// be among them.
    fn list(&self, shelf: &Shelf, first: Option<u8>) -> BlobStream;

    /// An address of the store's own at which whoever has it reads the blob for a while, whether or not it is there; none
    /// where the store has no addresses.
    fn sign_get<'a>(
        &'a self,
        shelf: &'a Shelf,
        hash: &'a BlobHash,
        says: SignedGet<'a>,
    ) -> BoxFuture<'a, Result<Option<String>, StorageError>>;

    /// Uploads that clients send straight to the store; none where every byte comes through us.
    fn direct(&self) -> Option<&dyn DirectUploads>;

    /// Removes what killed processes have left and nobody can see; tells how much. What somebody may be writing stays.
    fn tidy(&self) -> BoxFuture<'_, Result<u64, StorageError>>;

    /// Whether a small object can be written, read and removed now.
    fn probe(&self) -> BoxFuture<'_, Result<(), StorageError>>;
}

/// Who is told of content before a store looks whether it has it, so that nobody removes it before it is recorded.
pub trait Claims: fmt::Debug + Send + Sync + 'static {
    /// For some time from now on the content is not removed from the files of a tenant, whether or not it is there yet. Waits a
    /// moment for a removal that is under way.
    ///
    /// # Errors
    /// [`StorageError::BeingRemoved`] when that was not enough, [`StorageError::Io`].
    fn claim<'a>(&'a self, tenant_id: Uuid, hash: &'a BlobHash) -> BoxFuture<'a, Result<(), StorageError>>;
}

/// Uploads that clients send straight to the store, part by part, to addresses that we sign.
///
/// An upload lies apart, under an id of ours, until all of it was hashed. Every part but the last has at least 5 MiB, none
/// more than 5 GiB; there are at most 10,000.
pub trait DirectUploads: Send + Sync {
    /// Begins an upload and gives the store's own name for it. Each call begins another.
    fn begin(&self, upload: Uuid) -> BoxFuture<'_, Result<String, StorageError>>;

    /// An address that takes one part by PUT, exactly as long as it was announced; its answer's `ETag` is what
    /// [`DirectUploads::complete`] wants.
    fn sign_part<'a>(&'a self, part: &'a DirectPart<'a>) -> BoxFuture<'a, Result<String, StorageError>>;

    /// Up to `limit` parts, at most 1,000, that are there and numbered above `after`, in their order.
    /// [`StorageError::NotUploaded`] when the upload is not, or not any more.
    fn parts<'a>(
        &'a self,
        upload: Uuid,
        name: &'a str,
        after: u32,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<SentPart>, StorageError>>;

    /// Puts the parts with these tags together, in their order. Doing so again is harmless.
    fn complete<'a>(
        &'a self,
        upload: Uuid,
        name: &'a str,
        etags: &'a [String],
    ) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Writes a completed upload, at most `limit_bytes` long, to `path` and tells what it is. Nothing of it is a blob yet.
    fn fetch<'a>(
        &'a self,
        upload: Uuid,
        path: &'a Path,
        limit_bytes: u64,
    ) -> BoxFuture<'a, Result<BlobRef, StorageError>>;

    /// Makes a blob of a completed upload whose content [`DirectUploads::fetch`] has told. The bytes stay with the store, and so does
    /// the upload, so that a repeat is harmless.
    fn shelve<'a>(
        &'a self,
        upload: Uuid,
        shelf: &'a Shelf,
        blob: &'a BlobRef,
    ) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Removes what has come of an upload, completed or not; no blob. One that is not there is no error.
    fn discard<'a>(&'a self, upload: Uuid, name: &'a str) -> BoxFuture<'a, Result<(), StorageError>>;
}

/// One part that a client may send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DirectPart<'a> {
    /// The upload, by our id.
    pub upload: Uuid,
    /// The store's name for it.
    pub name: &'a str,
    /// From 1 to 10,000.
    pub number: u32,
    /// Its length: the client has to send so many bytes and say so beforehand; the store refuses others.
    pub size_bytes: u64,
    /// Base64 of the part's MD5, which the client must then send as `Content-MD5`; the store refuses other bytes.
    pub md5: Option<&'a str>,
    /// How long the address works; at most seven days.
    pub valid_for: Duration,
}

/// A part that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SentPart {
    /// From 1 to 10,000.
    pub number: u32,
    /// Its length.
    pub size_bytes: u64,
    /// The store's tag of its content.
    pub etag: String,
}

/// Why storage did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nothing with this hash is on the shelf.
    #[error("blob {0} is not there")]
    NotFound(BlobHash),
    /// The same content is being removed at this moment; afterwards it can be stored again.
    #[error("blob {0} is being removed and can be stored again in a moment")]
    BeingRemoved(BlobHash),
    /// No completed upload has this id.
    #[error("upload {0} is not there")]
    NotUploaded(Uuid),
    /// What came is not what was announced, or what was kept is not what it was.
    #[error("blob {expected} has other content: {found}")]
    Mismatch {
        /// The announced hash.
        expected: BlobHash,
        /// The hash of what came.
        found: BlobHash,
    },
    /// The body is longer than its limit.
    #[error("the content is longer than {limit_bytes} bytes")]
    TooLong {
        /// The limit.
        limit_bytes: u64,
    },
    /// The asked range lies outside the blob.
    #[error("the range is outside the {size_bytes} bytes of the blob")]
    BadRange {
        /// Length of the blob.
        size_bytes: u64,
    },
    /// No room is left.
    #[error("the storage is full")]
    Full(#[source] std::io::Error),
    /// The storage cannot be reached or refused.
    #[error("the storage failed")]
    Io(#[source] Box<dyn std::error::Error + Send + Sync>),
}
