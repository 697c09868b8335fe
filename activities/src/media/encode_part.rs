//! Encodes consecutive frames to a stretch of H.264 that joins others without being encoded again.

use super::{
    Media, blocking, disk_failure,
    ffmpeg::{Args, Length},
    frame, invalid, probe, render, unless_ended,
};
use flatrender_engine::{Attempt, Failure, Handler, Progress};
use flatrender_workflows::contracts::{
    media::{EncodePart, EncodeProfile, EncodedPart},
    render::FrameRef,
    storage::Shelf,
};
use futures::{StreamExt, TryStreamExt, stream};
use std::{fs::File, io::Read, path::Path};

/// What fails for good here.
const CODE: &str = "media.encode_failed";
/// Threads of the encoder. The same number everywhere: the bytes depend on it.
const ENCODER_THREADS: &str = "4";
/// Seconds from one key frame to the next.
const GOP_SECONDS: u32 = 2;
const PATTERN: &str = "%06d.png";
const PART: &str = "part.mp4";
/// What a watermark is written with, and what it says: files, since no word of a customer's is an argument.
const FONT: &str = "mark.ttf";
const WORDS: &str = "mark.txt";
const FONT_BYTES: &[u8] = include_bytes!("../../../templates/promo/fonts/Vazirmatn-Bold.ttf");
/// Transparent pixels on black, then from full-range RGB to BT.709 in video range: tags only label, this converts.
/// Old versions of ffmpeg would take the RGB to be in video range, were they not told.
/// The flags choose the arithmetic that gives the same on every processor.
const FILTERS: &str = "format=gbrap,setrange=pc,premultiply=inplace=1,format=gbrp,\
                       scale=out_color_matrix=bt709:out_range=tv:flags=accurate_rnd+full_chroma_int+bitexact,\
                       format=yuv420p";

impl Handler<EncodePart> for Media {
    async fn handle(&self, cx: &Attempt, input: EncodePart) -> Result<EncodedPart, Failure> {
        check(&input)?;
        let (shelf, total) = (render(cx, input.render_id), input.frames.len() as u32);
        let (scratch, length) = (self.scratch(cx)?, Length { frames: total, fps: input.fps });
        unless_ended(cx, self.lay_out(cx, &shelf, &input, scratch.path())).await?;
        if let Some(words) = &input.watermark {
            std::fs::write(scratch.path().join(FONT), FONT_BYTES).map_err(disk_failure)?;
            std::fs::write(scratch.path().join(WORDS), words).map_err(disk_failure)?;
        }
        let encoded = self.run(cx, scratch.path(), arguments(&input, self.threads), length).await;
        encoded.map_err(|e| e.failure(CODE, "the frames do not encode"))?;
        let finish = async {
            let frames = self.count(scratch.path()).await?;
            if frames != total {
                return Err(Failure::permanent(CODE, format!("{frames} of {total} frames were encoded")));
            }
            let blob = self.store(&shelf, &scratch.path().join(PART)).await?;
            Ok(EncodedPart { blob, frames })
        };
        unless_ended(cx, finish).await
    }
}

impl Media {
    /// Puts the frames into `folder` as 000000.png, 000001.png …
    async fn lay_out(&self, cx: &Attempt, shelf: &Shelf, input: &EncodePart, folder: &Path) -> Result<(), Failure> {
        let frames = input.frames.clone().into_iter().enumerate();
        let fetched = frames.map(|(index, frame)| self.lay_out_one(shelf, input.size, frame, index, folder));
        let total = input.frames.len() as u32;
        let mut fetched = stream::iter(fetched).buffer_unordered(self.threads.max(1) * 2);
        while let Some(()) = fetched.try_next().await? {
            cx.heartbeat(Progress { done: 0, total, ..Progress::default() })?;
        }
        Ok(())
    }

