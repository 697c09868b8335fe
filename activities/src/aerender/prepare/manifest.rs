//! `manifest.json`: what the script did and what it found missing, and what that means for the attempt.

use super::{Folder, Job, Prepared, job::Target, job::Text};
use crate::aerender::{account, classes, classes::Class, classify};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::evidence::Evidence;
use serde::Deserialize;
use std::{fs::File, io::Read, path::Path};

/// Longest manifest that is read.
const MOST_BYTES: u64 = 32 << 20;
/// Things of one class that are named in a message.
const NAMED: usize = 5;
/// Things of one class that are told one by one.
const TOLD: usize = 20;
/// Longest name or message of a project that is repeated, in characters.
const SHOWN_CHARS: usize = 200;

/// What the script says.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Manifest {
    /// The attempt it is of.
    pub job: String,
    /// The project was prepared and saved.
    pub ok: bool,
    /// Version of After Effects.
    pub version: String,
    /// Number of the render queue item, from 1.
    pub item: u32,
    /// The texts as they stand in the project.
    pub texts: Vec<Text>,
    /// Where each text and picture was found.
    pub targets: Vec<Target>,
    /// The fonts of the project.
    pub fonts: Fonts,
    /// Why the project cannot be rendered.
    pub failures: Vec<Finding>,
    /// What is noted of it.
    pub warnings: Vec<Finding>,
}

/// Fonts as After Effects sees them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Fonts {
    /// This version tells which are missing.
    pub checked: bool,
    /// PostScript names of those that are used; empty where the version does not tell.
    pub used: Vec<String>,
}

/// One thing that the script found.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct Finding {
    /// What kind of thing.
    pub code: String,
    /// What it concerns, by the template's own names.
    pub object: String,
    /// More, or what After Effects said.
    pub message: String,
}

impl Manifest {
    /// The manifest of an attempt; none when it is not there, not whole or another one's.
    pub fn read(folder: &Folder, job: &Job<'_>) -> Option<Self> {
        let manifest = Self::open(&folder.attempt.join(super::MANIFEST))?;
        (manifest.job == job.job.to_string()).then_some(manifest)
    }

    fn open(path: &Path) -> Option<Self> {
        let mut text = Vec::new();
        File::open(path).ok()?.take(MOST_BYTES).read_to_end(&mut text).ok()?;
        serde_json::from_slice(&text).ok()
    }

    /// What may be rendered.
    ///
    /// # Errors
    /// What keeps the project from being rendered as it should be. It names everything of the first kind found.
    pub fn verdict(&self, job: &Job<'_>) -> Result<Prepared, Failure> {
        if let Some(first) = self.failures.first() {
            return Err(self.failure(first));
        }
        if !self.ok || self.item == 0 {
            return Err(self.of_class(classes::PREPARE_FAILED, &[]));
        }
        let mut warnings: Vec<String> = self.warnings.iter().filter_map(warning).collect();
        let altered = job.texts.iter().filter(|asked| !self.texts.iter().any(|t| is_same(asked, t)));
        warnings.extend(altered.map(|t| noted(classes::TEXT_ALTERED, &t.key)));
        Ok(Prepared { item: self.item, warnings })
    }

    fn failure(&self, first: &Finding) -> Failure {
        // The application's own words may tell more than the script knows.
        let told = Some(&first.message).filter(|_| first.code == "bad_project" || first.code == "script_error");
        let class = told.and_then(|words| classify::by_words(words)).unwrap_or_else(|| class(&first.code));
        let alike: Vec<&Finding> = self.failures.iter().filter(|f| f.code == first.code).take(TOLD).collect();
        self.of_class(class, &alike)
    }

    fn of_class(&self, class: Class, findings: &[&Finding]) -> Failure {
        let objects: Vec<String> = findings.iter().map(|f| shown(&f.object)).collect();
        let said: Vec<String> =
            findings.iter().map(|f| format!("{}: {}", shown(&f.object), shown(&f.message))).collect();
        let named = objects[..objects.len().min(NAMED)].join(", ");
        let more = if objects.len() > NAMED { ", …" } else { "" };
        let message =
            if named.is_empty() { class.message.to_owned() } else { format!("{}: {named}{more}", class.message) };
        let evidence = Evidence {
            signature: account::signature(class.code, Some("prepare"), said.first().map(String::as_str)),
            objects,
            version: Some(shown(&self.version)),
            errors: said,
            ..Evidence::bare(class.code, class.number, class.cure)
        };
        account::of(class, message, evidence)
    }
}

/// The class of a kind of finding.
fn class(code: &str) -> Class {
    match code {
        "comp_not_found" => classes::COMP_NOT_FOUND,
        "missing_font" => classes::MISSING_FONT,
        "missing_footage" => classes::MISSING_FOOTAGE,
        "missing_effect" => classes::MISSING_EFFECT,
        "foreign_path" => classes::BAD_PACKAGE,
        "bad_project" => classes::BAD_PROJECT,
        "bad_media" => classes::BAD_MEDIA,
        "stale_span" => classes::STALE_SPAN,
        "ambiguous_name" => classes::AMBIGUOUS_NAME,
        "unknown_field" => classes::UNKNOWN_FIELD,
        "unsupported" => classes::UNSUPPORTED,
        "expression_error" => classes::EXPRESSION_ERROR,
        "no_queue_item" => classes::NO_QUEUE_ITEM,
        "wrong_rate" => classes::WRONG_RATE,
        _ => classes::SCRIPT_FAILED,
    }
}

fn warning(finding: &Finding) -> Option<String> {
    let class = match finding.code.as_str() {
        "text_overflow" => classes::TEXT_OVERFLOW,
        "expression_disabled" => classes::EXPRESSION_DISABLED,
        _ => return None,
    };
    Some(noted(class, &finding.object))
}

fn noted(class: Class, object: &str) -> String {
    format!("{} ({})", class.note(), shown(object))
}

/// A project's text has `\r` for every line break.
fn is_same(asked: &Text, taken: &Text) -> bool {
    asked.key == taken.key && asked.words.replace("\r\n", "\r").replace('\n', "\r") == taken.words
}

fn shown(text: &str) -> String {
    text.chars().filter(|c| !c.is_control()).take(SHOWN_CHARS).collect()
}
