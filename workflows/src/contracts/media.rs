//! Work with ffmpeg and pictures, done by workers beside the server.

use super::render::{FrameFault, FrameRef};
use super::storage::{BlobHash, BlobRef};
use flatrender_engine::{Activity, Policy};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The queue of media workers.
pub const MEDIA_QUEUE: &str = "media";

/// The code of a failure for good: a frame is missing from the render's shelf, or is not what was recorded. Rendering
/// it again cures that; another attempt does not.
pub const FRAME_LOST: &str = "media.frame_lost";

/// The code of a failure for good: an encoded part or the sound of a film is missing from its shelf, or is not what was recorded. Making it
/// again cures that; another attempt does not.
pub const PART_LOST: &str = "media.part_lost";

/// A storage that is away or full for some minutes ends no film.
fn media_policy() -> Policy {
    Policy {
        max_failures: 8,
        backoff_base: Duration::from_secs(2),
        backoff_cap: Duration::from_secs(60),
        lease: Duration::from_secs(15),
        start_to_close: Duration::from_secs(3600),
        ..Policy::default()
    }
}

/// Re-reads stored frames and proves each: the hash is the recorded one, it decodes fully, its size is as planned.
/// Repeatable: reads only.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyFrames {
    /// The render whose shelf holds them.
    pub render_id: Uuid,
    /// The frames.
    pub frames: Vec<FrameRef>,
    /// Planned width and height in pixels.
    pub size: [u32; 2],
    /// How many frames the whole film has: blank ones at its ends are how films begin and end. None in tasks of older servers: the ends
    /// of what is asked for are taken for the film's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub film_frames: Option<u32>,
}

/// What verification found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifiedFrames {
    /// Frames that are as recorded.
    pub good: u32,
    /// The others.
    pub faults: Vec<FrameFault>,
    /// Good ones that look wrong among the others: black, or the same as the one before. A template may want them so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub doubts: Vec<FrameFault>,
}

impl Activity for VerifyFrames {
    const NAME: &'static str = "VerifyFrames";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = VerifiedFrames;
    fn policy(&self) -> Policy {
        media_policy()
    }
}

/// Encodes consecutive verified frames to a stretch of H.264 that joins others without re-encoding.
/// Repeatable: the part is stored by content. Fails for good with `media.encode_failed` and with [`FRAME_LOST`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EncodePart {
    /// The render.
    pub render_id: Uuid,
    /// Consecutive frames in order.
    pub frames: Vec<FrameRef>,
    /// Width and height in pixels; both even.
    pub size: [u32; 2],
    /// Frames a second.
    pub fps: u32,
    /// Speed and quality.
    pub profile: EncodeProfile,
    /// Written across every frame.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub watermark: Option<String>,
}

/// Speed and quality of the H.264 encoder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EncodeProfile {
    /// x264 `veryfast`, crf 21.
    Preview,
    /// x264 `veryfast`, crf 18.
    Final,
    /// x264 `medium`, crf 16.
    Master,
}

/// A stretch of encoded video on the render's shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EncodedPart {
    /// The stream in an MP4 without audio.
    pub blob: BlobRef,
    /// Frames counted in it.
    pub frames: u32,
}

impl Activity for EncodePart {
    const NAME: &'static str = "EncodePart";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = EncodedPart;
    fn policy(&self) -> Policy {
        media_policy()
    }
}

/// A scene that the tenant keeps, encoded.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptScene {
    /// Of all that decides how it looks.
    pub key: BlobHash,
    /// It, encoded.
    pub part: EncodedPart,
}

/// Copies kept scenes to a render's shelf. What is not there any more is no failure: it is rendered.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TakeScenes {
    /// The render.
    pub render_id: Uuid,
    /// The scenes.
    pub scenes: Vec<KeptScene>,
}

/// What came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TakenScenes {
    /// Scenes that are on the render's shelf now, as they were recorded.
    pub taken: Vec<KeptScene>,
}

impl Activity for TakeScenes {
    const NAME: &'static str = "TakeScenes";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = TakenScenes;
    fn policy(&self) -> Policy {
        media_policy()
    }
}

/// Copies an encoded scene from a render's shelf to one of its own, to be taken by other films of the tenant.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct KeepScene {
    /// The render.
    pub render_id: Uuid,
    /// The scene.
    pub scene: KeptScene,
}

impl Activity for KeepScene {
    const NAME: &'static str = "KeepScene";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = ();
    fn policy(&self) -> Policy {
        media_policy()
    }
}

/// Mixes the film's sound: music ducked under voice-over, effects at their places; 48 kHz stereo, exactly
/// `frames / fps` seconds. Fails for good with `audio.undecodable`, naming the track.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MixAudio {
    /// The render.
    pub render_id: Uuid,
    /// Length of the film in frames.
    pub frames: u32,
    /// Frames a second.
    pub fps: u32,
    /// What is heard; none gives silence.
    pub tracks: Vec<AudioTrack>,
    /// Whether music is lowered while a voice-over speaks.
    pub ducking: bool,
}

/// One sound of the film.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AudioTrack {
    /// What it is for.
    pub role: AudioRole,
    /// Content on a shelf of files.
    pub blob: BlobRef,
    /// The tenant whose shelf holds it: the sound of a shared template is its owner's.
    pub owner: Uuid,
    /// A file inside that content, when it is a package.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member: Option<String>,
    /// 0 is silent, 1 as recorded, at most 2.
    pub volume: f64,
    /// Seconds into the film at which it starts.
    pub offset_seconds: f64,
    /// Seconds cut off its beginning.
    pub trim_start_seconds: f64,
    /// Seconds to fade in.
    pub fade_in_seconds: f64,
    /// Seconds to fade out before the film (or the track) ends.
    pub fade_out_seconds: f64,
    /// Whether it starts again when it ends before the film.
    pub repeat: bool,
}

