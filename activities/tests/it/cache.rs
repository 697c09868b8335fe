//! The cache of inputs against a model: what is forgotten, in which order, and what never is.

use crate::world::{Shelf, blob, zip};
use flatrender_activities::aerender::{
    InputSource, TransferError,
    cache::{Cache, Pin},
    unpack::Bounds,
};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::storage::{BlobHash, BlobRef};
use proptest::prelude::*;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    task::Poll,
};

/// Package `n`, of about `n` hundred bytes.
fn package(n: usize) -> Vec<u8> {
    let content: Vec<u8> = (0..n * 100).map(|i| (i * 31 + n * 7 + i / 251) as u8).collect();
    zip(&[("project.json", b"{}"), ("media/film.bin", &content), ("media/empty.bin", b"")])
}

struct Scene {
    folder: tempfile::TempDir,
    shelf: Shelf,
    cache: Cache,
    uses: usize,
}

impl Scene {
    fn new(limit: u64) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let cache = Cache::open(folder.path().join("cache"), limit, Bounds::default()).unwrap();
        let shelf = Shelf::default();
        (1..=6).for_each(|n| shelf.add(&package(n)));
        Self { folder, shelf, cache, uses: 0 }
    }

    /// Uses a package, and gives its folder.
    async fn use_it(&mut self, blob: &BlobRef) -> PathBuf {
        self.uses += 1;
        let target = self.folder.path().join(format!("use-{}", self.uses));
        fs::create_dir(&target).unwrap();
        self.cache.copy_package(&self.shelf, blob, &target).await.unwrap();
        target
    }

    fn fetched(&self) -> u32 {
        *self.shelf.fetched.lock().unwrap()
    }

    fn entry(&self, blob: &BlobRef) -> PathBuf {
        self.folder.path().join(format!("cache/{}.package", blob.sha256))
    }
}

/// Changes one bit of a file that is read-only.
fn flip(path: &Path) {
    #[cfg(unix)]
    use std::os::unix::fs::PermissionsExt;
    let mut bytes = fs::read(path).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    #[cfg(unix)]
    fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    fs::write(path, bytes).unwrap();
}

#[tokio::test]
async fn one_flipped_bit_is_found_before_use_and_mended() {
    let blob = blob(&package(3));
    for spoiled in ["files/media/film.bin", "files/project.json", "sums"] {
        let mut scene = Scene::new(1 << 20);
        scene.use_it(&blob).await;
        flip(&scene.entry(&blob).join(spoiled));
        let target = scene.use_it(&blob).await;
        let sound = scene.use_it(&blob).await;
        assert_eq!(fs::read(target.join("media/film.bin")).unwrap(), fs::read(sound.join("media/film.bin")).unwrap());
        assert_eq!((fs::read(target.join("project.json")).unwrap(), scene.fetched()), (b"{}".to_vec(), 2), "{spoiled}");
    }
}

#[tokio::test]
async fn a_file_too_many_or_too_few_is_found_before_use() {
    let blob = blob(&package(3));
    for change in [
        |p: &Path| fs::write(p.join("files/more"), b"").unwrap(),
        |p: &Path| {
            fs::remove_file(p.join("files/media/empty.bin")).unwrap();
        },
    ] {
        let mut scene = Scene::new(1 << 20);
        scene.use_it(&blob).await;
        change(&scene.entry(&blob));
        let target = scene.use_it(&blob).await;
        assert!(target.join("media/empty.bin").exists() && !target.join("more").exists());
        assert_eq!(scene.fetched(), 2);
    }
}

#[tokio::test]
async fn a_flipped_bit_in_an_asset_is_found_before_use() {
    let scene = Scene::new(1 << 20);
    scene.shelf.add(b"a picture of a customer");
    let (blob, target) = (blob(b"a picture of a customer"), scene.folder.path().join("asset"));
    scene.cache.copy_file(&scene.shelf, &blob, &target).await.unwrap();
    flip(&scene.folder.path().join(format!("cache/{}.file", blob.sha256)));
    scene.cache.copy_file(&scene.shelf, &blob, &target).await.unwrap();
    assert_eq!((fs::read(&target).unwrap(), scene.fetched()), (b"a picture of a customer".to_vec(), 2));
}

