//! The proof that a frame exists: a file that decodes to its last byte and has the planned size.
//!
//! A renderer writes its files in place; one that dies leaves a truncated file under the right name. Only the
//! content says whether a frame is there.

use flatrender_workflows::contracts::{
    render::FaultReason,
    storage::{BlobHash, BlobRef},
};
use std::{fs::File, io, io::Read, path::Path};

/// The last chunk of every PNG: length 0, `IEND`, its CRC.
const PNG_END: [u8; 12] = [0, 0, 0, 0, b'I', b'E', b'N', b'D', 0xAE, 0x42, 0x60, 0x82];
/// What a PNG may be longer than its pixels at 16 bits a channel: headers, profiles, incompressible rows.
const SLACK_BYTES: u64 = 4 << 20;

/// A frame that is there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proof {
    /// Hash and length of its file.
    pub blob: BlobRef,
    /// Every pixel is black, or none can be seen.
    pub blank: bool,
}

/// Proves one frame. Reads and decodes the whole file: not for a thread that must not wait.
///
/// # Errors
/// What is wrong with the frame. A file that is still being written is [`FaultReason::Corrupt`].
pub fn verify(path: &Path, size: [u32; 2]) -> Result<Proof, FaultReason> {
    let bytes = read(path, size)?;
    let blank = decode(&bytes, size)?;
    Ok(Proof { blob: BlobRef { sha256: BlobHash::of(&bytes), size_bytes: bytes.len() as u64 }, blank })
}

fn read(path: &Path, size: [u32; 2]) -> Result<Vec<u8>, FaultReason> {
    let limit = raw_bytes(size) + SLACK_BYTES;
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(|error| match error.kind() {
        io::ErrorKind::NotFound => FaultReason::Missing,
        _ => FaultReason::Corrupt,
    })?;
    let read = file.take(limit + 1).read_to_end(&mut bytes).map_err(|_| FaultReason::Corrupt)?;
    match read as u64 {
        0 => Err(FaultReason::Missing),
        n if n > limit => Err(FaultReason::Corrupt),
        _ => Ok(bytes),
    }
}

/// Every chunk's CRC is checked by the decoder, every row is decoded, and nothing may follow `IEND`. Whether it is blank.
fn decode(bytes: &[u8], size: [u32; 2]) -> Result<bool, FaultReason> {
    let corrupt = |_| FaultReason::Corrupt;
    let limits = png::Limits { bytes: (raw_bytes(size) + SLACK_BYTES) as usize };
    let mut decoder = png::Decoder::new_with_limits(io::Cursor::new(bytes), limits);
    let header = decoder.read_header_info().map_err(corrupt)?;
    if [header.width, header.height] != size {
        return Err(FaultReason::WrongSize);
    }
    let mut reader = decoder.read_info().map_err(corrupt)?;
    let mut blank = Blank::of(reader.info());
    let mut row_bytes = 0;
    while let Some(row) = reader.next_row().map_err(corrupt)? {
        row_bytes += row.data().len();
        blank.row(row.data());
    }
    reader.finish().map_err(corrupt)?;
    if row_bytes == 0 || !bytes.ends_with(&PNG_END) {
        return Err(FaultReason::Corrupt);
    }
    Ok(blank.black || blank.clear)
}

/// What the rows so far have been.
struct Blank {
    pixel_bytes: usize,
    alpha_bytes: usize,
    black: bool,
    clear: bool,
}

impl Blank {
    /// Indexed pictures and those with less than a byte a channel are not told: no renderer writes frames so.
    fn of(info: &png::Info<'_>) -> Self {
        let sample_bytes = usize::from(info.bit_depth as u8) / 8;
        let (black, alpha_bytes) = match info.color_type {
            png::ColorType::Indexed => (false, 0),
            png::ColorType::Rgba | png::ColorType::GrayscaleAlpha => (sample_bytes > 0, sample_bytes),
            png::ColorType::Rgb | png::ColorType::Grayscale => (sample_bytes > 0, 0),
        };
        Self { pixel_bytes: info.bytes_per_pixel(), alpha_bytes, black, clear: black && alpha_bytes > 0 }
    }

