//! The manifest of a template: what a customer may fill in, within which limits, and how long the film gets.
//!
//! `template.json` of a package. Reading one proves that it is complete and consistent in itself; whether the
//! project honours it is proved by rendering.

use super::render::{Engine, Fit};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};

/// Longest names of [`Installed`] together, so that they fit into the labels of a task, and what each takes beside itself.
const INSTALLED_BYTES: usize = 1900;
const NAMED_BYTES: usize = 16;

/// Words by language tag, `en` always among them.
pub type Label = BTreeMap<String, String>;

/// `template.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of this format: 1.
    pub format: u32,
    /// Name in addresses and commands, `[a-z0-9-]{1,64}`.
    pub slug: String,
    /// The designer's version, from 1.
    pub version: u32,
    /// Which program renders it.
    pub kind: Engine,
    /// Title for people.
    pub title: Label,
    /// One or two sentences for people.
    pub description: Label,
    /// Name of the main composition.
    pub composition: String,
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// Frames a second.
    pub fps: u32,
    /// Frames that consecutive scenes share.
    pub transition_frames: u32,
    /// Every font the texts use.
    pub fonts: Vec<Font>,
    /// Text fields.
    #[serde(default)]
    pub texts: Vec<TextField>,
    /// Picture slots.
    #[serde(default)]
    pub images: Vec<ImageSlot>,
    /// Colour tokens.
    #[serde(default)]
    pub colors: Vec<ColorToken>,
    /// Ready sets of colours.
    #[serde(default)]
    pub themes: Vec<Theme>,
    /// Things that can be shown or hidden.
    #[serde(default)]
    pub visibility: Vec<VisibilityKey>,
    /// Scenes in the template's own order.
    pub scenes: Vec<Scene>,
    /// The template's own sound.
    #[serde(default)]
    pub audio: TemplateAudio,
    /// Example data in the package.
    #[serde(default)]
    pub samples: Vec<Sample>,
    /// What the package does not carry and a node must have; for After Effects only.
    #[serde(default, skip_serializing_if = "Installed::is_empty")]
    pub installed: Installed,
}

/// What must be installed on a machine that renders a template.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Installed {
    /// PostScript names of fonts that are no files of the package.
    #[serde(default)]
    pub fonts: Vec<String>,
    /// Match names of effects that do not come with After Effects.
    #[serde(default)]
    pub plugins: Vec<String>,
    /// Main number of the After Effects that saved the project, such as 24; an older one cannot open it.
    #[serde(default)]
    pub after_effects: Option<u32>,
}

impl Installed {
    /// Nothing is needed.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// A font file of the package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Font {
    /// Family name.
    pub family: String,
    /// Style name.
    pub style: String,
    /// Path in the package.
    pub file: String,
    /// SPDX identifier.
    pub licence: String,
}

/// A text the customer may give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextField {
    /// Key in the data.
    pub key: String,
    /// Scene that shows it.
    pub scene: String,
    /// For people.
    pub label: Label,
    /// Whether the customer has to give it.
    pub required: bool,
    /// Most characters (Unicode scalar values).
    pub max_chars: u32,
    /// Most lines the customer may break it into.
    pub max_lines: u32,
    /// The designer's words.
    pub default: String,
}

/// A picture the customer may give.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ImageSlot {
    /// Key in the data.
    pub key: String,
    /// Scene that shows it.
    pub scene: String,
    /// For people.
    pub label: Label,
    /// Whether the customer has to give it.
    pub required: bool,
    /// Width of the slot in pixels.
    pub width: u32,
    /// Height of the slot in pixels.
    pub height: u32,
    /// How a picture fills it.
    pub fit: Fit,
}

/// A colour the customer may change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ColorToken {
    /// Key in the data.
    pub key: String,
    /// For people.
    pub label: Label,
    /// `#rrggbb`.
    pub default: String,
}

