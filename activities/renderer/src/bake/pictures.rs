//! Pictures: found in the package, decoded, turned upright and fitted to their slots as raw pixels.

use std::{
    collections::{BTreeMap, HashMap},
    io::Cursor,
};

use base64::Engine as _;
use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbaImage, imageops};
use serde_json::{Value, json};

use super::Notes;
use crate::{
    RenderError,
    data::{Fit, ImageData},
    limits::SIDE_LIMIT,
    lottie::{self, layer_type},
    names::{Name, Role},
    package::{Package, ReadError},
    raster::{Picture, Pictures},
};

/// Largest picture file, in bytes.
const FILE_LIMIT_BYTES: u64 = 64 << 20;
/// Largest picture, in pixels; at four bytes each, what one picture may take while it is decoded.
const PIXEL_LIMIT: u64 = 64_000_000;
/// All fitted pictures of one render together, in pixels.
const TOTAL_LIMIT_PIXELS: u64 = 160_000_000;

/// Where pictures come from and how finely they are kept.
pub(crate) struct PictureSource<'a> {
    pub(crate) package: &'a Package,
    pub(crate) images: &'a BTreeMap<String, ImageData>,
    /// Pixels of the output for one pixel of the template, so that an enlarged film keeps a photo's detail.
    pub(crate) scale: f64,
    /// Draw nothing for an absent picture, with a warning, where it would be an error.
    pub(crate) allow_missing: bool,
}

/// Gives every image layer an asset whose pixels are in the answer.
pub(crate) fn bake(
    document: &mut Value,
    source: &PictureSource<'_>,
    notes: &mut Notes,
) -> Result<Pictures, RenderError> {
    let assets = lottie::list(document, "assets").iter();
    let slots: HashMap<String, Value> =
        assets.filter(|a| a.get("p").is_some()).map(|a| (lottie::text(a, "id").to_owned(), a.clone())).collect();
    let mut shelf = Shelf { source, notes, decoded: HashMap::new(), fitted: BTreeMap::new(), total_pixels: 0 };
    lottie::for_each_layer_mut(document, |layer| match lottie::layer_type(layer) {
        layer_type::IMAGE => shelf.place(layer, &slots),
        _ => Ok(()),
    })?;
    let fitted = shelf.fitted;
    if let Some(assets) = lottie::list_mut(document, "assets") {
        assets.retain(|asset| asset.get("layers").is_some());
        assets.extend(fitted.iter().map(|(name, fitted)| fitted.asset(name)));
    }
    Ok(fitted.into_iter().map(|(name, fitted)| (name, fitted.picture)).collect())
}

/// The pictures prepared so far.
struct Shelf<'a> {
    source: &'a PictureSource<'a>,
    notes: &'a mut Notes,
    decoded: HashMap<String, DynamicImage>,
    fitted: BTreeMap<String, Fitted>,
    total_pixels: u64,
}

struct Fitted {
    /// The slot's size, in pixels of the template.
    slot: (f64, f64),
    picture: Picture,
}

impl Fitted {
    fn asset(&self, name: &str) -> Value {
        json!({"id": name, "p": name, "u": "", "e": 0, "w": self.slot.0, "h": self.slot.1})
    }
}

