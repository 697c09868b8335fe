//! The fields that a project offers, collected from its names, and the check that data asks for no others.

use std::collections::BTreeSet;

use serde_json::Value;

use crate::{
    RenderError,
    data::Data,
    lottie::{self, layer_type},
    names::{Name, Role},
};

/// Prefix of a scene's name; the rest is its id.
pub(crate) const SCENE_PREFIX: &str = "scene:";

/// Everything a data file may name.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Fields {
    /// Texts, by key.
    pub texts: BTreeSet<String>,
    /// Picture slots, by key.
    pub images: BTreeSet<String>,
    /// Colour tokens.
    pub colors: BTreeSet<String>,
    /// Switches that show or hide layers.
    pub visibility: BTreeSet<String>,
    /// Scene ids, in the order of their first frame.
    pub scenes: Vec<String>,
}

impl Fields {
    pub(crate) fn of(document: &Value) -> Self {
        let mut fields = Self { scenes: scenes_in_order(document), ..Self::default() };
        for layer in lottie::layer_lists(document).flatten() {
            fields.add_layer(layer);
        }
        if let Some(slots) = document.get("slots").and_then(Value::as_object) {
            let is_color = |slot: &Value| slot.get("p").is_some_and(|p| lottie::list(p, "k").len() >= 3);
            fields.colors.extend(slots.iter().filter(|(_, slot)| is_color(slot)).map(|(id, _)| id.clone()));
        }
        fields
    }

    /// Refuses data that names what the project does not have.
    pub(crate) fn check(&self, data: &Data) -> Result<(), RenderError> {
        known("texts", data.texts.keys(), &self.texts)?;
        known("images", data.images.keys(), &self.images)?;
        known("colors", data.colors.keys(), &self.colors)?;
        known("visibility", data.visibility.keys(), &self.visibility)?;
        let scenes = data.scenes.iter().flatten().map(|scene| &scene.id);
        known("scenes", scenes, &self.scenes.iter().cloned().collect())
    }

    fn add_layer(&mut self, layer: &Value) {
        let name = Name::parse(lottie::text(layer, "nm"));
        self.visibility.extend(name.visibility.map(str::to_owned));
        match (name.role, lottie::layer_type(layer)) {
            (Role::Text { key, token }, layer_type::TEXT) => {
                self.texts.insert(key.to_owned());
                self.colors.extend(token.map(str::to_owned));
            }
            (Role::Image { key }, layer_type::IMAGE) => {
                self.images.insert(key.to_owned());
            }
            (Role::Colors(tokens), layer_type::SOLID) => self.colors.extend(tokens.into_iter().map(str::to_owned)),
            _ => {}
        }
        for shape in lottie::list(layer, "shapes") {
            self.add_shape(shape);
        }
    }

    fn add_shape(&mut self, shape: &Value) {
        if let ("fl" | "st" | "gf" | "gs", Role::Colors(tokens)) =
            (lottie::text(shape, "ty"), Name::parse(lottie::text(shape, "nm")).role)
        {
            self.colors.extend(tokens.into_iter().map(str::to_owned));
        }
        for child in lottie::list(shape, "it") {
            self.add_shape(child);
        }
    }
}

/// The scene a precomposition layer of main shows: the `ID` of its asset's name `scene:ID`.
pub(crate) fn scene_id<'d>(document: &'d Value, layer: &Value) -> Option<&'d str> {
    if lottie::layer_type(layer) != layer_type::PRECOMP {
        return None;
    }
    let reference = lottie::text(layer, "refId");
    let asset = lottie::list(document, "assets").iter().find(|asset| lottie::text(asset, "id") == reference)?;
    let named = [lottie::text(asset, "nm"), lottie::text(asset, "id")];
    named.into_iter().find_map(|name| name.strip_prefix(SCENE_PREFIX))
}

fn scenes_in_order(document: &Value) -> Vec<String> {
    let mut scenes: Vec<(f64, &str)> = lottie::list(document, "layers")
        .iter()
        .filter_map(|layer| Some((lottie::number_or(layer, "ip", 0.0), scene_id(document, layer)?)))
        .collect();
    scenes.sort_by(|a, b| a.0.total_cmp(&b.0));
    scenes.into_iter().map(|(_, id)| id.to_owned()).collect()
}

fn known<'k>(
    section: &str,
    given: impl Iterator<Item = &'k String>,
    fields: &BTreeSet<String>,
) -> Result<(), RenderError> {
    for key in given {
        if !fields.contains(key) {
            let hint = did_you_mean(key, fields.iter().map(String::as_str));
            return Err(RenderError::UnknownField(format!("{section}.{key}: the project has no such field{hint}")));
        }
    }
    Ok(())
}

/// ` (did you mean "title"?)`, or nothing when no known name is near.
pub(crate) fn did_you_mean<'k>(given: &str, known: impl Iterator<Item = &'k str>) -> String {
    let near = known.map(|name| (edits(given, name), name)).min();
    match near {
        Some((edits, name)) if edits <= 1 + given.chars().count() / 4 => format!(" (did you mean \"{name}\"?)"),
        _ => String::new(),
    }
}

/// How many letters must be added, dropped or changed to make `a` into `b` (Levenshtein).
fn edits(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, to) in b.iter().enumerate() {
            let change = corner + usize::from(from != *to);
            corner = row[j + 1];
            row[j + 1] = change.min(row[j] + 1).min(corner + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn every_kind_of_name_becomes_a_field() {
        let document = json!({
            "layers": [{"ty": 0, "refId": "b", "ip": 50, "nm": "two?extra"}, {"ty": 0, "refId": "a", "ip": 0}],
            "assets": [
                {"id": "a", "nm": "scene:one", "layers": [
                    {"ty": 5, "nm": "txt:title@accent"}, {"ty": 2, "nm": "img:logo"}, {"ty": 1, "nm": "color:back"}]},
                {"id": "b", "nm": "scene:two", "layers": [
                    {"ty": 4, "shapes": [{"ty": "gr", "it": [{"ty": "gf", "nm": "color:top,bottom"}]}]}]}],
            "slots": {"brand": {"p": {"a": 0, "k": [1, 0, 0]}}, "angle": {"p": {"a": 0, "k": 3}}}
        });
        let fields = Fields::of(&document);
        assert_eq!(fields.scenes, ["one", "two"]);
        assert_eq!(fields.texts, BTreeSet::from(["title".into()]));
        assert_eq!(fields.images, BTreeSet::from(["logo".into()]));
        assert_eq!(fields.visibility, BTreeSet::from(["extra".into()]));
        assert_eq!(fields.colors, ["accent", "back", "bottom", "brand", "top"].map(String::from).into());
    }

    #[test]
    fn a_near_name_is_offered_and_a_far_one_is_not() {
        assert_eq!(did_you_mean("tittle", ["title", "site"].into_iter()), r#" (did you mean "title"?)"#);
        assert_eq!(did_you_mean("phone", ["title", "site"].into_iter()), "");
    }
}
