//! Every way a command fails is one line and an exit code.

use crate::fake::{FILM, Fake, ending, program};
use nix::sys::signal::Signal;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

fn folder() -> TempDir {
    tempfile::tempdir().unwrap()
}

async fn fails(dir: &Path, args: &[&str]) -> (i32, String) {
    ending(&program(dir, args).output().await.unwrap())
}

#[tokio::test]
async fn bad_arguments_end_with_two() {
    let dir = folder();
    let (code, _) = fails(dir.path(), &["render"]).await;
    assert_eq!(code, 2);
    let (code, _) = fails(dir.path(), &["render", "--template", "promo", "--image", "logo"]).await;
    assert_eq!(code, 2);
    let (code, line) = fails(dir.path(), &["demo", "--template", "nope"]).await;
    assert_eq!((code, line.as_str()), (2, "error: --template: there is no sample \"nope\": lower-third, promo, story"));
    let (code, line) = fails(dir.path(), &["demo", "--locale", "xx"]).await;
    assert_eq!((code, line.as_str()), (2, "error: --locale: there is no sample data in \"xx\": en, fa"));
}

#[tokio::test]
async fn a_farm_that_cannot_be_simulated_is_refused() {
    let dir = folder();
    for (flags, says) in [
        (vec!["--frame-seconds", "0,0", "--start-seconds", "0,0", "--open-seconds", "0"], "work has to take time"),
        (vec!["--snapshots", "0,0", "--previews", "0,0", "--film-probability", "0"], "work has to come"),
        (vec!["--nodes", "4000000000"], "1 to 10,000 nodes"),
        (vec!["--hours", "0"], "up to 8,784 hours"),
    ] {
        let (code, line) = fails(dir.path(), &[vec!["simulate"], flags].concat()).await;
        assert!(code == 2 && line.contains(says), "{code} {line}");
    }
}

#[tokio::test]
async fn files_that_cannot_be_read_are_named_before_a_server_is_asked() {
    let dir = folder();
    let (code, line) = fails(dir.path(), &["render", "-t", "promo", "--data", "none.json"]).await;
    assert_eq!(
        (code, line.as_str()),
        (2, "error: --data: cannot read none.json: No such file or directory (os error 2)")
    );
    std::fs::write(dir.path().join("bad.json"), "{\"texts\": {\"title\": 1}}").unwrap();
    let (code, line) = fails(dir.path(), &["render", "-t", "promo", "--data", "bad.json"]).await;
    assert!(
        code == 2 && line.starts_with("error: --data: bad.json: invalid type: integer `1`, expected a string"),
        "{line}"
    );
    let (code, line) = fails(dir.path(), &["render", "-t", "promo", "--music", "none.mp3"]).await;
    assert!(code == 2 && line.starts_with("error: music: cannot read none.mp3"), "{line}");
    let (code, line) = fails(dir.path(), &["render", "-t", "promo", "--out", "nowhere/my.mp4"]).await;
    assert_eq!((code, line.as_str()), (2, "error: --out: there is no folder nowhere"));
}

#[tokio::test]
async fn without_a_server_the_line_says_how_to_start_one() {
    let dir = folder();
    let (code, line) = fails(dir.path(), &["templates"]).await;
    assert!(code == 3 && line.contains("flatrender up"), "{line}");
    // Port 1 of this machine: nobody is there.
    let (code, line) = fails(dir.path(), &["templates", "--server", "http://127.0.0.1:1", "--api-key", "k"]).await;
    assert!(code == 3 && line.starts_with("error: no answer from http://127.0.0.1:1: "), "{line}");
    let (code, line) = fails(dir.path(), &["templates", "--server", "http://127.0.0.1:1"]).await;
    assert!(code == 2 && line.contains("FLATRENDER_API_KEY"), "{line}");
}

#[tokio::test]
async fn a_refusal_is_shown_with_its_code() {
    let (dir, fake) = (folder(), Fake::start().await);
    let out = fake.command(dir.path(), &["templates", "nope"]).output().await.unwrap();
    assert_eq!(ending(&out), (4, "error: there is no such template (template.not_found)".into()));
    let out = fake.command(dir.path(), &["render", "-t", "unknown"]).output().await.unwrap();
    assert_eq!(ending(&out), (4, "error: there is no template \"unknown\" (template.unknown)".into()));
    std::fs::write(dir.path().join("empty.png"), "").unwrap();
    let args = ["render", "-t", "good", "--image", "logo=empty.png"];
    let out = fake.command(dir.path(), &args).output().await.unwrap();
    assert_eq!(ending(&out), (4, "error: empty.png: the file is empty (file.empty)".into()));
}

