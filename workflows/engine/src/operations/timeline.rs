//! What a run did with its time: bars for a chart, from its attempts and its record.

use super::{OperationError, Operations, sql};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use std::collections::HashMap;
use uuid::Uuid;

/// What a bar stands for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Doing {
    /// Nobody had taken it yet. For the first attempt at an activity this is at most as long as it looks.
    Queued,
    /// Somebody worked on it.
    Working,
    /// It paused between two attempts, and waited for the next.
    Paused,
    /// The run left the memory: it slept, or waited for somebody else.
    Parked,
    /// A timer ran.
    Sleeping,
    /// A transaction.
    Step,
}

/// A bar of the chart.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Span {
    /// The step key; empty for the run itself.
    pub key: String,
    /// What it stands for.
    pub doing: Doing,
    /// Its beginning.
    pub from: DateTime<Utc>,
    /// Its end; none while it lasts.
    pub until: Option<DateTime<Utc>>,
    /// The attempt, from 1; 0 for what has none.
    pub attempt_no: i32,
    /// Who worked on it.
    pub worker: Option<String>,
    /// `ok`, `failed`, `lost`, `released`, `cancelled`, `timeout`; none while it lasts.
    pub outcome: Option<String>,
}

#[derive(Debug, FromRow)]
pub(crate) struct AttemptRow {
    pub step_key: String,
    pub attempt_no: i32,
    pub worker: String,
    pub started_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub outcome: Option<String>,
}

#[derive(Debug, FromRow)]
pub(crate) struct MarkRow {
    pub key: String,
    pub kind: String,
    pub outcome: String,
    pub recorded_at: DateTime<Utc>,
}

impl Operations {
    /// What a run did with its time, oldest first; a run that was made out of another begins where it was made.
    ///
    /// # Errors
    /// [`OperationError::NotFound`].
    pub async fn timeline(&self, run_id: Uuid) -> Result<Vec<Span>, OperationError> {
        let run = self.client.run(run_id).await?;
        let Some(run) = run else { return Err(OperationError::NotFound(format!("run {run_id}"))) };
        let attempts = sql::attempts_of(&self.pool, run_id).await?;
        let marks = sql::marks_of(&self.pool, run_id).await?;
        Ok(draw(run.created_at, &attempts, &marks))
    }
}

/// `attempts` in the order of their starts, `marks` in that of the record.
fn draw(created_at: DateTime<Utc>, attempts: &[AttemptRow], marks: &[MarkRow]) -> Vec<Span> {
    let mut spans = Vec::new();
    let mut last_end: HashMap<&str, DateTime<Utc>> = HashMap::new();
    for a in attempts {
        let (from, doing) = match (last_end.get(a.step_key.as_str()), a.step_key.is_empty()) {
            (Some(end), true) => (*end, Doing::Parked),
            (Some(end), false) => (*end, Doing::Paused),
            (None, true) => (created_at, Doing::Queued),
            (None, false) => (asked_at(created_at, marks, a.started_at), Doing::Queued),
        };
        let wait = Span {
            key: a.step_key.clone(),
            doing,
            from,
            until: Some(a.started_at),
            attempt_no: a.attempt_no,
            worker: None,
            outcome: None,
        };
        let work = Span {
            doing: Doing::Working,
            from: a.started_at,
            until: a.ended_at,
            worker: Some(a.worker.clone()),
            outcome: a.outcome.clone(),
            ..wait.clone()
        };
        spans.extend([wait, work]);
        last_end.insert(&a.step_key, a.ended_at.unwrap_or(a.started_at));
    }
    let mut before = created_at;
    for mark in marks {
        let doing = match mark.kind.as_str() {
            "timer" => Some(Doing::Sleeping),
            "step" => Some(Doing::Step),
            _ => None,
        };
        spans.extend(doing.map(|doing| Span {
            key: mark.key.clone(),
            doing,
            from: before.min(mark.recorded_at),
            until: Some(mark.recorded_at),
            attempt_no: 0,
            worker: None,
            outcome: Some(mark.outcome.clone()),
        }));
        before = before.max(mark.recorded_at);
    }
    spans.sort_by_key(|span| (span.from, span.until));
    spans
}

/// The definition asked after the newest record before the attempt, or at the start.
fn asked_at(created_at: DateTime<Utc>, marks: &[MarkRow], started_at: DateTime<Utc>) -> DateTime<Utc> {
    marks.iter().map(|m| m.recorded_at).filter(|at| *at <= started_at).max().unwrap_or(created_at).max(created_at)
}
