//! Layers that a switch hides, and layers that only another engine could draw.

use std::{collections::BTreeMap, convert::Infallible};

use serde_json::Value;

use crate::{
    lottie::{self, layer_type},
    names::Name,
};

/// Turns hidden layers, and sounds and cameras, into empty ones; others may still be parented to them.
pub(crate) fn bake(document: &mut Value, visibility: &BTreeMap<String, bool>) {
    let shown = |layer: &Value| {
        let switch = Name::parse(lottie::text(layer, "nm")).visibility;
        switch.is_none_or(|key| visibility.get(key).copied().unwrap_or(true))
    };
    let Ok(()) = lottie::for_each_layer_mut(document, |layer| {
        let drawn = (layer_type::PRECOMP..=layer_type::TEXT).contains(&lottie::layer_type(layer));
        if !drawn || !shown(layer) || layer.get("hd") == Some(&Value::Bool(true)) {
            empty(layer);
        }
        Ok::<(), Infallible>(())
    });
}

fn empty(layer: &mut Value) {
    lottie::set(layer, "ty", layer_type::NULL.into());
    lottie::set(layer, "hd", true.into());
    for key in ["refId", "t", "shapes", "ef", "masksProperties", "hasMask"] {
        lottie::remove(layer, key);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_layer_is_shown_unless_its_switch_is_off() {
        let mut document = json!({"layers": [
            {"ty": 5, "nm": "txt:a?badge"}, {"ty": 5, "nm": "txt:b?other"}, {"ty": 5, "nm": "txt:c"}, {"ty": 6}]});
        bake(&mut document, &BTreeMap::from([("badge".into(), false)]));
        let types: Vec<i64> = lottie::list(&document, "layers").iter().map(lottie::layer_type).collect();
        assert_eq!(types, [layer_type::NULL, layer_type::TEXT, layer_type::TEXT, layer_type::NULL]);
    }
}
