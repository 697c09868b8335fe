//! Reading and writing single values of a Lottie document, without surprises.
//!
//! Indexing a mutable `serde_json::Value` writes a null where the key is missing, and the rasteriser refuses
//! documents with such nulls. Everything that changes a document therefore goes through these functions.

use serde_json::{Value, json};

/// A layer's type number, as Bodymovin writes it.
pub(crate) mod layer_type {
    pub(crate) const PRECOMP: i64 = 0;
    pub(crate) const SOLID: i64 = 1;
    pub(crate) const IMAGE: i64 = 2;
    pub(crate) const NULL: i64 = 3;
    pub(crate) const SHAPE: i64 = 4;
    pub(crate) const TEXT: i64 = 5;
}

/// The number under `key`, or `default` when there is none.
pub(crate) fn number_or(value: &Value, key: &str, default: f64) -> f64 {
    value.get(key).and_then(Value::as_f64).unwrap_or(default)
}

/// The text under `key`, or "".
pub(crate) fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value.get(key).and_then(Value::as_str).unwrap_or("")
}

/// The list under `key`, or an empty one.
pub(crate) fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value.get(key).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The list under `key`, to change it; none is made when there is none.
pub(crate) fn list_mut<'v>(value: &'v mut Value, key: &str) -> Option<&'v mut Vec<Value>> {
    value.get_mut(key).and_then(Value::as_array_mut)
}

/// Sets `key`; does nothing to a value that is not an object.
pub(crate) fn set(value: &mut Value, key: &str, new: Value) {
    if let Some(object) = value.as_object_mut() {
        object.insert(key.to_owned(), new);
    }
}

/// Takes `key` out, if it is there.
pub(crate) fn remove(value: &mut Value, key: &str) {
    if let Some(object) = value.as_object_mut() {
        object.shift_remove(key);
    }
}

/// The layer's type number; -1 when it has none.
pub(crate) fn layer_type(layer: &Value) -> i64 {
    layer.get("ty").and_then(Value::as_i64).unwrap_or(-1)
}

/// A property that does not change over time.
pub(crate) fn constant(value: Value) -> Value {
    json!({"a": 0, "k": value})
}

/// Every list of layers in the document: the main composition's, then each precomposition's.
pub(crate) fn layer_lists(document: &Value) -> impl Iterator<Item = &[Value]> {
    let precomps = list(document, "assets").iter().filter(|a| a.get("layers").is_some());
    std::iter::once(list(document, "layers")).chain(precomps.map(|a| list(a, "layers")))
}

/// Runs `change` on every layer of the document.
pub(crate) fn for_each_layer_mut<E>(
    document: &mut Value,
    mut change: impl FnMut(&mut Value) -> Result<(), E>,
) -> Result<(), E> {
    for layer in list_mut(document, "layers").into_iter().flatten() {
        change(layer)?;
    }
    for asset in list_mut(document, "assets").into_iter().flatten() {
        for layer in list_mut(asset, "layers").into_iter().flatten() {
            change(layer)?;
        }
    }
    Ok(())
}
