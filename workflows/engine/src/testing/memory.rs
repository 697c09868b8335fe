//! The engine's tables in memory: what `workflow.pump` and its sisters do, done to maps, under a clock that stands still.
//!
//! It takes the very messages that the executor and the pump send to PostgreSQL. `against_sql` holds the two together: the same
//! commands, drawn at random, must leave the same rows. There are no rivals here, so nothing is ever locked: what the SQL leaves
//! for later (`workflow.errands`) happens at once.

#[cfg(test)]
mod against_sql;
mod recovery;
mod runs;

use super::chance::Chance;
use crate::{
    activity::Labels,
    client::RunState,
    record::{InFlight, Kind, Record},
    store::{Fence, stored_failure, tasks::Plain},
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A row of `workflow.runs`.
#[derive(Debug, Clone)]
pub(super) struct RunRow {
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub kind: String,
    pub version: i32,
    pub business_key: Option<String>,
    pub state: RunState,
    pub input: Value,
    pub output: Option<Value>,
    pub error: Option<Value>,
    pub priority: i16,
    pub cancel_requested: bool,
    pub created_at: DateTime<Utc>,
    pub parent: Option<(Uuid, String)>,
    pub root: Option<Uuid>,
    pub detached: bool,
    pub continued_as: Option<Uuid>,
}

/// A row of `workflow.steps`; its number is its place.
#[derive(Debug, Clone)]
pub(super) struct StepRow {
    pub key: String,
    pub kind: Kind,
    pub name: Option<String>,
    pub outcome: String,
    pub output: Option<Value>,
    pub failure: Option<Value>,
    pub attempt_no: i32,
    pub at: DateTime<Utc>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum TaskState {
    Ready,
    Waiting,
    Leased,
}

/// A lease.
#[derive(Debug, Clone)]
pub(super) struct Lease {
    pub token: Uuid,
    pub worker: i64,
    pub since: DateTime<Utc>,
    pub expires: DateTime<Utc>,
}

/// A row of `workflow.tasks`. Its key is empty when it is a run.
#[derive(Debug, Clone)]
pub(super) struct TaskRow {
    pub id: i64,
    pub run_id: Uuid,
    pub key: String,
    #[cfg_attr(not(test), expect(dead_code, reason = "a rehearsal has workers for every queue"))]
    pub queue: String,
    pub activity: String,
    pub input: Value,
    #[cfg_attr(not(test), expect(dead_code, reason = "and with every label"))]
    pub labels: Labels,
    pub priority: i16,
    /// None: only a record, or somebody, wakes it.
    pub run_at: Option<DateTime<Utc>>,
    /// Between which times `run_at` may lie, when it was drawn.
    pub drawn: Option<(DateTime<Utc>, DateTime<Utc>)>,
    pub state: TaskState,
    pub attempt_no: i32,
    pub failures: i32,
    pub max_failures: i32,
    pub losses: i32,
    pub max_losses: i32,
    pub backoff_base: f64,
    pub backoff_cap: f64,
    pub lease_seconds: f64,
    pub start_to_close: f64,
    pub lease: Option<Lease>,
    pub cancel_requested: bool,
    pub shielded: bool,
    pub parked: Option<String>,
    pub wake_seq: i64,
}

impl TaskRow {
    pub(super) fn is_run(&self) -> bool {
        self.key.is_empty()
    }

    pub(super) fn fence(&self) -> Option<Fence> {
        self.lease.as_ref().map(|lease| Fence { task_id: self.id, token: lease.token })
    }

    fn rest(&mut self, state: TaskState, run_at: Option<DateTime<Utc>>) {
        (self.state, self.run_at, self.drawn, self.lease) = (state, run_at, None, None);
    }
}

/// A row of `workflow.attempts`.
#[derive(Debug, Clone)]
#[cfg_attr(not(test), expect(dead_code, reason = "compared with the rows of PostgreSQL"))]
pub(super) struct AttemptRow {
    pub run_id: Uuid,
    pub key: String,
    pub attempt_no: i32,
    pub outcome: String,
    pub failure: Option<Value>,
}

/// A record about to be written.
#[derive(Debug, Clone)]
struct Fact {
    run_id: Uuid,
    step: StepRow,
}

/// What a run is started with.
#[derive(Debug, Clone)]
pub(super) struct NewRun {
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub kind: String,
    pub version: i32,
    pub business_key: Option<String>,
    pub input: Value,
    pub priority: i16,
}

/// The tables.
#[derive(Debug)]
pub(super) struct Memory {
    pub now: DateTime<Utc>,
    pub chance: Chance,
    pub runs: BTreeMap<Uuid, RunRow>,
    pub steps: BTreeMap<Uuid, Vec<StepRow>>,
    pub tasks: BTreeMap<i64, TaskRow>,
    pub attempts: Vec<AttemptRow>,
    /// Ids of runs are counted from here; none: they are drawn.
    pub ids: Option<u128>,
    last_task: i64,
}

impl Memory {
    pub(super) fn new(now: DateTime<Utc>, chance: Chance) -> Self {
        Self {
            now,
            chance,
            runs: BTreeMap::new(),
            steps: BTreeMap::new(),
            tasks: BTreeMap::new(),
            attempts: Vec::new(),
            ids: None,
            last_task: 0,
        }
    }

    // ---- looking

    /// The live task of a run.
    pub(super) fn task_of(&self, run_id: Uuid) -> Option<&TaskRow> {
        self.tasks.values().find(|t| t.run_id == run_id && t.is_run())
    }

    fn task_of_mut(&mut self, run_id: Uuid) -> Option<&mut TaskRow> {
        self.tasks.values_mut().find(|t| t.run_id == run_id && t.is_run())
    }

    /// The task that a fence holds.
    pub(super) fn held(&self, fence: Fence) -> Option<&TaskRow> {
        self.tasks.get(&fence.task_id).filter(|t| t.fence() == Some(fence))
    }

    pub(super) fn seq(&self, run_id: Uuid) -> i64 {
        self.steps.get(&run_id).map_or(0, |steps| steps.len() as i64)
    }

    /// The records of a run that are newer than `seen`.
    pub(super) fn newer(&self, run_id: Uuid, seen: i64) -> Vec<Record> {
        let steps = self.steps.get(&run_id).map(Vec::as_slice).unwrap_or_default();
        let number = |(at, step): (usize, &StepRow)| Record {
            seq: at as i64 + 1,
            key: step.key.clone(),
            kind: step.kind,
            name: step.name.clone(),
            outcome: match step.outcome.as_str() {
                "ok" => Ok(step.output.clone().unwrap_or_default()),
                _ => Err(stored_failure(step.failure.clone())),
            },
            recorded_at: step.at,
        };
        steps.iter().enumerate().skip(seen as usize).map(number).collect()
    }

    /// What a run has asked for and what is not recorded.
    pub(super) fn in_flight(&self, run_id: Uuid) -> Vec<InFlight> {
        let activities = self.tasks.values().filter(|t| t.run_id == run_id && !t.is_run());
        let activities = activities.map(|t| (t.key.clone(), Kind::Activity, t.activity.clone()));
        let children = self.live_children(run_id).map(|c| (parent_key(c), Kind::Child, c.kind.clone()));
        activities.chain(children).map(|(key, kind, name)| InFlight { key, kind, name: Some(name) }).collect()
    }

    fn live_children(&self, run_id: Uuid) -> impl Iterator<Item = &RunRow> {
        self.runs.values().filter(move |c| {
            c.parent.as_ref().is_some_and(|(parent, _)| *parent == run_id)
                && c.continued_as.is_none()
                && c.state == RunState::Running
                && !c.detached
        })
    }

    fn is_recorded(&self, run_id: Uuid, key: &str) -> bool {
        self.steps.get(&run_id).is_some_and(|steps| steps.iter().any(|s| s.key == key))
    }

    // ---- starting

    /// Starts a run; none when its business key is taken.
    pub(super) fn start(&mut self, new: NewRun) -> Option<Uuid> {
        let taken = new.business_key.is_some() && self.by_key(&new.kind, new.tenant_id, &new.business_key).is_some();
        (!taken).then(|| self.insert_run(new, None, 10))
    }

    /// `workflow.new_run_id`.
    fn new_run_id(&mut self) -> Uuid {
        match &mut self.ids {
            Some(last) => {
                *last += 1;
                Uuid::from_u128(*last)
            }
            None => self.chance.uuid(),
        }
    }

    fn by_key(&self, kind: &str, tenant_id: Uuid, key: &Option<String>) -> Option<Uuid> {
        let holds = |r: &&RunRow| {
            r.continued_as.is_none() && r.kind == kind && r.tenant_id == tenant_id && &r.business_key == key
        };
        self.runs.values().filter(|_| key.is_some()).find(holds).map(|r| r.id)
    }

    fn insert_run(&mut self, new: NewRun, parent: Option<(Uuid, String, Uuid, bool)>, max_losses: i32) -> Uuid {
        let (parent, root, detached) = match parent {
            Some((run_id, key, root, detached)) => (Some((run_id, key)), Some(root), detached),
            None => (None, None, false),
        };
        let row = RunRow {
            id: new.id,
            tenant_id: new.tenant_id,
            kind: new.kind,
            version: new.version,
            business_key: new.business_key,
            state: RunState::Running,
            input: new.input,
            output: None,
            error: None,
            priority: new.priority,
            cancel_requested: false,
            created_at: self.now,
            parent,
            root,
            detached,
            continued_as: None,
        };
        let activity = crate::store::runs::run_name(&row.kind, row.version);
        self.insert_run_task(row.id, activity, row.priority, max_losses);
        self.runs.insert(new.id, row);
        new.id
    }

    fn insert_run_task(&mut self, run_id: Uuid, activity: String, priority: i16, max_losses: i32) {
        let task = TaskRow {
            id: 0,
            run_id,
            key: String::new(),
            queue: crate::worker::RUN_QUEUE.to_owned(),
            activity,
            input: Value::Null,
            labels: Labels::new(),
            priority,
            run_at: Some(self.now),
            drawn: None,
            state: TaskState::Ready,
            attempt_no: 0,
            failures: 0,
            max_failures: 1,
            losses: 0,
            max_losses,
            backoff_base: 0.0,
            backoff_cap: 0.0,
            lease_seconds: 30.0,
            start_to_close: 1e9,
            lease: None,
            cancel_requested: false,
            shielded: false,
            parked: None,
            wake_seq: 0,
        };
        self.insert_task(task);
    }

    fn insert_task(&mut self, task: TaskRow) {
        self.last_task += 1;
        self.tasks.insert(self.last_task, TaskRow { id: self.last_task, ..task });
    }

    // ---- the record

    /// `workflow.record`.
    fn record(&mut self, facts: Vec<Fact>) {
        let known = |fact: &Fact| self.is_recorded(fact.run_id, &fact.step.key);
        let fresh: Vec<Fact> = facts.into_iter().filter(|fact| !known(fact)).collect();
        let now = self.now;
        for Fact { run_id, step } in fresh {
            let Some(run) = self.task_of_mut(run_id) else { continue };
            run.wake_seq += 1;
            run.losses = 0;
            if run.state == TaskState::Waiting && run.parked.is_none() {
                run.rest(TaskState::Ready, Some(now));
            }
            self.steps.entry(run_id).or_default().push(StepRow { at: now, ..step });
        }
    }

    fn fact(&self, run_id: Uuid, key: &str, kind: Kind, name: Option<&str>, outcome: &str) -> Fact {
        let failure = (outcome == "cancelled").then(cancelled);
        let (key, name, outcome) = (key.to_owned(), name.map(str::to_owned), outcome.to_owned());
        Fact { run_id, step: StepRow { key, kind, name, outcome, output: None, failure, attempt_no: 0, at: self.now } }
    }

    fn activity_fact(&self, task: &TaskRow, outcome: &str) -> Fact {
        let mut fact = self.fact(task.run_id, &task.key, Kind::Activity, Some(&task.activity), outcome);
        fact.step.attempt_no = task.attempt_no;
        fact
    }

    fn note(&mut self, task: &TaskRow, outcome: &str, failure: Option<Value>) {
        self.attempts.push(AttemptRow {
            run_id: task.run_id,
            key: task.key.clone(),
            attempt_no: task.attempt_no,
            outcome: outcome.to_owned(),
            failure,
        });
    }

    // ---- the round trip

    /// `workflow.pump` without claims: gives the fences whose writes were accepted.
    pub(super) fn pump(&mut self, attempts: &[Value], ops: &[Value], plain: &[(Fence, &Plain)]) -> Vec<Fence> {
        let mut accepted = self.settle(attempts);
        accepted.extend(self.advance(ops));
        accepted.extend(self.advance_plain(plain));
        accepted
    }

    /// `workflow.settle`.
    fn settle(&mut self, attempts: &[Value]) -> Vec<Fence> {
        let mut given: Vec<(Fence, &Value)> = attempts.iter().filter_map(|g| Some((fence(g)?, g))).collect();
        given.retain(|(fence, _)| self.held(*fence).is_some_and(|t| !t.is_run()));
        given.sort_by_key(|(fence, _)| fence.task_id);
        let mut facts = Vec::new();
        for (fence, attempt) in &given {
            facts.extend(self.settle_one(fence.task_id, attempt));
        }
        self.record(facts);
        given.into_iter().map(|(fence, _)| fence).collect()
    }

    fn settle_one(&mut self, task_id: i64, given: &Value) -> Option<Fact> {
        let mut task = self.tasks.remove(&task_id)?;
        let ended = text(given, "outcome");
        let (failed, lost) = (matches!(ended, "failed" | "timeout"), ended == "lost");
        let poison = lost && task.losses + 1 >= task.max_losses;
        let failure = match poison {
            true => Some(json!({ "code": "workflow.lost_too_often", "retryable": false, "message": "given up" })),
            false => some(given, "failure"),
        };
        let retryable = failure.as_ref().is_some_and(|f| f["retryable"] == true);
        self.note(&task, ended, failure.clone().filter(|_| !matches!(ended, "ok" | "released")));
        let verdict = match ended {
            "ok" | "cancelled" => ended,
            _ if failed && !retryable => "failed",
            _ if task.cancel_requested => "cancelled",
            _ if failed && task.failures + 1 >= task.max_failures => "failed",
            _ if poison => "failed",
            _ => "again",
        };
        if verdict != "again" {
            let mut fact = self.activity_fact(&task, verdict);
            match verdict {
                "ok" => fact.step.output = some(given, "output"),
                "failed" => fact.step.failure = failure,
                _ => {}
            }
            return Some(fact);
        }
        let delay = match () {
            () if failed => self.retry_delay(task.failures, &task, failure.as_ref()),
            () if lost && task.losses > 0 => self.retry_delay(task.losses - 1, &task, None),
            () => (0.0, 0.0),
        };
        task.failures += i32::from(failed);
        task.losses += i32::from(lost);
        self.rest_for(&mut task, delay);
        self.tasks.insert(task_id, task);
        None
    }

    /// `workflow.retry_delay`: the shortest and the longest delay.
    fn retry_delay(&self, before: i32, task: &TaskRow, failure: Option<&Value>) -> (f64, f64) {
        if let Some(asked) = failure.and_then(|f| f["retry_after_seconds"].as_f64()) {
            let asked = asked.clamp(0.0, 86_400.0);
            return (asked, asked);
        }
        (0.0, (task.backoff_base * 2f64.powi(before.min(40))).min(task.backoff_cap))
    }

    fn rest_for(&mut self, task: &mut TaskRow, (least, most): (f64, f64)) {
        let delay = least + (most - least) * self.chance.share();
        task.rest(if delay > 0.0 { TaskState::Waiting } else { TaskState::Ready }, Some(self.after(delay)));
        if least < most {
            task.drawn = Some((self.after(least), self.after(most)));
        }
    }

    fn after(&self, seconds: f64) -> DateTime<Utc> {
        self.now + chrono::Duration::microseconds((seconds * 1e6).round() as i64)
    }

    /// Part of `workflow.claim`: leases a ready task to a worker.
    pub(super) fn lease(&mut self, task_id: i64, worker: i64) -> Option<TaskRow> {
        let (token, since) = (self.chance.uuid(), self.now);
        let task = self.tasks.get_mut(&task_id)?;
        let expires = since + chrono::Duration::microseconds((task.lease_seconds * 1e6) as i64);
        task.attempt_no += 1;
        (task.state, task.lease) = (TaskState::Leased, Some(Lease { token, worker, since, expires }));
        Some(task.clone())
    }
}

fn cancelled() -> Value {
    json!({ "code": "workflow.cancelled", "message": "cancelled on request", "retryable": false })
}

fn parent_key(run: &RunRow) -> String {
    run.parent.as_ref().map(|(_, key)| key.clone()).unwrap_or_default()
}

/// The fence of a message.
fn fence(message: &Value) -> Option<Fence> {
    let token = message["token"].as_str().and_then(|token| token.parse().ok())?;
    Some(Fence { task_id: message["task_id"].as_i64()?, token })
}

fn text<'a>(message: &'a Value, field: &str) -> &'a str {
    message[field].as_str().unwrap_or_default()
}

fn some(message: &Value, field: &str) -> Option<Value> {
    message.get(field).filter(|value| !value.is_null()).cloned()
}
