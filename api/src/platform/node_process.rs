//! The platform's own render node: this program again, as a child, started anew when it dies.
//!
//! A process of its own, because a renderer that brings its node down must not bring the server down.

use super::import;
use super::process::{self, Backoff};
use flatrender_activities::agent::AgentConfig;
use nix::sys::signal::Signal;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use std::io;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, Command};
use tokio_util::sync::CancellationToken;

/// What a node is started with.
#[derive(Clone)]
pub struct NodeProcess {
    /// Address of the server.
    pub server: String,
    /// Where its one-time token comes from.
    pub db: PgPool,
    /// Where it keeps what it has to remember.
    pub data: PathBuf,
}

/// How long a node may take to give its work back.
const DRAIN: Duration = Duration::from_secs(15);

impl NodeProcess {
    /// Keeps the node running until `draining`; then lets it give its work back and end. When `hurry` is cancelled,
    /// it is ended by force.
    pub async fn keep(self, draining: CancellationToken, hurry: CancellationToken) {
        let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
        while !draining.is_cancelled() {
            backoff.begins();
            match self.start().await {
                Ok(mut child) => {
                    // The node ends when this does. Kept apart: waiting for a process closes what it reads.
                    let _lifeline = child.stdin.take();
                    tokio::select! {
                        ended = child.wait() => tracing::warn!("the render node ended: {}", status(ended)),
                        () = draining.cancelled() => return stop(child, &hurry).await,
                    }
                }
                Err(e) => tracing::error!("the render node cannot be started: {e}"),
            }
            tokio::select! {
                () = tokio::time::sleep(backoff.delay()) => {}
                () = draining.cancelled() => return,
            }
        }
    }

    /// A fresh token each time: a node killed while it enrolled has used up its token and knows no credential.
    async fn start(&self) -> io::Result<Child> {
        let token = import::create_node_token(&self.db).await.map_err(io::Error::other)?;
        let mut command = Command::new(process::this_program());
        command.args(["node", "--exit-with-parent", "--server", &self.server, "--name", &self.name()]).arg("--data");
        // Not an argument: those can be read by everybody on the machine.
        command.arg(&self.data).env("FLATRENDER_NODE_TOKEN", token.reveal()).env_remove("DATABASE_URL");
        // Its own group, so that a Ctrl-C reaches the workers first. The pipe ends when we do, and so does the node.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true).spawn()
    }

    /// The machine's name and a mark of the folder: two platforms may share a machine, or a database.
    fn name(&self) -> String {
        let mark = hex::encode(&Sha256::digest(self.data.as_os_str().as_encoded_bytes())[..3]);
        let machine: String = AgentConfig::new(&self.server, &self.data).name.chars().take(56).collect();
        format!("{machine}-{mark}")
    }
}

/// SIGTERM drains; a second one, or too long a wait, ends it at once.
async fn stop(mut child: Child, hurry: &CancellationToken) {
    let Some(pid) = child.id() else { return };
    process::signal(pid as i32, Signal::SIGTERM);
    tokio::select! {
        _ = child.wait() => return,
        () = tokio::time::sleep(DRAIN) => tracing::warn!("the render node does not end; ending it by force"),
        () = hurry.cancelled() => {}
    }
    process::signal(pid as i32, Signal::SIGTERM);
    if tokio::time::timeout(Duration::from_secs(2), child.wait()).await.is_err() {
        process::signal_group(pid as i32, Signal::SIGKILL);
        let _ = child.wait().await;
    }
}

fn status(ended: io::Result<std::process::ExitStatus>) -> String {
    ended.map_or_else(|e| e.to_string(), |status| status.to_string())
}
