//! What the agent must know after its own death: which attempts it had, which processes it had started, and what it had heard of them.
//!
//! ```text
//! claimed ─▶ entry written ─▶ renderer started ─▶ entry names it ─▶ heard to its end ─▶ entry says so ─▶ reported ─▶ folder, then entry
//!                                  ▲                                 │                                                removed
//!                                  └───── frames are missing ────────┘
//! ```
//! An entry is on the disk before the phase it speaks of begins, except that a renderer's number is known only
//! once it runs; until it is written, the mark in the renderer's environment tells whose it is.

use crate::aerender::ProcessId;
use flatrender_engine::{Failure, LeasedTask};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashSet,
    fs, io,
    io::Write,
    path::{Path, PathBuf},
};
use uuid::Uuid;

/// An attempt of this machine that is not over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Entry {
    /// The task and its lease.
    pub task: LeasedTask,
    /// The renderer that was started last.
    #[serde(default)]
    pub renderer: Option<ProcessId>,
    /// What is known of its words.
    #[serde(default)]
    pub heard: Heard,
}

/// What an agent has heard of a renderer.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Heard {
    /// Not all: it may have had more to say.
    #[default]
    Part,
    /// All, and nothing that shows in its frames.
    All,
    /// What makes its frames worthless: also to whoever goes on with them, who is to be told.
    Spoiled(Failure),
}

impl Entry {
    /// A task that was claimed just now.
    pub fn new(task: LeasedTask) -> Self {
        Self { task, renderer: None, heard: Heard::Part }
    }

    /// Whether a renderer was started of which nobody knows all that it said.
    pub fn is_unheard(&self) -> bool {
        self.renderer.is_some() && self.heard == Heard::Part
    }
}

/// How the names of entries end.
const ENTRY: &str = "json";

/// A folder with a file for each attempt.
#[derive(Debug)]
pub struct Journal {
    folder: PathBuf,
}

impl Journal {
    /// Uses `folder`.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(folder: PathBuf) -> io::Result<Self> {
        fs::create_dir_all(&folder)?;
        Ok(Self { folder })
    }

    /// Writes an entry, or writes it anew. On return it is on the disk.
    ///
    /// # Errors
    /// When the disk does not take it; then the attempt must not go on.
    pub fn write(&self, entry: &Entry) -> io::Result<()> {
        let bytes = serde_json::to_vec(entry).map_err(io::Error::other)?;
        write_whole(&self.path(entry.task.lease_token), &bytes)
    }

    /// Forgets an attempt. One that cannot be forgotten is found lost at the next start.
    pub fn forget(&self, lease_token: Uuid) {
        if let Err(error) = fs::remove_file(self.path(lease_token)) {
            tracing::warn!(%lease_token, %error, "cannot remove a journal entry");
        }
    }

    /// What an earlier process left. A file that is no entry is removed: entries are written whole or not at all. One that cannot be
    /// read stays, and is read at the next start.
    pub fn entries(&self) -> Vec<Entry> {
        self.files().filter_map(|path| read(&path)).collect()
    }

    /// The lease tokens of all entries that are there, also of those that cannot be read.
    pub fn tokens(&self) -> HashSet<String> {
        self.files().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect()
    }

    fn files(&self) -> impl Iterator<Item = PathBuf> {
        fs::read_dir(&self.folder).into_iter().flatten().flatten().map(|e| e.path())
    }

    fn path(&self, lease_token: Uuid) -> PathBuf {
        self.folder.join(format!("{lease_token}.{ENTRY}"))
    }
}

fn read(path: &Path) -> Option<Entry> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) => {
            tracing::error!(path = %path.display(), %error, "cannot read a journal entry: it is kept for the next start");
            return None;
        }
    };
    // One that was not renamed yet says the same as the one that it was to replace, or nothing was begun yet.
    let is_named = path.extension().is_some_and(|extension| extension == ENTRY);
    let entry = is_named.then(|| serde_json::from_slice(&bytes).ok()).flatten();
    if entry.is_none() {
        tracing::warn!(path = %path.display(), "removing a file that is no journal entry");
        // What is left is found again at the next start.
        let _ = fs::remove_file(path);
    }
    entry
}

