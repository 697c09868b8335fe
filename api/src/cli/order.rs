//! From a data file and flags to the order the server takes, with every file it names uploaded.

use super::client::Client;
use super::failure::CliError;
use clap::Args;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The largest file the server takes.
const MOST_UPLOAD_BYTES: u64 = 200 * 1024 * 1024;

/// What to show and to hear. Flags win over the data file.
#[derive(Debug, Clone, Default, Args)]
pub struct OrderArgs {
    /// The template to fill in: see `flatrender templates`.
    #[arg(long, short, value_name = "SLUG")]
    pub template: String,
    /// What to show: a JSON file with texts, images (paths beside the file), colors, theme, visibility, scenes.
    #[arg(long, short, value_name = "FILE")]
    pub data: Option<PathBuf>,
    /// A text, as KEY=WORDS. May be repeated.
    #[arg(long, value_name = "KEY=WORDS", value_parser = key_value)]
    pub text: Vec<(String, String)>,
    /// A picture (PNG, JPEG, WebP), as KEY=FILE. May be repeated.
    #[arg(long, value_name = "KEY=FILE", value_parser = key_value)]
    pub image: Vec<(String, String)>,
    /// A colour, as KEY=#rrggbb. May be repeated.
    #[arg(long, value_name = "KEY=#RRGGBB", value_parser = key_value)]
    pub color: Vec<(String, String)>,
    /// A ready set of colours.
    #[arg(long, value_name = "ID")]
    pub theme: Option<String>,
    /// Something to show, by its key. May be repeated.
    #[arg(long, value_name = "KEY")]
    pub show: Vec<String>,
    /// Something to leave out, by its key. May be repeated.
    #[arg(long, value_name = "KEY")]
    pub hide: Vec<String>,
    /// Music of your own in place of the template's.
    #[arg(long, value_name = "FILE", conflicts_with = "no_music")]
    pub music: Option<PathBuf>,
    /// No music at all.
    #[arg(long)]
    pub no_music: bool,
    /// A voice to hear over the film; the music gives way to it.
    #[arg(long, value_name = "FILE")]
    pub voice_over: Option<PathBuf>,
    /// Height of the film in pixels, even; the width follows [default: the template's].
    #[arg(long, value_name = "PIXELS")]
    pub height: Option<u32>,
    /// Speed against quality of the encoder [default: final].
    #[arg(long, value_parser = ["preview", "final", "master"])]
    pub quality: Option<String>,
}

/// A data file: what a customer would send, with paths in place of uploaded files.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct DataFile {
    #[serde(default)]
    texts: BTreeMap<String, String>,
    #[serde(default)]
    images: BTreeMap<String, PathBuf>,
    #[serde(default)]
    colors: BTreeMap<String, String>,
    theme: Option<String>,
    #[serde(default)]
    visibility: BTreeMap<String, bool>,
    scenes: Option<Vec<Value>>,
}

/// An order whose files are still on this machine.
#[derive(Debug, Clone, PartialEq)]
pub struct LocalOrder {
    body: Value,
    /// Which file goes where in the body.
    files: Vec<(String, PathBuf)>,
}

impl OrderArgs {
    /// Reads the data file and looks at every file named, before anything is sent.
    ///
    /// # Errors
    /// [`CliError::Usage`], naming the file and what is wrong with it.
    pub fn read(&self) -> Result<LocalOrder, CliError> {
        let mut data = self.data.as_deref().map(read_data).transpose()?.unwrap_or_default();
        data.texts.extend(self.text.iter().cloned());
        data.colors.extend(self.color.iter().cloned());
        data.images.extend(self.image.iter().map(|(key, path)| (key.clone(), path.into())));
        data.visibility.extend(self.show.iter().map(|key| (key.clone(), true)));
        data.visibility.extend(self.hide.iter().map(|key| (key.clone(), false)));
        data.theme = self.theme.clone().or(data.theme);
        let mut files: Vec<(String, PathBuf)> =
            data.images.iter().map(|(key, path)| (format!("{PICTURES}{key}"), path.clone())).collect();
        files.extend(self.music.iter().map(|path| ("/audio/music/file".into(), path.clone())));
        files.extend(self.voice_over.iter().map(|path| ("/audio/voice_over/file".into(), path.clone())));
        files.iter().try_for_each(|(place, path)| check_file(place, path))?;
        Ok(LocalOrder { body: self.body(data), files })
    }

