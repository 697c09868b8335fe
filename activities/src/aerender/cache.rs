//! Packages and assets that were fetched before, by their hash, the least recently used forgotten first.
//!
//! ```text
//! <cache>/<sha256>.file             a blob                     made under a temporary name, checked, then renamed:
//! <cache>/<sha256>.package/files/   a package, unpacked        what has its name is whole
//!                          sums     what each file must be
//! ```
//! Attempts get hard links, so forgetting an entry takes nothing away from one that uses it. Cached files are
//! read-only: nobody writes through a link by mistake. All the same nothing is believed: each use reads every byte and
//! compares; what has changed is forgotten and fetched anew. What an attempt uses or an operator wants is never forgotten
//! for room.

mod pins;
pub(super) mod sums;
mod unfinished;

pub use pins::Pin;

use super::{
    InputSource,
    unpack::{Bounds, UnpackError, measure, unpack},
    verdict,
};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::{
    node::CachedPackage,
    storage::{BlobHash, BlobRef},
};
use pins::Pins;
use std::{
    collections::{BTreeSet, HashMap},
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::SystemTime,
};
use unfinished::{Bench, Unfinished, is_temporary};

/// A folder of blobs and unpacked packages.
#[derive(Debug)]
pub struct Cache {
    folder: PathBuf,
    limit_bytes: u64,
    bounds: Bounds,
    /// One fetch at a time for each entry; whoever comes second finds it made.
    entries: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
    pins: Arc<Pins>,
    bench: Arc<Bench>,
}

