//! Failures of nodes, written down with what follows for the node, before the engine hears of them.
//!
//! The crash is one transaction and the end of the attempt another. A report that dies between them is repeated by the node, and
//! the first finds the crash written down already: there is one an attempt.

use crate::{app::App, auth::NodeCaller, problem::Problem};
use chrono::{DurationRound as _, TimeDelta};
use flatrender_engine::{Failure, remote::Lease};
use flatrender_workflows::{
    contracts::{
        evidence::{Cure, Evidence},
        storage::BlobHash,
    },
    definitions::events::{self, Event},
    models::{
        DEFAULT_TENANT, Db, Role, Scope,
        render::node::crash::{self, Consequence, NewCrash},
        time_series,
    },
};
use serde_json::{Value, json};
use uuid::Uuid;

/// Writes down why an attempt ended, if it is the node's renderer that failed.
///
/// # Errors
/// Those of the database.
pub async fn note(app: &App, caller: &NodeCaller, task: Task<'_>, failure: &Failure) -> Result<(), Problem> {
    let seen = Evidence::of(failure).unwrap_or_else(|| Evidence::bare(&failure.code, None, Cure::Retry));
    let said = seen.errors.iter().chain(&seen.log_tail).cloned().collect::<Vec<_>>().join("\n");
    let input = &task.lease.input;
    let package = package_of(task.lease);
    let new = NewCrash {
        node_id: caller.node.id,
        epoch: caller.node.epoch,
        tenant_id: task.lease.tenant_id,
        task_no: task.id,
        lease_token: task.token,
        code: &failure.code,
        render_job_id: input["render_id"].as_str().and_then(|id| id.parse().ok()),
        package: package.as_ref(),
        frame: seen.frame.or_else(|| seen.faults.first().map(|fault| fault.frame)),
        exit_code: seen.exit,
        signature: &seen.signature,
        log: if said.is_empty() { &failure.message } else { &said },
        goes_on: failure.retryable,
    };
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let led_to = crash::record(&mut tx, &new).await?;
    if let Some(led_to) = led_to {
        tell(app, &mut tx, caller, failure, led_to).await?;
    }
    tx.commit().await?;
    if led_to.is_some() {
        app.workflows.announce();
    }
    if matches!(led_to, Some(Consequence::Quarantined | Consequence::Blocked)) {
        app.placement.nodes_have_changed();
    }
    match led_to {
        Some(Consequence::Quarantined) => {
            tracing::error!(node = caller.node.name, code = failure.code, "a node is in quarantine");
        }
        Some(Consequence::Blocked) => {
            tracing::warn!(
                node = caller.node.name,
                code = failure.code,
                "a node gets no more of a template for a time"
            );
        }
        Some(Consequence::Noted) | None => {}
    }
    Ok(())
}

/// Operators are told once an hour of a node, however often it crashes, and again when it gets no more work.
pub(super) async fn tell(
    app: &App,
    db: Db<'_>,
    caller: &NodeCaller,
    failure: &Failure,
    led_to: Consequence,
) -> Result<(), Problem> {
    let now = time_series::moment(&mut *db).await?;
    let quarantined = led_to == Consequence::Quarantined;
    let occurred_at = if quarantined { now } else { now.duration_trunc(TimeDelta::hours(1)).unwrap_or(now) };
    let data = json!({"object": "node", "node": caller.node.name, "reason": failure.code, "quarantined": quarantined});
    let event = Event {
        tenant_id: DEFAULT_TENANT,
        kind: "node.crashed",
        subject: caller.node.id,
        user_id: None,
        data,
        occurred_at,
    };
    events::happened(&app.workflows, db, event).await.map_err(|error| Problem::internal(&error))
}

/// A node has done a task without a crash: what its package did there before is overcome.
///
/// # Errors
/// Those of the database.
pub async fn overcome(app: &App, caller: &NodeCaller, lease: &Lease) -> Result<(), Problem> {
    let Some(package) = package_of(lease) else { return Ok(()) };
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    crash::overcome(&mut tx, caller.node.id, &package).await?;
    Ok(tx.commit().await?)
}

/// The template's package that a task works on.
fn package_of(lease: &Lease) -> Option<BlobHash> {
    lease.input["package"]["sha256"].as_str()?.parse().ok()
}

/// An attempt that is being reported.
#[derive(Clone, Copy)]
pub struct Task<'a> {
    /// The task.
    pub id: i64,
    /// The attempt.
    pub token: Uuid,
    /// What it was given.
    pub lease: &'a Lease,
}

/// An attempt that made some of its frames succeeds, and tells why the others are missing: if that is the node's renderer.
pub fn in_output(output: &Value) -> Option<Failure> {
    let cause: Failure = serde_json::from_value(output.get("cause")?.clone()).ok()?;
    crash::is_crash(&cause.code).then_some(cause)
}
