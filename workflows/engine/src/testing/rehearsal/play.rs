//! One performance: who acts next, what the world answers, when time moves.

use super::{
    Call, Flaw, Manner, Message, Played, Rehearsal,
    actor::{Actor, Turn},
};
use crate::{
    activity::{Attempt, LeasedTask},
    backend::Outcome,
    client::{Event, RunState},
    executor::Definition,
    failure::Failure,
    pump::What,
    record::{Kind, storable},
    store::{Fence, stored_failure, tasks::attempt_failed},
    testing::{
        Asked, Deed, History,
        chance::Chance,
        memory::{Memory, NewRun, TaskRow, TaskState},
    },
    workflow::Workflow,
};
use chrono::{DateTime, TimeDelta, Utc};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// 2027-01-01T00:00:00Z.
const CURTAIN: DateTime<Utc> = match DateTime::from_timestamp(1_798_761_600, 0) {
    Some(moment) => moment,
    None => DateTime::<Utc>::UNIX_EPOCH,
};
/// Turns after which a run will not come to an end.
const LONGEST: u64 = 100_000;
/// Misfortune that is due at some turn strikes at one of the first so many.
const EARLY: usize = 40;

/// An attempt at an activity.
struct Underway {
    task: TaskRow,
    fence: Fence,
    worker: i64,
    ends_at: DateTime<Utc>,
    fate: Fate,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Fate {
    Done,
    Fails { after_effect: bool },
    Refused,
    Throttled,
    Lost { after_effect: bool },
    TimesOut,
}

/// A signal on its way.
struct Sending {
    message: Message,
    key: String,
    when: When,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum When {
    At(DateTime<Utc>),
    Turn(u64),
    /// Once there is nothing else to do at the moment, or later.
    Late,
}

#[derive(Debug, Clone, Copy)]
enum Act {
    Claim(i64),
    Go(Uuid),
    End(usize),
    Step(usize),
}

pub(super) struct Play<'a> {
    rehearsal: &'a Rehearsal,
    manner: Manner,
    quiet: bool,
    chance: Chance,
    memory: Memory,
    actors: BTreeMap<Uuid, (Actor, bool)>,
    attempts: Vec<Underway>,
    steps: Vec<(Uuid, Deed)>,
    sendings: Vec<Sending>,
    cancel_at: Option<u64>,
    calls: Vec<Call>,
    turn: u64,
    workers: i64,
}

impl<'a> Play<'a> {
    pub(super) fn new(rehearsal: &'a Rehearsal, manner: Manner) -> Self {
        let mut chance = Chance::new(manner.seed);
        let memory = Memory::new(CURTAIN, Chance::new(chance.number()));
        let quiet = manner.mischief == super::Mischief::NONE;
        let cancel_at = chance.happens(manner.mischief.cancels).then(|| chance.below(EARLY) as u64);
        let mut play = Self {
            rehearsal,
            manner,
            quiet,
            chance,
            memory,
            actors: BTreeMap::new(),
            attempts: Vec::new(),
            steps: Vec::new(),
            sendings: Vec::new(),
            cancel_at,
            calls: Vec::new(),
            turn: 0,
            workers: 0,
        };
        rehearsal.signals.iter().enumerate().for_each(|(n, message)| play.plan(n, message));
        play
    }

    /// Decides when a signal comes, and whether it comes twice.
    fn plan(&mut self, n: usize, message: &Message) {
        let odds = self.manner.mischief;
        if self.chance.happens(odds.signal_never) {
            return;
        }
        let times = 1 + usize::from(self.chance.happens(odds.signal_twice));
        for _ in 0..times {
            let when = match self.chance.happens(odds.signal_late) {
                _ if self.quiet => When::At(CURTAIN + TimeDelta::from_std(message.after).unwrap_or_default()),
                true => When::Late,
                false => When::Turn(self.chance.below(EARLY) as u64),
            };
            self.sendings.push(Sending { message: message.clone(), key: format!("{n}"), when });
        }
    }

    pub(super) fn start<W: Workflow>(&mut self, workflow: &W) -> Result<Uuid, Failure> {
        let new = NewRun {
            id: self.chance.uuid(),
            tenant_id: self.chance.uuid(),
            kind: W::NAME.to_owned(),
            version: W::VERSION,
            business_key: None,
            input: self.rehearsal.payloads.encode(workflow)?,
            priority: workflow.priority(),
        };
        Ok(self.memory.start(new).unwrap_or_default())
    }

