//! Mixes the film's sound: every track decoded to one form, then one graph, then counted.

mod graph;
mod member;
mod track;

use super::{
    Media, blocking, disk_failure,
    ffmpeg::{Args, Length},
    invalid, render, unless_ended, wav,
};
use flatrender_engine::{Attempt, Failure, Handler, Progress};
use flatrender_workflows::contracts::media::{AudioTrack, MixAudio, MixedAudio};
use std::path::Path;
use track::Decoded;

/// Samples a second, everywhere from here on.
const RATE: u32 = 48_000;
/// Tracks of one film.
const MOST_TRACKS: usize = 64;
const MIX: &str = "mix.wav";

impl Handler<MixAudio> for Media {
    async fn handle(&self, cx: &Attempt, input: MixAudio) -> Result<MixedAudio, Failure> {
        check(&input)?;
        let (scratch, samples) = (self.scratch(cx)?, samples(input.frames, input.fps));
        let length = Length { frames: input.frames, fps: input.fps };
        let tracks = unless_ended(cx, self.decode_all(cx, &input, samples, scratch.path())).await?;
        let mixed = self.run(cx, scratch.path(), arguments(&tracks, &input, samples), length).await;
        mixed.map_err(|e| e.failure("media.mix_failed", "the sound does not mix"))?;
        let finish = async {
            let path = scratch.path().join(MIX);
            let counted = path.clone();
            let found = blocking(move || wav::samples(&counted)).await?.map_err(disk_failure)?;
            if found != samples {
                let message = format!("the mix has {found} samples instead of {samples}");
                return Err(Failure::permanent("media.mix_failed", message));
            }
            Ok(MixedAudio { blob: self.store(&render(cx, input.render_id), &path).await?, samples })
        };
        unless_ended(cx, finish).await
    }
}

impl Media {
    /// The tracks that are heard, each as raw samples in a file of its own.
    async fn decode_all(
        &self,
        cx: &Attempt,
        input: &MixAudio,
        samples: u64,
        folder: &Path,
    ) -> Result<Vec<Decoded>, Failure> {
        let mut decoded = Vec::new();
        for (index, track) in input.tracks.iter().enumerate() {
            if in_samples(track.offset_seconds) < samples {
                decoded.extend(self.decode(cx, track, index, samples, folder).await?);
            }
            cx.heartbeat(Progress { done: 0, total: input.frames, ..Progress::default() })?;
        }
        Ok(decoded)
    }
}

/// Samples of a film, per channel: its length is that of its pictures, never that of a sound.
pub(super) fn samples(frames: u32, fps: u32) -> u64 {
    let (frames, fps) = (u64::from(frames), u64::from(fps));
    (frames * u64::from(RATE) + fps / 2) / fps
}

fn in_samples(seconds: f64) -> u64 {
    (seconds * f64::from(RATE)).round() as u64
}

fn arguments(tracks: &[Decoded], input: &MixAudio, samples: u64) -> Args {
    let inputs = tracks.iter().fold(Args::ffmpeg(), |args, track| {
        let again: &[&str] = if track.settings.repeat { &["-stream_loop", "-1"] } else { &[] };
        args.with(["-protocol_whitelist", "file", "-f", "f32le", "-ar", "48000", "-ac", "2"])
            .with(again.iter().copied())
            .with(["-i", &track.name])
    });
    inputs
        .with(["-filter_complex", &graph::graph(tracks, input.ducking, samples), "-map", "[out]"])
        .with(["-map_metadata", "-1", "-fflags", "+bitexact", "-flags:a", "+bitexact"])
        .with(["-c:a", "pcm_s24le", "-ar", "48000", "-ac", "2", "-f", "wav", MIX])
}

fn check(input: &MixAudio) -> Result<(), Failure> {
    if input.fps == 0 || input.frames == 0 || input.tracks.len() > MOST_TRACKS {
        return Err(invalid("a film has at least one frame a second and at most 64 tracks"));
    }
    match input.tracks.iter().position(|track| !is_sensible(track)) {
        Some(index) => Err(invalid(format!("the times or the volume of track {index} make no sense"))),
        None => Ok(()),
    }
}

fn is_sensible(track: &AudioTrack) -> bool {
    let times = [track.offset_seconds, track.trim_start_seconds, track.fade_in_seconds, track.fade_out_seconds];
    times.iter().all(|seconds| (0.0..=86_400.0).contains(seconds)) && (0.0..=2.0).contains(&track.volume)
}
