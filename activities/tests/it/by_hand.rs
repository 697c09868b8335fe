//! The program that proves a template or an After Effects by hand, with the stand-in in the place of After Effects.

use crate::world::{SIZE, Stage, after_effects_project, drawn_prepared, zip};
use serde_json::{Value, json};
use std::{fs, path::Path, process::Command};

fn render_package(scenario: &Value) -> (bool, Value, tempfile::TempDir) {
    let mut stage = Stage::new(json!({}));
    stage.use_after_effects(&after_effects_project(), &json!({}));
    let out = tempfile::tempdir().unwrap();
    let at = |name: &str| out.path().join(name);
    let package = zip(&[
        ("project.aep", after_effects_project().to_string().as_bytes()),
        ("images/photo.jpg", b"the designer's"),
        ("scenario.json", scenario.to_string().as_bytes()),
    ]);
    fs::write(at("package.zip"), package).unwrap();
    fs::write(at("logo.png"), b"a logo").unwrap();
    let order = json!({
        "engine": "after_effects", "composition": "main", "frames": [3, 5], "size": SIZE, "fps": 30,
        "data": { "version": 1, "texts": { "title": "Hello" }, "images": { "photo": { "file": "assets/logo.png", "fit": "cover" } } },
        "files": { "assets/logo.png": "logo.png" },
    });
    fs::write(at("order.json"), order.to_string()).unwrap();
    let program = crate::world::stand_in().with_file_name(format!("render_package{}", std::env::consts::EXE_SUFFIX));
    let mut command = Command::new(program);
    command.arg(&stage.aerender.renderers["after_effects"]).args(["package.zip", "order.json", "out"].map(at));
    let output = command.output().unwrap();
    let said = serde_json::from_slice(&output.stdout).unwrap_or_else(|e| panic!("{e}: {output:?}"));
    (output.status.success(), said, out)
}

#[test]
fn a_package_is_rendered_by_hand_as_a_node_would() {
    let (well, said, out) = render_package(&json!({}));
    assert!(well, "{said}");
    let prepared = out.path().join("out/attempt/package/prepared.aep");
    for frame in 3..=5 {
        let stored = fs::read(out.path().join(format!("out/stored/frame_{frame:05}.png"))).unwrap();
        assert_eq!(stored, drawn_prepared(Path::new(&prepared), "main", frame));
    }
}

#[test]
fn what_went_wrong_by_hand_is_told_with_its_evidence() {
    let (well, said, _out) = render_package(&json!({ "name": "prepare_missing_font" }));
    assert_eq!(
        (well, &said["code"], &said["details"]["cure"]),
        (false, &json!("render.missing_font"), &json!("block"))
    );
    assert_eq!(said["details"]["objects"], json!(["Vazirmatn-Bold"]));
}
