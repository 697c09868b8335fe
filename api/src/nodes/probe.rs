//! `POST /v1/nodes/probe`: what a node found out about itself.

use crate::{
    app::App,
    auth::NodeCaller,
    extract::Json,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
};
use flatrender_workflows::{
    contracts::node::ProbeReport,
    models::{
        Role, Scope,
        render::node::{self, Quarantine},
    },
};

/// Longest report as JSON; half of what the column holds as PostgreSQL prints it.
const REPORT_BYTES: usize = 32 * 1024;

/// `POST /v1/nodes/probe`: a node in quarantine that has passed is out of it.
#[utoipa::path(
    post, path = "/v1/nodes/probe", tag = "Nodes", operation_id = "report_probe", summary = "Report a probe",
    description = "What the node found when it rendered the built-in probe. One in quarantine that has passed gets work again, \
                   and what it failed at before is forgiven.",
    security(("node_credential" = [])),
    request_body(content = Object, content_type = "application/json", example = json!({
        "checks": [{"name": "probe:lottie", "ok": true, "found": "4 frames, as they should be"}]})),
    responses(
        (status = 204, description = "Kept"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn report(
    State(app): State<App>,
    caller: NodeCaller,
    Json(report): Json<ProbeReport>,
) -> Result<StatusCode, Problem> {
    let json = serde_json::to_string(&report).unwrap_or_default();
    if json.len() > REPORT_BYTES || json.contains("\\u0000") {
        return Err(Problem::fault("/checks", "node.report", "the report is too large or holds NUL"));
    }
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let released = node::probed(&mut tx, caller.node.id, &report).await?;
    tx.commit().await?;
    if released {
        tracing::info!(node = caller.node.name, "a node has passed its probe and is out of quarantine");
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Work is for nodes that are not in quarantine.
///
/// # Errors
/// `node.probe_wanted`, `node.quarantined`
pub async fn admit(app: &App, caller: &NodeCaller) -> Result<(), Problem> {
    if caller.node.status != "quarantined" {
        return Ok(());
    }
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    match node::quarantine_of(&mut tx, caller.node.id).await? {
        Quarantine::None => Ok(()),
        Quarantine::Probe => Err(Problem::new(Code::NodeProbeWanted, "this node is in quarantine: render the probe")),
        Quarantine::Wait(seconds) => {
            Err(Problem::new(Code::NodeQuarantined, "this node is in quarantine, and may be probed later")
                .with_header(header::RETRY_AFTER, HeaderValue::from(seconds)))
        }
    }
}
