//! The probe: what a node in quarantine has to show before it gets work again.

#[cfg(unix)]
use crate::world::Stage;
use crate::{
    agent::Scene,
    picture,
    world::{SIZE, limits, project, stand_in, until, zip},
};
#[cfg(unix)]
use flatrender_activities::agent::doctor;
use flatrender_activities::{
    aerender::process,
    agent::{
        AgentConfig,
        probe::{self, SHEET, Sheet},
    },
};
#[cfg(unix)]
use flatrender_workflows::contracts::render::FrameRange;
use flatrender_workflows::contracts::{node::Check, render::RenderData};
use serde_json::{Value, json};
use std::{collections::BTreeMap, path::PathBuf};

/// A probe for the stand-in, whose colours are off by `off`, in which `scenario` goes wrong.
pub fn package(folder: &tempfile::TempDir, scenario: &Value, off: u8) -> PathBuf {
    let data = serde_json::to_vec(&RenderData { version: 1, ..RenderData::default() }).unwrap();
    let color = |frame| {
        let [r, g, b, _] = picture::pixels("main", frame, &data, SIZE).get_pixel(SIZE[0] / 2, SIZE[1] / 2).0;
        [r.wrapping_add(off), g, b]
    };
    let sheet = Sheet { composition: "main".into(), size: SIZE, fps: 30, colors: (0..8).map(color).collect() };
    let files = [
        ("project.json", project().to_string()),
        ("scenario.json", scenario.to_string()),
        (SHEET, serde_json::to_string(&sheet).unwrap()),
    ];
    let path = folder.path().join("probe.zip");
    std::fs::write(&path, zip(&files.each_ref().map(|(name, text)| (*name, text.as_bytes())))).unwrap();
    path
}

async fn probed(scenario: Value, off: u8) -> Check {
    let folder = tempfile::tempdir().unwrap();
    let probe = Some(package(&folder, &scenario, off));
    let config = AgentConfig { probe, limits: limits(), ..AgentConfig::new("http://localhost", folder.path()) };
    probe::run(&config, &BTreeMap::from([("lottie", stand_in())])).await.pop().unwrap()
}

#[tokio::test]
async fn a_sound_renderer_passes() {
    let check = probed(json!({}), 0).await;
    assert!(check.ok && check.found.starts_with("4 frames"), "{check:?}");
}

#[tokio::test]
async fn wrong_colours_numbers_and_endings_are_each_found_with_what_to_do() {
    let cases = [
        (json!({}), 40, "node.other_pixels"),
        (json!({ "writes": "renumbered" }), 0, "render.wrong_numbers"),
        (json!({ "crash_at": 4 }), 0, "render.crashed"),
    ];
    for (scenario, off, found) in cases {
        let check = probed(scenario, off).await;
        assert!(!check.ok && check.fix.is_some() && check.found.contains(found), "{check:?}");
    }
}

#[tokio::test]
async fn a_node_in_quarantine_gets_work_once_it_has_passed_its_probe() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(json!({}), 15.0).await;
    scene.books.open().quarantined = true;
    scene.config.probe = Some(package(&folder, &json!({}), 0));
    scene.play().await;
    let ledger = scene.books.open();
    assert_eq!((ledger.probes.len(), ledger.claims), (1, 1));
}

#[tokio::test]
async fn a_node_that_fails_its_probe_gets_none_and_says_why() {
    let folder = tempfile::tempdir().unwrap();
    let mut scene = Scene::new(json!({}), 15.0).await;
    scene.books.open().quarantined = true;
    scene.config.probe = Some(package(&folder, &json!({}), 99));
    let (node, shutdown) = scene.start();
    until("it was probed twice", || scene.books.open().probes.len() == 2).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
    let ledger = scene.books.open();
    assert_eq!(ledger.claims, 0);
    assert!(ledger.probes[0].checks[0].found.contains("the colour"));
}

#[cfg(unix)]
#[tokio::test(flavor = "multi_thread")]
async fn a_node_with_after_effects_shows_by_its_probe_that_this_works_and_nothing_of_the_built_in_renderer() {
    let (folder, scene) = (tempfile::tempdir().unwrap(), Scene::new(json!({}), 15.0).await);
    let project = json!({
        "compositions": [{ "name": "main", "frames": 100, "size": SIZE, "layers": [] }],
        "queue": [{ "composition": "main", "span": [0, 4] }],
    });
    let mut stage = Stage::new(json!({}));
    stage.use_after_effects(&project, &json!({}));
    (stage.wish.data, stage.wish.assets) = (RenderData { version: 1, ..RenderData::default() }, Vec::new());
    stage.wish.frames = FrameRange { first: 0, last: 5 };
    stage.render().await.unwrap();
    let color = |png: &Vec<u8>| image::load_from_memory(png).unwrap().to_rgb8().get_pixel(SIZE[0] / 2, SIZE[1] / 2).0;
    let colors = stage.shelf.frames.lock().unwrap().values().map(color).collect();
    let sheet = serde_json::to_vec(&Sheet { composition: "main".into(), size: SIZE, fps: 30, colors }).unwrap();
    let probe = folder.path().join("probe.zip");
    let project = project.to_string();
    std::fs::write(
        &probe,
        zip(&[("project.aep", project.as_bytes()), ("scenario.json", b"{}"), (SHEET, sheet.as_slice())]),
    )
    .unwrap();
    let (after_effects, _) = crate::reel::listening_install(folder.path());
    let renderers = vec![stand_in(), after_effects];
    let config = AgentConfig { renderers, probe: Some(probe), ..scene.config.clone() };
    let checks = doctor::look(&config, &doctor::Places::default()).await;
    let probes: Vec<_> =
        checks.iter().filter(|c| c.name.starts_with("probe")).map(|c| (c.name.as_str(), c.ok)).collect();
    assert_eq!(probes, [("probe:after_effects", true)], "{checks:?}");
}

#[tokio::test]
async fn what_a_probe_left_that_was_cut_off_is_cleared_away_at_the_next_start() {
    let scene = crate::agent::Scene::new(json!({}), 15.0).await;
    let mark = probe::mark(&scene.config);
    let hanging = process::CommandLine {
        program: "/bin/sleep".into(),
        args: vec!["600".into()],
        folder: scene.data.path().to_owned(),
        env: Vec::new(),
    };
    // Its agent was killed: nobody is left to end it.
    std::mem::forget(process::Tree::spawn(&hanging, mark).unwrap());
    let folder = scene.data.path().join("probe-x/cache");
    std::fs::create_dir_all(&folder).unwrap();
    scene.play().await;
    assert!(!crate::agent::processes_left(mark) && !scene.data.path().join("probe-x").exists());
}
