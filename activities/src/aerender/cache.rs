//! Packages and assets that were fetched before, by their hash, the least recently used forgotten first.
//!
//! ```text
//! <cache>/<sha256>.file       a blob          made under a temporary name, checked, then renamed:
//! <cache>/<sha256>.package/   a package, unpacked        what has its name is whole
//! ```
//! Attempts get hard links, so forgetting an entry takes nothing away from one that uses it. Cached files are
//! read-only: nobody writes through a link by mistake.

use super::{
    InputSource, TransferError,
    unpack::{Bounds, UnpackError, unpack},
    verdict,
};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::storage::{BlobHash, BlobRef};
use sha2::{Digest, Sha256};
use std::{
    collections::HashMap,
    fs, io,
    io::Read,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use uuid::Uuid;

/// A folder of blobs and unpacked packages.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    limit_bytes: u64,
    bounds: Bounds,
    /// One fetch at a time for each entry; whoever comes second finds it made.
    entries: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Cache {
    /// Uses `folder`, which keeps what an earlier process left, but nothing half-made.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: PathBuf, limit_bytes: u64, bounds: Bounds) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        for entry in fs::read_dir(&folder)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                remove(&entry.path());
            }
        }
        Ok(Self { folder, limit_bytes, bounds, entries: Mutex::default() })
    }

    /// Puts the unpacked package into `target`, an existing empty folder.
    ///
    /// # Errors
    /// As [`prepare`](super::prepare::prepare).
    pub async fn copy_package(&self, inputs: &impl InputSource, blob: &BlobRef, target: &Path) -> Result<(), Failure> {
        let name = format!("{}.package", blob.sha256);
        let entry = self.entry(&name);
        let _held = entry.lock().await;
        let made = self.folder.join(&name);
        if !made.is_dir() {
            self.make_room(blob.size_bytes);
            let zip = self.fetch(inputs, blob, "the package").await?;
            let (unpacked, bounds) = (self.temporary(), self.bounds);
            let result = {
                let unpacked = unpacked.clone();
                blocking(move || {
                    fs::create_dir_all(&unpacked).map_err(UnpackError::Io)?;
                    let result = unpack(&zip, &unpacked, bounds);
                    remove(&zip);
                    result.and_then(|()| flush(&unpacked).map_err(UnpackError::Io))
                })
                .await?
            };
            if let Err(error) = result {
                remove(&unpacked);
                return Err(bad_package(error));
            }
            fs::rename(&unpacked, &made).map_err(local)?;
        }
        touch(&made);
        let target = target.to_owned();
        blocking(move || link_folder(&made, &target)).await?.map_err(local)
    }

    /// Puts the blob at `target`, whose folder is made; a file that is there is replaced.
    ///
    /// # Errors
    /// As [`prepare`](super::prepare::prepare).
    pub async fn copy_file(&self, inputs: &impl InputSource, blob: &BlobRef, target: &Path) -> Result<(), Failure> {
        let name = format!("{}.file", blob.sha256);
        let entry = self.entry(&name);
        let _held = entry.lock().await;
        let made = self.folder.join(&name);
        if !made.is_file() {
            self.make_room(blob.size_bytes);
            let fetched = self.fetch(inputs, blob, "an asset").await?;
            flush(&fetched).map_err(local)?;
            read_only(&fetched).map_err(local)?;
            fs::rename(&fetched, &made).map_err(local)?;
        }
        touch(&made);
        link_file(&made, target).map_err(local)
    }

    /// Forgets entries until `more` bytes fit below the limit. Entries being made or linked are kept.
    pub fn make_room(&self, more: u64) {
        let mut kept = self.contents();
        kept.sort_by_key(|e| e.used);
        let mut total: u64 = kept.iter().map(|e| e.bytes).sum();
        for entry in kept {
            if total + more <= self.limit_bytes {
                return;
            }
            let lock = self.entry(&entry.name);
            if let Ok(_held) = lock.try_lock() {
                tracing::debug!(entry = entry.name, bytes = entry.bytes, "forgetting a cached input");
                remove(&self.folder.join(&entry.name));
                total -= entry.bytes;
            }
        }
    }

    fn contents(&self) -> Vec<Kept> {
        let entries = fs::read_dir(&self.folder).into_iter().flatten().flatten();
        let whole = entries.filter(|e| !e.file_name().to_string_lossy().starts_with(TEMPORARY));
        whole
            .map(|e| Kept {
                name: e.file_name().to_string_lossy().into_owned(),
                used: e.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH),
                bytes: size(&e.path()),
            })
            .collect()
    }

    /// Fetches to a temporary file; it is what was announced, or it is removed.
    async fn fetch(&self, inputs: &impl InputSource, blob: &BlobRef, what: &str) -> Result<PathBuf, Failure> {
        let path = self.temporary();
        let fetched = match inputs.fetch(blob, &path).await {
            Ok(()) => {
                let (path, blob) = (path.clone(), blob.clone());
                blocking(move || check(&path, &blob)).await?
            }
            Err(error) => Err(error),
        };
        fetched.map(|()| path.clone()).map_err(|error| {
            remove(&path);
            verdict::of_transfer(&error, what)
        })
    }

    fn entry(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, lock| Arc::strong_count(lock) > 1);
        entries.entry(name.to_owned()).or_default().clone()
    }

    fn temporary(&self) -> PathBuf {
        self.folder.join(format!("{TEMPORARY}{}", Uuid::new_v4()))
    }
}

