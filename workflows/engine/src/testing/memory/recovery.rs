//! What is due and what is lost. As in `34_workflow_recovery.sql`.

use super::{Memory, TaskRow, TaskState, runs::End};
use crate::{client::RunState, record::Kind};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};

/// A run that was in memory for longer than this did not kill its worker.
const YOUNG_SECONDS: i64 = 10;

impl Memory {
    /// When the next sleeper wakes.
    pub(in crate::testing) fn next_due(&self) -> Option<DateTime<Utc>> {
        self.tasks.values().filter(|t| t.state == TaskState::Waiting).filter_map(|t| t.run_at).min()
    }

    /// `workflow.wake_due`.
    pub(in crate::testing) fn wake_due(&mut self) {
        let now = self.now;
        let due = |t: &&mut TaskRow| t.state == TaskState::Waiting && t.run_at.is_some_and(|at| at <= now);
        self.tasks.values_mut().filter(due).for_each(|t| t.state = TaskState::Ready);
    }

    /// `workflow.recover`: takes back what the incarnations `gone` held, what has not been renewed, and what took too long.
    pub(in crate::testing) fn recover(&mut self, gone: &[i64]) {
        let now = self.now;
        let late = |t: &TaskRow| t.lease.as_ref().is_some_and(|l| after(l.since, t.start_to_close) < now);
        let lost: Vec<TaskRow> = self
            .tasks
            .values()
            .filter(|t| {
                t.lease.as_ref().is_some_and(|l| l.expires < now || gone.contains(&l.worker) || !t.is_run() && late(t))
            })
            .cloned()
            .collect();
        let attempts: Vec<Value> = lost
            .iter()
            .filter(|t| !t.is_run())
            .filter_map(|t| {
                let token = t.lease.as_ref()?.token;
                let (outcome, code) = if late(t) { ("timeout", "workflow.timeout") } else { ("lost", "workflow.lost") };
                let failure = json!({ "code": code, "retryable": true, "message": code });
                Some(json!({ "task_id": t.id, "token": token, "outcome": outcome, "failure": failure }))
            })
            .collect();
        self.settle(&attempts);
        for run in lost.iter().filter(|t| t.is_run()) {
            let Some(lease) = &run.lease else { continue };
            let expired = lease.expires < now;
            let last_seen = if expired { after(lease.expires, -run.lease_seconds) } else { now };
            self.recover_run(run.id, lease.since > last_seen - chrono::Duration::seconds(YOUNG_SECONDS));
        }
    }

    fn recover_run(&mut self, task_id: i64, young: bool) {
        let Some(mut run) = self.tasks.get(&task_id).cloned() else { return };
        let served = self.tasks.values().any(|t| !t.is_run() && t.run_id == run.run_id)
            || self.live_children(run.run_id).next().is_some();
        let given_up = young && run.losses + 1 >= run.max_losses && !served;
        let compensates = self.steps.get(&run.run_id).is_some_and(|s| s.iter().any(|s| s.kind == Kind::Compensation));
        if given_up && !compensates {
            let error = json!({ "code": "workflow.lost_too_often", "retryable": false, "message": "given up" });
            return self
                .end_run(task_id, End { state: RunState::Failed, output: None, error: Some(error), next: None });
        }
        self.note(&run, "lost", None);
        let longest = (0.1 * 2f64.powi(run.losses)).min(60.0);
        if given_up {
            run.rest(TaskState::Waiting, None);
            run.parked = Some("lost_too_often".to_owned());
        } else if run.losses == 0 {
            run.rest(TaskState::Ready, Some(self.now));
        } else {
            self.rest_for(&mut run, (longest / 2.0, longest));
        }
        run.losses = (run.losses + i32::from(young)).min(run.max_losses);
        self.tasks.insert(task_id, run);
    }
}

pub(super) fn after(at: DateTime<Utc>, seconds: f64) -> DateTime<Utc> {
    at + chrono::Duration::microseconds((seconds * 1e6).round() as i64)
}
