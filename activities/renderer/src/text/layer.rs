//! One text layer: which words, which font, how much room, and the shapes that come of it.

use serde_json::{Value, json};

use super::{
    TextSource,
    animator::{Animators, Place},
    fit::{self, Fitted, Room},
    shape::{Justify, MissingGlyph, Split, TextStyle},
};
use crate::{
    RenderError,
    bake::Notes,
    lottie::{self, constant, layer_type},
    names::{Name, Role},
};

/// A point text keeps this share of its composition's width clear at either side.
const MARGIN: f64 = 0.03;
/// Less room than this share of the width means that the layer's place says nothing about its room.
const LEAST_ROOM: f64 = 0.2;

/// Turns text layers into shape layers.
pub(super) struct TextBaker<'a, 's> {
    /// An object with the document's `fonts`.
    pub(super) fonts_list: Value,
    pub(super) source: &'a mut TextSource<'s>,
    pub(super) notes: &'a mut Notes,
}

/// A text as the document has it.
struct Text {
    /// `texts.KEY`, or the layer's name.
    label: String,
    words: String,
    /// The designer's words, when the customer gave others.
    replaced: Option<String>,
    style: TextStyle,
    /// The upper left corner of the box.
    corner: [f64; 2],
    room: Room,
    fill: Option<[f64; 3]>,
    stroke: Option<Value>,
    stroke_above: bool,
    baseline_shift: f64,
}

impl TextBaker<'_, '_> {
    /// Bakes a layer of a composition that is `width` pixels wide.
    pub(super) fn bake(&mut self, layer: &mut Value, width: f64) -> Result<(), RenderError> {
        let text = self.read(layer, width)?;
        let animators = Animators::of(layer);
        for what in animators.unsupported() {
            self.notes.add(format!("{}: {what} is not drawn", text.label));
        }
        let fitted = self.fit(&text, animators.split())?;
        let shapes = shapes(layer, &text, &fitted, &animators);
        lottie::set(layer, "ty", layer_type::SHAPE.into());
        lottie::set(layer, "shapes", shapes.into());
        lottie::remove(layer, "t");
        Ok(())
    }

    fn read(&mut self, layer: &Value, width: f64) -> Result<Text, RenderError> {
        let name = lottie::text(layer, "nm");
        let (key, token) = match Name::parse(name).role {
            Role::Text { key, token } => (Some(key), token),
            _ => (None, None),
        };
        let label = key.map_or_else(|| format!("layer \"{name}\""), |key| format!("texts.{key}"));
        let wordings = layer.get("t").and_then(|text| text.get("d")).map_or(&[][..], |d| lottie::list(d, "k"));
        let document = wordings.first().and_then(|key| key.get("s"));
        let Some(document) = document.filter(|document| document.is_object()) else {
            return Err(crate::limits::bad(format!("{label}: the text layer has no text")));
        };
        if wordings.len() > 1 {
            self.notes.add(format!("{label}: only the first of its {} wordings is drawn", wordings.len()));
        }
        let own = lottie::text(document, "t");
        let given = key.and_then(|key| self.source.texts.get(key));
        let style = self.style(document, &label)?;
        let capitals = lottie::number_or(document, "ca", 0.0) == 1.0;
        let words = |words: &str| if capitals { words.to_uppercase() } else { words.to_owned() };
        let fill = token.and_then(|token| self.source.colors.get(token)).map(|color| color.unit());
        let stroke_width = lottie::number_or(document, "sw", 0.0);
        let stroke = triple(document, "sc").filter(|_| stroke_width > 0.0).map(|color| {
            json!({"ty": "st", "c": constant(json!(color)), "o": constant(100.into()), "w": constant(stroke_width.into()),
                "lc": 2, "lj": 2})
        });
        Ok(Text {
            words: words(given.map_or(own, String::as_str)),
            replaced: given.map(|_| words(own)),
            room: room(layer, document, style.justify, width),
            corner: pair(document, "ps").unwrap_or_default(),
            fill: fill.or_else(|| triple(document, "fc")),
            stroke,
            stroke_above: document.get("of") == Some(&Value::Bool(true)),
            baseline_shift: lottie::number_or(document, "ls", 0.0),
            label,
            style,
        })
    }

    fn style(&self, document: &Value, label: &str) -> Result<TextStyle, RenderError> {
        let size = lottie::number_or(document, "s", 40.0);
        if !(1.0..=4000.0).contains(&size) {
            return Err(crate::limits::bad(format!("{label}: a text's size must be 1 to 4000 pixels")));
        }
        let font = self.source.fonts.choose(&self.fonts_list, lottie::text(document, "f"));
        let font = font.map_err(|reason| RenderError::MissingFont(format!("{label}: {reason}")))?;
        let line_height = lottie::number_or(document, "lh", 0.0);
        Ok(TextStyle {
            font,
            size,
            line_height: if line_height > 0.0 { line_height } else { size * 1.2 },
            letter_spacing: lottie::number_or(document, "tr", 0.0) / 1000.0 * size,
            // 3 to 6 are "justified", told apart by where their last line begins.
            justify: match document.get("j").and_then(Value::as_i64) {
                Some(1 | 4) => Justify::Right,
                Some(2 | 5) => Justify::Center,
                _ => Justify::Left,
            },
            wrap: pair(document, "sz").filter(|size| size[0] > 0.0).map(|size| size[0]),
        })
    }

