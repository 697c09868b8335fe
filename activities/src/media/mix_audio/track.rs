//! One track, from whatever it was to raw samples: 48 kHz, stereo, 32-bit float.

use super::{RATE, in_samples, member};
use crate::media::{Media, blocking, disk_failure, ffmpeg::Args, invalid, probe, process::Jail, sniff};
use flatrender_engine::{Attempt, Failure};
use flatrender_workflows::contracts::{
    media::{AudioRole, AudioTrack},
    storage::Shelf,
};
use serde_json::json;
use std::{
    fs::File,
    io::{self, Read},
    path::Path,
};

/// Bytes of one sample of both channels.
const SAMPLE_BYTES: u64 = 8;
/// 50 ms: a few samples repeated for an hour would keep a worker busy for as long.
const SHORTEST_REPEAT: u64 = RATE as u64 / 20;
/// What decoding a stranger's sound may take: a day of it, and be it slow, is decoded in half an hour.
const OF_STRANGERS: Jail = Jail { cpu_seconds: 1800, memory_bytes: 2 << 30, open_files: 32 };

/// A track as the graph takes it.
#[derive(Debug, Clone)]
pub(super) struct Decoded {
    /// Its file in the attempt's folder.
    pub(super) name: String,
    /// Samples in it, per channel; its trimmed beginning is not there any more.
    pub(super) samples: u64,
    /// What was asked for.
    pub(super) settings: AudioTrack,
}

impl Media {
    /// Decodes as much of a track as the film can hold, in a jail that writes nothing itself; none when its beginning is cut off beyond its
    /// end.
    pub(super) async fn decode(
        &self,
        cx: &Attempt,
        track: &AudioTrack,
        index: usize,
        film_samples: u64,
        folder: &Path,
    ) -> Result<Option<Decoded>, Failure> {
        let (source, name) = (format!("track{index}.bin"), format!("track{index}.f32"));
        self.bring(track, index, &folder.join(&source)).await?;
        let arguments = self.arguments(track, index, folder, &source, film_samples).await?;
        let target = folder.join(&name);
        let limit_bytes = film_samples * SAMPLE_BYTES;
        let ran = self.run_jailed(cx, folder, OF_STRANGERS, arguments, (&target, limit_bytes)).await;
        ran.map_err(|e| e.failure("audio.undecodable", &message(track, index, "does not decode")))?;
        let samples = tokio::fs::metadata(&target).await.map_err(disk_failure)?.len() / SAMPLE_BYTES;
        // What is decoded is not needed any more, and a film's tracks can be large.
        tokio::fs::remove_file(folder.join(&source)).await.map_err(disk_failure)?;
        match samples {
            0 if track.trim_start_seconds > 0.0 => Ok(None),
            0 => Err(undecodable(track, index, "has no sound in it")),
            samples if track.repeat && samples < SHORTEST_REPEAT => {
                Err(invalid(message(track, index, "is too short to be repeated")))
            }
            samples => Ok(Some(Decoded { name, samples, settings: track.clone() })),
        }
    }

    /// Puts the track's file at `path`, out of its package if it lies in one.
    async fn bring(&self, track: &AudioTrack, index: usize, path: &Path) -> Result<(), Failure> {
        let shelf = Shelf::Files { tenant_id: track.owner };
        let Some(member) = track.member.clone() else {
            return self.fetch(&shelf, &track.blob, path).await;
        };
        let (package, target) = (path.with_extension("zip"), path.to_owned());
        self.fetch(&shelf, &track.blob, &package).await?;
        let extracted = blocking(move || {
            let extracted = member::extract(&package, &member, &target);
            // Tracks may share a large package, and each brings its own copy.
            std::fs::remove_file(&package).map_err(member::MemberError::Disk).and(extracted)
        })
        .await?;
        extracted.map_err(|error| match error {
            member::MemberError::Disk(error) => disk_failure(error),
            other => undecodable(track, index, &other.to_string()),
        })
    }

    async fn arguments(
        &self,
        track: &AudioTrack,
        index: usize,
        folder: &Path,
        source: &str,
        film_samples: u64,
    ) -> Result<Args, Failure> {
        let path = folder.join(source);
        let head = blocking(move || head(&path)).await?.map_err(disk_failure)?;
        let kind = sniff::audio(&head).ok_or_else(|| undecodable(track, index, "is no sound we know"))?;
        let probe = probe::sound(&self.ffprobe, folder, kind.demuxer(), source).await;
        let probe = probe.map_err(|e| e.failure("audio.undecodable", &message(track, index, "cannot be read")))?;
        let sound = probe.first("audio").ok_or_else(|| undecodable(track, index, "has no sound in it"))?;
        let filters = filters(sound.channels, in_samples(track.trim_start_seconds), film_samples);
        Ok(Args::jailed()
            .with(["-protocol_whitelist", "file", "-codec_whitelist", probe::SOUND_CODECS])
            .with(["-f", kind.demuxer(), "-i", source, "-map", "0:a:0", "-vn", "-sn", "-dn", "-af", &filters])
            .with(["-c:a", "pcm_f32le", "-f", "f32le", "pipe:1"]))
    }
}

fn filters(channels: Option<u32>, trim: u64, film_samples: u64) -> String {
    // ffmpeg's own way from one channel to two takes 3 dB away.
    let both = if channels == Some(1) { "pan=stereo|c0=c0|c1=c0," } else { "" };
    format!(
        "{both}aresample={RATE},aformat=sample_fmts=flt:channel_layouts=stereo,\
         atrim=start_sample={trim},asetpts=PTS-STARTPTS,atrim=end_sample={film_samples}"
    )
}

fn head(path: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(sniff::HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn undecodable(track: &AudioTrack, index: usize, why: &str) -> Failure {
    let details = json!({ "track": index, "role": track.role });
    Failure::permanent("audio.undecodable", message(track, index, why)).with_details(details)
}

fn message(track: &AudioTrack, index: usize, why: &str) -> String {
    let role = match track.role {
        AudioRole::Music => "music",
        AudioRole::VoiceOver => "voice-over",
        AudioRole::Effect => "effect",
    };
    format!("the {role} (track {index}) {why}")
}
