//! What a customer asks for: the body of `POST /v1/renders`.

use super::spec::FilmKind;
use crate::contracts::media::DerivativeKind;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use utoipa::ToSchema;
use uuid::Uuid;

/// A film to make.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RenderOrder {
    /// Slug of the template.
    #[schema(example = "promo", pattern = "^[a-z0-9-]{1,64}$")]
    pub template: String,
    /// Version of the template; the current one when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// What it is made for; `final` when absent.
    #[serde(default)]
    pub kind: FilmKind,
    /// What to show.
    #[serde(default)]
    pub data: OrderData,
    /// What to hear.
    #[serde(default)]
    pub audio: OrderAudio,
    /// Size and quality.
    #[serde(default)]
    pub output: OrderOutput,
    /// Anything of yours, given back unchanged; at most 16 KiB.
    #[serde(default)]
    #[schema(value_type = Object)]
    pub metadata: Map<String, Value>,
}

/// What to show. Keys are those of the template's manifest; an unknown one is an error.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderData {
    /// Words by field.
    #[serde(default)]
    pub texts: BTreeMap<String, String>,
    /// Uploaded pictures by slot: ids of files.
    #[serde(default)]
    pub images: BTreeMap<String, Uuid>,
    /// `#rrggbb` by colour; wins over the theme.
    #[serde(default)]
    pub colors: BTreeMap<String, String>,
    /// A ready set of colours.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub theme: Option<String>,
    /// Whether to show, by key.
    #[serde(default)]
    pub visibility: BTreeMap<String, bool>,
    /// Scenes in order; the template's own when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scenes: Option<Vec<OrderScene>>,
}

/// A scene of the film.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderScene {
    /// Id of the scene.
    pub id: String,
    /// Its length in seconds, rounded to whole frames; the template's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 5.0, minimum = 0)]
    pub seconds: Option<f64>,
}

/// What to hear.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderAudio {
    /// Absent: the template's music. Null: none.
    #[serde(default, deserialize_with = "present", skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<OrderMusic>)]
    pub music: Option<Option<OrderMusic>>,
    /// A voice over the film.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub voice_over: Option<OrderVoice>,
    /// Loudness of the template's effects, 0 to 2; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 1.0, minimum = 0, maximum = 2)]
    pub effects_volume: Option<f64>,
    /// Whether music gives way to the voice; the template's choice when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ducking: Option<bool>,
}

/// Music.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderMusic {
    /// An uploaded sound; the template's music when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<Uuid>,
    /// 0 to 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.8, minimum = 0, maximum = 2)]
    pub volume: Option<f64>,
    /// Seconds, at most 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.5, minimum = 0, maximum = 3600)]
    pub fade_in: Option<f64>,
    /// Seconds before the end, at most 3600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 2.0, minimum = 0, maximum = 3600)]
    pub fade_out: Option<f64>,
}

/// A voice over the film.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderVoice {
    /// An uploaded sound.
    pub file: Uuid,
    /// 0 to 2; 1 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.8, minimum = 0, maximum = 2)]
    pub volume: Option<f64>,
    /// Seconds into the film; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 1.5, minimum = 0, maximum = 3600)]
    pub offset_seconds: Option<f64>,
    /// Seconds cut off its beginning; 0 when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 0.0, minimum = 0, maximum = 3600)]
    pub trim_start_seconds: Option<f64>,
}

/// Size and quality.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OrderOutput {
    /// Height in pixels, even, 144 to the template's; the width follows. The template's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = 720, multiple_of = 2, minimum = 144)]
    pub height: Option<u32>,
    /// Speed against quality of the encoder; `final` when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub quality: Option<Quality>,
    /// Whether scenes that were rendered before may be taken as they are, and those of this film kept; yes when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reuse: Option<bool>,
    /// What else to make of the finished film. One that cannot be made leaves a warning and the film as it is.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    #[schema(value_type = Vec<DerivativeKind>)]
    pub derivatives: BTreeSet<DerivativeKind>,
}

/// Speed against quality of the encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Quality {
    /// Fast and small.
    Preview,
    /// For delivery.
    Final,
    /// For further editing.
    Master,
}

/// Tells a null from an absent value.
fn present<'de, D: Deserializer<'de>, T: Deserialize<'de>>(de: D) -> Result<Option<Option<T>>, D::Error> {
    Option::<T>::deserialize(de).map(Some)
}
