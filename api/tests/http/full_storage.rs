//! P11: a storage without room. Whoever stores is told so, nothing that was kept is lost, room in a quota stays set aside for what may still
//! come, and once there is space again everything goes on from where it was.

use crate::{
    uploads::sound,
    world::{World, order, png},
};
use axum::http::StatusCode;
use flatrender_activities::{media::Media, storage::ObjectStorage};
use flatrender_engine::{Worker, testing::skip_to_next_timer};
use flatrender_workflows::{
    contracts::{
        storage::{
            BlobBody, BlobHash, BlobRef, BlobStore, BlobStream, ByteStream, DirectUploads, Shelf, SignedGet,
            StorageError,
        },
        upload::{ClearUploads, TakeUpload},
    },
    definitions::finish_upload::FinishUpload,
    models::file_mgr::blob_claim::BlobClaims,
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    io,
    ops::Range,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

/// A disk that is full for as long as it is told so: what is there is read and removed as ever.
struct Disk {
    storage: ObjectStorage,
    is_full: AtomicBool,
    /// How often it has refused something meanwhile.
    refused: AtomicUsize,
}

impl Disk {
    fn fill(&self) {
        self.refused.store(0, Ordering::Relaxed);
        self.is_full.store(true, Ordering::Relaxed);
    }

    fn make_space(&self) {
        self.is_full.store(false, Ordering::Relaxed);
    }

    fn take(&self) -> Result<(), StorageError> {
        if self.is_full.load(Ordering::Relaxed) {
            self.refused.fetch_add(1, Ordering::Relaxed);
            return Err(StorageError::Full(io::ErrorKind::StorageFull.into()));
        }
        Ok(())
    }

    /// Waits until it has refused something since it became full.
    async fn refuses(&self) {
        let asked = async {
            while self.refused.load(Ordering::Relaxed) == 0 {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), asked).await.expect("something is to be stored");
    }
}

impl BlobStore for Disk {
    fn put<'a>(
        &'a self,
        shelf: &'a Shelf,
        expected: Option<&'a BlobHash>,
        body: ByteStream,
        limit_bytes: u64,
    ) -> BoxFuture<'a, Result<BlobRef, StorageError>> {
        Box::pin(async move {
            self.take()?;
            self.storage.put(shelf, expected, body, limit_bytes).await
        })
    }

    fn put_file<'a>(&'a self, shelf: &'a Shelf, path: &'a Path) -> BoxFuture<'a, Result<BlobRef, StorageError>> {
        Box::pin(async move {
            self.take()?;
            self.storage.put_file(shelf, path).await
        })
    }

    fn stat<'a>(&'a self, shelf: &'a Shelf, hash: &'a BlobHash) -> BoxFuture<'a, Result<Option<u64>, StorageError>> {
        self.storage.stat(shelf, hash)
    }

    fn open<'a>(
        &'a self,
        shelf: &'a Shelf,
        hash: &'a BlobHash,
        range: Option<Range<u64>>,
    ) -> BoxFuture<'a, Result<BlobBody, StorageError>> {
        self.storage.open(shelf, hash, range)
    }

    fn fetch<'a>(
        &'a self,
        shelf: &'a Shelf,
        hash: &'a BlobHash,
        path: &'a Path,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        self.storage.fetch(shelf, hash, path)
    }

    fn remove<'a>(&'a self, shelf: &'a Shelf, hash: &'a BlobHash) -> BoxFuture<'a, Result<(), StorageError>> {
        self.storage.remove(shelf, hash)
    }

    fn clear<'a>(&'a self, shelf: &'a Shelf) -> BoxFuture<'a, Result<(), StorageError>> {
        self.storage.clear(shelf)
    }

    fn list(&self, shelf: &Shelf, first: Option<u8>) -> BlobStream {
        self.storage.list(shelf, first)
    }

    fn sign_get<'a>(
        &'a self,
        shelf: &'a Shelf,
        hash: &'a BlobHash,
        says: SignedGet<'a>,
    ) -> BoxFuture<'a, Result<Option<String>, StorageError>> {
        self.storage.sign_get(shelf, hash, says)
    }

    fn direct(&self) -> Option<&dyn DirectUploads> {
        self.storage.direct()
    }

    fn tidy(&self) -> BoxFuture<'_, Result<u64, StorageError>> {
        self.storage.tidy()
    }

    fn probe(&self) -> BoxFuture<'_, Result<(), StorageError>> {
        self.storage.probe()
    }
}