    fn fit(&mut self, text: &Text, split: Split) -> Result<Fitted, RenderError> {
        let fonts = &mut *self.source.fonts;
        let missing = |MissingGlyph(character)| {
            let number = character as u32;
            let message = format!("{}: no font of the package has \"{character}\" (U+{number:04X})", text.label);
            RenderError::MissingGlyph(message)
        };
        // A customer's point text may be as wide as the designer's own words were.
        let room = match (text.room, &text.replaced) {
            (Room::Width(width), Some(own)) => {
                let own_width = fonts.shape(own, &text.style, Split::Whole).map_or(0.0, |own| own.width);
                Room::Width(width.max(own_width))
            }
            (Room::Width(_), None) => Room::Width(f64::MAX),
            (room, _) => room,
        };
        let fitted = fit::fit(fonts, &text.words, &text.style, room, split).map_err(missing)?;
        let percent = fitted.scale * 100.0;
        if !fitted.fits {
            self.notes.add(format!("{}: does not fit even at {percent:.0} % of its size", text.label));
        } else if fitted.scale < 1.0 {
            self.notes.add(format!("{}: was shrunk to {percent:.0} % to fit", text.label));
        }
        Ok(fitted)
    }
}

/// A group of paths for each unit, the first one on top.
fn shapes(layer: &Value, text: &Text, fitted: &Fitted, animators: &Animators<'_>) -> Vec<Value> {
    let down = match text.room {
        Room::Box { .. } => text.corner[1] + text.style.font.ascent * text.style.size * fitted.scale,
        Room::Width(_) => 0.0,
    };
    let across = if matches!(text.room, Room::Box { .. }) { text.corner[0] } else { 0.0 };
    let offset = [across, down - text.baseline_shift];
    // Keyframes count in the parent composition's time, whatever the layer's own start.
    let span = (lottie::number_or(layer, "ip", 0.0).floor() as i64, lottie::number_or(layer, "op", 0.0).ceil() as i64);
    let alignment =
        layer.get("t").and_then(|t| t.get("m")).and_then(|m| m.get("a")).map(|a| crate::property::at(a, 0.0));
    let lift = alignment.and_then(|a| a.get(1).copied()).unwrap_or(0.0) / 100.0 * text.style.size * fitted.scale * 0.7;
    let places = Place::of(&fitted.text);
    let units = fitted.text.units.iter().zip(&places);
    let groups = units.map(|(unit, place)| {
        let anchor = [offset[0] + (unit.left + unit.right) / 2.0, offset[1] + unit.baseline + lift];
        let tracks = animators.tracks(place, anchor, text.fill.unwrap_or_default(), span);
        let fill = json!({"ty": "fl", "c": tracks.fill, "o": constant(100.into()), "r": 1});
        let mut items: Vec<Value> = unit.contours.iter().map(|contour| contour.path(offset)).collect();
        let fill = text.fill.map(|_| fill);
        match text.stroke_above {
            true => items.extend(text.stroke.clone().into_iter().chain(fill)),
            false => items.extend(fill.into_iter().chain(text.stroke.clone())),
        }
        items.push(tracks.transform);
        json!({"ty": "gr", "it": items})
    });
    let mut groups: Vec<Value> = groups.collect();
    groups.reverse();
    groups
}

/// How much room the layer leaves its text.
fn room(layer: &Value, document: &Value, justify: Justify, width: f64) -> Room {
    if let Some([width, height]) = pair(document, "sz").filter(|size| size[0] > 0.0) {
        return Room::Box { width, height };
    }
    let whole = width * (1.0 - 2.0 * MARGIN);
    let transform = layer.get("ks").unwrap_or(&Value::Null);
    let at_rest =
        |key: &str| transform.get(key).map(|property| crate::property::at(property, f64::MAX)).unwrap_or_default();
    let scale = at_rest("s").first().map_or(1.0, |percent| percent.abs() / 100.0).max(0.01);
    let position = at_rest("p").first().copied();
    let (Some(x), None) = (position, layer.get("parent")) else { return Room::Width(whole / scale) };
    let origin = x - at_rest("a").first().copied().unwrap_or(0.0) * scale;
    let (left, right) = (origin - width * MARGIN, width * (1.0 - MARGIN) - origin);
    let room = match justify {
        Justify::Left => right,
        Justify::Right => left,
        Justify::Center => 2.0 * left.min(right),
    };
    let room = if room < width * LEAST_ROOM { whole } else { room.min(whole) };
    Room::Width(room / scale)
}

fn pair(value: &Value, key: &str) -> Option<[f64; 2]> {
    match lottie::list(value, key) {
        [a, b, ..] => Some([a.as_f64()?, b.as_f64()?]),
        _ => None,
    }
}

fn triple(value: &Value, key: &str) -> Option<[f64; 3]> {
    match lottie::list(value, key) {
        [a, b, c, ..] => Some([a.as_f64()?, b.as_f64()?, c.as_f64()?]),
        _ => None,
    }
}
