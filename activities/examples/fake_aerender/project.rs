//! What there is to render: a small project in JSON.

use super::scenario::Writes;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::Path;

/// Output modules that this user's preferences hold, unless the project says otherwise.
const TEMPLATES: [&str; 3] = ["PNG Sequence", "Lossless", "H.264 - Match Render Settings - 15 Mbps"];

#[derive(Debug, Deserialize)]
pub struct Project {
    /// Names need not differ; the first wins.
    pub compositions: Vec<Composition>,
    /// The render queue.
    #[serde(default)]
    pub queue: Vec<QueueItem>,
    /// Names of output modules in this user's preferences.
    #[serde(default = "templates", deserialize_with = "templates_or_usual")]
    pub templates: Vec<String>,
}

#[derive(Debug, Clone, Deserialize)]
pub struct Composition {
    pub name: String,
    pub frames: u32,
    pub size: [u32; 2],
    #[serde(default = "thirty")]
    pub fps: u32,
    /// Number of its first frame.
    #[serde(default)]
    pub display_start: u32,
}

/// A render queue item with the settings that are kept in the project.
#[derive(Debug, Clone, Deserialize)]
pub struct QueueItem {
    pub composition: String,
    /// First and last frame.
    pub span: Option<[u32; 2]>,
    pub output: Option<String>,
    /// Settings of its output module.
    #[serde(default)]
    pub module: Value,
}

/// One thing to render.
#[derive(Debug)]
pub struct Item {
    pub composition: Composition,
    pub first: u32,
    pub last: u32,
    pub output: Option<String>,
    /// It was not in the queue before.
    pub added: bool,
    /// What its output module writes, in the place of what the scenario says.
    pub writes: Option<Writes>,
}

impl Project {
    /// What the frames of a prepared project show; none of one that no script has touched.
    pub fn shown(path: &Path) -> Option<Vec<u8>> {
        let project: Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        (project["prepared"] == json!(true)).then(|| project["compositions"].to_string().into_bytes())
    }

    pub fn read(path: &Path) -> Result<Self, String> {
        let text = std::fs::read(path).map_err(|e| format!("project could not be opened: {e}"))?;
        serde_json::from_slice(&text).map_err(|e| format!("project could not be opened: {e}"))
    }

    /// The composition of this name: as it stands in the queue, else added with its whole length.
    pub fn by_name(&self, name: &str) -> Result<Item, String> {
        if let Some(queued) = self.queue.iter().find(|q| q.composition == name) {
            return self.queued(queued);
        }
        let composition = self.composition(name)?;
        let (first, last) = whole(&composition);
        Ok(Item { composition, first, last, output: None, added: true, writes: None })
    }

    /// The queue's item of this number, from 1.
    pub fn by_index(&self, index: &str) -> Result<Item, String> {
        let item = index.parse::<usize>().ok().and_then(|n| self.queue.get(n.checked_sub(1)?));
        self.queued(item.ok_or("No render queue item was found with the given index.")?)
    }

    pub fn queued(&self, queued: &QueueItem) -> Result<Item, String> {
        let composition = self.composition(&queued.composition)?;
        let (first, last) = queued.span.map_or(whole(&composition), |[first, last]| (first, last));
        let writes = match queued.module["Format"].as_str() {
            Some("JPEG Sequence") => Some(Writes::Jpeg),
            Some("TIFF Sequence") => Some(Writes::Tiff),
            Some(_) if queued.module["Use Comp Frame Number"] != json!("true") => Some(Writes::Renumbered),
            _ => None,
        };
        Ok(Item { composition, first, last, output: queued.output.clone(), added: false, writes })
    }

    fn composition(&self, name: &str) -> Result<Composition, String> {
        let found = self.compositions.iter().find(|c| c.name == name).cloned();
        found.ok_or_else(|| "No comp was found with the given name.".to_owned())
    }
}

fn whole(composition: &Composition) -> (u32, u32) {
    (composition.display_start, composition.display_start + composition.frames - 1)
}

fn templates() -> Vec<String> {
    TEMPLATES.map(String::from).to_vec()
}

fn templates_or_usual<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_else(templates))
}

fn thirty() -> u32 {
    30
}
