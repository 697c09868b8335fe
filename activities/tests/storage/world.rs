//! A storage of its own for a test, and bodies to put into it.

use super::server::{KEY, S3Server, SECRET};
use bytes::Bytes;
use flatrender_activities::storage::{Credentials, ObjectStorage, StorageSettings};
use flatrender_workflows::contracts::storage::{BlobHash, BlobStore, ByteStream, Shelf};
use futures::{StreamExt, TryStreamExt, stream};
use std::{
    io,
    path::{Path, PathBuf},
};
use tempfile::TempDir;
use uuid::Uuid;

pub const PLENTY: u64 = 1 << 40;
/// Longer than two parts of an upload.
pub const LARGE: usize = 17 * 1024 * 1024;
/// Below which everything of a test's bucket is. A short one: the S3 server names files of its own after keys.
const PREFIX: &str = "p";

pub struct World {
    pub storage: ObjectStorage,
    place: Place,
}

enum Place {
    Folder(TempDir),
    Bucket(S3Server),
}

impl World {
    pub fn folder() -> Self {
        let folder = TempDir::new().unwrap();
        Self { storage: ObjectStorage::local(folder.path()).unwrap(), place: Place::Folder(folder) }
    }

    pub fn bucket() -> Self {
        let server = S3Server::start();
        Self { storage: open(&server.storage(PREFIX), SECRET), place: Place::Bucket(server) }
    }

    /// Where a key is on this machine's disk.
    pub fn path(&self, key: &object_store::path::Path) -> PathBuf {
        match &self.place {
            Place::Folder(folder) => folder.path().join(key.as_ref()),
            Place::Bucket(server) => server.objects().join(PREFIX).join(key.as_ref()),
        }
    }

    /// Everything that is stored, parts of unfinished uploads too; what the S3 server notes for itself is not ours.
    pub fn objects(&self) -> Vec<String> {
        let (root, ours): (&Path, fn(&str) -> bool) = match &self.place {
            Place::Folder(folder) => (folder.path(), |_| true),
            Place::Bucket(server) => {
                (server.folder.path(), |name| name.starts_with(".upload") || !name.starts_with('.'))
            }
        };
        let name = |path: PathBuf| path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        every_file(root).into_iter().map(name).filter(|name| ours(name)).collect()
    }
}

/// The bucket that an operator's text names, with a secret.
pub fn open(text: &str, secret: &str) -> ObjectStorage {
    let Ok(StorageSettings::S3(bucket)) = text.parse() else { panic!("{text}") };
    bucket.open(Some(Credentials::new(KEY, secret))).unwrap()
}

pub fn files() -> Shelf {
    Shelf::Files { tenant_id: Uuid::from_u128(1) }
}

pub fn renders(render: u128) -> Shelf {
    Shelf::Render { tenant_id: Uuid::from_u128(1), render_id: Uuid::from_u128(render) }
}

pub fn large() -> Vec<u8> {
    (0..LARGE).map(|i| (i % 251) as u8).collect()
}

/// `bytes` in pieces of 64 KiB, as a network delivers them.
pub fn body(bytes: &[u8]) -> ByteStream {
    let pieces: Vec<_> = bytes.chunks(64 * 1024).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

pub fn cut(bytes: &[u8]) -> ByteStream {
    body(bytes).chain(stream::iter([Err(io::Error::from(io::ErrorKind::ConnectionReset))])).boxed()
}

pub async fn read(storage: &ObjectStorage, shelf: &Shelf, hash: &BlobHash) -> Vec<u8> {
    let body = storage.open(shelf, hash, None).await.unwrap();
    body.stream.try_concat_bytes().await
}

pub trait Concat {
    async fn try_concat_bytes(self) -> Vec<u8>;
}

impl Concat for ByteStream {
    async fn try_concat_bytes(self) -> Vec<u8> {
        self.try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
        .unwrap()
    }
}

/// Every file below `folder`.
pub fn every_file(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { every_file(&path) } else { vec![path] }).collect()
}
