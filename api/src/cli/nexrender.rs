//! A job of nexrender, read as an order: what it says about a film that a template of ours can be told, and a list of what it cannot.
//!
//! The form is that of <https://github.com/inlife/nexrender>: `template`, `assets` and `actions`. Layers are found among the fields of the
//! template by name: the same letters and digits, whatever their case and what stands between them.

use super::{failure::CliError, order::OrderArgs};
use serde::Deserialize;
use serde_json::{Map, Value};
use std::path::{Path, PathBuf};

/// A job file.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Job {
    template: Value,
    assets: Vec<Value>,
    actions: Map<String, Value>,
    tags: Value,
    priority: Value,
    #[serde(flatten)]
    others: Map<String, Value>,
}

/// What became of a job.
#[derive(Debug, Default)]
pub struct Mapped {
    /// The order.
    pub order: OrderArgs,
    /// To be given back with the render.
    pub metadata: Map<String, Value>,
    /// Where the job wanted its film.
    pub out: Option<PathBuf>,
    /// What was understood, a line each.
    pub kept: Vec<String>,
    /// What was not, and would make another film.
    pub lost: Vec<String>,
    /// What was not, and changes nothing about the film.
    pub moot: Vec<String>,
}

/// The slug that a job's project file suggests: its name without its end.
///
/// # Errors
/// It is no job.
pub fn slug(text: &[u8]) -> Result<Option<String>, CliError> {
    let job = read(text)?;
    let src = job.template["src"].as_str().map(|src| src.rsplit(['/', '\\']).next().unwrap_or(src));
    Ok(src.map(|name| plain(name.rsplit_once('.').map_or(name, |(stem, _)| stem), '-')).filter(|slug| !slug.is_empty()))
}

/// Reads a job for the template with this manifest. Paths that are not absolute are those beside the job, in `folder`.
///
/// # Errors
/// It is no job.
pub fn map(text: &[u8], folder: &Path, slug: &str, manifest: &Value) -> Result<Mapped, CliError> {
    let job = read(text)?;
    let mut mapped =
        Mapped { order: OrderArgs { template: slug.to_owned(), ..OrderArgs::default() }, ..Mapped::default() };
    mapped.template(&job.template, manifest);
    for asset in &job.assets {
        mapped.asset(asset, folder, manifest);
    }
    for (stage, actions) in &job.actions {
        for action in actions.as_array().map(Vec::as_slice).unwrap_or_default() {
            mapped.action(stage, action, folder);
        }
    }
    for (key, value) in [("tags", job.tags), ("priority", job.priority)] {
        if !value.is_null() {
            mapped.metadata.insert(key.to_owned(), value);
        }
    }
    for key in job.others.keys() {
        mapped.moot.push(format!("{key}: nexrender's own business"));
    }
    Ok(mapped)
}

fn read(text: &[u8]) -> Result<Job, CliError> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let job: Job =
        serde_json::from_slice(text).map_err(|e| CliError::Usage(format!("the job is none of nexrender: {e}")))?;
    if !job.template.is_object() {
        return Err(CliError::Usage("the job is none of nexrender: it names no template".into()));
    }
    Ok(job)
}

impl Mapped {
    fn template(&mut self, template: &Value, manifest: &Value) {
        let ours = manifest["composition"].as_str().unwrap_or_default();
        match template["composition"].as_str() {
            Some(theirs) if theirs == ours || theirs == "*" => {}
            Some(theirs) => self.moot.push(format!("template.composition {theirs:?}: the template's is {ours:?}")),
            None => {}
        }
        for key in ["frameStart", "frameEnd", "frameIncrement", "incrementFrame"] {
            if !template[key].is_null() {
                self.lost.push(format!(
                    "template.{key}: a film is rendered whole; leave scenes out instead (--data, scenes)"
                ));
            }
        }
        for key in ["outputModule", "outputExt", "settingsTemplate"] {
            if !template[key].is_null() {
                self.moot.push(format!("template.{key}: films are MP4; see --quality, and derivatives for others"));
            }
        }
    }

    fn asset(&mut self, asset: &Value, folder: &Path, manifest: &Value) {
        let layer = asset["layerName"].as_str().unwrap_or_default();
        let kind = asset["type"].as_str().unwrap_or_default();
        let called =
            format!("{kind} {}", if layer.is_empty() { asset["layerIndex"].to_string() } else { format!("{layer:?}") });
        let done = match kind {
            _ if layer.is_empty() && kind != "script" && kind != "static" => {
                Err("layers are found by name, not by number".to_owned())
            }
            "data" => self.data(asset, layer, manifest),
            "image" => self.image(asset, layer, folder, manifest),
            "audio" => local(asset, folder).map(|path| {
                self.order.music = Some(path);
                "the music".to_owned()
            }),
            "video" => Err("footage of the customer's own is pictures and sound".to_owned()),
            "script" => Err("scripts do not run on nodes; what they do belongs into the template".to_owned()),
            "static" => Err("files of the project belong into the template's package".to_owned()),
            _ => Err("there is no such type".to_owned()),
        };
        match done {
            Ok(place) => self.kept.push(format!("{called}: {place}")),
            Err(why) => self.lost.push(format!("{called}: {why}")),
        }
    }

