//! Stills of scenes: asked for a hundred times, rendered once.

use crate::platform::Platform;
use flatrender_workflows::models::{
    DEFAULT_TENANT,
    identity::tenant_api_key::{self, Mode, NewKey},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(240);

/// A key that may manage the tenant.
async fn key(platform: &Platform) -> String {
    let scopes = ["admin", "templates"].map(str::to_owned);
    let new = NewKey {
        name: "stills",
        mode: Mode::Live,
        scopes: &scopes,
        allowed_cidrs: None,
        created_by: None,
        expires_at: None,
    };
    let mut db = platform.db.acquire().await.unwrap();
    tenant_api_key::create_as(&mut db, DEFAULT_TENANT, &new).await.unwrap().unwrap().1.reveal().to_owned()
}

async fn json_of(asked: reqwest::RequestBuilder, status: u16) -> Value {
    let answer = asked.send().await.unwrap();
    let (found, text) = (answer.status(), answer.text().await.unwrap());
    assert_eq!(found, status, "{text}");
    serde_json::from_str(&text).unwrap()
}

async fn settled(platform: &Platform, key: &str, url: &str) -> Value {
    let begun = Instant::now();
    loop {
        let list = json_of(platform.http.get(url).bearer_auth(key), 200).await;
        if list["counts"]["queued"] == 0 && list["counts"]["running"] == 0 {
            return list;
        }
        assert!(begun.elapsed() < PATIENCE, "{list:#}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

async fn renders(platform: &Platform) -> i64 {
    let sql = "select count(*) from workflow.attempts where step_key like 'render:%'";
    sqlx::query_scalar(sql).fetch_one(&platform.db).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_still_that_a_hundred_ask_for_is_rendered_once() {
    let platform = Platform::start(1).await;
    let key = key(&platform).await;
    let template = format!("{}/v1/templates/promo", platform.url);
    let template = json_of(platform.http.get(&template).bearer_auth(&key), 200).await;
    let scene = template["scenes"][0]["id"].clone();
    let url = format!("{}/v1/scene-snapshots/{}", platform.url, template["project_id"].as_str().unwrap());
    let ask = |body: Value| json_of(platform.http.post(&url).bearer_auth(&key).json(&body), 202);
    let answers = futures::future::join_all((0..100).map(|_| ask(json!({"scenes": [scene]})))).await;
    let jobs: BTreeSet<String> = answers.iter().map(|list| list["data"][0]["job"]["id"].to_string()).collect();
    let list = settled(&platform, &key, &url).await;
    assert_eq!((list["counts"]["done"].as_i64(), renders(&platform).await, jobs.len()), (Some(1), 1, 1), "{list:#}");

    // The others in one go; what is there stays as it is.
    ask(json!({})).await;
    let list = settled(&platform, &key, &url).await;
    let scenes = list["data"].as_array().unwrap();
    assert_eq!(
        (list["counts"]["done"].as_u64(), renders(&platform).await),
        (Some(scenes.len() as u64), scenes.len() as i64)
    );
    let mut pictures = BTreeSet::new();
    for scene in scenes {
        let path = scene["url"].as_str().unwrap().split_once("/snap/").unwrap().1;
        let picture = platform.http.get(format!("{}/snap/{path}", platform.url)).send().await.unwrap();
        assert_eq!(
            (picture.status().as_u16(), &picture.headers()["content-type"]),
            (200, &"image/webp".parse().unwrap())
        );
        let picture = picture.bytes().await.unwrap();
        let decoded = image::load_from_memory_with_format(&picture, image::ImageFormat::WebP).unwrap().into_rgb8();
        assert_eq!([decoded.width(), decoded.height()], [1280, 720]);
        let colours: BTreeSet<[u8; 3]> = decoded.pixels().map(|pixel| pixel.0).collect();
        assert!(colours.len() > 100, "something is to be seen in {}", scene["scene_key"]);
        pictures.insert(picture);
    }
    assert_eq!(pictures.len(), scenes.len(), "each scene looks different");
    platform.stop().await;
}

/// The built-in renderer, behind a program that writes down how it is called.
fn listening_renderer(folder: &Path) -> (PathBuf, PathBuf) {
    let (program, calls) = (folder.join("flatrender-aerender"), folder.join("calls"));
    let real = crate::platform::renderer();
    let script = format!("#!/bin/sh\necho \"$*\" >> '{}'\nexec '{}' \"$@\"\n", calls.display(), real.display());
    std::fs::write(&program, script).unwrap();
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
    (program, calls)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_still_is_one_frame_of_its_scene_on_aerenders_command_line() {
    let mut platform = Platform::without_nodes(1).await;
    let (renderer, calls) = listening_renderer(platform.folder());
    platform.start_node_with(0, &renderer);
    let key = key(&platform).await;
    let template = format!("{}/v1/templates/promo", platform.url);
    let template = json_of(platform.http.get(&template).bearer_auth(&key), 200).await;
    let project: Uuid = template["project_id"].as_str().unwrap().parse().unwrap();
    let url = format!("{}/v1/scene-snapshots/{project}", platform.url);
    json_of(platform.http.post(&url).bearer_auth(&key).json(&json!({})), 202).await;
    let list = settled(&platform, &key, &url).await;
    // Other templates have scenes, too.
    let sql = "select s.comp_name, s.still_frame from content.scenes s
               join content.project_versions v on v.id = s.project_version_id where v.project_id = $1";
    let scenes: Vec<(String, i32)> = sqlx::query_as(sql).bind(project).fetch_all(&platform.db).await.unwrap();
    assert_eq!(list["counts"]["done"].as_u64(), Some(scenes.len() as u64), "{list:#}");
    assert!(scenes.iter().any(|(_, still)| *still > 0), "not every still is the first frame: {scenes:?}");
    let calls = std::fs::read_to_string(calls).unwrap();
    let told = calls.lines().filter_map(|line| line.split_once(" -comp ")?.1.split_once(" -output "));
    let mut told: Vec<String> = told.map(|(told, _)| told.to_owned()).collect();
    told.sort();
    let mut wanted: Vec<String> =
        scenes.iter().map(|(composition, still)| format!("{composition} -s {still} -e {still}")).collect();
    wanted.sort();
    assert_eq!(told, wanted, "each once");
    platform.stop().await;
}
