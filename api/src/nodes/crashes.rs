//! Failures of nodes, written down with what follows for the node, before the engine hears of them.
//!
//! The crash is one transaction and the end of the attempt another. A report that dies between them is repeated by the node, and
//! the first finds the crash written down already: there is one an attempt.

use crate::{app::App, auth::NodeCaller, problem::Problem};
use flatrender_engine::{Failure, remote::Lease};
use flatrender_workflows::{
    contracts::storage::BlobHash,
    models::{
        Role, Scope,
        render::node::crash::{self, Consequence, NewCrash},
    },
};
use serde_json::Value;
use uuid::Uuid;

/// Writes down why an attempt ended, if it is the node's renderer that failed.
///
/// # Errors
/// Those of the database.
pub async fn note(app: &App, caller: &NodeCaller, task: Task<'_>, failure: &Failure) -> Result<(), Problem> {
    let log = words(&failure.details["renderer"]);
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
        frame: failure.details["faults"][0]["frame"].as_u64().and_then(|frame| u32::try_from(frame).ok()),
        exit_code: failure.details["ended"]["exit"].as_i64().and_then(|code| i32::try_from(code).ok()),
        log: if log.is_empty() { &failure.message } else { &log },
        goes_on: failure.retryable,
    };
    let mut tx = app.db.begin(Scope::platform(Role::Render)).await?;
    let led_to = crash::record(&mut tx, &new).await?;
    tx.commit().await?;
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

/// An attempt that made some of its frames succeeds; what stopped it stands among its warnings, as the driver writes them:
/// `code: message`.
pub fn in_warnings(output: &Value) -> Option<Failure> {
    output["faults"].as_array().filter(|faults| !faults.is_empty())?;
    let warnings = output["warnings"].as_array()?.iter().filter_map(Value::as_str);
    let (code, message) = warnings.filter_map(|text| text.split_once(": ")).find(|(code, _)| crash::is_crash(code))?;
    let details = serde_json::json!({ "faults": output["faults"], "renderer": output["warnings"] });
    Some(Failure::transient(code, message).with_details(details))
}

/// Every text in what a renderer is remembered by, a line each.
fn words(evidence: &Value) -> String {
    match evidence {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(words).collect::<Vec<_>>().join("\n"),
        Value::Object(items) => items.values().map(words).collect::<Vec<_>>().join("\n"),
        _ => String::new(),
    }
}
