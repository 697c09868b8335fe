//! Runs: what they ask for, how they end, how they are stopped, what they are told. As in `32_workflow_runs.sql` and
//! `50_workflow_plans.sql`.

use super::{Fact, Memory, NewRun, RunRow, StepRow, TaskRow, TaskState, fence, parent_key, some, text};
use crate::{
    activity::Labels,
    client::RunState,
    record::Kind,
    store::{Fence, tasks::Plain},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// What a run leaves behind.
pub(super) struct End {
    pub state: RunState,
    pub output: Option<Value>,
    pub error: Option<Value>,
    /// What it goes on as.
    pub next: Option<Value>,
}

impl Memory {
    /// `workflow.advance`.
    pub(super) fn advance(&mut self, ops: &[Value]) -> Vec<Fence> {
        let held = |op: &&Value| fence(op).and_then(|fence| self.held(fence)).is_some_and(TaskRow::is_run);
        let ops: Vec<&Value> = ops.iter().filter(held).collect();
        let of = |names: &'static [&str]| ops.iter().copied().filter(move |op| names.contains(&text(op, "op")));
        let mut accepted: Vec<Fence> = ops.iter().filter_map(|op| fence(op)).collect();
        accepted.sort_by_key(|fence| fence.task_id);
        accepted.dedup();
        let mut facts = Vec::new();
        of(&["request"]).for_each(|op| facts.extend(self.request(op)));
        of(&["child", "start"]).for_each(|op| facts.extend(self.start_run(op)));
        of(&["withdraw"]).for_each(|op| facts.extend(self.withdraw(op)));
        of(&["mark"]).for_each(|op| facts.extend(self.mark(op)));
        of(&["timer"]).for_each(|op| facts.extend(self.mark(op)));
        self.record(facts);
        for op in of(&["withdraw"]) {
            let Some(run_id) = self.run_of(op) else { continue };
            let children = self.live_children(run_id).filter(|c| parent_key(c) == text(op, "key"));
            self.cascade(children.map(|c| c.id).collect());
        }
        of(&["park", "release"]).for_each(|op| self.leave(op));
        for op in of(&["end"]) {
            let end = End {
                state: state_of(text(op, "state")),
                output: some(op, "output"),
                error: some(op, "error"),
                next: some(op, "next"),
            };
            self.end_run(op["task_id"].as_i64().unwrap_or_default(), end);
        }
        accepted
    }

    fn run_of(&self, op: &Value) -> Option<Uuid> {
        self.tasks.get(&op["task_id"].as_i64()?).map(|t| t.run_id)
    }

    fn request(&mut self, op: &Value) -> Option<Fact> {
        let (run, key) = (self.tasks.get(&op["task_id"].as_i64()?)?.clone(), text(op, "key"));
        if self.is_recorded(run.run_id, key) {
            return None;
        }
        // Asked for again, because the answer was lost: it says itself what came of it.
        if self.tasks.values().any(|t| t.run_id == run.run_id && t.key == key) {
            return None;
        }
        let shielded = op["shielded"] == true;
        if run.cancel_requested && !shielded {
            return Some(self.fact(run.run_id, key, Kind::Activity, Some(text(op, "activity")), "cancelled"));
        }
        let (number, count) = (
            |field: &str| op[field].as_f64().unwrap_or_default(),
            |field: &str| op[field].as_i64().unwrap_or_default() as i32,
        );
        self.insert_task(TaskRow {
            id: 0,
            run_id: run.run_id,
            key: key.to_owned(),
            queue: text(op, "queue").to_owned(),
            activity: text(op, "activity").to_owned(),
            input: op["input"].clone(),
            labels: serde_json::from_value::<Labels>(op["labels"].clone()).unwrap_or_default(),
            priority: run.priority,
            run_at: Some(self.now),
            drawn: None,
            state: TaskState::Ready,
            attempt_no: 0,
            failures: 0,
            max_failures: count("max_failures"),
            losses: 0,
            max_losses: count("max_losses"),
            backoff_base: number("backoff_base"),
            backoff_cap: number("backoff_cap"),
            lease_seconds: number("lease"),
            start_to_close: number("start_to_close"),
            lease: None,
            cancel_requested: false,
            shielded,
            parked: None,
            wake_seq: 0,
        });
        // Asking for something new is progress.
        self.tasks.get_mut(&run.id)?.losses = 0;
        None
    }

    /// `workflow.start_runs`, for one.
    fn start_run(&mut self, op: &Value) -> Option<Fact> {
        let (run, key, kind) = (self.tasks.get(&op["task_id"].as_i64()?)?.clone(), text(op, "key"), text(op, "kind"));
        if self.is_recorded(run.run_id, key) {
            return None;
        }
        let detached = text(op, "op") == "start";
        // Asked for again, because the answer was lost.
        if !detached && self.live_children(run.run_id).any(|c| parent_key(c) == key) {
            return None;
        }
        if !detached && run.cancel_requested {
            return Some(self.fact(run.run_id, key, Kind::Child, Some(kind), "cancelled"));
        }
        let parent = self.runs.get(&run.run_id)?.clone();
        let new = NewRun {
            id: self.new_run_id(),
            tenant_id: parent.tenant_id,
            kind: kind.to_owned(),
            version: op["version"].as_i64()? as i32,
            business_key: some(op, "business_key").and_then(|key| key.as_str().map(str::to_owned)),
            input: op["input"].clone(),
            priority: op["priority"].as_i64()? as i16,
        };
        let (id, rival) = (new.id, self.by_key(kind, parent.tenant_id, &new.business_key));
        if rival.is_none() {
            let (root, losses) = (parent.root.unwrap_or(parent.id), op["max_losses"].as_i64().unwrap_or_default());
            self.insert_run(new, Some((run.run_id, key.to_owned(), root, detached)), losses as i32);
        }
        detached.then(|| {
            let mut fact = self.fact(run.run_id, key, Kind::Start, Some(kind), "ok");
            fact.step.output = Some(json!(rival.unwrap_or(id)));
            fact.step.attempt_no = run.attempt_no;
            fact
        })
    }

    /// `workflow.withdraw`, for one.
    fn withdraw(&mut self, op: &Value) -> Option<Fact> {
        let (run_id, key) = (self.run_of(op)?, text(op, "key"));
        let task = self.tasks.values_mut().find(|t| t.run_id == run_id && !key.is_empty() && t.key == key)?;
        if task.state == TaskState::Leased {
            task.cancel_requested = true;
            return None;
        }
        let id = task.id;
        let task = self.tasks.remove(&id)?;
        Some(self.activity_fact(&task, "cancelled"))
    }

    fn mark(&self, op: &Value) -> Option<Fact> {
        let run = self.tasks.get(&op["task_id"].as_i64()?)?;
        let is_timer = text(op, "op") == "timer";
        let (kind, outcome) = match is_timer {
            true => (Kind::Timer, text(op, "outcome")),
            false => (Kind::parse(text(op, "kind")), "ok"),
        };
        let mut fact = self.fact(run.run_id, text(op, "key"), kind, op["name"].as_str(), outcome);
        fact.step.output = if is_timer { None } else { op.get("output").cloned().filter(|o| !o.is_null()) };
        fact.step.attempt_no = run.attempt_no;
        Some(fact)
    }

    /// Records the outcome of a step, as the transaction of a step does; false when the lease is lost.
    pub(in crate::testing) fn step(&mut self, fence: Fence, key: &str, outcome: Result<Value, Value>) -> bool {
        let Some(run) = self.held(fence).filter(|t| t.is_run()).cloned() else { return false };
        if self.is_recorded(run.run_id, key) {
            return false;
        }
        let mut fact = self.fact(run.run_id, key, Kind::Step, None, if outcome.is_ok() { "ok" } else { "failed" });
        (fact.step.output, fact.step.failure) = match outcome {
            Ok(output) => (Some(output), None),
            Err(failure) => (None, Some(failure)),
        };
        fact.step.attempt_no = run.attempt_no;
        self.record(vec![fact]);
        true
    }

    /// The ops `park` and `release` of `workflow.leave`.
    fn leave(&mut self, op: &Value) {
        let Some(task) = op["task_id"].as_i64().and_then(|id| self.tasks.get(&id)).cloned() else { return };
        self.note(&task, "released", None);
        let (now, reason) = (self.now, some(op, "reason").and_then(|reason| reason.as_str().map(str::to_owned)));
        let sleeps = text(op, "op") == "park" && (op["seq"].as_i64() == Some(task.wake_seq) || reason.is_some());
        let due = op["due"].as_str().and_then(|due| due.parse().ok());
        if let Some(task) = self.tasks.get_mut(&task.id) {
            match sleeps {
                true => task.rest(TaskState::Waiting, due),
                false => task.rest(TaskState::Ready, Some(now)),
            }
            task.parked = reason;
        }
    }

    /// `workflow.advance_plain`.
    pub(super) fn advance_plain(&mut self, plain: &[(Fence, &Plain)]) -> Vec<Fence> {
        let held: Vec<_> = plain.iter().copied().filter(|(fence, _)| self.held(*fence).is_some()).collect();
        let (late, held): (Vec<_>, Vec<_>) = held.into_iter().partition(|(fence, plain)| {
            plain.seq.is_some_and(|seq| self.tasks.get(&fence.task_id).is_some_and(|run| run.wake_seq + 1 != seq))
        });
        for (fence, plain) in
            held.iter().chain(&late).flat_map(|(fence, plain)| plain.entries().map(move |p| (fence, p)))
        {
            let (Some(key), Some(run)) = (&plain.key, self.tasks.get(&fence.task_id)) else { continue };
            let mut fact = self.fact(run.run_id, key, Kind::parse(plain.what), plain.name, "ok");
            fact.step.output.clone_from(&plain.body);
            fact.step.attempt_no = run.attempt_no;
            self.record(vec![fact]);
        }
        for (fence, plain) in held.iter().filter(|(_, plain)| plain.key.is_none()) {
            let (state, body) = (state_of(plain.what), plain.body.clone());
            let (output, error) = if state == RunState::Succeeded { (body, None) } else { (None, body) };
            self.end_run(fence.task_id, End { state, output, error, next: None });
        }
        for (fence, _) in late {
            self.leave(&json!({ "op": "release", "task_id": fence.task_id }));
        }
        held.into_iter().map(|(fence, _)| fence).collect()
    }

    /// `workflow.end_run`.
    pub(super) fn end_run(&mut self, task_id: i64, End { state, output, error, next }: End) {
        let Some(run) = self.tasks.get(&task_id).cloned() else { return };
        let next = next.map(|next| (self.new_run_id(), next));
        let left_over: Vec<TaskRow> =
            self.tasks.values().filter(|t| t.run_id == run.run_id && !t.is_run()).cloned().collect();
        let children: Vec<Uuid> = self.live_children(run.run_id).map(|c| c.id).collect();
        let mut facts = Vec::new();
        for task in left_over {
            self.tasks.remove(&task.id);
            if task.state == TaskState::Leased {
                self.note(&task, "cancelled", None);
            }
            facts.push(self.activity_fact(&task, "cancelled"));
        }
        for child in children.iter().filter_map(|id| self.runs.get(id)) {
            facts.push(self.fact(run.run_id, &parent_key(child), Kind::Child, Some(&child.kind), "cancelled"));
        }
        self.record(facts);
        if run.lease.is_some() {
            self.note(&run, if state == RunState::Succeeded { "ok" } else { state.as_str() }, error.clone());
        }
        self.tasks.remove(&task_id);
        if let Some(row) = self.runs.get_mut(&run.run_id) {
            (row.state, row.output, row.error) = (state, output, error);
            row.continued_as = next.as_ref().map(|(id, _)| *id);
        }
        match next {
            Some((id, next)) => self.succeed(&run, id, &next),
            None => self.deliver(run.run_id),
        }
        self.cascade(children);
    }

    /// `workflow.succeed`.
    fn succeed(&mut self, run: &TaskRow, id: Uuid, next: &Value) {
        let Some(before) = self.runs.get(&run.run_id).cloned() else { return };
        let (priority, seq) =
            (next["priority"].as_i64().unwrap_or_default() as i16, next["seq"].as_i64().unwrap_or_default());
        let untaken = |key: &str| next["signals"].as_array().is_some_and(|keys| keys.iter().any(|k| k == key));
        let carried: Vec<StepRow> = self
            .steps
            .get(&run.run_id)
            .map(Vec::as_slice)
            .unwrap_or_default()
            .iter()
            .enumerate()
            .filter(|(at, s)| match s.kind {
                Kind::Cancel => true,
                Kind::Signal => *at as i64 + 1 > seq || untaken(&s.key),
                _ => false,
            })
            .map(|(_, s)| StepRow { attempt_no: 0, at: self.now, ..s.clone() })
            .collect();
        let row = RunRow {
            id,
            version: next["version"].as_i64().unwrap_or(1) as i32,
            input: next["input"].clone(),
            priority,
            state: RunState::Running,
            output: None,
            error: None,
            created_at: self.now,
            continued_as: None,
            ..before
        };
        self.runs.insert(id, row);
        self.insert_run_task(id, text(next, "activity").to_owned(), priority, run.max_losses);
        let (seq, cancel_requested) = (carried.len() as i64, run.cancel_requested);
        self.steps.insert(id, carried);
        if let Some(task) = self.task_of_mut(id) {
            (task.wake_seq, task.cancel_requested) = (seq, cancel_requested);
        }
    }

    /// `workflow.deliver`.
    fn deliver(&mut self, run_id: Uuid) {
        let Some(run) = self.runs.get(&run_id).filter(|r| !r.detached).cloned() else { return };
        let Some((parent, key)) = &run.parent else { return };
        let outcome = if run.state == RunState::Succeeded { "ok" } else { run.state.as_str() };
        let mut fact = self.fact(*parent, key, Kind::Child, Some(&run.kind), outcome);
        (fact.step.output, fact.step.failure) = (run.output.clone(), run.error.clone());
        self.record(vec![fact]);
    }

    /// `workflow.cancel`: false when the run is over or was asked before.
    pub(in crate::testing) fn cancel(&mut self, run_id: Uuid, reason: &str) -> bool {
        let Some(run_id) = self.live(run_id) else { return false };
        let asked = self.task_of(run_id).is_none_or(|t| t.cancel_requested);
        if !asked {
            self.cancel_locked(&[run_id], reason);
        }
        !asked
    }

    /// The run that goes on in the place of this one, if any does.
    fn live(&self, mut run_id: Uuid) -> Option<Uuid> {
        while self.task_of(run_id).is_none() {
            run_id = self.runs.get(&run_id)?.continued_as?;
        }
        Some(run_id)
    }

    fn cancel_locked(&mut self, runs: &[Uuid], reason: &str) {
        let mut facts: Vec<Fact> = Vec::new();
        for run_id in runs {
            let mut fact = self.fact(*run_id, "$cancel", Kind::Cancel, None, "ok");
            fact.step.output = Some(json!(reason));
            facts.push(fact);
            if let Some(run) = self.runs.get_mut(run_id) {
                run.cancel_requested = true;
            }
        }
        let concerned = |t: &TaskRow| runs.contains(&t.run_id) && !t.shielded;
        self.tasks.values_mut().filter(|t| concerned(t)).for_each(|t| t.cancel_requested = true);
        let idle = |t: &&TaskRow| concerned(t) && !t.is_run() && t.state != TaskState::Leased;
        let gone: Vec<i64> = self.tasks.values().filter(idle).map(|t| t.id).collect();
        for task in gone.iter().filter_map(|id| self.tasks.remove(id)).collect::<Vec<_>>() {
            facts.push(self.activity_fact(&task, "cancelled"));
        }
        self.record(facts);
        let children = runs.iter().flat_map(|run_id| self.live_children(*run_id)).filter(|c| !c.cancel_requested);
        self.cascade(children.map(|c| c.id).collect());
    }

    /// `workflow.cascade`.
    fn cascade(&mut self, runs: Vec<Uuid>) {
        let open = |run_id: &Uuid| self.task_of(*run_id).is_some_and(|t| !t.cancel_requested);
        let runs: Vec<Uuid> = runs.into_iter().filter(open).collect();
        if !runs.is_empty() {
            self.cancel_locked(&runs, "the run that asked for it was cancelled or is over");
        }
    }

    /// `workflow.signal`.
    pub(in crate::testing) fn signal(
        &mut self,
        run_id: Uuid,
        name: &str,
        dedupe: Option<&str>,
        payload: Value,
    ) -> &'static str {
        let key = match dedupe {
            Some(dedupe) => format!("$signal:{name}:{dedupe}"),
            None => format!("$signal:{name}:#{}", self.chance.uuid()),
        };
        let mut at = run_id;
        loop {
            if dedupe.is_some() && self.is_recorded(at, &key) {
                return "repeated";
            }
            if self.task_of(at).is_some() {
                let mut fact = self.fact(at, &key, Kind::Signal, Some(name), "ok");
                fact.step.output = Some(payload);
                self.record(vec![fact]);
                return "accepted";
            }
            match self.runs.get(&at).and_then(|r| r.continued_as) {
                Some(next) => at = next,
                None if self.runs.contains_key(&run_id) => return "closed",
                None => return "unknown",
            }
        }
    }
}

pub(super) fn state_of(name: &str) -> RunState {
    match name {
        "succeeded" => RunState::Succeeded,
        "cancelled" => RunState::Cancelled,
        "failed" => RunState::Failed,
        _ => RunState::Running,
    }
}
