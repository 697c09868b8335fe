//! Makes one composition the whole document: main, or any other alone, at its own length.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::time::{Span, TimeMap};
use crate::{
    RenderError,
    fields::SCENE_PREFIX,
    limits,
    lottie::{self, layer_type},
};

/// The document that shows composition `name` and nothing else. `arranged` is `original` with the customer's
/// scenes; one that they left out can still be rendered alone, as the template has it.
pub(crate) fn root(arranged: &Value, original: &Value, name: &str) -> Result<Value, RenderError> {
    let mut document = match name == main_name(original) {
        true => arranged.clone(),
        false => alone(arranged, original, name)?,
    };
    drop_unused_assets(&mut document);
    limits::check_canvas(&document)?;
    Ok(document)
}

/// The main composition's name.
pub(crate) fn main_name(document: &Value) -> &str {
    match lottie::text(document, "nm") {
        "" => "main",
        name => name,
    }
}

/// Every composition's name: main, then the others as the document lists them.
pub(crate) fn names(document: &Value) -> Vec<&str> {
    let others = lottie::list(document, "assets").iter().filter(|asset| asset.get("layers").is_some());
    std::iter::once(main_name(document)).chain(others.map(asset_name)).collect()
}

fn asset_name(asset: &Value) -> &str {
    match (lottie::text(asset, "nm"), lottie::text(asset, "id")) {
        (name, id) if name.is_empty() || id.starts_with(SCENE_PREFIX) => id,
        (name, _) => name,
    }
}

fn alone(arranged: &Value, original: &Value, name: &str) -> Result<Value, RenderError> {
    let assets = lottie::list(original, "assets");
    let composition = assets.iter().find(|asset| asset.get("layers").is_some() && asset_name(asset) == name);
    let Some(id) = composition.map(|asset| lottie::text(asset, "id")) else {
        let hint = crate::fields::did_you_mean(name, names(original).into_iter());
        let message = format!("No comp was found with the given name. \"{name}\"{hint}");
        return Err(RenderError::CompositionNotFound(message));
    };
    let shows = |layer: &&Value| lottie::layer_type(layer) == layer_type::PRECOMP && lottie::text(layer, "refId") == id;
    let mut layers = lottie::layer_lists(arranged).chain(lottie::layer_lists(original)).flatten();
    let Some(layer) = layers.find(shows) else {
        return Err(RenderError::CompositionNotFound(format!("\"{name}\" is used nowhere, so its size is not known")));
    };
    Ok(framed(arranged, layer))
}

/// A document whose only layer is `layer`, from its first frame to its last, without the place and the
/// entrance that its parent gives it.
fn framed(document: &Value, layer: &Value) -> Value {
    let (first, last) = (lottie::number_or(layer, "ip", 0.0), lottie::number_or(layer, "op", 0.0));
    let length = (last - first).round();
    let mut root = json!({
        "ty": layer_type::PRECOMP, "ind": 1, "refId": layer.get("refId"), "w": layer.get("w"), "h": layer.get("h"),
        "ip": 0, "op": length, "st": lottie::number_or(layer, "st", 0.0) - first,
        "sr": lottie::number_or(layer, "sr", 1.0), "ks": {},
    });
    if let Some(remap) = layer.get("tm") {
        let mut remap = remap.clone();
        let to_zero = TimeMap::keeping_edges(Span { start: first, end: last }, Span { start: 0.0, end: last - first });
        to_zero.move_keys(&mut remap);
        lottie::set(&mut root, "tm", remap);
    }
    let mut document = document.clone();
    for (key, value) in [("w", root["w"].clone()), ("h", root["h"].clone()), ("ip", 0.into()), ("op", length.into())] {
        lottie::set(&mut document, key, value);
    }
    lottie::set(&mut document, "layers", json!([root]));
    document
}

/// What is not shown is not baked: a still of one scene needs no other scene's pictures.
fn drop_unused_assets(document: &mut Value) {
    let by_id: HashMap<&str, &Value> =
        lottie::list(document, "assets").iter().map(|asset| (lottie::text(asset, "id"), asset)).collect();
    let mut used = HashSet::new();
    let mut waiting: Vec<&Value> = lottie::list(document, "layers").iter().collect();
    while let Some(layer) = waiting.pop() {
        let id = lottie::text(layer, "refId");
        if let (Some(asset), true) = (by_id.get(id), used.insert(id.to_owned())) {
            waiting.extend(lottie::list(asset, "layers"));
        }
    }
    if let Some(assets) = lottie::list_mut(document, "assets") {
        assets.retain(|asset| used.contains(lottie::text(asset, "id")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn document() -> Value {
        json!({"nm": "main", "w": 100, "h": 50, "fr": 25, "ip": 0, "op": 100,
            "layers": [{"ty": 0, "refId": "x", "w": 100, "h": 50, "ip": 40, "op": 100, "st": 30}],
            "assets": [{"id": "x", "nm": "scene:one", "layers": [{"ty": 2, "refId": "p"}]},
                       {"id": "p", "p": "p.png"}, {"id": "unused", "p": "u.png"}]})
    }

    #[test]
    fn a_composition_alone_starts_where_main_shows_it() {
        let alone = root(&document(), &document(), "scene:one").unwrap();
        assert_eq!((alone["op"].as_f64(), alone["layers"][0]["st"].as_f64()), (Some(60.0), Some(-10.0)));
    }

    #[test]
    fn what_is_not_shown_is_dropped() {
        let main = root(&document(), &document(), "main").unwrap();
        let ids: Vec<&str> = lottie::list(&main, "assets").iter().map(|asset| lottie::text(asset, "id")).collect();
        assert_eq!(ids, ["x", "p"]);
    }

    #[test]
    fn an_unknown_composition_is_named_with_the_nearest_one() {
        let error = root(&document(), &document(), "scene:ones").expect_err("unknown");
        assert_eq!(error.code(), "render.comp_not_found");
        assert!(error.to_string().contains("did you mean \"scene:one\"?"), "{error}");
    }
}
