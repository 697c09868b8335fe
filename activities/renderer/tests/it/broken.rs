//! Broken documents: each is a clear error, none ends the program by a signal or a panic.

use serde_json::{Value, json};

use crate::world::{Package, document, moving_square, solid};

fn refused(bytes: &[u8]) -> String {
    let run = Package::raw(bytes).render(&[]);
    let (code, error) = run.failure();
    assert_eq!(code, 9);
    error.to_owned()
}

#[test]
fn what_is_no_lottie_document_is_a_bad_project() {
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    for bytes in [&b""[..], b"{", b"[]", b"null", b"\x00\xff", b"{\"layers\": 3}", b"{\"w\": 10}", deep.as_bytes()] {
        let error = refused(bytes);
        assert!(error.starts_with("[render.bad_project]"), "{error}");
    }
}

#[test]
fn limits_are_told() {
    let with = |change: fn(&mut Value)| {
        let mut document = document(json!([solid("back", "#ffffff", 0, 10)]));
        change(&mut document);
        refused(document.to_string().as_bytes())
    };
    assert!(with(|d| d["w"] = json!(8193)).contains("1 to 8192 pixels"));
    assert!(with(|d| d["op"] = json!(100_001)).contains("1 to 100000 frames"));
    assert!(with(|d| d["fr"] = json!(0)).contains("frame rate"));
    assert!(with(|d| d["layers"] = json!([{"ty": 0, "refId": "none"}])).contains("which is absent"));
    assert!(with(|d| d["v"] = json!("4.12.0")).contains("Bodymovin 4"));
}

#[test]
fn a_document_beyond_its_bound_is_refused() {
    let mut bytes = document(json!([])).to_string().into_bytes();
    bytes.resize((32 << 20) + 1, b' ');
    assert!(refused(&bytes).contains("larger than 32 MB"));
}

#[test]
fn a_broken_font_is_named() {
    let run = Package::new(&document(json!([]))).file("fonts/bad.ttf", b"not a font").render(&[]);
    assert!(run.failure().1.starts_with("[render.missing_font] fonts/bad.ttf"), "{}", run.text);
}

#[test]
fn values_of_the_wrong_kind_never_end_the_program() {
    let good = document(json!([moving_square(), solid("back", "#ffffff", 0, 10)]));
    for wrong in [Value::Null, json!("x"), json!(-1e30), json!([{}])] {
        for path in paths(&good) {
            let mut broken = good.clone();
            *broken.pointer_mut(&path).unwrap() = wrong.clone();
            let composition = broken["nm"].as_str().filter(|name| !name.is_empty()).unwrap_or("main").to_owned();
            let run = Package::new(&broken).render_comp(&composition, &["-s", "0", "-e", "0", "-v", "ERRORS"]);
            assert!([0, 7, 9].contains(&run.code), "{path} = {wrong}: {}", run.text);
            assert!(!run.text.contains("broke down"), "{path} = {wrong}: {}", run.text);
        }
    }
}

/// Every place in the document, as a JSON pointer.
fn paths(value: &Value) -> Vec<String> {
    let children: Vec<(String, &Value)> = match value {
        Value::Array(items) => items.iter().enumerate().map(|(n, item)| (n.to_string(), item)).collect(),
        Value::Object(entries) => entries.iter().map(|(key, entry)| (key.clone(), entry)).collect(),
        _ => vec![],
    };
    let deeper = children.into_iter().flat_map(|(key, child)| {
        let below = paths(child).into_iter().map(move |path| format!("/{key}{path}"));
        below.collect::<Vec<_>>()
    });
    std::iter::once(String::new()).chain(deeper).collect()
}