    fn body(&self, data: DataFile) -> Value {
        let mut shown =
            json!({ "texts": data.texts, "colors": data.colors, "visibility": data.visibility, "images": {} });
        shown.set("theme", data.theme);
        shown.set("scenes", data.scenes);
        let mut audio = json!({});
        if self.no_music {
            audio["music"] = Value::Null;
        }
        let mut output = json!({});
        output.set("height", self.height);
        output.set("quality", self.quality.clone());
        json!({ "template": self.template, "data": shown, "audio": audio, "output": output })
    }
}

trait Set {
    fn set(&mut self, key: &str, value: Option<impl Into<Value>>);
}

impl Set for Value {
    /// An absent value is left out: the server knows what it stands for.
    fn set(&mut self, key: &str, value: Option<impl Into<Value>>) {
        if let Some(value) = value {
            self[key] = value.into();
        }
    }
}

impl LocalOrder {
    /// How many files go with it.
    pub fn file_count(&self) -> usize {
        self.files.len()
    }

    /// What is given back with the render.
    #[must_use]
    pub fn with_metadata(mut self, metadata: Map<String, Value>) -> Self {
        self.body["metadata"] = metadata.into();
        self
    }

    /// The order without the files.
    #[cfg(test)]
    pub(super) fn body(&self) -> &Value {
        &self.body
    }

    /// Uploads the files, each once, and gives the body of `POST /v1/renders`.
    ///
    /// # Errors
    /// The server refused a file; the line names it.
    pub async fn upload(self, client: &Client) -> Result<Value, CliError> {
        self.upload_once(client, &mut BTreeMap::new()).await
    }

    /// The same of one order among many: `ids` are those of files that others of them uploaded.
    ///
    /// # Errors
    /// The server refused a file; the line names it.
    pub async fn upload_once(
        mut self,
        client: &Client,
        ids: &mut BTreeMap<PathBuf, String>,
    ) -> Result<Value, CliError> {
        self.check_pictures(client).await?;
        for (place, path) in std::mem::take(&mut self.files) {
            let id = match ids.get(&path) {
                Some(id) => id.clone(),
                None => client.upload(&path).await?.id,
            };
            ids.insert(path, id.clone());
            put(&mut self.body, &place, id);
        }
        Ok(self.body)
    }
}

const PICTURES: &str = "/data/images/";

impl LocalOrder {
    /// Sends no picture that the template has no place for: the order would be refused and the upload left behind.
    async fn check_pictures(&self, client: &Client) -> Result<(), CliError> {
        let mut keys = self.files.iter().filter_map(|(place, _)| place.strip_prefix(PICTURES)).peekable();
        let Some(slug) = self.body["template"].as_str().filter(|_| keys.peek().is_some()) else { return Ok(()) };
        let template = client.template(slug).await?.json;
        let slots: Vec<&str> = template["manifest"]["images"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|slot| slot["key"].as_str())
            .collect();
        match keys.find(|key| !slots.contains(key)) {
            Some(key) => Err(CliError::Usage(format!(
                "the template {slug:?} has no picture {key:?}; it has: {}",
                if slots.is_empty() { "none".to_owned() } else { slots.join(", ") }
            ))),
            None => Ok(()),
        }
    }
}

/// Puts `id` at `place`, such as `/data/images/logo`. The last part may hold a slash.
fn put(body: &mut Value, place: &str, id: String) {
    let mut parts = place.trim_start_matches('/').splitn(3, '/');
    let (Some(a), Some(b), Some(c)) = (parts.next(), parts.next(), parts.next()) else { return };
    if !body[a][b].is_object() {
        body[a][b] = Value::Object(Map::new());
    }
    body[a][b][c] = id.into();
}