/// A ready set of colours.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Theme {
    /// Id in the data.
    pub id: String,
    /// For people.
    pub label: Label,
    /// `#rrggbb` by token.
    pub colors: BTreeMap<String, String>,
}

/// Something that can be shown or hidden.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VisibilityKey {
    /// Key in the data.
    pub key: String,
    /// For people.
    pub label: Label,
    /// Shown when nothing is said.
    pub default: bool,
}

/// A scene of the film.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Scene {
    /// Id in the data; its composition is `scene:ID`.
    pub id: String,
    /// For people.
    pub label: Label,
    /// Its length in frames when nothing is said.
    pub frames: u32,
    /// Shortest length in frames.
    pub min_frames: u32,
    /// Longest length in frames.
    pub max_frames: u32,
    /// Whether it may not be left out.
    pub required: bool,
    /// The frame that shows it best, 0-based.
    pub still_frame: u32,
}

impl Scene {
    /// The composition that shows it alone.
    pub fn composition(&self) -> String {
        format!("scene:{}", self.id)
    }
}

/// The template's own sound.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TemplateAudio {
    /// Music, used when the customer gives none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub music: Option<Music>,
    /// Short sounds at places.
    #[serde(default)]
    pub effects: Vec<Effect>,
    /// Whether music is lowered under a voice-over.
    #[serde(default)]
    pub ducking: bool,
}

/// Music of the package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Music {
    /// Path in the package.
    pub file: String,
    /// 0 to 2.
    pub volume: f64,
    /// Seconds.
    pub fade_in: f64,
    /// Seconds before the end of the film.
    pub fade_out: f64,
}

/// A short sound of the package.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Effect {
    /// Path in the package.
    pub file: String,
    /// Heard only when this scene is in the film.
    pub scene: String,
    /// Seconds after the scene begins.
    pub at_seconds: f64,
    /// 0 to 2.
    pub volume: f64,
}

/// Example data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Language tag.
    pub locale: String,
    /// Path in the package.
    pub file: String,
}

/// What is wrong with a manifest, as one line.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("template.json: {0}")]
pub struct ManifestError(pub String);

impl Manifest {
    /// Reads and checks a manifest.
    ///
    /// # Errors
    /// The first thing that is wrong, naming the field.
    pub fn parse(json: &[u8]) -> Result<Self, ManifestError> {
        let manifest: Self = serde_json::from_slice(json).map_err(|e| ManifestError(e.to_string()))?;
        manifest.check()?;
        Ok(manifest)
    }

    /// The scene called `id`.
    pub fn scene(&self, id: &str) -> Option<&Scene> {
        self.scenes.iter().find(|s| s.id == id)
    }

    /// The frame of a film in the template's own order at which each scene begins.
    pub fn scene_starts(&self) -> impl Iterator<Item = (u32, &Scene)> {
        self.scenes.iter().scan(0, |next, scene| {
            let first = *next;
            *next += scene.frames - self.transition_frames;
            Some((first, scene))
        })
    }

    /// Frames of a film of scenes with these lengths: consecutive scenes share `transition_frames`.
    pub fn film_frames(&self, lengths: &[u32]) -> u32 {
        let shared = self.transition_frames * (lengths.len() as u32).saturating_sub(1);
        lengths.iter().sum::<u32>().saturating_sub(shared)
    }

    fn check(&self) -> Result<(), ManifestError> {
        let fail = |what: String| Err(ManifestError(what));
        if self.format != 1 {
            return fail(format!("format {} is not known, 1 is", self.format));
        }
        if !is_slug(&self.slug) {
            return fail("slug: only a-z, 0-9 and -, at most 64".into());
        }
        if !(1..=8192).contains(&self.width) || !(1..=8192).contains(&self.height) {
            return fail("width and height: 1 to 8192".into());
        }
        if !(1..=120).contains(&self.fps) {
            return fail("fps: 1 to 120".into());
        }
        if self.scenes.is_empty() {
            return fail("scenes: at least one".into());
        }
        self.check_keys()?;
        self.check_scenes()?;
        self.check_colors()?;
        self.check_installed()?;
        self.files().find(|f| !is_inside(f)).map_or(Ok(()), |f| fail(format!("file {f:?} is not inside the package")))
    }

