//! Where bytes live: blobs named by their content, on shelves that keep tenants and renders apart.

use bytes::Bytes;
use futures::{future::BoxFuture, stream::BoxStream};
use serde::{Deserialize, Serialize};
use std::{fmt, ops::Range, path::Path, str::FromStr};
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
    /// What everybody may see, for ever, under an address made of its hash: stills of scenes. Of no tenant, and never emptied.
    Public,
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

    /// Removes everything on a shelf. Removing an empty shelf is no error.
    fn clear<'a>(&'a self, shelf: &'a Shelf) -> BoxFuture<'a, Result<(), StorageError>>;

    /// Whether a small object can be written, read and removed now.
    fn probe(&self) -> BoxFuture<'_, Result<(), StorageError>>;
}

/// Why storage did not do it.
#[derive(Debug, thiserror::Error)]
pub enum StorageError {
    /// Nothing with this hash is on the shelf.
    #[error("blob {0} is not there")]
    NotFound(BlobHash),
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
