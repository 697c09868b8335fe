//! Runs, their history and their tasks, as callers see them.

use crate::{
    activity::Progress,
    failure::Failure,
    store,
    trace::{self, TraceContext},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use sqlx::{FromRow, types::Json};
use uuid::Uuid;

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RunState {
    /// Not over; what it waits for is in [`Client::progress`](crate::Client::progress).
    Running,
    /// Over, with an output.
    Succeeded,
    /// Over, with an error.
    Failed,
    /// Over because somebody asked for it.
    Cancelled,
}

impl RunState {
    /// The word it is stored under.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        self != Self::Running
    }
}

/// A run, without its history.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// The run.
    pub id: Uuid,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// [`Workflow::NAME`](crate::Workflow::NAME).
    pub kind: String,
    /// [`Workflow::VERSION`](crate::Workflow::VERSION) at the start.
    pub version: i32,
    /// What it is about.
    pub business_key: Option<String>,
    /// Where it stands.
    pub state: RunState,
    /// What it was started with.
    pub input: Value,
    /// Set when it succeeded.
    pub output: Option<Value>,
    /// Set when it failed or was cancelled.
    pub error: Option<Failure>,
    /// Higher goes first.
    pub priority: i16,
    /// When somebody first asked it to stop.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// Why.
    pub cancel_reason: Option<String>,
    /// When it was started.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The run that asked for it.
    pub parent_run_id: Option<Uuid>,
    /// Under which key.
    pub parent_key: Option<String>,
    /// The first of its ancestors.
    pub root_run_id: Option<Uuid>,
    /// Whether it outlives the run that asked for it.
    pub detached: bool,
    /// The run in whose place it goes on.
    pub continued_from: Option<Uuid>,
    /// The run that goes on in its place.
    pub continued_as: Option<Uuid>,
    /// Where it was started, in which trace.
    pub traceparent: Option<TraceContext>,
}

/// One entry of the history of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// From 1, in the order of commits.
    pub seq: i64,
    /// The key the definition gave it.
    pub key: String,
    /// `step`, `activity`, `timer`, `cancel`, `signal`, `child`, `start`, `patch` or `compensation`.
    pub kind: String,
    /// The activity, the kind of the child or of the run that was started, the name of the signal.
    pub name: Option<String>,
    /// `ok`, `failed` or `cancelled`.
    pub outcome: String,
    /// What it gave back.
    pub output: Option<Value>,
    /// Why not.
    pub failure: Option<Failure>,
    /// The attempt that wrote it.
    pub attempt_no: i32,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
}

/// Something a run has still to do.
#[derive(Debug, Clone, Serialize)]
pub struct Task {
    /// The task.
    pub id: i64,
    /// The step key; empty for the run itself.
    pub key: String,
    /// The queue it is in.
    pub queue: String,
    /// The activity; for the run itself its kind and version.
    pub activity: String,
    /// `ready`, `waiting` or `leased`.
    pub state: String,
    /// Claims so far.
    pub attempt_no: i32,
    /// Attempts that failed.
    pub failures: i32,
    /// Attempts that were lost.
    pub losses: i32,
    /// When a waiting task becomes ready; null when only a record can wake it.
    pub run_at: Option<DateTime<Utc>>,
    /// Who works on it.
    pub leased_by: Option<String>,
    /// Since when.
    pub leased_at: Option<DateTime<Utc>>,
    /// Until when, unless renewed.
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// How far the attempt has come.
    pub progress: Option<Progress>,
    /// Whether it was asked to stop.
    pub cancel_requested: bool,
    /// Why nobody goes on with the run until somebody resumes it: `version_mismatch`, `lost_too_often`, `unrecordable`, `unreadable`.
    pub parked_reason: Option<String>,
    /// What stands in its way.
    pub parked_failure: Option<Failure>,
}

