//! Pictures: found in the package, and each image layer given an asset with raw pixels of its slot's size.

use std::collections::{BTreeMap, HashMap};

use base64::Engine as _;
use image::DynamicImage;
use serde_json::{Value, json};

use super::{
    Notes,
    picture::{decode, fitted},
};
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
