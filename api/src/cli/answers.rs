//! What the server answers, as far as the command line reads it.

use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// A render.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Render {
    /// Its id.
    pub id: String,
    /// `queued`, `preparing`, `rendering`, `encoding`, `finalizing`, `completed`, `failed` or `cancelled`.
    pub status: String,
    /// What the workflow does now.
    #[serde(default)]
    pub step: Option<String>,
    /// 0 to 1.
    #[serde(default)]
    pub progress: f64,
    /// Seconds left, when that can be told.
    #[serde(default)]
    pub eta_seconds: Option<f64>,
    /// Seconds in which it is done nine times in ten, when that can be told.
    #[serde(default)]
    pub eta_p90_seconds: Option<f64>,
    /// How many frames there are.
    #[serde(default)]
    pub frames: Frames,
    /// Width in pixels.
    #[serde(default)]
    pub width: u32,
    /// Height in pixels.
    #[serde(default)]
    pub height: u32,
    /// Frames a second.
    #[serde(default)]
    pub fps: f64,
    /// Length of the film.
    #[serde(default)]
    pub duration_seconds: f64,
    /// Why it failed.
    #[serde(default)]
    pub error: Option<RenderError>,
    /// What the customer should know.
    #[serde(default)]
    pub warnings: Vec<Value>,
    /// The film.
    #[serde(default)]
    pub export: Option<Export>,
}

impl Render {
    /// Whether nothing will change any more.
    pub fn is_final(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }
}

/// Frames of a render.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
pub struct Frames {
    /// Of the film.
    pub total: u64,
    /// Done.
    pub rendered: u64,
}

/// Why a render failed.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct RenderError {
    /// Stable code.
    pub code: String,
    /// For people.
    pub message: String,
}

/// The stills of a template's scenes.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Stills {
    /// In the order of the scenes.
    pub data: Vec<SceneStill>,
    /// How they stand.
    pub counts: StillCounts,
}

/// How many stills stand how.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub struct StillCounts {
    /// Not begun, or to be tried again.
    pub queued: usize,
    /// Being rendered.
    pub running: usize,
    /// Without a picture.
    pub error: usize,
}

/// A scene and its newest still.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct SceneStill {
    /// The scene's id in the template.
    pub scene_key: String,
    /// The newest request for a still.
    pub job: Option<StillJob>,
}

/// A request for a still.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StillJob {
    /// `queued`, `running`, `done` or `error`.
    pub status: String,
    /// Where the still is.
    pub image_url: Option<String>,
    /// Why there is none.
    pub error: Option<RenderError>,
}

/// A finished film.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Export {
    /// Its id.
    pub id: String,
    /// Where it is.
    pub url: String,
    /// Its length.
    pub size_bytes: u64,
    /// Its hash, hexadecimal.
    pub sha256: String,
    /// Pictures of it, PNG.
    #[serde(default)]
    pub contact_sheet_url: Option<String>,
}

/// An uploaded file.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct UploadedFile {
    /// Its id.
    pub id: String,
    /// `image` or `audio`.
    #[serde(default)]
    pub kind: String,
}

/// A file or folder.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct Entry {
    /// Its id.
    pub id: uuid::Uuid,
    /// `file` or `folder`.
    pub object: String,
    /// Its name.
    pub name: String,
    /// Its length, of files.
    #[serde(default)]
    pub size_bytes: Option<u64>,
    /// Counts its changes.
    pub rev: i32,
}

/// A template.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Template {
    /// Its id, for whoever manages it.
    #[serde(default)]
    pub project_id: String,
    /// Its name in commands.
    pub slug: String,
    /// Its version.
    pub version: u32,
    /// For people, by language.
    #[serde(default)]
    pub title: BTreeMap<String, String>,
    /// For people, by language.
    #[serde(default)]
    pub description: BTreeMap<String, String>,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames a second.
    pub fps: f64,
    /// Length of the film when nothing is changed.
    pub duration_seconds: f64,
}

/// A page of a list.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct List<T> {
    /// The things.
    pub data: Vec<T>,
}

/// RFC 9457: why the server refused.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct Problem {
    /// Stable code.
    #[serde(default)]
    pub code: String,
    /// What kind of problem.
    #[serde(default)]
    pub title: String,
    /// What it is about this time.
    #[serde(default)]
    pub detail: String,
    /// HTTP status.
    #[serde(default)]
    pub status: u16,
    /// One for each wrong field.
    #[serde(default)]
    pub errors: Vec<FieldProblem>,
    /// All that the server said, when it was JSON.
    #[serde(skip)]
    pub body: Value,
}

