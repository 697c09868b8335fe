//! How a film is divided. Parts are what is encoded by itself: they follow from the order alone, so that the same order
//! gives the same film. Chunks are what is rendered by itself: as much as fills the time that makes a renderer's start
//! worth it. Pure.
//!
//! ```text
//! fast frames    chunk ├───────────────────────┤      slow frames    chunks ├───┼───┼───┤
//!                parts ├───────┼───────┼───────┤                     part   ├───────────┤
//! ```

use super::spec::RenderSpec;
use crate::contracts::{
    media::KeptScene,
    render::{Engine, FrameRange, Pace},
    storage::BlobHash,
};
use serde::{Deserialize, Serialize};

/// Fewest and most frames of a chunk: below, nothing is gained; above, a crash costs too many.
const LEAST_FRAMES: u32 = 10;
const MOST_FRAMES: u32 = 500;
/// Fewest frames of a part: each begins with a key frame.
const LEAST_PART: u32 = 30;
/// Nodes that a film is shared by, when there is enough work for each.
const SHARES: u32 = 4;
/// Chunks of a preview at most.
const PREVIEW_CHUNKS: u32 = 2;

/// How a film is made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Plan {
    /// How fast frames of the template are; none when it is the first time.
    pub pace: Option<Pace>,
    /// The renderer that it is made with, when all nodes have the same and scenes may be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renderer: Option<String>,
    /// What is made by itself, in order.
    pub stretches: Vec<Stretch>,
}

/// Consecutive frames that are rendered as some chunks and encoded as some parts; one of the two is alone.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stretch {
    /// In order.
    pub chunks: Vec<Chunk>,
    /// In order.
    pub parts: Vec<FrameRange>,
    /// Under which name its only part is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<BlobHash>,
    /// Its only part, made for another film.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<KeptScene>,
}

/// Frames that are rendered together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Chunk {
    /// Its number in the film, from 0.
    pub no: u32,
    /// Its frames.
    pub frames: FrameRange,
}

/// Plans a film along its scenes: those that are kept are one chunk each, and no other chunk is of two.
pub fn plan_scenes(spec: &RenderSpec, pace: Option<Pace>, renderer: &str, kept: &[KeptScene]) -> Plan {
    let length = chunk_frames(spec, pace);
    let mut no = 0;
    let mut stretch = |segment: &super::segment::Segment| {
        let key = segment.key(renderer);
        let kept = kept.iter().find(|k| k.key == key && k.part.frames == segment.frames.count()).cloned();
        let chunks = if kept.is_some() { vec![segment.frames] } else { pieces(segment.frames, length) };
        let mut numbered = |frames| {
            no += 1;
            Chunk { no: no - 1, frames }
        };
        let chunks = chunks.into_iter().map(&mut numbered).collect();
        Stretch { chunks, parts: vec![segment.frames], key: Some(key), kept }
    };
    Plan { pace, renderer: Some(renderer.to_owned()), stretches: spec.segments.iter().map(&mut stretch).collect() }
}

/// Plans a film from what is known of the template's pace.
pub fn plan(spec: &RenderSpec, pace: Option<Pace>) -> Plan {
    let whole = FrameRange { first: 0, last: spec.frames - 1 };
    let part = spec.frames.div_ceil(SHARES).clamp(LEAST_PART, MOST_FRAMES);
    let chunk = chunk_frames(spec, pace);
    let parts = cut(whole, part);
    let together = (chunk / part).max(1) as usize;
    let mut no = 0;
    let mut stretch = |parts: &[FrameRange]| {
        let frames = FrameRange { first: parts[0].first, last: parts[parts.len() - 1].last };
        let chunks = if parts.len() > 1 { vec![frames] } else { pieces(frames, chunk) };
        let mut numbered = |frames| {
            no += 1;
            Chunk { no: no - 1, frames }
        };
        let chunks = chunks.into_iter().map(&mut numbered).collect();
        Stretch { chunks, parts: parts.to_vec(), key: None, kept: None }
    };
    Plan { pace, renderer: None, stretches: parts.chunks(together).map(&mut stretch).collect() }
}

impl Plan {
    /// Every chunk, in order.
    pub fn chunks(&self) -> impl Iterator<Item = &Chunk> {
        self.stretches.iter().flat_map(|s| &s.chunks)
    }
}

/// Frames of a chunk: a minute or two of work where the renderer takes long to start, less where it does not; no more
/// than a share of the film, as long as a share is worth a start. Without history a share, whatever it takes.
fn chunk_frames(spec: &RenderSpec, pace: Option<Pace>) -> u32 {
    // After Effects starts in 10 to 30 s; ours in 0.2 s.
    let (target_ms, least_ms) = match spec.engine {
        Engine::AfterEffects => (90_000, 60_000),
        Engine::Lottie => (10_000, 1_000),
    };
    let share = spec.frames.div_ceil(SHARES);
    let frames = match pace.map(|p| p.p50_ms.max(1)) {
        Some(ms) => (target_ms / ms).min((least_ms / ms).max(share.into())),
        None => u64::from(share.max(LEAST_PART)),
    };
    let least = if spec.is_preview() { spec.frames.div_ceil(PREVIEW_CHUNKS) } else { 0 };
    (frames as u32).max(least).clamp(LEAST_FRAMES, MOST_FRAMES)
}

