//! `POST /v1/nodes/tasks/{task_id}/…`: renewals and reports of a node.

use super::{leases, output};
use crate::{
    app::App,
    auth::NodeCaller,
    extract::{Json, Path},
    problem::{Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use flatrender_engine::Standing;
use flatrender_workflows::{
    contracts::node::{Complete, Fail, Release, Renew, Renewed},
    models::render::node_lease::NodeLease,
};
use uuid::Uuid;

/// `POST …/renew`: keeps the lease and tells what became of the run.
#[utoipa::path(
    post, path = "/v1/nodes/tasks/{task_id}/renew", tag = "Nodes", operation_id = "renew_lease", summary = "Renew a lease",
    description = "Keeps the lease, stores the progress, and tells whether the run was cancelled.",
    security(("node_credential" = [])), params(("task_id" = i64, Path, description = "The task")),
    request_body(content = Object, content_type = "application/json", example = json!({
        "lease_token": "4f1c1a52-9a53-4a3e-9b70-6a7a9a3f0c11", "progress": {"done": 40, "total": 75}})),
    responses(
        (status = 200, description = "The lease is held", body = Object, example = json!({"cancelled": false, "lease_seconds": 15.0})),
        (status = 409, description = "`lease.lost`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn renew(
    State(app): State<App>,
    caller: NodeCaller,
    Path(task_id): Path<i64>,
    Json(asked): Json<Renew>,
) -> Result<Json<Renewed>, Problem> {
    let lease = leases::newest(&app, &caller, task_id, asked.lease_token).await?;
    let progress = output::bounded_progress(asked.progress);
    let standing = app.workflows.renew(task_id, asked.lease_token, Some(&progress)).await?;
    renewed(standing, &lease).map(Json)
}

fn renewed(standing: Standing, lease: &NodeLease) -> Result<Renewed, Problem> {
    let lease_seconds = lease.lease_seconds;
    match standing {
        Standing::Held => Ok(Renewed { cancelled: false, lease_seconds }),
        Standing::Cancelled => Ok(Renewed { cancelled: true, lease_seconds }),
        Standing::Lost => Err(Problem::lease_lost()),
    }
}

/// `POST …/complete`: reports the frames of an attempt. A repeated report is answered like the first.
#[utoipa::path(
    post, path = "/v1/nodes/tasks/{task_id}/complete", tag = "Nodes", operation_id = "complete_task", summary = "Report success",
    description = "Records the output, once it is seen to fit the task: frames of the planned range, each stored. \
                   Repeating a report whose answer was lost is harmless.",
    security(("node_credential" = [])), params(("task_id" = i64, Path, description = "The task")),
    request_body(content = Object, content_type = "application/json", example = json!({
        "lease_token": "4f1c1a52-9a53-4a3e-9b70-6a7a9a3f0c11",
        "output": {"frames": [], "faults": [{"frame": 0, "reason": "missing"}], "warnings": [],
                   "timing": {"prepare_ms": 120, "render_ms": 4100, "upload_ms": 90}}})),
    responses(
        (status = 204, description = "Recorded"),
        (status = 409, description = "`lease.lost`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`node.bad_output`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn complete(
    State(app): State<App>,
    caller: NodeCaller,
    Path(task_id): Path<i64>,
    Json(asked): Json<Complete>,
) -> Result<StatusCode, Problem> {
    match reported(&app, &caller, task_id, asked.lease_token).await? {
        Report::First(lease) => output::check(&app, &lease, &asked.output).await?,
        Report::Repeated => {}
    }
    app.workflows.complete(task_id, asked.lease_token, &asked.output).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST …/fail`: reports why an attempt did not succeed.
#[utoipa::path(
    post, path = "/v1/nodes/tasks/{task_id}/fail", tag = "Nodes", operation_id = "fail_task", summary = "Report a failure",
    description = "The task is tried again after its backoff when the failure is retryable, else it has failed for good.",
    security(("node_credential" = [])), params(("task_id" = i64, Path, description = "The task")),
    request_body(content = Object, content_type = "application/json", example = json!({
        "lease_token": "4f1c1a52-9a53-4a3e-9b70-6a7a9a3f0c11",
        "failure": {"code": "render.crashed", "message": "the renderer ended with signal 11", "retryable": true}})),
    responses(
        (status = 204, description = "Recorded"),
        (status = 409, description = "`lease.lost`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn fail(
    State(app): State<App>,
    caller: NodeCaller,
    Path(task_id): Path<i64>,
    Json(asked): Json<Fail>,
) -> Result<StatusCode, Problem> {
    reported(&app, &caller, task_id, asked.lease_token).await?;
    match output::is_no_failure(&asked.failure) {
        true => app.workflows.release(task_id, asked.lease_token).await?,
        false => app.workflows.fail(task_id, asked.lease_token, &output::bounded(asked.failure)).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

/// `POST …/release`: gives the task back; the attempt does not count.
#[utoipa::path(
    post, path = "/v1/nodes/tasks/{task_id}/release", tag = "Nodes", operation_id = "release_task", summary = "Give a task back",
    description = "The attempt counts neither as failed nor as lost.",
    security(("node_credential" = [])), params(("task_id" = i64, Path, description = "The task")),
    request_body(content = Object, content_type = "application/json", example = json!({
        "lease_token": "4f1c1a52-9a53-4a3e-9b70-6a7a9a3f0c11"})),
    responses(
        (status = 204, description = "Given back"),
        (status = 409, description = "`lease.lost`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn release(
    State(app): State<App>,
    caller: NodeCaller,
    Path(task_id): Path<i64>,
    Json(asked): Json<Release>,
) -> Result<StatusCode, Problem> {
    reported(&app, &caller, task_id, asked.lease_token).await?;
    app.workflows.release(task_id, asked.lease_token).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// A report about an attempt of this node.
enum Report {
    /// The attempt is under way.
    First(Box<NodeLease>),
    /// The attempt has ended: the engine tells whether the same was reported before.
    Repeated,
}

async fn reported(app: &App, caller: &NodeCaller, task_id: i64, token: Uuid) -> Result<Report, Problem> {
    match leases::newest(app, caller, task_id, token).await {
        Ok(lease) => Ok(Report::First(Box::new(lease))),
        Err(_) if leases::was_reported(app, caller, task_id, token).await? => Ok(Report::Repeated),
        Err(lost) => Err(lost),
    }
}
