//! The folder an attempt works in. Nothing in it outlives the attempt.
//!
//! Whoever works in one holds a lock on it, which goes with its process: what a killed one has left is told from what a living one needs,
//! however old either is.

use super::disk_failure;
use flatrender_engine::{Attempt, Failure};
use std::{
    fs::File,
    io,
    path::Path,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

/// How old a folder is that nobody has locked and nobody needs: one that was made just now is locked in a moment.
const FRESH: Duration = Duration::from_secs(60);

/// An attempt's own folder; removed with everything in it when dropped.
#[derive(Debug)]
pub struct Scratch {
    folder: TempDir,
    /// Held for as long as the folder is used; none where folders cannot be locked.
    _lock: Option<File>,
}

impl Scratch {
    /// A new folder below `root`, named after task and attempt.
    ///
    /// # Errors
    /// `media.disk` when it cannot be created; another worker may have room.
    pub fn create(root: &Path, cx: &Attempt) -> Result<Self, Failure> {
        std::fs::create_dir_all(root).map_err(disk_failure)?;
        Self::named(root, &format!("{}-{}-", cx.task().task_id, cx.task().attempt_no)).map_err(disk_failure)
    }

    /// A new folder below `root`, which is there, whose name begins with `prefix`.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn named(root: &Path, prefix: &str) -> io::Result<Self> {
        let folder = tempfile::Builder::new().prefix(prefix).tempdir_in(root)?;
        let lock = File::open(folder.path()).ok().filter(|folder| folder.lock().is_ok());
        Ok(Self { folder, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes what crashed processes left below `root` under names that begin with `prefix`; tells how many folders. One that a living process
/// works in stays. Where folders cannot be locked, those go that nobody has touched for `age`.
///
/// # Errors
/// When `root` exists and cannot be listed.
pub fn remove_stale(root: &Path, prefix: &str, age: Duration) -> io::Result<u64> {
    if !root.exists() {
        return Ok(0);
    }
    let mut removed = 0;
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        if !entry.file_name().to_string_lossy().starts_with(prefix) {
            continue;
        }
        let untouched = |age| entry.metadata().and_then(|m| m.modified()).is_ok_and(|at| at < SystemTime::now() - age);
        let stale = match is_in_use(&entry.path()) {
            Some(true) => false,
            Some(false) => untouched(FRESH),
            None => untouched(age),
        };
        // One that will not go now is tried again at the next start.
        if stale && std::fs::remove_dir_all(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}

/// Whether somebody works in a folder; none where that cannot be told.
fn is_in_use(folder: &Path) -> Option<bool> {
    match File::open(folder).ok()?.try_lock() {
        Ok(()) => Some(false),
        Err(std::fs::TryLockError::WouldBlock) => Some(true),
        Err(std::fs::TryLockError::Error(_)) => None,
    }
}

#[cfg(unix)]
#[cfg(test)]
mod tests {
    use super::*;

    fn old(path: &Path) {
        let day = SystemTime::now() - Duration::from_secs(86_400);
        File::open(path).unwrap().set_modified(day).unwrap();
    }

    #[test]
    fn what_a_killed_process_left_goes_and_what_a_living_one_needs_stays() {
        let root = tempfile::tempdir().unwrap();
        let living = Scratch::named(root.path(), "7-1-").unwrap();
        let killed = root.path().join("7-2-x");
        std::fs::create_dir(&killed).unwrap();
        std::fs::write(killed.join("frame"), "x").unwrap();
        let fresh = root.path().join("7-3-x");
        std::fs::create_dir(&fresh).unwrap();
        let theirs = root.path().join("somebody's");
        std::fs::create_dir(&theirs).unwrap();
        for folder in [living.path(), &killed, &theirs] {
            old(folder);
        }
        let never = Duration::from_secs(365 * 86_400);
        assert_eq!(remove_stale(root.path(), "7-", never).unwrap(), 1);
        assert!(living.path().exists() && !killed.exists() && fresh.exists() && theirs.exists());
        let path = living.path().to_owned();
        drop(living);
        assert!(!path.exists());
        assert_eq!(remove_stale(&root.path().join("nowhere"), "", never).unwrap(), 0);
    }
}
