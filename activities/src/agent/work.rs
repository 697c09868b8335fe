//! The node at work: slots that claim and render, until it is told to stop.
//!
//! ```text
//! shutdown ─▶ no more claims ─▶ grace ─▶ drain: renderers are killed, what is there is reported ─▶ end
//! ```

use super::{
    AgentConfig, AgentError, attempt,
    client::{Client, ClientError},
    disk,
    given::Given,
    inventory::Inventory,
    journal::{Entry, Journal},
    probe, pulse, recover, reel,
    retry::Backoff,
    stills::Turns,
};
use crate::aerender::Aerender;
use flatrender_engine::{Activity, Labels, LeasedTask};
use flatrender_workflows::contracts::{
    node::{Claim, PROBE_WANTED, ProbeReport, QUARANTINED},
    render::RenderFrames,
    snapshot::RenderStills,
};
use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest wait of one request for work.
const LONGEST_WAIT: Duration = Duration::from_secs(25);
/// Pause before another look at a full disk.
const DISK_PAUSE: Duration = Duration::from_secs(5);
/// Pause before a slot that broke begins anew.
const BROKEN_PAUSE: Duration = Duration::from_secs(5);

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
    /// One probe at a time.
    pub probing: tokio::sync::Mutex<()>,
    /// What tasks may require of us.
    pub labels: Labels,
    /// What the machine has.
    pub inventory: Inventory,
    /// How each running attempt is told to give its task back.
    pub attempts_now: Mutex<BTreeMap<Uuid, CancellationToken>>,
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

    /// The running attempts by lease token, and how each is told to give its task back.
    pub fn running(&self) -> BTreeMap<Uuid, CancellationToken> {
        self.attempts_now.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that an attempt runs until the answer is dropped.
    pub fn runs(&self, attempt: Uuid) -> Running<'_> {
        let drain = self.drain.child_token();
        self.attempts_now.lock().unwrap_or_else(PoisonError::into_inner).insert(attempt, drain.clone());
        Running { node: self, attempt, drain }
    }
}

/// A running attempt.
pub struct Running<'a> {
    node: &'a Node,
    attempt: Uuid,
    /// Cancelled when its task is to be given back.
    pub drain: CancellationToken,
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.node.attempts_now.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.attempt);
    }
}

/// Works until `shutdown`, then gives back what is not finished within the grace.
///
/// # Errors
/// [`AgentError::Refused`] when the server no longer knows us; attempts are stopped then.
pub async fn work(node: Arc<Node>, shutdown: CancellationToken) -> Result<(), AgentError> {
    // All at once: those beyond the slots wait, and are ours meanwhile.
    let recovered = recover::recover(&node).await.into_iter().map(|entry| Arc::new(Given::recovered(&node, entry)));
    let recovered: Recovered = Arc::new(Mutex::new(recovered.collect()));
    let mut slots = JoinSet::new();
    for _ in 0..node.config.slots.max(1) {
        slots.spawn(slot(node.clone(), recovered.clone(), shutdown.clone()));
    }
    let (grace, drain, told) = (node.config.drain_grace, node.drain.clone(), shutdown.clone());
    let timer = tokio::spawn(async move {
        told.cancelled().await;
        tokio::time::sleep(grace).await;
        drain.cancel();
    });
    let pulse = tokio::spawn(pulse::keep(node.clone()));
    let mut result = Ok(());
    while let Some(ended) = slots.join_next().await {
        match ended {
            Ok(Ok(())) => {}
            // The others find out at their next call; they are not cut off in the middle of one.
            Ok(Err(error)) => {
                node.drain.cancel();
                result = Err(error);
            }
            Err(error) => {
                tracing::error!(%error, "a slot of the node broke, and begins anew");
                let again = slot(node.clone(), recovered.clone(), shutdown.clone());
                slots.spawn(async move {
                    tokio::time::sleep(BROKEN_PAUSE).await;
                    again.await
                });
            }
        }
    }
    timer.abort();
    pulse.abort();
    result
}

/// Attempts of an earlier process that wait for a slot.
type Recovered = Arc<Mutex<VecDeque<Arc<Given>>>>;

async fn slot(node: Arc<Node>, recovered: Recovered, shutdown: CancellationToken) -> Result<(), AgentError> {
    let claimed = |task| Arc::new(Given::claimed(&node, Entry::new(task)));
    loop {
        let mut given = waiting(&recovered, &node.drain);
        if given.is_empty() {
            given = claim(&node, &shutdown).await?.into_iter().map(claimed).collect();
        }
        if given.is_empty() {
            return Ok(());
        }
        visit(&node, given).await;
    }
}