fn read_data(path: &Path) -> Result<DataFile, CliError> {
    let text = std::fs::read(path).map_err(|e| CliError::unreadable("--data", path, e))?;
    // Editors on Windows put a mark in front that JSON does not know.
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&text);
    let mut data: DataFile =
        serde_json::from_slice(text).map_err(|e| CliError::Usage(format!("--data: {}: {e}", path.display())))?;
    let beside = path.parent().unwrap_or(Path::new(""));
    data.images.values_mut().for_each(|image| *image = find_beside(beside, image));
    Ok(data)
}

/// A path of a data file is meant from the file's folder; a sample's from the package above `samples/`.
fn find_beside(dir: &Path, image: &Path) -> PathBuf {
    let beside = dir.join(image);
    let above = dir.parent().map(|up| up.join(image));
    above.filter(|path| !beside.exists() && path.exists()).unwrap_or(beside)
}

fn check_file(place: &str, path: &Path) -> Result<(), CliError> {
    let what =
        place.trim_start_matches("/data/").trim_start_matches("/audio/").trim_end_matches("/file").replace('/', ".");
    let meta = std::fs::metadata(path).map_err(|e| CliError::unreadable(&what, path, e))?;
    if !meta.is_file() {
        return Err(CliError::Usage(format!("{what}: {} is not a file", path.display())));
    }
    if meta.len() > MOST_UPLOAD_BYTES {
        return Err(CliError::Usage(format!("{what}: {} is larger than the 200 MB the server takes", path.display())));
    }
    std::fs::File::open(path).map(drop).map_err(|e| CliError::unreadable(&what, path, e))
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("expected KEY=VALUE")?;
    if key.is_empty() { Err("the key is missing".into()) } else { Ok((key.to_owned(), value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn args(dir: &Path, json: &str) -> OrderArgs {
        std::fs::create_dir_all(dir.join("samples")).unwrap();
        std::fs::write(dir.join("samples/en.json"), json).unwrap();
        for name in ["samples/lake.jpg", "logo.png"] {
            std::fs::write(dir.join(name), b"picture").unwrap();
        }
        OrderArgs { template: "promo".into(), data: Some(dir.join("samples/en.json")), ..OrderArgs::default() }
    }

    #[test]
    fn a_sample_finds_its_pictures_and_flags_win() {
        let dir = tempfile::tempdir().unwrap();
        let mut args = args(
            dir.path(),
            r#"{"texts": {"title": "A", "tag": "B"}, "images": {"lake": "samples/lake.jpg", "near": "lake.jpg"}, "theme": "night"}"#,
        );
        args.text = vec![("title".into(), "C=D".into())];
        args.theme = Some("ocean".into());
        args.no_music = true;
        let order = args.read().unwrap();
        let lake = dir.path().join("samples/lake.jpg");
        assert_eq!(order.files, [("/data/images/lake".into(), lake.clone()), ("/data/images/near".into(), lake)]);
        assert_eq!(order.body["data"]["texts"], json!({"title": "C=D", "tag": "B"}));
        assert_eq!(order.body["data"]["theme"], "ocean");
        assert_eq!(order.body["audio"], json!({"music": null}));
        assert_eq!(order.body["output"], json!({}));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_before_anything_is_sent() {
        let dir = tempfile::tempdir().unwrap();
        let unknown = args(dir.path(), r#"{"text": {}}"#).read().unwrap_err().line();
        assert!(unknown.contains("en.json") && unknown.contains("unknown field `text`"), "{unknown}");
        let missing = args(dir.path(), r#"{"images": {"logo": "none.png"}}"#).read().unwrap_err().line();
        assert!(missing.starts_with("images.logo: cannot read") && missing.contains("none.png"), "{missing}");
    }

    #[test]
    fn uploaded_files_are_put_in_their_places() {
        let mut body = json!({"data": {"images": {}}, "audio": {}});
        put(&mut body, "/data/images/a/b", "1".into());
        put(&mut body, "/audio/music/file", "2".into());
        assert_eq!(body, json!({"data": {"images": {"a/b": "1"}}, "audio": {"music": {"file": "2"}}}));
    }
}
