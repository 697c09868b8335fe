//! The node at work: slots that claim and render, until it is told to stop.
//!
//! ```text
//! shutdown ─▶ no more claims ─▶ grace ─▶ drain: renderers are killed, what is there is reported ─▶ end
//! ```

use super::{
    AgentConfig, AgentError,
    client::{Client, ClientError, TaskClient},
    disk,
    journal::{Entry, Journal},
    leases::{self, Held},
    recover,
    report::{Reported, report},
    retry::Backoff,
    transfer::Transfer,
};
use crate::aerender::{Aerender, Job, ProcessId};
use flatrender_engine::{Activity, Attempt, Failure, Labels, LeasedTask};
use flatrender_workflows::contracts::{
    node::ClaimWork,
    render::{RenderFrames, RenderedFrames},
};
use std::{collections::VecDeque, fs, path::PathBuf, sync::Arc, sync::Mutex, sync::PoisonError, time::Duration};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a last report may take while the node goes away.
const LAST_REPORT: Duration = Duration::from_secs(8);
/// Pause before another look at a full disk.
const DISK_PAUSE: Duration = Duration::from_secs(5);

/// An enrolled node.
pub struct Node {
    /// Settings.
    pub config: AgentConfig,
    /// The server, with our credential.
    pub client: Client,
    /// What survives us.
    pub journal: Journal,
    /// The tools for rendering.
    pub aerender: Aerender,
    /// What tasks may require of us.
    pub labels: Labels,
    /// This start of the agent.
    pub incarnation: Uuid,
    /// Cancelled when running attempts are to be given back.
    pub drain: CancellationToken,
}

impl Node {
    /// The folder of all attempts' folders.
    pub fn attempts(&self) -> PathBuf {
        self.config.data.join("attempts")
    }
}

/// Works until `shutdown`, then gives back what is not finished within the grace.
///
/// # Errors
/// [`AgentError::Refused`] when the server no longer knows us; attempts are stopped then.
pub async fn work(node: Arc<Node>, shutdown: CancellationToken) -> Result<(), AgentError> {
    let recovered = Arc::new(Mutex::new(VecDeque::from(recover::recover(&node).await)));
    let mut slots = JoinSet::new();
    for _ in 0..node.config.slots.max(1) {
        slots.spawn(slot(node.clone(), recovered.clone(), shutdown.clone()));
    }
    let (grace, drain) = (node.config.drain_grace, node.drain.clone());
    let timer = tokio::spawn(async move {
        shutdown.cancelled().await;
        tokio::time::sleep(grace).await;
        drain.cancel();
    });
    let mut result = Ok(());
    while let Some(ended) = slots.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            // The others find out at their next call; they are not cut off in the middle of one.
            Ok(Err(error)) => {
                node.drain.cancel();
                result = Err(error);
            }
            Err(error) => tracing::error!(%error, "a slot of the node broke"),
        }
    }
    timer.abort();
    result
}

async fn slot(
    node: Arc<Node>,
    recovered: Arc<Mutex<VecDeque<Entry>>>,
    shutdown: CancellationToken,
) -> Result<(), AgentError> {
    loop {
        let next = recovered.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
        let (entry, fresh) = match next {
            Some(entry) => (entry, false),
            None => match claim(&node, &shutdown).await? {
                Some(task) => (Entry { task, renderer: None }, true),
                None => return Ok(()),
            },
        };
        // A task of its own: a defect there costs that attempt and nothing else. It ends with the slot.
        let mut attempt = JoinSet::new();
        attempt.spawn(attempt_task(node.clone(), entry, fresh));
        if let Some(Err(error)) = attempt.join_next().await {
            tracing::error!(%error, "an attempt broke");
        }
    }
}

/// Waits for a task; none after a shutdown.
async fn claim(node: &Node, shutdown: &CancellationToken) -> Result<Option<LeasedTask>, AgentError> {
    let mut backoff = Backoff::new(node.config.retry);
    let request = ClaimWork {
        incarnation: node.incarnation,
        labels: node.labels.clone(),
        wait_seconds: node.config.claim_wait.as_secs_f64(),
    };
    loop {
        let answer = tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = node.drain.cancelled() => return Ok(None),
            answer = async { room(node).await; node.client.claim(&request).await } => answer,
        };
        match answer {
            Ok(Some(work)) => return Ok(Some(work.task)),
            Ok(None) => {
                backoff.reset();
                continue;
            }
            Err(error @ (ClientError::Unauthorized | ClientError::Rejected { .. })) => {
                return Err(AgentError::Refused(error));
            }
            Err(error) => tracing::warn!(%error, "cannot claim work yet"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = node.drain.cancelled() => return Ok(None),
            () = backoff.pause() => {}
        }
    }
}

