//! What only this test asks of the tables in memory: claims by queue, renewals, and what operators do.

use super::super::{Memory, NewRun, StepRow, TaskRow, TaskState, text};
use crate::{
    activity::Labels,
    client::RunState,
    record::Kind,
    store::{Fence, runs::MAX_LOSSES},
};
use serde_json::{Value, json};
use uuid::Uuid;

/// A run that was made out of another.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lineage {
    pub run_id: Uuid,
    pub root: Uuid,
    pub retry: bool,
}

impl Memory {
    /// `workflow.start_here`: those that are the worker's at once.
    pub(super) fn start_here(&mut self, runs: Vec<NewRun>, lease: usize, worker: i64) -> Vec<TaskRow> {
        let fresh = runs.into_iter().filter(|new| !self.runs.contains_key(&new.id)).collect::<Vec<_>>();
        let mut tasks = Vec::new();
        for new in fresh {
            self.insert_run(new, None, MAX_LOSSES);
            tasks.push(self.last_task);
        }
        tasks.into_iter().take(lease).filter_map(|id| self.lease(id, worker)).collect()
    }

    /// `workflow.claim`.
    pub(super) fn claim(&mut self, worker: i64, queue: &str, want: usize, labels: &Labels) -> Vec<TaskRow> {
        let fits = |t: &&TaskRow| {
            let has = |(name, value): (&String, &String)| labels.get(name) == Some(value);
            t.queue == queue && t.state == TaskState::Ready && t.labels.iter().all(has)
        };
        let mut ready: Vec<_> = self.tasks.values().filter(fits).map(|t| (-t.priority, t.run_at, t.id)).collect();
        ready.sort();
        ready.into_iter().take(want).filter_map(|(.., id)| self.lease(id, worker)).collect()
    }

    /// `workflow.renew`.
    pub(super) fn renew(&mut self, fence: Fence) -> Option<(i64, bool)> {
        let now = self.now;
        self.held(fence)?;
        let task = self.tasks.get_mut(&fence.task_id)?;
        if let Some(lease) = &mut task.lease {
            lease.expires = now + chrono::Duration::microseconds((task.lease_seconds * 1e6) as i64);
        }
        Some((task.id, task.cancel_requested))
    }

    /// `workflow.resume`.
    pub(super) fn resume(&mut self, run_id: Uuid) -> bool {
        let now = self.now;
        let Some(task) = self.task_of_mut(run_id).filter(|t| t.parked.is_some()) else { return false };
        task.rest(TaskState::Ready, Some(now));
        (task.losses, task.parked) = (0, None);
        true
    }

    /// `workflow.retry_now`.
    pub(super) fn retry_now(&mut self, task_id: i64) -> &'static str {
        let now = self.now;
        match self.tasks.get_mut(&task_id) {
            None => "not_found",
            Some(task) if task.is_run() || task.state != TaskState::Waiting => "moved",
            Some(task) => {
                task.rest(TaskState::Ready, Some(now));
                "done"
            }
        }
    }

    /// `workflow.force_release`.
    pub(super) fn force_release(&mut self, task_id: i64) -> &'static str {
        let now = self.now;
        match self.tasks.get(&task_id).cloned() {
            None => "not_found",
            Some(task) if task.state != TaskState::Leased => "moved",
            Some(task) => {
                self.note(&task, "released", Some(json!({ "code": "workflow.force_released" })));
                if !task.is_run() && task.cancel_requested {
                    self.tasks.remove(&task_id);
                    self.record(vec![self.activity_fact(&task, "cancelled")]);
                } else {
                    self.tasks.entry(task_id).and_modify(|task| task.rest(TaskState::Ready, Some(now)));
                }
                "done"
            }
        }
    }

    /// `workflow.skip_activity`.
    pub(super) fn skip(&mut self, task_id: i64, output: &Value) -> &'static str {
        match self.tasks.get(&task_id).cloned() {
            None => "not_found",
            Some(task) if task.is_run() => "moved",
            Some(task) => {
                self.tasks.remove(&task_id);
                if task.state == TaskState::Leased {
                    self.note(&task, "cancelled", None);
                }
                let mut fact = self.activity_fact(&task, "ok");
                fact.step.output = Some(output.clone());
                self.record(vec![fact]);
                "done"
            }
        }
    }

    /// `workflow.set_priority`.
    pub(super) fn set_priority(&mut self, run_id: Uuid, priority: i16) -> &'static str {
        let live = self.task_of(run_id).is_some();
        match self.runs.get_mut(&run_id) {
            None => "not_found",
            Some(_) if !live => "moved",
            Some(run) => {
                run.priority = priority;
                self.tasks.values_mut().filter(|t| t.run_id == run_id).for_each(|t| t.priority = priority);
                "done"
            }
        }
    }

    /// `workflow.fork_run`, without edits.
    pub(super) fn fork(
        &mut self,
        lineage: &mut Vec<Lineage>,
        origin: Uuid,
        new: Uuid,
        retry: bool,
        from: Option<&str>,
    ) -> &'static str {
        let Some(run) = self.runs.get(&origin).cloned() else { return "not_found" };
        let root = lineage.iter().find(|l| l.run_id == origin).map_or(origin, |l| l.root);
        let code = |value: &Option<Value>| value.as_ref().map(|v| text(v, "code").to_owned());
        if retry {
            let stands = |l: &Lineage| {
                let state = self.runs.get(&l.run_id).map(|r| r.state);
                l.root == root && l.retry && matches!(state, Some(RunState::Running | RunState::Succeeded))
            };
            if !matches!(run.state, RunState::Failed | RunState::Cancelled) {
                return "moved";
            } else if lineage.iter().any(stands) || code(&run.error).as_deref() == Some("workflow.compensation_failed")
            {
                return "conflict";
            }
        }
        let steps = self.steps.get(&origin).cloned().unwrap_or_default();
        let place = |key: &str| steps.iter().position(|s| s.key == key);
        let undone = |key: &str| key.strip_prefix("$compensate:").is_some_and(|undo| place(undo).is_some());
        let before = match from {
            Some(key) if place(key).is_some() => place(key),
            Some(key) if self.tasks.values().any(|t| t.run_id == origin && t.key == key) => None,
            Some(_) => return "no_such_step",
            None if steps.iter().any(|s| s.kind == Kind::Compensation && undone(&s.key)) => Some(0),
            None => {
                let bad = |s: &&StepRow| s.outcome != "ok";
                let cause = steps.iter().filter(bad).find(|s| code(&s.failure) == code(&run.error));
                cause.or_else(|| steps.iter().find(bad)).and_then(|s| place(&s.key))
            }
        };
        let cancelled = steps.iter().position(|s| s.kind == Kind::Cancel);
        let copied = [before, cancelled].into_iter().flatten().min().unwrap_or(steps.len());
        let fork = NewRun {
            id: new,
            tenant_id: run.tenant_id,
            kind: run.kind,
            version: run.version,
            business_key: None,
            input: run.input,
            priority: run.priority,
        };
        self.start(fork);
        self.steps.insert(new, steps[..copied].to_vec());
        self.task_of_mut(new).expect("it was started").wake_seq = copied as i64;
        lineage.push(Lineage { run_id: new, root, retry });
        "done"
    }
}