    fn check_keys(&self) -> Result<(), ManifestError> {
        unique("texts", self.texts.iter().map(|f| &f.key))?;
        unique("images", self.images.iter().map(|f| &f.key))?;
        unique("colors", self.colors.iter().map(|f| &f.key))?;
        unique("visibility", self.visibility.iter().map(|f| &f.key))?;
        unique("scenes", self.scenes.iter().map(|s| &s.id))?;
        unique("themes", self.themes.iter().map(|t| &t.id))
    }

    fn check_scenes(&self) -> Result<(), ManifestError> {
        for s in &self.scenes {
            if !s.id.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'_' | b'-')) {
                return Err(ManifestError(format!("scenes.{:?}: only a-z, 0-9, _ and -", s.id)));
            }
            let ordered = s.min_frames <= s.frames && s.frames <= s.max_frames;
            if !ordered || s.min_frames <= 2 * self.transition_frames || s.still_frame >= s.frames {
                return Err(ManifestError(format!(
                    "scenes.{}: needs 2 × transition_frames < min ≤ frames ≤ max and still_frame < frames",
                    s.id
                )));
            }
        }
        let fields =
            self.texts.iter().map(|f| (&f.key, &f.scene)).chain(self.images.iter().map(|f| (&f.key, &f.scene)));
        let effects = self.audio.effects.iter().map(|e| (&e.file, &e.scene));
        for (name, scene) in fields.chain(effects) {
            if self.scene(scene).is_none() {
                return Err(ManifestError(format!("{name}: there is no scene {scene:?}")));
            }
        }
        Ok(())
    }

    fn check_colors(&self) -> Result<(), ManifestError> {
        let tokens = self.colors.iter().map(|c| (&c.key, &c.default));
        let themed = self.themes.iter().flat_map(|t| &t.colors);
        for (key, value) in tokens.chain(themed) {
            if !is_color(value) {
                return Err(ManifestError(format!("colors.{key}: {value:?} is not #rrggbb")));
            }
            if !self.colors.iter().any(|c| &c.key == key) {
                return Err(ManifestError(format!("themes: there is no colour {key:?}")));
            }
        }
        Ok(())
    }

    /// Labels of a task are few and short.
    fn check_installed(&self) -> Result<(), ManifestError> {
        let needed = &self.installed;
        if !needed.is_empty() && self.kind != Engine::AfterEffects {
            return Err(ManifestError("installed: the built-in renderer uses only what is in the package".into()));
        }
        unique("installed.fonts", needed.fonts.iter())?;
        unique("installed.plugins", needed.plugins.iter())?;
        let bytes: usize = needed.fonts.iter().chain(&needed.plugins).map(|name| name.len() + NAMED_BYTES).sum();
        if bytes > INSTALLED_BYTES {
            return Err(ManifestError(format!("installed: the names are longer than {INSTALLED_BYTES} bytes")));
        }
        let plain = |name: &String| name.chars().all(|c| !c.is_control() && c != '"' && c != '\\');
        match needed.fonts.iter().chain(&needed.plugins).find(|name| !plain(name)) {
            Some(name) => Err(ManifestError(format!("installed: {name:?} cannot be a name"))),
            None => Ok(()),
        }
    }

    /// Every path the manifest names.
    pub fn files(&self) -> impl Iterator<Item = &str> {
        let sound = self.audio.music.iter().map(|m| &m.file).chain(self.audio.effects.iter().map(|e| &e.file));
        let rest = self.fonts.iter().map(|f| &f.file).chain(self.samples.iter().map(|s| &s.file));
        sound.chain(rest).map(String::as_str)
    }
}

