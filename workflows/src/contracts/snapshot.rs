//! A still of a scene: one frame, rendered on a render node, and the pictures made of it.
//!
//! ```text
//! RenderStills (node) ─▶ a PNG on the job's shelf ─▶ MakeStill (media worker, ffmpeg) ─▶ two WebP on the public shelf
//! ```
//! A node needs no more than a renderer: every picture that the public sees is encoded by workers of ours, by one recipe.

use super::{
    media::MEDIA_QUEUE,
    render::{Engine, FrameClass, FrameRange, RenderData, RenderFrames, RenderTiming},
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
    /// The scene that it shows.
    pub scene: String,
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
    type Output = Still;

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

impl RenderStills {
    /// The same as a frame range of one frame: how renderers understand it.
    pub fn as_frames(&self) -> RenderFrames {
        RenderFrames {
            render_id: self.job_id,
            engine: self.engine,
            package: self.package.clone(),
            package_owner: self.package_owner,
            composition: self.composition.clone(),
            frames: FrameRange { first: self.frame, last: self.frame },
            data: self.data.clone(),
            assets: Vec::new(),
            size: self.size,
            fps: self.fps,
            pace: None,
            needs: self.needs.clone(),
            avoid: Vec::new(),
            class: FrameClass::Final,
        }
    }
}

/// What an attempt at [`RenderStills`] gives.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Still {
    /// A real frame.
    Rendered(RenderedStill),
    /// A picture of the development mock, as `data:image/png;base64,…` of at most 16 KiB. The server takes it from no node.
    Placeholder(String),
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

/// Makes the pictures of a rendered frame with ffmpeg: at most 1280 and 480 pixels wide, WebP without metadata, each decoded again
/// before it is stored on the public shelf. Repeatable: pictures are stored by content. Fails for good with
/// `media.still_failed` and with [`super::media::FRAME_LOST`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MakeStill {
    /// The snapshot job whose shelf holds the frame.
    pub job_id: Uuid,
    /// The frame's PNG.
    pub frame: BlobRef,
    /// Its width and height in pixels.
    pub size: [u32; 2],
}

/// The pictures of a still.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MadeStill {
    /// At most 1280 pixels wide.
    pub large: Picture,
    /// At most 480 pixels wide.
    pub small: Picture,
}

/// A picture on the public shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Picture {
    /// WebP.
    pub blob: BlobRef,
    /// Width and height in pixels.
    pub size: [u32; 2],
}

impl Activity for MakeStill {
    const NAME: &'static str = "MakeStill";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = MadeStill;

    fn policy(&self) -> Policy {
        Policy {
            max_failures: 8,
            backoff_base: Duration::from_secs(2),
            backoff_cap: Duration::from_secs(60),
            lease: Duration::from_secs(15),
            start_to_close: Duration::from_secs(120),
            ..Policy::default()
        }
    }
}