#[tokio::test]
async fn a_picture_that_the_template_has_no_place_for_is_not_sent() {
    let (dir, fake) = (folder(), Fake::start().await);
    std::fs::write(dir.path().join("hat.png"), "picture").unwrap();
    let args = ["render", "-t", "good", "--image", "hat=hat.png", "--json"];
    let out = fake.command(dir.path(), &args).output().await.unwrap();
    let line = "the template \"good\" has no picture \"hat\"; it has: logo, mark";
    let (code, said) = ending(&out);
    let told =
        serde_json::json!({ "type": "about:blank", "title": "Wrong arguments", "code": "cli.usage", "detail": line });
    assert_eq!((code, serde_json::from_str::<serde_json::Value>(&said).unwrap()), (2, told));
    assert!(out.stdout.is_empty());
    assert!(!fake.seen.lock().unwrap().iter().any(|line| line.starts_with("uploaded")));
}

#[tokio::test]
async fn a_failed_render_ends_with_its_reason() {
    let (dir, fake) = (folder(), Fake::start().await);
    let out = fake.command(dir.path(), &["render", "-t", "broken", "--out", "my.mp4"]).output().await.unwrap();
    assert_eq!(ending(&out), (5, "error: the render failed: font Foo is missing (render.missing_font)".into()));
    assert!(!dir.path().join("my.mp4").exists());
}

#[tokio::test]
async fn a_film_comes_whole_over_a_broken_connection() {
    let (dir, fake) = (folder(), Fake::start().await);
    std::fs::write(dir.path().join("logo.png"), "picture").unwrap();
    let args =
        ["render", "-t", "good", "--image", "logo=logo.png", "--image", "mark=logo.png", "--out", "my.mp4", "--json"];
    let out = fake.command(dir.path(), &args).output().await.unwrap();
    assert_eq!(ending(&out), (0, String::new()));
    let json: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!((&json["status"], &json["file"]), (&"completed".into(), &"my.mp4".into()));
    assert_eq!(std::fs::read(dir.path().join("my.mp4")).unwrap(), FILM);
    assert!(fake.saw("order {\"logo\":\"f1\",\"mark\":\"f1\"}"));
    let uploads = fake.seen.lock().unwrap().iter().filter(|line| line.starts_with("uploaded")).count();
    assert_eq!(uploads, 1, "one file is uploaded once");
}

#[tokio::test]
async fn a_damaged_download_leaves_no_file() {
    let (dir, fake) = (folder(), Fake::start().await);
    let out = fake.command(dir.path(), &["render", "-t", "damaged", "--out", "my.mp4"]).output().await.unwrap();
    let (code, line) = ending(&out);
    assert!(code == 1 && line.starts_with("error: the download is damaged"), "{line}");
    let left: Vec<_> = std::fs::read_dir(dir.path()).unwrap().flatten().map(|e| e.file_name()).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[tokio::test]
async fn ctrl_c_cancels_on_the_server_and_waits_for_it() {
    let (dir, fake) = (folder(), Fake::start().await);
    let child = fake.command(dir.path(), &["render", "-t", "slow", "--out", "my.mp4"]).spawn().unwrap();
    while !fake.saw("watched") {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    flatrender_api::platform::process::signal(child.id().unwrap() as i32, Signal::SIGINT);
    let out = child.wait_with_output().await.unwrap();
    assert!(fake.saw("cancel"));
    assert_eq!(ending(&out), (130, "error: cancelled".into()));
}

#[tokio::test]
async fn nothing_starts_with_a_limit_of_time_that_is_none() {
    let dir = folder();
    for (command, name) in [("worker", "FLATRENDER_FILM_HOURS"), ("serve", "FLATRENDER_STILL_HOURS")] {
        let args = [command, "--database-url", "postgres://127.0.0.1:1/none", "--storage", "storage"];
        let mut program = program(dir.path(), &args);
        let (code, line) = ending(&program.env(name, "weekend").output().await.unwrap());
        assert!(code == 1 && line.contains(&format!("{name} is \"weekend\": say how many hours")), "{command}: {line}");
    }
}

#[tokio::test]
async fn s088_nothing_starts_with_the_mock_in_production() {
    let dir = folder();
    let start = async |command: &str, mock: &str, place: &str| {
        let args = [command, "--database-url", "postgres://127.0.0.1:1/none", "--storage", "storage"];
        let mut program = program(dir.path(), &args);
        program.env("RENDER_DEV_SNAPSHOTS", mock).env("FLATRENDER_ENV", place);
        ending(&program.output().await.unwrap())
    };
    for command in ["worker", "serve"] {
        let (code, line) = start(command, "1", "production").await;
        assert!(code == 1 && line.contains("RENDER_DEV_SNAPSHOTS is for development"), "{command}: {line}");
        let (code, line) = start(command, "perhaps", "").await;
        assert!(code == 1 && line.contains("RENDER_DEV_SNAPSHOTS is \"perhaps\""), "{command}: {line}");
        // At once: each waits ten seconds for a database that is not there.
        let fine = [("0", "production"), ("false", "production"), ("", "production"), ("1", "development")];
        let begun = fine.map(|(mock, place)| start(command, mock, place));
        for (how, (_, line)) in fine.iter().zip(futures::future::join_all(begun).await) {
            assert!(line.contains("cannot connect to the database"), "{command} {how:?}: {line}");
        }
    }
}