    /// A property of a layer: its text, its colour, whether it is shown.
    fn data(&mut self, asset: &Value, layer: &str, manifest: &Value) -> Result<String, String> {
        if asset["expression"].is_string() {
            return Err("expressions belong into the template".into());
        }
        let (property, value) = (asset["property"].as_str().unwrap_or_default(), &asset["value"]);
        let folded = plain(property, ' ');
        if let (true, Some(text)) = (folded.starts_with("source text"), value.as_str()) {
            let key = field(manifest, "texts", layer)?;
            self.order.text.push((key.clone(), text.to_owned()));
            return Ok(format!("text {key:?}"));
        }
        if let (true, Some(colour)) = (folded.ends_with("color"), colour(value)) {
            let key = field(manifest, "colors", layer)?;
            self.order.color.push((key.clone(), colour));
            return Ok(format!("colour {key:?}"));
        }
        if let (true, Some(shown)) = (matches!(folded.as_str(), "enabled" | "video enabled"), truth(value)) {
            let key = field(manifest, "visibility", layer)?;
            if shown {
                self.order.show.push(key.clone())
            } else {
                self.order.hide.push(key.clone())
            }
            return Ok(format!("visibility {key:?}"));
        }
        Err(format!("the property {property:?} can be a text, a colour or whether a layer is shown, and nothing else"))
    }

    fn image(&mut self, asset: &Value, layer: &str, folder: &Path, manifest: &Value) -> Result<String, String> {
        let key = field(manifest, "images", layer)?;
        let path = local(asset, folder)?;
        self.order.image.push((key.clone(), path.to_string_lossy().into_owned()));
        Ok(format!("picture {key:?}"))
    }

    fn action(&mut self, stage: &str, action: &Value, folder: &Path) {
        let module = action["module"].as_str().unwrap_or_default();
        let output = action["output"].as_str();
        match (module.trim_start_matches("@nexrender/"), output) {
            ("action-copy", Some(path)) if !path.contains("://") => self.out = Some(folder.join(path)),
            ("action-encode", _) => {
                self.moot.push(format!("{stage} {module}: films are encoded as MP4; see --quality"))
            }
            ("action-copy" | "action-upload", _) => {
                self.moot.push(format!(
                    "{stage} {module}: the film is at the server; webhooks tell when (flatrender webhooks)"
                ));
            }
            _ => self
                .lost
                .push(format!("{stage} {module}: actions are programs of nexrender's; a webhook can start yours")),
        }
    }
}

/// The file of an asset, when it is on this machine.
fn local(asset: &Value, folder: &Path) -> Result<PathBuf, String> {
    let src = asset["src"].as_str().unwrap_or_default();
    match src.split_once("://") {
        Some(("file", path)) => Ok(PathBuf::from(percent_decoded(path))),
        Some(_) => Err(format!("{src}: download it, and give the path of the file")),
        None if src.is_empty() => Err("it has no src".into()),
        None => Ok(folder.join(src)),
    }
}

