//! The fonts a package brings; the machine's own are never used, so a text looks the same on every node.

use std::sync::Arc;

use parley::{
    FontContext, FontStyle, LayoutContext,
    fontique::{Blob, Collection, CollectionOptions, FontInfo, FontInfoOverride, Script},
};
use serde_json::Value;
use skrifa::{FontRef, MetadataProvider, string::StringId};

use crate::{RenderError, lottie, package::Package};

/// Largest font file, in bytes.
const FILE_LIMIT_BYTES: u64 = 32 << 20;
/// Most font files in a package.
const FILE_LIMIT: usize = 64;
/// Scripts that may borrow a glyph from another font of the package than the one asked for.
const SCRIPTS: [&[u8; 4]; 8] = [b"Arab", b"Latn", b"Zyyy", b"Hebr", b"Cyrl", b"Grek", b"Zinh", b"Zsye"];

/// All fonts of a package, and the tools to lay out text with them.
pub(crate) struct Fonts {
    pub(super) context: FontContext,
    pub(super) layouts: LayoutContext<()>,
    /// Family names, in the order of the files.
    pub(super) families: Vec<String>,
    faces: Vec<Face>,
}

/// One font of the package.
struct Face {
    family: String,
    postscript_name: String,
    weights: (f32, f32),
    italic: bool,
}

/// A font that is there, as the layout asks for it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct FontChoice {
    pub(super) family: String,
    /// 100 to 900; 400 is regular, 700 bold.
    pub(super) weight: f32,
    pub(super) italic: bool,
    /// Height of the first baseline below a box's top, as a share of the size.
    pub(super) ascent: f64,
}

impl Fonts {
    /// Reads every font file in the package's `fonts` folder.
    pub(crate) fn open(package: &Package) -> Result<Self, RenderError> {
        let unreadable = |name: &str, reason: String| RenderError::MissingFont(format!("{name}: {reason}"));
        let names = package.list("fonts").map_err(|error| unreadable("fonts", error.to_string()))?;
        let files: Vec<String> = names.into_iter().filter(|name| is_font(name)).collect();
        if files.len() > FILE_LIMIT {
            return Err(unreadable("fonts", format!("more than {FILE_LIMIT} font files")));
        }
        let mut fonts = Self::none();
        for name in files {
            let bytes = package.read(&name, FILE_LIMIT_BYTES).map_err(|error| unreadable(&name, error.to_string()))?;
            if !fonts.add(bytes) {
                return Err(unreadable(&name, "not a font that we can read".into()));
            }
        }
        Ok(fonts)
    }

    pub(crate) fn none() -> Self {
        let collection = Collection::new(CollectionOptions { shared: false, system_fonts: false });
        let context = FontContext { collection, source_cache: Default::default() };
        Self { context, layouts: LayoutContext::new(), families: vec![], faces: vec![] }
    }

    /// Adds the fonts of one file; false when there are none in it.
    pub(crate) fn add(&mut self, bytes: Vec<u8>) -> bool {
        let blob = Blob::new(Arc::new(bytes));
        let added = self.context.collection.register_fonts(blob.clone(), None::<FontInfoOverride<'_>>);
        for (id, infos) in &added {
            let family = self.context.collection.family_name(*id).unwrap_or_default().to_owned();
            for script in SCRIPTS {
                self.context.collection.append_fallbacks(Script::from_bytes(*script), [*id].into_iter());
            }
            self.faces.extend(infos.iter().map(|info| Face::of(info, &family, blob.as_ref())));
            if !self.families.contains(&family) {
                self.families.push(family);
            }
        }
        !added.is_empty()
    }

    /// The font that a document's text calls `name`; the error says what is missing.
    pub(crate) fn choose(&self, document: &Value, name: &str) -> Result<FontChoice, String> {
        let entries = document.get("fonts").map_or(&[][..], |fonts| lottie::list(fonts, "list"));
        let entry = entries.iter().find(|entry| lottie::text(entry, "fName") == name);
        let (family, style) = entry.map_or((name, ""), |e| (lottie::text(e, "fFamily"), lottie::text(e, "fStyle")));
        let (weight, italic) = (weight(style), is_italic(style));
        let fits =
            |face: &&Face| face.family.eq_ignore_ascii_case(family) && face.italic == italic && face.has_weight(weight);
        let named = |face: &&Face| !name.is_empty() && face.postscript_name.eq_ignore_ascii_case(name);
        let ascent = entry.map_or(0.0, |entry| lottie::number_or(entry, "ascent", 0.0));
        let ascent = if ascent > 0.0 { ascent / 100.0 } else { 0.75 };
        if let Some(face) = self.faces.iter().find(fits) {
            return Ok(FontChoice { family: face.family.clone(), weight, italic, ascent });
        }
        if let Some(face) = self.faces.iter().find(named) {
            let weight = weight.clamp(face.weights.0, face.weights.1);
            return Ok(FontChoice { family: face.family.clone(), weight, italic: face.italic, ascent });
        }
        Err(format!("font \"{}\" is not in the package", format!("{family} {style}").trim()))
    }

    /// Whether some font of the package can draw `character`.
    pub(super) fn covers(&mut self, character: char) -> bool {
        let families: Vec<String> = self.families.clone();
        families.iter().any(|family| {
            let Some(info) = self.context.collection.family_by_name(family) else { return false };
            info.fonts().iter().any(|font| {
                let Some(blob) = font.load(Some(&mut self.context.source_cache)) else { return false };
                let font = FontRef::from_index(blob.as_ref(), font.index());
                font.is_ok_and(|font| font.charmap().map(character).is_some())
            })
        })
    }
}

impl Face {
    fn of(info: &FontInfo, family: &str, file: &[u8]) -> Self {
        let weight = info.weight().value();
        let axis = info.axes().iter().find(|axis| axis.tag.to_be_bytes() == *b"wght");
        let postscript_name = FontRef::from_index(file, info.index())
            .ok()
            .and_then(|font| font.localized_strings(StringId::POSTSCRIPT_NAME).english_or_first())
            .map(|name| name.chars().collect())
            .unwrap_or_default();
        Self {
            family: family.to_owned(),
            postscript_name,
            weights: axis.map_or((weight, weight), |axis| (axis.min, axis.max)),
            italic: info.style() != FontStyle::Normal || info.has_italic_axis() || info.has_slant_axis(),
        }
    }