    /// Plays until the run, or the last of those that go on in its place, is over, and nothing is left to do at that moment.
    pub(super) fn finish(&mut self, run_id: Uuid) -> Result<(), Flaw> {
        loop {
            self.turn += 1;
            if self.turn > LONGEST {
                return Err(Flaw::Endless(self.lines(run_id)));
            }
            if self.cancel_at.is_some_and(|at| at <= self.turn) {
                self.cancel_at = None;
                self.memory.cancel(run_id, "the simulation");
            }
            self.send(run_id, |when, turn, now| match when {
                When::Turn(at) => at <= turn,
                When::At(at) => at <= now,
                When::Late => false,
            });
            let acts = self.acts()?;
            if !acts.is_empty() {
                let act = if self.quiet { acts[0] } else { self.chance.one_of(&acts) };
                self.act(act)?;
            } else if self.last(run_id).1 != RunState::Running {
                return Ok(());
            } else if !self.pass_time(run_id) {
                return Err(Flaw::NotOver(self.lines(run_id)));
            }
        }
    }

    /// Sends the signals whose time has come.
    fn send(&mut self, run_id: Uuid, is_due: impl Fn(When, u64, DateTime<Utc>) -> bool) {
        let (turn, now) = (self.turn, self.memory.now);
        let (due, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.sendings).into_iter().partition(|s| is_due(s.when, turn, now));
        self.sendings = rest;
        for Sending { message, key, .. } in due {
            self.memory.signal(run_id, &message.name, Some(&key), message.payload);
        }
    }

    /// Everything that may happen without time going on.
    fn acts(&self) -> Result<Vec<Act>, Flaw> {
        let now = self.memory.now;
        let mut acts = Vec::new();
        for (run_id, (actor, stirred)) in &self.actors {
            let timer = actor.ledger.next_timer().is_some_and(|due| due <= now);
            if *stirred || timer || self.memory.seq(*run_id) > actor.ledger.seen() {
                acts.push(Act::Go(*run_id));
            }
        }
        acts.extend((0..self.steps.len()).map(Act::Step));
        let over = self.attempts.iter().enumerate().filter(|(_, attempt)| attempt.ends_at <= now);
        acts.extend(over.map(|(n, _)| Act::End(n)));
        for task in self.memory.tasks.values().filter(|t| t.state == TaskState::Ready) {
            if self.knows(task)? {
                acts.push(Act::Claim(task.id));
            }
        }
        Ok(acts)
    }

    fn knows(&self, task: &TaskRow) -> Result<bool, Flaw> {
        let name = &task.activity;
        match task.is_run() {
            false if self.rehearsal.handlers.contains_key(name.as_str()) || self.is_failing(task) => Ok(true),
            false => Err(Flaw::Unknown(format!("the activity {name}"))),
            true if self.rehearsal.definitions.contains_key(name) => Ok(true),
            // What is started and not waited for may be somebody else's.
            true if self.memory.runs.get(&task.run_id).is_some_and(|r| r.detached) => Ok(false),
            true => Err(Flaw::Unknown(format!("the workflow {name}"))),
        }
    }

    fn is_failing(&self, task: &TaskRow) -> bool {
        self.manner.failing.as_ref() == Some(&task.key)
    }

    fn act(&mut self, act: Act) -> Result<(), Flaw> {
        match act {
            Act::Claim(task_id) => self.claim(task_id),
            Act::Go(run_id) => return self.go(run_id),
            Act::End(n) => {
                let attempt = self.attempts.swap_remove(n);
                self.end(&attempt);
            }
            Act::Step(n) => self.step(n),
        }
        Ok(())
    }

    // ---- runs

    fn claim(&mut self, task_id: i64) {
        self.workers += 1;
        let worker = self.workers;
        let Some(task) = self.memory.lease(task_id, worker) else { return };
        let Some(fence) = task.fence() else { return };
        if !task.is_run() {
            let (fate, ends_at) = self.fate(&task);
            return self.attempts.push(Underway { task, fence, worker, ends_at, fate });
        }
        let definition: Option<&Definition> = self.rehearsal.definitions.get(&task.activity);
        if let Some(actor) =
            definition.and_then(|d| Actor::new(&self.memory, &task, fence, worker, (d, &self.rehearsal.payloads)))
        {
            self.actors.insert(task.run_id, (actor, true));
        }
    }