/// Whether `text` is `#rrggbb`.
pub fn is_color(text: &str) -> bool {
    text.len() == 7 && text.starts_with('#') && text[1..].bytes().all(|b| b.is_ascii_hexdigit())
}

/// Whether `text` can be the slug of a template.
pub fn is_slug(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    !text.is_empty() && text.len() <= 64 && text.bytes().all(fine)
}

fn is_inside(path: &str) -> bool {
    let plain = |part: &str| !part.is_empty() && part != "." && part != "..";
    !path.contains(['\\', ':', '\0']) && path.split('/').all(plain)
}

fn unique<'a>(what: &str, keys: impl Iterator<Item = &'a String>) -> Result<(), ManifestError> {
    let mut seen = BTreeSet::new();
    for key in keys {
        if key.is_empty() || key.len() > 64 {
            return Err(ManifestError(format!("{what}: a key has 1 to 64 characters")));
        }
        if !seen.insert(key) {
            return Err(ManifestError(format!("{what}.{key}: twice")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> serde_json::Value {
        let label = serde_json::json!({"en": "x"});
        serde_json::json!({
            "format": 1, "slug": "promo", "version": 1, "kind": "lottie", "title": label, "description": label,
            "composition": "main", "width": 1920, "height": 1080, "fps": 30, "transition_frames": 15,
            "fonts": [{"family": "V", "style": "Bold", "file": "fonts/v.ttf", "licence": "OFL-1.1"}],
            "texts": [{"key": "title", "scene": "a", "label": label, "required": true, "max_chars": 9, "max_lines": 1, "default": "T"}],
            "colors": [{"key": "primary", "label": label, "default": "#102030"}],
            "themes": [{"id": "t", "label": label, "colors": {"primary": "#000000"}}],
            "scenes": [{"id": "a", "label": label, "frames": 90, "min_frames": 60, "max_frames": 200, "required": true, "still_frame": 40}]
        })
    }

    fn refused(change: impl FnOnce(&mut serde_json::Value)) -> String {
        let mut json = sample();
        change(&mut json);
        Manifest::parse(json.to_string().as_bytes()).expect_err("must be refused").to_string()
    }

    #[test]
    fn a_sound_manifest_is_read() {
        let manifest = Manifest::parse(sample().to_string().as_bytes()).unwrap();
        assert_eq!(manifest.film_frames(&[90, 90, 60]), 210);
    }

    #[test]
    fn what_is_wrong_is_named() {
        assert!(refused(|j| j["texts"][0]["scene"] = "b".into()).contains("no scene \"b\""));
        assert!(refused(|j| j["fonts"][0]["file"] = "../v.ttf".into()).contains("not inside the package"));
        assert!(refused(|j| j["colors"][0]["default"] = "red".into()).contains("colors.primary"));
        assert!(refused(|j| j["scenes"][0]["min_frames"] = 30.into()).contains("scenes.a"));
        assert!(
            refused(|j| j["themes"][0]["colors"] = serde_json::json!({"x": "#000000"})).contains("no colour \"x\"")
        );
        assert!(refused(|j| j["colour"] = 1.into()).contains("colour"));
        let installed = |kind: &str, fonts: serde_json::Value| {
            refused(|j| {
                j["kind"] = kind.into();
                j["installed"] = serde_json::json!({"fonts": fonts});
            })
        };
        assert!(installed("lottie", ["A"].into()).contains("only what is in the package"));
        assert!(installed("after_effects", ["A", "A"].into()).contains("installed.fonts.A: twice"));
        assert!(installed("after_effects", ["A\u{7}"].into()).contains("cannot be a name"));
        let many: Vec<String> = (0..40).map(|n| format!("{n:060}")).collect();
        assert!(installed("after_effects", many.into()).contains("longer than"));
        assert!(refused(|j| j["scenes"][0]["id"] = "A b".into()).contains("scenes.\"A b\""));
    }
}
