//! What a document asks for that is not drawn. Said aloud: a Lottie file is never silently "the same".

use serde_json::Value;

use super::{Notes, schema};
use crate::lottie;

/// The type of controls for expressions; there is nothing to draw of them.
const CONTROLS: i64 = 5;

/// Adds a note for each layer feature that will be left out.
pub(crate) fn note(document: &Value, notes: &mut Notes) {
    for layer in lottie::layer_lists(document).flatten() {
        let name = lottie::text(layer, "nm");
        for effect in lottie::list(layer, "ef") {
            let kind = effect.get("ty").and_then(Value::as_i64).unwrap_or(-1);
            let drawn = kind == CONTROLS || schema::effect(kind).is_some();
            if !drawn && lottie::number_or(effect, "en", 1.0) != 0.0 {
                notes.add(format!("layer \"{name}\": the effect \"{}\" is not drawn", lottie::text(effect, "nm")));
            }
        }
        if !lottie::list(layer, "sy").is_empty() {
            notes.add(format!("layer \"{name}\": layer styles are not drawn"));
        }
        if lottie::number_or(layer, "ddd", 0.0) != 0.0 {
            notes.add(format!("layer \"{name}\": is drawn flat, not in 3D"));
        }
        if lottie::list(layer, "shapes").iter().any(has_unknown_shape) {
            notes.add(format!("layer \"{name}\": merged or twisted paths are not drawn"));
        }
        if has_expression(layer) {
            notes.add(format!("layer \"{name}\": expressions are not evaluated"));
        }
    }
}

fn has_unknown_shape(shape: &Value) -> bool {
    schema::shape(lottie::text(shape, "ty")).is_none() || lottie::list(shape, "it").iter().any(has_unknown_shape)
}

/// An expression is a text under `x` beside a property's value under `k`.
fn has_expression(value: &Value) -> bool {
    match value {
        Value::Array(items) => items.iter().any(has_expression),
        Value::Object(entries) => {
            let own = entries.contains_key("k") && entries.get("x").is_some_and(Value::is_string);
            own || entries.values().any(has_expression)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_left_out_is_said_once() {
        let layer = json!({"ty": 4, "nm": "a", "ef": [{"ty": 34, "nm": "Puppet"}, {"ty": 25}], "sy": [{}], "ddd": 1,
            "shapes": [{"ty": "gr", "it": [{"ty": "mm"}]}],
            "ks": {"o": {"a": 0, "k": 1, "x": "var $bm_rt;"}}});
        let mut notes = Notes::default();
        note(&json!({"layers": [layer.clone(), layer]}), &mut notes);
        assert_eq!(notes.into_list().len(), 5);
    }
}