async fn world(db: PgPool) -> (World, Arc<Disk>) {
    let folder = tempfile::tempdir().unwrap();
    let storage = ObjectStorage::local(&folder.path().join("storage")).unwrap();
    let storage = storage.with_claims(Arc::new(BlobClaims::new(db.clone())));
    let disk = Arc::new(Disk { storage, is_full: AtomicBool::new(false), refused: AtomicUsize::new(0) });
    (World::on(db, folder, disk.clone()).await, disk)
}

/// Bytes that are kept, and that are set aside.
async fn kept(world: &World) -> (i64, i64) {
    let sql = "select used_bytes, reserved_bytes from file_mgr.quotas where owner_id is null";
    sqlx::query_as(sql).fetch_one(&world.db).await.unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn who_stores_on_a_full_storage_is_told_so_and_goes_on_once_there_is_space(db: PgPool) {
    let (world, disk) = world(db).await;
    let sound = sound(100_000);
    let upload = world.begun(sound.len()).await;
    assert_eq!(world.append(&upload, 0, sound[..40_000].to_vec()).await.status, StatusCode::NO_CONTENT);
    disk.fill();
    let refused = world.append(&upload, 40_000, sound[40_000..].to_vec()).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::INSUFFICIENT_STORAGE, "storage.full"));
    let refused = world.upload("a.png", png([1, 2, 3])).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::INSUFFICIENT_STORAGE, "storage.full"));
    assert_eq!(world.offset(&upload).await, 40_000, "what was kept is kept");
    assert_eq!(world.get(&upload).await.json()["state"], "open");
    assert_eq!(world.count("file_mgr.files").await, 0);
    assert_eq!(kept(&world).await, (0, sound.len() as i64), "the room of the one that goes on, and of no other");

    disk.make_space();
    world.work();
    assert_eq!(world.append(&upload, 40_000, sound[40_000..].to_vec()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str());
    assert_eq!(world.upload("a.png", png([1, 2, 3])).await.status, StatusCode::CREATED);
    world.keeps_every_rule().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn an_upload_that_is_complete_waits_for_space_with_its_room(db: PgPool) {
    let (world, disk) = world(db).await;
    let sound = sound(100_000);
    let upload = world.begun(sound.len()).await;
    assert_eq!(world.append(&upload, 0, sound.clone()).await.status, StatusCode::NO_CONTENT);
    disk.fill();
    world.work();
    disk.refuses().await;
    assert_eq!(world.get(&upload).await.json()["state"], "completing");
    assert_eq!(world.count("file_mgr.files").await, 0, "there is no half of a file");
    assert_eq!(kept(&world).await, (0, sound.len() as i64));

    disk.make_space();
    assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str());
    assert_eq!(world.count("file_mgr.files").await, 1);
    assert!(world.count("workflow.attempts where failure ->> 'code' = 'storage.full'").await > 0, "it says why");
    world.keeps_every_rule().await;
}

/// Finishes uploads and does nothing else: time that passes while they wait finds nobody at work.
fn finish_uploads(world: &World) {
    let media = Media::new(world.storage.clone(), world.folder.path().join("scratch"));
    let worker = Worker::builder(world.db.clone())
        .workflow::<FinishUpload>()
        .queue("media", 1)
        .handler::<TakeUpload>(media.clone())
        .handler::<ClearUploads>(media)
        .hasty();
    tokio::spawn(worker.run(world.stopping.child_token()));
}

/// Lets what is only waited for pass until it has come to that. A run that waits for an activity stays at work meanwhile, so that the clock
/// cannot be moved under it: the activity is tried again at once instead.
async fn passes_until(world: &World, come: impl AsyncFn() -> bool) {
    let retry = "update workflow.tasks set run_at = workflow.now() where kind = 'activity' and state = 'waiting'";
    let passing = async {
        while !come().await {
            sqlx::query(retry).execute(&world.db).await.unwrap();
            skip_to_next_timer(&world.db).await.unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), passing).await.expect("it comes to that");
}

