//! Uploads into a bucket, by a server that speaks S3: parts that go there by themselves, and tus.

use crate::{
    server::{self, S3Server},
    uploads::sound,
    world::{Answer, World},
};
use axum::http::StatusCode;
use flatrender_activities::storage::{Credentials, StorageSettings};
use flatrender_api::router;
use flatrender_workflows::contracts::storage::BlobHash;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::sync::Arc;

const MIB: usize = 1024 * 1024;

/// A world whose files are kept in a bucket.
pub async fn in_a_bucket(db: PgPool) -> (World, S3Server) {
    let server = S3Server::start();
    let mut world = World::new(db).await;
    let StorageSettings::S3(bucket) = server.storage("eu").parse().unwrap() else { panic!("a bucket") };
    world.storage = Arc::new(bucket.open(Some(Credentials::new(server::KEY, server::SECRET))).unwrap());
    world.app.storage = world.storage.clone();
    world.router = router::router(world.app.clone());
    (world, server)
}

impl World {
    pub async fn begin_direct(&self, body: Value) -> Answer {
        self.post("/v1/uploads/direct", body).await
    }

    /// Sends a part to where the server says, and gives its tag.
    pub async fn send_part(&self, upload: &str, number: usize, bytes: &[u8]) -> String {
        let address = self.post(&format!("{upload}/parts/{number}"), json!({})).await;
        assert_eq!(address.status, StatusCode::OK, "{:?}", address.body);
        let url = address.json()["url"].as_str().unwrap().to_owned();
        let sent = reqwest::Client::new().put(url).body(bytes.to_vec()).send().await.unwrap();
        assert!(sent.status().is_success(), "{sent:?}");
        sent.headers()["etag"].to_str().unwrap().to_owned()
    }

    async fn complete(&self, upload: &str, etags: &[String]) -> Answer {
        self.post(&format!("{upload}/complete"), json!({ "etags": etags })).await
    }
}

/// Objects of the bucket that belong to no finished file.
fn incoming(server: &S3Server) -> usize {
    std::fs::read_dir(server.objects().join("eu/incoming")).map_or(0, |entries| entries.count())
}

#[sqlx::test(migrations = "../migrations")]
async fn parts_go_to_the_storage_and_become_a_file_once_all_of_it_was_hashed(db: PgPool) {
    let (world, server) = in_a_bucket(db).await;
    world.work();
    let sound = sound(12 * MIB);
    let hash = BlobHash::of(&sound);
    let body = json!({"name": "a.wav", "total_bytes": sound.len(), "part_bytes": 5 * MIB, "sha256": hash.as_str()});
    let begun = world.begin_direct(body).await;
    assert_eq!((begun.status, &begun.json()["part_count"]), (StatusCode::CREATED, &json!(3)), "{:?}", begun.body);
    let upload = begun.header("location").to_owned();
    assert_eq!(world.count("file_mgr.quotas where reserved_bytes > 12000000").await, 1, "its room is set aside");
    let mut etags = vec![];
    for (n, part) in sound.chunks(5 * MIB).enumerate() {
        // Sent again, with other bytes first: the last one counts.
        if n == 1 {
            world.send_part(&upload, n + 1, &vec![9; part.len()]).await;
            let listed = world.get(&format!("{upload}/parts?limit=1")).await.json();
            assert_eq!((&listed["has_more"], &listed["next_cursor"]), (&json!(true), &json!("1")), "{listed}");
            assert_eq!(listed["data"][0]["etag"], json!(etags[0]), "{listed}");
            let rest = world.get(&format!("{upload}/parts?starting_after=1")).await.json();
            assert_eq!((&rest["data"][0]["number"], &rest["has_more"]), (&json!(2), &json!(false)), "{rest}");
            let early = world.post(&format!("{upload}/complete"), json!({})).await;
            assert_eq!(early.problem(), "upload.parts_missing", "the third is not there");
        }
        etags.push(world.send_part(&upload, n + 1, part).await);
    }
    assert_eq!(world.complete(&upload, &etags[..2]).await.problem(), "upload.part", "not all of them");
    let both = tokio::join!(world.complete(&upload, &etags), world.complete(&upload, &etags));
    let both = [both.0.status.as_u16(), both.1.status.as_u16()];
    // The storage may refuse one while it puts the parts together for the other: it may try again.
    assert!(both.contains(&202) && both.iter().all(|status| [202, 503].contains(status)), "{both:?}");
    assert_eq!(world.file_of(&upload).await, hash.as_str());
    assert_eq!(world.complete(&upload, &etags).await.json()["state"], "completed", "saying so again changes nothing");
    assert_eq!(
        (world.count("file_mgr.files").await, world.count("workflow.runs where kind = 'finish_upload'").await),
        (1, 1)
    );
    world.keeps_every_rule().await;
    let cleared = async {
        while incoming(&server) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), cleared).await.expect("nothing of it is left");
}

