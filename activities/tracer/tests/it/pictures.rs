//! Pictures to trace, made here.

use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

pub fn png(width: u32, height: u32, pixel: impl Fn(u32, u32) -> [u8; 4]) -> Vec<u8> {
    let pixels: Vec<u8> =
        (0..height).flat_map(|y| (0..width).map(move |x| (x, y))).flat_map(|(x, y)| pixel(x, y)).collect();
    let mut bytes = Vec::new();
    PngEncoder::new(&mut bytes).write_image(&pixels, width, height, ExtendedColorType::Rgba8).unwrap();
    bytes
}

pub fn flat(width: u32, height: u32, color: [u8; 4]) -> Vec<u8> {
    png(width, height, |_, _| color)
}

/// A blue ring around an amber disc with a white bar, on nothing.
pub fn logo(side: u32) -> Vec<u8> {
    let middle = side as f32 / 2.0;
    png(side, side, |x, y| {
        let (x, y) = ((x as f32 - middle + 0.5) / middle, (y as f32 - middle + 0.5) / middle);
        match (x.hypot(y), x.abs() < 0.4 && (y + 0.34).abs() < 0.07) {
            (radius, _) if radius > 0.95 => [0, 0, 0, 0],
            (radius, _) if radius > 0.62 => [0x1d, 0x4e, 0xd8, 255],
            (_, true) => [255, 255, 255, 255],
            _ => [0xf5, 0x9e, 0x0b, 255],
        }
    })
}

/// A sunset over hills: a sky that shades off, a sun, and two ranges of hills.
pub fn photo(width: u32, height: u32) -> Vec<u8> {
    png(width, height, |x, y| {
        let (x, y) = (x as f32 / width as f32, y as f32 / height as f32);
        let near = 0.78 + 0.08 * (x * 9.0).sin();
        let far = 0.62 + 0.05 * (x * 14.0 + 1.0).sin();
        let mix = |a: f32, b: f32, t: f32| (a + (b - a) * t) as u8;
        match () {
            () if y > near => [30, mix(60.0, 40.0, (y - near) * 4.0), 40, 255],
            () if y > far => [90, 70, mix(120.0, 90.0, (y - far) * 5.0), 255],
            () if (x - 0.7).hypot((y - 0.4) * 0.66) < 0.09 => [255, 236, 170, 255],
            () => [mix(60.0, 255.0, y * 1.5), mix(90.0, 150.0, y * 1.5), mix(170.0, 110.0, y * 1.5), 255],
        }
    })
}

/// No pixel is like its neighbours.
pub fn noise(width: u32, height: u32) -> Vec<u8> {
    png(width, height, |x, y| {
        let mixed = (x.wrapping_mul(0x9e37_79b9) ^ y.wrapping_mul(0x85eb_ca6b)).wrapping_mul(0xc2b2_ae35);
        let mixed = mixed ^ mixed >> 15;
        [mixed as u8, (mixed >> 8) as u8, (mixed >> 16) as u8, 255]
    })
}