impl Cache {
    /// Uses `folder`, which keeps what an earlier process left, but nothing half-made.
    ///
    /// # Errors
    /// When the folder cannot be made.
    pub fn open(folder: PathBuf, limit_bytes: u64, bounds: Bounds) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        let bench = Arc::new(Bench::default());
        bench.clear(&folder);
        Ok(Self { folder, limit_bytes, bounds, entries: Mutex::default(), pins: Arc::default(), bench })
    }

    /// Keeps an entry from being forgotten while the pin lives.
    pub fn pin(&self, hash: &BlobHash) -> Pin {
        self.pins.pin(hash)
    }

    /// Entries that stay until this is called again: an operator wants them.
    pub fn keep(&self, wanted: BTreeSet<BlobHash>) {
        self.pins.keep(wanted);
    }

    /// Forgets a package, unless an attempt uses it or is about to. True when it is not there any more.
    pub fn evict(&self, hash: &BlobHash) -> bool {
        let name = package_name(hash);
        let lock = self.entry(&name);
        let Ok(_held) = lock.try_lock() else { return false };
        if !self.pins.is_used(hash) {
            remove(&self.folder.join(&name));
        }
        !self.folder.join(&name).exists()
    }

    /// The packages that are there, the most recently used first.
    pub fn packages(&self) -> Vec<CachedPackage> {
        let mut kept = self.contents();
        kept.sort_by_key(|e| std::cmp::Reverse(e.used));
        let now = SystemTime::now();
        kept.into_iter()
            .filter(|e| e.name.ends_with(PACKAGE))
            .filter_map(|e| {
                let sha256 = e.hash()?;
                Some(CachedPackage {
                    bytes: e.bytes,
                    idle_seconds: now.duration_since(e.used).unwrap_or_default().as_secs(),
                    hits: self.pins.hits(&sha256),
                    in_use: self.pins.is_used(&sha256),
                    sha256,
                })
            })
            .collect()
    }

    /// Bytes of everything that is there.
    pub fn bytes(&self) -> u64 {
        self.contents().iter().map(|e| e.bytes).sum()
    }

    /// Bytes it may have.
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
    }

    /// Puts the unpacked package into `target`, an existing empty folder.
    ///
    /// # Errors
    /// As [`prepare`](super::prepare::prepare).
    pub async fn copy_package(&self, inputs: &impl InputSource, blob: &BlobRef, target: &Path) -> Result<(), Failure> {
        let name = package_name(&blob.sha256);
        let entry = self.entry(&name);
        let _held = entry.lock().await;
        let _pin = self.pin(&blob.sha256);
        let made = self.folder.join(&name);
        if made.is_dir() && !self.is_sound(&made, is_sound_package).await? {
            remove(&made);
        }
        if made.is_dir() {
            self.pins.hit(&blob.sha256);
        } else {
            self.make_room(blob.size_bytes);
            self.unpack(inputs, blob, &made).await?;
        }
        touch(&made);
        let (files, target) = (made.join(FILES), target.to_owned());
        blocking(move || link_folder(&files, &target)).await?.map_err(local)
    }

    async fn unpack(&self, inputs: &impl InputSource, blob: &BlobRef, made: &Path) -> Result<(), Failure> {
        let (zip, bounds) = (self.fetch(inputs, blob, "the package").await?, self.bounds);
        let measured = blocking(move || measure(zip.path(), bounds).map(|bytes| (zip, bytes))).await?;
        let (zip, bytes) = measured.map_err(bad_package)?;
        self.make_room(bytes);
        let folder = self.bench.begin(&self.folder);
        // Both belong to the work, which goes on when nobody waits for it any more, and go with it.
        let unpacked = blocking(move || {
            let files = folder.path().join(FILES);
            fs::create_dir_all(&files).map_err(UnpackError::Io)?;
            unpack(zip.path(), &files, bounds)?;
            drop(zip);
            let summed = sums::Sums::of(&files).and_then(|sums| sums.write(&folder.path().join(SUMS)));
            summed.and_then(|()| flush(folder.path())).map_err(UnpackError::Io)?;
            Ok::<Unfinished, UnpackError>(folder)
        });
        unpacked.await?.map_err(bad_package)?.finish(made).map_err(local)?;
        // It takes a little more than was measured, and others were made meanwhile.
        self.make_room(0);
        Ok(())
    }

    /// Puts the blob at `target`, whose folder is made; a file that is there is replaced.
    ///
    /// # Errors
    /// As [`prepare`](super::prepare::prepare).
    pub async fn copy_file(&self, inputs: &impl InputSource, blob: &BlobRef, target: &Path) -> Result<(), Failure> {
        let name = format!("{}.file", blob.sha256);
        let entry = self.entry(&name);
        let _held = entry.lock().await;
        let _pin = self.pin(&blob.sha256);
        let made = self.folder.join(&name);
        let wanted = blob.clone();
        if made.is_file() && !self.is_sound(&made, move |path| sums::check(path, &wanted).is_ok()).await? {
            remove(&made);
        }
        if !made.is_file() {
            self.make_room(blob.size_bytes);
            let fetched = self.fetch(inputs, blob, "an asset").await?;
            flush(fetched.path()).map_err(local)?;
            read_only(fetched.path()).map_err(local)?;
            fetched.finish(&made).map_err(local)?;
            self.make_room(0);
        }
        touch(&made);
        link_file(&made, target).map_err(local)
    }

    /// Reads an entry to its last byte before it is used.
    async fn is_sound(&self, made: &Path, test: impl FnOnce(&Path) -> bool + Send + 'static) -> Result<bool, Failure> {
        let path = made.to_owned();
        let sound = blocking(move || test(&path)).await?;
        if !sound {
            tracing::warn!(path = %made.display(), "a cached input has changed on the disk: it is fetched anew");
        }
        Ok(sound)
    }

    /// Forgets entries until `more` bytes fit below the limit, the least recently used first. Those that are being made or linked,
    /// that an attempt uses or an operator wants, are kept.
    pub fn make_room(&self, more: u64) {
        self.bench.clear(&self.folder);
        let mut kept = self.contents();
        kept.sort_by_key(|e| e.used);
        let mut total: u64 = kept.iter().map(|e| e.bytes).sum();
        for entry in kept {
            if total + more <= self.limit_bytes {
                return;
            }
            if entry.hash().is_some_and(|hash| self.pins.must_stay(&hash)) {
                continue;
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
        let whole = entries.filter(|e| !is_temporary(e));
        whole
            .map(|e| Kept {
                name: e.file_name().to_string_lossy().into_owned(),
                used: e.metadata().and_then(|m| m.modified()).unwrap_or(SystemTime::UNIX_EPOCH),
                bytes: size(&e.path()),
            })
            .collect()
    }

    /// Fetches to a temporary file; it is what was announced, or it is removed.
    async fn fetch(&self, inputs: &impl InputSource, blob: &BlobRef, what: &str) -> Result<Unfinished, Failure> {
        let file = self.bench.begin(&self.folder);
        let fetched = match inputs.fetch(blob, file.path()).await {
            Ok(()) => {
                let (path, blob) = (file.path().to_owned(), blob.clone());
                blocking(move || sums::check(&path, &blob)).await?
            }
            Err(error) => Err(error),
        };
        fetched.map(|()| file).map_err(|error| verdict::of_transfer(&error, what))
    }

    fn entry(&self, name: &str) -> Arc<tokio::sync::Mutex<()>> {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.retain(|_, lock| Arc::strong_count(lock) > 1);
        entries.entry(name.to_owned()).or_default().clone()
    }
}

const PACKAGE: &str = ".package";
/// Within a package's folder.
const FILES: &str = "files";
const SUMS: &str = "sums";

fn package_name(hash: &BlobHash) -> String {
    format!("{hash}{PACKAGE}")
}

fn is_sound_package(made: &Path) -> bool {
    let wanted = sums::Sums::read(&made.join(SUMS)).ok();
    wanted.is_some() && sums::Sums::of(&made.join(FILES)).ok() == wanted
}

struct Kept {
    name: String,
    used: SystemTime,
    bytes: u64,
}

impl Kept {
    fn hash(&self) -> Option<BlobHash> {
        self.name.split('.').next()?.parse().ok()
    }
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
    let _ = open_to_change(path).and_then(|f| f.set_modified(SystemTime::now()));
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
    if cfg!(windows) && path.is_dir() { Ok(()) } else { open_to_change(path)?.sync_all() }
}

/// Elsewhere a file that is only read may be flushed and dated, too.
#[cfg(not(windows))]
fn open_to_change(path: &Path) -> io::Result<fs::File> {
    fs::File::open(path)
}

/// A folder is opened only with a flag of its own. Source: "CreateFileW" and "FlushFileBuffers", Microsoft Learn.
#[cfg(windows)]
fn open_to_change(path: &Path) -> io::Result<fs::File> {
    use std::os::windows::fs::OpenOptionsExt;
    use windows_sys::Win32::Storage::FileSystem::FILE_FLAG_BACKUP_SEMANTICS;
    fs::OpenOptions::new().write(true).custom_flags(FILE_FLAG_BACKUP_SEMANTICS).open(path)
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
