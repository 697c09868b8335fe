//! Uploads in pieces, by tus: whatever is cut, said wrongly or done twice, what becomes a file is what was sent, and what does not leaves
//! nothing behind.

use crate::{
    files::wav,
    world::{Answer, World, request},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use bytes::Bytes;
use flatrender_engine::{Client, Worker};
use flatrender_workflows::{
    contracts::storage::BlobHash,
    definitions::expire_uploads::ExpireUploads,
    models::{DEFAULT_TENANT, Role, Scope, file_mgr::upload, invariants},
};
use futures::{StreamExt as _, future::join_all};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use sqlx::PgPool;
use std::{io, time::Duration};

const MIB: usize = 1024 * 1024;
const STREAM: &str = "application/offset+octet-stream";

/// A sound of about so many bytes.
pub fn sound(bytes: usize) -> Vec<u8> {
    let mut sound = wav((bytes / 2) as u32);
    for (n, byte) in sound.iter_mut().enumerate().skip(44) {
        *byte = (n * n % 251) as u8;
    }
    sound
}

fn base64(text: &str) -> String {
    BASE64.encode(text)
}

impl World {
    fn tus(&self, method: Method, path: &str) -> axum::http::request::Builder {
        self.request(method, path).header("tus-resumable", "1.0.0")
    }

    /// Begins an upload and gives its address.
    async fn begin(&self, length: usize, metadata: &str) -> Answer {
        let request = self.tus(Method::POST, "/v1/uploads").header("upload-length", length);
        self.send(request.header("upload-metadata", metadata).body(Body::empty()).unwrap()).await
    }

    pub async fn begun(&self, length: usize) -> String {
        let begun = self.begin(length, &format!("filename {}", base64("sound.wav"))).await;
        assert_eq!(begun.status, StatusCode::CREATED, "{:?}", begun.body);
        begun.header("location").to_owned()
    }

    pub async fn append(&self, upload: &str, offset: usize, bytes: impl Into<Body>) -> Answer {
        let request = self.tus(Method::PATCH, upload).header("content-type", STREAM).header("upload-offset", offset);
        self.send(request.body(bytes.into()).unwrap()).await
    }

    async fn append_checked(&self, upload: &str, offset: usize, bytes: &[u8], checksum: &str) -> Answer {
        let request = self.tus(Method::PATCH, upload).header("content-type", STREAM).header("upload-offset", offset);
        let request = request.header("upload-checksum", checksum);
        self.send(request.body(Body::from(bytes.to_vec())).unwrap()).await
    }

    /// How far the server says that it is.
    pub async fn offset(&self, upload: &str) -> usize {
        let answer = self.send(self.tus(Method::HEAD, upload).body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status, answer.header("cache-control")), (StatusCode::OK, "no-store"));
        answer.header("upload-offset").parse().unwrap()
    }

    pub async fn give_up(&self, upload: &str) -> Answer {
        self.send(self.tus(Method::DELETE, upload).body(Body::empty()).unwrap()).await
    }

    /// The upload once it has ended.
    pub async fn outcome(&self, upload: &str) -> Value {
        let ended = async {
            loop {
                let seen = self.get(upload).await.json();
                if seen["state"] != "open" && seen["state"] != "completing" {
                    return seen;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), ended).await.expect("the upload ends")
    }

    /// The hash of the file that an upload became.
    pub async fn file_of(&self, upload: &str) -> String {
        let ended = self.outcome(upload).await;
        assert_eq!(ended["state"], "completed", "{ended}");
        let file = self.get(&format!("/v1/files/{}", ended["file_id"].as_str().unwrap())).await.json();
        file["sha256"].as_str().unwrap().to_owned()
    }

    /// Pieces on the shelves of uploads.
    async fn pieces(&self) -> usize {
        let mut folders = vec![self.folder.path().join("storage")];
        let mut found = 0;
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
                match entry.path() {
                    path if path.is_dir() => folders.push(path),
                    path if path.components().any(|c| c.as_os_str() == "uploads") => found += 1,
                    _ => {}
                }
            }
        }
        found
    }

    async fn no_pieces(&self) {
        let gone = async {
            while self.pieces().await > 0 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(20), gone).await.expect("the pieces are removed");
    }

    pub async fn keeps_every_rule(&self) {
        assert_eq!(invariants::check(&self.db, true).await.unwrap(), []);
        assert_eq!(self.count("file_mgr.quota_reservations where state = 'held'").await, 0, "no room is left reserved");
        assert_eq!(self.count("file_mgr.quotas where reserved_bytes <> 0").await, 0);
    }
}

