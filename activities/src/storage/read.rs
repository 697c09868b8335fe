//! Reading a blob, whole, in part, or to a file.

use super::{errors, intake, keys};
use flatrender_workflows::contracts::storage::{BlobBody, BlobHash, BlobRef, ByteStream, Shelf, StorageError};
use futures::{StreamExt, TryStreamExt};
use object_store::{
    Error, GetOptions, GetRange, GetResult, GetResultPayload, ObjectStore, ObjectStoreExt, path::Path as Key,
};
use sha2::{Digest, Sha256};
use std::{
    fs::File,
    io::{self, Read, Seek, SeekFrom, Write},
    ops::Range,
    path::Path,
};
use tempfile::NamedTempFile;
use tokio::io::{AsyncReadExt, AsyncSeekExt};

/// Length of a chunk that is read from a file at once.
pub(super) const CHUNK_BYTES: usize = 256 * 1024;

/// Length of a blob, or none.
pub(super) async fn stat(store: &dyn ObjectStore, shelf: &Shelf, hash: &BlobHash) -> Result<Option<u64>, StorageError> {
    match store.head(&keys::blob(shelf, hash)).await {
        Ok(meta) => Ok(Some(meta.size)),
        Err(Error::NotFound { .. }) => Ok(None),
        Err(error) => Err(errors::from_store(error)),
    }
}

/// The bytes of a blob or of a range of it. See the contract.
pub(super) async fn open(
    store: &dyn ObjectStore,
    shelf: &Shelf,
    hash: &BlobHash,
    range: Option<Range<u64>>,
) -> Result<BlobBody, StorageError> {
    let key = keys::blob(shelf, hash);
    let Some(range) = range else {
        let found = get(store, &key, hash, GetOptions::default()).await?;
        return Ok(BlobBody { size_bytes: found.meta.size, stream: stream(found) });
    };
    let size_bytes = stat(store, shelf, hash).await?.ok_or_else(|| StorageError::NotFound(hash.clone()))?;
    if range.start > range.end || range.end > size_bytes {
        return Err(StorageError::BadRange { size_bytes });
    }
    if range.is_empty() {
        return Ok(BlobBody { size_bytes, stream: futures::stream::empty().boxed() });
    }
    let wanted = GetOptions { range: Some(GetRange::Bounded(range)), ..GetOptions::default() };
    Ok(BlobBody { size_bytes, stream: stream(get(store, &key, hash, wanted).await?) })
}

/// Writes a blob to `path`, which stays as it was unless the content is right.
///
/// A copy even where a link would do: a blob must not share its bytes with a file somebody may write to.
pub(super) async fn fetch(
    store: &dyn ObjectStore,
    shelf: &Shelf,
    hash: &BlobHash,
    path: &Path,
) -> Result<(), StorageError> {
    let found = get(store, &keys::blob(shelf, hash), hash, GetOptions::default()).await?;
    let temporary = new_file_beside(path)?;
    let (temporary, sha256) = match found.payload {
        GetResultPayload::File(file, _) => blocking(move || copy_hashing(file, temporary)).await?,
        GetResultPayload::Stream(chunks) => write_hashing(chunks, temporary).await?,
    };
    intake::check(Some(hash), &sha256)?;
    temporary.persist(path).map_err(|refused| errors::from_io(refused.error))?;
    Ok(())
}

/// Whether the blob is there. A local one is read and hashed, so that storing it again heals a damaged one;
/// of another store's integrity its length is taken as proof.
pub(super) async fn is_intact(
    store: &dyn ObjectStore,
    shelf: &Shelf,
    hash: &BlobHash,
    size_bytes: Option<u64>,
) -> Result<bool, StorageError> {
    let head = GetOptions { head: true, ..GetOptions::default() };
    let found = match store.get_opts(&keys::blob(shelf, hash), head).await {
        Ok(found) => found,
        Err(Error::NotFound { .. }) => return Ok(false),
        Err(error) => return Err(errors::from_store(error)),
    };
    if size_bytes.is_some_and(|size| size != found.meta.size) {
        return Ok(false);
    }
    match found.payload {
        GetResultPayload::File(file, _) => Ok(blocking(move || hash_file(file)).await?.sha256 == *hash),
        GetResultPayload::Stream(_) => Ok(true),
    }
}

