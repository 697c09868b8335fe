//! What is refused, or not taken in after all: it leaves no pieces, and its room is free.

use super::{MIB, STREAM, encoded, sound};
use crate::world::{World, request};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use flatrender_workflows::{
    contracts::storage::BlobHash,
    models::{DEFAULT_TENANT, invariants},
};
use futures::future::join_all;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use std::io;

#[sqlx::test(migrations = "../migrations")]
async fn p14_bytes_with_a_wrong_checksum_are_not_kept(db: PgPool) {
    let world = World::new(db).await;
    let sound = sound(5 * MIB);
    let upload = world.begun(sound.len()).await;
    let sha256 = |bytes: &[u8]| format!("sha256 {}", BASE64.encode(Sha256::digest(bytes)));
    let wrong = world.append_checked(&upload, 0, &sound, &sha256(b"other")).await;
    assert_eq!(
        (wrong.status.as_u16(), wrong.problem().as_str(), world.offset(&upload).await),
        (460, "upload.checksum", 0)
    );
    assert_eq!(world.pieces().await, 0, "not even on the disk");
    let unknown = world.append_checked(&upload, 0, &sound, "md5 YQ==").await;
    assert_eq!((unknown.status.as_u16(), unknown.problem().as_str()), (400, "header.invalid"));
    let half = sound.len() / 2;
    let right = world.append_checked(&upload, 0, &sound[..half], &sha256(&sound[..half])).await;
    assert_eq!((right.status, world.offset(&upload).await), (StatusCode::NO_CONTENT, half));
    world.work();
    let sha1 = format!("sha1 {}", BASE64.encode(sha1::Sha1::digest(&sound[half..])));
    assert_eq!(world.append_checked(&upload, half, &sound[half..], &sha1).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str());
    world.keeps_every_rule().await;
}

