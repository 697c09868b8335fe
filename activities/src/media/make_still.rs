//! Makes the pictures of a still: a large and a small one, as small files, without a word about where they come from.

use super::{Media, blocking, disk_failure, ffmpeg::Args, ffmpeg::Length, frame, render, unless_ended};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::{
    media::FRAME_LOST,
    render::FrameRef,
    snapshot::{MadeStill, MakeStill, Picture},
    storage::Shelf,
};
use image::{ImageFormat, ImageReader};
use std::{fs, io::Cursor, path::Path};

const CODE: &str = "media.still_failed";
const FRAME: &str = "frame.png";
/// File names, and the widest that each may be; a narrower frame is not blown up.
const LARGE: (&str, u32) = ("large.webp", 1280);
const SMALL: (&str, u32) = ("small.webp", 480);
/// Under transparent pixels is black, as in the film. The encoder does the colours itself: it is given RGB.
const FILTERS: &str = "format=gbrap,setrange=pc,premultiply=inplace=1,format=gbrp";

impl Handler<MakeStill> for Media {
    async fn handle(&self, cx: &Attempt, input: MakeStill) -> Result<MadeStill, Failure> {
        let scratch = self.scratch(cx)?;
        let folder = scratch.path();
        unless_ended(cx, self.lay_out_frame(cx, &input, folder)).await?;
        let sizes = [LARGE, SMALL].map(|(_, widest)| fitted(input.size, widest));
        let made = self.run(cx, folder, arguments(sizes), Length { frames: 2, fps: 1 }).await;
        made.map_err(|e| e.failure(CODE, "the frame does not encode"))?;
        let finish = async {
            let [large, small] = sizes;
            Ok(MadeStill {
                large: self.keep(folder, LARGE.0, large).await?,
                small: self.keep(folder, SMALL.0, small).await?,
            })
        };
        unless_ended(cx, finish).await
    }
}

impl Media {
    async fn lay_out_frame(&self, cx: &Attempt, input: &MakeStill, folder: &Path) -> Result<(), Failure> {
        let (path, size) = (folder.join(FRAME), input.size);
        let frame = FrameRef { frame: 0, blob: input.frame.clone() };
        self.fetch_frame(&render(cx, input.job_id), &frame, &path).await?;
        let proven = blocking(move || fs::read(path).map(|png| frame::check(&png, size))).await?;
        let lost = |fault| Failure::permanent(FRAME_LOST, format!("the frame is {fault:?}"));
        proven.map_err(disk_failure)?.map(drop).map_err(lost)
    }

    /// Puts a picture on the public shelf once it is seen to decode.
    async fn keep(&self, folder: &Path, name: &str, size: [u32; 2]) -> Result<Picture, Failure> {
        let path = folder.join(name);
        let file = path.clone();
        let decoded = blocking(move || fs::read(file).map(|webp| decoded_size(&webp))).await?.map_err(disk_failure)?;
        if decoded != Some(size) {
            return Err(Failure::permanent(CODE, format!("{name} was made as {decoded:?} instead of {size:?}")));
        }
        Ok(Picture { blob: self.store(&Shelf::Public, &path).await?, size })
    }
}

/// Width and height of a WebP whose every pixel decodes.
fn decoded_size(webp: &[u8]) -> Option<[u32; 2]> {
    let picture = ImageReader::with_format(Cursor::new(webp), ImageFormat::WebP).decode().ok()?;
    Some([picture.width(), picture.height()])
}

/// The size of a frame scaled down to a width.
fn fitted([width, height]: [u32; 2], widest: u32) -> [u32; 2] {
    if width <= widest {
        return [width, height];
    }
    let scaled = (u64::from(height) * u64::from(widest) + u64::from(width) / 2) / u64::from(width);
    [widest, (scaled as u32).max(1)]
}

fn arguments([large, small]: [[u32; 2]; 2]) -> Args {
    let scaled = |[width, height]: [u32; 2]| format!("{FILTERS},scale={width}:{height}:flags=lanczos,format=bgra");
    let encode = |args: Args, filters: &str, name: &str| {
        args.with(["-map", "0:v:0", "-frames:v", "1", "-an", "-map_metadata", "-1", "-vf", filters])
            .with(["-c:v", "libwebp", "-quality", "88", "-compression_level", "4", "-fflags", "+bitexact"])
            .with(["-flags:v", "+bitexact", "-f", "webp", name])
    };
    let args = Args::ffmpeg()
        .with(["-xerror", "-err_detect", "crccheck+explode", "-protocol_whitelist", "file"])
        .with(["-f", "image2", "-pattern_type", "none", "-c:v", "png", "-i", FRAME]);
    let args = encode(args, &scaled(large), LARGE.0);
    encode(args, &scaled(small), SMALL.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_never_larger_than_its_frame_and_keeps_its_shape() {
        assert_eq!(fitted([1920, 1080], 1280), [1280, 720]);
        assert_eq!(fitted([1080, 1920], 480), [480, 853]);
        assert_eq!(fitted([256, 144], 480), [256, 144]);
        assert_eq!(fitted([8192, 1], 480), [480, 1]);
    }
}