/// Hash and length of what is left to read of `file`.
pub(super) fn hash_file(file: File) -> io::Result<BlobRef> {
    let mut sink = Hashing { hasher: Sha256::new(), sink: io::sink() };
    let size_bytes = copy(file, &mut sink)?;
    Ok(BlobRef { sha256: sink.finish().1, size_bytes })
}

async fn get(
    store: &dyn ObjectStore,
    key: &Key,
    hash: &BlobHash,
    options: GetOptions,
) -> Result<GetResult, StorageError> {
    store.get_opts(key, options).await.map_err(|error| match error {
        Error::NotFound { .. } => StorageError::NotFound(hash.clone()),
        other => errors::from_store(other),
    })
}

/// Chunks of a size that suits a disk; the store's own are 8 KiB, each with a hop to another thread.
fn stream(found: GetResult) -> ByteStream {
    let range = found.range.clone();
    match found.payload {
        GetResultPayload::Stream(chunks) => chunks.map_err(io::Error::from).boxed(),
        GetResultPayload::File(file, _) => {
            let mut file = tokio::fs::File::from_std(file);
            let chunks = async move {
                file.seek(SeekFrom::Start(range.start)).await?;
                let wanted = file.take(range.end - range.start);
                io::Result::Ok(tokio_util::io::ReaderStream::with_capacity(wanted, CHUNK_BYTES))
            };
            futures::stream::once(chunks).try_flatten().boxed()
        }
    }
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> Result<T, StorageError> {
    tokio::task::spawn_blocking(work).await.map_err(errors::from_join)?.map_err(errors::from_io)
}

fn new_file_beside(path: &Path) -> Result<NamedTempFile, StorageError> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".fetch-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o644));
    builder.tempfile_in(path.parent().unwrap_or(Path::new("."))).map_err(errors::from_io)
}

fn copy_hashing(mut from: File, temporary: NamedTempFile) -> io::Result<(NamedTempFile, BlobHash)> {
    from.seek(SeekFrom::Start(0))?;
    let mut sink = Hashing { hasher: Sha256::new(), sink: temporary };
    copy(from, &mut sink)?;
    Ok(sink.finish())
}

async fn write_hashing(
    mut chunks: futures::stream::BoxStream<'static, object_store::Result<bytes::Bytes>>,
    mut temporary: NamedTempFile,
) -> Result<(NamedTempFile, BlobHash), StorageError> {
    let mut hasher = Sha256::new();
    while let Some(chunk) = chunks.try_next().await.map_err(errors::from_store)? {
        hasher.update(&chunk);
        temporary = blocking(move || temporary.write_all(&chunk).map(|()| temporary)).await?;
    }
    Ok((temporary, BlobHash::from_digest(hasher.finalize().into())))
}

fn copy(mut from: File, to: &mut impl Write) -> io::Result<u64> {
    let (mut buffer, mut size_bytes) = (vec![0; CHUNK_BYTES], 0);
    loop {
        let length = from.read(&mut buffer)?;
        if length == 0 {
            return Ok(size_bytes);
        }
        to.write_all(&buffer[..length])?;
        size_bytes += length as u64;
    }
}

/// Hashes what is written through it.
struct Hashing<W> {
    hasher: Sha256,
    sink: W,
}

impl<W> Hashing<W> {
    fn finish(self) -> (W, BlobHash) {
        (self.sink, BlobHash::from_digest(self.hasher.finalize().into()))
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.sink.write(bytes)?;
        self.hasher.update(&bytes[..length]);
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.sink.flush()
    }
}