    /// Lets a run go on as far as it can, and writes down what it asks for.
    fn go(&mut self, run_id: Uuid) -> Result<(), Flaw> {
        let Some((mut actor, _)) = self.actors.remove(&run_id) else { return Ok(()) };
        actor.hear(self.memory.newer(run_id, actor.ledger.seen()));
        let heard = match actor.turn() {
            Turn::Leaves(outcome) => match *outcome {
                Outcome::SetAside { failure, .. } => {
                    let kind = self.memory.runs.get(&run_id).map(|r| r.kind.clone()).unwrap_or_default();
                    return Err(Flaw::Parked { kind, failure });
                }
                outcome => {
                    self.leave(&actor, outcome);
                    return Ok(());
                }
            },
            Turn::Heard => true,
            Turn::Rests => false,
        };
        if heard && self.manner.forgetful {
            self.leave(&actor, Outcome::Unfinished);
            return Ok(());
        }
        let odds = self.manner.mischief.crash;
        if heard && self.chance.happens(odds) {
            self.crash(&actor);
            return Ok(());
        }
        let deeds = actor.deeds.take();
        let asks = if heard { None } else { actor.asks(self.memory.now) };
        let busy = heard || !deeds.is_empty() || asks.is_some();
        for deed in deeds {
            self.take_up(&actor, deed);
        }
        if let Some(what) = asks {
            // Before or after what it asked for is written.
            if self.chance.happens(odds / 2.0) {
                self.crash(&actor);
                return Ok(());
            }
            self.write(actor.fence, what);
            if self.chance.happens(odds / 2.0) {
                self.crash(&actor);
                return Ok(());
            }
        }
        let acts = self.steps.iter().any(|(of, _)| *of == run_id);
        if !busy && !acts && self.chance.happens(odds) {
            let (seq, due) = (actor.ledger.handed_out(), actor.ledger.next_timer());
            self.leave(&actor, Outcome::Parked { seq, due });
            return Ok(());
        }
        let stirred = heard || actor.ledger.bell().hear();
        self.actors.insert(run_id, (actor, stirred));
        Ok(())
    }

    /// The run leaves the memory and says how.
    fn leave(&mut self, actor: &Actor, outcome: Outcome) {
        self.steps.retain(|(of, _)| *of != actor.run_id);
        self.write(actor.fence, outcome.of_run(actor.fence));
    }

    /// The run leaves the memory and says nothing. Steps that were under way may have been committed.
    fn crash(&mut self, actor: &Actor) {
        let (lost, rest): (Vec<_>, Vec<_>) =
            std::mem::take(&mut self.steps).into_iter().partition(|(of, _)| *of == actor.run_id);
        self.steps = rest;
        for (_, deed) in lost {
            if let Deed::Step { key, .. } = deed
                && self.chance.happens(0.5)
            {
                self.perform(actor.fence, &key);
            }
        }
        self.memory.recover(&[actor.worker]);
    }

    fn write(&mut self, fence: Fence, what: What) {
        match what {
            What::Plain(plain) => drop(self.memory.pump(&[], &[], &[(fence, &plain)])),
            What::Ops(ops) => drop(self.memory.pump(&[], &ops, &[])),
            What::Attempt { entry, .. } => drop(self.memory.pump(&[entry], &[], &[])),
            // Clients start runs, actors do not.
            What::Start(_) | What::Forget => {}
        }
    }

    // ---- steps

    fn take_up(&mut self, actor: &Actor, deed: Deed) {
        match deed {
            Deed::FailedMemo { key, failure } => {
                self.memory.step(actor.fence, &key, Err(storable(&failure)));
            }
            deed => self.steps.push((actor.run_id, deed)),
        }
    }

    /// Does a step; or, when nobody waits for it any more, perhaps.
    fn step(&mut self, n: usize) {
        let (run_id, deed) = self.steps.swap_remove(n);
        let Some(fence) = self.actors.get(&run_id).map(|(actor, _)| actor.fence) else { return };
        let done =
            match deed {
                Deed::Step { key, done } => {
                    if !done.is_closed() || self.chance.happens(0.5) {
                        self.perform(fence, &key);
                    }
                    done
                }
                Deed::Settle { done } => {
                    while let Some(n) = self.steps.iter().position(|(of, deed)| {
                        *of == run_id && matches!(deed, Deed::Step { done, .. } if done.is_closed())
                    }) {
                        self.step(n);
                    }
                    done
                }
                Deed::FailedMemo { .. } => return,
            };
        let records = self.memory.newer(run_id, self.actors.get(&run_id).map_or(0, |(actor, _)| actor.ledger.seen()));
        if let Some((actor, stirred)) = self.actors.get_mut(&run_id) {
            actor.hear(records);
            *stirred = true;
        }
        let _ = done.send(());
    }

