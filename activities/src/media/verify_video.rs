//! Re-reads a stored film and proves it: what the plan says against what ffprobe decodes.

use super::{
    Media, blocking, disk_failure, files, mp4, probe,
    probe::{Probe, Stream},
    unless_ended,
};
use flatrender_engine::{Attempt, Failure, Handler, Progress};
use flatrender_workflows::contracts::media::{ProbedVideo, VerifyVideo};
use serde_json::json;
use std::fmt::Display;

/// What fails for good here.
const CODE: &str = "export.mismatch";
const FILM: &str = "film.mp4";

impl Handler<VerifyVideo> for Media {
    async fn handle(&self, cx: &Attempt, input: VerifyVideo) -> Result<ProbedVideo, Failure> {
        unless_ended(cx, self.verify_video(cx, input)).await
    }
}

impl Media {
    async fn verify_video(&self, cx: &Attempt, input: VerifyVideo) -> Result<ProbedVideo, Failure> {
        let scratch = self.scratch(cx)?;
        let film = scratch.path().join(FILM);
        cx.heartbeat(Progress { done: 0, total: input.frames, ..Progress::default() })?;
        self.fetch(&files(cx), &input.video, &film).await?;
        let faststart = blocking(move || mp4::is_faststart(&film)).await?.map_err(disk_failure)?;
        let probe = probe::frames(&self.ffprobe, scratch.path(), FILM).await;
        let probe = probe.map_err(|e| e.failure(CODE, "the film cannot be read"))?;
        cx.heartbeat(Progress { done: input.frames, total: input.frames, ..Progress::default() })?;
        compare(&probe, faststart, &input)
    }
}

fn compare(probe: &Probe, faststart: bool, plan: &VerifyVideo) -> Result<ProbedVideo, Failure> {
    let (Some(video), Some(audio)) = (probe.first("video"), probe.first("audio")) else {
        return Err(Failure::permanent(CODE, "the film needs a video and an audio stream"));
    };
    let mut found = Differences::default();
    found.compare("streams", probe.streams.len(), 2);
    found.compare("frames", video.frames().unwrap_or(0), plan.frames);
    found.compare("video codec", &video.codec_name, &"h264".to_owned());
    found.compare("audio codec", &audio.codec_name, &"aac".to_owned());
    found.compare("width", video.width.unwrap_or(0), plan.size[0]);
    found.compare("height", video.height.unwrap_or(0), plan.size[1]);
    found.compare("frame rate", text(&video.avg_frame_rate), &format!("{}/1", plan.fps));
    found.compare("pixel format", text(&video.pix_fmt), "yuv420p");
    found.colours(video);
    found.lengths(probe, plan);
    found.compare("index before content", faststart, true);
    found.compare("complaints of the decoders", probe.complaints.as_str(), "");
    found.result()?;
    Ok(ProbedVideo {
        frames: plan.frames,
        duration_ms: (probe.seconds().unwrap_or(0.0) * 1000.0).round() as u64,
        video_codec: video.codec_name.clone(),
        audio_codec: audio.codec_name.clone(),
        size: plan.size,
    })
}

fn text(value: &Option<String>) -> &str {
    value.as_deref().unwrap_or("unknown")
}

/// Where film and plan differ.
#[derive(Debug, Default)]
struct Differences(Vec<String>);

impl Differences {
    fn compare<T: PartialEq + Display>(&mut self, what: &str, found: T, planned: T) {
        if found != planned {
            self.0.push(format!("{what}: {found} instead of {planned}"));
        }
    }

    fn colours(&mut self, video: &Stream) {
        self.compare("colour range", text(&video.color_range), "tv");
        self.compare("colour matrix", text(&video.color_space), "bt709");
        self.compare("colour transfer", text(&video.color_transfer), "bt709");
        self.compare("colour primaries", text(&video.color_primaries), "bt709");
    }

    /// The film and each of its streams may be off by one frame.
    fn lengths(&mut self, probe: &Probe, plan: &VerifyVideo) {
        let planned = f64::from(plan.frames) / f64::from(plan.fps);
        let tolerance = 1.0 / f64::from(plan.fps) + 0.001;
        let streams = probe.streams.iter().map(|stream| (stream.codec_type.as_str(), stream.seconds()));
        for (what, seconds) in streams.chain([("film", probe.seconds())]) {
            let seconds = seconds.unwrap_or(0.0);
            if (seconds - planned).abs() > tolerance {
                self.0.push(format!("length of the {what}: {seconds:.3} s instead of {planned:.3} s"));
            }
        }
    }

    fn result(self) -> Result<(), Failure> {
        if self.0.is_empty() {
            return Ok(());
        }
        let failure = Failure::permanent(CODE, format!("the film is not as planned: {}", self.0.join("; ")));
        Err(failure.with_details(json!({ "differences": self.0 })))
    }
}
