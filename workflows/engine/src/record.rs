//! What a run has done, as its future sees it: records handed out one at a time, in the order of their commits.
//!
//! The order is what makes a replay take the same way as the first time: a record is handed out only when the
//! definition can do nothing more without one. Nothing here touches the database.

use crate::{
    activity::{Activity, Labels, Policy},
    failure::Failure,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    future::poll_fn,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Wake, Waker},
};

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
}

impl Kind {
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "step" => Self::Step,
            "activity" => Self::Activity,
            "timer" => Self::Timer,
            _ => Self::Cancel,
        }
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

/// An activity that a definition has asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub key: String,
    pub queue: &'static str,
    pub activity: &'static str,
    pub input: Value,
    pub labels: Labels,
    pub policy: Policy,
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
        })
    }
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

#[derive(Debug)]
struct State {
    /// Recorded, not handed out yet.
    arrived: BTreeMap<i64, Record>,
    /// Keys of all records, handed out or not.
    recorded: HashSet<String>,
    /// Handed out, not taken by the definition yet.
    open: HashMap<String, Record>,
    /// Number of the newest record handed out.
    last: i64,
    now: DateTime<Utc>,
    cancelled: bool,
    keys: HashSet<String>,
    waiting: HashMap<String, Waker>,
    requests: Vec<Request>,
    timers: HashMap<String, DateTime<Utc>>,
    steps_running: usize,
    broken: Option<Failure>,
    lost: bool,
}