    fn perform(&mut self, fence: Fence, key: &str) {
        let refused = self.chance.happens(self.manner.mischief.step_fails);
        let outcome = if refused { Err(refusal()) } else { self.rehearsal.give(key) };
        self.memory.step(fence, key, outcome.map_err(|failure| storable(&failure)));
    }

    // ---- attempts

    /// What becomes of an attempt, and when.
    fn fate(&mut self, task: &TaskRow) -> (Fate, DateTime<Utc>) {
        let (odds, now) = (self.manner.mischief, self.memory.now);
        if self.quiet {
            return (Fate::Done, now);
        }
        let seconds = match self.chance.happens(odds.slow) {
            true => self.chance.one_of(&[1.0, 20.0, 600.0, 86_400.0]),
            false => 0.0,
        };
        let after_effect = self.chance.happens(0.5);
        let fates = [
            (odds.fails, Fate::Fails { after_effect }),
            (odds.refuses, Fate::Refused),
            (odds.throttles, Fate::Throttled),
            (odds.loses, Fate::Lost { after_effect }),
        ];
        let mut drawn = self.chance.share();
        let mut fate = Fate::Done;
        for (probability, candidate) in fates {
            if (0.0..probability).contains(&drawn) {
                fate = candidate;
            }
            drawn -= probability;
        }
        if seconds > task.start_to_close {
            fate = Fate::TimesOut;
        }
        let seconds = seconds.min(task.start_to_close);
        (fate, now + TimeDelta::microseconds((seconds * 1e6) as i64))
    }

    fn end(&mut self, attempt: &Underway) {
        let Underway { task, fence, worker, fate, .. } = attempt;
        let stopped = self.memory.held(*fence).is_some_and(|t| t.cancel_requested);
        let outcome = if self.is_failing(task) {
            Outcome::Failed(Failure::permanent("test.injected", "the test wants this activity to fail"))
        } else if stopped && (self.quiet || self.chance.happens(0.7)) {
            Outcome::Failed(Failure::cancelled())
        } else {
            let after_effect =
                matches!(fate, Fate::Done | Fate::Fails { after_effect: true } | Fate::Lost { after_effect: true });
            let result = if after_effect { self.call(attempt) } else { Err(Failure::lease_lost()) };
            match fate {
                Fate::Done => Outcome::of_activity(result),
                Fate::Fails { .. } => Outcome::Failed(Failure::transient("test.flaky", "it happens")),
                Fate::Refused => Outcome::Failed(refusal()),
                Fate::Throttled => {
                    let patience = std::time::Duration::from_secs(1 + self.chance.below(3600) as u64);
                    Outcome::Failed(Failure::transient("test.busy", "later").after(patience))
                }
                Fate::Lost { .. } => Outcome::Lost,
                Fate::TimesOut => Outcome::TimedOut,
            }
        };
        match outcome {
            Outcome::Lost => self.memory.recover(&[*worker]),
            outcome => self.settle(*fence, outcome),
        }
    }

    fn settle(&mut self, fence: Fence, outcome: Outcome) {
        let entry = match outcome {
            Outcome::Done(output) => {
                json!({ "task_id": fence.task_id, "token": fence.token, "outcome": "ok", "output": output })
            }
            Outcome::TimedOut => {
                let failure = json!({ "code": "workflow.timeout", "message": "it took too long", "retryable": true });
                json!({ "task_id": fence.task_id, "token": fence.token, "outcome": "timeout", "failure": failure })
            }
            Outcome::Failed(failure) => attempt_failed(fence.task_id, fence.token, &failure),
            _ => json!({ "task_id": fence.task_id, "token": fence.token, "outcome": "released" }),
        };
        self.memory.pump(&[entry], &[], &[]);
    }

    /// Has the effect that an attempt has on the world.
    fn call(&mut self, Underway { task, fence, .. }: &Underway) -> Result<Value, Failure> {
        let Some(handler) = self.rehearsal.handlers.get(task.activity.as_str()) else {
            return Err(Failure::lease_lost());
        };
        let leased = LeasedTask {
            task_id: task.id,
            run_id: task.run_id,
            tenant_id: self.memory.runs.get(&task.run_id).map(|r| r.tenant_id).unwrap_or_default(),
            key: task.key.clone(),
            activity: task.activity.clone(),
            input: Value::Null,
            attempt_no: task.attempt_no,
            lease_token: fence.token,
            lease_seconds: task.lease_seconds,
            start_to_close_seconds: task.start_to_close,
            traceparent: None,
        };
        let (attempt, _keeper) = Attempt::new(leased);
        let result = handler(&attempt, task.input.clone()).and_then(|output| self.rehearsal.payloads.admit(output));
        self.calls.push(Call {
            run_id: task.run_id,
            key: task.key.clone(),
            activity: task.activity.clone(),
            input: task.input.clone(),
            attempt_no: task.attempt_no,
            result: result.clone(),
        });
        result
    }

