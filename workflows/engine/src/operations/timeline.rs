//! What a run did with its time and what it waits for now: bars for a chart, from its attempts, its record and its tasks.

use super::{OperationError, Operations, sql};
use crate::client::Task;
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::FromRow;
use std::collections::HashMap;
use uuid::Uuid;

/// Attempts, records and bars that are looked at: the newest.
const NEWEST: usize = 1000;

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
    /// The run left the memory, and waited for something that it had asked for, or for somebody who resumes it.
    Parked,
    /// A timer ran.
    Sleeping,
    /// The run waited for a signal.
    Signal,
    /// The run waited for another that it had asked for.
    Child,
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

impl AttemptRow {
    /// When it ended; one that is under way has got as far as it has begun.
    fn end(&self) -> DateTime<Utc> {
        self.ended_at.unwrap_or(self.started_at)
    }

    /// Whether it came to nothing, so that what follows is a pause.
    fn failed(&self) -> bool {
        matches!(self.outcome.as_deref(), Some("failed" | "lost" | "timeout"))
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct MarkRow {
    pub key: String,
    pub kind: String,
    pub outcome: String,
    pub recorded_at: DateTime<Utc>,
}

impl Operations {
    /// What a run did with its time, oldest first, and of a long time the newest 1000 bars; a run that was made out of another begins
    /// where it was made.
    ///
    /// # Errors
    /// [`OperationError::NotFound`].
    pub async fn timeline(&self, run_id: Uuid) -> Result<Vec<Span>, OperationError> {
        let run = self.client.run(run_id).await?;
        let Some(run) = run else { return Err(OperationError::NotFound(format!("run {run_id}"))) };
        let attempts = sql::attempts_of(&self.pool, run_id, NEWEST as i64).await?;
        let marks = sql::marks_of(&self.pool, run_id, NEWEST as i64).await?;
        let tasks = self.tasks(run_id).await?;
        let mut db = self.pool.acquire().await?;
        let child = sql::live_child(&mut db, run_id).await?.is_some();
        let mut spans = draw(run.created_at, &attempts, &marks);
        let last: HashMap<&str, &AttemptRow> = attempts.iter().map(|a| (a.step_key.as_str(), a)).collect();
        for task in tasks.iter().filter(|task| task.state != "leased") {
            let last = last.get(task.key.as_str()).copied();
            spans.extend(wait_of(task, run.created_at, last, &marks, &tasks, child));
        }
        // What lasts is as new as anything, and the run itself is never left out of that.
        spans.sort_by_key(|span| (span.until.unwrap_or(DateTime::<Utc>::MAX_UTC), span.key.is_empty()));
        let mut newest = spans.split_off(spans.len().saturating_sub(NEWEST));
        newest.sort_by_key(|span| (span.from, span.until));
        Ok(newest)
    }
}

/// `attempts` in the order of their starts, `marks` in that of their times.
fn draw(created_at: DateTime<Utc>, attempts: &[AttemptRow], marks: &[MarkRow]) -> Vec<Span> {
    // Nothing is known of what a run did before the oldest record that is looked at.
    let begun = marks.first().filter(|_| marks.len() >= NEWEST).map_or(created_at, |mark| mark.recorded_at);
    let mut spans = Vec::new();
    let mut last: HashMap<&str, &AttemptRow> = HashMap::new();
    for a in attempts {
        let (from, doing) = match (last.get(a.step_key.as_str()), a.step_key.is_empty()) {
            (Some(before), _) => (before.end(), after(before, marks)),
            (None, _) if a.attempt_no > 1 => (a.started_at, Doing::Queued),
            (None, true) => (created_at, Doing::Queued),
            (None, false) => (asked_at(begun, marks, a.started_at).min(a.started_at), Doing::Queued),
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
        last.insert(&a.step_key, a);
    }
    let mut before = begun;
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
    spans
}

/// What is waited for between an attempt and the next: for a run, what its record says came then.
fn after(attempt: &AttemptRow, marks: &[MarkRow]) -> Doing {
    if attempt.failed() || !attempt.step_key.is_empty() {
        return Doing::Paused;
    }
    let end = attempt.end();
    match marks.get(marks.partition_point(|mark| mark.recorded_at <= end)).map(|mark| mark.kind.as_str()) {
        Some("timer") => Doing::Sleeping,
        Some("signal") => Doing::Signal,
        Some("child") => Doing::Child,
        _ => Doing::Parked,
    }
}

/// The wait of a task that nobody works on, which lasts; before it what it waited for until it was ready again.
fn wait_of(
    task: &Task,
    created_at: DateTime<Utc>,
    last: Option<&AttemptRow>,
    marks: &[MarkRow],
    tasks: &[Task],
    child: bool,
) -> Vec<Span> {
    let asked = if task.key.is_empty() { created_at } else { asked_at(created_at, marks, DateTime::<Utc>::MAX_UTC) };
    let since = last.map_or(asked, AttemptRow::end);
    let span = |doing, from, until| Span {
        key: task.key.clone(),
        doing,
        from,
        until,
        attempt_no: task.attempt_no + 1,
        worker: None,
        outcome: None,
    };
    let ready = task.run_at.unwrap_or(since).max(created_at);
    match (task.state.as_str(), last) {
        ("ready", Some(last)) if ready > since => {
            vec![span(after(last, marks), since, Some(ready)), span(Doing::Queued, ready, None)]
        }
        ("ready", _) => vec![span(Doing::Queued, ready, None)],
        _ => vec![span(waits_for(task, last, tasks, child), since, None)],
    }
}

/// What something waits for that is not ready. A run waits for the oldest of what it has asked for, as its explanation says.
fn waits_for(task: &Task, last: Option<&AttemptRow>, tasks: &[Task], child: bool) -> Doing {
    match () {
        () if !task.key.is_empty() => Doing::Paused,
        () if task.parked_reason.is_some() || tasks.iter().any(|other| !other.key.is_empty()) => Doing::Parked,
        () if child => Doing::Child,
        () if task.run_at.is_none() => Doing::Signal,
        () if last.is_some_and(AttemptRow::failed) => Doing::Paused,
        () => Doing::Sleeping,
    }
}

/// The definition asked after the newest record before the attempt, or at the start.
fn asked_at(begun: DateTime<Utc>, marks: &[MarkRow], started_at: DateTime<Utc>) -> DateTime<Utc> {
    let before = &marks[..marks.partition_point(|mark| mark.recorded_at <= started_at)];
    before.last().map_or(begun, |mark| mark.recorded_at.max(begun))
}
