//! One attempt at a task: from the journal entry to the report.
//!
//! ```text
//! given ─▶ its turn ─▶ render ─▶ report ─▶ forget          untold: entry and folder stay for the next start
//!   └─ an earlier process heard that its frames are spoiled ─▶ report ─▶ forget
//! ```

use super::{
    fonts,
    given::Given,
    journal::{Entry, Heard},
    report::{Reported, report},
    stills::{self, Turns},
    transfer::Transfer,
    work::Node,
};
use crate::aerender::{Job, ProcessId};
use flatrender_engine::{Failure, LeasedTask};
use flatrender_workflows::contracts::render::RenderedFrames;
use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Makes an attempt. It waits for its turn among those that were given with it. Dropping the future kills the renderer and leaves
/// the journal entry.
pub async fn make(node: Arc<Node>, given: Arc<Given>, turns: Turns) {
    given.attempt.traced(carry_out(&node, &given, turns)).await;
}

async fn carry_out(node: &Node, given: &Given, turns: Turns) {
    let (attempt, task) = (&given.attempt, given.attempt.task());
    tracing::info!(task.id = task.task_id, run.id = %task.run_id, attempt = task.attempt_no, "attempt begins");
    let running = node.runs(task.lease_token);
    let outcome = match (&given.written, &given.entry.heard) {
        (Err(failure), _) | (_, Heard::Spoiled(failure)) => Err(failure.clone()),
        _ => match turns.take(attempt, &running.drain).await {
            Ok(_turn) => within_time(node, given, &running.drain).await,
            Err(failure) => Err(failure),
        },
    };
    log(task, &outcome);
    let outcome = outcome.and_then(|rendered| stills::output(&task.activity, rendered));
    let patience = node.config.offline_patience;
    let reported = report(&given.client, attempt, outcome, node.config.retry, patience, &node.drain).await;
    if reported != Reported::Untold {
        forget(node, task.lease_token);
    }
}

async fn within_time(node: &Node, given: &Given, drain: &CancellationToken) -> Result<RenderedFrames, Failure> {
    let longest = Duration::from_secs_f64(given.entry.task.start_to_close_seconds.clamp(1.0, 7.0 * 86_400.0));
    let timed_out = |_| Err(Failure::transient("render.timed_out", "the attempt took longer than it may"));
    tokio::time::timeout(longest, render(node, given, drain)).await.unwrap_or_else(timed_out)
}

async fn render(node: &Node, given: &Given, drain: &CancellationToken) -> Result<RenderedFrames, Failure> {
    let input = stills::input(&given.entry.task)?;
    let transfer = Transfer { task: given.client.clone(), retry: node.config.retry, untold: Arc::default() };
    let entry = Mutex::new(given.entry.clone());
    let note = |what: &dyn Fn(&mut Entry)| {
        let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
        what(&mut entry);
        if let Err(error) = node.journal.write(&entry) {
            // The mark in its environment still tells whose it is.
            tracing::warn!(%error, "cannot write into the journal what became of the renderer");
        }
    };
    let spawned = |id: &ProcessId| note(&|entry| (entry.renderer, entry.heard) = (Some(id.clone()), Heard::Part));
    let heard = |spoils: Option<&Failure>| {
        note(&|entry| entry.heard = spoils.map_or(Heard::All, |failure| Heard::Spoiled(failure.clone())));
    };
    let job = Job {
        attempt: &given.attempt,
        stills: &[],
        folder: node.attempts().join(given.token().to_string()),
        inputs: &transfer,
        frames: Arc::new(transfer.clone()),
        drain: drain.clone(),
        spawned: &spawned,
        heard: &heard,
        unheard: given.entry.is_unheard(),
    };
    match node.aerender.render(job, &input).await {
        Err(failure) => Err(looked_into(failure).await),
        rendered => rendered,
    }
}

/// A failure with what this machine shows of it.
async fn looked_into(failure: Failure) -> Failure {
    let known = failure.clone();
    // A look that broke has seen nothing.
    tokio::task::spawn_blocking(move || fonts::explained(failure)).await.unwrap_or(known)
}

/// Removes what is kept of an attempt.
///
/// The folder first: an entry without a folder is harmless, a folder without an entry is a stray.
pub fn forget(node: &Node, lease_token: Uuid) {
    let folder = node.attempts().join(lease_token.to_string());
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            tracing::warn!(path = %folder.display(), %error, "cannot remove an attempt's folder");
        }
        _ => {}
    }
    node.journal.forget(lease_token);
}

fn log(task: &LeasedTask, outcome: &Result<RenderedFrames, Failure>) {
    let (id, run) = (task.task_id, task.run_id);
    match outcome {
        Ok(done) => tracing::info!(
            task.id = id, run.id = %run, frames = done.frames.len(), faults = done.faults.len(),
            prepare_ms = done.timing.prepare_ms, render_ms = done.timing.render_ms, "attempt is done"
        ),
        Err(failure) => tracing::warn!(task.id = id, run.id = %run, %failure, "attempt failed"),
    }
}
