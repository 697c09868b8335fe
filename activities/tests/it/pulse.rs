//! What a node says beside its work, and what it does when it is told to; and what its doctor finds.

use crate::{
    agent::{Scene, processes_left},
    ledger::{NEXT_CREDENTIAL, State},
    probe::package,
    world::{stand_in, until},
};
use flatrender_activities::agent::{
    AgentConfig,
    doctor::{self, Places},
};
use flatrender_workflows::contracts::node::{Check, Orders};
use serde_json::json;

#[tokio::test]
async fn a_node_says_what_it_has_and_then_how_it_fares() {
    let mut scene = Scene::new(json!({ "hang": { "frame": 15 } }), 15.0).await;
    scene.config.labels.insert("plugin:tc Particular".into(), "1".into());
    let (node, shutdown) = scene.start();
    scene.stored(5).await;
    until("it tells of its task and its package", || {
        scene
            .books
            .open()
            .healths
            .iter()
            .any(|h| h.running_tasks == 1 && h.cache.as_ref().is_some_and(|c| c.len() == 1))
    })
    .await;
    until("it goes on without news of its packages", || {
        scene.books.open().healths.last().is_some_and(|h| h.cache.is_none())
    })
    .await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
    let ledger = scene.books.open();
    let hello = &ledger.hellos[0];
    assert_eq!((ledger.hellos.len(), hello.incarnation), (1, ledger.healths[0].incarnation));
    assert_eq!(hello.capabilities.labels["plugin:tc Particular"], "1");
}

/// A renderer like the stand-in, of another version.
#[cfg(unix)]
fn renderer_of_version(path: &std::path::Path, version: &str) {
    use std::os::unix::fs::PermissionsExt as _;
    let script = format!(
        "#!/bin/sh\n[ \"$1\" = -version ] && echo 'aerender version {version} (FlatRender)' && exit\nexec '{}' \"$@\"\n",
        stand_in().display()
    );
    // As installers do: whoever starts it meanwhile finds it whole.
    let new = path.with_extension("new");
    std::fs::write(&new, script).unwrap();
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).unwrap();
    std::fs::rename(new, path).unwrap();
}

#[cfg(unix)]
#[tokio::test]
async fn a_renderer_that_is_updated_is_told_without_a_start_of_the_agent() {
    let mut scene = Scene::new(json!({}), 15.0).await;
    let program = scene.data.path().join("flatrender-aerender");
    renderer_of_version(&program, "1.0");
    (scene.config.renderers, scene.config.look_again) = (vec![program.clone()], std::time::Duration::from_millis(50));
    let (node, shutdown) = scene.start();
    let told =
        || scene.books.open().hellos.iter().map(|h| h.capabilities.renderers["lottie"].clone()).collect::<Vec<_>>();
    until("it says hello", || !told().is_empty()).await;
    let healths = scene.books.open().healths.len();
    until("it has looked again", || scene.books.open().healths.len() > healths + 5).await;
    assert_eq!(told(), ["aerender version 1.0 (FlatRender)"], "what is as it was is no news");
    renderer_of_version(&program, "1.1 of today");
    until("it says hello again", || told().len() == 2).await;
    assert_eq!(told()[1], "aerender version 1.1 of today (FlatRender)");
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

#[tokio::test]
async fn work_is_given_back_at_once_when_that_is_wanted() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 15.0).await;
    let (node, shutdown) = scene.start();
    scene.stored(5).await;
    let token = scene.token();
    scene.books.open().orders.give_back = true;
    until("the task is over", || scene.books.is_over()).await;
    assert!(!processes_left(token));
    let State::Done(rendered) = scene.books.state() else { panic!("the frames that are there are kept") };
    assert_eq!((rendered.frames.len(), rendered.faults.len()), (5, 5));
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

#[tokio::test]
async fn packages_are_forgotten_by_order_once_nobody_uses_them() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 15.0).await;
    let (node, shutdown) = scene.start();
    scene.stored(5).await;
    let package = scene.wish.package.sha256.clone();
    let there = scene.data.path().join(format!("cache/{package}.package"));
    scene.books.open().orders = Orders { evict: vec![package], ..Orders::default() };
    let told = scene.books.open().healths.len();
    until("it was told twice", || scene.books.open().healths.len() > told + 2).await;
    assert!(there.exists(), "an attempt uses it");
    scene.books.open().orders.give_back = true;
    until("it is forgotten", || !there.exists()).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