    // ---- time

    /// Moves the clock to the next moment at which something happens. When nothing will: sends what was kept back, and at last
    /// asks the run to stop.
    fn pass_time(&mut self, run_id: Uuid) -> bool {
        if self.sendings.iter().any(|s| matches!(s.when, When::Turn(_))) {
            self.send(run_id, |when, _, _| matches!(when, When::Turn(_)));
            return true;
        }
        let kept = self.sendings.iter().position(|s| s.when == When::Late);
        let ends = self.attempts.iter().map(|attempt| attempt.ends_at);
        let timers = self.actors.values().filter_map(|(actor, _)| actor.ledger.next_timer());
        let signals = self.sendings.iter().filter_map(|s| if let When::At(at) = s.when { Some(at) } else { None });
        let next = ends.chain(timers).chain(signals).chain(self.memory.next_due()).min();
        match (next, kept) {
            (next, Some(kept)) if next.is_none() || self.chance.happens(0.5) => {
                let Sending { message, key, .. } = self.sendings.swap_remove(kept);
                self.memory.signal(run_id, &message.name, Some(&key), message.payload);
                true
            }
            (Some(next), _) => {
                self.memory.now = self.memory.now.max(next);
                self.memory.wake_due();
                true
            }
            (None, _) => !self.quiet && self.memory.cancel(run_id, "the simulation"),
        }
    }

    // ---- what is left

    fn last(&self, run_id: Uuid) -> (Uuid, RunState) {
        let mut run_id = run_id;
        while let Some(next) = self.memory.runs.get(&run_id).and_then(|r| r.continued_as) {
            run_id = next;
        }
        (run_id, self.memory.runs.get(&run_id).map_or(RunState::Running, |r| r.state))
    }

    fn lines(&self, run_id: Uuid) -> String {
        self.history(run_id).lines()
    }

    fn history(&self, run_id: Uuid) -> History {
        let run = self.memory.runs.get(&run_id);
        let event = |(at, step): (usize, &crate::testing::memory::StepRow)| Event {
            seq: at as i64 + 1,
            key: step.key.clone(),
            kind: step.kind.name().to_owned(),
            name: step.name.clone(),
            outcome: step.outcome.clone(),
            output: step.output.clone(),
            failure: step.failure.clone().map(|failure| stored_failure(Some(failure))),
            attempt_no: step.attempt_no,
            recorded_at: step.at,
        };
        let steps = self.memory.steps.get(&run_id).map(Vec::as_slice).unwrap_or_default();
        let asked = |work: crate::record::InFlight| Asked {
            key: work.key,
            kind: Kind::name(work.kind).to_owned(),
            name: work.name,
        };
        History {
            kind: run.map(|r| r.kind.clone()).unwrap_or_default(),
            version: run.map_or(1, |r| r.version),
            run_id,
            tenant_id: run.map(|r| r.tenant_id).unwrap_or_default(),
            created_at: run.map_or(CURTAIN, |r| r.created_at),
            input: run.map(|r| r.input.clone()).unwrap_or_default(),
            state: run.map_or(RunState::Running, |r| r.state),
            error_code: run.and_then(|r| r.error.as_ref()?["code"].as_str().map(str::to_owned)),
            events: steps.iter().enumerate().map(event).collect(),
            in_flight: self.memory.in_flight(run_id).into_iter().map(asked).collect(),
        }
    }

    pub(super) fn played(self, run_id: Uuid) -> Played {
        let (last, state) = self.last(run_id);
        let row = self.memory.runs.get(&last);
        let mut others: Vec<_> =
            self.memory.runs.values().filter(|r| r.id != run_id).map(|r| (r.created_at, r.id)).collect();
        others.sort();
        Played {
            state,
            output: row.and_then(|r| r.output.clone()),
            error: row.and_then(|r| r.error.clone()).map(|error| stored_failure(Some(error))),
            history: self.history(run_id),
            others: others.into_iter().map(|(_, id)| self.history(id)).collect(),
            calls: self.calls,
        }
    }
}

fn refusal() -> Failure {
    Failure::permanent("test.refused", "the simulation refuses it")
}