/// Waits until the disk has room for another attempt, forgetting cached inputs for it.
async fn room(node: &Node) {
    let reserve = node.config.disk_reserve_bytes;
    while let Some(free) = disk::free_bytes(&node.config.data).filter(|free| *free < reserve) {
        tracing::warn!(free, reserve, "the disk is too full to claim work");
        node.aerender.cache.make_room(node.config.cache_bytes);
        tokio::time::sleep(DISK_PAUSE).await;
    }
}

/// One attempt, from the journal entry to the report.
async fn attempt_task(node: Arc<Node>, mut entry: Entry, fresh: bool) {
    let task = entry.task.clone();
    let client = node.client.task(task.task_id, task.lease_token);
    let (attempt, keeper) = Attempt::new(task.clone());
    let mut lease = JoinSet::new();
    let held = Held { seconds: task.lease_seconds, fresh };
    lease.spawn(leases::keep(client.clone(), held, node.config.lease_patience, keeper));
    tracing::info!(task.id = task.task_id, run.id = %task.run_id, attempt = task.attempt_no, "attempt begins");

    let outcome = match node.journal.write(&entry) {
        Ok(()) => within_time(&node, &attempt, &client, &mut entry).await,
        Err(error) => Err(Failure::transient("render.disk_full", format!("the node cannot keep its journal: {error}"))),
    };
    log(&task, &outcome);
    let patience = if node.drain.is_cancelled() {
        LAST_REPORT
    } else {
        Duration::from_secs_f64(task.lease_seconds.clamp(1.0, 3600.0)) * (1 + node.config.lease_patience)
    };
    let reported = report(&client, &attempt, outcome, node.config.retry, patience).await;
    if reported != Reported::Untold {
        forget(&node, task.lease_token);
    }
}

async fn within_time(
    node: &Node,
    attempt: &Attempt,
    client: &TaskClient,
    entry: &mut Entry,
) -> Result<RenderedFrames, Failure> {
    let longest = Duration::from_secs_f64(entry.task.start_to_close_seconds.clamp(1.0, 7.0 * 86_400.0));
    let timed_out = |_| Err(Failure::transient("render.timed_out", "the attempt took longer than it may"));
    tokio::time::timeout(longest, render(node, attempt, client, entry)).await.unwrap_or_else(timed_out)
}

async fn render(
    node: &Node,
    attempt: &Attempt,
    client: &TaskClient,
    entry: &mut Entry,
) -> Result<RenderedFrames, Failure> {
    if entry.task.activity != RenderFrames::NAME {
        return Err(Failure::permanent("node.unknown_activity", format!("a node cannot do {}", entry.task.activity)));
    }
    let input: RenderFrames = serde_json::from_value(entry.task.input.clone())
        .map_err(|error| Failure::permanent("node.bad_input", format!("the task cannot be read: {error}")))?;
    let transfer = Transfer { task: client.clone(), retry: node.config.retry };
    let entry = Mutex::new(entry);
    let spawned = |id: &ProcessId| {
        let mut entry = entry.lock().unwrap_or_else(PoisonError::into_inner);
        entry.renderer = Some(id.clone());
        if let Err(error) = node.journal.write(&entry) {
            // The mark in its environment still tells whose it is.
            tracing::warn!(%error, "cannot write the renderer into the journal");
        }
    };
    let job = Job {
        attempt,
        folder: node.attempts().join(attempt.lease_token().to_string()),
        inputs: &transfer,
        frames: Arc::new(transfer.clone()),
        drain: node.drain.clone(),
        spawned: &spawned,
    };
    node.aerender.render(job, &input).await
}

/// The folder first: an entry without a folder is harmless, a folder without an entry is a stray.
fn forget(node: &Node, lease_token: Uuid) {
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