/// What a run is doing right now.
#[derive(Debug, Clone, Serialize)]
pub struct RunProgress {
    /// The run's own task; none once it is over.
    pub run: Option<Task>,
    /// Its live activities, oldest first.
    pub activities: Vec<Task>,
    /// What it has done, oldest first.
    pub history: Vec<Event>,
}

#[derive(FromRow)]
pub(crate) struct RunRow {
    id: Uuid,
    tenant_id: Uuid,
    kind: String,
    version: i32,
    business_key: Option<String>,
    state: RunState,
    input: Value,
    output: Option<Value>,
    error: Option<Value>,
    priority: i16,
    cancel_requested_at: Option<DateTime<Utc>>,
    cancel_reason: Option<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    parent_run_id: Option<Uuid>,
    parent_key: Option<String>,
    root_run_id: Option<Uuid>,
    detached: bool,
    continued_from: Option<Uuid>,
    continued_as: Option<Uuid>,
    traceparent: Option<String>,
}

impl From<RunRow> for Run {
    fn from(row: RunRow) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            kind: row.kind,
            version: row.version,
            business_key: row.business_key,
            state: row.state,
            input: row.input,
            output: row.output,
            error: row.error.map(|json| store::stored_failure(Some(json))),
            priority: row.priority,
            cancel_requested_at: row.cancel_requested_at,
            cancel_reason: row.cancel_reason,
            created_at: row.created_at,
            finished_at: row.finished_at,
            parent_run_id: row.parent_run_id,
            parent_key: row.parent_key,
            root_run_id: row.root_run_id,
            detached: row.detached,
            continued_from: row.continued_from,
            continued_as: row.continued_as,
            traceparent: trace::parse(row.traceparent.as_deref()),
        }
    }
}

impl Run {
    /// The output of a run that succeeded, as its workflow's type.
    pub fn output_as<T: DeserializeOwned>(&self) -> Option<T> {
        (self.state == RunState::Succeeded)
            .then(|| serde_json::from_value(self.output.clone().unwrap_or_default()).ok())
            .flatten()
    }
}

#[derive(FromRow)]
pub(crate) struct EventRow {
    seq: i64,
    key: String,
    kind: String,
    name: Option<String>,
    outcome: String,
    output: Option<Value>,
    failure: Option<Value>,
    attempt_no: i32,
    recorded_at: DateTime<Utc>,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        Self {
            seq: row.seq,
            key: row.key,
            kind: row.kind,
            name: row.name,
            outcome: row.outcome,
            output: row.output,
            failure: row.failure.map(|json| store::stored_failure(Some(json))),
            attempt_no: row.attempt_no,
            recorded_at: row.recorded_at,
        }
    }
}

#[derive(FromRow)]
pub(crate) struct TaskRow {
    id: i64,
    pub(crate) kind: String,
    key: String,
    queue: String,
    activity: String,
    state: String,
    attempt_no: i32,
    failures: i32,
    losses: i32,
    run_at: Option<DateTime<Utc>>,
    leased_by: Option<String>,
    leased_at: Option<DateTime<Utc>>,
    lease_expires_at: Option<DateTime<Utc>>,
    progress: Option<Json<Progress>>,
    cancel_requested: bool,
    parked_reason: Option<String>,
    parked_failure: Option<Value>,
}

impl From<TaskRow> for Task {
    fn from(row: TaskRow) -> Self {
        Self {
            id: row.id,
            key: row.key,
            queue: row.queue,
            activity: row.activity,
            state: row.state,
            attempt_no: row.attempt_no,
            failures: row.failures,
            losses: row.losses,
            run_at: row.run_at,
            leased_by: row.leased_by,
            leased_at: row.leased_at,
            lease_expires_at: row.lease_expires_at,
            progress: row.progress.map(|json| json.0),
            cancel_requested: row.cancel_requested,
            parked_reason: row.parked_reason,
            parked_failure: row.parked_failure.map(|json| store::stored_failure(Some(json))),
        }
    }
}