/// A body that is cut after so many bytes.
pub fn cut(bytes: &[u8], after: usize) -> Body {
    let chunks: Vec<io::Result<Bytes>> =
        bytes[..after].chunks(64 * 1024).map(|c| Ok(Bytes::copy_from_slice(c))).collect();
    let end = [Err(io::Error::from(io::ErrorKind::ConnectionReset))];
    Body::from_stream(futures::stream::iter(chunks).chain(futures::stream::iter(end)))
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_spoken_is_told(db: PgPool) {
    let world = World::new(db).await;
    let told = world.send(world.request(Method::OPTIONS, "/v1/uploads").body(Body::empty()).unwrap()).await;
    assert_eq!(
        (told.status, told.header("tus-version"), told.header("tus-resumable")),
        (StatusCode::NO_CONTENT, "1.0.0", "1.0.0")
    );
    assert_eq!(told.header("tus-extension"), "creation,creation-with-upload,termination,checksum,expiration");
    assert_eq!((told.header("tus-checksum-algorithm"), told.header("tus-max-size")), ("sha256,sha1", "5368709120"));
    let other = world.request(Method::POST, "/v1/uploads").header("tus-resumable", "0.2.2").header("upload-length", 5);
    let other = world.send(other.body(Body::empty()).unwrap()).await;
    assert_eq!(
        (other.status.as_u16(), other.problem().as_str(), other.header("tus-version")),
        (412, "upload.version", "1.0.0")
    );
}

/// P14: cut at every end of a piece, a byte before, a byte behind, and within; what was kept is what was sent until then.
#[sqlx::test(migrations = "../migrations")]
async fn p14_an_upload_goes_on_after_a_cut_at_any_byte(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let sound = sound(32 * MIB);
    let upload = world.begun(sound.len()).await;
    let mut cuts: Vec<usize> = vec![0, 1, 44, 3 * MIB];
    for end in (4 * MIB..32 * MIB).step_by(4 * MIB) {
        cuts.extend([end - 1, end, end + 1, end + MIB + 17]);
    }
    cuts.push(sound.len() - 1);
    let mut offset = 0;
    for at in cuts {
        let answer = world.append(&upload, offset, cut(&sound[offset..], at - offset)).await;
        assert_eq!(answer.problem(), "body.unreadable");
        offset = world.offset(&upload).await;
        assert_eq!(offset, at, "what came before the cut is kept");
    }
    let last = world.append(&upload, offset, sound[offset..].to_vec()).await;
    assert_eq!((last.status, last.header("upload-offset")), (StatusCode::NO_CONTENT, sound.len().to_string().as_str()));
    assert_eq!(world.offset(&upload).await, sound.len());
    assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str());
    world.no_pieces().await;
    world.keeps_every_rule().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn many_small_requests_make_a_file_and_leave_no_pieces_that_were_replaced(db: PgPool) {
    let world = World::new(db).await;
    let sound = sound(40_000);
    let request =
        world.tus(Method::POST, "/v1/uploads").header("upload-length", sound.len()).header("content-type", STREAM);
    let begun = world.send(request.body(Body::from(sound[..1000].to_vec())).unwrap()).await;
    assert_eq!(
        (begun.status, begun.header("upload-offset")),
        (StatusCode::CREATED, "1000"),
        "the first bytes came with it"
    );
    let upload = begun.header("location").to_owned();
    for offset in (1000..39_000).step_by(1000) {
        assert_eq!(
            world.append(&upload, offset, sound[offset..offset + 1000].to_vec()).await.status,
            StatusCode::NO_CONTENT
        );
    }
    assert_eq!(world.pieces().await, 1);
    let request =
        world.tus(Method::POST, &upload).header("x-http-method-override", "PATCH").header("content-type", STREAM);
    let last = request.header("upload-offset", 39_000).body(Body::from(sound[39_000..].to_vec())).unwrap();
    assert_eq!(world.send(last).await.status, StatusCode::NO_CONTENT, "where only POST passes");
    world.work();
    assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str());
    world.keeps_every_rule().await;
}

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

/// Whoever replaces a piece removes the old one only where no piece is the same.
#[sqlx::test(migrations = "../migrations")]
async fn a_piece_that_was_replaced_is_no_piece_any_more(db: PgPool) {
    let world = World::new(db).await;
    let upload = world.begun(3000).await;
    let id: uuid::Uuid = upload.rsplit('/').next().unwrap().parse().unwrap();
    let has = async |length: usize| {
        let mut tx = Scope::tenant(Role::File, DEFAULT_TENANT).begin(&world.db).await.unwrap();
        upload::has_piece(&mut tx, id, &BlobHash::of(&vec![7; length])).await.unwrap()
    };
    world.append(&upload, 0, vec![7; 1000]).await;
    assert!(has(1000).await);
    world.append(&upload, 1000, vec![7; 1000]).await;
    assert!(has(2000).await && !has(1000).await);
    assert_eq!(world.pieces().await, 1);
}