    async fn lay_out_one(
        &self,
        shelf: &Shelf,
        size: [u32; 2],
        frame: FrameRef,
        index: usize,
        folder: &Path,
    ) -> Result<(), Failure> {
        let path = folder.join(format!("{index:06}.png"));
        self.fetch_frame(shelf, &frame, &path).await?;
        let found = blocking(move || header(&path)).await?.map_err(disk_failure)?;
        // ffmpeg would quietly stop at an empty frame, and quietly scale one of another size.
        if frame::dimensions(&found) != Some(size) {
            let message = format!("frame {} is not a PNG of {}×{} pixels", frame.frame, size[0], size[1]);
            return Err(Failure::permanent(CODE, message));
        }
        Ok(())
    }

    async fn count(&self, folder: &Path) -> Result<u32, Failure> {
        let probe = probe::packets(&self.ffprobe, folder, PART).await;
        let probe = probe.map_err(|e| e.failure(CODE, "the encoded part cannot be read"))?;
        Ok(probe.first("video").and_then(|v| v.packets()).unwrap_or(0))
    }
}

fn header(path: &Path) -> std::io::Result<Vec<u8>> {
    let mut head = Vec::new();
    File::open(path)?.take(frame::HEADER_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn check(input: &EncodePart) -> Result<(), Failure> {
    let consecutive = input.frames.windows(2).all(|pair| pair[1].frame == pair[0].frame + 1);
    let [width, height] = input.size;
    match () {
        () if input.frames.is_empty() => Err(invalid("a part needs at least one frame")),
        () if !consecutive => Err(invalid("the frames of a part must be consecutive")),
        () if width % 2 + height % 2 > 0 || width.min(height) == 0 => Err(invalid("width and height must be even")),
        () if !(1..=240).contains(&input.fps) => Err(invalid("a film has 1 to 240 frames a second")),
        () => Ok(()),
    }
}

/// Words across the middle of a picture, as large as they fit, light with a dark rim: seen on any ground.
fn mark(words: &str, [width, height]: [u32; 2]) -> String {
    let chars = words.chars().count().max(1) as u32;
    let size = (height / 7).min(width * 3 / 2 / chars).max(8);
    format!(
        ",drawtext=fontfile={FONT}:textfile={WORDS}:expansion=none:fontsize={size}:fontcolor=white@0.5:borderw=1:\
         bordercolor=black@0.4:x=(w-text_w)/2:y=(h-text_h)/2"
    )
}

fn arguments(input: &EncodePart, threads: usize) -> Args {
    let mark = input.watermark.as_deref().map(|words| mark(words, input.size)).unwrap_or_default();
    let (preset, crf) = match input.profile {
        EncodeProfile::Preview => ("veryfast", "21"),
        EncodeProfile::Final => ("veryfast", "18"),
        EncodeProfile::Master => ("medium", "16"),
    };
    let gop = input.fps * GOP_SECONDS;
    // Every part carries the same headers (stitchable), and every processor takes the same decisions.
    let x264 = format!(
        "keyint={gop}:min-keyint={gop}:scenecut=0:open-gop=0:stitchable=1:cpu-independent=1:threads={ENCODER_THREADS}"
    );
    let (fps, count) = (input.fps.to_string(), input.frames.len().to_string());
    Args::ffmpeg()
        .with(["-xerror", "-err_detect", "crccheck+explode", "-protocol_whitelist", "file"])
        .with(["-f", "image2", "-pattern_type", "sequence", "-start_number", "0", "-c:v", "png"])
        .with(["-threads", &threads.max(1).to_string(), "-framerate", &fps, "-i", PATTERN])
        .with(["-frames:v", &count, "-an", "-map_metadata", "-1", "-vf", &format!("{FILTERS}{mark}")])
        .with(["-c:v", "libx264", "-preset", preset, "-crf", crf, "-threads", ENCODER_THREADS, "-x264-params", &x264])
        .with(["-color_primaries", "bt709", "-color_trc", "bt709", "-colorspace", "bt709", "-color_range", "tv"])
        .with(["-fflags", "+bitexact", "-flags:v", "+bitexact"])
        .with(["-video_track_timescale", &super::mp4::timescale(input.fps).to_string(), "-f", "mp4", PART])
}
