//! Texts in the pixels: joined, from the right, shrunk; and fonts and characters that are not there.

use serde_json::{Value, json};

use crate::world::{Package, Run, document, ink, solid};

/// A centred text of 20 pixels on white.
fn text(name: &str, more: Value) -> Value {
    let mut style =
        json!({"s": 20, "f": "Vazirmatn-Bold", "t": "Own words", "j": 2, "tr": 0, "lh": 24, "ls": 0, "fc": [0, 0, 0]});
    style.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap_or_default());
    let layer = json!({"ty": 5, "nm": name, "ip": 0, "op": 10, "st": 0, "ks": {"p": {"a": 0, "k": [80, 50]}},
        "t": {"d": {"k": [{"s": style, "t": 0}]}, "p": {}, "m": {"g": 1, "a": {"a": 0, "k": [0, 0]}}, "a": []}});
    let mut document = document(json!([layer, solid("back", "#ffffff", 0, 10)]));
    document["fonts"] = json!({"list": [
        {"fName": "Vazirmatn-Bold", "fFamily": "Vazirmatn", "fStyle": "Bold", "ascent": 75},
        {"fName": "Other", "fFamily": "Nowhere Sans", "fStyle": "Regular", "ascent": 75}]});
    document
}

fn render(document: &Value, words: &str) -> Run {
    Package::new(document).fonts().data(json!({"texts": {"title": words}})).render(&["-e", "0"])
}

fn width(words: &str) -> u32 {
    let (left, right) = ink(&render(&text("txt:title", json!({})), words).ok().frame(0)).expect("ink");
    right - left + 1
}

#[test]
fn the_customer_s_words_are_in_the_pixels() {
    assert!(width("Hi") < width("Hello") && width("Hello") < width("Hello you"));
}

#[test]
fn a_text_takes_its_colour_token() {
    let package = Package::new(&text("txt:title@accent", json!({})))
        .fonts()
        .data(json!({"texts": {"title": "سلام"}, "colors": {"accent": "#ff0000"}}));
    let frame = package.render(&["-e", "0"]).ok().frame(0);
    assert!(frame.pixels().any(|pixel| pixel.0 == [255, 0, 0, 255]), "pure red");
    assert!(frame.pixels().all(|pixel| pixel.0[0] > 250), "and nothing but red on white");
}

#[test]
fn persian_letters_are_joined() {
    let (joined, apart) = (width("ببببب"), width("ب\u{200c}ب\u{200c}ب\u{200c}ب\u{200c}ب"));
    assert!(joined * 10 < apart * 8, "{joined} and {apart} pixels");
}

#[test]
fn lam_alef_is_a_ligature() {
    let (ligature, apart) = (width("سلام"), width("سل\u{200c}ام"));
    assert!(ligature < apart, "{ligature} and {apart} pixels");
}

#[test]
fn a_right_to_left_text_begins_at_the_right_of_a_left_justified_box() {
    let boxed = text("txt:title", json!({"j": 0, "ps": [-70, -20], "sz": [140, 40]}));
    let edges = |words: &str| ink(&render(&boxed, words).ok().frame(0)).expect("ink");
    let ((latin_left, _), (_, persian_right)) = (edges("Hi"), edges("سلام"));
    assert!(latin_left < 16 && persian_right > 144, "{latin_left} and {persian_right}");
}

#[test]
fn a_long_text_shrinks_until_it_fits_and_says_so() {
    let run = render(&text("txt:title", json!({})), "A title that is much longer than this").ok();
    let (left, right) = ink(&run.frame(0)).expect("ink");
    assert!(left >= 2 && right <= 157, "{left} to {right}");
    assert!(run.line("WARNING:").starts_with("texts.title: was shrunk to "), "{}", run.text);
}

#[test]
fn shrinking_has_an_end_and_says_so() {
    let run = render(&text("txt:title", json!({})), &"endless ".repeat(40)).ok();
    assert_eq!(run.line("WARNING:"), "texts.title: does not fit even at 40 % of its size");
}

#[test]
fn an_empty_text_draws_nothing() {
    for words in ["", "   ", "\u{200c}"] {
        assert_eq!(ink(&render(&text("txt:title", json!({})), words).ok().frame(0)), None);
    }
}

#[test]
fn a_missing_font_is_named_with_its_field() {
    let other = text("txt:title", json!({"f": "Other"}));
    let run = render(&other, "Hi");
    let error = "[render.missing_font] texts.title: font \"Nowhere Sans Regular\" is not in the package";
    assert_eq!(run.failure(), (9, error));
    let bare = Package::new(&text("txt:title", json!({}))).render(&[]);
    assert!(
        bare.failure().1.starts_with("[render.missing_font] texts.title: font \"Vazirmatn Bold\""),
        "no system fonts"
    );
}

#[test]
fn a_character_that_no_font_has_is_named_with_its_field() {
    for (words, character) in [("Hi 🙂", "\"🙂\" (U+1F642)"), ("漢字", "\"漢\" (U+6F22)")] {
        let run = render(&text("txt:title", json!({})), words);
        let (code, error) = run.failure();
        let expected = format!("[render.missing_glyph] texts.title: no font of the package has {character}");
        assert_eq!((code, error), (9, expected.as_str()));
    }
}

#[test]
fn a_text_that_is_not_shown_needs_no_font() {
    let package = Package::new(&text("txt:title?badge", json!({"f": "Other"})));
    package.data(json!({"visibility": {"badge": false}})).render(&["-e", "0"]).ok();
}

#[test]
fn words_come_in_one_after_the_other() {
    let mut document = text("txt:title", json!({"t": "ابر باد"}));
    document["layers"][0]["t"]["a"] = json!([{
        "s": {"t": 0, "b": 3, "sh": 2, "r": 1, "s": {"a": 0, "k": 0}, "e": {"a": 0, "k": 100},
              "o": {"a": 1, "k": [{"t": 0, "s": [-100]}, {"t": 8, "s": [100]}]}, "a": {"a": 0, "k": 100}},
        "a": {"o": {"a": 0, "k": 0}}}]);
    let run = Package::new(&document).fonts().render(&[]).ok();
    let widths = [0, 3, 9].map(|frame| ink(&run.frame(frame)).map_or(0, |(left, right)| right - left));
    assert!(widths[0] == 0 && widths[1] > 0 && widths[1] < widths[2], "{widths:?}");
}
