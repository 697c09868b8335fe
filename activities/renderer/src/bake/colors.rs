//! Colours by token: `color:TOKEN` on a fill, a stroke, a gradient or a solid, and Lottie's own slots.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use crate::{
    color::Color,
    lottie::{self, constant, layer_type},
    names::{Name, Role},
};

/// Writes the customer's colours, and what the document's slots hold, into their places.
pub(crate) fn bake(document: &mut Value, colors: &BTreeMap<String, Color>) {
    let slots = document.get("slots").and_then(Value::as_object).cloned().unwrap_or_default();
    lottie::remove(document, "slots");
    Palette { colors, slots }.paint(document);
}

struct Palette<'a> {
    colors: &'a BTreeMap<String, Color>,
    slots: Map<String, Value>,
}

impl Palette<'_> {
    fn paint(&self, value: &mut Value) {
        match value {
            Value::Array(items) => items.iter_mut().for_each(|item| self.paint(item)),
            Value::Object(entries) => {
                self.fill_slot(entries);
                self.paint_named(entries);
                entries.values_mut().for_each(|entry| self.paint(entry));
            }
            _ => {}
        }
    }

    fn fill_slot(&self, property: &mut Map<String, Value>) {
        let Some(Value::String(id)) = property.shift_remove("sid") else { return };
        if let Some(color) = self.colors.get(&id) {
            property.insert("a".into(), 0.into());
            property.insert("k".into(), rgba(*color));
        } else if let Some(default) = self.slots.get(&id).and_then(|slot| slot.get("p")).and_then(Value::as_object) {
            property.extend(default.clone());
        }
    }

    fn paint_named(&self, entry: &mut Map<String, Value>) {
        let Role::Colors(tokens) = Name::parse(entry.get("nm").and_then(Value::as_str).unwrap_or("")).role else {
            return;
        };
        let tokens: Vec<Option<Color>> = tokens.into_iter().map(|token| self.colors.get(token).copied()).collect();
        let kind = entry.get("ty").cloned().unwrap_or_default();
        match (kind.as_str(), kind.as_i64(), tokens.first().copied().flatten()) {
            (Some("fl" | "st"), _, Some(color)) => drop(entry.insert("c".into(), constant(rgba(color)))),
            (_, Some(layer_type::SOLID), Some(color)) => drop(entry.insert("sc".into(), color.hex().into())),
            (Some("gf" | "gs"), ..) => {
                if let Some(stops) = entry.get_mut("g").and_then(|g| g.get_mut("k")).and_then(|g| g.get_mut("k")) {
                    paint_stops(stops, &tokens);
                }
            }
            _ => {}
        }
    }
}

/// A gradient's numbers are (offset, red, green, blue) for each stop, then the stops of its opacity; an
/// animated gradient has such a list in each keyframe.
fn paint_stops(stops: &mut Value, tokens: &[Option<Color>]) {
    let Some(numbers) = stops.as_array_mut() else { return };
    if numbers.first().is_some_and(Value::is_object) {
        for key in numbers {
            for end in ["s", "e"] {
                key.get_mut(end).into_iter().for_each(|stops| paint_stops(stops, tokens));
            }
        }
        return;
    }
    for (stop, color) in numbers.chunks_exact_mut(4).zip(tokens) {
        for (number, channel) in stop[1..].iter_mut().zip(color.map(Color::unit).into_iter().flatten()) {
            *number = channel.into();
        }
    }
}

fn rgba(color: Color) -> Value {
    let [r, g, b] = color.unit();
    json!([r, g, b, 1])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn painted(value: Value, colors: &[(&str, &str)]) -> Value {
        let colors = colors.iter().map(|(token, hex)| ((*token).into(), Color::parse(hex).unwrap())).collect();
        let mut document = value;
        bake(&mut document, &colors);
        document
    }

    #[test]
    fn a_fill_a_solid_and_a_slot_take_their_tokens() {
        let document = json!({"layers": [
            {"ty": 1, "nm": "color:back?badge", "sc": "#ffffff"},
            {"ty": 4, "shapes": [{"ty": "fl", "nm": "color:ink", "c": {"a": 0, "k": [0, 0, 0, 1]}},
                                 {"ty": "st", "c": {"sid": "ink"}}, {"ty": "st", "c": {"sid": "line"}}]}],
            "slots": {"line": {"p": {"a": 0, "k": [0, 1, 0]}}}});
        let painted = painted(document, &[("back", "#ff0000"), ("ink", "#0000ff")]);
        let shapes = &painted["layers"][1]["shapes"];
        assert_eq!(painted["layers"][0]["sc"], "#ff0000");
        assert_eq!(shapes[0]["c"]["k"], json!([0.0, 0.0, 1.0, 1]));
        assert_eq!(shapes[1]["c"]["k"], json!([0.0, 0.0, 1.0, 1]));
        assert_eq!(shapes[2]["c"]["k"], json!([0, 1, 0]), "a slot without data keeps its default");
    }

    #[test]
    fn a_gradient_takes_a_token_for_each_stop_and_keeps_its_opacity() {
        let stops = json!([0, 1, 1, 1, 1, 0, 0, 0, 0.5, 0.25]);
        let document = json!({"ty": "gf", "nm": "color:a,b", "g": {"p": 2, "k": {"a": 0, "k": stops}}});
        let painted = painted(document, &[("b", "#00ff00")]);
        assert_eq!(painted["g"]["k"]["k"], json!([0, 1, 1, 1, 1, 0.0, 1.0, 0.0, 0.5, 0.25]));
    }
}
