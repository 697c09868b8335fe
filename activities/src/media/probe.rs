//! What ffprobe says of a file, typed.
//!
//! ffprobe guesses formats from content and follows what playlists name, `file:` included. It is therefore always
//! told the format, which our own look at the first bytes has found, and lets in no other.

use super::{
    ffmpeg,
    ffmpeg::{Args, RunError},
    process,
    process::{Jail, Process},
};
use serde::Deserialize;
use std::{io, path::Path, str::FromStr, time::Duration};

/// The longest answer that is read.
const ANSWER_BYTES: u64 = 4 * 1024 * 1024;
/// A look at headers takes milliseconds.
const HEADERS: Duration = Duration::from_secs(60);
/// Counting decodes the whole film.
const COUNTING: Duration = Duration::from_secs(1800);
/// Codecs of sound we take in, and of the pictures that music files carry along.
pub(super) const SOUND_CODECS: &str = "aac,alac,mp3,mp3float,vorbis,opus,flac,pcm_u8,pcm_s16le,pcm_s24le,pcm_s32le,\
                                       pcm_f32le,pcm_f64le,pcm_alaw,pcm_mulaw,mjpeg,png";

/// The same of films, as [`footage`] takes them.
const FILM_CODECS: &str = "h264,hevc,vp8,vp9,av1,libdav1d,mpeg4,prores";
/// What a look at a stranger's file may take.
const OF_STRANGERS: Jail = Jail { cpu_seconds: 20, memory_bytes: 2 << 30, open_files: 32 };

/// A file's streams and length.
#[derive(Debug, Clone, Deserialize)]
pub struct Probe {
    /// In the order of the file.
    #[serde(default)]
    pub streams: Vec<Stream>,
    /// The container.
    #[serde(default)]
    pub format: Format,
    /// What the decoders complained of.
    #[serde(skip)]
    pub complaints: String,
}

/// The container.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Format {
    /// Seconds as text.
    pub duration: Option<String>,
}

/// One stream. What ffprobe leaves out is absent.
#[derive(Debug, Clone, Deserialize)]
pub struct Stream {
    /// `video`, `audio` …
    #[serde(default)]
    pub codec_type: String,
    /// `h264`, `aac` …
    #[serde(default)]
    pub codec_name: String,
    /// Pixels.
    pub width: Option<u32>,
    /// Pixels.
    pub height: Option<u32>,
    /// `yuv420p` …
    pub pix_fmt: Option<String>,
    /// `tv` or `pc`.
    pub color_range: Option<String>,
    /// `bt709` …
    pub color_space: Option<String>,
    /// `bt709` …
    pub color_transfer: Option<String>,
    /// `bt709` …
    pub color_primaries: Option<String>,
    /// Frames a second as a fraction.
    pub avg_frame_rate: Option<String>,
    /// Seconds as text.
    pub duration: Option<String>,
    /// Frames that were decoded, when that was asked for.
    pub nb_read_frames: Option<String>,
    /// Packets that were read, when that was asked for.
    pub nb_read_packets: Option<String>,
    /// Samples a second as text.
    pub sample_rate: Option<String>,
    /// Channels.
    pub channels: Option<u32>,
    /// Flags.
    #[serde(default)]
    pub disposition: Disposition,
}

/// Flags of a stream.
#[derive(Debug, Clone, Default, Deserialize)]
pub struct Disposition {
    /// 1 for a cover picture.
    #[serde(default)]
    pub attached_pic: u8,
}

impl Probe {
    /// The first stream of a kind, cover pictures aside.
    pub fn first(&self, kind: &str) -> Option<&Stream> {
        self.streams.iter().find(|s| s.codec_type == kind && s.disposition.attached_pic == 0)
    }

    /// Length in seconds, when the container knows it.
    pub fn seconds(&self) -> Option<f64> {
        number(self.format.duration.as_deref())
    }
}

