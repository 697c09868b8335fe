//! `data.json`: what one customer put into a template. Read strictly: an unknown key is an error.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::{RenderError, color::Color, fields::did_you_mean};

/// Longest text that is shaped, in characters.
const TEXT_LIMIT_CHARS: usize = 10_000;
/// Most scenes in one film.
const SCENE_LIMIT: usize = 500;

/// One customer's data; everything absent means the template's own.
#[derive(Debug, Default)]
pub(crate) struct Data {
    pub(crate) texts: BTreeMap<String, String>,
    pub(crate) images: BTreeMap<String, ImageData>,
    pub(crate) colors: BTreeMap<String, Color>,
    pub(crate) visibility: BTreeMap<String, bool>,
    pub(crate) scenes: Option<Vec<SceneData>>,
    /// Width and height of the picture, in pixels.
    pub(crate) size: Option<(u32, u32)>,
}

/// A picture for a slot.
#[derive(Debug)]
pub(crate) struct ImageData {
    /// Its name in the package.
    pub(crate) file: String,
    pub(crate) fit: Fit,
}

/// How a picture takes its place in a slot of another shape.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Fit {
    /// Fills the slot; what does not fit is cut off on both sides.
    #[default]
    Cover,
    /// Shows the whole picture; the rest of the slot stays clear.
    Contain,
}

/// A scene in the film's order.
#[derive(Debug)]
pub(crate) struct SceneData {
    pub(crate) id: String,
    /// Its length; at least one frame.
    pub(crate) frames: u32,
}

impl Data {
    pub(crate) fn parse(json: &[u8]) -> Result<Self, RenderError> {
        let value: Value = serde_json::from_slice(json).map_err(|error| bad(format!("not JSON: {error}")))?;
        let root = object(&value, "the file")?;
        only_keys(root, "", &["version", "texts", "images", "colors", "visibility", "scenes", "size"])?;
        if root.get("version").and_then(Value::as_u64) != Some(1) {
            return Err(bad("version: must be 1".into()));
        }
        Ok(Self {
            texts: section(root, "texts", text)?,
            images: section(root, "images", image)?,
            colors: section(root, "colors", color)?,
            visibility: section(root, "visibility", |value, path| {
                value.as_bool().ok_or_else(|| bad(format!("{path}: must be true or false")))
            })?,
            scenes: root.get("scenes").map(scenes).transpose()?,
            size: root.get("size").map(size).transpose()?,
        })
    }
}

/// Reads an object of equal entries; each entry's path is `name.key`.
fn section<T>(
    root: &Map<String, Value>,
    name: &str,
    read: impl Fn(&Value, &str) -> Result<T, RenderError>,
) -> Result<BTreeMap<String, T>, RenderError> {
    let Some(value) = root.get(name) else { return Ok(BTreeMap::new()) };
    let entries = object(value, name)?;
    entries.iter().map(|(key, value)| Ok((key.clone(), read(value, &format!("{name}.{key}"))?))).collect()
}

fn text(value: &Value, path: &str) -> Result<String, RenderError> {
    let words = value.as_str().ok_or_else(|| bad(format!("{path}: must be a text")))?;
    if words.chars().count() > TEXT_LIMIT_CHARS {
        return Err(bad(format!("{path}: longer than {TEXT_LIMIT_CHARS} characters")));
    }
    Ok(words.to_owned())
}

fn image(value: &Value, path: &str) -> Result<ImageData, RenderError> {
    let entry = object(value, path)?;
    only_keys(entry, path, &["file", "fit"])?;
    let file = entry.get("file").and_then(Value::as_str).ok_or_else(|| bad(format!("{path}.file: must be a text")))?;
    let fit = match entry.get("fit").map(|fit| fit.as_str()) {
        None => Fit::default(),
        Some(Some("cover")) => Fit::Cover,
        Some(Some("contain")) => Fit::Contain,
        Some(_) => return Err(bad(format!("{path}.fit: must be \"cover\" or \"contain\""))),
    };
    Ok(ImageData { file: file.to_owned(), fit })
}

