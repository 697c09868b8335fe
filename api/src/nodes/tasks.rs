//! `POST /v1/nodes/tasks/{task_id}/…`: renewals and reports of a node.

use super::{
    crashes::{self, Task},
    leases, output,
};
use crate::{
    app::App,
    auth::NodeCaller,
    extract::{Json, Path},
    problem::{Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use flatrender_engine::remote::Hold;
use flatrender_workflows::{
    contracts::{
        evidence::SPOILING,
        node::{Complete, Fail, Release, Renew, Renewed},
        render::Spoiled,
    },
    models::{Role, Scope, render::stored_frame},
};

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
    Ok(Json(leases::service(&app).renew(&leases::worker(&caller.node), task_id, asked).await?))
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
    match leases::service(&app).take_up(&leases::worker(&caller.node), task_id, asked.lease_token).await? {
        Hold::Held(lease) => {
            output::check(&app, &lease, &asked.output).await?;
            match crashes::in_output(&asked.output) {
                Some(failure) => {
                    let task = Task { id: task_id, token: asked.lease_token, lease: &lease };
                    crashes::note(&app, &caller, task, &failure).await?;
                }
                None if asked.output["cause"].is_null() => crashes::overcome(&app, &caller, &lease).await?,
                None => {}
            }
        }
        // The engine tells whether the same was reported before.
        Hold::Ended => {}
    }
    app.workflows.complete(task_id, asked.lease_token, &asked.output).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST …/fail`: reports why an attempt did not succeed.
#[utoipa::path(
    post, path = "/v1/nodes/tasks/{task_id}/fail", tag = "Nodes", operation_id = "fail_task", summary = "Report a failure",
    description = "The task is tried again after its backoff when the failure is retryable, else it has failed for good. \
                   A failure that shows in the frames counts against those that the attempt has stored also when it is told too late.",
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
    fail_task(&app, &caller, task_id, asked).await
}

/// Ends an attempt with a failure, and writes down what it says of the node.
///
/// # Errors
/// `lease.lost`, `lease.foreign`
pub(super) async fn fail_task(
    app: &App,
    caller: &NodeCaller,
    task_id: i64,
    asked: Fail,
) -> Result<StatusCode, Problem> {
    let (service, worker, token) = (leases::service(app), leases::worker(&caller.node), asked.lease_token);
    let only_stopped = asked.failure.is_cancelled() || asked.failure.is_lease_lost();
    let hold = match only_stopped {
        true => service.hold(&worker, task_id, token).await?,
        false => service.take_up(&worker, task_id, token).await?,
    };
    let spoils = SPOILING.contains(&asked.failure.code.as_str());
    match hold {
        Hold::Held(lease) => {
            if spoils {
                // Before the attempt ends: a report that is repeated after that finds nothing left to do.
                let mut tx = app.db.begin(Scope::platform(Role::Workflow)).await?;
                stored_frame::disown_withdrawn(&mut tx, task_id, token).await?;
                tx.commit().await?;
            }
            crashes::note(app, caller, Task { id: task_id, token, lease: &lease }, &asked.failure).await?;
        }
        Hold::Ended if spoils => disown(app, caller, task_id, &asked).await?,
        Hold::Ended => {}
    }
    service.fail(&worker, task_id, asked).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// The report comes too late to end the attempt, and yet nobody may use what it has stored: the film's run is told, and renders it again as long
/// as it is not published.
async fn disown(app: &App, caller: &NodeCaller, task_id: i64, asked: &Fail) -> Result<(), Problem> {
    let token = asked.lease_token;
    let mut tx = app.db.begin(Scope::platform(Role::Workflow)).await?;
    if let Some(run_id) = stored_frame::disown(&mut tx, task_id, token).await? {
        let spoiled = Spoiled { node: caller.node.name.clone(), code: asked.failure.code.clone() };
        let once = token.to_string();
        let told = app.workflows.signal(&mut tx, run_id, Spoiled::SIGNAL, Some(&once), &spoiled).await?;
        tx.commit().await?;
        app.workflows.announce();
        let Spoiled { node, code } = spoiled;
        tracing::warn!(run.id = %run_id, task_id, node, code, ?told, "an ended attempt had spoiled its frames");
    }
    match leases::service(app).past(&leases::worker(&caller.node), task_id, token).await? {
        Some(lease) => crashes::note(app, caller, Task { id: task_id, token, lease: &lease }, &asked.failure).await,
        None => Ok(()),
    }
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
    leases::service(&app).release(&leases::worker(&caller.node), task_id, &asked).await?;
    Ok(StatusCode::NO_CONTENT)
}
