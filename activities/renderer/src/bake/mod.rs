//! The bake: a template's document and one customer's data become a plain document that any engine draws alike.
//!
//! Scenes in their order, one composition as the root, switches, colours, pictures, texts: in this order, each
//! in a file of its own. What comes out has no text, no font, no field and no file name in it.

mod colors;
mod keyframes;
mod picture;
mod pictures;
mod root;
mod scenes;
mod schema;
mod strict;
mod time;
mod unsupported;
mod visibility;

use std::borrow::Cow;

use serde_json::Value;

use crate::{
    RenderError,
    data::Data,
    limits,
    package::Package,
    raster::Pictures,
    text::{self, Fonts, TextSource},
};

pub(crate) use root::{main_name, names};
pub(crate) use scenes::linear_key;

/// A document ready for the rasteriser.
pub(crate) struct Baked {
    pub(crate) document: Value,
    pub(crate) pictures: Pictures,
    pub(crate) notes: Notes,
}

/// What a reader of the log should know though the render goes on; each said once.
#[derive(Debug, Default)]
pub(crate) struct Notes(Vec<String>);

impl Notes {
    pub(crate) fn add(&mut self, note: String) {
        if !self.0.contains(&note) {
            self.0.push(note);
        }
    }

    pub(crate) fn into_list(self) -> Vec<String> {
        self.0
    }
}

/// What to bake, apart from the document.
pub(crate) struct Order<'a> {
    pub(crate) package: &'a Package,
    pub(crate) data: &'a Data,
    pub(crate) composition: &'a str,
    /// Pixels of the output for one pixel of the template.
    pub(crate) scale: f64,
    /// See [`crate::MissingImages`].
    pub(crate) allow_missing_images: bool,
}

pub(crate) fn bake(document: &Value, order: &Order<'_>) -> Result<Baked, RenderError> {
    let data = order.data;
    let mut notes = Notes::default();
    let arranged = match &data.scenes {
        Some(scenes) => {
            let mut arranged = document.clone();
            scenes::arrange(&mut arranged, scenes)?;
            Cow::Owned(arranged)
        }
        None => Cow::Borrowed(document),
    };
    let mut root = root::root(&arranged, document, order.composition)?;
    visibility::bake(&mut root, &data.visibility);
    unsupported::note(&root, &mut notes);
    colors::bake(&mut root, &data.colors);
    let source = pictures::PictureSource {
        package: order.package,
        images: &data.images,
        scale: order.scale,
        allow_missing: order.allow_missing_images,
    };
    let pictures = pictures::bake(&mut root, &source, &mut notes)?;
    let mut fonts = Fonts::open(order.package)?;
    let mut source = TextSource { texts: &data.texts, colors: &data.colors, fonts: &mut fonts };
    text::bake(&mut root, &mut source, &mut notes)?;
    let document = strict::document(&root)?;
    limits::check(&document)?;
    Ok(Baked { document, pictures, notes })
}