    /// Foundries do not agree to the last digit on what "medium" weighs.
    fn has_weight(&self, weight: f32) -> bool {
        (self.weights.0 - 50.0..=self.weights.1 + 50.0).contains(&weight)
    }
}

fn is_font(name: &str) -> bool {
    let extension = name.rsplit('.').next().unwrap_or("").to_ascii_lowercase();
    matches!(extension.as_str(), "ttf" | "otf" | "ttc" | "otc")
}

fn is_italic(style: &str) -> bool {
    let style = style.to_ascii_lowercase();
    style.contains("italic") || style.contains("oblique")
}

/// The weight that a style's name means (the names of the OpenType specification, `usWeightClass`).
fn weight(style: &str) -> f32 {
    let style: String = style.to_ascii_lowercase().chars().filter(char::is_ascii_alphanumeric).collect();
    let names: [(&[&str], f32); 8] = [
        (&["extralight", "ultralight"], 200.0),
        (&["extrabold", "ultrabold"], 800.0),
        (&["semibold", "demibold", "demi"], 600.0),
        (&["thin", "hairline"], 100.0),
        (&["light"], 300.0),
        (&["medium"], 500.0),
        (&["black", "heavy"], 900.0),
        (&["bold"], 700.0),
    ];
    let found = names.iter().find(|(names, _)| names.iter().any(|name| style.contains(name)));
    found.map_or(400.0, |(_, weight)| *weight)
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// Vazirmatn Regular and Bold.
    pub(crate) fn vazirmatn() -> Fonts {
        let mut fonts = Fonts::none();
        assert!(fonts.add(include_bytes!("../../tests/fixtures/fonts/Vazirmatn-Regular.ttf").to_vec()));
        assert!(fonts.add(include_bytes!("../../tests/fixtures/fonts/Vazirmatn-Bold.ttf").to_vec()));
        fonts
    }

    fn chosen(style: &str) -> Result<f32, String> {
        let document = json!({"fonts": {"list": [{"fName": "F", "fFamily": "Vazirmatn", "fStyle": style}]}});
        vazirmatn().choose(&document, "F").map(|font| font.weight)
    }

    #[test]
    fn a_font_is_found_by_family_and_style() {
        assert_eq!((chosen("Bold"), chosen("Regular")), (Ok(700.0), Ok(400.0)));
    }

    #[test]
    fn another_weight_is_another_font_and_is_missing() {
        assert_eq!(chosen("Black"), Err("font \"Vazirmatn Black\" is not in the package".into()));
        assert!(chosen("Italic").is_err());
    }

    #[test]
    fn a_font_is_found_by_its_postscript_name() {
        assert_eq!(vazirmatn().choose(&json!({}), "Vazirmatn-Bold").map(|font| font.weight), Ok(700.0));
    }

    #[test]
    fn a_character_that_no_font_has_is_not_covered() {
        let mut fonts = vazirmatn();
        assert!(fonts.covers('س') && fonts.covers('W') && fonts.covers('۵'));
        assert!(!fonts.covers('漢') && !fonts.covers('🙂'));
    }
}