/// M37, of parts: numbers that are none, lengths and hashes that are not as announced, and nothing sent at all.
#[sqlx::test(migrations = "../migrations")]
async fn m37_parts_are_what_they_were_said_to_be(db: PgPool) {
    let (world, server) = in_a_bucket(db).await;
    world.work();
    let sound = sound(6 * MIB);
    for (body, code) in [
        (json!({"total_bytes": 0}), "file.empty"),
        (json!({"total_bytes": 6_000_000_000_u64}), "file.too_large"),
        (json!({"total_bytes": 5, "part_bytes": 5}), "request.invalid"),
        (json!({"total_bytes": 5, "purpose": "export"}), "request.invalid"),
        (json!({"total_bytes": 5, "sha256": "x"}), "request.invalid"),
    ] {
        assert_eq!(world.begin_direct(body.clone()).await.problem(), code, "{body}");
    }
    let begin = async |sha256: Option<&str>| {
        let body = json!({"name": "a.wav", "total_bytes": sound.len(), "part_bytes": 5 * MIB, "sha256": sha256});
        world.begin_direct(body).await.header("location").to_owned()
    };
    let upload = begin(None).await;
    for number in [0, 3, 10_001] {
        assert_eq!(
            world.post(&format!("{upload}/parts/{number}"), json!({})).await.problem(),
            "upload.part",
            "{number}"
        );
    }
    for md5 in ["", "d41d8cd98f00b204e9800998", "1B2M2Y8AsgTpgAmY7PhCfg=\n", "1B2M2Y8AsgTpgAmY7PhCfg"] {
        let refused = world.post(&format!("{upload}/parts/1"), json!({ "md5": md5 })).await;
        assert_eq!(refused.faults(), ["/md5 upload.md5"], "{md5:?}");
    }
    let none = ["\"d41d8cd98f00b204e9800998ecf8427e\"".to_owned(), "\"d41d8cd98f00b204e9800998ecf8427e\"".to_owned()];
    assert!(world.complete(&upload, &none).await.status.as_u16() >= 409, "nothing was sent");
    assert_eq!(world.get(&upload).await.json()["state"], "open");
    let stranger = world.stranger().await;
    let theirs = crate::world::request(axum::http::Method::POST, &format!("{upload}/parts/1"), &stranger);
    assert_eq!(world.send(crate::world::with_json(theirs, &json!({}))).await.problem(), "upload.not_found");
    assert_eq!(world.give_up(&upload).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.post(&format!("{upload}/parts/1"), json!({})).await.problem(), "upload.ended");

    // One byte too many or too few is not taken for a part, and one that has got there all the same is found.
    let upload = begin(None).await;
    let address = world.post(&format!("{upload}/parts/2"), json!({})).await.json();
    assert_eq!(address["size_bytes"], json!(sound.len() - 5 * MIB));
    for length in [sound.len() - 5 * MIB + 1, sound.len() - 5 * MIB - 1] {
        let sent = reqwest::Client::new().put(address["url"].as_str().unwrap()).body(vec![7; length]).send().await;
        assert_eq!(sent.unwrap().status().as_u16(), 403, "{length}");
    }
    let mut etags = vec![];
    for (n, part) in sound.chunks(5 * MIB).enumerate() {
        etags.push(world.send_part(&upload, n + 1, part).await);
    }
    let parts = std::fs::read_dir(server.folder.path()).unwrap().flatten().map(|entry| entry.path());
    let last = parts.into_iter().find(|path| path.to_string_lossy().ends_with(".part-2")).unwrap();
    std::fs::write(last, vec![7; 8 * MIB]).unwrap();
    assert_eq!(world.complete(&upload, &etags).await.problem(), "upload.parts_missing");
    assert_eq!(world.get(&upload).await.json()["state"], "open");
    assert_eq!(world.give_up(&upload).await.status, StatusCode::NO_CONTENT);

    // Another content than announced.
    let other = BlobHash::of(b"other");
    let upload = begin(Some(other.as_str())).await;
    for (n, part) in sound.chunks(5 * MIB).enumerate() {
        world.send_part(&upload, n + 1, part).await;
    }
    world.post(&format!("{upload}/complete"), json!({})).await;
    let ended = world.outcome(&upload).await;
    assert_eq!((&ended["state"], &ended["refusal"]["code"]), (&json!("refused"), &json!("blob.mismatch")), "{ended}");
    assert_eq!(world.count("file_mgr.files").await, 0);
    world.keeps_every_rule().await;
    drop(server);
}