/// What was acknowledged byte by byte is not refused for an outage that is longer than the patience of one activity.
#[sqlx::test(migrations = "../migrations")]
async fn an_outage_of_more_than_minutes_refuses_no_upload_that_is_complete(db: PgPool) {
    let (world, disk) = world(db).await;
    let sound = sound(100_000);
    let upload = world.begun(sound.len()).await;
    assert_eq!(world.append(&upload, 0, sound.clone()).await.status, StatusCode::NO_CONTENT);
    disk.fill();
    finish_uploads(&world);
    // An activity has ten.
    let attempts = "workflow.attempts where failure ->> 'code' = 'storage.full'";
    passes_until(&world, async || world.count(attempts).await > 20).await;
    assert_eq!(world.get(&upload).await.json()["state"], "completing");
    assert_eq!(kept(&world).await, (0, sound.len() as i64), "its room is set aside");
    assert_eq!(
        world.count("workflow.steps where key like 'work%'").await,
        1,
        "what there is to do is written down once"
    );

    disk.make_space();
    passes_until(&world, async || world.get(&upload).await.json()["state"] != "completing").await;
    assert_eq!(world.file_of(&upload).await, BlobHash::of(&sound).as_str());
    world.keeps_every_rule().await;
}

/// The patience with an outage is that of the upload: a day.
#[sqlx::test(migrations = "../migrations")]
async fn an_upload_that_waits_for_space_is_given_up_when_its_day_is_over(db: PgPool) {
    let (world, disk) = world(db).await;
    let sound = sound(100_000);
    let upload = world.begun(sound.len()).await;
    assert_eq!(world.append(&upload, 0, sound.clone()).await.status, StatusCode::NO_CONTENT);
    disk.fill();
    finish_uploads(&world);
    passes_until(&world, async || world.count("workflow.attempts where outcome = 'failed'").await > 10).await;
    crate::jane::pass(&world, 86_400).await;
    crate::uploads::expire(&world, "late").await;
    let failed = "workflow.runs where kind = 'finish_upload' and state = 'failed'";
    passes_until(&world, async || world.count(failed).await == 1).await;
    assert_eq!(world.get(&upload).await.json()["state"], "expired");
    assert_eq!((world.count("file_mgr.files").await, kept(&world).await), (0, (0, 0)));
    world.keeps_every_rule().await;
}

/// What makes space needs none.
#[sqlx::test(migrations = "../migrations")]
async fn what_is_given_up_goes_from_a_full_storage_and_so_does_its_room(db: PgPool) {
    let (world, disk) = world(db).await;
    let stored = world.stored_files();
    let upload = world.begun(1000).await;
    assert_eq!(world.append(&upload, 0, vec![7; 500]).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.stored_files(), stored + 1);
    disk.fill();
    assert_eq!(world.give_up(&upload).await.status, StatusCode::NO_CONTENT);
    assert_eq!((world.stored_files(), kept(&world).await), (stored, (0, 0)));
    world.keeps_every_rule().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_else_is_made_of_a_film_waits_for_space_with_its_room_and_the_film_stands(db: PgPool) {
    let (world, disk) = world(db).await;
    world.work();
    let ordered = world.post("/v1/renders", order()).await;
    assert_eq!(ordered.status, StatusCode::ACCEPTED, "{:?}", ordered.body);
    let node = world.node("n1").await;
    let render = crate::film::finished(&world, &node, &world.key, ordered.json()["id"].as_str().unwrap()).await;
    assert_eq!(render["status"], "completed", "{render}");
    let (used, reserved) = kept(&world).await;
    assert_eq!(reserved, 0);

    disk.fill();
    let export = format!("/v1/exports/{}", render["export"]["id"].as_str().unwrap());
    let poster = format!("{export}/derivatives/poster");
    assert_eq!(world.post(&poster, json!({})).await.status, StatusCode::ACCEPTED);
    disk.refuses().await;
    let seen: Value = world.get(&export).await.json();
    assert_eq!(seen["derivatives"][0]["state"], "queued");
    assert_eq!(world.get(&format!("{export}/download")).await.status, StatusCode::OK, "reading goes on");
    let (still, reserved) = kept(&world).await;
    assert!(still == used && reserved > 0, "{still} of {used}, and {reserved} set aside");

    disk.make_space();
    let made = async {
        while world.get(&export).await.json()["derivatives"][0]["state"] != "ready" {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), made).await.expect("the poster is made");
    assert!(world.get(&poster).await.body.starts_with(&[0xff, 0xd8]), "it is a JPEG");
    world.keeps_every_rule().await;
}
