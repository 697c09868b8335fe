//! The lease a node shows with every call about a task.

use crate::{
    app::App,
    auth::NodeCaller,
    problem::{Code, Problem},
};
use axum::{extract::FromRequestParts, http::request::Parts};
use flatrender_workflows::{
    contracts::{node::LEASE_TOKEN_HEADER, render::RenderFrames, storage::Shelf},
    models::{
        Role, Scope,
        render::node_lease::{self, NodeLease},
    },
};
use uuid::Uuid;

/// The header `lease-token`.
#[derive(Debug, Clone, Copy)]
pub struct LeaseToken(pub Uuid);

impl<S: Send + Sync> FromRequestParts<S> for LeaseToken {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let token = parts.headers.get(LEASE_TOKEN_HEADER).and_then(|v| v.to_str().ok()?.parse().ok());
        let invalid = || Problem::new(Code::HeaderInvalid, "send the lease token in the header `lease-token`");
        token.map(Self).ok_or_else(invalid)
    }
}

/// The lease of a report: it is this node's and the newest of its task.
///
/// # Errors
/// `lease.lost`
pub async fn newest(app: &App, caller: &NodeCaller, task_id: i64, token: Uuid) -> Result<NodeLease, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Workflow)).await?;
    node_lease::find(&mut tx, &caller.node.name, task_id, token).await?.ok_or_else(Problem::lease_lost)
}

/// As [`newest`], and it has not run out: needed to read inputs and to store frames.
///
/// # Errors
/// `lease.lost`
pub async fn held(app: &App, caller: &NodeCaller, task_id: i64, token: Uuid) -> Result<NodeLease, Problem> {
    newest(app, caller, task_id, token).await.and_then(|l| if l.in_time { Ok(l) } else { Err(Problem::lease_lost()) })
}

/// Whether a report repeats one whose answer was lost: then the engine answers it as before.
///
/// # Errors
/// When the database cannot be reached.
pub async fn was_reported(app: &App, caller: &NodeCaller, task_id: i64, token: Uuid) -> Result<bool, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Workflow)).await?;
    Ok(node_lease::has_ended(&mut tx, &caller.node.name, task_id, token).await?)
}

/// What the leased task asks for. Nodes do nothing else than rendering frames.
///
/// # Errors
/// `server.internal` when it is something else.
pub fn input(lease: &NodeLease) -> Result<RenderFrames, Problem> {
    serde_json::from_value(lease.input.clone()).map_err(|e| Problem::internal(&e))
}

/// The shelf of the render that the task belongs to.
pub fn shelf(lease: &NodeLease, input: &RenderFrames) -> Shelf {
    Shelf::Render { tenant_id: lease.tenant_id, render_id: input.render_id }
}
