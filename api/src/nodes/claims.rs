//! `POST /v1/nodes/claims`: work for a node, by long poll.

use super::{leases, probe};
use crate::{app::App, auth::NodeCaller, extract::Json, problem::Problem};
use axum::{
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use flatrender_engine::remote::Refused;
use flatrender_workflows::{
    contracts::node::{Claim, Claimed},
    models::{Role, Scope, render::node},
};

/// `POST /v1/nodes/claims`: waits for work and leases it to the node.
#[utoipa::path(
    post, path = "/v1/nodes/claims", tag = "Nodes", operation_id = "claim_work", summary = "Claim work",
    description = "Waits up to `wait_seconds` (at most 25) for tasks that ask for no label the node lacks, and leases up to `slots` of them, \
                   1 if it does not say.",
    security(("node_credential" = [])),
    request_body(content = Object, content_type = "application/json", example = json!({
        "incarnation": "4f1c1a52-9a53-4a3e-9b70-6a7a9a3f0c11", "labels": {"engine": "lottie"}, "wait_seconds": 25})),
    responses(
        (status = 200, description = "Tasks, each with its lease", body = Object),
        (status = 204, description = "No work")
    )
)]
pub async fn claim(State(app): State<App>, caller: NodeCaller, Json(asked): Json<Claim>) -> Result<Response, Problem> {
    note(&app, &caller, &asked).await?;
    probe::admit(&app, &caller).await?;
    let tasks = match leases::service(&app).claim(&leases::worker(&caller.node), &asked).await {
        Err(Refused::Invalid(why)) => return Err(Problem::fault("/labels", "node.labels", why)),
        claimed => claimed?,
    };
    Ok(if tasks.is_empty() { StatusCode::NO_CONTENT.into_response() } else { Json(Claimed { tasks }).into_response() })
}

async fn note(app: &App, caller: &NodeCaller, asked: &Claim) -> Result<(), Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    node::seen(&mut tx, caller.node.id, asked.incarnation).await?;
    Ok(tx.commit().await?)
}
