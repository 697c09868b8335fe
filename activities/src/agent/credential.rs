//! The node's credential: got once for a one-time token, kept in the data folder for its owner's eyes only.

use super::{
    AgentConfig, AgentError,
    client::{Client, ClientError},
    inventory::Inventory,
    journal::write_whole,
    retry::Backoff,
};
use flatrender_workflows::contracts::node::Enrol;
use serde::{Deserialize, Serialize};
use std::{fs, path::PathBuf};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What makes this machine a node of one server.
#[derive(Clone, Serialize, Deserialize)]
pub struct Credential {
    /// The server that gave it.
    pub server: String,
    /// The node.
    pub node_id: Uuid,
    /// Bearer token.
    pub credential: String,
}

impl Credential {
    /// The credential of an earlier start for the same server.
    pub fn load(config: &AgentConfig) -> Option<Self> {
        let kept: Self = serde_json::from_slice(&fs::read(path(config)).ok()?).ok()?;
        (kept.server == config.server).then_some(kept)
    }
}

/// Enrols the node; a server that is away is waited for. None when a shutdown came first.
///
/// # Errors
/// [`AgentError::NotEnrolled`] without a token, [`AgentError::EnrolRefused`] when the server says no.
pub async fn enrol(
    config: &AgentConfig,
    inventory: &Inventory,
    client: &Client,
    shutdown: &CancellationToken,
) -> Result<Option<Credential>, AgentError> {
    let token = config.token.clone().ok_or(AgentError::NotEnrolled)?;
    let request = Enrol { token, name: config.name.clone(), capabilities: inventory.capabilities.clone() };
    let mut backoff = Backoff::new(config.retry);
    loop {
        let answer = tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            answer = client.enrol(&request) => answer,
        };
        match answer {
            Ok(enrolled) => {
                let server = config.server.clone();
                let credential = Credential { server, node_id: enrolled.node_id, credential: enrolled.credential };
                keep(config, &credential)?;
                return Ok(Some(credential));
            }
            Err(error @ ClientError::Unreachable(_)) => tracing::warn!(%error, "cannot enrol yet"),
            Err(error) => return Err(AgentError::EnrolRefused(error)),
        }
        tokio::select! {
            () = shutdown.cancelled() => return Ok(None),
            () = backoff.pause() => {}
        }
    }
}

/// Keeps another credential in place of the one that is there.
///
/// # Errors
/// There is none, or the folder cannot be written.
pub fn replace(config: &AgentConfig, credential: &str) -> Result<(), AgentError> {
    let kept = Credential::load(config).ok_or(AgentError::NotEnrolled)?;
    keep(config, &Credential { credential: credential.to_owned(), ..kept })
}

fn keep(config: &AgentConfig, credential: &Credential) -> Result<(), AgentError> {
    let bytes = serde_json::to_vec(credential).unwrap_or_default();
    write_whole(&path(config), &bytes)
        .map_err(|source| AgentError::Folder { folder: config.data.display().to_string(), source })
}

fn path(config: &AgentConfig) -> PathBuf {
    config.data.join("credential.json")
}
