//! A render's input, frozen by value when it is accepted: nothing that changes later can change the film.

use crate::contracts::{
    media::{AudioTrack, EncodeProfile},
    render::{Engine, RenderAsset, RenderData},
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
    /// What it is made for.
    #[serde(default)]
    pub kind: FilmKind,
}

/// What a film is made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FilmKind {
    /// To see how it will be.
    Preview,
    /// To be delivered.
    #[default]
    Final,
}

impl RenderSpec {
    /// Whether it is a look ahead, not what is delivered.
    pub fn is_preview(&self) -> bool {
        self.kind == FilmKind::Preview
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::contracts::storage::BlobHash;

    pub(in super::super) fn spec(frames: u32) -> RenderSpec {
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
            kind: FilmKind::Final,
        }
    }
}