    fn row(&mut self, row: &[u8]) {
        if !self.black && !self.clear {
            return;
        }
        for pixel in row.chunks_exact(self.pixel_bytes) {
            let (color, alpha) = pixel.split_at(self.pixel_bytes - self.alpha_bytes);
            self.black &= color.iter().all(|b| *b == 0);
            self.clear &= alpha.iter().all(|b| *b == 0);
        }
    }
}

fn raw_bytes([width, height]: [u32; 2]) -> u64 {
    u64::from(width) * u64::from(height) * 8
}

#[cfg(test)]
mod tests {
    use super::*;

    const SIZE: [u32; 2] = [16, 9];

    fn png(width: u32, height: u32) -> Vec<u8> {
        let picture = image::RgbaImage::from_fn(width, height, |x, y| image::Rgba([x as u8 * 9, y as u8 * 7, 3, 255]));
        let mut bytes = io::Cursor::new(Vec::new());
        picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
        bytes.into_inner()
    }

    fn verdict(bytes: &[u8]) -> Result<Proof, FaultReason> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("frame.png");
        std::fs::write(&path, bytes).unwrap();
        verify(&path, SIZE)
    }

    #[test]
    fn a_whole_frame_is_proven_with_its_hash() {
        let bytes = png(16, 9);
        let proof = verdict(&bytes).unwrap();
        let blob = BlobRef { sha256: BlobHash::of(&bytes), size_bytes: bytes.len() as u64 };
        assert_eq!(proof, Proof { blob, blank: false });
    }

    #[test]
    fn a_black_or_clear_frame_is_blank_and_one_with_any_light_is_not() {
        let blank = |picture: image::DynamicImage| {
            let mut bytes = io::Cursor::new(Vec::new());
            picture.write_to(&mut bytes, image::ImageFormat::Png).unwrap();
            verdict(&bytes.into_inner()).unwrap().blank
        };
        let filled = |pixel| image::RgbaImage::from_pixel(16, 9, image::Rgba(pixel));
        let mut lit = filled([0, 0, 0, 255]);
        assert!(blank(lit.clone().into()) && blank(image::DynamicImage::from(lit.clone()).to_rgb8().into()));
        assert!(blank(image::DynamicImage::from(lit.clone()).to_luma16().into()));
        assert!(blank(filled([9, 9, 9, 0]).into()), "nothing can be seen");
        assert!(!blank(filled([1, 0, 0, 255]).into()), "one colour is not blank");
        lit.put_pixel(15, 8, image::Rgba([0, 0, 1, 255]));
        assert!(!blank(lit.into()));
    }

    #[test]
    fn a_frame_cut_off_anywhere_is_not_a_frame() {
        let bytes = png(16, 9);
        for length in 1..bytes.len() {
            assert_eq!(verdict(&bytes[..length]), Err(FaultReason::Corrupt), "{length} of {} bytes", bytes.len());
        }
    }

    #[test]
    fn a_frame_with_any_bit_flipped_is_not_a_frame() {
        let bytes = png(16, 9);
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(verdict(&bad).is_err(), "byte {at} of {}", bytes.len());
        }
    }

    #[test]
    fn an_empty_absent_or_other_sized_frame_is_named_so() {
        assert_eq!(verdict(b""), Err(FaultReason::Missing));
        assert_eq!(verify(Path::new("/nowhere/frame.png"), SIZE), Err(FaultReason::Missing));
        assert_eq!(verdict(&png(8, 9)), Err(FaultReason::WrongSize));
        assert_eq!(verdict(b"<html>404</html>"), Err(FaultReason::Corrupt));
    }

    #[test]
    fn nothing_may_follow_the_end() {
        let mut bytes = png(16, 9);
        bytes.extend(vec![0; 20]);
        assert_eq!(verdict(&bytes), Err(FaultReason::Corrupt));
    }
}