impl Ledger {
    pub(crate) fn new(started_at: DateTime<Utc>) -> Arc<Self> {
        let state = State {
            arrived: BTreeMap::new(),
            recorded: HashSet::new(),
            open: HashMap::new(),
            last: 0,
            now: started_at,
            cancelled: false,
            keys: HashSet::new(),
            waiting: HashMap::new(),
            requests: Vec::new(),
            timers: HashMap::new(),
            steps_running: 0,
            broken: None,
            lost: false,
        };
        Arc::new(Self { state: Mutex::new(state), bell: Arc::new(Bell::default()) })
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    // ---- towards the context

    /// Reserves a key for the one call that may use it.
    pub(crate) fn take_key(&self, key: &str) -> Result<(), Failure> {
        if key.is_empty() || key.len() > KEY_LIMIT || key.starts_with('$') {
            return Err(Failure::permanent(
                "workflow.bad_key",
                format!("{key:?} is not a key: 1 to {KEY_LIMIT} bytes, no leading $"),
            ));
        }
        if self.state().keys.insert(key.to_owned()) {
            return Ok(());
        }
        Err(Failure::permanent("workflow.key_reused", format!("the key {key:?} was used before in this run")))
    }

    /// Whether the outcome of `key` is recorded already.
    pub(crate) fn knows(&self, key: &str) -> bool {
        self.state().recorded.contains(key)
    }

    pub(crate) fn ask(&self, request: Request) {
        self.state().requests.push(request);
    }

    /// A timer beyond the last year that every part can write stands for one that never ends.
    pub(crate) fn set_timer(&self, key: &str, due: DateTime<Utc>) {
        self.state().timers.insert(key.to_owned(), due.min(LAST_MOMENT));
    }

    /// Waits for the record of `key` and takes it.
    pub(crate) async fn recorded(&self, key: &str, kind: Kind, name: Option<&str>) -> Result<Value, Failure> {
        let record = poll_fn(|cx| {
            let mut state = self.state();
            match state.open.remove(key) {
                Some(record) => Poll::Ready(record),
                None => {
                    state.waiting.insert(key.to_owned(), cx.waker().clone());
                    Poll::Pending
                }
            }
        })
        .await;
        if record.kind == kind && record.name.as_deref() == name {
            return record.outcome;
        }
        let message = format!(
            "the record of {key:?} is {:?} {}; the definition now asks for {kind:?} {}",
            record.kind,
            record.name.as_deref().unwrap_or_default(),
            name.unwrap_or_default(),
        );
        self.break_off(Failure::permanent("workflow.nondeterministic", message));
        std::future::pending().await
    }

    pub(crate) fn now(&self) -> DateTime<Utc> {
        self.state().now
    }

    pub(crate) fn cancelled(&self) -> bool {
        self.state().cancelled
    }

    // ---- towards the executor

    /// Takes in a record, in any order and any number of times.
    pub(crate) fn add(&self, record: Record) {
        let mut state = self.state();
        if record.seq > state.last {
            state.recorded.insert(record.key.clone());
            state.arrived.insert(record.seq, record);
            drop(state);
            self.bell.ring();
        }
    }

    /// Hands out the next record, if it is here. Call it when the definition can do nothing more without one.
    pub(crate) fn hand_out(&self) -> bool {
        let mut state = self.state();
        let next = state.last + 1;
        let Some(record) = state.arrived.remove(&next) else { return false };
        state.last = next;
        state.now = state.now.max(record.recorded_at);
        state.timers.remove(&record.key);
        if record.kind == Kind::Cancel {
            state.cancelled = true;
            return true;
        }
        if let Some(waker) = state.waiting.remove(&record.key) {
            waker.wake();
        }
        state.open.insert(record.key.clone(), record);
        true
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
        let state = self.state();
        let mut seen = state.last;
        for seq in state.arrived.keys() {
            if *seq != seen + 1 {
                break;
            }
            seen += 1;
        }
        seen
    }

    pub(crate) fn take_requests(&self) -> Vec<Request> {
        std::mem::take(&mut self.state().requests)
    }

    /// Timers to record at `now`, and whether they were reached or cut short by a cancellation. They stay until their
    /// records are handed out.
    pub(crate) fn ended_timers(&self, now: DateTime<Utc>) -> Vec<(String, bool)> {
        let state = self.state();
        let ended = state.timers.iter().filter(|(_, due)| state.cancelled || **due <= now);
        ended.map(|(key, due)| (key.clone(), *due <= now)).collect()
    }

    pub(crate) fn next_timer(&self) -> Option<DateTime<Utc>> {
        self.state().timers.values().min().copied()
    }

    /// Whether the definition waits for anything that is not a timer.
    pub(crate) fn waits_for_others(&self) -> bool {
        let state = self.state();
        state.steps_running > 0 || state.waiting.keys().any(|key| !state.timers.contains_key(key))
    }

    pub(crate) fn step_runs(self: &Arc<Self>) -> StepRuns {
        self.state().steps_running += 1;
        StepRuns(self.clone())
    }

    pub(crate) fn steps_running(&self) -> usize {
        self.state().steps_running
    }

    /// Ends the run: its definition does not fit its record.
    pub(crate) fn break_off(&self, failure: Failure) {
        self.state().broken.get_or_insert(failure);
        self.bell.ring();
    }

    pub(crate) fn broken(&self) -> Option<Failure> {
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
        ledger.add(record(2, "b"));
        assert!(ledger.has_gap() && !ledger.hand_out());
        ledger.add(record(1, "a"));
        ledger.add(record(1, "a"));
        assert!(!ledger.has_gap());
        assert_eq!(ledger.seen(), 2);
        assert!(ledger.recorded("a", Kind::Step, None).now_or_never().is_none());
        assert!(ledger.hand_out());
        assert_eq!(ledger.recorded("a", Kind::Step, None).now_or_never(), Some(Ok(1.into())));
        assert_eq!(ledger.now().timestamp(), 1);
        assert!(ledger.hand_out() && !ledger.hand_out());
        assert_eq!(ledger.now().timestamp(), 2);
    }

    #[test]
    fn a_record_of_another_kind_breaks_the_run_off() {
        let ledger = Ledger::new(DateTime::<Utc>::UNIX_EPOCH);
        ledger.add(record(1, "a"));
        ledger.hand_out();
        assert!(ledger.recorded("a", Kind::Activity, Some("Mail")).now_or_never().is_none());
        assert_eq!(ledger.broken().map(|f| f.code), Some("workflow.nondeterministic".to_owned()));
    }

    #[test]
    fn a_key_is_used_once() {
        let ledger = Ledger::new(DateTime::<Utc>::UNIX_EPOCH);
        assert!(ledger.take_key("a").is_ok());
        assert_eq!(ledger.take_key("a").unwrap_err().code, "workflow.key_reused");
        assert_eq!(ledger.take_key("$cancel").unwrap_err().code, "workflow.bad_key");
    }

    #[test]
    fn what_postgres_cannot_store_is_refused_at_once() {
        assert!(to_payload(&"x".repeat(PAYLOAD_LIMIT - 2)).is_ok());
        assert!(to_payload(&"x".repeat(PAYLOAD_LIMIT)).is_err());
        assert!(to_payload(&"a\0b").is_err());
    }
}
