//! Frames as they ripen: found in the output folder, proven, and handed to the sink while others are rendered.
//!
//! ```text
//! absent ─file seen─▶ checking ─proven─▶ storing ─▶ stored
//!                        │ ▲
//!                  faulty└─┘when the file has changed, or the renderer has ended
//! ```
//! A file counts once its content proves it, never because a line says so. One that does not prove itself while
//! the renderer runs is simply not finished yet.

use super::{
    FrameSink, ProvenFrame, TransferError,
    evidence::{self, Proof},
};
use flatrender_workflows::contracts::{
    render::{FaultReason, FrameFault, FrameRange, FrameRef, frame_file_name},
    storage::{BlobHash, BlobRef},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::SystemTime,
};
use tokio::task::{JoinError, JoinSet};

/// Frames stored at a time.
const STORES: usize = 4;

/// What happened to a frame.
#[derive(Debug)]
pub enum Ripened {
    /// It is proven, and on its way to the sink.
    Proven(u32),
    /// It is not proven, for now.
    Faulty(u32, FaultReason),
    /// The sink has it.
    Stored(u32),
}

/// The frames of one attempt.
pub struct Harvest<S> {
    sink: Arc<S>,
    folder: PathBuf,
    size: [u32; 2],
    frames: BTreeMap<u32, State>,
    to_check: VecDeque<u32>,
    checks: JoinSet<(u32, Seen, Result<Proof, FaultReason>)>,
    to_store: VecDeque<ProvenFrame>,
    stores: JoinSet<(u32, Result<(), TransferError>)>,
    parallel_checks: usize,
    highest: Option<u32>,
    blank: BTreeSet<u32>,
    kept: BTreeSet<u32>,
    run: Option<Run>,
}

/// What is known of the run under way.
struct Run {
    /// What it is to make.
    frames: FrameRange,
    /// Numbers that were there before it.
    before: BTreeSet<u32>,
    /// It has made others: its numbers mean something else than we think, and nothing of it is stored until that is judged.
    strays: bool,
}

/// Length and time of a file: when both are unchanged a second look would show the same.
type Seen = Option<(u64, Option<SystemTime>)>;

#[derive(Debug, Clone, PartialEq)]
enum State {
    Absent,
    Checking,
    Faulty(FaultReason, Seen),
    Proven(BlobRef),
    Stored(BlobRef),
}