/// However it came to that, nobody is sent to the same place for ever.
#[sqlx::test(migrations = "../migrations")]
async fn a_piece_that_is_not_there_any_more_is_sent_again(db: PgPool) {
    let world = World::new(db).await;
    let sound = sound(5 * MIB);
    let upload = world.begun(sound.len()).await;
    world.append(&upload, 0, sound[..4 * MIB + 1000].to_vec()).await;
    let lost = BlobHash::of(&sound[4 * MIB..4 * MIB + 1000]);
    std::fs::remove_file(world.file_named(lost.as_str())).unwrap();
    let refused = world.append(&upload, 4 * MIB + 1000, sound[4 * MIB + 1000..].to_vec()).await;
    assert_eq!((refused.problem().as_str(), refused.header("upload-offset")), ("upload.offset", "4194304"));
    assert_eq!(world.append(&upload, 4 * MIB, sound[4 * MIB..].to_vec()).await.status, StatusCode::NO_CONTENT);
    world.work();
    assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str());
    world.keeps_every_rule().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn of_several_who_send_at_once_one_wins_and_the_bytes_are_right(db: PgPool) {
    let world = World::new(db).await;
    let sound = sound(9 * MIB);
    let upload = world.begun(sound.len()).await;
    let answers = join_all((0..4).map(|_| world.append(&upload, 0, sound.clone()))).await;
    let won = answers.iter().filter(|a| a.status == StatusCode::NO_CONTENT).count();
    assert!(won <= 1, "{answers:?}");
    for lost in answers.iter().filter(|a| a.status != StatusCode::NO_CONTENT) {
        assert!(lost.status == StatusCode::CONFLICT && lost.problem().starts_with("upload."), "{lost:?}");
    }
    let again = world.append(&upload, 0, sound.clone()).await;
    assert_eq!(again.status, StatusCode::CONFLICT, "sent before");
    world.work();
    while world.get(&upload).await.json()["state"] == "open" {
        let offset = world.offset(&upload).await;
        world.append(&upload, offset, sound[offset..].to_vec()).await;
    }
    assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str());
    assert_eq!(
        world.append(&upload, sound.len(), Body::empty()).await.problem(),
        "upload.complete",
        "complete is complete"
    );
    assert_eq!(world.give_up(&upload).await.problem(), "upload.complete");
    assert_eq!(
        (world.count("file_mgr.files").await, world.count("workflow.runs where kind = 'finish_upload'").await),
        (1, 1)
    );
    world.keeps_every_rule().await;
}

/// Whatever comes first: it is a file, or it is gone, and never something between.
#[sqlx::test(migrations = "../migrations")]
async fn p14_giving_up_races_completing(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let sound = sound(50_000);
    for n in 0..12 {
        let mut sound = sound.clone();
        sound[100] = n;
        let upload = world.begun(sound.len()).await;
        let (kept, given_up) = tokio::join!(world.append(&upload, 0, sound.clone()), world.give_up(&upload));
        match (kept.status.as_u16(), given_up.status.as_u16()) {
            (204, 409) => assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str()),
            (409 | 410, 204) => assert_eq!(world.outcome(&upload).await["state"], "aborted"),
            other => panic!("{other:?} {kept:?} {given_up:?}"),
        }
        let after = world.append(&upload, 0, sound.clone()).await;
        assert!(matches!(after.problem().as_str(), "upload.ended" | "upload.complete"), "{after:?}");
    }
    world.keeps_every_rule().await;
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
    let metadata = format!("filename {},sha256 {}", base64("a.wav"), base64(BlobHash::of(b"other").as_str()));
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
    assert_eq!(world.begin(5, &format!("filename {}", base64("a/b"))).await.problem(), "file.name_invalid");
    assert_eq!(world.begin(5, &format!("purpose {}", base64("export"))).await.problem(), "header.invalid");
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

