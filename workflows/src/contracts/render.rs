//! Rendering frames of a composition on a render node.

use super::storage::BlobRef;
use flatrender_engine::{Activity, Failure, Labels, Policy};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

/// The queue of render nodes.
pub const NODE_QUEUE: &str = "node.render";

/// Frames `first` to `last` of a composition, 0-based, both ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRange {
    /// First frame.
    pub first: u32,
    /// Last frame; never before `first`.
    pub last: u32,
}

impl FrameRange {
    /// How many frames; at least one.
    pub fn count(self) -> u32 {
        self.last - self.first + 1
    }

    /// The frames in order.
    pub fn iter(self) -> impl Iterator<Item = u32> {
        self.first..=self.last
    }

    /// Whether `frame` is one of them.
    pub fn contains(self, frame: u32) -> bool {
        (self.first..=self.last).contains(&frame)
    }
}

/// Which program renders a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Engine {
    /// The built-in renderer, for Lottie packages.
    Lottie,
    /// Adobe After Effects.
    AfterEffects,
}

impl Engine {
    /// As it stands in a node's label `engine`.
    pub fn label(self) -> &'static str {
        match self {
            Self::Lottie => "lottie",
            Self::AfterEffects => "after_effects",
        }
    }
}

/// Renders one frame range of a composition to PNG files.
///
/// Repeatable: each attempt works in its own folder and frames are stored by content. Fails for good with the
/// codes of a faulty template or faulty data (`render.missing_font`, `render.unknown_field` …); with
/// `render.crashed`, `render.stalled` or `render.disk_full` another attempt may succeed. An attempt that made
/// only some frames succeeds with the rest listed as [`RenderedFrames::faults`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenderFrames {
    /// The render it belongs to; frames go to its shelf.
    pub render_id: Uuid,
    /// Which program renders it.
    pub engine: Engine,
    /// The template package, zipped.
    pub package: BlobRef,
    /// The tenant whose shelf of files holds the package: a template may be shared.
    pub package_owner: Uuid,
    /// Name of the composition.
    pub composition: String,
    /// The frames wanted.
    pub frames: FrameRange,
    /// The customer's data, bound before rendering.
    pub data: RenderData,
    /// Files put into the package before rendering.
    pub assets: Vec<RenderAsset>,
    /// Width and height of every frame in pixels.
    pub size: [u32; 2],
    /// Frames a second.
    pub fps: u32,
    /// How long frames of this template have taken; none when nothing is known. Timers grow with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pace: Option<Pace>,
    /// What a node must offer beside the renderer: fonts, plug-ins, a version of After Effects, as labels.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub needs: Labels,
    /// Names of nodes that had these frames before and did not make them well: others are asked first. One of them
    /// takes the task when nobody else may.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub avoid: Vec<String>,
    /// How urgent it is.
    #[serde(default, skip_serializing_if = "FrameClass::is_final")]
    pub class: FrameClass,
}

/// What frames are rendered for: whoever places tasks goes by it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FrameClass {
    /// A film that is to be delivered.
    #[default]
    Final,
    /// A small film to look at: somebody waits for it.
    Preview,
    /// What is missing of a film that is nearly done.
    Repair,
    /// What another node is at, and late with: only for nodes that have nothing else to do, and never for that one.
    Spare,
}

impl FrameClass {
    fn is_final(&self) -> bool {
        *self == Self::Final
    }
}

/// Tells the run of a film that a node is late with an activity of its: the signal [`Late::signal`], once. A second node may then
/// render the same frames; the first whole result counts.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Late {
    /// The node, by name.
    pub node: String,
}

impl Late {
    /// Name of the signal about the activity with this key.
    pub fn signal(activity: &str) -> String {
        format!("late:{activity}")
    }
}

/// Tells the run of a film that an attempt which had ended has said since what shows in its frames: the signal [`Spoiled::SIGNAL`], whose
/// deduplication key is the attempt's lease token. Nobody waits for it: steps that take frames in look for it in the run's record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spoiled {
    /// The node, by name.
    pub node: String,
    /// Code of the failure.
    pub code: String,
}

impl Spoiled {
    /// Name of the signal.
    pub const SIGNAL: &'static str = "spoiled";
}

/// How long frames of a template have taken, in milliseconds a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pace {
    /// Half of the frames took no longer.
    pub p50_ms: u64,
    /// All but one in a hundred took no longer.
    pub p99_ms: u64,
}

impl Activity for RenderFrames {
    const NAME: &'static str = "RenderFrames";
    const QUEUE: &'static str = NODE_QUEUE;
    type Output = RenderedFrames;

    fn policy(&self) -> Policy {
        Policy {
            // What failed is looked at by the definition: it asks for less, or for another node.
            max_failures: 1,
            max_losses: 5,
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(30),
            lease: Duration::from_secs(15),
            start_to_close: Duration::from_secs(4 * 3600),
        }
    }

