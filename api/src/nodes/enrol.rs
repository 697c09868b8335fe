//! `POST /v1/nodes/enrol`

use crate::{
    app::App,
    extract::Json,
    problem::{Code, Problem, ProblemBody},
};
use axum::extract::State;
use flatrender_workflows::{
    contracts::node::{Enrol, Enrolled},
    models::{Role, Scope, render::node},
};

/// Longest capabilities as JSON; half of what the column holds as PostgreSQL prints it.
const CAPABILITIES_BYTES: usize = 32 * 1024;

/// `POST /v1/nodes/enrol`: a one-time token becomes a node and its credential, which is shown only here.
#[utoipa::path(
    post, path = "/v1/nodes/enrol", tag = "Nodes", operation_id = "enrol_node", summary = "Become a node",
    description = "Uses up a one-time token. Enrolling again under a name takes the credential from the earlier process.",
    security(()),
    request_body(content = Object, content_type = "application/json", example = json!({
        "token": "fr_enrol_…", "name": "render-01",
        "capabilities": {"agent_version": "0.1.0", "os": "linux x86_64", "cpus": 8, "ram_mb": 32_768, "slots": 1,
                         "labels": {"engine": "lottie"}, "renderers": {"lottie": "flatrender-aerender 0.1.0"}}
    })),
    responses(
        (status = 200, description = "Enrolled", body = Object, example = json!({
            "node_id": "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11", "credential": "fr_node_…"})),
        (status = 401, description = "`node.token_invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn enrol(State(app): State<App>, Json(asked): Json<Enrol>) -> Result<Json<Enrolled>, Problem> {
    check(&asked)?;
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let enrolled = node::enrol(&mut tx, &asked.token, &asked.name, &asked.capabilities).await?;
    let (node_id, credential) = enrolled.ok_or_else(bad_token)?;
    tx.commit().await?;
    Ok(Json(Enrolled { node_id, credential: credential.reveal().to_owned() }))
}

fn bad_token() -> Problem {
    Problem::new(Code::EnrolTokenInvalid, "the token is unknown, used or expired; ask the operator for a new one")
}

fn check(asked: &Enrol) -> Result<(), Problem> {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    if !(1..=64).contains(&asked.name.len()) || !asked.name.bytes().all(fine) {
        return Err(Problem::fault("/name", "node.name", "a node's name is 1 to 64 of A-Z a-z 0-9 . _ -"));
    }
    let json = serde_json::to_string(&asked.capabilities).unwrap_or_default();
    if json.len() > CAPABILITIES_BYTES || json.contains("\\u0000") {
        return Err(Problem::fault("/capabilities", "node.capabilities", "the capabilities are too large or hold NUL"));
    }
    Ok(())
}