#[sqlx::test(migrations = "../migrations")]
async fn an_upload_that_nobody_goes_on_with_is_given_up(db: PgPool) {
    let world = World::new(db).await;
    let upload = world.begun(1000).await;
    world.append(&upload, 0, vec![7; 500]).await;
    let going_on = world.begun(1000).await;
    assert_eq!(world.count("file_mgr.quotas where reserved_bytes = 2000").await, 1);
    crate::jane::pass(&world, 23 * 3600).await;
    world.append(&going_on, 0, vec![7; 500]).await;
    crate::jane::pass(&world, 2 * 3600).await;
    expire(&world, "first").await;
    let head = world.send(world.tus(Method::HEAD, &upload).body(Body::empty()).unwrap()).await;
    assert_eq!((head.status, world.offset(&going_on).await), (StatusCode::GONE, 500));
    assert_eq!(world.append(&upload, 500, vec![7; 500]).await.problem(), "upload.ended");
    assert_eq!(world.count("file_mgr.quotas where reserved_bytes = 1000").await, 1);
    assert_eq!(invariants::check(&world.db, true).await.unwrap(), []);
    crate::jane::pass(&world, 7200).await;
    expire(&world, "second").await;
    assert_eq!(world.pieces().await, 1, "the piece of the one that goes on");
    assert_eq!(world.count("file_mgr.upload_sessions where cleared_at is not null").await, 1);
}

/// An upload whose pieces cannot be removed keeps no other from being cleared, and is tried again.
#[sqlx::test(migrations = "../migrations")]
async fn pieces_that_cannot_be_removed_keep_no_others_from_going(db: PgPool) {
    let world = World::new(db).await;
    let (stuck, other) = (world.begun(1000).await, world.begun(1000).await);
    for upload in [&stuck, &other] {
        assert_eq!(world.append(upload, 0, vec![7; 500]).await.status, StatusCode::NO_CONTENT);
    }
    let shelf = format!("storage/tenants/{DEFAULT_TENANT}/uploads/{}", stuck.rsplit('/').next().unwrap());
    let (shelf, away) = (world.folder.path().join(shelf), world.folder.path().join("away"));
    std::fs::rename(&shelf, &away).unwrap();
    std::fs::write(&shelf, "in the way").unwrap();
    crate::jane::pass(&world, 2 * 86_400).await;
    expire(&world, "first").await;
    crate::jane::pass(&world, 7200).await;
    expire(&world, "second").await;
    assert_eq!(world.count("file_mgr.upload_sessions where cleared_at is not null").await, 1);
    assert_eq!(world.pieces().await, 1, "what is in the way");
    let failed = "workflow.runs where kind = 'expire_uploads' and state = 'failed'";
    assert_eq!(world.count(failed).await, 1, "it is told of");
    std::fs::remove_file(&shelf).unwrap();
    std::fs::rename(&away, &shelf).unwrap();
    expire(&world, "third").await;
    assert_eq!(world.count("file_mgr.upload_sessions where cleared_at is not null").await, 2);
    assert_eq!((world.pieces().await, world.count(failed).await), (0, 1));
}

