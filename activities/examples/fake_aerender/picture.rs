//! Pixels that tell where they come from: a function of the composition, the frame and the bound data alone.

use image::{ImageFormat, Rgba, RgbaImage};
use sha2::{Digest, Sha256};
use std::io::Cursor;

/// The PNG of a frame.
pub fn png(composition: &str, frame: u32, data: &[u8], size: [u32; 2]) -> Vec<u8> {
    encoded(&pixels(composition, frame, data, size))
}

/// The picture of a frame.
pub fn pixels(composition: &str, frame: u32, data: &[u8], [width, height]: [u32; 2]) -> RgbaImage {
    let mut seed = Sha256::new();
    seed.update(composition.as_bytes());
    seed.update(frame.to_le_bytes());
    seed.update(data);
    let seed: [u8; 32] = seed.finalize().into();
    RgbaImage::from_fn(width, height, |x, y| {
        let at = |n: usize| seed[(n + x as usize / 4 + y as usize / 4 * 5) % 32].wrapping_add((x ^ y) as u8);
        Rgba([at(0), at(7), at(13), 255])
    })
}

/// A picture as PNG.
pub fn encoded(picture: &RgbaImage) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    picture.write_to(&mut bytes, ImageFormat::Png).expect("memory takes any picture");
    bytes.into_inner()
}
