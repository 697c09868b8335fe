//! What is being made, under temporary names: it gets its name when it is whole, and is removed otherwise, whatever becomes of
//! whoever makes it.

use super::remove;
use std::{
    collections::HashSet,
    fs, io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use uuid::Uuid;

/// Temporary names begin so.
pub(super) const TEMPORARY: &str = "new-";

/// Everything that is being made now.
#[derive(Debug, Default)]
pub(super) struct Bench(Mutex<HashSet<PathBuf>>);

/// A file or folder that is being made. Dropped without a name it is removed.
#[derive(Debug)]
pub(super) struct Unfinished {
    bench: Arc<Bench>,
    path: PathBuf,
}

impl Bench {
    fn open(&self) -> MutexGuard<'_, HashSet<PathBuf>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place in `folder` for something new.
    pub(super) fn begin(self: &Arc<Self>, folder: &Path) -> Unfinished {
        let path = folder.join(format!("{TEMPORARY}{}", Uuid::new_v4()));
        self.open().insert(path.clone());
        Unfinished { bench: self.clone(), path }
    }

    /// Removes from `folder` what nobody makes: an earlier process left it, or a write that was under way came after its removal.
    pub(super) fn clear(&self, folder: &Path) {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if is_temporary(&entry) && !self.open().contains(&path) {
                remove(&path);
            }
        }
    }
}

pub(super) fn is_temporary(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with(TEMPORARY)
}

impl Unfinished {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// It is whole: it gets its name.
    pub(super) fn finish(self, name: &Path) -> io::Result<()> {
        fs::rename(&self.path, name)
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        // Of what has its name nothing is left here.
        remove(&self.path);
        self.bench.open().remove(&self.path);
    }
}