fn color(value: &Value, path: &str) -> Result<Color, RenderError> {
    value.as_str().and_then(Color::parse).ok_or_else(|| bad(format!("{path}: must be a colour like \"#0b3c5d\"")))
}

fn scenes(value: &Value) -> Result<Vec<SceneData>, RenderError> {
    let list = value.as_array().ok_or_else(|| bad("scenes: must be a list".into()))?;
    if list.is_empty() || list.len() > SCENE_LIMIT {
        return Err(bad(format!("scenes: must have 1 to {SCENE_LIMIT} entries")));
    }
    list.iter().enumerate().map(|(n, value)| scene(value, &format!("scenes[{n}]"))).collect()
}

fn scene(value: &Value, path: &str) -> Result<SceneData, RenderError> {
    let entry = object(value, path)?;
    only_keys(entry, path, &["id", "frames"])?;
    let id = entry.get("id").and_then(Value::as_str).ok_or_else(|| bad(format!("{path}.id: must be a text")))?;
    let frames = entry.get("frames").and_then(Value::as_u64).and_then(|frames| u32::try_from(frames).ok());
    match frames {
        Some(frames @ 1..=100_000) => Ok(SceneData { id: id.to_owned(), frames }),
        _ => Err(bad(format!("{path}.frames: must be a whole number from 1 to 100000"))),
    }
}

fn size(value: &Value) -> Result<(u32, u32), RenderError> {
    let side = |n: usize| value.get(n).and_then(Value::as_u64).and_then(|side| u32::try_from(side).ok());
    match (value.as_array().map(Vec::len), side(0), side(1)) {
        (Some(2), Some(width @ 1..), Some(height @ 1..)) => Ok((width, height)),
        _ => Err(bad("size: must be [width, height] in pixels".into())),
    }
}

fn object<'v>(value: &'v Value, path: &str) -> Result<&'v Map<String, Value>, RenderError> {
    value.as_object().ok_or_else(|| bad(format!("{path}: must be an object")))
}

fn only_keys(entry: &Map<String, Value>, path: &str, known: &[&str]) -> Result<(), RenderError> {
    let Some(key) = entry.keys().find(|key| !known.contains(&key.as_str())) else { return Ok(()) };
    let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
    let hint = did_you_mean(key, known.iter().copied());
    Err(RenderError::UnknownField(format!("{path}: data.json has no such key{hint}")))
}

fn bad(message: String) -> RenderError {
    RenderError::BadData(format!("data.json: {message}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(json: &str) -> String {
        let error = Data::parse(json.as_bytes()).expect_err("an error");
        format!("[{}] {error}", error.code())
    }

    #[test]
    fn an_unknown_key_is_named_wherever_it_stands() {
        assert_eq!(
            error(r#"{"version": 1, "txets": {}}"#),
            r#"[render.unknown_field] txets: data.json has no such key (did you mean "texts"?)"#
        );
        assert_eq!(
            error(r#"{"version": 1, "images": {"logo": {"file": "a.png", "crop": 1}}}"#),
            "[render.unknown_field] images.logo.crop: data.json has no such key"
        );
    }

    #[test]
    fn a_wrong_value_is_named() {
        let facts = [
            (r#"{"texts": {}}"#, "version: must be 1"),
            (r#"{"version": 1, "colors": {"primary": "blue"}}"#, "colors.primary: must be a colour"),
            (r#"{"version": 1, "scenes": [{"id": "a", "frames": 0}]}"#, "scenes[0].frames: must be"),
            (r#"{"version": 1, "scenes": []}"#, "scenes: must have"),
            (r#"{"version": 1, "size": [0, 1]}"#, "size: must be"),
            (r#"{"version": 1, "visibility": {"a": "yes"}}"#, "visibility.a: must be true or false"),
            ("{", "not JSON"),
        ];
        for (json, message) in facts {
            assert!(error(json).starts_with(&format!("[render.bad_data] data.json: {message}")), "{}", error(json));
        }
    }
}
