//! What a document must be before anything else touches it: well formed, and within bounds.
//!
//! The rasteriser is C++ and trusts its input: a composition that contains itself, a layer that is its own
//! grandparent or a repeater with a billion copies would end the process. None of them passes here.

use std::collections::{HashMap, HashSet};

use serde_json::Value;

use crate::{
    RenderError,
    lottie::{self, layer_type},
};

/// Largest document, in bytes.
pub(crate) const DOCUMENT_LIMIT_BYTES: u64 = 32 << 20;
/// Longest side of a canvas, in pixels.
pub(crate) const SIDE_LIMIT: f64 = 8192.0;
/// Most frames in a composition.
pub(crate) const FRAME_LIMIT: f64 = 100_000.0;
/// Highest frame rate.
const RATE_LIMIT: f64 = 240.0;
/// Deepest compositions within compositions.
const PRECOMP_LIMIT: usize = 24;
/// Deepest shape groups within groups, and layers parented to layers.
const NEST_LIMIT: usize = 40;
/// Most layers on the canvas at once, a composition's layers counted at each use.
const LAYER_LIMIT: u64 = 20_000;
/// Most copies of a repeater and points of a star.
const COUNT_LIMIT: f64 = 500.0;

/// Refuses a document that is broken or beyond the limits.
pub(crate) fn check(document: &Value) -> Result<(), RenderError> {
    check_canvas(document)?;
    check_lists(document)?;
    for layers in lottie::layer_lists(document) {
        check_parents(layers)?;
        layers.iter().try_for_each(check_layer)?;
    }
    let assets = lottie::list(document, "assets");
    let mut uses = Uses { assets: HashMap::new(), counted: HashMap::new() };
    for asset in assets {
        if uses.assets.insert(lottie::text(asset, "id"), asset).is_some() {
            return Err(bad(format!("two assets are called \"{}\"", lottie::text(asset, "id"))));
        }
    }
    uses.count(lottie::list(document, "layers"), 0).map(drop)
}

/// Refuses a canvas, a rate or a length that we do not draw.
pub(crate) fn check_canvas(document: &Value) -> Result<(), RenderError> {
    for key in ["w", "h", "fr", "ip", "op"] {
        if document.get(key).and_then(Value::as_f64).is_none() {
            return Err(bad(format!("\"{key}\" is not a number")));
        }
    }
    let number = |key| lottie::number_or(document, key, 0.0);
    if !(1.0..=SIDE_LIMIT).contains(&number("w")) || !(1.0..=SIDE_LIMIT).contains(&number("h")) {
        return Err(bad(format!("the canvas must be 1 to {SIDE_LIMIT} pixels wide and high")));
    }
    if !(1.0..=RATE_LIMIT).contains(&number("fr")) {
        return Err(bad(format!("the frame rate must be 1 to {RATE_LIMIT}")));
    }
    if !(1.0..=FRAME_LIMIT).contains(&(number("op") - number("ip"))) {
        return Err(bad(format!("a composition must have 1 to {FRAME_LIMIT} frames")));
    }
    Ok(())
}

fn check_lists(document: &Value) -> Result<(), RenderError> {
    let version = lottie::text(document, "v").split('.').next().and_then(|major| major.parse::<u32>().ok());
    if version.is_some_and(|major| major < 5) {
        return Err(bad("it was exported by Bodymovin 4; export it again with version 5.5 or newer".into()));
    }
    let lists = std::iter::once(document.get("layers"))
        .chain(lottie::list(document, "assets").iter().map(|asset| asset.get("layers").or(Some(&EMPTY))));
    for layers in lists {
        let objects = layers.and_then(Value::as_array).is_some_and(|l| l.iter().all(Value::is_object));
        if !objects && layers != Some(&EMPTY) {
            return Err(bad("\"layers\" is not a list of objects".into()));
        }
    }
    for (key, wanted) in [("assets", "list"), ("markers", "list")] {
        if document.get(key).is_some_and(|value| !value.is_array()) {
            return Err(bad(format!("\"{key}\" is not a {wanted}")));
        }
    }
    Ok(())
}

static EMPTY: Value = Value::Null;

fn check_layer(layer: &Value) -> Result<(), RenderError> {
    let name = || format!("layer \"{}\"", lottie::text(layer, "nm"));
    if layer.get("ty").and_then(Value::as_i64).is_none() {
        return Err(bad(format!("{} has no type", name())));
    }
    if lottie::number_or(layer, "sr", 1.0) <= 0.0 {
        return Err(bad(format!("{} runs backwards or not at all (\"sr\")", name())));
    }
    // The rasteriser keeps these in 16 bits, and casts the modes to enumerations unseen.
    for (key, range) in
        [("ind", -1..=32_767), ("parent", -1..=32_767), ("tp", -1..=32_767), ("bm", 0..=17), ("tt", 0..=4)]
    {
        let inside = |value: &Value| value.as_i64().is_some_and(|number| range.contains(&number));
        if layer.get(key).is_some_and(|value| !inside(value)) {
            return Err(bad(format!("{}: \"{key}\" is out of its range", name())));
        }
    }
    for key in ["shapes", "ef", "masksProperties"] {
        if layer.get(key).is_some_and(|value| !value.is_array()) {
            return Err(bad(format!("{}: \"{key}\" is not a list", name())));
        }
    }
    lottie::list(layer, "shapes").iter().try_for_each(|shape| check_shape(shape, 1))
}

