//! `POST /v1/nodes/claims`: work for a node, by long poll.

use crate::{app::App, auth::NodeCaller, extract::Json, problem::Problem};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use flatrender_engine::LeasedTask;
use flatrender_workflows::{
    contracts::{
        node::{ClaimWork, ClaimedWork},
        render::NODE_QUEUE,
    },
    models::{
        Role, Scope,
        render::{node, node_lease},
    },
};
use std::time::Duration;
use tokio::time::Instant;

/// Longest wait; shorter than what proxies allow.
const LONGEST_WAIT: Duration = Duration::from_secs(25);
/// A claim is tried this often even when nothing is announced: a notice can be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Most labels of a claim, and the longest key or value.
const LABELS: (usize, usize) = (64, 200);

/// `POST /v1/nodes/claims`: waits for work and leases one task to the node.
#[utoipa::path(
    post, path = "/v1/nodes/claims", tag = "Nodes", operation_id = "claim_work", summary = "Claim work",
    description = "Waits up to `wait_seconds` (at most 25) for a task that asks for no label the node lacks, and leases it.",
    security(("node_credential" = [])),
    request_body(content = Object, content_type = "application/json", example = json!({
        "incarnation": "4f1c1a52-9a53-4a3e-9b70-6a7a9a3f0c11", "labels": {"engine": "lottie"}, "wait_seconds": 25})),
    responses(
        (status = 200, description = "A task and its lease", body = Object),
        (status = 204, description = "No work")
    )
)]
pub async fn claim(
    State(app): State<App>,
    caller: NodeCaller,
    Json(asked): Json<ClaimWork>,
) -> Result<Response, Problem> {
    check(&asked)?;
    note(&app, &caller, &asked).await?;
    Ok(match wait_for_task(&app, &caller.node, &asked).await? {
        Some(task) => Json(ClaimedWork { task }).into_response(),
        None => StatusCode::NO_CONTENT.into_response(),
    })
}

fn check(asked: &ClaimWork) -> Result<(), Problem> {
    let (most, longest) = LABELS;
    let fits = |text: &String| text.len() <= longest && !text.contains('\0');
    let fine = asked.labels.len() <= most && asked.labels.iter().all(|(key, value)| fits(key) && fits(value));
    if fine { Ok(()) } else { Err(Problem::fault("/labels", "node.labels", "at most 64 labels of at most 200 bytes")) }
}

async fn note(app: &App, caller: &NodeCaller, asked: &ClaimWork) -> Result<(), Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    node::seen(&mut tx, caller.node.id, asked.incarnation).await?;
    Ok(tx.commit().await?)
}

/// Claims as soon as there is something to claim. No database connection is held while waiting.
async fn wait_for_task(app: &App, node: &node::Node, asked: &ClaimWork) -> Result<Option<LeasedTask>, Problem> {
    let holder = node_lease::holder(&node.name, asked.incarnation);
    let until = Instant::now() + wait(asked.wait_seconds);
    let news = app.workflows.watch(&[NODE_QUEUE]);
    loop {
        if app.stopping.is_cancelled() {
            return Ok(None);
        }
        if may_work(node) {
            let mut tasks = app.workflows.claim(&[NODE_QUEUE], &asked.labels, &holder, 1).await?;
            if let Some(task) = tasks.pop() {
                return Ok(Some(task));
            }
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        tokio::select! {
            _ = news.wait(left.min(LOOK_AGAIN)) => {}
            () = app.stopping.cancelled() => return Ok(None),
        }
    }
}

/// A node that is set aside, or serves a single tenant (the queue cannot tell tenants apart yet), gets no new work.
fn may_work(node: &node::Node) -> bool {
    node.status == "online" && node.tenant_id.is_none()
}

fn wait(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds).unwrap_or_default().min(LONGEST_WAIT)
}
