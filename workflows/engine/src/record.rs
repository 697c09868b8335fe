//! What a run has done, as its future sees it: records handed out one at a time, in the order of their commits.
//!
//! The order is what makes a replay take the same way as the first time: a record is handed out only when the
//! definition can do nothing more without one. Nothing here touches the database.

use crate::{
    activity::{Activity, Labels, Policy},
    failure::Failure,
    workflow::Context,
};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque, hash_map::Entry},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Wake, Waker},
};
use uuid::Uuid;

/// Longest step key, in bytes.
const KEY_LIMIT: usize = 200;
/// Longest input or output, in bytes, as PostgreSQL writes it.
pub(crate) const PAYLOAD_LIMIT: usize = 256 * 1024;

/// 9999-12-31T23:59:59Z: later times have no common notation (ISO 8601, 4.2.1).
const LAST_MOMENT: DateTime<Utc> = match DateTime::from_timestamp(253_402_300_799, 0) {
    Some(moment) => moment,
    None => DateTime::<Utc>::MAX_UTC,
};

/// What was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Step,
    Activity,
    Timer,
    Cancel,
    Signal,
    Child,
    Start,
    Patch,
    Compensation,
}

impl Kind {
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "step" => Self::Step,
            "activity" => Self::Activity,
            "timer" => Self::Timer,
            "signal" => Self::Signal,
            "child" => Self::Child,
            "start" => Self::Start,
            "patch" => Self::Patch,
            "compensation" => Self::Compensation,
            _ => Self::Cancel,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Activity => "activity",
            Self::Timer => "timer",
            Self::Cancel => "cancel",
            Self::Signal => "signal",
            Self::Child => "child",
            Self::Start => "start",
            Self::Patch => "patch",
            Self::Compensation => "compensation",
        }
    }

    /// Whether only the definition brings it about; the rest comes from outside, at any time.
    fn is_own(self) -> bool {
        !matches!(self, Self::Cancel | Self::Signal)
    }
}

/// One entry of the record of a run.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub seq: i64,
    pub key: String,
    pub kind: Kind,
    pub name: Option<String>,
    pub outcome: Result<Value, Failure>,
    pub recorded_at: DateTime<Utc>,
}

/// Work of a run that was asked for and is not recorded yet.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    pub key: String,
    pub kind: Kind,
    pub name: Option<String>,
}

/// Something that a definition has asked for, in the order of asking.
#[derive(Debug)]
pub(crate) enum Ask {
    Activity(Request),
    Run(RunRequest),
    /// Nobody waits for this activity or child any more.
    Withdraw(String),
    /// That the definition came by.
    Mark {
        key: String,
        kind: Kind,
        name: Option<&'static str>,
        output: Value,
    },
}

/// An activity that a definition has asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub key: String,
    pub queue: &'static str,
    pub activity: &'static str,
    pub input: Value,
    pub labels: Labels,
    pub policy: Policy,
    /// Done also when the run is cancelled.
    pub shielded: bool,
}

impl Request {
    pub(crate) fn new<A: Activity>(key: &str, input: &A) -> Result<Self, Failure> {
        Ok(Self {
            key: key.to_owned(),
            queue: A::QUEUE,
            activity: A::NAME,
            input: to_payload(input)?,
            labels: input.labels(),
            policy: input.policy(),
            shielded: false,
        })
    }
}

/// A run that a definition has asked for.
#[derive(Debug, Clone)]
pub(crate) struct RunRequest {
    pub key: String,
    pub id: Uuid,
    pub kind: &'static str,
    pub version: i32,
    pub priority: i16,
    pub input: Value,
    pub business_key: Option<String>,
    pub detached: bool,
}

/// What goes on in place of a run.
#[derive(Debug, Clone)]
pub(crate) struct Successor {
    pub id: Uuid,
    pub kind: &'static str,
    pub version: i32,
    pub priority: i16,
    pub input: Value,
}

