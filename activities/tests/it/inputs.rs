//! Packages and assets: what arrives is checked, kept, shared and never trusted.

use crate::world::{Stage, blob, limits, zip};
use flatrender_activities::aerender::{cache::Cache, unpack::Bounds};
use flatrender_workflows::contracts::render::RenderAsset;
use serde_json::json;
use std::fs;

#[tokio::test]
async fn a_package_with_another_content_is_not_rendered() {
    let stage = Stage::new(json!({}));
    let announced = stage.wish.package.sha256.clone();
    stage.shelf.inputs.lock().unwrap().insert(announced, zip(&[("project.json", b"{}")]));
    assert_eq!(stage.refused().await, ("render.hash_mismatch".into(), true));
    let cached = fs::read_dir(stage.folder.path().join("cache")).unwrap().count();
    assert_eq!(cached, 0, "nothing of it is kept");
}

#[tokio::test]
async fn a_package_that_reaches_outside_is_refused_for_good() {
    let mut stage = Stage::new(json!({}));
    let evil = zip(&[("project.json", b"{}"), ("../../evil", b"x")]);
    stage.shelf.add(&evil);
    stage.wish.package = blob(&evil);
    assert_eq!(stage.refused().await, ("render.bad_package".into(), false));
    assert!(!stage.folder.path().join("evil").exists());
}

#[tokio::test]
async fn a_package_that_is_not_there_is_refused_for_good() {
    let stage = Stage::new(json!({}));
    stage.shelf.inputs.lock().unwrap().clear();
    assert_eq!(stage.refused().await, ("render.input_not_found".into(), false));
}

#[tokio::test]
async fn assets_and_data_are_put_into_the_package_and_not_into_the_cache() {
    let mut stage = Stage::new(json!({}));
    stage.shelf.add(b"a picture");
    stage.wish.assets = vec![RenderAsset { path: "assets/logo.png".into(), blob: blob(b"a picture") }];
    stage.render().await.unwrap();
    let package = stage.attempt_folder().join("package");
    assert_eq!(fs::read(package.join("assets/logo.png")).unwrap(), b"a picture");
    assert!(fs::read_to_string(package.join("data.json")).unwrap().contains("سلام"));
    let cached = stage.folder.path().join(format!("cache/{}.package", stage.wish.package.sha256));
    assert!(!cached.join("files/data.json").exists() && !cached.join("files/assets").exists());
}

#[tokio::test]
async fn a_second_attempt_fetches_nothing_and_renders_its_own_data() {
    let mut stage = Stage::new(json!({}));
    stage.render().await.unwrap();
    fs::remove_dir_all(stage.attempt_folder()).unwrap();
    stage.wish.data.texts.insert("title".into(), "another".into());
    stage.render().await.unwrap();
    assert_eq!(*stage.shelf.fetched.lock().unwrap(), 1);
    assert_eq!(stage.shelf.frames.lock().unwrap()[&10], crate::world::drawn(&stage.wish, 10));
}

#[tokio::test]
async fn the_least_recently_used_input_is_forgotten_first() {
    let stage = Stage::with(json!({}), limits());
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path().join("cache"), 250, Bounds::default()).unwrap();
    let contents = [[1; 100], [2; 100], [3; 100]];
    for (n, content) in contents.iter().enumerate() {
        stage.shelf.add(content);
        let target = folder.path().join(n.to_string());
        cache.copy_file(&*stage.shelf, &blob(content), &target).await.unwrap();
        let entry = folder.path().join(format!("cache/{}.file", blob(content).sha256));
        let used = std::time::SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(n as u64);
        fs::File::open(&entry).unwrap().set_modified(used).unwrap();
    }
    let kept = contents.map(|c| folder.path().join(format!("cache/{}.file", blob(&c).sha256)).exists());
    assert_eq!(kept, [false, true, true]);
    assert_eq!(fs::read(folder.path().join("0")).unwrap(), contents[0], "whoever uses it keeps it");
}