fn check_shape(shape: &Value, depth: usize) -> Result<(), RenderError> {
    if depth > NEST_LIMIT {
        return Err(bad(format!("shape groups are nested deeper than {NEST_LIMIT}")));
    }
    let counted = match lottie::text(shape, "ty") {
        "rp" => shape.get("c"),
        "sr" => shape.get("pt"),
        _ => None,
    };
    if counted.is_some_and(|property| largest(property) > COUNT_LIMIT) {
        return Err(bad(format!("a repeater or star has more than {COUNT_LIMIT} parts")));
    }
    lottie::list(shape, "it").iter().try_for_each(|child| check_shape(child, depth + 1))
}

/// The largest number anywhere in a value.
fn largest(value: &Value) -> f64 {
    match value {
        Value::Number(number) => number.as_f64().map_or(0.0, f64::abs),
        Value::Array(items) => items.iter().map(largest).fold(0.0, f64::max),
        // A keyframe's time is no count.
        Value::Object(entries) => {
            entries.iter().filter(|(k, _)| *k != "t").map(|(_, v)| largest(v)).fold(0.0, f64::max)
        }
        _ => 0.0,
    }
}

fn check_parents(layers: &[Value]) -> Result<(), RenderError> {
    let parent_of: HashMap<i64, i64> =
        layers.iter().filter_map(|layer| Some((layer.get("ind")?.as_i64()?, layer.get("parent")?.as_i64()?))).collect();
    for start in parent_of.keys() {
        let mut at = start;
        let mut seen = HashSet::from([at]);
        while let Some(parent) = parent_of.get(at) {
            if !seen.insert(parent) || seen.len() > NEST_LIMIT {
                return Err(bad(format!("layer {start} has itself, or more than {NEST_LIMIT} others, for parents")));
            }
            at = parent;
        }
    }
    Ok(())
}

/// Counts how many layers the compositions unfold to.
struct Uses<'d> {
    assets: HashMap<&'d str, &'d Value>,
    counted: HashMap<&'d str, u64>,
}

impl<'d> Uses<'d> {
    fn count(&mut self, layers: &'d [Value], depth: usize) -> Result<u64, RenderError> {
        if depth > PRECOMP_LIMIT {
            return Err(bad(format!("a composition contains itself, or is nested deeper than {PRECOMP_LIMIT}")));
        }
        let mut sum = layers.len() as u64;
        for layer in layers.iter().filter(|layer| lottie::layer_type(layer) == layer_type::PRECOMP) {
            let reference = lottie::text(layer, "refId");
            let Some(asset) = self.assets.get(reference).copied() else {
                return Err(bad(format!(
                    "layer \"{}\" shows \"{reference}\", which is absent",
                    lottie::text(layer, "nm")
                )));
            };
            let inner = match self.counted.get(reference) {
                Some(count) => *count,
                None => self.count(lottie::list(asset, "layers"), depth + 1)?,
            };
            self.counted.insert(reference, inner);
            sum = sum.saturating_add(inner);
        }
        if sum > LAYER_LIMIT {
            return Err(bad(format!("the composition unfolds to more than {LAYER_LIMIT} layers")));
        }
        Ok(sum)
    }
}

pub(crate) fn bad(message: String) -> RenderError {
    RenderError::BadProject(format!("project: {message}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn document(layers: Value, assets: Value) -> Value {
        json!({"v": "5.9.6", "w": 100, "h": 100, "fr": 30, "ip": 0, "op": 10, "layers": layers, "assets": assets})
    }

    fn refused(document: &Value) -> String {
        check(document).expect_err("refused").to_string()
    }

    #[test]
    fn a_plain_document_passes() {
        assert!(check(&document(json!([{"ty": 4, "shapes": []}]), json!([]))).is_ok());
    }

    #[test]
    fn a_composition_that_contains_itself_is_refused() {
        let own = json!([{"ty": 0, "refId": "a"}]);
        assert!(refused(&document(own.clone(), json!([{"id": "a", "layers": own}]))).contains("contains itself"));
    }

    #[test]
    fn a_composition_that_unfolds_without_end_is_refused() {
        let tenfold = |id: &str| json!((0..10).map(|_| json!({"ty": 0, "refId": id})).collect::<Vec<_>>());
        let mut assets = vec![json!({"id": "0", "layers": []})];
        for n in 1..8 {
            assets.push(json!({"id": n.to_string(), "layers": tenfold(&(n - 1).to_string())}));
        }
        assert!(refused(&document(tenfold("7"), json!(assets))).contains("unfolds"));
    }

    #[test]
    fn a_layer_that_is_its_own_grandparent_is_refused() {
        let layers = json!([{"ty": 3, "ind": 1, "parent": 2}, {"ty": 3, "ind": 2, "parent": 1}]);
        assert!(refused(&document(layers, json!([]))).contains("parents"));
    }

    #[test]
    fn a_repeater_without_bound_is_refused() {
        let layers = json!([{"ty": 4, "shapes": [{"ty": "rp", "c": {"a": 0, "k": 1e9}}]}]);
        assert!(refused(&document(layers, json!([]))).contains("repeater"));
    }

    #[test]
    fn a_wrong_canvas_rate_or_length_is_refused() {
        for (key, value) in
            [("w", json!(9000)), ("fr", json!(0)), ("op", json!(1e6)), ("h", json!("x")), ("ip", json!(10))]
        {
            let mut document = document(json!([]), json!([]));
            document[key] = value;
            assert!(check(&document).is_err(), "{key}");
        }
    }
}
