//! Uploads in pieces, by tus: whatever is cut, said wrongly or done twice, what becomes a file is what was sent, and what does not leaves
//! nothing behind.

mod given_up;
mod refused;

use crate::{
    files::wav,
    world::{Answer, World},
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

fn encoded(text: &str) -> String {
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
        let begun = self.begin(length, &format!("filename {}", encoded("sound.wav"))).await;
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
    let told = format!("filename {},folder_id {}", encoded("a.wav"), encoded(id));
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
        let refused = world.begin(5, &format!("folder_id {}", encoded(&wrong))).await;
        assert!(["request.invalid", "header.invalid"].contains(&refused.problem().as_str()), "{wrong}");
    }
    world.post(&format!("/v1/folders/{id}/trash"), serde_json::json!({})).await;
    assert_eq!(world.begin(5, &told).await.problem(), "folder.in_trash");
    world.keeps_every_rule().await;
}
