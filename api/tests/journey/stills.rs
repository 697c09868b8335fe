//! Stills of scenes: asked for a hundred times, rendered once.

use crate::platform::Platform;
use flatrender_activities::storage::ObjectStorage;
use flatrender_workflows::{
    contracts::{
        storage::{BlobStore, Shelf},
        template::Manifest,
    },
    models::{
        DEFAULT_TENANT,
        content::project,
        identity::tenant_api_key::{self, Mode, NewKey},
    },
};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    io::Write as _,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

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

/// The stand-in for After Effects' command line, behind a script that writes down how it is called.
fn stand_in(folder: &Path) -> (PathBuf, PathBuf) {
    let program = Path::new(env!("CARGO_BIN_EXE_flatrender")).with_file_name("examples/fake_aerender");
    assert!(program.exists(), "build it first: cargo build -p flatrender-activities --example fake_aerender");
    let (script, calls) = (folder.join("aerender"), folder.join("calls"));
    let text = format!("#!/bin/sh\necho \"$@\" >> {}\nexec {} \"$@\"\n", calls.display(), program.display());
    std::fs::write(&script, text).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o755)).unwrap();
    (script, calls)
}

/// A template of the stand-in with these scenes, each with a still frame of its own.
async fn publish(platform: &Platform, scenes: &[(&str, u32)]) {
    let label = json!({"en": "x"});
    let described = scenes.iter().map(|(id, still)| json!({"id": id, "label": label, "frames": 40, "min_frames": 40, "max_frames": 40, "required": true, "still_frame": still}));
    let manifest = json!({
        "format": 1, "slug": "stand-in", "version": 1, "kind": "lottie", "title": label, "description": label, "composition": "main",
        "width": 640, "height": 360, "fps": 30, "transition_frames": 0, "fonts": [], "scenes": described.collect::<Vec<_>>()
    });
    let compositions =
        scenes.iter().map(|(id, _)| json!({"name": format!("scene:{id}"), "frames": 40, "size": [640, 360]}));
    let document = json!({"compositions": compositions.collect::<Vec<_>>()}).to_string();
    let path = platform.folder().join("package.zip");
    let mut zip = zip::ZipWriter::new(std::fs::File::create(&path).unwrap());
    zip.start_file("project.json", zip::write::SimpleFileOptions::default()).unwrap();
    zip.write_all(document.as_bytes()).unwrap();
    zip.finish().unwrap();
    let storage = ObjectStorage::local(&platform.folder().join("storage")).unwrap();
    let package = storage.put_file(&Shelf::Files { tenant_id: DEFAULT_TENANT }, &path).await.unwrap();
    let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    let mut tx = platform.db.begin().await.unwrap();
    project::publish(&mut tx, DEFAULT_TENANT, &manifest, &package, None).await.unwrap();
    tx.commit().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn s090_each_still_is_one_frame_of_aerender() {
    let mut platform = Platform::start(1).await;
    platform.kill_node(0);
    let (program, calls) = stand_in(platform.folder());
    platform.start_node_with(0, &program);
    publish(&platform, &[("intro", 7), ("middle", 0), ("outro", 39)]).await;
    let key = key(&platform).await;
    let template = format!("{}/v1/templates/stand-in", platform.url);
    let template = json_of(platform.http.get(&template).bearer_auth(&key), 200).await;
    let url = format!("{}/v1/scene-snapshots/{}", platform.url, template["project_id"].as_str().unwrap());
    json_of(platform.http.post(&url).bearer_auth(&key).json(&json!({})), 202).await;
    let list = settled(&platform, &key, &url).await;
    assert_eq!(list["counts"]["done"], 3, "{list:#}");
    let text = std::fs::read_to_string(calls).unwrap();
    let mut told: Vec<String> = text
        .lines()
        .filter_map(|line| line.split_once(" -comp ")?.1.split_once(" -output "))
        .map(|(told, _)| told.to_owned())
        .collect();
    told.sort();
    assert_eq!(told, ["scene:intro -s 7 -e 7", "scene:middle -s 0 -e 0", "scene:outro -s 39 -e 39"]);
    platform.stop().await;
}
