//! `GET /v1/operate/runs/{id}`: one run, with all that is known of it.

use super::{Party, Rank, farm, kinds, operations, redact, runs::RunSummary, steps::RunStep};
use crate::{
    app::App,
    extract::{Json, Path},
    problem::{Code, Problem, ProblemBody},
    render::again,
};
use axum::extract::State;
use chrono::{DateTime, Utc};
use flatrender_engine::{
    Failure, Workflow,
    client::{Run, RunState, Task},
    operations::{Child, Evidence, Explanation, Lineage, Span},
};
use flatrender_workflows::{
    definitions::render_video::RenderVideo,
    models::{Role, Scope},
};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;
use uuid::Uuid;

/// Entries of the history that are shown, the newest of them.
const EVENTS: u32 = 100;
/// Tasks that are shown.
const TASKS: usize = 500;

/// A run, with all that is known of it.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunDetail {
    #[serde(flatten)]
    run: RunSummary,
    /// Why it does not go on, or what it is doing.
    why: Why,
    /// What it was started with, without secrets.
    #[schema(value_type = Value)]
    input: Value,
    /// What it gave, without secrets.
    #[schema(value_type = Value)]
    output: Option<Value>,
    /// Why it failed.
    error: Option<RunError>,
    /// Why somebody asked it to stop.
    cancel_reason: Option<String>,
    /// The run that asked for it.
    parent_run_id: Option<Uuid>,
    /// The first of its ancestors.
    root_run_id: Option<Uuid>,
    /// The run in whose place it goes on.
    continued_from: Option<Uuid>,
    /// The run that goes on in its place.
    continued_as: Option<Uuid>,
    /// The trace it belongs to.
    #[schema(example = "4bf92f3577b34da6a3ce929d0e0e4736")]
    trace_id: Option<String>,
    /// What it has still to do: itself first; at most 500.
    tasks: Vec<RunTask>,
    /// What it has done, oldest first; the newest 100.
    steps: Vec<RunStep>,
    /// `starting_after` of its list of steps, for those before; none when these are all.
    earlier_steps: Option<String>,
    /// Bars of a chart of its time, oldest first; the newest 1000.
    timeline: Vec<RunSpan>,
    /// Runs that it has asked for.
    children: Vec<RunChild>,
    /// Attempts that failed, newest first.
    failures: Vec<RunAttempt>,
    /// The run that it was made out of.
    origin: Option<RunOrigin>,
    /// Runs that were made out of it.
    copies: Vec<RunOrigin>,
    /// What you may do with it now.
    #[schema(example = json!(["retry", "fork"]))]
    actions: Vec<&'static str>,
    /// Why it cannot be made again, if so.
    no_copies: Option<&'static str>,
}

/// Why a run does not go on.
#[derive(Debug, Serialize, ToSchema)]
pub struct Why {
    /// The step that is in the way; empty when it is the run itself.
    pub(super) key: String,
    /// One of a closed list.
    #[schema(example = "queue_paused")]
    pub(super) reason: String,
    /// In a sentence.
    #[schema(example = "The run waits for a signal.")]
    pub(super) text: String,
    /// What belongs to the reason.
    #[schema(value_type = Value)]
    pub(super) details: Value,
}

impl From<Explanation> for Why {
    fn from(explanation: Explanation) -> Self {
        let mut details = json!(explanation.reason);
        let reason = details.as_object_mut().and_then(|fields| fields.remove("reason"));
        let reason = reason.and_then(|r| r.as_str().map(str::to_owned)).unwrap_or_default();
        Self { key: explanation.key, reason, text: explanation.text, details: redact::shown(details) }
    }
}

/// Why something failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunError {
    /// Its code.
    #[schema(example = "render.missing_font")]
    code: String,
    /// In a sentence.
    message: String,
    /// Whether another attempt may help.
    retryable: bool,
    /// Evidence: frames, exit codes, the end of a log.
    #[schema(value_type = Value)]
    details: Value,
}

impl From<Failure> for RunError {
    fn from(f: Failure) -> Self {
        Self {
            code: f.code,
            message: redact::sentence(&f.message),
            retryable: f.retryable,
            details: redact::shown(f.details),
        }
    }
}

