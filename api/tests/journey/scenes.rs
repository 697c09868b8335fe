//! A customer who changes one word pays for one scene.

use crate::platform::Platform;
use flatrender_api::platform::{import, samples::Package};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

const SCENES: usize = 8;
/// Frames of a scene, and of those that it shares with the next.
const FRAMES: usize = 30;
const SHARED: usize = 6;

/// Eight scenes, each with a text of its own.
fn package() -> Package {
    let label = json!({"en": "x"});
    let all = 0..SCENES;
    let scenes: Vec<Value> = all
        .clone()
        .map(|n| {
            json!({"id": format!("s{n}"), "label": label, "frames": FRAMES, "min_frames": FRAMES,
        "max_frames": FRAMES, "required": true, "still_frame": 0})
        })
        .collect();
    let texts: Vec<Value> = all
        .clone()
        .map(|n| {
            json!({"key": format!("t{n}"), "scene": format!("s{n}"), "label": label, "required": false,
        "max_chars": 20, "max_lines": 1, "default": "-"})
        })
        .collect();
    let manifest = json!({"format": 1, "slug": "eight", "version": 1, "kind": "lottie", "title": label, "description": label,
        "composition": "main", "width": 256, "height": 144, "fps": 30, "transition_frames": SHARED,
        "fonts": [{"family": "Vazirmatn", "style": "Regular", "file": "fonts/v.ttf", "licence": "OFL-1.1"}],
        "scenes": scenes, "texts": texts});
    let still = json!({"p": {"a": 0, "k": [128, 72, 0]}, "a": {"a": 0, "k": [0, 0, 0]}, "s": {"a": 0, "k": [100, 100, 100]},
        "r": {"a": 0, "k": 0}, "o": {"a": 0, "k": 100}});
    // Words that turn: no frame is like the one before.
    let mut turning = still.clone();
    turning["r"] = json!({"a": 1, "k": [{"t": 0, "s": [0], "i": {"x": [1], "y": [1]}, "o": {"x": [0], "y": [0]}}, {"t": FRAMES, "s": [90]}]});
    let asset = |n: usize| {
        json!({"id": format!("scene:s{n}"), "nm": format!("scene:s{n}"), "layers": [{
        "ddd": 0, "ty": 5, "nm": format!("txt:t{n}"), "sr": 1, "ks": turning, "ao": 0, "ip": 0, "op": FRAMES, "st": 0, "bm": 0,
        "t": {"d": {"k": [{"s": {"s": 30, "f": "Vazirmatn-Regular", "t": "-", "j": 2, "tr": 0, "lh": 36, "ls": 0, "fc": [1, 1, 1]}, "t": 0}]},
              "p": {}, "m": {"g": 1, "a": {"a": 0, "k": [0, 0]}}, "a": []}}]})
    };
    let mut place = still.clone();
    place["p"] = json!({"a": 0, "k": [0, 0, 0]});
    let layer = |n: usize| {
        let start = n * (FRAMES - SHARED);
        json!({"ddd": 0, "ty": 0, "nm": format!("scene:s{n}"), "refId": format!("scene:s{n}"), "sr": 1, "ks": place, "ao": 0,
            "w": 256, "h": 144, "ip": start, "op": start + FRAMES, "st": start, "bm": 0})
    };
    let project = json!({"v": "5.7.0", "fr": 30, "ip": 0, "op": SCENES * (FRAMES - SHARED) + SHARED, "w": 256, "h": 144, "nm": "main", "ddd": 0,
        "fonts": {"list": [{"fName": "Vazirmatn-Regular", "fFamily": "Vazirmatn", "fStyle": "Regular", "ascent": 92}]},
        "assets": all.clone().map(asset).collect::<Vec<_>>(), "layers": all.rev().map(layer).collect::<Vec<_>>(), "markers": []});
    let font = include_bytes!("../../../templates/promo/fonts/Vazirmatn-Regular.ttf");
    let files = BTreeMap::from([
        ("template.json".to_owned(), manifest.to_string().into_bytes()),
        ("project.json".to_owned(), project.to_string().into_bytes()),
        ("fonts/v.ttf".to_owned(), font.to_vec()),
    ]);
    Package::new("eight", files).unwrap()
}

/// Orders the film with these words and waits for it; how many of its frames were rendered, and how many taken from others.
async fn film(platform: &Platform, words: &BTreeMap<String, String>) -> (Value, i64, i64) {
    let id = platform.order_of(&json!({"template": "eight", "data": {"texts": words}})).await;
    let film = platform.completed(&id).await;
    let id = Uuid::parse_str(&id).unwrap();
    let rendered = "select coalesce(sum(a.frames), 0)::bigint from render.frame_job_attempts a
                    join render.frame_jobs f on f.id = a.frame_job_id where f.render_job_id = $1";
    let reused = "select count(*) from render.frame_manifests where render_job_id = $1 and flags @> '{reused}'";
    let count = async |sql: &'static str| sqlx::query_scalar(sql).bind(id).fetch_one(&platform.db).await.unwrap();
    (film, count(rendered).await, count(reused).await)
}

/// Waits until a node has told what it renders with: scenes are known by that, and what nobody could render yet is not kept.
async fn has_a_renderer(platform: &Platform) {
    let sql =
        "select exists (select from render.nodes where status = 'online' and capabilities -> 'renderers' is not null)";
    while !sqlx::query_scalar::<_, bool>(sql).fetch_one(&platform.db).await.unwrap() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_changed_text_of_eight_scenes_renders_one_scene_again() {
    let platform = Platform::start(1).await;
    import::templates(&platform.db, &platform.storage(), &[package()]).await.unwrap();
    has_a_renderer(&platform).await;
    let all = (SCENES * (FRAMES - SHARED) + SHARED) as i64;
    let mut words: BTreeMap<String, String> = (0..SCENES).map(|n| (format!("t{n}"), format!("scene {n}"))).collect();
    let (first, rendered, reused) = film(&platform, &words).await;
    assert_eq!((rendered, reused), (all, 0));
    words.insert("t3".into(), "another word".into());
    let (second, rendered, reused) = film(&platform, &words).await;
    assert_eq!((rendered, reused), (FRAMES as i64, all - FRAMES as i64), "the scene, with its transitions");
    assert_eq!((&second["frames"]["rendered"], &second["export"]["frames"]), (&json!(all), &json!(all)));
    assert_ne!(first["export"]["sha256"], second["export"]["sha256"]);
    // Made of kept scenes alone, it is the film that it was.
    words.insert("t3".into(), "scene 3".into());
    let (third, rendered, reused) = film(&platform, &words).await;
    assert_eq!((rendered, reused), (0, all));
    assert_eq!(first["export"]["sha256"], third["export"]["sha256"]);
    platform.stop().await;
}
