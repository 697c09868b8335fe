//! What strangers send to do harm, made here by the hundred: names, archives, drawings, pictures and films. None of it is taken for
//! what it is not, nothing is written but what is kept, nothing is read but the file itself, and it takes neither long nor much.

mod archives;
mod films;
mod harmed;
mod names;
mod pictures;

use flatrender_activities::media::upload::{UploadInspector, UploadLimits};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// A folder of which one part is the jail, and all else has to stay as it is.
pub struct Yard {
    folder: TempDir,
    before: BTreeMap<PathBuf, u64>,
    begun: Instant,
}

impl Yard {
    pub fn new() -> Self {
        let folder = TempDir::new().unwrap();
        std::fs::create_dir(folder.path().join("jail")).unwrap();
        std::fs::write(folder.path().join("canary"), "nobody reads this").unwrap();
        std::fs::write(folder.path().join("evil"), "nobody writes this").unwrap();
        let mut yard = Self { folder, before: BTreeMap::new(), begun: Instant::now() };
        yard.before = yard.outside();
        yard
    }

    pub fn jail(&self) -> PathBuf {
        self.folder.path().join("jail")
    }

    /// All that is not in the jail, with its length.
    fn outside(&self) -> BTreeMap<PathBuf, u64> {
        let mut all = BTreeMap::new();
        walk(self.folder.path(), &mut all);
        all.retain(|path, _| !path.starts_with(self.jail()));
        all
    }

    /// Nothing was written outside the jail, and it took no longer than that.
    #[track_caller]
    pub fn is_as_before(&self, limit: Duration) {
        assert_eq!(self.outside(), self.before);
        assert!(self.begun.elapsed() < limit, "{:?}", self.begun.elapsed());
    }
}

pub fn walk(folder: &Path, found: &mut BTreeMap<PathBuf, u64>) {
    for entry in std::fs::read_dir(folder).unwrap().flatten() {
        let length = entry.metadata().unwrap().len();
        if entry.file_type().unwrap().is_dir() {
            walk(&entry.path(), found);
        }
        found.insert(entry.path(), length);
    }
}

/// The most memory this process has held, in bytes; 0 where that is not told.
pub fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    peak.and_then(|p| p.trim().trim_end_matches(" kB").parse::<u64>().ok()).unwrap_or(0) * 1024
}

pub fn inspector(ffprobe: PathBuf) -> UploadInspector {
    UploadInspector::new(ffprobe, UploadLimits::default())
}
