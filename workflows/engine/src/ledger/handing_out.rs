//! The side of the executor: taking records in, handing them out, and what is left to wait for.

use super::{Ledger, StepRuns};
use crate::{
    bell::Bell,
    payload::Payloads,
    record::{Ask, Broken, InFlight, Kind, Record},
};
use chrono::{DateTime, SubsecRound as _, Utc};
use serde_json::Value;
use std::{sync::Arc, task::Waker};

/// What a definition was given before it is recorded.
#[derive(Debug)]
pub(crate) struct Foretold {
    pub key: String,
    pub output: Value,
    pub at: DateTime<Utc>,
    /// The number its record will have, unless something comes first.
    pub seq: i64,
}

fn is_outside(record: &Record) -> bool {
    record.outcome.as_ref().is_ok_and(Payloads::is_reference)
}

impl Ledger {
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
        // What comes before something foretold is not looked at any more.
        let foretells = state.foretold.is_some();
        if state.arrived.get(&next).is_none_or(|record| !foretells && is_outside(record)) {
            return false;
        }
        let Some(record) = state.arrived.remove(&next) else { return false };
        if let Err(failure) = state.check(&record) {
            state.broken.get_or_insert(Broken::Mismatch(failure));
            return false;
        }
        if let Some(foretold) = state.foretold.take() {
            state.overtaken = foretold != record.key;
            state.last = next;
            state.catching_up.drain(..).for_each(Waker::wake);
            return !state.overtaken;
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

    /// Gives the definition what it has just come by before that is recorded, if it waits for nothing else and nobody is likely to
    /// record something first: most definitions end after their last step, and need one commit less for it. Answers what is to be
    /// recorded. Until that is handed out, too, the definition does nothing, and what it asks for is kept back.
    pub(crate) fn foretell(&self, now: DateTime<Utc>, passes: impl Fn(&Value) -> bool) -> Option<Foretold> {
        let mut state = self.state();
        let [Ask::Mark { key, kind: Kind::Step, output, .. }] = state.asks.as_slice() else { return None };
        let alone = state.arrived.is_empty() && state.in_flight.is_empty() && state.timers.is_empty();
        let alone = alone && state.listeners.is_empty() && state.signals.is_empty() && !state.in_company;
        let waits = state.waiting.len() == 1 && state.waiting.contains_key(key) && state.steps_running == 0;
        let sound = state.caught_up && state.broken.is_none() && state.foretold.is_none() && !state.overtaken;
        if !alone || !waits || !sound || !passes(output) {
            return None;
        }
        let (key, output) = (key.clone(), output.clone());
        // As the database will give it back.
        let at = now.trunc_subsecs(6).max(state.now);
        let told = Foretold { key: key.clone(), output: output.clone(), at, seq: state.last + 1 };
        let record = Record {
            seq: told.seq,
            key: key.clone(),
            kind: Kind::Step,
            name: None,
            outcome: Ok(output),
            recorded_at: at,
        };
        state.asks.clear();
        state.now = at;
        state.waiting.drain().for_each(|(_, waker)| waker.wake());
        state.open.insert(key.clone(), record);
        state.foretold = Some(key);
        Some(told)
    }

    /// Whether the definition was given something that is not recorded yet.
    pub(crate) fn foretells(&self) -> bool {
        self.state().foretold.is_some()
    }

    /// Whether something else was recorded before what was foretold: the definition has taken a way that its replay would not.
    pub(crate) fn overtaken(&self) -> bool {
        self.state().overtaken
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

    /// Whether a record is missing before one that is here, or its output is.
    pub(crate) fn has_gap(&self) -> bool {
        let state = self.state();
        state.arrived.iter().next().is_some_and(|(first, record)| *first > state.last + 1 || is_outside(record))
    }

    /// The next record, if its output lies elsewhere: its number, and what is stored of it.
    pub(crate) fn outside(&self) -> Option<(i64, Value)> {
        let state = self.state();
        let next = state.last + 1;
        let record = state.arrived.get(&next).filter(|record| is_outside(record))?;
        Some((next, record.outcome.clone().ok()?))
    }

    /// Puts the output of a record in its place.
    pub(crate) fn bring_in(&self, seq: i64, output: Value) {
        if let Some(record) = self.state().arrived.get_mut(&seq) {
            record.outcome = Ok(output);
        }
        self.bell.ring();
    }

    /// Number of the newest record handed out.
    pub(crate) fn handed_out(&self) -> i64 {
        self.state().last
    }

    /// Number of the newest record up to which nothing is missing.
    pub(crate) fn seen(&self) -> i64 {
        self.state().seen
    }

    /// The next of what the definition has asked for, at most `limit`.
    pub(crate) fn take_asks(&self, limit: usize) -> Vec<Ask> {
        let mut state = self.state();
        let count = state.asks.len().min(limit);
        state.asks.drain(..count).collect()
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