/// Size class of a picture: templates render each at another pace. 0 to 640×360, 1 to 1280×720, 2 to 1920×1080, 3 to
/// 2560×1440, 4 to 3840×2160, 5 above; by pixels, whatever the shape.
pub fn size_class([width, height]: [u32; 2]) -> i16 {
    const UP_TO: [u64; 5] = [640 * 360, 1280 * 720, 1920 * 1080, 2560 * 1440, 3840 * 2160];
    let pixels = u64::from(width) * u64::from(height);
    UP_TO.iter().filter(|most| pixels > **most).count() as i16
}

/// Stretches of `length`, the last one shorter.
pub(super) fn cut(frames: FrameRange, length: u32) -> Vec<FrameRange> {
    let stretch = |first: u32| FrameRange { first, last: (first + length - 1).min(frames.last) };
    (frames.first..=frames.last).step_by(length as usize).map(stretch).collect()
}

/// As few nearly equal pieces as have about `length` frames each, and none less than [`LEAST_FRAMES`] if that can be.
fn pieces(frames: FrameRange, length: u32) -> Vec<FrameRange> {
    let count = frames.count().div_ceil(length).min(frames.count() / LEAST_FRAMES).max(1);
    cut(frames, frames.count().div_ceil(count))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::models::render::spec::tests::spec;
    use proptest::prelude::*;

    fn lengths(engine: Engine, frames: u32, ms: Option<u64>) -> Vec<u32> {
        let pace = ms.map(|ms| Pace { p50_ms: ms, p99_ms: ms });
        let plan = plan(&RenderSpec { engine, ..spec(frames) }, pace);
        plan.chunks().map(|c| c.frames.count()).collect()
    }

    #[test]
    fn a_chunk_is_about_a_minute_or_two_of_work_for_after_effects() {
        let chunks = |frames, ms| lengths(Engine::AfterEffects, frames, Some(ms));
        assert_eq!(chunks(900, 1000), [75; 12], "90 frames a chunk, in equal pieces of each part");
        assert_eq!(chunks(300, 1000), [75; 4], "a share for each of four nodes");
        assert_eq!(chunks(300, 100), [300], "30 s of work are not worth two starts");
        assert_eq!(chunks(60, 60_000), [10; 6], "never less than ten frames");
        assert!(chunks(20_000, 1).iter().all(|n| *n <= 500));
    }

    #[test]
    fn our_own_renderer_starts_fast_so_its_chunks_are_smaller() {
        assert_eq!(lengths(Engine::Lottie, 300, Some(10)), [75, 75, 75, 75]);
        assert_eq!(lengths(Engine::Lottie, 300, Some(2)), [300]);
    }

    #[test]
    fn a_template_without_history_is_shared_by_four_nodes() {
        assert_eq!(lengths(Engine::AfterEffects, 165, None), [42, 42, 42, 39]);
        assert_eq!(lengths(Engine::Lottie, 38, None), [30, 8]);
    }

    #[test]
    fn size_classes_are_by_pixels() {
        assert_eq!([[256, 144], [360, 640], [1080, 1920], [1920, 1082], [7680, 4320]].map(size_class), [0, 0, 2, 3, 5]);
    }

    proptest! {
        #[test]
        fn chunks_and_parts_cover_every_frame_once(frames in 1u32..20_000, ms in proptest::option::of(1u64..100_000)) {
            let pace = ms.map(|ms| Pace { p50_ms: ms, p99_ms: ms });
            let plan = plan(&spec(frames), pace);
            let chunked: Vec<u32> = plan.chunks().flat_map(|c| c.frames.iter()).collect();
            let parted: Vec<u32> = plan.stretches.iter().flat_map(|s| &s.parts).flat_map(|p| p.iter()).collect();
            prop_assert_eq!(&chunked, &(0..frames).collect::<Vec<_>>());
            prop_assert_eq!(parted, chunked);
            prop_assert!(plan.chunks().all(|c| c.frames.count() <= MOST_FRAMES));
            prop_assert!(plan.chunks().enumerate().all(|(n, c)| c.no == n as u32));
            let inside = |s: &Stretch| s.chunks.len() == 1 || s.parts.len() == 1;
            prop_assert!(plan.stretches.iter().all(inside));
        }

        #[test]
        fn the_same_order_has_the_same_parts_whatever_the_pace(frames in 1u32..5_000, one in 1u64..50_000, other in 1u64..50_000) {
            let parts = |ms| -> Vec<FrameRange> {
                plan(&spec(frames), Some(Pace { p50_ms: ms, p99_ms: ms })).stretches.into_iter().flat_map(|s| s.parts).collect()
            };
            prop_assert_eq!(parts(one), parts(other));
        }
    }
}