/// What is checked before it is kept waits on the disk: no more of it than 64 MiB, whether its length is announced or not.
#[sqlx::test(migrations = "../migrations")]
async fn no_more_is_sent_with_a_checksum_than_may_wait_on_the_disk(db: PgPool) {
    let world = World::new(db).await;
    let upload = world.begun(100 * MIB).await;
    let checked = |request: axum::http::request::Builder| {
        let request = request.header("content-type", STREAM).header("upload-offset", 0);
        request.header("upload-checksum", format!("sha256 {}", BASE64.encode(Sha256::digest(b"x"))))
    };
    let announced = checked(world.tus(Method::PATCH, &upload)).header("content-length", 64 * MIB + 1);
    let announced = world.send(announced.body(Body::empty()).unwrap()).await;
    let chunk = Bytes::from(vec![7; MIB]);
    let chunks = futures::stream::iter((0..65).map(move |_| io::Result::Ok(chunk.clone())));
    let unannounced = checked(world.tus(Method::PATCH, &upload)).body(Body::from_stream(chunks)).unwrap();
    let unannounced = world.send(unannounced).await;
    for refused in [announced, unannounced] {
        assert_eq!((refused.status.as_u16(), refused.problem().as_str()), (413, "upload.checked_too_large"));
    }
    let first = checked(world.tus(Method::POST, "/v1/uploads").header("upload-length", 100 * MIB));
    let first = first.header("content-length", 64 * MIB + 1).body(Body::empty()).unwrap();
    assert_eq!(world.send(first).await.problem(), "upload.checked_too_large");
    assert_eq!(world.count("file_mgr.upload_sessions").await, 1, "what is refused has not begun");
    assert_eq!((world.offset(&upload).await, world.pieces().await), (0, 0));
    assert_eq!(world.app.intakes.at_work(), 0, "whoever was refused has no turn any more");
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_not_taken_in_gives_its_room_back(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let words = b"these are words, not a sound".repeat(100);
    let upload = world.begun(words.len()).await;
    world.append(&upload, 0, words).await;
    let ended = world.outcome(&upload).await;
    assert_eq!(
        (&ended["state"], &ended["refusal"]["code"]),
        (&"refused".into(), &"file.unsupported_type".into()),
        "{ended}"
    );
    let head = world.send(world.tus(Method::HEAD, &upload).body(Body::empty()).unwrap()).await;
    assert_eq!(head.status, StatusCode::GONE);

    let sound = sound(50_000);
    let metadata = format!("filename {},sha256 {}", encoded("a.wav"), encoded(BlobHash::of(b"other").as_str()));
    let begun = world.begin(sound.len(), &metadata).await;
    let upload = begun.header("location").to_owned();
    world.append(&upload, 0, sound).await;
    assert_eq!(world.outcome(&upload).await["refusal"]["code"], "blob.mismatch");
    assert_eq!(world.count("file_mgr.files").await, 0);
    world.no_pieces().await;
    world.keeps_every_rule().await;
}

/// M37: lies about lengths, other people's uploads, and more of them than anybody needs.
#[sqlx::test(migrations = "../migrations")]
async fn m37_an_upload_is_what_it_said_it_would_be_and_its_owners_alone(db: PgPool) {
    let world = World::new(db).await;
    for (length, code) in
        [("0", "file.empty"), ("5368709121", "file.too_large"), ("-1", "header.invalid"), ("", "header.invalid")]
    {
        let request = world.tus(Method::POST, "/v1/uploads").header("upload-length", length);
        assert_eq!(world.send(request.body(Body::empty()).unwrap()).await.problem(), code, "{length}");
    }
    assert_eq!(world.begin(5, &format!("filename {}", encoded("a/b"))).await.problem(), "file.name_invalid");
    assert_eq!(world.begin(5, &format!("purpose {}", encoded("export"))).await.problem(), "header.invalid");
    let upload = world.begun(10).await;
    assert_eq!(world.append(&upload, 0, vec![7; 11]).await.problem(), "file.too_large");
    let unannounced = Body::from_stream(futures::stream::iter([io::Result::Ok(Bytes::from(vec![7; 11]))]));
    assert_eq!(world.append(&upload, 0, unannounced).await.problem(), "file.too_large");
    assert_eq!(world.append(&upload, 5, vec![7; 5]).await.header("upload-offset"), "0", "it tells how far it is");
    let plain = world.tus(Method::PATCH, &upload).header("upload-offset", 0).body(Body::from("x")).unwrap();
    assert_eq!(world.send(plain).await.problem(), "upload.content_type");
    assert_eq!(world.offset(&upload).await, 0);

    let jane = world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
    let jane = world.session(DEFAULT_TENANT, jane).await;
    for other in [&jane, &world.stranger().await] {
        for method in [Method::GET, Method::HEAD, Method::PATCH, Method::DELETE] {
            let request = request(method.clone(), &upload, other).header("tus-resumable", "1.0.0");
            let request = request.header("content-type", STREAM).header("upload-offset", 0);
            assert_eq!(
                world.send(request.body(Body::empty()).unwrap()).await.status,
                StatusCode::NOT_FOUND,
                "{method}"
            );
        }
    }
    let many = format!(
        "insert into file_mgr.upload_sessions (id, tenant_id, protocol, name, total_bytes, expires_at)
         select md5(n::text)::uuid, '{DEFAULT_TENANT}', 'tus', 'x', 1, now() + interval '1 hour' from generate_series(2, 1000) n;
         insert into file_mgr.quota_reservations (tenant_id, amount_bytes, purpose, expires_at)
         select '{DEFAULT_TENANT}', 1, 'upload:' || md5(n::text)::uuid, now() + interval '1 hour' from generate_series(2, 1000) n"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(many)).execute(&world.db).await.unwrap();
    assert_eq!(world.begin(5, "").await.problem(), "upload.too_many");
    assert_eq!(world.give_up(&upload).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.begin(5, "").await.status, StatusCode::CREATED);
    assert_eq!(invariants::check(&world.db, true).await.unwrap(), []);
}

/// Room is set aside when an upload begins, and of 64 who begin at once no more than fit do.
#[sqlx::test(migrations = "../migrations")]
async fn m43_sixty_four_clients_never_begin_more_than_fits(db: PgPool) {
    let world = World::new(db).await;
    let limit = "select file_mgr.take_turn('00000000-0000-0000-0000-000000000001', null); update file_mgr.quotas set limit_bytes = 1050";
    sqlx::raw_sql(limit).execute(&world.db).await.unwrap();
    for round in 0..3 {
        let answers = join_all((0..64).map(|_| world.begin(100, ""))).await;
        let begun: Vec<_> = answers.iter().filter(|a| a.status == StatusCode::CREATED).collect();
        assert_eq!(begun.len(), 10, "{round}");
        assert!(answers.iter().filter(|a| a.status != StatusCode::CREATED).all(|a| a.problem() == "quota.storage"));
        let ended = join_all(begun.iter().map(|a| world.give_up(a.header("location")))).await;
        assert!(ended.iter().all(|a| a.status == StatusCode::NO_CONTENT));
    }
    world.keeps_every_rule().await;
}

/// Of a number of files as well no more are begun than fit: nobody sends gigabytes for nothing.
#[sqlx::test(migrations = "../migrations")]
async fn an_upload_counts_as_a_file_from_its_beginning(db: PgPool) {
    let world = World::new(db).await;
    let limit = "select file_mgr.take_turn('00000000-0000-0000-0000-000000000001', null); update file_mgr.quotas set limit_files = 1";
    sqlx::raw_sql(limit).execute(&world.db).await.unwrap();
    let first = world.begun(1000).await;
    assert_eq!(world.begin(1000, "").await.problem(), "quota.storage");
    assert_eq!(world.upload("a.wav", sound(1000)).await.problem(), "quota.storage");
    assert_eq!(world.give_up(&first).await.status, StatusCode::NO_CONTENT);
    world.work();
    let (sound, second) = (sound(50_000), world.begun(50_044).await);
    assert_eq!(sound.len(), 50_044);
    assert_eq!(world.append(&second, 0, sound.clone()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.file_of(&second).await, BlobHash::of(&sound).as_str(), "its place is its own");
    world.keeps_every_rule().await;
}
