//! Draws frames of a film as one picture for people to look at.

use super::{Media, blocking, disk_failure, files, frame, frame_failure, invalid, render, unless_ended};
use flatrender_engine::{Attempt, Failure, Handler, Progress};
use flatrender_workflows::contracts::{
    media::{DrawContactSheet, FRAME_LOST},
    render::FrameRef,
    storage::BlobRef,
};
use futures::{StreamExt, TryStreamExt, stream};
use image::{DynamicImage, ImageFormat, Rgba, RgbaImage, imageops};
use std::path::Path;

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
        unless_ended(cx, self.draw(cx, input)).await
    }
}

impl Media {
    async fn draw(&self, cx: &Attempt, input: DrawContactSheet) -> Result<BlobRef, Failure> {
        let scratch = self.scratch(cx)?;
        let tiles = self.tiles(cx, &input).await?;
        let path = scratch.path().join(SHEET);
        let target = path.clone();
        blocking(move || save(&lay_out(&tiles, input.columns), &target)).await??;
        self.store(&files(cx), &path).await
    }

    async fn tiles(&self, cx: &Attempt, input: &DrawContactSheet) -> Result<Vec<RgbaImage>, Failure> {
        let total = input.frames.len() as u32;
        let tiles = input.frames.clone().into_iter().map(|frame| self.tile(cx, input, frame));
        let mut tiles = stream::iter(tiles).buffered(self.threads.max(1));
        let mut drawn = Vec::new();
        while let Some(tile) = tiles.try_next().await? {
            drawn.push(tile);
            cx.heartbeat(Progress { done: drawn.len() as u32, total, ..Progress::default() })?;
        }
        Ok(drawn)
    }

    async fn tile(&self, cx: &Attempt, input: &DrawContactSheet, frame: FrameRef) -> Result<RgbaImage, Failure> {
        let shelf = render(cx, input.render_id);
        let png = self.read(&shelf, &frame.blob, frame::LIMIT_BYTES).await.map_err(|e| frame_failure(&frame, &e))?;
        let width = input.tile_width;
        let tile = blocking(move || frame::decode(&png).map(|picture| shrink(&picture, width))).await?;
        tile.ok_or_else(|| Failure::permanent(FRAME_LOST, format!("frame {} does not decode", frame.frame)))
    }
}

fn check(input: &DrawContactSheet) -> Result<(), Failure> {
    match () {
        () if !(1..=MOST_FRAMES).contains(&input.frames.len()) => Err(invalid("a sheet shows 1 to 24 frames")),
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
