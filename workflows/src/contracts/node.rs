//! What a render node and the server say to each other, over HTTPS with JSON bodies.
//!
//! ```text
//! POST /v1/nodes/enrol                      one-time token → node and credential
//! POST /v1/nodes/claims                     long poll → 200 a task, 204 none, 409 `node.probe_wanted` or `node.quarantined`
//! POST /v1/nodes/probe                      what a probe found
//! POST /v1/nodes/hello                      at each start: everything the node has → orders
//! POST /v1/nodes/health                     every ten seconds: how it fares → orders
//! POST /v1/nodes/credential                 another credential; the old one is good until the new one is used
//! POST /v1/nodes/tasks/{task_id}/renew      progress → what became of the lease
//! POST /v1/nodes/tasks/{task_id}/complete   output
//! POST /v1/nodes/tasks/{task_id}/fail       failure
//! POST /v1/nodes/tasks/{task_id}/release    given back, not counted
//! GET  /v1/nodes/tasks/{task_id}/inputs/{sha256}    package or asset named by the task
//! HEAD|PUT /v1/nodes/tasks/{task_id}/frames/{sha256}  a frame, to the render's shelf
//! GET|POST /v1/nodes/tasks/{task_id}/frames           frames that are there already; frames that were stored
//! ```
//! Claims, renewals and reports are those of every remote worker of the engine: [`flatrender_engine::remote`]. What is ours is how a
//! machine becomes a node, and how bytes come and go. The credential is a bearer token. Every call about a task carries the lease token, in the body or in the header
//! `lease-token`; a stale one is answered 409 `lease.lost` and changes nothing.

pub mod labels;

use super::{render::FrameRef, storage::BlobHash};
use flatrender_engine::Labels;
pub use flatrender_engine::remote::wire::{Claim, Claimed, Complete, Fail, Release, Renew, Renewed};
pub use labels::{OLDEST_AFTER_EFFECTS, needs, offers};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The header that carries the lease token where there is no JSON body.
pub const LEASE_TOKEN_HEADER: &str = "lease-token";

/// Asks to become a node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Enrol {
    /// One-time token an operator made.
    pub token: String,
    /// Name of the machine, 1 to 64 of `[a-zA-Z0-9._-]`. Enrolling again under a name fences the earlier process.
    pub name: String,
    /// What it can do.
    pub capabilities: Capabilities,
}

/// What a node can do.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Capabilities {
    /// Version of the agent.
    pub agent_version: String,
    /// Operating system and architecture.
    pub os: String,
    /// Logical processors.
    pub cpus: u32,
    /// Memory in MiB; 0 when unknown.
    pub ram_mb: u64,
    /// Tasks it takes at a time.
    pub slots: u32,
    /// Labels that tasks may require, such as `engine=lottie`.
    pub labels: Labels,
    /// Version line of each renderer by engine label.
    pub renderers: std::collections::BTreeMap<String, String>,
}

/// The node is known; the credential is shown once.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Enrolled {
    /// The node.
    pub node_id: Uuid,
    /// Bearer token for every further call.
    pub credential: String,
}

/// The server wants the node to prove itself before it gives it work: code of the answer to a claim.
pub const PROBE_WANTED: &str = "node.probe_wanted";
/// The node is in quarantine, and not to be probed yet; the header `retry-after` says when: code of the answer to a claim.
pub const QUARANTINED: &str = "node.quarantined";

/// What a probe found: a small film of known colours, rendered by the node.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// Each thing that was looked at.
    pub checks: Vec<Check>,
}

impl ProbeReport {
    /// Whether something was looked at and all of it is well.
    pub fn passed(&self) -> bool {
        !self.checks.is_empty() && self.checks.iter().all(|check| check.ok)
    }
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Check {
    /// Short and stable, such as `disk` or `probe:lottie`.
    pub name: String,
    /// Whether it is well.
    pub ok: bool,
    /// What was found, in words.
    pub found: String,
    /// What to do about it, in words; none when it is well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fix: Option<String>,
}

/// A package that a node holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CachedPackage {
    /// Its hash.
    pub sha256: BlobHash,
    /// Bytes it takes on the node's disk, unpacked.
    pub bytes: u64,
    /// Seconds since it was used last.
    pub idle_seconds: u64,
    /// How often it was found there since the agent was started.
    pub hits: u64,
    /// Whether an attempt uses it now.
    pub in_use: bool,
}

/// Frames that an attempt has stored on the render's shelf: kept, whatever becomes of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StoredFrames {
    /// The fence.
    pub lease_token: Uuid,
    /// At most [`MOST_STORED`].
    pub frames: Vec<FrameRef>,
}

/// Most frames of a [`StoredFrames`].
pub const MOST_STORED: usize = 1000;

/// Frames of a task that earlier attempts have stored.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeptFrames {
    /// Their numbers, ascending.
    pub frames: Vec<u32>,
}

/// What a node says of itself each time it starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Hello {
    /// This start of the agent.
    pub incarnation: Uuid,
    /// As at enrolment, as it is now.
    pub capabilities: Capabilities,
    /// What is installed.
    pub inventory: Inventory,
    /// What it holds.
    pub cache: Vec<CachedPackage>,
    /// Bytes its cache may have.
    pub cache_limit: u64,
}

/// What is installed on a node.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Inventory {
    /// Main number of its newest After Effects, such as 24.
    pub after_effects: Option<u32>,
    /// PostScript names of its fonts.
    pub fonts: Vec<String>,
    /// Match names of its plug-ins.
    pub plugins: Vec<String>,
    /// Name of its graphics processor.
    pub gpu: Option<String>,
    /// MiB that are free where it works.
    pub disk_free_mb: Option<u64>,
}

/// How a node fares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Health {
    /// Its disk is fuller than its owner lets it be: it asks for no work until there is room.
    #[serde(default)]
    pub is_full: bool,
    /// This start of the agent.
    pub incarnation: Uuid,
    /// Tasks it has now.
    pub running_tasks: u32,
    /// Of all its processors together, 0 to 100; none at its first word, and from macOS.
    pub cpu_percent: Option<f32>,
    /// MiB in use; none from macOS.
    pub ram_mb: Option<u64>,
    /// MiB that are free where it works.
    pub disk_free_mb: Option<u64>,
    /// Milliseconds the call before took.
    pub rtt_ms: Option<u32>,
    /// What it holds; none: as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<Vec<CachedPackage>>,
}

/// What the server wants of a node.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Orders {
    /// Stop what it renders and give it back.
    pub give_back: bool,
    /// Packages that stay in its cache.
    pub keep: Vec<BlobHash>,
    /// Packages to forget.
    pub evict: Vec<BlobHash>,
    /// Ask for another credential.
    pub rotate: bool,
}

/// Another credential. The old one is good until this one is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotated {
    /// Bearer token for every further call.
    pub credential: String,
}
