//! `/internal/v1/snapshot-jobs`: stills, for machines of ours that ask for nothing else. Served on the internal listener alone.
//!
//! The same tasks, leases and checks as `/v1/nodes`, told by job. Inputs and frames of a claimed task are at
//! `/v1/nodes/tasks/{task_id}/…`.

use super::{claims, crashes, leases, probe, stills, tasks};
use crate::{
    app::App,
    auth::NodeCaller,
    extract::{Json, Path},
    problem::{Code, Problem},
};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use flatrender_engine::{
    Activity as _, Failure, Labels, LeasedTask, Progress,
    remote::{
        Hold,
        wire::{Claim, Fail, Renew, Renewed},
    },
};
use flatrender_workflows::{
    contracts::{
        render::RenderTiming,
        snapshot::{RenderStills, RenderedStill, STILLS_A_VISIT, Still},
        storage::BlobRef,
    },
    models::{
        Role, Scope,
        render::{live_task, snapshot_job},
    },
};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Asks for stills to render.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClaimJobs {
    /// Fresh for every start of the process.
    incarnation: Uuid,
    /// What it can do.
    #[serde(default)]
    labels: Labels,
    /// Most jobs at once, at most 8; 1 when absent.
    #[serde(default)]
    limit: Option<u32>,
    /// Seconds to wait for work.
    #[serde(default)]
    wait_seconds: f64,
}

/// Jobs, each with its lease.
#[derive(Debug, Serialize)]
struct ClaimedJobs {
    jobs: Vec<ClaimedJob>,
}

#[derive(Debug, Serialize)]
struct ClaimedJob {
    /// The job: `{id}` of the other calls.
    id: Uuid,
    /// The task with its lease.
    #[serde(flatten)]
    task: LeasedTask,
}

/// `POST …/claim`: 200 with jobs, or 204.
pub async fn claim(
    State(app): State<App>,
    caller: NodeCaller,
    Json(asked): Json<ClaimJobs>,
) -> Result<Response, Problem> {
    app.placement.note(&app, caller.node.id, asked.incarnation).await?;
    probe::admit(&app, &caller).await?;
    let claim = Claim {
        incarnation: asked.incarnation,
        queues: Vec::new(),
        activities: vec![RenderStills::NAME.to_owned()],
        labels: asked.labels,
        slots: 1,
        wait_seconds: asked.wait_seconds,
    };
    let most = asked.limit.unwrap_or(1).clamp(1, STILLS_A_VISIT) as usize;
    let tasks = claims::work_for(&app, &caller.node, &claim, most).await??;
    let jobs = tasks.into_iter().map(|task| {
        let input: RenderStills = serde_json::from_value(task.input.clone()).map_err(|e| Problem::internal(&e))?;
        Ok(ClaimedJob { id: input.job_id, task })
    });
    let jobs = jobs.collect::<Result<Vec<_>, Problem>>()?;
    Ok(if jobs.is_empty() {
        StatusCode::NO_CONTENT.into_response()
    } else {
        Json(ClaimedJobs { jobs }).into_response()
    })
}

/// Keeps a lease.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Heartbeat {
    lease_token: Uuid,
    #[serde(default)]
    progress: Option<Progress>,
}

/// `POST …/{id}/heartbeat`: keeps the lease and tells whether the job was cancelled.
pub async fn heartbeat(
    State(app): State<App>,
    caller: NodeCaller,
    Path(id): Path<Uuid>,
    Json(asked): Json<Heartbeat>,
) -> Result<Json<Renewed>, Problem> {
    let task_id = task_of(&app, id, asked.lease_token).await?;
    let renew = Renew { lease_token: asked.lease_token, progress: asked.progress };
    Ok(Json(leases::service(&app).renew(&leases::worker(&caller.node), task_id, renew).await?))
}

/// Reports a frame: what is stored, never where it could be found.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Report {
    lease_token: Uuid,
    /// Its PNG, on the job's shelf.
    frame: BlobRef,
    #[serde(default)]
    warnings: Vec<String>,
    #[serde(default)]
    timing: RenderTiming,
}

/// `POST …/{id}/result`: records a frame, once the stored object is seen to be one. A repeated report is answered like the first.
pub async fn result(
    State(app): State<App>,
    caller: NodeCaller,
    Path(id): Path<Uuid>,
    Json(asked): Json<Report>,
) -> Result<StatusCode, Problem> {
    let task_id = task_of(&app, id, asked.lease_token).await?;
    let still = RenderedStill { frame: asked.frame, warnings: asked.warnings, timing: asked.timing };
    let output = serde_json::to_value(Still::Rendered(still)).map_err(|e| Problem::internal(&e))?;
    if let Hold::Held(lease) =
        leases::service(&app).take_up(&leases::worker(&caller.node), task_id, asked.lease_token).await?
    {
        let task = stills::input(&lease).ok_or_else(Problem::lease_lost)?;
        stills::check(&app, &lease, &task, &output).await?;
        crashes::overcome(&app, &caller, &lease).await?;
    }
    // The engine tells whether the same was reported before.
    app.workflows.complete(task_id, asked.lease_token, &output).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Reports why there is no frame.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReportFailure {
    lease_token: Uuid,
    failure: Failure,
}

/// `POST …/{id}/fail`: the job is queued again when the failure is retryable and attempts are left.
pub async fn fail(
    State(app): State<App>,
    caller: NodeCaller,
    Path(id): Path<Uuid>,
    Json(asked): Json<ReportFailure>,
) -> Result<StatusCode, Problem> {
    let task_id = task_of(&app, id, asked.lease_token).await?;
    let fail = Fail { lease_token: asked.lease_token, failure: asked.failure };
    tasks::fail_task(&app, &caller, task_id, fail).await
}

/// The task of a job that was leased under this token.
async fn task_of(app: &App, job_id: Uuid, token: Uuid) -> Result<i64, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let run = snapshot_job::run_of(&mut tx, job_id).await?;
    let run = run.ok_or_else(|| Problem::not_found(Code::SnapshotJobNotFound, "snapshot job"))?;
    Scope::platform(Role::Workflow).enter(&mut tx).await?;
    live_task::of_lease(&mut tx, run, token).await?.ok_or_else(Problem::lease_lost)
}
