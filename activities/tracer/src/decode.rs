//! Taking a picture in: its kind by its first bytes, its size before anything is decoded.

use crate::{SOURCE_BYTES, TraceError};
use image::{
    DynamicImage, ImageDecoder as _, ImageError, ImageFormat, ImageReader, Limits, RgbaImage, imageops,
    metadata::Orientation,
};
use std::io::Cursor;

/// Most pixels that are decoded: 160 MB of memory.
pub(crate) const PIXELS: u64 = 40_000_000;
/// Longest side.
const SIDE: u32 = 16_384;
/// Memory of a decoder, beside what it gives.
const DECODER_BYTES: u64 = 256 * 1024 * 1024;

pub(crate) fn decode(bytes: &[u8]) -> Result<RgbaImage, TraceError> {
    if bytes.len() > SOURCE_BYTES {
        return Err(TraceError::TooLarge);
    }
    let format = image::guess_format(bytes).ok();
    let known = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::WebP];
    let format = format.filter(|format| known.contains(format)).ok_or(TraceError::Unsupported)?;
    let mut reader = ImageReader::with_format(Cursor::new(bytes), format);
    let mut limits = Limits::default();
    (limits.max_image_width, limits.max_image_height) = (Some(SIDE), Some(SIDE));
    limits.max_alloc = Some(DECODER_BYTES);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(refused)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXELS {
        return Err(TraceError::TooLarge);
    }
    let orientation = decoder.orientation().unwrap_or(Orientation::NoTransforms);
    let mut picture = DynamicImage::from_decoder(decoder).map_err(refused)?;
    picture.apply_orientation(orientation);
    Ok(picture.into_rgba8())
}

/// The picture with no side longer than `side`.
pub(crate) fn shrunk(picture: &RgbaImage, side: u32) -> RgbaImage {
    let (width, height) = picture.dimensions();
    if width.max(height) <= side {
        return picture.clone();
    }
    let scale = f64::from(side) / f64::from(width.max(height));
    let scaled = |length: u32| ((f64::from(length) * scale).round() as u32).max(1);
    imageops::thumbnail(picture, scaled(width), scaled(height))
}

fn refused(error: ImageError) -> TraceError {
    match error {
        ImageError::Limits(_) => TraceError::TooLarge,
        other => TraceError::Damaged(other),
    }
}
