//! What the server remembers of tasks, leases and blobs, and how the test looks at it and interferes.

use crate::world;
use flatrender_engine::{Failure, LeasedTask, Progress, TraceContext};
use flatrender_workflows::contracts::{
    node::{Health, Hello, Orders, ProbeReport},
    render::{RenderFrames, RenderedFrames},
    storage::BlobHash,
};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard},
    time::{Duration, Instant},
};
use uuid::Uuid;

pub const TOKEN: &str = "one-time-token";
pub const CREDENTIAL: &str = "secret-credential";
pub const NEXT_CREDENTIAL: &str = "another-credential";

/// What became of a task.
#[derive(Debug, Clone, PartialEq)]
pub enum State {
    Ready,
    Leased,
    Done(Box<RenderedFrames>),
    Failed(Failure),
}

/// The one task there is, and everything that was said of it.
pub struct Ledger {
    pub task: LeasedTask,
    pub state: State,
    pub lease_ends: Instant,
    pub cancelled: bool,
    pub released: u32,
    pub claims: u32,
    pub enrolments: u32,
    pub progress: Progress,
    pub renewals: u32,
    /// Calls that carried a stale token.
    pub refused: Vec<String>,
    pub inputs: HashMap<BlobHash, Vec<u8>>,
    pub frames: HashMap<BlobHash, Vec<u8>>,
    /// Frames that were sent, each time they were.
    pub puts: u32,
    /// Numbers of frames that earlier attempts have stored.
    pub kept: Vec<u32>,
    /// Numbers of frames that the node said it has stored.
    pub noted: BTreeSet<u32>,
    /// The traces that calls about the task said they belong to.
    pub traces: Vec<TraceContext>,
    /// Answers 503 to everything.
    pub down: bool,
    /// Something before it answers everything with this status, and in no words of the server's.
    pub wall: Option<u16>,
    /// How often it did.
    pub walled: u32,
    pub token: Option<String>,
    /// Wants a probe before it gives work.
    pub quarantined: bool,
    pub probes: Vec<ProbeReport>,
    pub hellos: Vec<Hello>,
    pub healths: Vec<Health>,
    /// What is wanted of the node.
    pub orders: Orders,
    pub rotations: u32,
}

/// Shared with the server.
#[derive(Clone)]
pub struct Books(Arc<Mutex<Ledger>>);

impl Books {
    /// A ready task for `wish`, whose leases last so long.
    pub fn new(package: &[u8], wish: &RenderFrames, lease: Duration) -> Self {
        let task = LeasedTask { lease_seconds: lease.as_secs_f64(), attempt_no: 0, ..world::task(wish) };
        Self(Arc::new(Mutex::new(Ledger {
            task,
            state: State::Ready,
            lease_ends: Instant::now(),
            cancelled: false,
            released: 0,
            claims: 0,
            enrolments: 0,
            progress: Progress::default(),
            renewals: 0,
            refused: Vec::new(),
            inputs: HashMap::from([(BlobHash::of(package), package.to_vec())]),
            frames: HashMap::new(),
            puts: 0,
            kept: Vec::new(),
            noted: BTreeSet::new(),
            traces: Vec::new(),
            down: false,
            wall: None,
            walled: 0,
            token: Some(TOKEN.to_owned()),
            quarantined: false,
            probes: Vec::new(),
            hellos: Vec::new(),
            healths: Vec::new(),
            orders: Orders::default(),
            rotations: 0,
        })))
    }

    pub fn open(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap()
    }

    pub fn state(&self) -> State {
        self.open().state.clone()
    }

    /// The frames of the finished task.
    pub fn done(&self) -> RenderedFrames {
        match self.state() {
            State::Done(rendered) => *rendered,
            other => panic!("the task is not done: {other:?}"),
        }
    }

    pub fn is_over(&self) -> bool {
        !matches!(self.state(), State::Ready | State::Leased)
    }

    pub fn stored(&self) -> usize {
        self.open().frames.len()
    }
}

impl Ledger {
    /// Gives the task to whoever asks, if it is free.
    pub fn claim(&mut self) -> Option<LeasedTask> {
        if self.state != State::Ready {
            return None;
        }
        self.claims += 1;
        self.lease();
        Some(self.task.clone())
    }

    /// Gives the task to somebody else: the earlier token is stale from now on.
    pub fn lease(&mut self) {
        self.state = State::Leased;
        self.task.attempt_no += 1;
        self.task.lease_token = Uuid::new_v4();
        self.lease_ends = Instant::now() + Duration::from_secs_f64(self.task.lease_seconds);
    }

    /// Whether the token is that of the running attempt and the lease has not run out.
    pub fn holds_in_time(&mut self, what: &str, token: Uuid) -> bool {
        self.holds(what, token) && Instant::now() < self.lease_ends
    }

    /// Whether the token is that of the running attempt; a lease that ran out but was not given away can be renewed.
    pub fn holds(&mut self, what: &str, token: Uuid) -> bool {
        let holds = self.state == State::Leased && self.task.lease_token == token;
        if !holds {
            self.refused.push(what.to_owned());
        }
        holds
    }
}