/// What a sound is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AudioRole {
    /// Background music.
    Music,
    /// A voice that the music gives way to.
    VoiceOver,
    /// A short sound at a place.
    Effect,
}

/// Mixed sound on the render's shelf.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MixedAudio {
    /// 48 kHz stereo PCM in WAV.
    pub blob: BlobRef,
    /// Samples per channel.
    pub samples: u64,
}

impl Activity for MixAudio {
    const NAME: &'static str = "MixAudio";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = MixedAudio;
    fn policy(&self) -> Policy {
        media_policy()
    }
}

/// Joins encoded parts and sound to the finished MP4 (H.264, AAC, faststart) and stores it among the tenant's files.
/// Repeatable: stored by content. Fails for good with `media.assemble_failed` and with [`PART_LOST`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AssembleVideo {
    /// The render.
    pub render_id: Uuid,
    /// Parts in order.
    pub parts: Vec<EncodedPart>,
    /// The sound.
    pub audio: MixedAudio,
    /// Frames in all.
    pub frames: u32,
    /// Frames a second.
    pub fps: u32,
}

impl Activity for AssembleVideo {
    const NAME: &'static str = "AssembleVideo";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = BlobRef;
    fn policy(&self) -> Policy {
        media_policy()
    }
}

/// Re-reads a stored film and proves it with ffprobe: exact frame count, duration, streams, size, colour tags, faststart.
/// Reads only. Fails with `export.mismatch`, naming each difference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerifyVideo {
    /// The film, on the tenant's shelf of files.
    pub video: BlobRef,
    /// Planned frames.
    pub frames: u32,
    /// Planned frames a second.
    pub fps: u32,
    /// Planned width and height in pixels.
    pub size: [u32; 2],
}

/// A film as ffprobe sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ProbedVideo {
    /// Decoded frames, counted.
    pub frames: u32,
    /// Length in milliseconds.
    pub duration_ms: u64,
    /// `h264`.
    pub video_codec: String,
    /// `aac`.
    pub audio_codec: String,
    /// Width and height in pixels.
    pub size: [u32; 2],
}

impl Activity for VerifyVideo {
    const NAME: &'static str = "VerifyVideo";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = ProbedVideo;
    fn policy(&self) -> Policy {
        media_policy()
    }
}

/// Draws evenly spaced frames of a film as one PNG for people to look at, stored among the tenant's files.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DrawContactSheet {
    /// The film, on the tenant's shelf of files.
    pub video: BlobRef,
    /// Numbers of the frames to show, at most 24, ascending.
    pub frames: Vec<u32>,
    /// Tiles in a row.
    pub columns: u32,
    /// Width of a tile in pixels.
    pub tile_width: u32,
}

impl Activity for DrawContactSheet {
    const NAME: &'static str = "DrawContactSheet";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = BlobRef;
    fn policy(&self) -> Policy {
        media_policy()
    }
}

/// What else is made of a finished film.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[cfg_attr(feature = "store", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum DerivativeKind {
    /// A JPEG of its middle.
    Poster,
    /// A silent GIF, 480 pixels wide, 12 pictures a second.
    Gif,
    /// An MP4, 360 pixels high.
    Small,
    /// ProRes 422 HQ and PCM in a MOV, for editing.
    Prores,
    /// VP9 and Opus in a WebM.
    Webm,
}

impl DerivativeKind {
    /// Every kind.
    pub const ALL: [Self; 5] = [Self::Poster, Self::Gif, Self::Small, Self::Prores, Self::Webm];

    /// As addresses and tables say it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Poster => "poster",
            Self::Gif => "gif",
            Self::Small => "small",
            Self::Prores => "prores",
            Self::Webm => "webm",
        }
    }

    /// The media type, the kind of file, and the ending of its name.
    pub fn file(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Poster => ("image/jpeg", "image", "jpg"),
            Self::Gif => ("image/gif", "image", "gif"),
            Self::Small => ("video/mp4", "video", "small.mp4"),
            Self::Prores => ("video/quicktime", "video", "mov"),
            Self::Webm => ("video/webm", "video", "webm"),
        }
    }
}

/// Makes something else of a finished film, and stores it among the tenant's files. Needs no renderer.
/// Repeatable: stored by content. Fails for good with `media.derivative_failed`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeriveFile {
    /// The film, on the tenant's shelf of files.
    pub video: BlobRef,
    /// What to make.
    pub kind: DerivativeKind,
    /// Frames of the film.
    pub frames: u32,
    /// Frames a second.
    pub fps: u32,
}

impl Activity for DeriveFile {
    const NAME: &'static str = "DeriveFile";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = BlobRef;
    fn policy(&self) -> Policy {
        media_policy()
    }
}

/// Removes what a render needed only while it ran. Repeatable.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ClearShelf {
    /// The render.
    pub render_id: Uuid,
}

impl Activity for ClearShelf {
    const NAME: &'static str = "ClearShelf";
    const QUEUE: &'static str = MEDIA_QUEUE;
    type Output = ();
    fn policy(&self) -> Policy {
        media_policy()
    }
}