impl Stream {
    /// Length in seconds.
    pub fn seconds(&self) -> Option<f64> {
        number(self.duration.as_deref())
    }

    /// Frames that were decoded.
    pub fn frames(&self) -> Option<u32> {
        number(self.nb_read_frames.as_deref())
    }

    /// Packets that were read.
    pub fn packets(&self) -> Option<u32> {
        number(self.nb_read_packets.as_deref())
    }
}

fn number<T: FromStr>(text: Option<&str>) -> Option<T> {
    text.and_then(|t| t.parse().ok())
}

/// Streams of an MP4 of ours with its pictures counted but not decoded: as many packets as pictures.
pub(super) async fn packets(ffprobe: &Path, folder: &Path, name: &str) -> Result<Probe, RunError> {
    run(ffprobe, folder, "mov", &["-count_packets"], name, HEADERS, None).await
}

/// Streams of an MP4, every frame of picture and sound decoded.
pub(super) async fn frames(ffprobe: &Path, folder: &Path, name: &str) -> Result<Probe, RunError> {
    run(ffprobe, folder, "mov", &["-count_frames"], name, COUNTING, None).await
}

/// Streams of a sound file that a stranger made, as `demuxer` and nothing else; its first second decoded.
pub(super) async fn sound(ffprobe: &Path, folder: &Path, demuxer: &str, name: &str) -> Result<Probe, RunError> {
    strangers(ffprobe, folder, demuxer, SOUND_CODECS, name).await
}

/// Streams of a film, or of a sound in the container of one, that a stranger made; its first second decoded.
pub(super) async fn footage(ffprobe: &Path, folder: &Path, demuxer: &str, name: &str) -> Result<Probe, RunError> {
    strangers(ffprobe, folder, demuxer, &format!("{SOUND_CODECS},{FILM_CODECS}"), name).await
}

async fn strangers(ffprobe: &Path, folder: &Path, demuxer: &str, codecs: &str, name: &str) -> Result<Probe, RunError> {
    // What a file says of other files is not followed: one format, one protocol, and no reference of QuickTime's to elsewhere.
    let wary = ["-codec_whitelist", codecs, "-format_whitelist", demuxer, "-max_alloc", "268435456", "-threads", "1"];
    let options = [&wary[..], &["-read_intervals", "%+1", "-count_frames"]].concat();
    run(ffprobe, folder, demuxer, &options, name, HEADERS, Some(OF_STRANGERS)).await
}

async fn run(
    ffprobe: &Path,
    folder: &Path,
    demuxer: &str,
    options: &[&str],
    name: &str,
    limit: Duration,
    jail: Option<Jail>,
) -> Result<Probe, RunError> {
    let args = Args::default()
        .with(["-hide_banner", "-v", "error", "-protocol_whitelist", "file", "-f", demuxer])
        .with(options.iter().copied())
        .with(["-show_streams", "-show_format", "-of", "json", "-i", name]);
    let unusable = |source| RunError::Unusable { program: ffprobe.display().to_string(), source };
    let mut process = Process::spawn_within(jail, ffprobe, folder, &ffmpeg::list(args)).map_err(unusable)?;
    let (stdout, stderr) = process.outputs().map_err(unusable)?;
    let read = async {
        let (answer, complaints) = tokio::try_join!(process::whole(stdout, ANSWER_BYTES), process::tail(stderr))?;
        Ok((answer, complaints, process.wait().await?))
    };
    let done = tokio::time::timeout(limit, read).await.map_err(|_| RunError::Stuck(limit))?;
    let (answer, complaints, status) = done.map_err(|error: io::Error| match error.kind() {
        io::ErrorKind::FileTooLarge => RunError::TooLong(ANSWER_BYTES),
        _ => unusable(error),
    })?;
    ffmpeg::judge(status, complaints.clone())?;
    let probe: Probe = serde_json::from_slice(&answer).map_err(RunError::Garbled)?;
    Ok(Probe { complaints, ..probe })
}