    fn labels(&self) -> Labels {
        let engine = ("engine".to_owned(), self.engine.label().to_owned());
        self.needs.clone().into_iter().chain([engine]).collect()
    }
}

/// A file of the customer's, put at `path` below the package's folder.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderAsset {
    /// Relative, below `assets/`, ASCII, made by the server.
    pub path: String,
    /// Its content, on the tenant's shelf of files.
    pub blob: BlobRef,
}

/// `data.json` of a package: what the customer wants shown. Keys are checked against the project; an unknown one
/// is an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RenderData {
    /// Version of this format: 1.
    pub version: u32,
    /// Words by field.
    #[serde(default)]
    pub texts: BTreeMap<String, String>,
    /// Pictures by slot.
    #[serde(default)]
    pub images: BTreeMap<String, ImageBinding>,
    /// `#rrggbb` by colour token.
    #[serde(default)]
    pub colors: BTreeMap<String, String>,
    /// Whether to show, by visibility key.
    #[serde(default)]
    pub visibility: BTreeMap<String, bool>,
    /// Scenes in order, each with its length; absent: as the template has them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenes: Option<Vec<SceneBinding>>,
    /// Width and height of the picture in pixels; absent: the project's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub size: Option<[u32; 2]>,
}

/// A picture in a slot.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageBinding {
    /// Path below the package's folder.
    pub file: String,
    /// How it fills its slot.
    pub fit: Fit,
}

/// How a picture fills its slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fit {
    /// Fills the slot, crops what stands over.
    Cover,
    /// Shows the whole picture, with clear margins.
    Contain,
}

/// A scene of the film.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SceneBinding {
    /// Id of the scene.
    pub id: String,
    /// Its length in frames.
    pub frames: u32,
}

/// What an attempt at [`RenderFrames`] produced.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenderedFrames {
    /// Frames that exist, decode fully, have the planned size and are stored on the render's shelf; in order.
    pub frames: Vec<FrameRef>,
    /// Planned frames that are missing or bad.
    pub faults: Vec<FrameFault>,
    /// Why some are; none when all are good. Its details are an [`Evidence`](super::evidence::Evidence).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cause: Option<Failure>,
    /// What the renderer warned of.
    pub warnings: Vec<String>,
    /// Where the attempt's wall time went.
    pub timing: RenderTiming,
}

/// A rendered frame.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameRef {
    /// Its number in the composition, 0-based.
    pub frame: u32,
    /// Its PNG, on the render's shelf.
    pub blob: BlobRef,
}

/// Why a planned frame does not count.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FrameFault {
    /// Its number in the composition, 0-based.
    pub frame: u32,
    /// What is wrong.
    pub reason: FaultReason,
}

/// What is wrong with a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FaultReason {
    /// No file, or an empty one.
    Missing,
    /// It does not decode to the last byte.
    Corrupt,
    /// It has another size than planned.
    WrongSize,
    /// The stored content is not what was reported.
    WrongHash,
    /// It is whole, but shows nothing, among others that do.
    Black,
    /// It is whole, but the same as the one before, among others that move.
    Duplicate,
}

/// Code of an attempt that ended because its node was shut down or is wanted elsewhere: it says nothing of the node or the work.
pub const INTERRUPTED: &str = "render.interrupted";

/// Whether a failure means that the renderer, or its node, may have died of what it was asked for: a crash, a hang, memory.
pub fn is_crash(code: &str) -> bool {
    const CRASHES: [&str; 7] = [
        "render.crashed",
        "render.stalled",
        "render.out_of_memory",
        "render.engine_failed",
        "render.timed_out",
        "workflow.timeout",
        "workflow.lost_too_often",
    ];
    CRASHES.contains(&code)
}

/// Where an attempt's wall time went, in milliseconds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RenderTiming {
    /// Fetching and unpacking package and assets.
    pub prepare_ms: u64,
    /// From the renderer's start to its end.
    pub render_ms: u64,
    /// From the renderer's end to the last frame being stored; earlier frames are stored while it renders.
    pub upload_ms: u64,
}

/// A frame's file name, as the output pattern `frame_[#####].png` gives it.
pub fn frame_file_name(frame: u32) -> String {
    format!("frame_{frame:05}.png")
}

/// Blobs that an attempt of `tenant_id` may read, each with the tenant whose shelf of files holds it: its package and
/// its assets, nothing else.
pub fn readable_blobs(input: &RenderFrames, tenant_id: Uuid) -> impl Iterator<Item = (Uuid, &BlobRef)> {
    let assets = input.assets.iter().map(move |a| (tenant_id, &a.blob));
    std::iter::once((input.package_owner, &input.package)).chain(assets)
}
