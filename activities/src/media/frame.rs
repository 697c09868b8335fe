//! A rendered frame: a PNG that must be whole. An empty or half-written one is the commonest trace of a crash.

use flatrender_workflows::contracts::render::FaultReason;
use image::{ColorType, DynamicImage, ImageDecoder, ImageResult, Limits, codecs::png::PngDecoder};
use std::io::Cursor;

/// The longest file that is looked at; the PNG of an 8K frame of pure noise with 16 bits a channel.
pub const LIMIT_BYTES: u64 = 300 * 1024 * 1024;
/// The most memory a decoder may take beside the picture.
const DECODER_BYTES: u64 = 512 * 1024 * 1024;
const SIGNATURE: &[u8] = b"\x89PNG\r\n\x1a\n";
/// The last chunk: no content, its name, its checksum.
const END: &[u8] = b"\0\0\0\0IEND\xae\x42\x60\x82";
/// Signature, then the first chunk: length, name, width, height.
pub(super) const HEADER_BYTES: usize = 24;

/// Proves that `png` decodes to its last byte and is `size` wide and high. Whether it is blank: black, or clear.
///
/// # Errors
/// What is wrong with it.
pub fn check(png: &[u8], size: [u32; 2]) -> Result<bool, FaultReason> {
    if png.is_empty() {
        return Err(FaultReason::Missing);
    }
    let found = dimensions(png).ok_or(FaultReason::Corrupt)?;
    if found != size {
        return Err(FaultReason::WrongSize);
    }
    if !png.ends_with(END) {
        return Err(FaultReason::Corrupt);
    }
    decoder(png, size).and_then(read_all).map_err(|_| FaultReason::Corrupt)
}

/// Width and height as the first bytes of a PNG tell them.
pub(super) fn dimensions(head: &[u8]) -> Option<[u32; 2]> {
    let header = head.strip_prefix(SIGNATURE)?.get(..HEADER_BYTES - SIGNATURE.len())?;
    let number = |bytes: &[u8]| bytes.try_into().ok().map(u32::from_be_bytes);
    if &header[4..8] != b"IHDR" {
        return None;
    }
    Some([number(&header[8..12])?, number(&header[12..16])?])
}

/// The pixels of a checked frame.
pub(super) fn decode(png: &[u8]) -> Option<DynamicImage> {
    let decoder = decoder(png, dimensions(png)?).ok()?;
    DynamicImage::from_decoder(decoder).ok()
}

fn decoder(png: &[u8], [width, height]: [u32; 2]) -> ImageResult<PngDecoder<Cursor<&[u8]>>> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(width);
    limits.max_image_height = Some(height);
    limits.max_alloc = Some(DECODER_BYTES);
    PngDecoder::with_limits(Cursor::new(png), limits)
}

fn read_all(decoder: PngDecoder<Cursor<&[u8]>>) -> ImageResult<bool> {
    let color = decoder.color_type();
    let mut pixels = vec![0; usize::try_from(decoder.total_bytes()).unwrap_or(usize::MAX)];
    decoder.read_image(&mut pixels)?;
    Ok(is_blank(&pixels, color))
}

/// Whether every pixel is black, or none can be seen.
fn is_blank(pixels: &[u8], color: ColorType) -> bool {
    let pixel_bytes = usize::from(color.bytes_per_pixel());
    let alpha_bytes = if color.has_alpha() { pixel_bytes / usize::from(color.channel_count()) } else { 0 };
    let (mut black, mut clear) = (true, alpha_bytes > 0);
    for pixel in pixels.chunks_exact(pixel_bytes) {
        let (color, alpha) = pixel.split_at(pixel_bytes - alpha_bytes);
        black &= color.iter().all(|b| *b == 0);
        clear &= alpha.iter().all(|b| *b == 0);
        if !black && !clear {
            return false;
        }
    }
    true
}