/// Something that a run has still to do.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunTask {
    /// Its id, as text: numbers of this size are not safe everywhere.
    #[schema(example = "1204")]
    id: String,
    /// The step; empty for the run itself.
    key: String,
    /// The queue it is in.
    queue: String,
    /// The activity; for the run itself its kind and version.
    activity: String,
    /// `ready`, `waiting` or `leased`.
    #[schema(example = "leased")]
    state: String,
    /// Attempts so far.
    attempt_no: i32,
    /// Those of them that failed.
    failures: i32,
    /// Those of them that were lost.
    losses: i32,
    /// When it is tried again.
    run_at: Option<DateTime<Utc>>,
    /// Who works on it.
    leased_by: Option<String>,
    /// Since when.
    leased_at: Option<DateTime<Utc>>,
    /// Until when, unless renewed.
    lease_expires_at: Option<DateTime<Utc>>,
    /// Units done, such as frames.
    progress_done: Option<u32>,
    /// Units in all; 0 when unknown.
    progress_total: Option<u32>,
    /// Whether it was asked to stop.
    cancel_requested: bool,
    /// Why nobody goes on with it until somebody resumes it.
    parked_reason: Option<String>,
    /// What stands in its way.
    parked_error: Option<RunError>,
}

impl From<Task> for RunTask {
    fn from(t: Task) -> Self {
        Self {
            id: t.id.to_string(),
            key: t.key,
            queue: t.queue,
            activity: t.activity,
            state: t.state,
            attempt_no: t.attempt_no,
            failures: t.failures,
            losses: t.losses,
            run_at: t.run_at,
            leased_by: t.leased_by,
            leased_at: t.leased_at,
            lease_expires_at: t.lease_expires_at,
            progress_done: t.progress.as_ref().map(|p| p.done),
            progress_total: t.progress.as_ref().map(|p| p.total),
            cancel_requested: t.cancel_requested,
            parked_reason: t.parked_reason,
            parked_error: t.parked_failure.map(Into::into),
        }
    }
}

/// A bar of the chart of a run's time.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunSpan {
    /// The step; empty for the run itself.
    key: String,
    /// `queued`, `working`, `paused`, `parked`, `sleeping`, `signal`, `child` or `step`.
    #[schema(value_type = String, example = "working")]
    doing: flatrender_engine::operations::Doing,
    /// Its beginning.
    from: DateTime<Utc>,
    /// Its end; none while it lasts.
    until: Option<DateTime<Utc>>,
    /// The attempt, from 1; 0 for what has none.
    attempt_no: i32,
    /// Who worked on it.
    worker: Option<String>,
    /// `ok`, `failed`, `lost`, `released`, `cancelled` or `timeout`; none while it lasts.
    outcome: Option<String>,
}

impl From<Span> for RunSpan {
    fn from(s: Span) -> Self {
        let Span { key, doing, from, until, attempt_no, worker, outcome } = s;
        Self { key, doing, from, until, attempt_no, worker, outcome }
    }
}

/// A run that another asked for.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunChild {
    /// The run.
    run_id: Uuid,
    /// What it does.
    kind: String,
    /// Under which key it was asked for.
    key: String,
    /// Where it stands.
    #[schema(example = "running")]
    state: &'static str,
    /// When it was started.
    created_at: DateTime<Utc>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

impl From<Child> for RunChild {
    fn from(c: Child) -> Self {
        let Child { run_id, kind, key, state, created_at, finished_at } = c;
        Self { run_id, kind, key, state: state.as_str(), created_at, finished_at }
    }
}

/// An attempt that failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunAttempt {
    /// The step; empty for the run itself.
    key: String,
    /// From 1.
    attempt_no: i32,
    /// Who made it.
    worker: String,
    /// How it ended.
    #[schema(example = "failed")]
    outcome: String,
    /// What went wrong, with its evidence.
    #[schema(value_type = Option<Object>)]
    failure: Option<Value>,
    /// When.
    ended_at: DateTime<Utc>,
}

impl From<Evidence> for RunAttempt {
    fn from(e: Evidence) -> Self {
        let Evidence { key, attempt_no, worker, outcome, failure, ended_at } = e;
        Self { key, attempt_no, worker, outcome, failure: failure.map(redact::shown), ended_at }
    }
}

/// Which run was made out of which.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunOrigin {
    /// The run.
    run_id: Uuid,
    /// The run it was made out of.
    origin_run_id: Uuid,
    /// `retry` or `fork`.
    #[schema(example = "retry")]
    how: String,
    /// The step it began with.
    from_key: Option<String>,
    /// So many records are those of its origin.
    copied: i64,
    /// Whether an input was changed.
    edited: bool,
    /// When.
    created_at: DateTime<Utc>,
}

impl From<Lineage> for RunOrigin {
    fn from(l: Lineage) -> Self {
        let Lineage { run_id, origin_run_id, how, from_key, copied, edited, created_at, .. } = l;
        Self { run_id, origin_run_id, how, from_key, copied, edited, created_at }
    }
}

