//! A render's input, frozen by value when it is accepted: nothing that changes later can change the film.

use super::segment::Segment;
use crate::contracts::{
    media::{AudioTrack, DerivativeKind, EncodeProfile},
    render::{Engine, RenderAsset, RenderData},
    storage::{BlobHash, BlobRef},
};
use flatrender_engine::Labels;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use utoipa::ToSchema;
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
    /// Its stretches along the scenes, each of which may be taken from another film; none when it is rendered as a whole.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub segments: Vec<Segment>,
    /// Whether stretches may be taken from other films of the tenant and kept for others.
    #[serde(default)]
    pub reuse: bool,
    /// What is written across every frame: a preview has it, and every film of a plan that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
    /// For how many days the finished film is kept; none: until somebody removes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention_days: Option<u32>,
    /// What else is made of the finished film, each once.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub derivatives: BTreeSet<DerivativeKind>,
}

/// What a film is made for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum FilmKind {
    /// To see how it will be: half as wide and high, marked, before other films, and there for an hour.
    Preview,
    /// To be delivered.
    #[default]
    Final,
}

impl FilmKind {
    /// As the table of films says it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Preview => "preview",
            Self::Final => "final",
        }
    }

    /// Somebody waits for a preview: its work goes before that of other films.
    pub fn priority(self) -> i16 {
        match self {
            Self::Preview => 100,
            Self::Final => 0,
        }
    }
}

impl RenderSpec {
    /// SHA-256 of all that decides about the film: two orders with the same give the same film.
    pub fn sha256(&self) -> BlobHash {
        BlobHash::of(serde_json::to_string(self).unwrap_or_default().as_bytes())
    }

    /// Whether its scenes may be taken from other films and kept for others. A preview is made at once.
    pub fn keeps_scenes(&self) -> bool {
        self.reuse && !self.segments.is_empty() && !self.is_preview()
    }

    /// Whether it is a look ahead, not what is delivered.
    pub fn is_preview(&self) -> bool {
        self.kind == FilmKind::Preview
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

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
            segments: vec![],
            reuse: false,
            watermark: None,
            retention_days: None,
            derivatives: BTreeSet::new(),
        }
    }
}
