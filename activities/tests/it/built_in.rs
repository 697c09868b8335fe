//! The same driver with the built-in renderer: its arguments, codes and frames are what the driver expects.
//!
//! The program belongs to another package, so cargo builds it for a test of the whole workspace only.

use crate::world::{SIZE, Stage, blob, zip};
use flatrender_activities::agent::{AgentConfig, probe};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf};

/// The renderer beside the tests; none when it was not built.
fn program() -> Option<PathBuf> {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.ancestors().nth(2).unwrap();
    let program = folder.join(format!("flatrender-aerender{}", std::env::consts::EXE_SUFFIX));
    let built = program.is_file();
    if !built {
        eprintln!("not run: {} is not built", program.display());
    }
    built.then_some(program)
}

/// Thirty frames of a coloured solid.
fn document() -> Value {
    let [width, height] = SIZE;
    let place = json!({
        "a": {"a": 0, "k": [0, 0, 0]}, "p": {"a": 0, "k": [0, 0, 0]}, "s": {"a": 0, "k": [100, 100, 100]},
        "r": {"a": 0, "k": 0}, "o": {"a": 0, "k": 100}
    });
    json!({
        "v": "5.7.0", "nm": "main", "fr": 30, "ip": 0, "op": 30, "w": width, "h": height, "ddd": 0, "assets": [],
        "layers": [{
            "ty": 1, "nm": "color:primary", "ind": 1, "ip": 0, "op": 30, "st": 0, "sr": 1, "bm": 0,
            "sw": width, "sh": height, "sc": "#336699", "ks": place
        }]
    })
}

fn stage() -> Option<Stage> {
    let program = program()?;
    let mut stage = Stage::new(json!({}));
    let package = zip(&[("project.json", document().to_string().as_bytes())]);
    stage.shelf.add(&package);
    stage.wish.package = blob(&package);
    stage.wish.data.texts.clear();
    stage.aerender.renderers.insert("lottie", program);
    Some(stage)
}

#[tokio::test]
async fn the_built_in_renderer_makes_every_frame_in_the_customers_colour() {
    let Some(mut stage) = stage() else { return };
    stage.wish.data.colors.insert("primary".into(), "#0b3c5d".into());
    let rendered = stage.render().await.unwrap();
    assert_eq!((rendered.frames.len(), rendered.faults), (10, vec![]));
    let frames = stage.shelf.frames.lock().unwrap();
    let picture = image::load_from_memory(&frames[&10]).unwrap().to_rgb8();
    assert_eq!(picture.get_pixel(5, 5).0, [0x0b, 0x3c, 0x5d]);
}

#[tokio::test]
async fn the_built_in_renderers_refusals_are_for_good() {
    let Some(mut stage) = stage() else { return };
    stage.wish.data.texts.insert("titel".into(), "x".into());
    assert_eq!(stage.refused().await, ("render.unknown_field".into(), false));

    let Some(mut stage) = self::stage() else { return };
    stage.wish.frames.last = 30;
    assert_eq!(stage.refused().await, ("render.frame_out_of_range".into(), false));

    let Some(mut stage) = self::stage() else { return };
    stage.wish.composition = "Main".into();
    assert_eq!(stage.refused().await, ("render.comp_not_found".into(), false));
}

#[tokio::test]
async fn the_built_in_renderer_passes_the_built_in_probe() {
    let Some(program) = program() else { return };
    let folder = tempfile::tempdir().unwrap();
    let config = AgentConfig::new("http://localhost", folder.path());
    let checks = probe::run(&config, &BTreeMap::from([("lottie", program)])).await;
    assert!(checks.len() == 1 && checks[0].ok, "{checks:?}");
}
