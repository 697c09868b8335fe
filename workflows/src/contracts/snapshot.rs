//! A still of a scene: one frame, rendered on a render node, and the pictures made of it.

use super::{
    render::{Engine, RenderData, RenderTiming},
    storage::BlobRef,
};
use flatrender_engine::{Activity, Labels, Policy};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The queue of stills; render nodes work on it, and nobody waits long for it.
pub const SNAPSHOT_QUEUE: &str = "node.snapshot";

/// Most stills of one package that a node takes in one visit.
pub const STILLS_A_VISIT: u32 = 8;

/// Renders one frame of a composition and stores its PNG on the shelf of `job_id`. One task is one still; a node may be given up
/// to [`STILLS_A_VISIT`] of the same package at once, each with a lease of its own.
///
/// Repeatable: frames are stored by content. Fails for good as [`super::render::RenderFrames`] does.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenderStills {
    /// The snapshot job it belongs to; the frame goes to its shelf.
    pub job_id: Uuid,
    /// Which program renders it.
    pub engine: Engine,
    /// The template package, zipped.
    pub package: BlobRef,
    /// The tenant whose shelf of files holds the package: a template may be shared.
    pub package_owner: Uuid,
    /// Name of the composition.
    pub composition: String,
    /// The frame of it, 0-based.
    pub frame: u32,
    /// What is shown: the template's defaults.
    pub data: RenderData,
    /// Width and height of the frame in pixels.
    pub size: [u32; 2],
    /// Frames a second of the composition.
    pub fps: u32,
    /// What else a node must have, such as fonts.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub needs: Labels,
}

impl Activity for RenderStills {
    const NAME: &'static str = "RenderStills";
    const QUEUE: &'static str = SNAPSHOT_QUEUE;
    type Output = RenderedStill;

    fn policy(&self) -> Policy {
        Policy {
            max_failures: 3,
            max_losses: 5,
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(30),
            lease: Duration::from_secs(30),
            start_to_close: Duration::from_secs(300),
        }
    }

    fn labels(&self) -> Labels {
        let mut labels = self.needs.clone();
        labels.insert("engine".to_owned(), self.engine.label().to_owned());
        labels
    }

    fn warm_key(&self) -> Option<String> {
        Some(self.package.sha256.to_string())
    }
}

/// A frame that exists, decodes to its last byte, has the planned size and is stored on the job's shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenderedStill {
    /// Its PNG.
    pub frame: BlobRef,
    /// What the renderer warned of.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// Where the attempt's wall time went.
    #[serde(default)]
    pub timing: RenderTiming,
}