#[tokio::test]
async fn what_is_used_cannot_be_evicted_and_what_is_not_can() {
    let blob = blob(&package(2));
    let mut scene = Scene::new(1 << 20);
    scene.use_it(&blob).await;
    let pin = scene.cache.pin(&blob.sha256);
    assert!(!scene.cache.evict(&blob.sha256));
    assert!(scene.cache.packages()[0].in_use);
    drop(pin);
    assert!(scene.cache.evict(&blob.sha256));
    assert_eq!(scene.cache.packages(), []);
}

#[tokio::test]
async fn finding_a_package_is_a_hit_and_fetching_it_is_none() {
    let (one, two) = (blob(&package(1)), blob(&package(2)));
    let mut scene = Scene::new(1 << 20);
    for blob in [&one, &two, &one, &one] {
        scene.use_it(blob).await;
    }
    let hits: Vec<_> = scene.cache.packages().into_iter().map(|p| (p.sha256, p.hits)).collect();
    assert_eq!(hits, [(one.sha256, 2), (two.sha256, 0)], "the last used first");
}

/// Polls a future as often as it wants, but at most so many times, and drops it. What came of it.
async fn polled<T>(work: impl Future<Output = T>, times: u32) -> Option<T> {
    let mut work = std::pin::pin!(work);
    let mut left = times;
    std::future::poll_fn(|cx| {
        left -= 1;
        match work.as_mut().poll(cx) {
            Poll::Ready(made) => Poll::Ready(Some(made)),
            Poll::Pending if left == 0 => Poll::Ready(None),
            Poll::Pending => Poll::Pending,
        }
    })
    .await
}

/// Has a package brought by `inputs`, dropped after so many polls. What came of it, and what lies in the cache then.
fn cut_off(inputs: &impl InputSource, blob: &BlobRef, polls: u32) -> (Option<Result<(), Failure>>, Vec<String>) {
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::open(folder.path().join("cache"), 1 << 20, Bounds::default()).unwrap();
    let target = folder.path().join("target");
    fs::create_dir(&target).unwrap();
    // One thread for work that blocks, so that all of it that was begun is over when the last of it is.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().max_blocking_threads(1).build().unwrap();
    let made = runtime.block_on(async {
        let made = polled(cache.copy_package(inputs, blob, &target), polls).await;
        tokio::task::spawn_blocking(|| ()).await.unwrap();
        made
    });
    let left = fs::read_dir(folder.path().join("cache")).unwrap();
    (made, left.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect())
}

/// Storage whose answers stop in the middle.
struct Stalling;

impl InputSource for Stalling {
    async fn fetch(&self, _: &BlobRef, path: &Path) -> Result<(), TransferError> {
        fs::write(path, b"half of it")?;
        std::future::pending().await
    }
}

#[test]
fn a_download_that_nobody_waits_for_any_more_leaves_nothing() {
    let (made, left) = cut_off(&Stalling, &blob(&package(3)), 1);
    assert!(made.is_none() && left.is_empty(), "{left:?}");
}

#[test]
fn an_unpacking_that_nobody_waits_for_any_more_leaves_nothing_whenever_that_is() {
    let (shelf, package) = (Shelf::default(), package(3));
    shelf.add(&package);
    let blob = blob(&package);
    for polls in 1.. {
        let (made, left) = cut_off(&shelf, &blob, polls);
        let Some(made) = made else {
            assert!(left.iter().all(|name| !name.starts_with("new-")), "after {polls} polls: {left:?}");
            continue;
        };
        made.unwrap();
        assert_eq!(left, [format!("{}.package", blob.sha256)]);
        assert!(polls > 1, "other threads look at what arrived, measure it and unpack it");
        break;
    }
}

#[tokio::test]
async fn what_is_unpacked_has_room_made_for_it_as_large_as_it_is() {
    let content = vec![0u8; 3000];
    let swelling = zip(&[("project.json", b"{}"), ("media/film.bin", &content)]);
    let mut scene = Scene::new(4000);
    scene.shelf.add(&swelling);
    scene.use_it(&blob(&package(6))).await;
    scene.use_it(&blob(&package(5))).await;
    assert!(swelling.len() < 1000 && scene.cache.packages().len() == 2);
    scene.use_it(&blob(&swelling)).await;
    assert!(scene.cache.bytes() <= 4000, "{:?}", scene.cache.packages());
}

/// What the cache holds, as a list: the least recently used first.
struct Model {
    limit: u64,
    held: Vec<(BlobHash, u64)>,
    pinned: BTreeMap<BlobHash, u32>,
    kept: BTreeSet<BlobHash>,
}