#[tokio::test]
async fn another_credential_is_kept_before_it_is_used() {
    let scene = Scene::new(json!({}), 15.0).await;
    scene.books.open().orders.rotate = true;
    scene.play().await;
    assert_eq!(scene.books.open().rotations, 1);
    let kept = std::fs::read_to_string(scene.data.path().join("credential.json")).unwrap();
    assert!(kept.contains(NEXT_CREDENTIAL), "{kept}");
}

fn failed(checks: &[Check]) -> Vec<&str> {
    assert!(checks.iter().all(|c| c.ok != c.fix.is_some()), "what is wrong comes with what to do: {checks:?}");
    checks.iter().filter(|c| !c.ok).map(|c| c.name.as_str()).collect()
}

#[tokio::test]
async fn a_sound_machine_has_nothing_to_mend() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(json!({}), 15.0).await;
    scene.play().await;
    let config = AgentConfig { probe: Some(package(&folder, &json!({}), 0)), ..scene.config.clone() };
    let checks = doctor::look(&config, &Places::default()).await;
    assert_eq!(failed(&checks), [""; 0]);
    let names: Vec<&str> = checks.iter().map(|c| c.name.as_str()).collect();
    assert_eq!(names, ["folder", "disk", "server", "clock", "credential", "renderer", "fonts", "probe:lottie"]);
}

#[tokio::test]
async fn the_doctor_disturbs_no_node_that_is_at_work() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 15.0).await;
    let (node, shutdown) = scene.start();
    scene.stored(5).await;
    let checks = doctor::look(&scene.config, &Places::default()).await;
    let names: Vec<&str> = checks.iter().map(|c| c.name.as_str()).collect();
    assert_eq!((failed(&checks), names.last()), (vec![], Some(&"probe")), "{checks:?}");
    let one = scene.books.open().hellos[0].incarnation;
    assert!(scene.books.open().healths.iter().all(|health| health.incarnation == one), "nobody else speaks for it");
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

#[tokio::test]
async fn each_thing_that_is_wrong_with_a_machine_is_found() {
    let folder = tempfile::tempdir().unwrap();
    let scene = Scene::new(json!({}), 15.0).await;
    scene.play().await;
    let well = AgentConfig { probe: Some(package(&folder, &json!({}), 0)), ..scene.config.clone() };
    let found = async |config: AgentConfig| doctor::look(&config, &Places::default()).await;
    let full = AgentConfig { disk_reserve_bytes: u64::MAX, ..well.clone() };
    assert_eq!(failed(&found(full).await), ["disk"]);
    let colours = AgentConfig { probe: Some(package(&folder, &json!({}), 90)), ..well.clone() };
    assert_eq!(failed(&found(colours).await), ["probe:lottie"]);
    let numbers = AgentConfig { probe: Some(package(&folder, &json!({ "writes": "renumbered" }), 0)), ..well.clone() };
    assert_eq!(failed(&found(numbers).await), ["probe:lottie"]);
    let none = AgentConfig { renderers: vec!["/nowhere/aerender".into()], ..well.clone() };
    assert_eq!(failed(&found(none).await), ["renderer"]);
    let away = AgentConfig { server: "http://127.0.0.1:9".into(), ..well.clone() };
    assert_eq!(failed(&found(away).await)[0], "server");
    let file = folder.path().join("a file");
    std::fs::write(&file, b"").unwrap();
    let folder = AgentConfig { data: file, token: None, ..well.clone() };
    let checks = found(folder).await;
    assert_eq!(failed(&checks)[..2], ["folder", "credential"], "{checks:?}");
    let path = scene.data.path().join("credential.json");
    std::fs::write(&path, std::fs::read_to_string(&path).unwrap().replace("secret", "revoked")).unwrap();
    let probe = AgentConfig { renderers: vec![stand_in()], ..well };
    assert!(failed(&found(probe).await).contains(&"credential"));
}