/// How to take back what has succeeded.
pub(crate) struct Undo {
    pub key: String,
    pub name: Option<&'static str>,
    pub body: Box<dyn FnOnce(Context) -> BoxFuture<'static, Result<(), Failure>> + Send>,
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Undo").field("key", &self.key).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a definition cannot go on.
#[derive(Debug, Clone)]
pub(crate) enum Broken {
    /// It does not fit the record: other code may.
    Mismatch(Failure),
    /// What it asks for cannot be stored.
    Refused(Failure),
}

/// Encodes what is about to be stored.
///
/// # Errors
/// `workflow.unrecordable` when it cannot be JSON, holds a NUL character or is larger than 256 KiB.
pub(crate) fn to_payload(value: &impl serde::Serialize) -> Result<Value, Failure> {
    let unrecordable = |why: String| Failure::permanent("workflow.unrecordable", why);
    let json = serde_json::to_value(value).map_err(|e| unrecordable(format!("not JSON: {e}")))?;
    let text = json.to_string();
    // jsonb prints a blank after each comma and colon.
    let size = text.len() + text.bytes().filter(|b| matches!(b, b',' | b':')).count();
    if size > PAYLOAD_LIMIT {
        return Err(unrecordable(format!("{size} bytes; the limit is {PAYLOAD_LIMIT}: store it and pass a reference")));
    }
    if holds_nul(&json) {
        return Err(unrecordable("PostgreSQL cannot store the character NUL".to_owned()));
    }
    Ok(json)
}

fn holds_nul(json: &Value) -> bool {
    match json {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

/// The record of a run while it is in memory, and what its definition waits for.
#[derive(Debug)]
pub(crate) struct Ledger {
    state: Mutex<State>,
    bell: Arc<Bell>,
}

#[derive(Debug, Default)]
struct State {
    /// Recorded, not handed out yet.
    arrived: BTreeMap<i64, Record>,
    /// Number of the newest record up to which nothing is missing.
    seen: i64,
    /// Keys of all records, handed out or not.
    recorded: HashSet<String>,
    /// Handed out, not taken by the definition yet.
    open: HashMap<String, Record>,
    /// Number of the newest record handed out.
    last: i64,
    /// Number of the newest record, among those known at the start of this stay, that the definition itself brought about.
    last_own: i64,
    /// Asked for before this stay, and not recorded when it began.
    in_flight: HashMap<String, InFlight>,
    /// The definition is where it was when the run was last in memory.
    caught_up: bool,
    catching_up: Vec<Waker>,
    now: DateTime<Utc>,
    cancelled: bool,
    /// Keys that the definition has used, and for what.
    keys: HashMap<String, (Kind, Option<&'static str>)>,
    waiting: HashMap<String, Waker>,
    asks: Vec<Ask>,
    timers: HashMap<String, DateTime<Utc>>,
    timers_by_due: BTreeSet<(DateTime<Utc>, String)>,
    /// Signals that were handed out and not taken yet, by name.
    signals: HashMap<String, VecDeque<Record>>,
    /// Who waits for signals, by name: the first to ask is the first to get.
    listeners: HashMap<String, VecDeque<(u64, Waker)>>,
    next_listener: u64,
    /// Which branch the definition takes at each patch; none while that is being recorded.
    patches: HashMap<String, Option<bool>>,
    patch_waiting: Vec<Waker>,
    undo: Vec<Undo>,
    compensates: bool,
    successor: Option<Successor>,
    steps_running: usize,
    broken: Option<Broken>,
    lost: bool,
}

impl State {
    /// Whether `record` is what a definition that used these keys could have brought about.
    fn check(&self, record: &Record) -> Result<(), Failure> {
        if record.kind.is_own() && record.kind != Kind::Patch {
            return self.check_asked(&record.key, record.kind, record.name.as_deref());
        }
        Ok(())
    }

    fn check_asked(&self, key: &str, kind: Kind, name: Option<&str>) -> Result<(), Failure> {
        let show = |kind: Kind, name: Option<&str>| {
            format!("{} {}", kind.name(), name.unwrap_or_default()).trim_end().to_owned()
        };
        let message = match self.keys.get(key) {
            Some((asked, called)) if *asked == kind && *called == name => return Ok(()),
            Some((asked, called)) => {
                format!(
                    "{key:?} is the {} in the record; the definition now asks for the {}",
                    show(kind, name),
                    show(*asked, *called)
                )
            }
            None => format!(
                "the record goes on with the {} {key:?}; the definition does not ask for it here",
                show(kind, name)
            ),
        };
        Err(Failure::permanent("workflow.nondeterministic", message))
    }

    /// Why what is in flight does not fit what the definition has asked for so far.
    fn check_in_flight(&self) -> Option<Failure> {
        let unrecorded = self.in_flight.values().filter(|work| !self.recorded.contains(&work.key));
        unrecorded.map(|work| self.check_asked(&work.key, work.kind, work.name.as_deref())).find_map(Result::err)
    }

    fn call_listener(&self, name: &str) {
        if let Some((_, waker)) = self.listeners.get(name).and_then(VecDeque::front) {
            waker.wake_by_ref();
        }
    }

    fn remove_timer(&mut self, key: &str) {
        if let Some(due) = self.timers.remove(key) {
            self.timers_by_due.remove(&(due, key.to_owned()));
        }
    }
}

impl Ledger {
    pub(crate) fn new(started_at: DateTime<Utc>) -> Arc<Self> {
        let state = State { now: started_at, ..State::default() };
        Arc::new(Self { state: Mutex::new(state), bell: Arc::new(Bell::default()) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- towards the context

    /// Reserves a key for the one call that may use it.
    pub(crate) fn take_key(&self, key: &str, kind: Kind, name: Option<&'static str>) -> Result<(), Failure> {
        if key.is_empty() || key.len() > KEY_LIMIT || key.starts_with('$') {
            return Err(Failure::permanent(
                "workflow.bad_key",
                format!("{key:?} is not a key: 1 to {KEY_LIMIT} bytes, no leading $"),
            ));
        }
        self.reserve(key, kind, name)
    }

    /// Reserves a key that may be one of the engine's own.
    pub(crate) fn reserve(&self, key: &str, kind: Kind, name: Option<&'static str>) -> Result<(), Failure> {
        match self.state().keys.entry(key.to_owned()) {
            Entry::Vacant(free) => {
                free.insert((kind, name));
                Ok(())
            }
            Entry::Occupied(_) => {
                Err(Failure::permanent("workflow.key_reused", format!("the key {key:?} was used before in this run")))
            }
        }
    }

    /// Whether the outcome of `key` is recorded already.
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.state().recorded.contains(key)
    }

    /// Asks for what was not asked for before.
    pub(crate) fn ask(&self, ask: Ask) {
        let mut state = self.state();
        let key = match &ask {
            Ask::Activity(request) => &request.key,
            Ask::Run(request) => &request.key,
            Ask::Mark { key, .. } | Ask::Withdraw(key) => key,
        };
        if !state.recorded.contains(key) && !state.in_flight.contains_key(key) {
            state.asks.push(ask);
        }
    }

    /// Nobody waits for `key` any more.
    fn withdraw(&self, key: &str) {
        let mut state = self.state();
        state.waiting.remove(key);
        state.remove_timer(key);
        let (kind, _) = match state.keys.get(key) {
            Some(kind) => *kind,
            None => return,
        };
        if !matches!(kind, Kind::Activity | Kind::Child) || state.recorded.contains(key) {
            return;
        }
        let before = state.asks.len();
        state.asks.retain(|ask| match ask {
            Ask::Activity(request) => request.key != key,
            Ask::Run(request) => request.key != key,
            _ => true,
        });
        // What was only just asked for is not asked for after all.
        if state.asks.len() == before {
            state.asks.push(Ask::Withdraw(key.to_owned()));
        }
    }

    /// A timer beyond the last year that every part can write stands for one that never ends.
    pub(crate) fn set_timer(&self, key: &str, due: DateTime<Utc>) {
        let (mut state, due) = (self.state(), due.min(LAST_MOMENT));
        if !state.recorded.contains(key) {
            state.timers.insert(key.to_owned(), due);
            state.timers_by_due.insert((due, key.to_owned()));
        }
    }

    /// Waits for the record of `key` and takes it. Dropped before, an activity or a child is withdrawn.
    pub(crate) async fn recorded(&self, key: &str) -> Result<Value, Failure> {
        let mut wait = Wait { ledger: self, key, over: false };
        let record = poll_fn(|cx| {
            let mut state = self.state();
            match state.open.remove(key) {
                Some(record) => Poll::Ready(record),
                None => {
                    match state.waiting.get_mut(key) {
                        Some(waker) => waker.clone_from(cx.waker()),
                        None => drop(state.waiting.insert(key.to_owned(), cx.waker().clone())),
                    }
                    Poll::Pending
                }
            }
        })
        .await;
        wait.over = true;
        record.outcome
    }

    /// Waits until all that is known has been handed out and fits, so that nothing is done by a definition that does not.
    pub(crate) async fn caught_up(&self) {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.caught_up {
                return Poll::Ready(());
            }
            state.catching_up.push(cx.waker().clone());
            Poll::Pending
        })
        .await;
    }

    /// Waits for the next signal called `name` and takes it; none when the run is cancelled and no signal is there.
    pub(crate) async fn signal(&self, name: &str) -> Option<Value> {
        let id = {
            let mut state = self.state();
            state.next_listener += 1;
            state.next_listener
        };
        let _listener = Listener { ledger: self, name, id };
        poll_fn(|cx| {
            let mut state = self.state();
            let State { signals, listeners, cancelled, .. } = &mut *state;
            let queue = listeners.entry(name.to_owned()).or_default();
            let place = match queue.iter_mut().position(|(other, _)| *other == id) {
                Some(place) => place,
                None => {
                    queue.push_back((id, cx.waker().clone()));
                    queue.len() - 1
                }
            };
            if place == 0
                && let Some(record) = signals.get_mut(name).and_then(VecDeque::pop_front)
            {
                return Poll::Ready(record.outcome.ok());
            }
            if *cancelled {
                return Poll::Ready(None);
            }
            queue[place].1.clone_from(cx.waker());
            Poll::Pending
        })
        .await
    }

    /// Which branch to take at the patch `id`: the new one unless the run has come further without it.
    pub(crate) async fn patched(&self, id: &str) -> bool {
        self.choose(id);
        poll_fn(|cx| {
            let mut state = self.state();
            match state.patches.get(id) {
                Some(Some(branch)) => Poll::Ready(*branch),
                _ => {
                    state.patch_waiting.push(cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await
    }

    fn choose(&self, id: &str) {
        let key = format!("$patch:{id}");
        let mut state = self.state();
        if state.patches.contains_key(id) {
            return;
        }
        let beyond = |key| !state.keys.contains_key(key) && !state.recorded.contains(key);
        let further = state.last < state.last_own || state.in_flight.keys().any(beyond);
        let known = state.recorded.contains(&key);
        state.patches.insert(id.to_owned(), (further && !known).then_some(false));
        if !further && !known {
            state.asks.push(Ask::Mark { key, kind: Kind::Patch, name: None, output: Value::Null });
        }
    }

    /// Remembers how to take something back; the newest first.
    pub(crate) fn register(&self, undo: Undo) {
        let mut state = self.state();
        state.undo.push(undo);
        state.compensates = true;
    }

    /// The newest of what is to be taken back.
    pub(crate) fn next_undo(&self) -> Option<Undo> {
        self.state().undo.pop()
    }

    /// Whether the run has ever had anything to take back.
    pub(crate) fn compensates(&self) -> bool {
        self.state().compensates
    }

    pub(crate) fn set_successor(&self, successor: Successor) {
        self.state().successor = Some(successor);
    }

    pub(crate) fn has_successor(&self) -> bool {
        self.state().successor.is_some()
    }

    pub(crate) fn take_successor(&self) -> Option<Successor> {
        self.state().successor.take()
    }

    /// Keys of signals that were handed out and that nobody has taken.
    pub(crate) fn untaken_signals(&self) -> Vec<String> {
        self.state().signals.values().flatten().map(|record| record.key.clone()).collect()
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.state().now
    }

    pub(crate) fn cancelled(&self) -> bool {
        self.state().cancelled
    }

    // ---- towards the executor

    /// What is known at the start of a stay: all records so far, and what was asked for and is not recorded.
    pub(crate) fn begin(&self, records: Vec<Record>, in_flight: Vec<InFlight>) {
        {
            let mut state = self.state();
            state.last_own = records.iter().filter(|r| r.kind.is_own()).map(|r| r.seq).max().unwrap_or_default();
            state.in_flight = in_flight.into_iter().map(|work| (work.key.clone(), work)).collect();
        }
        records.into_iter().for_each(|record| self.add(record));
    }

    /// Takes in a record, in any order and any number of times.
    pub(crate) fn add(&self, record: Record) {
        let mut state = self.state();
        if record.seq > state.last {
            if !state.recorded.contains(&record.key) {
                state.recorded.insert(record.key.clone());
            }
            state.arrived.insert(record.seq, record);
            while state.arrived.contains_key(&(state.seen + 1)) {
                state.seen += 1;
            }
            drop(state);
            self.bell.ring();
        }
    }

    /// Hands out the next record, if it is here and fits. Call it when the definition can do nothing more without one.
    pub(crate) fn hand_out(&self) -> bool {
        let mut state = self.state();
        let next = state.last + 1;
        let Some(record) = state.arrived.remove(&next) else { return false };
        if let Err(failure) = state.check(&record) {
            state.broken.get_or_insert(Broken::Mismatch(failure));
            return false;
        }
        state.last = next;
        state.now = state.now.max(record.recorded_at);
        match record.kind {
            Kind::Cancel => {
                state.cancelled = true;
                state.listeners.values().flatten().for_each(|(_, waker)| waker.wake_by_ref());
            }
            Kind::Signal => {
                let name = record.name.clone().unwrap_or_default();
                state.signals.entry(name.clone()).or_default().push_back(record);
                state.call_listener(&name);
            }
            Kind::Patch => {
                let id = record.key.trim_start_matches("$patch:").to_owned();
                state.patches.insert(id, Some(true));
                state.patch_waiting.drain(..).for_each(Waker::wake);
            }
            _ => {
                state.remove_timer(&record.key);
                if let Some(waker) = state.waiting.remove(&record.key) {
                    waker.wake();
                }
                state.open.insert(record.key.clone(), record);
            }
        }
        true
    }

    /// Notes that the definition can do nothing more although it was given all that was known when this stay began. True
    /// when somebody has waited for that.
    pub(crate) fn catch_up(&self) -> bool {
        let mut state = self.state();
        if state.caught_up || state.broken.is_some() || state.last < state.last_own {
            return false;
        }
        if let Some(failure) = state.check_in_flight() {
            state.broken = Some(Broken::Mismatch(failure));
            return false;
        }
        state.caught_up = true;
        let waited = !state.catching_up.is_empty();
        state.catching_up.drain(..).for_each(Waker::wake);
        waited
    }

    /// The definition is over. What it did not ask for until then does not fit.
    pub(crate) fn check_end(&self) {
        let mut state = self.state();
        let stranger = state.arrived.values().find_map(|record| state.check(record).err());
        let unasked = if state.caught_up { None } else { state.check_in_flight() };
        if let Some(failure) = stranger.or(unasked) {
            state.broken.get_or_insert(Broken::Mismatch(failure));
        }
    }

    /// Whether a record is missing before one that is here.
    pub(crate) fn has_gap(&self) -> bool {
        let state = self.state();
        state.arrived.keys().next().is_some_and(|first| *first > state.last + 1)
    }

    /// Number of the newest record handed out.
    pub(crate) fn handed_out(&self) -> i64 {
        self.state().last
    }

    /// Number of the newest record up to which nothing is missing.
    pub(crate) fn seen(&self) -> i64 {
        self.state().seen
    }

    pub(crate) fn take_asks(&self) -> Vec<Ask> {
        std::mem::take(&mut self.state().asks)
    }

    /// Timers to record at `now`, and whether they were reached or cut short by a cancellation. They stay until their
    /// records are handed out.
    pub(crate) fn ended_timers(&self, now: DateTime<Utc>) -> Vec<(String, bool)> {
        let state = self.state();
        let ended = state.timers_by_due.iter().take_while(|(due, _)| state.cancelled || *due <= now);
        ended.map(|(due, key)| (key.clone(), *due <= now)).collect()
    }

    pub(crate) fn next_timer(&self) -> Option<DateTime<Utc>> {
        self.state().timers_by_due.first().map(|(due, _)| *due)
    }

    /// Whether the definition waits for anything but timers and signals.
    pub(crate) fn waits_for_others(&self) -> bool {
        let state = self.state();
        state.steps_running > 0 || state.waiting.keys().any(|key| !state.timers.contains_key(key))
    }

    /// Whether the definition waits for a signal.
    pub(crate) fn waits_for_signals(&self) -> bool {
        self.state().listeners.values().any(|queue| !queue.is_empty())
    }

    pub(crate) fn step_runs(self: &Arc<Self>) -> StepRuns {
        self.state().steps_running += 1;
        StepRuns(self.clone())
    }

    pub(crate) fn steps_running(&self) -> usize {
        self.state().steps_running
    }

    /// The definition cannot go on.
    pub(crate) fn break_off(&self, broken: Broken) {
        self.state().broken.get_or_insert(broken);
        self.bell.ring();
    }

    pub(crate) fn broken(&self) -> Option<Broken> {
        self.state().broken.clone()
    }

    /// Ends this stay in memory: somebody else owns the run.
    pub(crate) fn lose(&self) {
        self.state().lost = true;
        self.bell.ring();
    }

    pub(crate) fn lost(&self) -> bool {
        self.state().lost
    }

    pub(crate) fn bell(&self) -> &Arc<Bell> {
        &self.bell
    }
}

/// Somebody waits for the record of a key.
struct Wait<'a> {
    ledger: &'a Ledger,
    key: &'a str,
    over: bool,
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        if !self.over {
            self.ledger.withdraw(self.key);
        }
    }
}

/// Somebody waits for a signal. Whoever comes next is told that it is their turn.
struct Listener<'a> {
    ledger: &'a Ledger,
    name: &'a str,
    id: u64,
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        let mut state = self.ledger.state();
        if let Some(queue) = state.listeners.get_mut(self.name) {
            queue.retain(|(id, _)| *id != self.id);
        }
        if state.signals.get(self.name).is_some_and(|queue| !queue.is_empty()) {
            state.call_listener(self.name);
        }
    }
}

/// While it lives, a step of the run has a transaction open.
pub(crate) struct StepRuns(Arc<Ledger>);

impl Drop for StepRuns {
    fn drop(&mut self) {
        self.0.state().steps_running -= 1;
        self.0.bell.ring();
    }
}

/// Wakes the executor of a run; stays rung until it is heard.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    listener: futures::task::AtomicWaker,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.listener.wake();
    }

    /// Whether it was rung since it was last heard.
    pub(crate) fn hear(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Waits until it rings.
    pub(crate) async fn rings(&self) {
        poll_fn(|cx| {
            self.listener.register(cx.waker());
            if self.hear() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;

    fn record(seq: i64, key: &str) -> Record {
        let at = DateTime::<Utc>::UNIX_EPOCH + chrono::Duration::seconds(seq);
        Record { seq, key: key.into(), kind: Kind::Step, name: None, outcome: Ok(seq.into()), recorded_at: at }
    }

    #[test]
    fn records_are_handed_out_in_order_and_once() {
        let ledger = Ledger::new(DateTime::<Utc>::UNIX_EPOCH);
        ledger.take_key("a", Kind::Step, None).unwrap();
        ledger.take_key("b", Kind::Step, None).unwrap();
        ledger.add(record(2, "b"));
        assert!(ledger.has_gap() && !ledger.hand_out());
        ledger.add(record(1, "a"));
        ledger.add(record(1, "a"));
        assert!(!ledger.has_gap());
        assert_eq!(ledger.seen(), 2);
        assert!(ledger.recorded("a").now_or_never().is_none());
        assert!(ledger.hand_out());
        assert_eq!(ledger.recorded("a").now_or_never(), Some(Ok(1.into())));
        assert_eq!(ledger.now().timestamp(), 1);
        assert!(ledger.hand_out() && !ledger.hand_out());
        assert_eq!(ledger.now().timestamp(), 2);
    }

    fn mismatch(ledger: &Ledger) -> Option<String> {
        match ledger.broken() {
            Some(Broken::Mismatch(failure)) => Some(failure.code),
            _ => None,
        }
    }

    #[test]
    fn a_record_of_another_kind_breaks_the_run_off() {
        let ledger = Ledger::new(DateTime::<Utc>::UNIX_EPOCH);
        ledger.take_key("a", Kind::Activity, Some("Mail")).unwrap();
        ledger.add(record(1, "a"));
        assert!(!ledger.hand_out());
        assert!(ledger.recorded("a").now_or_never().is_none());
        assert_eq!(mismatch(&ledger).as_deref(), Some("workflow.nondeterministic"));
    }

    #[test]
    fn a_record_that_was_not_asked_for_breaks_the_run_off() {
        let ledger = Ledger::new(DateTime::<Utc>::UNIX_EPOCH);
        ledger.take_key("b", Kind::Step, None).unwrap();
        ledger.add(record(1, "a"));
        assert!(!ledger.hand_out());
        assert!(mismatch(&ledger).is_some());
    }

    #[test]
    fn work_in_flight_that_is_not_asked_for_again_breaks_the_run_off() {
        let ledger = Ledger::new(DateTime::<Utc>::UNIX_EPOCH);
        let work = InFlight { key: "a".into(), kind: Kind::Activity, name: Some("Mail".into()) };
        ledger.begin(Vec::new(), vec![work]);
        assert!(ledger.caught_up().now_or_never().is_none());
        assert!(!ledger.catch_up());
        assert!(mismatch(&ledger).is_some());
    }

    #[test]
    fn signals_go_to_those_who_wait_in_order() {
        let ledger = Ledger::new(DateTime::<Utc>::UNIX_EPOCH);
        let signal =
            |seq| Record { kind: Kind::Signal, name: Some("go".into()), ..record(seq, &format!("$signal:{seq}")) };
        let (mut first, mut second) = (Box::pin(ledger.signal("go")), Box::pin(ledger.signal("go")));
        assert!(first.as_mut().now_or_never().is_none() && second.as_mut().now_or_never().is_none());
        (1..=3).for_each(|seq| ledger.add(signal(seq)));
        while ledger.hand_out() {}
        assert!(second.as_mut().now_or_never().is_none());
        assert_eq!(first.now_or_never(), Some(Some(1.into())));
        drop(second);
        assert_eq!(ledger.signal("go").now_or_never(), Some(Some(2.into())));
        assert_eq!(ledger.untaken_signals(), ["$signal:3"]);
    }

    #[test]
    fn a_key_is_used_once() {
        let ledger = Ledger::new(DateTime::<Utc>::UNIX_EPOCH);
        let take = |key| ledger.take_key(key, Kind::Step, None);
        assert!(take("a").is_ok());
        assert_eq!(take("a").unwrap_err().code, "workflow.key_reused");
        assert_eq!(take("$cancel").unwrap_err().code, "workflow.bad_key");
    }

    #[test]
    fn what_postgres_cannot_store_is_refused_at_once() {
        assert!(to_payload(&"x".repeat(PAYLOAD_LIMIT - 2)).is_ok());
        assert!(to_payload(&"x".repeat(PAYLOAD_LIMIT)).is_err());
        assert!(to_payload(&"a\0b").is_err());
    }
}