impl Model {
    fn stays(&self, hash: &BlobHash) -> bool {
        self.pinned.get(hash).is_some_and(|n| *n > 0) || self.kept.contains(hash)
    }

    /// What is in it takes `content` bytes, the entry `unpacked`.
    fn use_it(&mut self, blob: &BlobRef, content: u64, unpacked: u64) {
        if let Some(at) = self.held.iter().position(|(hash, _)| *hash == blob.sha256) {
            let entry = self.held.remove(at);
            return self.held.push(entry);
        }
        self.room(blob.size_bytes);
        self.room(content);
        self.held.push((blob.sha256.clone(), unpacked));
        *self.pinned.entry(blob.sha256.clone()).or_default() += 1;
        self.room(0);
        *self.pinned.get_mut(&blob.sha256).unwrap() -= 1;
    }

    fn room(&mut self, more: u64) {
        let mut total: u64 = self.held.iter().map(|(_, bytes)| bytes).sum();
        let oldest_first = self.held.clone();
        for (hash, bytes) in oldest_first {
            if total + more <= self.limit {
                return;
            }
            if !self.stays(&hash) {
                self.held.retain(|(held, _)| *held != hash);
                total -= bytes;
            }
        }
    }
}

#[derive(Debug, Clone)]
enum Deed {
    Use(usize),
    Pin(usize),
    Unpin(usize),
    Keep(Vec<usize>),
    Evict(usize),
    Room(u64),
}

fn deed() -> impl Strategy<Value = Deed> {
    prop_oneof![
        4 => (1usize..=6).prop_map(Deed::Use),
        1 => (1usize..=6).prop_map(Deed::Pin),
        1 => (1usize..=6).prop_map(Deed::Unpin),
        1 => prop::collection::vec(1usize..=6, 0..3).prop_map(Deed::Keep),
        1 => (1usize..=6).prop_map(Deed::Evict),
        1 => (0u64..2500).prop_map(Deed::Room),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn the_cache_does_as_its_model(deeds in prop::collection::vec(deed(), 1..40), limit in 1200u64..6000) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let blobs: Vec<BlobRef> = (0..=6).map(|n| blob(&package(n))).collect();
            // What each takes, unpacked.
            let mut measure = Scene::new(1 << 20);
            for blob in &blobs[1..] {
                measure.use_it(blob).await;
            }
            let bytes: BTreeMap<_, _> = measure.cache.packages().into_iter().map(|p| (p.sha256, p.bytes)).collect();
            let mut scene = Scene::new(limit);
            let mut model = Model { limit, held: vec![], pinned: BTreeMap::new(), kept: BTreeSet::new() };
            let mut pins: Vec<(usize, Pin)> = vec![];
            for deed in deeds {
                match &deed {
                    Deed::Use(n) => {
                        scene.use_it(&blobs[*n]).await;
                        let content = "{}".len() + n * 100;
                        model.use_it(&blobs[*n], content as u64, bytes[&blobs[*n].sha256]);
                    }
                    Deed::Pin(n) => {
                        pins.push((*n, scene.cache.pin(&blobs[*n].sha256)));
                        *model.pinned.entry(blobs[*n].sha256.clone()).or_default() += 1;
                    }
                    Deed::Unpin(n) => {
                        if let Some(at) = pins.iter().position(|(pinned, _)| pinned == n) {
                            pins.remove(at);
                            *model.pinned.get_mut(&blobs[*n].sha256).unwrap() -= 1;
                        }
                    }
                    Deed::Keep(list) => {
                        let wanted: BTreeSet<_> = list.iter().map(|n| blobs[*n].sha256.clone()).collect();
                        scene.cache.keep(wanted.clone());
                        model.kept = wanted;
                    }
                    Deed::Evict(n) => {
                        let hash = &blobs[*n].sha256;
                        scene.cache.evict(hash);
                        if model.pinned.get(hash).is_none_or(|n| *n == 0) {
                            model.held.retain(|(held, _)| held != hash);
                        }
                    }
                    Deed::Room(more) => {
                        scene.cache.make_room(*more);
                        model.room(*more);
                    }
                }
                let held: Vec<_> = scene.cache.packages().into_iter().rev().map(|p| (p.sha256, p.bytes)).collect();
                assert_eq!(held, model.held, "after {deed:?}");
            }
        });
    }
}