/// A storage that is away is not asked for every upload there is; once it is back all of them go.
#[sqlx::test(migrations = "../migrations")]
async fn a_storage_that_is_away_is_asked_for_two_batches(db: PgPool) {
    let world = World::new(db).await;
    let ended = format!(
        "insert into file_mgr.upload_sessions (tenant_id, protocol, name, total_bytes, offset_bytes, state, expires_at, created_at, updated_at)
         select '{DEFAULT_TENANT}', 'tus', 'a.bin', 5, 5, 'aborted', long_ago, long_ago, long_ago
         from (select workflow.now() - interval '2 days' as long_ago) a, generate_series(1, 30)"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(ended)).execute(&world.db).await.unwrap();
    let ids = sqlx::query_scalar("select id from file_mgr.upload_sessions").fetch_all(&world.db).await;
    let ids: Vec<uuid::Uuid> = ids.unwrap();
    let shelves = world.folder.path().join(format!("storage/tenants/{DEFAULT_TENANT}/uploads"));
    std::fs::create_dir_all(&shelves).unwrap();
    for id in &ids {
        std::fs::write(shelves.join(id.to_string()), "in the way").unwrap();
    }
    expire(&world, "away").await;
    let asked = "(select distinct step_key from workflow.attempts where step_key like 'clear %') a";
    assert_eq!(world.count(asked).await, 2);
    assert_eq!(world.count("workflow.runs where kind = 'expire_uploads' and state = 'failed'").await, 1);
    for id in &ids {
        std::fs::remove_file(shelves.join(id.to_string())).unwrap();
    }
    expire(&world, "back").await;
    assert_eq!(world.count("file_mgr.upload_sessions where cleared_at is not null").await, 30);
}

#[sqlx::test(migrations = "../migrations")]
async fn all_room_that_is_set_aside_for_too_long_is_freed_by_one_run(db: PgPool) {
    let world = World::new(db).await;
    let many = format!(
        "insert into file_mgr.quota_reservations (tenant_id, amount_bytes, purpose, expires_at)
         select '{DEFAULT_TENANT}', 1, 'test:' || n, now() - interval '1 hour' from generate_series(1, 450) n"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(many)).execute(&world.db).await.unwrap();
    expire(&world, "first").await;
    world.keeps_every_rule().await;
}

/// Has uploads expired once, with the world's storage.
pub async fn expire(world: &World, key: &str) {
    let media = flatrender_activities::media::Media::new(world.storage.clone(), world.folder.path().join("scratch"));
    let worker = Worker::builder(world.db.clone())
        .workflow::<ExpireUploads>()
        .queue("media", 1)
        .handler::<flatrender_workflows::contracts::upload::ClearUploads>(media);
    let stopping = world.stopping.child_token();
    let working = tokio::spawn(worker.run(stopping.clone()));
    let client = Client::new(world.db.clone());
    let mut tx = world.db.begin().await.unwrap();
    let run = client.start(&mut tx, DEFAULT_TENANT, Some(key), ExpireUploads {}).await.unwrap().run_id;
    tx.commit().await.unwrap();
    client.announce();
    client.finished(run, Duration::from_secs(30)).await.unwrap().expect("it ends");
    stopping.cancel();
    working.await.unwrap().unwrap();
}

/// A worker that is lost after every event of completion makes the same file, once.
#[sqlx::test(migrations = "../migrations")]
async fn a_crash_after_every_step_of_completion_leaves_nothing_wrong(db: PgPool) {
    use flatrender_workflows::{
        contracts::upload::{ClearUploads, TakeUpload},
        definitions::finish_upload::FinishUpload,
    };
    let world = World::new(db).await;
    let (sound, words) = (sound(5 * MIB), b"not a sound".repeat(1000));
    let uploads = [world.begun(sound.len()).await, world.begun(words.len()).await];
    world.append(&uploads[0], 0, sound.clone()).await;
    world.append(&uploads[1], 0, words).await;
    let media = flatrender_activities::media::Media::new(world.storage.clone(), world.folder.path().join("scratch"));
    let worker = Worker::builder(world.db.clone())
        .workflow::<FinishUpload>()
        .queue("media", 1)
        .handler::<TakeUpload>(media.clone())
        .handler::<ClearUploads>(media)
        .crash_after_every_event();
    let stopping = world.stopping.child_token();
    let working = tokio::spawn(worker.run(stopping.clone()));
    assert_eq!(world.file_of(&uploads[0]).await, BlobHash::of(&sound).as_str());
    assert_eq!(world.outcome(&uploads[1]).await["state"], "refused");
    world.no_pieces().await;
    stopping.cancel();
    working.await.unwrap().unwrap();
    assert_eq!(world.count("file_mgr.files").await, 1);
    world.keeps_every_rule().await;
}

/// An upload comes into the folder that it was begun for; should something have its name there by then, into none.
#[sqlx::test(migrations = "../migrations")]
async fn an_upload_comes_into_its_folder(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let folder = world.post("/v1/folders", serde_json::json!({"name": "Sounds"})).await.json()["id"].clone();
    let id = folder.as_str().unwrap();
    let told = format!("filename {},folder_id {}", base64("a.wav"), base64(id));
    let sound = sound(100_000);
    let mut files = vec![];
    let both = [world.begin(sound.len(), &told).await, world.begin(sound.len(), &told).await];
    for begun in both {
        let upload = begun.header("location").to_owned();
        assert!(world.get(&upload).await.json()["folder_id"] == folder);
        assert_eq!(world.append(&upload, 0, sound.clone()).await.status, StatusCode::NO_CONTENT);
        let file = world.outcome(&upload).await["file_id"].as_str().unwrap().to_owned();
        files.push(world.get(&format!("/v1/files/{file}")).await.json()["folder_id"].clone());
    }
    assert_eq!(files, [folder.clone(), Value::Null]);
    for wrong in [uuid::Uuid::now_v7().to_string(), "x".to_owned()] {
        let refused = world.begin(5, &format!("folder_id {}", base64(&wrong))).await;
        assert!(["request.invalid", "header.invalid"].contains(&refused.problem().as_str()), "{wrong}");
    }
    world.post(&format!("/v1/folders/{id}/trash"), serde_json::json!({})).await;
    assert_eq!(world.begin(5, &told).await.problem(), "folder.in_trash");
    world.keeps_every_rule().await;
}