fn percent_decoded(path: &str) -> String {
    let hex = |at: usize| path.get(at..at + 2).and_then(|pair| u8::from_str_radix(pair, 16).ok());
    let (mut bytes, mut at) = (vec![], 0);
    while let Some(byte) = path.as_bytes().get(at) {
        match hex(at + 1).filter(|_| *byte == b'%') {
            Some(decoded) => (bytes.push(decoded), at += 3),
            None => (bytes.push(*byte), at += 1),
        };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The key among `list` of the manifest that `layer` names.
fn field(manifest: &Value, list: &str, layer: &str) -> Result<String, String> {
    let keys: Vec<&str> =
        manifest[list].as_array().into_iter().flatten().filter_map(|field| field["key"].as_str()).collect();
    let wanted = plain(layer, ' ').replace(' ', "");
    let found = keys.iter().find(|key| plain(key, ' ').replace(' ', "") == wanted);
    found.map(|key| (*key).to_owned()).ok_or_else(|| {
        let known = if keys.is_empty() { "none".to_owned() } else { keys.join(", ") };
        format!("the template's {list} are: {known}")
    })
}

/// Small letters and digits, and `between` where there was anything else.
fn plain(text: &str, between: char) -> String {
    let words = text.split(|c: char| !c.is_alphanumeric()).filter(|word| !word.is_empty());
    words.map(str::to_lowercase).collect::<Vec<_>>().join(&between.to_string())
}

/// A colour as After Effects has it, three or four numbers from 0 to 1, or as people write it.
fn colour(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        let hex = text.strip_prefix('#').filter(|hex| hex.len() == 6 && hex.bytes().all(|b| b.is_ascii_hexdigit()))?;
        return Some(format!("#{}", hex.to_ascii_lowercase()));
    }
    let parts = value.as_array().filter(|parts| matches!(parts.len(), 3 | 4))?;
    let parts = parts.iter().take(3).map(|part| part.as_f64().filter(|part| (0.0..=1.0).contains(part)));
    let parts: Vec<String> =
        parts.map(|part| part.map(|p| format!("{:02x}", (p * 255.0).round() as u8))).collect::<Option<_>>()?;
    Some(format!("#{}", parts.concat()))
}

fn truth(value: &Value) -> Option<bool> {
    match value {
        Value::Bool(truth) => Some(*truth),
        Value::Number(number) => number.as_f64().map(|n| n != 0.0),
        Value::String(text) => text.parse().ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest() -> Value {
        json!({
            "composition": "main",
            "texts": [{"key": "title"}, {"key": "second_line"}], "images": [{"key": "logo"}],
            "colors": [{"key": "accent"}], "visibility": [{"key": "badge"}]
        })
    }

    fn mapped(job: &Value) -> Mapped {
        map(job.to_string().as_bytes(), Path::new("/jobs"), "promo", &manifest()).unwrap()
    }

    #[test]
    fn what_a_template_can_be_told_becomes_an_order() {
        let job = json!({
            "template": {"src": "file:///d:/projects/Promo.aep", "composition": "main"},
            "assets": [
                {"type": "data", "layerName": "Title", "property": "Source Text", "value": "Spring"},
                {"type": "data", "layerName": "second line", "property": "Source Text", "value": "\u{202e}\"quoted\""},
                {"type": "data", "layerName": "Accent", "property": "Effects.Fill.Color", "value": [1, 0.5, 0, 1]},
                {"type": "data", "layerName": "badge", "property": "enabled", "value": false},
                {"type": "image", "layerName": "LOGO", "src": "file:///pictures/a%20logo.png"},
                {"type": "audio", "layerName": "music", "src": "song.mp3"}
            ],
            "actions": {"postrender": [
                {"module": "@nexrender/action-encode", "preset": "mp4"},
                {"module": "@nexrender/action-copy", "output": "out/film.mp4"}
            ]},
            "tags": "a,b", "priority": 5
        });
        let mapped = mapped(&job);
        assert_eq!(mapped.lost, Vec::<String>::new());
        assert_eq!(
            mapped.order.text,
            [("title".into(), "Spring".into()), ("second_line".into(), "\u{202e}\"quoted\"".into())]
        );
        assert_eq!(mapped.order.color, [("accent".into(), "#ff8000".into())]);
        assert_eq!(mapped.order.hide, ["badge"]);
        assert_eq!(mapped.order.image, [("logo".into(), "/pictures/a logo.png".into())]);
        assert_eq!(mapped.order.music, Some("/jobs/song.mp3".into()));
        assert_eq!(mapped.out, Some("/jobs/out/film.mp4".into()));
        assert_eq!(Value::Object(mapped.metadata), json!({"tags": "a,b", "priority": 5}));
        assert_eq!(mapped.moot.len(), 1);
        assert_eq!(slug(job.to_string().as_bytes()).unwrap().as_deref(), Some("promo"));
    }

    #[test]
    fn what_would_make_another_film_is_named() {
        let job = json!({
            "template": {"src": "https://x/y.aep", "frameStart": 10},
            "assets": [
                {"type": "data", "layerName": "nobody", "property": "Source Text", "value": "x"},
                {"type": "data", "layerName": "title", "property": "Position", "value": [1, 2]},
                {"type": "data", "layerName": "title", "property": "Source Text", "expression": "time"},
                {"type": "data", "layerIndex": 3, "property": "Source Text", "value": "x"},
                {"type": "image", "layerName": "logo", "src": "https://x/y.png"},
                {"type": "video", "layerName": "logo", "src": "y.mp4"},
                {"type": "script", "src": "x.jsx"},
                {"type": "static", "src": "x.ttf"},
                7
            ],
            "actions": {"prerender": [{"module": "./mine.js"}], "postrender": 5}
        });
        let mapped = mapped(&job);
        assert_eq!(mapped.kept, Vec::<String>::new());
        assert_eq!(mapped.lost.len(), 11, "{:#?}", mapped.lost);
        assert!(mapped.lost[1].contains("title, second_line"), "{}", mapped.lost[1]);
    }

    #[test]
    fn what_is_no_job_is_said_to_be_none() {
        for text in ["", "[]", "{}", r#"{"template": 5}"#, "{\"template\": {}"] {
            assert!(map(text.as_bytes(), Path::new(""), "x", &manifest()).is_err(), "{text}");
        }
        for odd in ["%", "%4", "%zz", "%e4", "é%"] {
            percent_decoded(odd);
        }
    }
}
