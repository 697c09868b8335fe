//! Joins encoded parts and sound to the finished film. No picture is encoded again.

use super::{
    Media, disk_failure,
    ffmpeg::{Args, Length},
    files, invalid, mix_audio, mp4, probe, render, unless_ended,
};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::{
    media::{AssembleVideo, EncodedPart, PART_LOST},
    storage::{BlobRef, Shelf, StorageError},
};
use std::path::Path;

/// What fails for good here.
const CODE: &str = "media.assemble_failed";
const LIST: &str = "parts.txt";
const SOUND: &str = "sound.wav";
const FILM: &str = "film.mp4";

impl Handler<AssembleVideo> for Media {
    async fn handle(&self, cx: &Attempt, input: AssembleVideo) -> Result<BlobRef, Failure> {
        check(&input)?;
        let shelf = render(cx, input.render_id);
        let (scratch, length) = (self.scratch(cx)?, Length { frames: input.frames, fps: input.fps });
        unless_ended(cx, self.gather(cx, &shelf, &input, scratch.path())).await?;
        let joined = self.run(cx, scratch.path(), arguments(input.fps), length).await;
        joined.map_err(|e| e.failure(CODE, "the parts do not join"))?;
        let finish = async {
            self.check_count(scratch.path(), input.frames).await?;
            self.store(&files(cx), &scratch.path().join(FILM)).await
        };
        unless_ended(cx, finish).await
    }
}

impl Media {
    async fn gather(&self, cx: &Attempt, shelf: &Shelf, input: &AssembleVideo, folder: &Path) -> Result<(), Failure> {
        let parts = input.parts.iter().enumerate().map(|(index, part)| (&part.blob, folder.join(part_name(index))));
        let mut lost = None;
        for (blob, path) in parts.chain([(&input.audio.blob, folder.join(SOUND))]) {
            match self.fetch_part(shelf, blob, &path).await {
                Ok(()) => {}
                // What else is lost is removed, too, before all are made again.
                Err(failure) if failure.code == PART_LOST => lost = lost.or(Some(failure)),
                Err(failure) => return Err(failure),
            }
            cx.check()?;
        }
        if let Some(lost) = lost {
            return Err(lost);
        }
        tokio::fs::write(folder.join(LIST), list(&input.parts, input.fps)).await.map_err(disk_failure)
    }

    /// What is not there as it was recorded can be made again.
    async fn fetch_part(&self, shelf: &Shelf, blob: &BlobRef, path: &Path) -> Result<(), Failure> {
        let lost = match self.storage.fetch(shelf, &blob.sha256, path).await {
            Ok(()) => return Ok(()),
            Err(error @ (StorageError::NotFound(_) | StorageError::Mismatch { .. } | StorageError::TooLong { .. })) => {
                Failure::permanent(PART_LOST, format!("a part or the sound is lost: {error}"))
            }
            Err(error) => return Err(crate::storage::failure(&error)),
        };
        // What is as long as it would be taken for it when it is stored again.
        let _ = self.storage.remove(shelf, &blob.sha256).await;
        Err(lost)
    }

    async fn check_count(&self, folder: &Path, planned: u32) -> Result<(), Failure> {
        let probe = probe::packets(&self.ffprobe, folder, FILM).await;
        let probe = probe.map_err(|e| e.failure(CODE, "the film cannot be read"))?;
        match probe.first("video").and_then(|v| v.packets()).unwrap_or(0) {
            found if found == planned => Ok(()),
            found => Err(Failure::permanent(CODE, format!("the film has {found} frames instead of {planned}"))),
        }
    }
}

fn check(input: &AssembleVideo) -> Result<(), Failure> {
    let frames: u32 = input.parts.iter().map(|part| part.frames).sum();
    let samples = mix_audio::samples(input.frames, input.fps.max(1));
    match () {
        () if input.fps == 0 || input.frames == 0 => Err(invalid("a film has at least one frame a second")),
        () if frames != input.frames => {
            Err(invalid(format!("the parts have {frames} frames, the film {}", input.frames)))
        }
        () if input.audio.samples != samples => {
            Err(invalid(format!("the sound has {} samples, the film {samples}", input.audio.samples)))
        }
        () => Ok(()),
    }
}

fn part_name(index: usize) -> String {
    format!("part{index:05}.mp4")
}

/// The script of the concat demuxer: names of ours, in order, each with its exact length.
fn list(parts: &[EncodedPart], fps: u32) -> String {
    let entries = parts.iter().enumerate().map(|(index, part)| {
        let seconds = f64::from(part.frames) / f64::from(fps);
        format!("file {}\nduration {seconds:.6}\n", part_name(index))
    });
    std::iter::once("ffconcat version 1.0\n".to_owned()).chain(entries).collect()
}

fn arguments(fps: u32) -> Args {
    Args::ffmpeg()
        .with(["-protocol_whitelist", "file", "-format_whitelist", "concat,mov", "-f", "concat", "-safe", "1"])
        .with(["-i", LIST, "-protocol_whitelist", "file", "-f", "wav", "-i", SOUND])
        .with(["-map", "0:v:0", "-map", "1:a:0", "-map_metadata", "-1", "-c:v", "copy"])
        .with(["-c:a", "aac", "-b:a", "192k", "-ar", "48000", "-ac", "2"])
        .with(["-fflags", "+bitexact", "-flags:a", "+bitexact", "-movflags", "+faststart"])
        .with(["-video_track_timescale", &mp4::timescale(fps).to_string(), "-f", "mp4", FILM])
}
