//! A render node's life: enrol, take up what an earlier process left, claim, render, report, drain.
//!
//! ```text
//! enrol (once) ─▶ recover ─▶ slot: claim ─▶ journal ─▶ render ─▶ report ─▶ forget ─┐
//!                              ▲   lease renewed from the claim to the report       │
//!                              └────────────────────────────────────────────────────┘
//! ```
//! The agent speaks HTTPS and nothing else: it has no database, and its credential reaches only the attempts it
//! was given. What it must remember over its own death is in the [`journal`].

pub mod attempt;
pub mod client;
pub mod config;
pub mod credential;
pub mod disk;
pub mod doctor;
pub mod fonts;
pub mod given;
pub mod gpu;
mod installs;
pub mod inventory;
pub mod journal;
pub mod leases;
pub mod plugins;
pub mod probe;
pub mod pulse;
pub mod recover;
pub mod reel;
pub mod report;
pub mod retry;
pub mod stills;
pub mod transfer;
pub mod work;

pub use config::{AgentConfig, NodeArgs};

use crate::aerender::{Aerender, cache::Cache, unpack::Bounds};
use client::Client;
use credential::Credential;
use inventory::Inventory;
use journal::Journal;
use std::{fs, io, sync::Arc};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;
use work::Node;

/// Why an agent cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// Its folder cannot be used.
    #[error("the folder {folder} cannot be used")]
    Folder {
        /// The data folder.
        folder: String,
        /// What the system says.
        #[source]
        source: io::Error,
    },
    /// Another agent works in the same folder.
    #[error("another agent is running in {folder}")]
    FolderBusy {
        /// The data folder.
        folder: String,
    },
    /// Nobody said where the server is.
    #[error("give the address of the server with --server")]
    NoServer,
    /// It has no credential, and no token to get one.
    #[error("the node is not enrolled: give it a one-time token")]
    NotEnrolled,
    /// The server does not accept the token or what the node says of itself.
    #[error("the server refused to enrol the node")]
    EnrolRefused(#[source] client::ClientError),
    /// The server no longer accepts the credential.
    #[error("the server refused the node's credential")]
    Refused(#[source] client::ClientError),
    /// No renderer was found.
    #[error("no renderer was found: give the path of one")]
    NoRenderer,
    /// The HTTP client cannot be made.
    #[error("the HTTP client cannot be set up")]
    Http(#[source] client::ClientError),
}

/// Runs a node until `shutdown` is cancelled and its attempts are finished or given back.
///
/// # Errors
/// When the node cannot work at all; a server that is away is waited for.
pub async fn run(config: AgentConfig, shutdown: CancellationToken) -> Result<(), AgentError> {
    if config.server.is_empty() {
        return Err(AgentError::NoServer);
    }
    let _lock = lock(&config)?;
    let inventory = Inventory::take(&config).await?;
    let mut anonymous = Client::new(&config.server).map_err(AgentError::Http)?;
    let mut credential = Credential::load(&config);
    // A token beside a credential that no longer holds: the node is to be enrolled anew, once. The old one is replaced then, not before.
    let mut anew = credential.is_some() && config.token.is_some();
    loop {
        let known = match credential.take() {
            Some(known) => known,
            None => match credential::enrol(&config, &inventory, &anonymous, &shutdown).await? {
                Some(enrolled) => enrolled,
                None => return Ok(()),
            },
        };
        anonymous = anonymous.with_credential(&known.credential);
        let node = node(&config, &inventory, anonymous.clone())?;
        tracing::info!(node.id = %known.node_id, server = config.server, slots = config.slots, "node is at work");
        match work::work(node, shutdown.clone()).await {
            Err(AgentError::Refused(_)) if anew => anew = false,
            ended => return ended,
        }
    }
}

fn node(config: &AgentConfig, inventory: &Inventory, client: Client) -> Result<Arc<Node>, AgentError> {
    let unusable = |source| AgentError::Folder { folder: config.data.display().to_string(), source };
    let cache = Cache::open(config.data.join("cache"), config.cache_bytes, Bounds::default()).map_err(unusable)?;
    let journal = Journal::open(config.data.join("journal")).map_err(unusable)?;
    let renderers = inventory.programs.clone();
    Ok(Arc::new(Node {
        config: config.clone(),
        client,
        journal,
        aerender: Aerender { renderers, cache, limits: config.limits },
        labels: inventory.capabilities.labels.clone(),
        probing: tokio::sync::Mutex::default(),
        inventory: inventory.clone(),
        attempts_now: std::sync::Mutex::default(),
        incarnation: Uuid::new_v4(),
        drain: CancellationToken::new(),
    }))
}

/// One agent a folder: two would kill each other's renderers.
fn lock(config: &AgentConfig) -> Result<fs::File, AgentError> {
    let folder = config.data.display().to_string();
    let unusable = |source| AgentError::Folder { folder: folder.clone(), source };
    fs::create_dir_all(&config.data).map_err(unusable)?;
    let file = fs::File::create(config.data.join("agent.lock")).map_err(unusable)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(fs::TryLockError::WouldBlock) => Err(AgentError::FolderBusy { folder }),
        Err(fs::TryLockError::Error(source)) => Err(unusable(source)),
    }
}
