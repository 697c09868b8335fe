//! A render's input, frozen by value when it is accepted: nothing that changes later can change the film.

use crate::contracts::{
    media::{AudioTrack, EncodeProfile},
    render::{Engine, FrameRange, RenderAsset, RenderData},
    storage::BlobRef,
};
use flatrender_engine::Labels;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Everything that decides how a film looks and sounds.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RenderSpec {
    /// Which program renders it.
    pub engine: Engine,
    /// The template's package, zipped.
    pub package: BlobRef,
    /// The tenant whose shelf holds the package.
    pub package_owner: Uuid,
    /// Name of the main composition.
    pub composition: String,
    /// What is bound into the project.
    pub data: RenderData,
    /// The customer's files, by place in the package.
    pub assets: Vec<RenderAsset>,
    /// Width and height in pixels, both even.
    pub size: [u32; 2],
    /// Frames a second.
    pub fps: u32,
    /// Length of the film in frames.
    pub frames: u32,
    /// What is heard.
    pub tracks: Vec<AudioTrack>,
    /// Whether music gives way to a voice.
    pub ducking: bool,
    /// Speed and quality of the encoder.
    pub profile: EncodeProfile,
    /// What a node must offer to render it, as labels; see [`needs`](crate::contracts::node::needs).
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub needs: Labels,
}

/// Fewest frames of a chunk: below, starting the renderer costs more than sharing gains.
const LEAST_CHUNK_FRAMES: u32 = 30;
/// Most frames of a chunk: a crash costs no more than these.
const MOST_CHUNK_FRAMES: u32 = 500;
/// Chunks aimed at: enough that encoding overlaps rendering and several nodes share a film.
const CHUNKS: u32 = 4;

impl RenderSpec {
    /// The chunks of the film: consecutive, without overlap, covering every frame.
    pub fn chunks(&self) -> Vec<FrameRange> {
        let frames = self.frames.div_ceil(CHUNKS).clamp(LEAST_CHUNK_FRAMES, MOST_CHUNK_FRAMES);
        let chunk = |first: u32| FrameRange { first, last: (first + frames - 1).min(self.frames - 1) };
        (0..self.frames).step_by(frames as usize).map(chunk).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contracts::storage::BlobHash;
    use proptest::prelude::*;

    fn spec(frames: u32) -> RenderSpec {
        RenderSpec {
            engine: Engine::Lottie,
            package: BlobRef { sha256: BlobHash::of(b""), size_bytes: 1 },
            package_owner: Uuid::nil(),
            composition: "main".into(),
            data: RenderData::default(),
            assets: vec![],
            size: [64, 36],
            fps: 30,
            frames,
            tracks: vec![],
            ducking: false,
            profile: EncodeProfile::Final,
            needs: Labels::new(),
        }
    }

    proptest! {
        #[test]
        fn chunks_cover_every_frame_once(frames in 1u32..20_000) {
            let chunks = spec(frames).chunks();
            let all: Vec<u32> = chunks.iter().flat_map(|c| c.iter()).collect();
            prop_assert_eq!(all, (0..frames).collect::<Vec<_>>());
            prop_assert!(chunks.iter().all(|c| c.count() <= MOST_CHUNK_FRAMES));
        }
    }
}
