//! What a run has done, as its future sees it: records handed out one at a time, in the order of their commits.
//!
//! The order is what makes a replay take the same way as the first time: a record is handed out only when the
//! definition can do nothing more without one. Nothing here touches the database.

mod handing_out;

pub(crate) use handing_out::Foretold;

use crate::{
    bell::Bell,
    failure::Failure,
    record::{Ask, Broken, InFlight, Kind, Record, Successor, Undo},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque, hash_map::Entry},
    future::poll_fn,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Poll, Waker},
};

/// Longest step key, in bytes.
const KEY_LIMIT: usize = 200;
/// 9999-12-31T23:59:59Z: later times have no common notation (ISO 8601, 4.2.1).
const LAST_MOMENT: DateTime<Utc> = match DateTime::from_timestamp(253_402_300_799, 0) {
    Some(moment) => moment,
    None => DateTime::<Utc>::MAX_UTC,
};

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
    /// The key of what the definition was given before it is recorded: it may look at it, and do nothing until it is.
    foretold: Option<String>,
    /// Something else was recorded before what was foretold.
    overtaken: bool,
    /// Others have been asked for something in this stay: what they record may come at any time.
    in_company: bool,
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

    /// Reserves a key for the one call that may use it.
    pub(crate) fn take_key(&self, key: &str, kind: Kind, name: Option<&'static str>) -> Result<(), Failure> {
        if key.is_empty() || key.len() > KEY_LIMIT || key.starts_with('$') || key.contains('\0') {
            return Err(Failure::permanent(
                "workflow.bad_key",
                format!("{key:?} is not a key: 1 to {KEY_LIMIT} bytes, no leading $, no NUL"),
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
        state.in_company |= !matches!(ask, Ask::Mark { .. });
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

    /// Waits until all that is known has been handed out and fits, so that nothing is done by a definition that does not, and
    /// until all that was handed out is recorded.
    pub(crate) async fn caught_up(&self) {
        poll_fn(|cx| {
            let mut state = self.state();
            if state.caught_up && state.foretold.is_none() {
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
}
