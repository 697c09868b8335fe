//! The lease a node shows with every call about a task.

use super::{placement, stills};
use crate::{
    app::App,
    auth::NodeCaller,
    problem::{Code, Problem},
};
use axum::{extract::FromRequestParts, http::request::Parts};
use flatrender_engine::remote::{Hold, Lease, RemoteWorker, Service};
use flatrender_workflows::{
    contracts::{node::LEASE_TOKEN_HEADER, render::RenderFrames, storage::Shelf},
    models::render::node::Node,
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

/// What the engine does for remote workers.
pub fn service(app: &App) -> Service {
    Service::new(app.workflows.clone()).closing(app.stopping.clone())
}

/// A node as the engine knows it, when it reports.
pub fn worker(node: &Node) -> RemoteWorker {
    worker_that(node, false)
}

/// A node as the engine knows it. One that may not work gets nothing new.
pub fn worker_that(node: &Node, may_work: bool) -> RemoteWorker {
    let queues = if may_work { placement::queues().to_vec() } else { Vec::new() };
    RemoteWorker { name: format!("node:{}", node.name), queues }
}

/// The lease of `token`, if it is this node's, the newest of its task, and has not run out: needed to read inputs and to store frames.
///
/// # Errors
/// `lease.lost`
pub async fn held(app: &App, caller: &NodeCaller, task_id: i64, token: Uuid) -> Result<Lease, Problem> {
    match service(app).hold(&worker(&caller.node), task_id, token).await? {
        Hold::Held(lease) if lease.in_time => Ok(*lease),
        Hold::Held(_) | Hold::Ended => Err(Problem::lease_lost()),
    }
}

/// What the leased task asks for. Nodes do nothing else than rendering frames, and a still is one of them.
///
/// # Errors
/// `server.internal` when it is something else.
pub fn input(lease: &Lease) -> Result<RenderFrames, Problem> {
    match stills::input(lease) {
        Some(still) => Ok(still.as_frames()),
        None => serde_json::from_value(lease.input.clone()).map_err(|e| Problem::internal(&e)),
    }
}

/// The shelf of the render that the task belongs to.
pub fn shelf(lease: &Lease, input: &RenderFrames) -> Shelf {
    Shelf::Render { tenant_id: lease.tenant_id, render_id: input.render_id }
}