/// What is wrong with a field.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
pub struct FieldProblem {
    /// Where in the body, such as `/data/texts/title`.
    #[serde(default)]
    pub pointer: String,
    /// Stable code.
    #[serde(default)]
    pub code: String,
    /// For people.
    #[serde(default)]
    pub detail: String,
}

impl Problem {
    /// Reads the body of a refusal; anything but a problem is shown by its status alone.
    pub fn read(status: u16, body: &[u8]) -> Self {
        let body: Value = serde_json::from_slice(body).unwrap_or_default();
        let mut problem: Self = serde_json::from_value(body.clone()).unwrap_or_default();
        problem.status = status;
        problem.body = body;
        if problem.code.is_empty() {
            problem.code = format!("http.{status}");
        }
        if problem.title.is_empty() {
            problem.title = format!("the server answered {status}");
        }
        problem
    }

    /// As the server said it, with what every problem has.
    pub fn json(&self) -> Value {
        let mut all = self.body.as_object().cloned().unwrap_or_default();
        all.entry("type").or_insert_with(|| "about:blank".into());
        all.entry("title").or_insert_with(|| self.title.as_str().into());
        all.entry("status").or_insert_with(|| self.status.into());
        all.entry("code").or_insert_with(|| self.code.as_str().into());
        Value::Object(all)
    }
}

impl fmt::Display for Problem {
    /// `detail: field: why; other: why (code)`, on one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let said = if self.detail.is_empty() { &self.title } else { &self.detail };
        let fields = self.errors.iter().map(FieldProblem::to_string).collect::<Vec<_>>().join("; ");
        // A detail that repeats what is wrong with a field is not said as well.
        let repeats = self.errors.iter().any(|e| !e.detail.is_empty() && said.contains(&e.detail));
        match (fields.is_empty(), repeats) {
            (true, _) => f.write_str(said.trim_end_matches('.'))?,
            (false, true) => f.write_str(&fields)?,
            (false, false) => write!(f, "{}: {fields}", said.trim_end_matches('.'))?,
        }
        write!(f, " ({})", self.code)
    }
}

impl fmt::Display for FieldProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let field = self.pointer.trim_start_matches('/').replace('/', ".");
        let detail = self.detail.trim_end_matches('.');
        if field.is_empty() || detail.contains(&field) { f.write_str(detail) } else { write!(f, "{field}: {detail}") }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_one_line_with_its_fields_and_code() {
        let body = br#"{"code": "render.invalid", "detail": "The data does not fit the template.",
            "errors": [{"pointer": "/data/texts/title", "code": "required", "detail": "a text is needed"}]}"#;
        let line = Problem::read(422, body).to_string();
        assert_eq!(line, "The data does not fit the template: data.texts.title: a text is needed (render.invalid)");
    }

    #[test]
    fn nothing_is_said_twice() {
        let body = br#"{"code": "request.invalid", "detail": "text \"title\" is required (and 1 more, see errors)",
            "errors": [{"pointer": "/data/texts/title", "detail": "text \"title\" is required"},
                       {"pointer": "/data/texts/tag", "detail": "text \"tag\" is required"}]}"#;
        let line = Problem::read(422, body).to_string();
        let (a, b) = ("data.texts.title: text \"title\" is required", "data.texts.tag: text \"tag\" is required");
        assert_eq!(line, format!("{a}; {b} (request.invalid)"));
    }

    #[test]
    fn a_page_of_a_proxy_is_shown_by_its_status() {
        let problem = Problem::read(502, b"<html>");
        assert_eq!(problem.to_string(), "the server answered 502 (http.502)");
        let title = "the server answered 502";
        let json = serde_json::json!({"type": "about:blank", "title": title, "status": 502, "code": "http.502"});
        assert_eq!(problem.json(), json);
    }

    #[test]
    fn programs_are_told_all_that_the_server_said() {
        let body = serde_json::json!({"type": "https://x/docs", "title": "No", "status": 409, "code": "a.b",
            "detail": "why", "request_id": "7"});
        assert_eq!(Problem::read(409, body.to_string().as_bytes()).json(), body);
    }
}