/// The next attempt of an earlier process; once the node goes away all of them, which are then given back side by side.
fn waiting(recovered: &Recovered, drain: &CancellationToken) -> Vec<Arc<Given>> {
    let mut recovered = recovered.lock().unwrap_or_else(PoisonError::into_inner);
    let count = if drain.is_cancelled() { recovered.len() } else { recovered.len().min(1) };
    recovered.drain(..count).collect()
}

/// Makes attempts that were given at once, each with its own lease and report. Stills of After Effects are rendered together; all
/// other renderers run one after another.
async fn visit(node: &Arc<Node>, given: Vec<Arc<Given>>) {
    let turns = Turns::default();
    let (reels, mut alone) = reel::sort(given);
    for together in reels {
        let (mut work, tokens) = (JoinSet::new(), together.iter().map(|given| given.token()).collect::<Vec<_>>());
        work.spawn(reel::make(node.clone(), together, turns.clone()));
        match work.join_next().await {
            Some(Ok(left)) => alone.extend(left),
            Some(Err(error)) => {
                tracing::error!(%error, "stills that were rendered together broke");
                tokens.iter().for_each(|token| attempt::forget(node, *token));
            }
            None => {}
        }
    }
    // Tasks of their own: a defect in one costs that attempt and nothing else. They end with the slot.
    let (mut work, mut tokens) = (JoinSet::new(), HashMap::new());
    for given in alone {
        let token = given.token();
        let started = work.spawn(attempt::make(node.clone(), given, turns.clone()));
        tokens.insert(started.id(), token);
    }
    while let Some(ended) = work.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "an attempt broke");
            if let Some(token) = tokens.get(&error.id()) {
                attempt::forget(node, *token);
            }
        }
    }
}

/// Waits for tasks, more than one only when they are stills; none after a shutdown.
async fn claim(node: &Node, shutdown: &CancellationToken) -> Result<Vec<LeasedTask>, AgentError> {
    let mut backoff = Backoff::new(node.config.retry);
    let request = Claim {
        incarnation: node.incarnation,
        queues: Vec::new(),
        activities: [RenderFrames::NAME, RenderStills::NAME].map(str::to_owned).to_vec(),
        labels: node.labels.clone(),
        slots: 1,
        wait_seconds: node.config.claim_wait.min(LONGEST_WAIT).as_secs_f64(),
    };
    loop {
        let asked = Instant::now();
        let answer = tokio::select! {
            () = shutdown.cancelled() => return Ok(Vec::new()),
            () = node.drain.cancelled() => return Ok(Vec::new()),
            answer = async { room(node).await; node.client.claim(&request).await } => answer,
        };
        match answer {
            Ok(Some(work)) if !work.tasks.is_empty() => return Ok(work.tasks),
            // A server that does not wait is one that is going away: it is not to be asked again and again.
            Ok(_) if asked.elapsed() >= node.config.claim_wait.min(LONGEST_WAIT) / 2 => {
                backoff.reset();
                continue;
            }
            Ok(_) => {}
            Err(ClientError::Rejected { code, .. }) if code == PROBE_WANTED => prove(node).await,
            Err(ClientError::Rejected { code, .. }) if code == QUARANTINED => {
                tracing::warn!("this node is in quarantine, and is not to be probed yet");
            }
            Err(error @ ClientError::Unauthorized) => return Err(AgentError::Refused(error)),
            Err(error) => tracing::warn!(%error, "cannot claim work yet"),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(Vec::new()),
            () = node.drain.cancelled() => return Ok(Vec::new()),
            () = backoff.pause() => {}
        }
    }
}

/// Renders the probe and tells what it found; the server decides what that is worth.
async fn prove(node: &Node) {
    // Whoever comes second finds that somebody is at it, and asks again later.
    let Ok(_held) = node.probing.try_lock() else { return };
    tracing::warn!("this node is in quarantine: rendering the probe");
    let report = ProbeReport { checks: probe::run(&node.config, &node.inventory.offered()).await };
    for check in report.checks.iter().filter(|check| !check.ok) {
        tracing::error!(check = check.name, found = check.found, fix = check.fix, "the probe failed");
    }
    if let Err(error) = node.client.report_probe(&report).await {
        tracing::warn!(%error, "cannot report the probe");
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