impl<S: FrameSink> Harvest<S> {
    /// Watches `folder` for the given frames.
    pub fn new(sink: Arc<S>, folder: &Path, size: [u32; 2], frames: impl Iterator<Item = u32>) -> Self {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            sink,
            folder: folder.to_owned(),
            size,
            frames: frames.map(|f| (f, State::Absent)).collect(),
            to_check: VecDeque::new(),
            checks: JoinSet::new(),
            to_store: VecDeque::new(),
            stores: JoinSet::new(),
            // Rendering needs the processors more.
            parallel_checks: processors.div_ceil(2).min(4),
            highest: None,
            blank: BTreeSet::new(),
            kept: BTreeSet::new(),
            run: None,
        }
    }

    /// A run begins that is to make these frames.
    pub fn expect(&mut self, frames: FrameRange) {
        self.run = Some(Run { frames, before: self.numbers(), strays: false });
    }

    /// The run has ended: whether it made frames that it was not asked for. From here on they are those of nobody's run.
    pub fn judge(&mut self) -> bool {
        self.files();
        self.run.take().is_some_and(|run| run.strays)
    }

    /// Frames that an earlier attempt has stored: they are nobody's business here any more.
    pub fn leave_out(&mut self, kept: impl IntoIterator<Item = u32>) {
        self.kept.extend(kept);
        self.frames.retain(|frame, _| !self.kept.contains(frame));
    }

    /// Looks which files are there and checks those that seem finished: a later one exists. With `newest_too`, the
    /// last one is checked too: it has no later one. True when a file is there that was not before.
    pub fn look(&mut self, newest_too: bool) -> bool {
        let found = self.files();
        let newest = found.last().copied();
        for frame in found.into_iter().filter(|f| newest_too || Some(*f) != newest) {
            self.consider(frame);
        }
        let advanced = newest > self.highest;
        self.highest = self.highest.max(newest);
        advanced
    }

    /// Checks a frame that a line says is done.
    pub fn said(&mut self, frame: u32) {
        self.consider(frame);
    }

    /// The renderer has ended: checks every file that is not proven.
    pub fn look_at_all(&mut self) {
        for frame in self.files() {
            if let Some(state @ State::Faulty(..)) = self.frames.get_mut(&frame) {
                *state = State::Absent;
            }
            self.consider(frame);
        }
    }

    /// The next thing that happens to a frame; none when nothing is under way.
    ///
    /// # Errors
    /// The sink's, when it gives up on a frame.
    pub async fn next(&mut self) -> Result<Option<Ripened>, TransferError> {
        self.start_work();
        tokio::select! {
            Some(joined) = self.checks.join_next() => {
                let (frame, seen, proof) = done(joined).await?;
                Ok(Some(self.checked(frame, seen, proof)))
            }
            Some(joined) = self.stores.join_next() => {
                let (frame, stored) = done(joined).await?;
                stored?;
                if let Some(state) = self.frames.get_mut(&frame) && let State::Proven(blob) = state {
                    *state = State::Stored(blob.clone());
                }
                Ok(Some(Ripened::Stored(frame)))
            }
            else => Ok(None),
        }
    }

    /// Whether every frame is proven.
    pub fn is_complete(&self) -> bool {
        self.frames.values().all(|s| matches!(s, State::Proven(_) | State::Stored(_)))
    }

    /// Whether checks or stores are waiting or under way.
    pub fn is_working(&self) -> bool {
        let checking = !self.to_check.is_empty() || !self.checks.is_empty();
        checking || !self.to_store.is_empty() && !self.is_held() || !self.stores.is_empty()
    }

    /// Whether nothing may be stored before the run is judged.
    fn is_held(&self) -> bool {
        self.run.as_ref().is_some_and(|run| run.strays)
    }

    /// How many frames there are to be.
    pub fn len(&self) -> u32 {
        self.frames.len() as u32
    }

    /// Whether no frame is wanted.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// Frames that are not proven, in order.
    pub fn missing(&self) -> BTreeSet<u32> {
        let unproven = |s: &State| !matches!(s, State::Proven(_) | State::Stored(_));
        self.frames.iter().filter(|(_, s)| unproven(s)).map(|(f, _)| *f).collect()
    }

    /// How many frames are proven, and how many of them stored.
    pub fn counts(&self) -> (u32, u32) {
        let stored = self.frames.values().filter(|s| matches!(s, State::Stored(_))).count();
        (self.frames.len() as u32 - self.missing().len() as u32, stored as u32)
    }

    /// Frames that are stored, and what is wrong with the others.
    pub fn result(&self) -> (Vec<FrameRef>, Vec<FrameFault>) {
        let mut stored = Vec::new();
        let mut faults = Vec::new();
        for (&frame, state) in &self.frames {
            match state {
                State::Stored(blob) => stored.push(FrameRef { frame, blob: blob.clone() }),
                State::Faulty(reason, _) => faults.push(FrameFault { frame, reason: *reason }),
                _ => faults.push(FrameFault { frame, reason: FaultReason::Missing }),
            }
        }
        (stored, faults)
    }

    /// The frames that are proven, with their hashes, and whether each is blank.
    pub fn pictures(&self) -> BTreeMap<u32, (BlobHash, bool)> {
        let proven = self.frames.iter().filter_map(|(frame, state)| match state {
            State::Proven(blob) | State::Stored(blob) => {
                Some((*frame, (blob.sha256.clone(), self.blank.contains(frame))))
            }
            _ => None,
        });
        proven.collect()
    }

    /// Takes proven frames for absent again and removes their files: they are to be rendered once more.
    pub fn doubt(&mut self, frames: &BTreeSet<u32>) {
        for frame in frames {
            // One that stays would be found again as it is, which is what it would be without a doubt.
            let _ = fs::remove_file(self.folder.join(frame_file_name(*frame)));
            self.frames.insert(*frame, State::Absent);
        }
    }

    /// Files that are none of the frames wanted: how many have another number, and how many are something else.
    pub fn strays(&self) -> Strays {
        let mut strays = Strays::default();
        let Ok(entries) = fs::read_dir(&self.folder) else { return strays };
        for name in entries.flatten().map(|e| e.file_name().to_string_lossy().into_owned()) {
            match frame_number(&name) {
                Some(number) if self.frames.contains_key(&number) || self.kept.contains(&number) => {}
                Some(_) => strays.other_numbers += 1,
                None => strays.other_kinds += 1,
            }
        }
        strays
    }

    /// Frames that are there and wanted.
    fn files(&mut self) -> BTreeSet<u32> {
        let mut numbers = self.numbers();
        if let Some(run) = &mut self.run {
            run.strays |= numbers.iter().any(|n| !run.frames.contains(*n) && !run.before.contains(n));
        }
        numbers.retain(|n| self.frames.contains_key(n));
        numbers
    }

    fn numbers(&self) -> BTreeSet<u32> {
        let Ok(entries) = fs::read_dir(&self.folder) else { return BTreeSet::new() };
        let names = entries.flatten().filter_map(|e| e.file_name().into_string().ok());
        names.filter_map(|n| frame_number(&n)).collect()
    }

    fn consider(&mut self, frame: u32) {
        let wanted = match self.frames.get(&frame) {
            Some(State::Absent) => self.seen(frame).is_some(),
            Some(State::Faulty(_, before)) => *before != self.seen(frame),
            _ => false,
        };
        if wanted {
            self.frames.insert(frame, State::Checking);
            self.to_check.push_back(frame);
        }
    }

    fn seen(&self, frame: u32) -> Seen {
        let meta = fs::metadata(self.folder.join(frame_file_name(frame))).ok()?;
        Some((meta.len(), meta.modified().ok()))
    }

    fn start_work(&mut self) {
        while self.checks.len() < self.parallel_checks
            && let Some(frame) = self.to_check.pop_front()
        {
            let (path, size, seen) = (self.folder.join(frame_file_name(frame)), self.size, self.seen(frame));
            self.checks.spawn_blocking(move || (frame, seen, evidence::verify(&path, size)));
        }
        while self.stores.len() < STORES
            && !self.is_held()
            && let Some(proven) = self.to_store.pop_front()
        {
            let sink = self.sink.clone();
            self.stores.spawn(async move { (proven.frame, sink.store(proven).await) });
        }
    }

    fn checked(&mut self, frame: u32, seen: Seen, proof: Result<Proof, FaultReason>) -> Ripened {
        let (state, ripened) = match proof {
            Ok(Proof { blob, blank }) => {
                if blank {
                    self.blank.insert(frame);
                } else {
                    self.blank.remove(&frame);
                }
                let path = self.folder.join(frame_file_name(frame));
                self.to_store.push_back(ProvenFrame { frame, path, blob: blob.clone() });
                (State::Proven(blob), Ripened::Proven(frame))
            }
            Err(reason) => (State::Faulty(reason, seen), Ripened::Faulty(frame, reason)),
        };
        self.frames.insert(frame, state);
        ripened
    }
}

/// Files in the folder of frames that nobody asked for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Strays {
    /// Frames with numbers that are not planned.
    pub other_numbers: usize,
    /// Files that are no frames by their names.
    pub other_kinds: usize,
}

fn frame_number(name: &str) -> Option<u32> {
    name.strip_prefix("frame_")?.strip_suffix(".png")?.parse().ok()
}

/// What a task of ours gave. It is cut off only when the whole program is torn down, and then nothing follows.
async fn done<T>(joined: Result<T, JoinError>) -> Result<T, TransferError> {
    match joined {
        Ok(given) => Ok(given),
        Err(error) if error.is_cancelled() => std::future::pending().await,
        Err(error) => Err(TransferError::Other(Box::new(error))),
    }
}