const TEMPORARY: &str = "new-";

struct Kept {
    name: String,
    used: SystemTime,
    bytes: u64,
}

fn check(path: &Path, blob: &BlobRef) -> Result<(), TransferError> {
    let mut file = fs::File::open(path)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    let mut length = 0;
    loop {
        match file.read(&mut buffer)? {
            0 => break,
            read => {
                hasher.update(&buffer[..read]);
                length += read as u64;
            }
        }
    }
    let same = length == blob.size_bytes && BlobHash::from_digest(hasher.finalize().into()) == blob.sha256;
    if same { Ok(()) } else { Err(TransferError::Mismatch) }
}

fn link_folder(from: &Path, to: &Path) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            fs::create_dir_all(&target)?;
            link_folder(&entry.path(), &target)?;
        } else {
            read_only(&entry.path())?;
            link_file(&entry.path(), &target)?;
        }
    }
    Ok(())
}

fn link_file(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    // Another volume, or a file system without links.
    fs::hard_link(from, to).or_else(|_| fs::copy(from, to).map(drop))
}

/// Only where a read-only file can still be deleted.
#[cfg(unix)]
fn read_only(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(path, fs::Permissions::from_mode(0o444))
}

#[cfg(not(unix))]
fn read_only(_path: &Path) -> io::Result<()> {
    Ok(())
}

/// Marks an entry as used now. Failing that it is forgotten sooner, which is no harm.
fn touch(path: &Path) {
    let _ = fs::File::open(path).and_then(|f| f.set_modified(SystemTime::now()));
}

/// Brings a file, or a folder with all that is in it, to the disk: the name under which it is kept says what it is, also
/// after a power cut.
fn flush(path: &Path) -> std::io::Result<()> {
    if path.is_dir() {
        for entry in fs::read_dir(path)? {
            flush(&entry?.path())?;
        }
    }
    // Windows flushes no folders.
    if cfg!(windows) && path.is_dir() { Ok(()) } else { fs::File::open(path)?.sync_all() }
}

fn size(path: &Path) -> u64 {
    match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::read_dir(path).into_iter().flatten().flatten().map(|e| size(&e.path())).sum(),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    }
}

/// Removes a file or folder, if it is there.
fn remove(path: &Path) {
    let removed = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
    if let Err(error) = removed
        && error.kind() != io::ErrorKind::NotFound
    {
        tracing::warn!(path = %path.display(), %error, "cannot remove a file of the cache");
    }
}

fn bad_package(error: UnpackError) -> Failure {
    match error {
        UnpackError::Io(error) => local(error),
        UnpackError::Broken(cause) => {
            Failure::permanent("render.bad_package", format!("the package is broken: {cause}"))
        }
        other => Failure::permanent("render.bad_package", other.to_string()),
    }
}

fn local(error: io::Error) -> Failure {
    verdict::of_transfer(&error.into(), "an input")
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    let joined = tokio::task::spawn_blocking(work).await;
    joined.map_err(|error| Failure::transient("render.engine_failed", format!("a thread of the node broke: {error}")))
}
