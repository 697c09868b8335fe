//! The folder an attempt works in. Nothing in it outlives the attempt.

use super::disk_failure;
use flatrender_engine::{Attempt, Failure};
use std::{
    path::Path,
    time::{Duration, SystemTime},
};
use tempfile::TempDir;

/// An attempt's own folder; removed with everything in it when dropped.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Scratch {
    /// A new folder below `root`, named after task and attempt.
    ///
    /// # Errors
    /// `media.disk` when it cannot be created; another worker may have room.
    pub fn create(root: &Path, cx: &Attempt) -> Result<Self, Failure> {
        std::fs::create_dir_all(root).map_err(disk_failure)?;
        let prefix = format!("{}-{}-", cx.task().task_id, cx.task().attempt_no);
        tempfile::Builder::new().prefix(&prefix).tempdir_in(root).map(Self).map_err(disk_failure)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

/// Removes what crashed processes left below `root` and nobody has touched for `age`; tells how many folders.
///
/// # Errors
/// When `root` exists and cannot be listed.
pub fn remove_stale(root: &Path, age: Duration) -> std::io::Result<u64> {
    if !root.exists() {
        return Ok(0);
    }
    let (before, mut removed) = (SystemTime::now() - age, 0);
    for entry in std::fs::read_dir(root)? {
        let entry = entry?;
        let stale = entry.metadata().and_then(|m| m.modified()).is_ok_and(|at| at < before);
        // One that will not go now is tried again at the next start.
        if stale && std::fs::remove_dir_all(entry.path()).is_ok() {
            removed += 1;
        }
    }
    Ok(removed)
}