/// Writes a file so that after a power cut it has its old content or its new, and only its owner reads it.
///
/// # Errors
/// What the file system says.
pub fn write_whole(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let temporary = path.with_extension(format!("{}.new", Uuid::new_v4().simple()));
    let written = write_new(&temporary, bytes).and_then(|()| fs::rename(&temporary, path));
    if written.is_err() {
        // The reason is the first error's; a left-over is found at the next start.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    sync_folder(path.parent().unwrap_or(Path::new(".")))
}

fn write_new(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A rename is on the disk once its folder is. Windows does it by itself, and opens no folders.
fn sync_folder(folder: &Path) -> io::Result<()> {
    if cfg!(unix) { fs::File::open(folder)?.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(task_id: i64) -> Entry {
        let task = LeasedTask {
            task_id,
            run_id: Uuid::new_v4(),
            tenant_id: Uuid::new_v4(),
            key: "render".into(),
            activity: "RenderFrames".into(),
            input: serde_json::Value::Null,
            attempt_no: 1,
            lease_token: Uuid::new_v4(),
            lease_seconds: 15.0,
            start_to_close_seconds: 60.0,
            traceparent: None,
        };
        Entry::new(task)
    }

    #[test]
    fn an_entry_is_found_by_the_next_process_until_it_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let mut kept = entry(1);
        {
            let journal = Journal::open(folder.path().join("journal")).unwrap();
            journal.write(&kept).unwrap();
            kept.renderer = Some(ProcessId { pid: 7, started: Some("boot/1".into()) });
            kept.heard = Heard::Spoiled(Failure::transient("render.missing_font", "a font is missing"));
            journal.write(&kept).unwrap();
        }
        let journal = Journal::open(folder.path().join("journal")).unwrap();
        assert_eq!(journal.entries(), [kept.clone()]);
        journal.forget(kept.task.lease_token);
        assert_eq!(journal.entries(), []);
    }

    #[test]
    fn a_half_written_file_is_no_entry() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().to_owned()).unwrap();
        fs::write(folder.path().join("x.json"), b"{\"task\":").unwrap();
        assert_eq!(journal.entries(), []);
        assert!(!folder.path().join("x.json").exists());
    }

    #[test]
    fn a_torn_write_costs_no_entry_wherever_it_tears() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().to_owned()).unwrap();
        let (kept, torn) = (entry(1), entry(2));
        journal.write(&kept).unwrap();
        let bytes = serde_json::to_vec(&torn).unwrap();
        for length in 0..bytes.len() {
            // Died while it wrote the new file beside the old, as `write_whole` does; and a disk that kept less than it said.
            let beside = journal.path(kept.task.lease_token).with_extension("0123.new");
            fs::write(&beside, &bytes[..length]).unwrap();
            fs::write(journal.path(torn.task.lease_token), &bytes[..length]).unwrap();
            assert_eq!(journal.entries(), std::slice::from_ref(&kept), "{length} of {}", bytes.len());
            assert!(!beside.exists() && !journal.path(torn.task.lease_token).exists());
        }
        fs::write(journal.path(torn.task.lease_token), &bytes).unwrap();
        assert_eq!(journal.entries().len(), 2);
    }

    #[test]
    fn an_entry_that_cannot_be_read_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().to_owned()).unwrap();
        let (kept, unread) = (entry(1), entry(2));
        journal.write(&kept).unwrap();
        // No system reads a folder as a file.
        fs::create_dir(journal.path(unread.task.lease_token)).unwrap();
        assert_eq!(journal.entries(), std::slice::from_ref(&kept));
        let tokens = [kept, unread].map(|entry| entry.task.lease_token.to_string());
        assert_eq!(journal.tokens(), HashSet::from(tokens));
    }

    #[test]
    fn an_attempt_is_taken_up_once_where_its_entry_was_being_written_anew() {
        let folder = tempfile::tempdir().unwrap();
        let journal = Journal::open(folder.path().to_owned()).unwrap();
        let kept = entry(1);
        journal.write(&kept).unwrap();
        let path = journal.path(kept.task.lease_token);
        fs::copy(&path, path.with_extension("0123.new")).unwrap();
        assert_eq!(journal.entries(), [kept]);
    }

    #[test]
    fn of_a_renderer_that_an_older_agent_has_started_not_all_was_heard() {
        let mut written = serde_json::to_value(entry(1)).unwrap();
        written.as_object_mut().unwrap().remove("heard");
        let claimed: Entry = serde_json::from_value(written.clone()).unwrap();
        assert!(!claimed.is_unheard(), "it had started none");
        written["renderer"] = serde_json::json!({ "pid": 7, "started": null });
        assert!(serde_json::from_value::<Entry>(written).unwrap().is_unheard());
    }

    #[cfg(unix)]
    #[test]
    fn only_the_owner_reads_it() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("credential.json");
        write_whole(&path, b"{}").unwrap();
        assert_eq!(fs::metadata(path).unwrap().permissions().mode() & 0o777, 0o600);
    }
}
