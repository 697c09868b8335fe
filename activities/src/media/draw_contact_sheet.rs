//! Draws frames of a film as one picture for people to look at.

use super::{
    Media, blocking, disk_failure,
    ffmpeg::{Args, Length},
    files, frame, invalid, unless_ended,
};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::{media::DrawContactSheet, storage::BlobRef};
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage, imageops};
use std::path::Path;

/// What fails for good here.
const CODE: &str = "media.sheet_failed";
const FILM: &str = "film.mp4";
/// Between tiles and around them, in pixels.
const GAP: u32 = 8;
const BACKGROUND: Rgba<u8> = Rgba([24, 24, 27, 255]);
/// Under transparent pixels, as in the film.
const BLACK: Rgba<u8> = Rgba([0, 0, 0, 255]);
const MOST_FRAMES: usize = 24;
const SHEET: &str = "sheet.png";

impl Handler<DrawContactSheet> for Media {
    async fn handle(&self, cx: &Attempt, input: DrawContactSheet) -> Result<BlobRef, Failure> {
        check(&input)?;
        let scratch = self.scratch(cx)?;
        let folder = scratch.path();
        unless_ended(cx, self.fetch(&files(cx), &input.video, &folder.join(FILM))).await?;
        let last = input.frames.last().map_or(0, |f| f + 1);
        let shown = self.run(cx, folder, arguments(&input.frames), Length { frames: last, fps: 1 }).await;
        shown.map_err(|e| e.failure(CODE, "frames of the film cannot be read"))?;
        let path = folder.join(SHEET);
        let (target, from, width, columns) = (path.clone(), folder.to_owned(), input.tile_width, input.columns);
        let count = input.frames.len();
        let draw = blocking(move || save(&lay_out(&tiles(&from, count, width)?, columns), &target));
        unless_ended(cx, async { draw.await? }).await?;
        unless_ended(cx, self.store(&files(cx), &path)).await
    }
}

/// Writes the frames as tile001.png, tile002.png …
fn arguments(frames: &[u32]) -> Args {
    let wanted: Vec<String> = frames.iter().map(|n| format!("eq(n\\,{n})")).collect();
    Args::ffmpeg()
        .with(["-protocol_whitelist", "file", "-f", "mov", "-i", FILM, "-map", "0:v:0", "-an"])
        .with(["-vf", &format!("select={}", wanted.join("+")), "-fps_mode", "passthrough"])
        .with(["-frames:v", &frames.len().to_string(), "-f", "image2", "tile%03d.png"])
}

fn tiles(folder: &Path, count: usize, width: u32) -> Result<Vec<RgbaImage>, Failure> {
    let tile = |n: usize| {
        let png = std::fs::read(folder.join(format!("tile{n:03}.png"))).ok();
        let picture = png.as_deref().and_then(frame::decode);
        let missing = || Failure::permanent(CODE, format!("the film does not show picture {n} of {count}"));
        picture.map(|picture| shrink(&picture, width)).ok_or_else(missing)
    };
    (1..=count).map(tile).collect()
}

fn check(input: &DrawContactSheet) -> Result<(), Failure> {
    match () {
        () if !(1..=MOST_FRAMES).contains(&input.frames.len()) => Err(invalid("a sheet shows 1 to 24 frames")),
        () if !input.frames.is_sorted_by(|a, b| a < b) => Err(invalid("the frames of a sheet are in order")),
        () if !(1..=MOST_FRAMES as u32).contains(&input.columns) => Err(invalid("a sheet has 1 to 24 columns")),
        () if !(16..=1024).contains(&input.tile_width) => Err(invalid("a tile is 16 to 1024 pixels wide")),
        () => Ok(()),
    }
}

fn shrink(picture: &DynamicImage, width: u32) -> RgbaImage {
    let height = (f64::from(picture.height()) * f64::from(width) / f64::from(picture.width())).round().max(1.0) as u32;
    let mut tile = RgbaImage::from_pixel(width, height, BLACK);
    let small = picture.resize_exact(width, height, imageops::FilterType::Triangle).into_rgba8();
    imageops::overlay(&mut tile, &small, 0, 0);
    tile
}

/// Rows of `columns` tiles, as high as the highest tile.
fn lay_out(tiles: &[RgbaImage], columns: u32) -> RgbaImage {
    let columns = columns.min(tiles.len() as u32);
    let rows = (tiles.len() as u32).div_ceil(columns);
    let width = tiles.iter().map(RgbaImage::width).max().unwrap_or(1);
    let height = tiles.iter().map(RgbaImage::height).max().unwrap_or(1);
    let mut sheet = RgbaImage::from_pixel(columns * (width + GAP) + GAP, rows * (height + GAP) + GAP, BACKGROUND);
    for (index, tile) in (0..).zip(tiles) {
        let (column, row) = (index % columns, index / columns);
        imageops::replace(&mut sheet, tile, place(column, width), place(row, height));
    }
    sheet
}

fn place(index: u32, length: u32) -> i64 {
    i64::from(GAP + index * (length + GAP))
}

fn save(sheet: &RgbaImage, path: &Path) -> Result<(), Failure> {
    sheet.save_with_format(path, ImageFormat::Png).map_err(|e| disk_failure(std::io::Error::other(e)))
}
