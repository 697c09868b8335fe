//! What handlers and clients write down outside of the database, so that it does not share the engine's fate: a file per
//! process, one line an entry, appended before anything else happens. It survives the process, as the server's files do, and
//! not the machine.

use flatrender_engine::Attempt;
use serde::{Deserialize, Serialize};
use std::{
    fs::File,
    io::Write as _,
    path::{Path, PathBuf},
    sync::Mutex,
    time::SystemTime,
};
use uuid::Uuid;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Entry {
    /// By the clock of the machine, in microseconds.
    pub at: u64,
    pub pid: u32,
    pub worker: String,
    pub what: What,
    pub run_id: Uuid,
    /// The task of the activity, or the job.
    pub task_id: i64,
    pub key: String,
    pub attempt_no: i32,
    pub token: Uuid,
    pub value: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum What {
    /// An attempt begins.
    Begun,
    /// An attempt is about to give its result back.
    Done,
    /// An attempt was told to stop: 1 cancelled, 2 lost.
    Told,
    /// An external process was started; the value is its pid.
    Spawned,
}

/// The file of one process.
pub struct Ledger {
    file: Mutex<File>,
    folder: PathBuf,
    worker: String,
}

impl Ledger {
    pub fn open(folder: &Path, worker: &str) -> Self {
        let path = folder.join(format!("{}.jsonl", Uuid::now_v7()));
        let file = File::options().create(true).append(true).open(path).unwrap();
        Self { file: Mutex::new(file), folder: folder.to_owned(), worker: worker.to_owned() }
    }

    /// Where the files of all processes lie.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    pub fn note(&self, what: What, cx: &Attempt, value: i64) {
        let task = cx.task();
        let entry = Entry {
            at: now(),
            pid: std::process::id(),
            worker: self.worker.clone(),
            what,
            run_id: task.run_id,
            task_id: task.task_id,
            key: task.key.clone(),
            attempt_no: task.attempt_no,
            token: task.lease_token,
            value,
        };
        let mut line = serde_json::to_vec(&entry).unwrap();
        line.push(b'\n');
        let mut file = self.file.lock().unwrap();
        file.write_all(&line).unwrap();
    }
}

pub fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_micros() as u64
}

/// Everything that was written down, oldest first. The last line of a process that was killed may be a torso.
pub fn read(folder: &Path) -> Vec<Entry> {
    let files = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let files: Vec<PathBuf> = files.filter(|path| path.extension().is_some_and(|ext| ext == "jsonl")).collect();
    let mut entries = Vec::new();
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        entries.extend(text.lines().filter_map(|line| serde_json::from_str::<Entry>(line).ok()));
    }
    entries.sort_by_key(|entry| entry.at);
    entries
}