/// What is looked at and not taken in was never among the files: nothing of it is left in the bucket, and its room is free.
#[sqlx::test(migrations = "../migrations")]
async fn what_is_refused_leaves_nothing_in_the_bucket(db: PgPool) {
    let (world, server) = in_a_bucket(db).await;
    world.work();
    let known = world.count("file_mgr.blobs").await;
    let text = b"#EXTM3U\nfile:///etc/passwd\n".repeat(1000);
    let upload = world.begin_direct(json!({"name": "a.mp4", "total_bytes": text.len()})).await;
    let upload = upload.header("location").to_owned();
    world.send_part(&upload, 1, &text).await;
    world.post(&format!("{upload}/complete"), json!({})).await;
    let ended = world.outcome(&upload).await;
    assert_eq!(ended["refusal"]["code"], json!("file.unsupported_type"), "{ended}");
    let empty = async {
        while every_object(&server.objects()) > 0 {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), empty).await.expect("nothing of it is left");
    assert_eq!(world.count("file_mgr.blobs").await, known, "and it was never claimed");
    world.keeps_every_rule().await;
}

fn every_object(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.map(|path| if path.is_dir() { every_object(&path) } else { 1 }).sum()
}

/// The folder of another tenant's is as if it were not there.
#[sqlx::test(migrations = "../migrations")]
async fn parts_come_into_a_folder_of_ones_own(db: PgPool) {
    let (world, _server) = in_a_bucket(db).await;
    world.work();
    let stranger = world.stranger().await;
    let make = |key: &str| {
        let ask = crate::world::request(axum::http::Method::POST, "/v1/folders", key);
        crate::world::with_json(ask, &json!({"name": "Sounds"}))
    };
    let theirs = world.send(make(&stranger)).await.json()["id"].clone();
    let mine = world.send(make(&world.key)).await.json()["id"].clone();
    let sound = sound(MIB);
    let body = |folder: &Value| json!({"name": "a.wav", "total_bytes": sound.len(), "folder_id": folder});
    let (real, none) =
        (world.begin_direct(body(&theirs)).await, world.begin_direct(body(&json!(uuid::Uuid::now_v7()))).await);
    assert_eq!((real.problem(), none.problem()), ("request.invalid".to_owned(), "request.invalid".to_owned()));
    let upload = world.begin_direct(body(&mine)).await.header("location").to_owned();
    world.send_part(&upload, 1, &sound).await;
    world.post(&format!("{upload}/complete"), json!({})).await;
    let file = world.outcome(&upload).await["file_id"].as_str().unwrap().to_owned();
    assert_eq!(world.get(&format!("/v1/files/{file}")).await.json()["folder_id"], mine);
    world.keeps_every_rule().await;
}

