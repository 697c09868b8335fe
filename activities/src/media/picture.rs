//! Pictures of strangers: measured, decoded whole, and kept in an encoding of our own.
//!
//! Of what came only the pixels are kept: no EXIF and so no place where it was taken, no comments, no second file behind the first,
//! no further pictures of an animation. How it was held is applied, and colours of another profile become those of sRGB.

use super::{sniff::ImageKind, upload::UploadError};
use image::{
    DynamicImage, ImageDecoder, ImageError, ImageFormat, ImageReader,
    codecs::{jpeg::JpegEncoder, webp::WebPEncoder},
};
use moxcms::{ColorProfile, DataColorSpace, Layout, TransformOptions};
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Write as _},
    path::Path,
};

/// The longest side, in pixels.
const SIDE: u32 = 16_384;
/// The longest file; decoders hold all of it.
const FILE_BYTES: u64 = 128 * 1024 * 1024;
/// The most memory the pixels of a picture may take: judged by its width, height and depth before one is decoded. Turning it the right way
/// up takes as much again.
const DECODER_BYTES: u64 = 256 * 1024 * 1024;
/// The longest colour profile that is read; those of printers have some megabytes.
const PROFILE_BYTES: usize = 4 * 1024 * 1024;
/// Of JPEGs. Another generation at this quality is not seen.
const JPEG_QUALITY: u8 = 95;

/// Puts our own encoding in the place of the picture at `path` and tells its width and height.
pub(super) fn keep(path: &Path, kind: ImageKind, pixels: u64) -> Result<[u32; 2], UploadError> {
    let picture = read(path, kind, pixels)?;
    let folder = path.parent().ok_or_else(|| unchecked(io::ErrorKind::InvalidFilename.into()))?;
    let mut ours = tempfile::NamedTempFile::new_in(folder).map_err(unchecked)?;
    let mut out = BufWriter::new(ours.as_file_mut());
    encode(&picture, kind, &mut out).map_err(undecodable)?;
    out.flush().map_err(unchecked)?;
    drop(out);
    ours.persist(path).map_err(|e| unchecked(e.error))?;
    Ok([picture.width(), picture.height()])
}

/// Its size is read and judged before a pixel is decoded.
fn read(path: &Path, kind: ImageKind, pixels: u64) -> Result<DynamicImage, UploadError> {
    if path.metadata().map_err(unchecked)?.len() > FILE_BYTES {
        return Err(UploadError::TooLarge { limit: FILE_BYTES, unit: "bytes" });
    }
    let file = BufReader::new(File::open(path).map_err(unchecked)?);
    let mut decoder = ImageReader::with_format(file, format(kind)).into_decoder().map_err(undecodable)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > pixels || width.max(height) > SIDE {
        return Err(UploadError::TooLarge { limit: pixels, unit: "pixels" });
    }
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(DECODER_BYTES);
    limits.reserve(decoder.total_bytes()).map_err(undecodable)?;
    decoder.set_limits(limits).map_err(undecodable)?;
    // What cannot be read beside the pixels is as if it were not there.
    let orientation = decoder.orientation().unwrap_or(image::metadata::Orientation::NoTransforms);
    let profile = decoder.icc_profile().ok().flatten();
    let mut picture = DynamicImage::from_decoder(decoder).map_err(undecodable)?;
    if kind == ImageKind::Jpeg && !ends_as_jpeg(path)? {
        return Err(UploadError::Corrupt);
    }
    if let Some(profile) = profile {
        to_srgb(&mut picture, &profile);
    }
    picture.apply_orientation(orientation);
    Ok(picture)
}

fn format(kind: ImageKind) -> ImageFormat {
    match kind {
        ImageKind::Png => ImageFormat::Png,
        ImageKind::Jpeg => ImageFormat::Jpeg,
        ImageKind::Webp => ImageFormat::WebP,
    }
}

/// Pixels of eight bits from their profile to sRGB. A profile that makes no sense is ignored, as browsers do.
fn to_srgb(picture: &mut DynamicImage, profile: &[u8]) {
    let layout = match picture {
        DynamicImage::ImageRgb8(_) => Layout::Rgb,
        DynamicImage::ImageRgba8(_) => Layout::Rgba,
        _ => return,
    };
    if profile.len() > PROFILE_BYTES {
        return;
    }
    let Ok(theirs) = ColorProfile::new_from_slice(profile) else { return };
    if theirs.color_space != DataColorSpace::Rgb {
        return;
    }
    let srgb = ColorProfile::new_srgb();
    let Ok(transform) = theirs.create_transform_8bit(layout, &srgb, layout, TransformOptions::default()) else {
        return;
    };
    let row_bytes = picture.width() as usize * usize::from(picture.color().bytes_per_pixel());
    let bytes: &mut [u8] = match picture {
        DynamicImage::ImageRgb8(pixels) => pixels,
        DynamicImage::ImageRgba8(pixels) => pixels,
        _ => return,
    };
    for row in bytes.chunks_exact_mut(row_bytes.max(1)) {
        let before = row.to_vec();
        if transform.transform(&before, row).is_err() {
            return;
        }
    }
}

fn encode(picture: &DynamicImage, kind: ImageKind, out: &mut (impl io::Write + io::Seek)) -> Result<(), ImageError> {
    match (kind, picture) {
        (ImageKind::Png, _) => picture.write_to(out, ImageFormat::Png),
        (ImageKind::Jpeg, DynamicImage::ImageLuma8(grey)) => {
            grey.write_with_encoder(JpegEncoder::new_with_quality(out, JPEG_QUALITY))
        }
        (ImageKind::Jpeg, _) => picture.to_rgb8().write_with_encoder(JpegEncoder::new_with_quality(out, JPEG_QUALITY)),
        (ImageKind::Webp, picture) if picture.color().has_alpha() => {
            picture.to_rgba8().write_with_encoder(WebPEncoder::new_lossless(out))
        }
        (ImageKind::Webp, _) => picture.to_rgb8().write_with_encoder(WebPEncoder::new_lossless(out)),
    }
}

/// Decoders of JPEG fill what is missing with grey; the marker at the end tells whether all of it came. Cameras
/// write more behind it, so it is looked for anywhere.
fn ends_as_jpeg(path: &Path) -> Result<bool, UploadError> {
    let bytes = std::fs::read(path).map_err(unchecked)?;
    Ok(bytes.windows(2).rev().any(|pair| pair == [0xff, 0xd9]))
}

fn undecodable(error: ImageError) -> UploadError {
    match error {
        ImageError::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => unchecked(error),
        ImageError::Limits(_) => UploadError::TooLarge { limit: DECODER_BYTES, unit: "bytes of pixels" },
        _ => UploadError::Corrupt,
    }
}

fn unchecked(error: io::Error) -> UploadError {
    UploadError::Unchecked(Box::new(error))
}