/// A run that somebody reaches.
///
/// # Errors
/// `run.not_found`, also for what is another tenant's.
pub async fn found(app: &App, party: &Party, id: Uuid) -> Result<Run, Problem> {
    let run = app.workflows.run(id).await?.filter(|run| party.reaches(run.tenant_id));
    run.ok_or_else(|| Problem::not_found(Code::RunNotFound, "run"))
}

/// `GET /v1/operate/runs/{id}`
#[utoipa::path(
    get, path = "/v1/operate/runs/{id}", tag = "Runs", operation_id = "get_run", summary = "Look at a run",
    description = "With its newest steps, its attempts, what it waits for, and why it does not go on, in one sentence. Secrets are hidden.",
    params(("id" = Uuid, Path, description = "The run")),
    responses(
        (status = 200, description = "The run", body = RunDetail),
        (status = 404, description = "`run.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(State(app): State<App>, party: Party, Path(id): Path<Uuid>) -> Result<Json<RunDetail>, Problem> {
    let run = found(&app, &party, id).await?;
    let operations = operations(&app);
    let (why, tasks) = (operations.explain_run(id).await?, operations.tasks(id).await?);
    let of_farm = if farm::decides(&why.reason) { farm::why(&app, &run, &why.key).await? } else { None };
    let mut steps = app.workflows.newest_of(id, None, EVENTS).await?;
    steps.reverse();
    // They are numbered from 1 without gaps.
    let earlier_steps = steps.first().filter(|first| first.seq > 1).map(|first| first.seq.to_string());
    let timeline = operations.timeline(id).await?;
    let (origin, copies) = operations.lineage(id).await?;
    let line = operations.line(id).await?.ok_or_else(|| Problem::not_found(Code::RunNotFound, "run"))?;
    let may_be_copied = kinds::refuses_copies(&run.kind).is_none();
    let may_be_retried = may_be_copied || is_ordered_again(&app, &run).await?;
    let actions = actions(&party, &run, &tasks, (may_be_retried, may_be_copied));
    Ok(Json(RunDetail {
        run: line.into(),
        why: of_farm.unwrap_or_else(|| why.into()),
        input: redact::shown(run.input),
        output: run.output.map(redact::shown),
        error: run.error.map(Into::into),
        cancel_reason: run.cancel_reason,
        parent_run_id: run.parent_run_id,
        root_run_id: run.root_run_id,
        continued_from: run.continued_from,
        continued_as: run.continued_as,
        trace_id: run.traceparent.map(|trace| trace.trace_id()),
        tasks: tasks.into_iter().take(TASKS).map(Into::into).collect(),
        steps: steps.into_iter().map(Into::into).collect(),
        earlier_steps,
        timeline: timeline.into_iter().map(Into::into).collect(),
        children: operations.children(id).await?.into_iter().map(Into::into).collect(),
        failures: operations.evidence(id).await?.into_iter().map(Into::into).collect(),
        origin: origin.map(Into::into),
        copies: copies.into_iter().map(Into::into).collect(),
        actions,
        no_copies: kinds::refuses_copies(&run.kind),
    }))
}

/// Whether a run is of a film that failed and can be ordered again as it was.
async fn is_ordered_again(app: &App, run: &Run) -> Result<bool, Problem> {
    if run.kind != RenderVideo::NAME || run.state != RunState::Failed {
        return Ok(false);
    }
    let mut tx = app.db.begin(Scope::tenant(Role::Render, run.tenant_id)).await?;
    again::may(&mut tx, run.tenant_id, run.id).await
}

/// What somebody may do with a run as it is.
fn actions(party: &Party, run: &Run, tasks: &[Task], (retries, copies): (bool, bool)) -> Vec<&'static str> {
    let over = run.state.is_final();
    let failed = over && run.error.is_some();
    let parked = tasks.iter().any(|t| t.parked_reason.is_some());
    let doing = |state: &str| tasks.iter().any(|t| !t.key.is_empty() && t.state == state);
    let all = [
        ("retry", Rank::Keeper, failed && retries),
        (
            "cancel",
            Rank::Keeper,
            !over && run.cancel_requested_at.is_none() && kinds::refuses_cancel(&run.kind).is_none(),
        ),
        ("retry_now", Rank::Operator, doing("waiting")),
        ("set_priority", Rank::Operator, !over),
        ("resume", Rank::Operator, parked),
        ("release", Rank::Operator, tasks.iter().any(|t| t.state == "leased")),
        ("fork", Rank::Admin, copies),
        ("signal", Rank::Admin, !over && !kinds::of_money(&run.kind)),
    ];
    all.into_iter().filter(|(_, rank, fits)| *fits && party.rank >= *rank).map(|(name, ..)| name).collect()
}
