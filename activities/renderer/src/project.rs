//! An opened project: its document, its data, and the compositions it can show.

use std::{fmt, path::Path, sync::Arc};

use serde_json::Value;

use crate::{
    Fields, RenderError, bake,
    data::Data,
    fields::SCENE_PREFIX,
    limits, lottie,
    package::{Package, ReadError},
    raster::Pictures,
};

/// Largest data file, in bytes.
const DATA_LIMIT_BYTES: u64 = 8 << 20;

/// A template package, opened and checked together with its `data.json`.
#[derive(Debug)]
pub struct Project {
    package: Package,
    document: Value,
    data: Data,
    fields: Fields,
}

/// What to do about a picture that the package does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MissingImages {
    /// Stop with `render.missing_image`.
    #[default]
    Refuse,
    /// Draw nothing in its place, and warn.
    LeaveOut,
}

/// One composition, baked: everything that its frames depend on, and nothing else.
pub struct Composition {
    name: String,
    size: (u32, u32),
    frame_rate: f64,
    frames: u32,
    warnings: Vec<String>,
    document: Vec<u8>,
    pictures: Arc<Pictures>,
}

impl Project {
    /// Opens a package folder, a zip of one, or the path of a `project.json`.
    ///
    /// # Errors
    /// `render.project_not_found`, `render.bad_project`, `render.bad_data`, `render.unknown_field`.
    pub fn open(path: &Path) -> Result<Self, RenderError> {
        let package = Package::open(path)?;
        let document = read_document(&package)?;
        limits::check(&document)?;
        let fields = Fields::of(&document);
        let data = read_data(&package)?;
        fields.check(&data)?;
        check_size(&document, &data)?;
        Ok(Self { package, document, data, fields })
    }

    /// What a data file may name.
    pub fn fields(&self) -> &Fields {
        &self.fields
    }

    /// The main composition's name.
    pub fn main(&self) -> &str {
        bake::main_name(&self.document)
    }

    /// Every composition that can be rendered alone.
    pub fn compositions(&self) -> Vec<&str> {
        bake::names(&self.document)
    }

    /// The render queue: main, then the film's scenes in their order.
    pub fn queue(&self) -> Vec<String> {
        let scenes: Vec<&str> = match &self.data.scenes {
            Some(scenes) => scenes.iter().map(|scene| scene.id.as_str()).collect(),
            None => self.fields.scenes.iter().map(String::as_str).collect(),
        };
        let scenes = scenes.into_iter().map(|id| format!("{SCENE_PREFIX}{id}"));
        std::iter::once(self.main().to_owned()).chain(scenes).collect()
    }

    /// Binds the data into composition `name`.
    ///
    /// # Errors
    /// `render.comp_not_found`, and whatever is wrong with a text, a font or a picture that it shows.
    pub fn composition(&self, name: &str, missing: MissingImages) -> Result<Composition, RenderError> {
        let scale = match self.data.size {
            Some((width, _)) => f64::from(width) / lottie::number_or(&self.document, "w", 1.0),
            None => 1.0,
        };
        let order = bake::Order {
            package: &self.package,
            data: &self.data,
            composition: name,
            scale,
            allow_missing_images: missing == MissingImages::LeaveOut,
        };
        let baked = bake::bake(&self.document, &order)?;
        let number = |key| lottie::number_or(&baked.document, key, 0.0);
        let side = |key| (number(key) * scale).round().clamp(1.0, limits::SIDE_LIMIT) as u32;
        let size = match self.data.size {
            Some(size) if name == self.main() => size,
            _ => (side("w"), side("h")),
        };
        Ok(Composition {
            name: name.to_owned(),
            size,
            frame_rate: number("fr"),
            frames: (number("op") - number("ip")).round().max(1.0) as u32,
            warnings: baked.notes.into_list(),
            document: baked.document.to_string().into_bytes(),
            pictures: Arc::new(baked.pictures),
        })
    }
}

impl Composition {
    /// Its name in the project.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Width and height in pixels.
    pub fn size(&self) -> (u32, u32) {
        self.size
    }

    /// Frames a second.
    pub fn frame_rate(&self) -> f64 {
        self.frame_rate
    }

    /// How many frames it has; they are numbered from 0.
    pub fn frames(&self) -> u32 {
        self.frames
    }

    /// What a reader of the log should know: texts shrunk, features not drawn.
    pub fn warnings(&self) -> &[String] {
        &self.warnings
    }

    /// The same composition, drawn at another size (for previews and benchmarks).
    #[must_use]
    pub fn at_size(self, width: u32, height: u32) -> Self {
        let side = |side: u32| side.clamp(1, limits::SIDE_LIMIT as u32);
        Self { size: (side(width), side(height)), ..self }
    }

    pub(crate) fn document(&self) -> &[u8] {
        &self.document
    }

    pub(crate) fn pictures(&self) -> Arc<Pictures> {
        Arc::clone(&self.pictures)
    }
}

impl fmt::Debug for Composition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, size, frame_rate, frames, .. } = self;
        write!(f, "Composition({name}, {size:?}, {frames} frames at {frame_rate})")
    }
}

fn read_document(package: &Package) -> Result<Value, RenderError> {
    let name = package.document();
    let bytes = package
        .read(name, limits::DOCUMENT_LIMIT_BYTES)
        .map_err(|error| RenderError::BadProject(format!("{name}: {error}")))?;
    let document: Value = serde_json::from_slice(&bytes)
        .map_err(|error| RenderError::BadProject(format!("{name}: not JSON: {error}")))?;
    match document.is_object() {
        true => Ok(document),
        false => Err(RenderError::BadProject(format!("{name}: not a Lottie document"))),
    }
}

fn read_data(package: &Package) -> Result<Data, RenderError> {
    match package.read("data.json", DATA_LIMIT_BYTES) {
        Ok(bytes) => Data::parse(&bytes),
        Err(ReadError::Absent) => Ok(Data::default()),
        Err(error) => Err(RenderError::BadData(format!("data.json: {error}"))),
    }
}

/// The size scales the picture; it never distorts it by more than rounding to even pixels does.
fn check_size(document: &Value, data: &Data) -> Result<(), RenderError> {
    let Some((width, height)) = data.size else { return Ok(()) };
    let (own_width, own_height) = (lottie::number_or(document, "w", 1.0), lottie::number_or(document, "h", 1.0));
    let (width_f, height_f) = (f64::from(width), f64::from(height));
    let exact_width = height_f * own_width / own_height;
    if width_f.max(height_f) > limits::SIDE_LIMIT || (width_f - exact_width).abs() >= 2.0 {
        let message = format!("data.json: size: {width} x {height} has not the shape of {own_width} x {own_height}");
        return Err(RenderError::BadData(message));
    }
    Ok(())
}
