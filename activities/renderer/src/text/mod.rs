//! Texts: every text layer becomes a shape layer with the outlines of its words.
//!
//! The rasteriser's own text is never used: it does not join letters, and it knows no fonts of a package.

mod animator;
mod fit;
mod fonts;
mod layer;
mod outline;
mod script;
mod selector;
mod shape;

use std::collections::{BTreeMap, HashMap};

use serde_json::Value;

pub(crate) use fonts::Fonts;

use crate::{
    RenderError,
    bake::Notes,
    color::Color,
    lottie::{self, layer_type},
};

/// What texts are made from.
pub(crate) struct TextSource<'a> {
    pub(crate) texts: &'a BTreeMap<String, String>,
    pub(crate) colors: &'a BTreeMap<String, Color>,
    pub(crate) fonts: &'a mut Fonts,
}

/// Turns every text layer into shapes, and takes the document's fonts out.
pub(crate) fn bake(document: &mut Value, source: &mut TextSource<'_>, notes: &mut Notes) -> Result<(), RenderError> {
    let fonts_list =
        Value::Object([("fonts".into(), document.get("fonts").cloned().unwrap_or_default())].into_iter().collect());
    let widths = composition_widths(document);
    let main_width = lottie::number_or(document, "w", 0.0);
    let mut baker = layer::TextBaker { fonts_list, source, notes };
    for layer in lottie::list_mut(document, "layers").into_iter().flatten() {
        bake_layer(&mut baker, layer, main_width)?;
    }
    for asset in lottie::list_mut(document, "assets").into_iter().flatten() {
        let width = widths.get(lottie::text(asset, "id")).copied().unwrap_or(main_width);
        for layer in lottie::list_mut(asset, "layers").into_iter().flatten() {
            bake_layer(&mut baker, layer, width)?;
        }
    }
    lottie::remove(document, "fonts");
    lottie::remove(document, "chars");
    Ok(())
}

fn bake_layer(baker: &mut layer::TextBaker<'_, '_>, layer: &mut Value, width: f64) -> Result<(), RenderError> {
    match lottie::layer_type(layer) {
        layer_type::TEXT => baker.bake(layer, width),
        _ => Ok(()),
    }
}

/// Each composition's width, which only the layers that show it know.
fn composition_widths(document: &Value) -> HashMap<String, f64> {
    lottie::layer_lists(document)
        .flatten()
        .filter(|layer| lottie::layer_type(layer) == layer_type::PRECOMP)
        .filter_map(|layer| Some((lottie::text(layer, "refId").to_owned(), layer.get("w")?.as_f64()?)))
        .collect()
}
