//! `job.json`: what the script is to fill in, in its own format. All of it is ASCII, and lists of records rather than
//! objects, so that no word of a customer's is ever a name in a program.

use super::{Folder, is_plain_path};
use crate::aerender::command::OUTPUT_PATTERN;
use flatrender_engine::Failure;
use flatrender_workflows::contracts::render::{Fit, RenderFrames};
use serde::{Deserialize, Serialize};
use std::{fs, io, path::Path};
use uuid::Uuid;

/// A file that a package may hold: the ids of layers, as an earlier preparation told them ([`Target`]).
const TARGETS: &str = "targets.json";

/// The job, as the script reads it.
#[derive(Debug, Clone, Serialize)]
pub struct Job<'a> {
    format: u32,
    /// Which attempt it is of; the manifest repeats it.
    pub job: Uuid,
    project: &'static str,
    prepared: &'static str,
    frames: String,
    composition: &'a str,
    composition_id: Option<u64>,
    stills: Option<&'a [Shot]>,
    size: [u32; 2],
    fps: u32,
    /// The words of each text.
    pub texts: Vec<Text>,
    images: Vec<Image<'a>>,
    colors: Vec<Color<'a>>,
    visibility: Vec<Shown<'a>>,
    scenes: Option<Vec<Scene<'a>>>,
    targets: Vec<Target>,
}

/// A still: a frame of a composition, from 0.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Shot {
    /// Of which composition.
    pub composition: String,
    /// Which frame of it.
    pub frame: u32,
}

/// The words of a text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Text {
    /// Its field.
    pub key: String,
    /// As the customer gave them; in the manifest, as After Effects took them.
    pub words: String,
}

#[derive(Debug, Clone, Serialize)]
struct Image<'a> {
    key: &'a str,
    file: String,
    fit: Fit,
}

#[derive(Debug, Clone, Serialize)]
struct Color<'a> {
    token: &'a str,
    rgb: [f64; 3],
}

#[derive(Debug, Clone, Serialize)]
struct Shown<'a> {
    key: &'a str,
    shown: bool,
}

#[derive(Debug, Clone, Serialize)]
struct Scene<'a> {
    id: &'a str,
    frames: u32,
}

/// The ids of a named layer, which stay when somebody renames or moves it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// `txt:KEY` or `img:KEY`.
    pub name: String,
    /// Id of its composition.
    pub comp: u64,
    /// Id of the layer in the project; 0 where the version of After Effects has none.
    pub layer: u64,
}

impl<'a> Job<'a> {
    /// The job of an attempt.
    ///
    /// # Errors
    /// `render.bad_data` and `render.unsafe_path` for data that the server should not have let through.
    pub fn of(attempt: Uuid, input: &'a RenderFrames, package: &Path) -> Result<Self, Failure> {
        let data = &input.data;
        let images = data.images.iter().map(|(key, image)| {
            let inside = is_plain_path(&image.file);
            let unsafe_path =
                || Failure::permanent("render.unsafe_path", format!("{:?} leaves its package", image.file));
            inside
                .then(|| Image { key, file: format!("package/{}", image.file), fit: image.fit })
                .ok_or_else(unsafe_path)
        });
        let colors = data.colors.iter().map(|(token, hex)| {
            let bad = || Failure::permanent("render.bad_data", format!("{hex:?} is no colour"));
            rgb(hex).map(|rgb| Color { token, rgb }).ok_or_else(bad)
        });
        let scenes = data.scenes.as_ref().map(|s| s.iter().map(|s| Scene { id: &s.id, frames: s.frames }).collect());
        Ok(Self {
            format: 1,
            job: attempt,
            project: super::PROJECT,
            prepared: super::PREPARED_PROJECT,
            frames: format!("frames/{OUTPUT_PATTERN}"),
            composition: &input.composition,
            composition_id: None,
            stills: None,
            size: input.size,
            fps: input.fps,
            texts: data.texts.iter().map(|(key, words)| Text { key: key.clone(), words: words.clone() }).collect(),
            images: images.collect::<Result<_, _>>()?,
            colors: colors.collect::<Result<_, _>>()?,
            visibility: data.visibility.iter().map(|(key, shown)| Shown { key, shown: *shown }).collect(),
            scenes,
            targets: targets(package),
        })
    }

    /// Shows these stills, one a frame, instead of the composition; the composition when there are none.
    #[must_use]
    pub fn showing(self, stills: &'a [Shot]) -> Self {
        Self { stills: (!stills.is_empty()).then_some(stills), ..self }
    }

    /// Writes the script and the job into the attempt's folder and removes what an earlier run left.
    ///
    /// # Errors
    /// What the file system says.
    pub fn write(&self, folder: &Folder) -> io::Result<()> {
        for name in [super::MANIFEST, super::STARTED, super::PREPARED_PROJECT] {
            match fs::remove_file(folder.attempt.join(name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        fs::write(folder.attempt.join(super::SCRIPT), super::SCRIPT_TEXT)?;
        fs::write(folder.attempt.join("job.json"), ascii(&serde_json::to_string(self).map_err(io::Error::other)?))
    }
}

/// Ids that the package keeps; a file that is none of ours keeps none.
fn targets(package: &Path) -> Vec<Target> {
    let text = fs::read(package.join(TARGETS)).unwrap_or_default();
    serde_json::from_slice(&text).unwrap_or_default()
}

/// `#rrggbb` as shares of 1.
fn rgb(hex: &str) -> Option<[f64; 3]> {
    let digits = hex.strip_prefix('#').filter(|d| d.len() == 6 && d.bytes().all(|b| b.is_ascii_hexdigit()))?;
    let number = u32::from_str_radix(digits, 16).ok()?;
    Some([16, 8, 0].map(|shift| f64::from(number >> shift & 0xFF) / 255.0))
}

/// JSON with everything beyond ASCII as `\u`; outside of strings JSON has nothing of the kind.
fn ascii(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if c.is_ascii() && c != '\u{7f}' {
            out.push(c);
        } else {
            c.encode_utf16(&mut [0; 2]).iter().for_each(|unit| out.push_str(&format!("\\u{unit:04x}")));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_colour_is_three_shares_of_one() {
        assert_eq!(rgb("#ff0033"), Some([1.0, 0.0, 0.2]));
        for bad in ["ff0033", "#ff003", "#ff00333", "#gg0033", "#ff\u{e9}3", ""] {
            assert_eq!(rgb(bad), None, "{bad}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_a_text_holds_its_json_is_ascii_and_means_the_same(words: String) {
            let json = serde_json::to_string(&words).unwrap();
            let ascii = ascii(&json);
            proptest::prop_assert!(ascii.bytes().all(|b| (0x20..0x7f).contains(&b)));
            proptest::prop_assert_eq!(serde_json::from_str::<String>(&ascii).unwrap(), words);
        }
    }
}
