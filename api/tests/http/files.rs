//! Uploads: what they are is found in their content, and what is refused leaves nothing behind.

use crate::world::{World, order_with, png};
use axum::{body::Body, http::StatusCode};
use bytes::Bytes;
use serde_json::json;
use sqlx::PgPool;

#[sqlx::test(migrations = "../migrations")]
async fn a_picture_is_taken_in_with_its_size(db: PgPool) {
    let world = World::new(db).await;
    let answer = world.upload("logo.png", png([1, 2, 3])).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json());
    let file = answer.json();
    assert_eq!((&file["kind"], &file["content_type"]), (&json!("image"), &json!("image/png")));
    assert_eq!((&file["width"], &file["height"], &file["name"]), (&json!(256), &json!(144), &json!("logo.png")));
    let again = world.get(answer.header("location")).await;
    assert_eq!(again.json(), file);
    let order = order_with("data.images", json!({"logo": file["id"]}));
    assert_eq!(world.post("/v1/renders", order).await.status, StatusCode::ACCEPTED);
}

/// Of a picture the pixels are kept: what came behind or beside them is gone from what is stored, and from what is told.
#[sqlx::test(migrations = "../migrations")]
async fn a_picture_is_kept_in_an_encoding_of_ours(db: PgPool) {
    let world = World::new(db).await;
    let more = [png([1, 2, 3]), b"<script>alert(1)</script>".to_vec()].concat();
    let file = world.upload("logo.png", more).await.json();
    let ours = png([1, 2, 3]);
    let hash = flatrender_workflows::contracts::storage::BlobHash::of(&ours);
    assert_eq!((&file["sha256"], &file["size_bytes"]), (&json!(hash.as_str()), &json!(ours.len())));
    assert_eq!(std::fs::read(world.file_named(hash.as_str())).unwrap(), ours);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_archive_is_taken_in_when_it_is_a_plain_one(db: PgPool) {
    let world = World::new(db).await;
    let before = world.stored_files();
    let zip = |name: &str| {
        let mut zip = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
        zip.start_file(name, zip::write::SimpleFileOptions::default()).unwrap();
        std::io::Write::write_all(&mut zip, b"{}").unwrap();
        zip.finish().unwrap().into_inner()
    };
    assert_eq!(world.upload("evil.zip", zip("../evil")).await.problem(), "file.corrupt");
    assert_eq!(world.stored_files(), before);
    let file = world.upload("project.zip", zip("project.json")).await.json();
    assert_eq!((&file["kind"], &file["content_type"]), (&json!("archive"), &json!("application/zip")));
    let order = order_with("data.images", json!({"logo": file["id"]}));
    assert_eq!(world.post("/v1/renders", order).await.faults(), ["/data/images/logo file.wrong_kind"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_sound_is_taken_in_with_its_length(db: PgPool) {
    let world = World::new(db).await;
    let answer = world.upload("voice", wav(8000)).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json());
    assert_eq!((&answer.json()["kind"], &answer.json()["duration_ms"]), (&json!("audio"), &json!(1000)));
    let order = order_with("data.images", json!({"logo": answer.json()["id"]}));
    assert_eq!(world.post("/v1/renders", order).await.faults(), ["/data/images/logo file.wrong_kind"]);
}

/// A second of 8 kHz silence.
pub fn wav(samples: u32) -> Vec<u8> {
    let data = samples * 2;
    let mut bytes = b"RIFF".to_vec();
    bytes.extend((36 + data).to_le_bytes());
    bytes.extend(b"WAVEfmt \x10\0\0\0\x01\0\x01\0");
    bytes.extend(8000u32.to_le_bytes());
    bytes.extend(16000u32.to_le_bytes());
    bytes.extend(b"\x02\0\x10\0data");
    bytes.extend(data.to_le_bytes());
    bytes.resize(bytes.len() + data as usize, 0);
    bytes
}

#[sqlx::test(migrations = "../migrations")]
async fn refused_uploads_leave_nothing_behind(db: PgPool) {
    let world = World::new(db).await;
    let before = world.stored_files();
    let mut half = png([9, 9, 9]);
    half.truncate(half.len() / 2);
    let cases: [(&str, Vec<u8>, u16, &str); 5] = [
        ("notes.png", b"these are words, not a picture".to_vec(), 415, "file.unsupported_type"),
        ("empty.png", vec![], 422, "file.empty"),
        ("half.png", half, 422, "file.corrupt"),
        ("page.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>".to_vec(), 415, "file.unsupported_type"),
        ("list.m3u8", b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n".to_vec(), 415, "file.unsupported_type"),
    ];
    for (name, content, status, code) in cases {
        let answer = world.upload(name, content).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (status, code), "{name}");
    }
    assert_eq!(world.upload("a%2Fb.png", png([1, 1, 1])).await.problem(), "file.name_invalid");
    assert_eq!(world.upload("a%00b.png", png([1, 1, 1])).await.problem(), "file.name_invalid");
    assert_eq!(world.stored_files(), before);
    assert_eq!(world.count("file_mgr.files").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_upload_that_is_too_long_is_refused_while_it_comes(db: PgPool) {
    let world = World::new(db).await;
    let before = world.stored_files();
    let piece = Bytes::from(vec![7u8; 1_000_000]);
    let pieces = (0..201).map(move |_| Ok::<_, std::io::Error>(piece.clone()));
    let answer = world.upload("big.png", Body::from_stream(futures::stream::iter(pieces))).await;
    assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (413, "file.too_large"));
    assert_eq!(world.stored_files(), before);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_upload_that_breaks_off_leaves_nothing_behind(db: PgPool) {
    let world = World::new(db).await;
    let before = world.stored_files();
    let broken = futures::stream::iter([Ok(Bytes::from(png([1, 1, 1]))), Err(std::io::Error::other("gone"))]);
    assert_eq!(world.upload("half.png", Body::from_stream(broken)).await.problem(), "body.unreadable");
    assert_eq!(world.stored_files(), before);
}
