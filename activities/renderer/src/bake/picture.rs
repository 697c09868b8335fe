//! One picture: bytes to an upright image, and an image to the pixels of its slot.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbaImage, imageops};

use crate::{data::Fit, raster::Picture};

/// Largest picture, in pixels; at four bytes each, what one picture may take while it is decoded.
const PIXEL_LIMIT: u64 = 64_000_000;

/// Decodes by what the bytes are, whatever the file's name says.
pub(super) fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    match reader.format() {
        Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::WebP) => {}
        _ => return Err("not a PNG, JPEG or WebP picture".into()),
    }
    let mut limits = Limits::default();
    limits.max_image_width = Some(32_768);
    limits.max_image_height = Some(32_768);
    limits.max_alloc = Some(PIXEL_LIMIT * 8);
    reader.limits(limits);
    let mut decoder = reader.into_decoder().map_err(|error| error.to_string())?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > PIXEL_LIMIT {
        return Err(format!("{width} x {height} is more than {} million pixels", PIXEL_LIMIT / 1_000_000));
    }
    let orientation = decoder.orientation().map_err(|error| error.to_string())?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(|error| error.to_string())?;
    image.apply_orientation(orientation);
    Ok(image)
}

/// The picture in a slot of `width` x `height` pixels.
pub(super) fn fitted(image: &DynamicImage, width: u32, height: u32, fit: Fit) -> Picture {
    let (from_width, from_height) = (f64::from(image.width()), f64::from(image.height()));
    let (across, down) = (f64::from(width) / from_width, f64::from(height) / from_height);
    let scale = match fit {
        Fit::Cover => across.max(down),
        Fit::Contain => across.min(down),
    };
    // Cutting first keeps a long thin picture from becoming a huge one before it is cut.
    let (cut_width, cut_height) =
        ((f64::from(width) / scale).min(from_width), (f64::from(height) / scale).min(from_height));
    let side = |length: f64| length.round().max(1.0) as u32;
    let (x, y) = (side((from_width - cut_width) / 2.0 + 1.0) - 1, side((from_height - cut_height) / 2.0 + 1.0) - 1);
    let cut = image.crop_imm(x, y, side(cut_width), side(cut_height)).to_rgba8();
    let (new_width, new_height) = (side(cut_width * scale).min(width), side(cut_height * scale).min(height));
    let resized = match (new_width, new_height) == cut.dimensions() {
        true => cut,
        false => premultiplied_resize(&cut, new_width, new_height),
    };
    let mut slot = RgbaImage::new(width, height);
    imageops::replace(&mut slot, &resized, i64::from(width - new_width) / 2, i64::from(height - new_height) / 2);
    Picture { width, height, pixels: slot.pixels().map(|pixel| premultiplied(pixel.0)).collect() }
}

/// Resizes with colours weighed by their opacity; otherwise the hidden colour of clear pixels bleeds into edges.
fn premultiplied_resize(image: &RgbaImage, width: u32, height: u32) -> RgbaImage {
    let opaque = image.pixels().all(|pixel| pixel.0[3] == 255);
    if opaque {
        return imageops::resize(image, width, height, imageops::FilterType::CatmullRom);
    }
    let mut weighed = image.clone();
    weighed.pixels_mut().for_each(|pixel| pixel.0 = premultiplied(pixel.0).to_le_bytes());
    let mut resized = imageops::resize(&weighed, width, height, imageops::FilterType::CatmullRom);
    for pixel in resized.pixels_mut() {
        let [r, g, b, a] = pixel.0;
        let straight = |channel: u8| (u32::from(channel) * 255 / u32::from(a).max(1)).min(255) as u8;
        pixel.0 = [straight(r), straight(g), straight(b), a];
    }
    resized
}

/// A pixel as the rasteriser takes it: colours multiplied by opacity; red in the lowest byte.
fn premultiplied([r, g, b, a]: [u8; 4]) -> u32 {
    let weigh = |channel: u8| ((u32::from(channel) * u32::from(a) + 127) / 255) as u8;
    u32::from_le_bytes([weigh(r), weigh(g), weigh(b), a])
}

#[cfg(test)]
mod tests {
    use image::Rgba;

    use super::*;

    /// Left half red, right half blue.
    fn two_colours(width: u32, height: u32) -> DynamicImage {
        let red = |x: u32| if x < width / 2 { Rgba([255, 0, 0, 255]) } else { Rgba([0, 0, 255, 255]) };
        DynamicImage::ImageRgba8(RgbaImage::from_fn(width, height, |x, _| red(x)))
    }

    fn pixel(picture: &Picture, x: u32, y: u32) -> [u8; 4] {
        picture.pixels[(y * picture.width + x) as usize].to_le_bytes()
    }

    #[test]
    fn cover_fills_the_slot_and_contain_leaves_clear_margins() {
        let cover = fitted(&two_colours(40, 20), 20, 20, Fit::Cover);
        assert_eq!((pixel(&cover, 0, 0), pixel(&cover, 19, 19)), ([255, 0, 0, 255], [0, 0, 255, 255]));
        let contain = fitted(&two_colours(40, 20), 20, 20, Fit::Contain);
        assert_eq!((pixel(&contain, 0, 0), pixel(&contain, 0, 10)), ([0; 4], [255, 0, 0, 255]));
    }

    #[test]
    fn a_thin_picture_fits_any_slot() {
        for fit in [Fit::Cover, Fit::Contain] {
            let picture = fitted(&two_colours(3000, 1), 20, 200, fit);
            assert_eq!(picture.pixels.len(), 4000);
        }
    }

    #[test]
    fn a_picture_is_known_by_its_bytes() {
        assert!(decode(b"<svg/>").unwrap_err().contains("not a PNG"));
        assert!(decode(b"\x89PNG\r\n\x1a\nbroken").is_err());
        let mut png = Cursor::new(vec![]);
        two_colours(4, 4).write_to(&mut png, ImageFormat::Png).unwrap();
        assert_eq!(decode(png.get_ref()).unwrap().width(), 4);
    }

    #[test]
    fn a_picture_that_would_fill_the_memory_is_refused() {
        // The header of a PNG of 30000 x 30000 pixels; nothing more is needed to refuse it.
        let mut header = b"\x89PNG\r\n\x1a\n\0\0\0\x0dIHDR".to_vec();
        header.extend([0, 0, 0x75, 0x30, 0, 0, 0x75, 0x30, 8, 6, 0, 0, 0]);
        let mut crc = crc32(&header[12..]).to_be_bytes().to_vec();
        header.append(&mut crc);
        header.extend(b"\0\0\0\0IDAT\x35\xaf\x06\x1e");
        assert!(decode(&header).unwrap_err().contains("million pixels"));
    }

    fn crc32(bytes: &[u8]) -> u32 {
        !bytes.iter().fold(!0_u32, |crc, byte| {
            (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
        })
    }
}
