//! Whatever a customer writes arrives in the project as it is, and nowhere else.

use crate::{prepare::Desk, world::after_effects_project};
use proptest::prelude::*;

/// Pieces that have broken scripts, paths and files before.
const HOSTILE: [&str; 24] = [
    "\"",
    "'",
    "\\",
    "\\u0041",
    "\r",
    "\n",
    "\r\n",
    "\u{2028}",
    "\u{2029}",
    "*/",
    "//",
    "</script>",
    "`${1}`",
    "\u{202e}",
    "\u{2066}",
    "\u{200f}",
    "\u{feff}",
    "\u{1f469}\u{200d}\u{1f680}",
    "\u{10ffff}",
    "\u{7f}",
    "\u{1}",
    "%s%n",
    "سلام",
    "__proto__",
];

fn words() -> impl Strategy<Value = String> {
    let piece =
        prop_oneof![3 => prop::sample::select(HOSTILE.as_slice()).prop_map(str::to_owned), 1 => any::<String>()];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat().replace('\0', ""))
}

/// What is asked for arrives in the project, and the manifest repeats it.
fn arrives(words: &str) {
    let mut desk = Desk::new(&after_effects_project());
    desk.wish.data.texts.insert("title".into(), words.into());
    let manifest = desk.run();
    let asked = words.replace("\r\n", "\r").replace('\n', "\r");
    assert_eq!((manifest.failures.len(), manifest.texts[0].words.as_str()), (0, asked.as_str()));
    let saved: serde_json::Value =
        serde_json::from_slice(&std::fs::read(desk.folder.package.join("prepared.aep")).unwrap()).unwrap();
    assert_eq!(saved["compositions"][0]["layers"][0]["words"], asked);
    let prepared = manifest.verdict(&desk.job()).unwrap();
    assert!(prepared.warnings.iter().all(|w| w.starts_with("render.text_overflow")), "{:?}", prepared.warnings);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_text_arrives_as_it_is(words in words()) {
        arrives(&words);
    }

    #[test]
    fn any_key_is_no_more_than_a_name(key in words(), words in words()) {
        let mut desk = Desk::new(&after_effects_project());
        desk.wish.data.texts.insert(key.clone(), words);
        let manifest = desk.run();
        if key != "title" {
            prop_assert_eq!(&manifest.failures[0].code, "unknown_field");
            prop_assert_eq!(&manifest.failures[0].object, &format!("txt:{key}"));
        }
    }
}

#[test]
fn a_text_of_100_kb_arrives_as_it_is() {
    let words = HOSTILE.concat().repeat(1000);
    arrives(&words[..words.floor_char_boundary(100 * 1024)]);
}