impl Shelf<'_> {
    fn place(&mut self, layer: &mut Value, slots: &HashMap<String, Value>) -> Result<(), RenderError> {
        let name = lottie::text(layer, "nm").to_owned();
        let field = match Name::parse(&name).role {
            Role::Image { key } => Some(key),
            _ => None,
        };
        let Some(slot) = slots.get(lottie::text(layer, "refId")) else {
            let message =
                format!("{}: the project has no picture \"{}\"", label(field, &name), lottie::text(layer, "refId"));
            return Err(RenderError::MissingImage(message));
        };
        let given = field.and_then(|key| self.source.images.get(key));
        let (file, fit) = match given {
            Some(data) => (data.file.clone(), data.fit),
            None => (own_file(slot), Fit::Contain),
        };
        let id = self.fit(&file, fit, slot, &label(field, &name))?;
        lottie::set(layer, "refId", id.into());
        Ok(())
    }

    /// The id of the asset that shows `file` in `slot`.
    fn fit(&mut self, file: &str, fit: Fit, slot: &Value, label: &str) -> Result<String, RenderError> {
        let size = (lottie::number_or(slot, "w", 0.0), lottie::number_or(slot, "h", 0.0));
        if ![size.0, size.1].iter().all(|side| (1.0..=SIDE_LIMIT).contains(side)) {
            return Err(crate::limits::bad(format!(
                "{label}: its slot must be 1 to {SIDE_LIMIT} pixels wide and high"
            )));
        }
        let slot_id = lottie::text(slot, "id");
        let short = if file.starts_with("data:") { slot_id } else { file };
        let id = format!("picture:{fit:?}:{}x{}:{short}", size.0, size.1);
        if !self.fitted.contains_key(&id) {
            let pixels = |side: f64| (side * self.source.scale).round().clamp(1.0, SIDE_LIMIT) as u32;
            let (width, height) = (pixels(size.0), pixels(size.1));
            self.total_pixels += u64::from(width) * u64::from(height);
            if self.total_pixels > TOTAL_LIMIT_PIXELS {
                return Err(crate::limits::bad("its pictures together are too large".into()));
            }
            let picture = match self.decoded(file, label)? {
                Some(image) => fitted(image, width, height, fit),
                None => Picture { width: 1, height: 1, pixels: vec![0] },
            };
            self.fitted.insert(id.clone(), Fitted { slot: size, picture });
        }
        Ok(id)
    }

    /// The upright picture; nothing when it is absent and may be.
    fn decoded(&mut self, file: &str, label: &str) -> Result<Option<&DynamicImage>, RenderError> {
        if !self.decoded.contains_key(file) {
            let bytes = match read(self.source.package, file) {
                Ok(bytes) => bytes,
                Err(ReadError::Absent) if self.source.allow_missing => {
                    self.notes.add(format!("{label}: {file} is missing and is left out"));
                    return Ok(None);
                }
                Err(error) => return Err(unreadable(error, file, label)),
            };
            let image = decode(&bytes)
                .map_err(|reason| RenderError::UnsupportedImage(format!("{label}: {}: {reason}", shown(file))))?;
            self.decoded.insert(file.to_owned(), image);
        }
        Ok(self.decoded.get(file))
    }
}

fn label(field: Option<&str>, layer: &str) -> String {
    field.map_or_else(|| format!("layer \"{layer}\""), |key| format!("images.{key}"))
}

fn own_file(asset: &Value) -> String {
    match lottie::text(asset, "p") {
        inline if inline.starts_with("data:") => inline.to_owned(),
        name => format!("{}{name}", lottie::text(asset, "u")),
    }
}

fn read(package: &Package, file: &str) -> Result<Vec<u8>, ReadError> {
    let Some(inline) = file.strip_prefix("data:") else { return package.read(file, FILE_LIMIT_BYTES) };
    let base64 = inline.split_once(";base64,").map(|(_, rest)| rest).ok_or(ReadError::Absent)?;
    let decoded = base64::engine::general_purpose::STANDARD.decode(base64.trim());
    decoded.map_err(|error| ReadError::Io(std::io::Error::other(error)))
}

fn unreadable(error: ReadError, file: &str, label: &str) -> RenderError {
    let message = format!("{label}: {}: {error}", shown(file));
    match error {
        ReadError::Absent => RenderError::MissingImage(message),
        ReadError::Unsafe => RenderError::UnsafePath(message),
        ReadError::TooLarge(_) | ReadError::Io(_) => RenderError::UnsupportedImage(message),
    }
}

/// An inline picture's text is no name to show.
fn shown(file: &str) -> &str {
    if file.starts_with("data:") { "(inline)" } else { file }
}

/// Decodes by what the bytes are, whatever the file's name says.
fn decode(bytes: &[u8]) -> Result<DynamicImage, String> {
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

fn fitted(image: &DynamicImage, width: u32, height: u32, fit: Fit) -> Picture {
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
