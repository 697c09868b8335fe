//! Makes something else of a finished film: a picture, a small one, one for editing.

use super::{
    Media,
    ffmpeg::{Args, Length},
    files, invalid, unless_ended,
};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::{
    media::{DerivativeKind, DeriveFile},
    storage::BlobRef,
};

/// What fails for good here.
const CODE: &str = "media.derivative_failed";
const FILM: &str = "film.mp4";

impl Handler<DeriveFile> for Media {
    async fn handle(&self, cx: &Attempt, input: DeriveFile) -> Result<BlobRef, Failure> {
        if input.frames == 0 || input.fps == 0 {
            return Err(invalid("a film has at least one frame a second"));
        }
        let scratch = self.scratch(cx)?;
        unless_ended(cx, self.fetch(&files(cx), &input.video, &scratch.path().join(FILM))).await?;
        let (recipe, made) = recipe(&input);
        let args = Args::ffmpeg()
            .with(["-protocol_whitelist", "file", "-f", "mov", "-i", FILM, "-map_metadata", "-1"])
            .with(recipe)
            .with(["-fflags", "+bitexact", "-flags:v", "+bitexact", "-flags:a", "+bitexact", made]);
        let length = Length { frames: input.frames, fps: input.fps };
        self.run(cx, scratch.path(), args, length)
            .await
            .map_err(|e| e.failure(CODE, "it cannot be made of the film"))?;
        let path = scratch.path().join(made);
        if std::fs::metadata(&path).map_or(0, |m| m.len()) == 0 {
            return Err(Failure::permanent(CODE, "nothing came of the film"));
        }
        unless_ended(cx, self.store(&files(cx), &path)).await
    }
}

/// Arguments, and the name of what is made.
fn recipe(input: &DeriveFile) -> (Vec<String>, &'static str) {
    let (text, made): (String, &str) = match input.kind {
        DerivativeKind::Poster => {
            let middle = input.frames / 2;
            (format!("-map 0:v:0 -vf select=eq(n\\,{middle}) -fps_mode passthrough -frames:v 1 -q:v 3 -f image2"), "made.jpg")
        }
        DerivativeKind::Gif => (
            "-map 0:v:0 -vf fps=12,scale='min(480,iw)':-1:flags=lanczos,split[a][b];[a]palettegen=stats_mode=diff[p];\
             [b][p]paletteuse=dither=bayer:bayer_scale=4:diff_mode=rectangle -loop 0 -f gif"
                .into(),
            "made.gif",
        ),
        DerivativeKind::Small => (
            "-map 0:v:0 -map 0:a:0 -vf scale=-2:'min(360,ih)' -c:v libx264 -preset veryfast -crf 28 -pix_fmt yuv420p \
             -c:a aac -b:a 96k -movflags +faststart -f mp4"
                .into(),
            "made.mp4",
        ),
        DerivativeKind::Prores => (
            "-map 0:v:0 -map 0:a:0 -c:v prores_ks -profile:v 3 -pix_fmt yuv422p10le -vendor apl0 -c:a pcm_s16le -f mov".into(),
            "made.mov",
        ),
        DerivativeKind::Webm => (
            "-map 0:v:0 -map 0:a:0 -c:v libvpx-vp9 -crf 32 -b:v 0 -deadline good -cpu-used 4 -row-mt 1 -pix_fmt yuv420p \
             -c:a libopus -b:a 128k -f webm"
                .into(),
            "made.webm",
        ),
    };
    // Ours alone: nothing of a customer's is in it, and no argument has a space.
    (text.split_whitespace().map(str::to_owned).collect(), made)
}
