//! What templates need of a node and what nodes offer, as labels: a task is only given to a node that has them all.
//!
//! | label | a task needs it | a node offers it |
//! |---|---|---|
//! | `engine` = `after_effects` | which program renders | the renderer it has |
//! | `ae:24` = `1` | the project was saved by After Effects 24 | for every version up to its own: a newer one opens older projects |
//! | `font:Vazirmatn-Bold` = `1` | a font that is not in the package, by PostScript name | it is installed |
//! | `plugin:tc Particular` = `1` | an effect that does not come with After Effects, by match name | it is installed |

use crate::contracts::{render::Engine, template::Manifest};
use flatrender_engine::Labels;

/// Oldest After Effects that is used: 2022.
pub const OLDEST_AFTER_EFFECTS: u32 = 22;
/// Most fonts or plug-ins that are offered, and the longest name in bytes; what is more cannot be asked for.
pub const OFFERED: (usize, usize) = (4000, 120);

/// What a task of this template needs of a node beside its renderer. Nothing for the built-in renderer, and nothing that the
/// package carries.
pub fn needs(manifest: &Manifest) -> Labels {
    if manifest.kind != Engine::AfterEffects {
        return Labels::new();
    }
    let needed = &manifest.installed;
    named(&needed.fonts, &needed.plugins).chain(needed.after_effects.map(version)).collect()
}

/// What a node with these offers: main number of its newest After Effects, fonts by PostScript name, effects by match name.
pub fn offers(after_effects: Option<u32>, fonts: &[String], plugins: &[String]) -> Labels {
    let opens = after_effects.into_iter().flat_map(|newest| OLDEST_AFTER_EFFECTS..=newest.min(99));
    let (most, longest) = OFFERED;
    let fits = |name: &&String| !name.is_empty() && name.len() <= longest && !name.contains(char::is_control);
    let (fonts, plugins): (Vec<String>, Vec<String>) = (
        fonts.iter().filter(fits).take(most).cloned().collect(),
        plugins.iter().filter(fits).take(most).cloned().collect(),
    );
    named(&fonts, &plugins).chain(opens.map(version)).collect()
}

/// A label as people read it: what a node lacks.
pub fn in_words(key: &str, value: &str) -> String {
    match key.split_once(':') {
        Some(("font", name)) => format!("the font {name}"),
        Some(("plugin", name)) => format!("the plug-in {name}"),
        Some(("ae", version)) => format!("After Effects {version} or newer"),
        _ if key == "engine" && value == Engine::AfterEffects.label() => "After Effects".to_owned(),
        _ if key == "engine" => format!("the renderer {value}"),
        _ => format!("the label {key}={value}"),
    }
}

fn named<'a>(fonts: &'a [String], plugins: &'a [String]) -> impl Iterator<Item = (String, String)> + 'a {
    let fonts = fonts.iter().map(|name| format!("font:{name}"));
    let plugins = plugins.iter().map(|name| format!("plugin:{name}"));
    fonts.chain(plugins).map(|key| (key, "1".to_owned()))
}

fn version(main: u32) -> (String, String) {
    (format!("ae:{main}"), "1".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn manifest(kind: &str, installed: &serde_json::Value) -> Manifest {
        let label = json!({"en": "x"});
        let scene = json!({"id": "a", "label": label, "frames": 9, "min_frames": 9, "max_frames": 9, "required": true,
                           "still_frame": 0});
        let manifest = json!({
            "format": 1, "slug": "p", "version": 1, "kind": kind, "title": label, "description": label,
            "composition": "main", "width": 64, "height": 36, "fps": 30, "transition_frames": 0,
            "fonts": [{"family": "V", "style": "Bold", "file": "fonts/v.ttf", "licence": "OFL-1.1"}],
            "scenes": [scene], "installed": installed
        });
        Manifest::parse(manifest.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_template_needs_what_its_package_does_not_carry() {
        assert_eq!(needs(&manifest("lottie", &json!({}))), Labels::new());
        assert_eq!(needs(&manifest("after_effects", &json!({}))), Labels::new());
        let installed = json!({"fonts": ["Futura-Bold"], "plugins": ["tc Particular"], "after_effects": 24});
        let needed: Vec<String> = needs(&manifest("after_effects", &installed)).into_keys().collect();
        assert_eq!(needed, ["ae:24", "font:Futura-Bold", "plugin:tc Particular"]);
    }

    #[test]
    fn a_newer_after_effects_offers_to_open_older_projects() {
        let offered: Vec<String> =
            offers(Some(24), &["A".into(), "x\n".into(), String::new()], &[]).into_keys().collect();
        assert_eq!(offered, ["ae:22", "ae:23", "ae:24", "font:A"]);
        assert_eq!(offers(Some(21), &[], &[]), Labels::new());
    }

    #[test]
    fn what_is_lacking_is_said_in_words() {
        let words: Vec<String> =
            [("font:Futura", "1"), ("plugin:x", "1"), ("ae:24", "1"), ("engine", "after_effects"), ("zone", "b")]
                .iter()
                .map(|(key, value)| in_words(key, value))
                .collect();
        assert_eq!(
            words,
            ["the font Futura", "the plug-in x", "After Effects 24 or newer", "After Effects", "the label zone=b"]
        );
    }
}