/// By tus each piece gives an upload another day, and so does each part here.
#[sqlx::test(migrations = "../migrations")]
async fn an_upload_lives_on_while_its_parts_are_asked_for(db: PgPool) {
    let (world, _server) = in_a_bucket(db).await;
    let sound = sound(12 * MIB);
    let begin = async || {
        let body = json!({"name": "a.wav", "total_bytes": sound.len(), "part_bytes": 5 * MIB});
        world.begin_direct(body).await.header("location").to_owned()
    };
    let (slow, idle) = (begin().await, begin().await);
    for (n, part) in sound.chunks(5 * MIB).enumerate() {
        world.send_part(&slow, n + 1, part).await;
        crate::jane::pass(&world, 23 * 3600).await;
        crate::uploads::expire(&world, &format!("day {n}")).await;
        assert_eq!(world.get(&slow).await.json()["state"], "open", "after {} parts", n + 1);
    }
    assert_eq!(world.get(&idle).await.json()["state"], "expired");
    world.work();
    assert_eq!(world.post(&format!("{slow}/complete"), json!({})).await.status, StatusCode::ACCEPTED);
    assert_eq!(world.file_of(&slow).await, BlobHash::of(&sound).as_str());
    world.keeps_every_rule().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn no_upload_to_the_storage_takes_longer_than_a_week(db: PgPool) {
    let (world, _server) = in_a_bucket(db).await;
    let begun = world.begin_direct(json!({"name": "a.wav", "total_bytes": 12 * MIB, "part_bytes": 5 * MIB})).await;
    let upload = begun.header("location").to_owned();
    for day in 0..8 {
        assert_eq!(world.post(&format!("{upload}/parts/1"), json!({})).await.status, StatusCode::OK, "day {day}");
        crate::jane::pass(&world, 23 * 3600).await;
    }
    crate::uploads::expire(&world, "a week").await;
    assert_eq!(world.post(&format!("{upload}/parts/1"), json!({})).await.problem(), "upload.ended");
    // Days were not let pass by anybody who makes months.
    sqlx::query("select platform.ensure_months(workflow.now(), now())").execute(&world.db).await.unwrap();
    world.keeps_every_rule().await;
}

/// P14, of parts: whatever comes first, it is a file, or it is gone.
#[sqlx::test(migrations = "../migrations")]
async fn p14_giving_up_races_completing_what_went_to_the_storage(db: PgPool) {
    let (world, _server) = in_a_bucket(db).await;
    world.work();
    let mut sound = sound(50_000);
    for n in 0..8 {
        sound[100] = n;
        let begun = world.begin_direct(json!({"name": "a.wav", "total_bytes": sound.len()})).await;
        let upload = begun.header("location").to_owned();
        world.send_part(&upload, 1, &sound).await;
        let path = format!("{upload}/complete");
        let (completed, given_up) = tokio::join!(world.post(&path, json!({})), world.give_up(&upload));
        match (completed.status.as_u16(), given_up.status.as_u16()) {
            (202, 409) => assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str()),
            (409 | 410 | 503, 204) => assert_eq!(world.outcome(&upload).await["state"], "aborted"),
            other => panic!("{other:?} {completed:?} {given_up:?}"),
        }
    }
    world.keeps_every_rule().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_folder_says_that_it_takes_no_parts(db: PgPool) {
    let world = World::new(db).await;
    let refused = world.begin_direct(json!({"total_bytes": 6_000_000})).await;
    assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (409, "upload.not_direct"));
    world.keeps_every_rule().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn tus_works_with_a_bucket(db: PgPool) {
    let (world, server) = in_a_bucket(db).await;
    world.work();
    let sound = sound(9 * MIB);
    let upload = world.begun(sound.len()).await;
    let mut offset = 0;
    for at in [1, 4 * MIB, 5 * MIB + 3] {
        world.append(&upload, offset, crate::uploads::cut(&sound[offset..], at - offset)).await;
        offset = world.offset(&upload).await;
        assert_eq!(offset, at);
    }
    assert_eq!(world.append(&upload, offset, sound[offset..].to_vec()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str());
    world.keeps_every_rule().await;
    drop(server);
}
