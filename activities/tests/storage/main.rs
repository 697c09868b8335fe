//! Storage as its contract promises it, on a real folder and on an object store that keeps everything in memory.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

use bytes::Bytes;
use flatrender_activities::storage::{ObjectStorage, keys};
use flatrender_workflows::contracts::storage::{BlobHash, BlobStore, ByteStream, Shelf, StorageError};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::memory::InMemory;
use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;
use uuid::Uuid;

const PLENTY: u64 = 1 << 40;
/// Longer than two parts of an upload.
const LARGE: usize = 17 * 1024 * 1024;

fn world() -> (TempDir, ObjectStorage) {
    let folder = TempDir::new().unwrap();
    let storage = ObjectStorage::local(folder.path()).unwrap();
    (folder, storage)
}

fn files() -> Shelf {
    Shelf::Files { tenant_id: Uuid::from_u128(1) }
}

fn renders(render: u128) -> Shelf {
    Shelf::Render { tenant_id: Uuid::from_u128(1), render_id: Uuid::from_u128(render) }
}

fn large() -> Vec<u8> {
    (0..LARGE).map(|i| (i % 251) as u8).collect()
}

/// `bytes` in pieces of 64 KiB, as a network delivers them.
fn body(bytes: &[u8]) -> ByteStream {
    let pieces: Vec<_> = bytes.chunks(64 * 1024).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
    stream::iter(pieces).boxed()
}

fn cut(bytes: &[u8]) -> ByteStream {
    body(bytes).chain(stream::iter([Err(io::Error::from(io::ErrorKind::ConnectionReset))])).boxed()
}

async fn read(storage: &ObjectStorage, shelf: &Shelf, hash: &BlobHash) -> Vec<u8> {
    let body = storage.open(shelf, hash, None).await.unwrap();
    body.stream.try_concat_bytes().await
}

trait Concat {
    async fn try_concat_bytes(self) -> Vec<u8>;
}

impl Concat for ByteStream {
    async fn try_concat_bytes(self) -> Vec<u8> {
        self.try_fold(Vec::new(), async |mut all, chunk| {
            all.extend_from_slice(&chunk);
            Ok(all)
        })
        .await
        .unwrap()
    }
}

/// Every file below `folder`.
fn every_file(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { every_file(&path) } else { vec![path] }).collect()
}

fn set_age(path: &Path, age: Duration) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::now() - age).unwrap();
}

#[tokio::test]
async fn what_was_put_comes_back() {
    let (_folder, storage) = world();
    for content in [Vec::new(), b"small".to_vec(), large()] {
        let blob = storage.put(&files(), None, body(&content), PLENTY).await.unwrap();
        assert_eq!((&blob.sha256, blob.size_bytes), (&BlobHash::of(&content), content.len() as u64));
        assert_eq!(storage.stat(&files(), &blob.sha256).await.unwrap(), Some(blob.size_bytes));
        assert!(read(&storage, &files(), &blob.sha256).await == content);
    }
}

#[tokio::test]
async fn another_object_store_does_as_well() {
    let storage = ObjectStorage::new(Arc::new(InMemory::new()));
    let (content, target) = (large(), TempDir::new().unwrap());
    let blob = storage.put(&renders(1), None, body(&content), PLENTY).await.unwrap();
    let path = target.path().join("copy");
    storage.fetch(&renders(1), &blob.sha256, &path).await.unwrap();
    assert!(std::fs::read(path).unwrap() == content);
    let part = storage.open(&renders(1), &blob.sha256, Some(1..5)).await.unwrap();
    assert_eq!(part.stream.try_concat_bytes().await, [1, 2, 3, 4]);
    storage.probe().await.unwrap();
    assert_eq!(storage.remove_stale(Duration::ZERO).await.unwrap(), 0, "uploads end with a rename");
    storage.clear(&renders(1)).await.unwrap();
    assert_eq!(storage.stat(&renders(1), &blob.sha256).await.unwrap(), None);
}

#[tokio::test]
async fn putting_twice_is_harmless() {
    let (folder, storage) = world();
    for content in [b"small".to_vec(), large()] {
        let first = storage.put(&files(), None, body(&content), PLENTY).await.unwrap();
        let second = storage.put(&files(), Some(&first.sha256), body(&content), PLENTY).await.unwrap();
        assert_eq!(first, second);
        assert_eq!(storage.put(&files(), None, body(&content), PLENTY).await.unwrap(), first);
    }
    assert_eq!(every_file(folder.path()).len(), 2);
}

#[tokio::test]
async fn many_at_once_put_the_same() {
    let (folder, storage) = world();
    let content = large();
    let puts = (0..4).map(|_| {
        let (storage, content) = (storage.clone(), content.clone());
        tokio::spawn(async move { storage.put(&renders(1), None, body(&content), PLENTY).await.unwrap() })
    });
    let blobs = futures::future::join_all(puts).await;
    assert!(blobs.into_iter().all(|blob| blob.unwrap().sha256 == BlobHash::of(&content)));
    assert_eq!(every_file(folder.path()).len(), 1);
}

#[tokio::test]
async fn a_repeated_body_is_read_to_its_end() {
    let (_folder, storage) = world();
    let content = large();
    let blob = storage.put(&files(), None, body(&content), PLENTY).await.unwrap();
    let last = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = last.clone();
    let tail = stream::once(async move {
        seen.store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(Bytes::new())
    });
    storage.put(&files(), Some(&blob.sha256), body(&content).chain(tail).boxed(), PLENTY).await.unwrap();
    assert!(last.load(std::sync::atomic::Ordering::SeqCst));
}

#[tokio::test]
async fn a_cut_stream_leaves_nothing() {
    let (folder, storage) = world();
    for content in [b"small".to_vec(), large()] {
        for expected in [None, Some(BlobHash::of(&content))] {
            let refused = storage.put(&files(), expected.as_ref(), cut(&content), PLENTY).await;
            assert!(matches!(refused, Err(StorageError::Io(_))), "{refused:?}");
        }
    }
    assert_eq!(every_file(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn a_body_longer_than_its_limit_is_refused() {
    let (folder, storage) = world();
    for content in [b"small".to_vec(), large()] {
        let limit = content.len() as u64 - 1;
        let refused = storage.put(&files(), None, body(&content), limit).await;
        assert!(matches!(refused, Err(StorageError::TooLong { limit_bytes }) if limit_bytes == limit), "{refused:?}");
        storage.put(&renders(1), None, body(&content), limit + 1).await.unwrap();
    }
    assert!(every_file(folder.path()).iter().all(|path| path.to_string_lossy().contains("renders")));
}

#[tokio::test]
async fn an_endless_body_is_not_read_beyond_its_limit() {
    let (_folder, storage) = world();
    let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096]))).boxed();
    let refused = storage.put(&files(), None, endless, 20 * 1024 * 1024).await;
    assert!(matches!(refused, Err(StorageError::TooLong { .. })), "{refused:?}");
}

#[tokio::test]
async fn other_content_than_announced_is_refused() {
    let (folder, storage) = world();
    let announced = BlobHash::of(b"something else");
    for content in [b"small".to_vec(), large()] {
        let refused = storage.put(&files(), Some(&announced), body(&content), PLENTY).await;
        let Err(StorageError::Mismatch { expected, found }) = refused else { panic!("{refused:?}") };
        assert_eq!((expected, found), (announced.clone(), BlobHash::of(&content)));
    }
    assert_eq!(every_file(folder.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn ranges_are_read_and_wrong_ones_refused() {
    let (_folder, storage) = world();
    let content = large();
    let blob = storage.put(&files(), None, body(&content), PLENTY).await.unwrap();
    for range in [0..1, 5..5, 1_000_000..9_000_000, 0..LARGE as u64, LARGE as u64..LARGE as u64] {
        let found = storage.open(&files(), &blob.sha256, Some(range.clone())).await.unwrap();
        assert_eq!(found.size_bytes, LARGE as u64);
        assert!(found.stream.try_concat_bytes().await == content[range.start as usize..range.end as usize]);
    }
    #[expect(clippy::reversed_empty_ranges, reason = "that is what is asked")]
    for range in [0..LARGE as u64 + 1, 7..6] {
        let refused = storage.open(&files(), &blob.sha256, Some(range)).await.err();
        assert!(matches!(refused, Some(StorageError::BadRange { size_bytes }) if size_bytes == LARGE as u64));
    }
}

#[tokio::test]
async fn shelves_of_tenants_and_renders_are_apart() {
    let (_folder, storage) = world();
    let blob = storage.put(&renders(1), None, body(b"frame"), PLENTY).await.unwrap();
    let stranger = Shelf::Render { tenant_id: Uuid::from_u128(2), render_id: Uuid::from_u128(1) };
    for shelf in [files(), renders(2), stranger] {
        assert_eq!(storage.stat(&shelf, &blob.sha256).await.unwrap(), None);
        let refused = storage.open(&shelf, &blob.sha256, None).await.err();
        assert!(matches!(refused, Some(StorageError::NotFound(hash)) if hash == blob.sha256));
    }
}

#[tokio::test]
async fn clearing_a_shelf_leaves_the_others() {
    let (folder, storage) = world();
    let shelves = [files(), renders(1), renders(2)];
    let mut hash = BlobHash::of(b"");
    for shelf in &shelves {
        hash = storage.put(shelf, None, body(b"content"), PLENTY).await.unwrap().sha256;
    }
    storage.clear(&renders(1)).await.unwrap();
    storage.clear(&renders(1)).await.unwrap();
    let left = [storage.stat(&shelves[0], &hash).await, storage.stat(&shelves[1], &hash).await];
    assert!(matches!(left, [Ok(Some(7)), Ok(None)]));
    assert_eq!(every_file(folder.path()).len(), 2);
}

#[tokio::test]
async fn a_fetched_file_is_whole_or_not_there() {
    let (folder, storage) = world();
    let target = TempDir::new().unwrap();
    let path = target.path().join("frame.png");
    let blob = storage.put(&files(), None, body(b"content"), PLENTY).await.unwrap();
    storage.fetch(&files(), &blob.sha256, &path).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"content");

    std::fs::write(folder.path().join(keys::blob(&files(), &blob.sha256).as_ref()), b"rotten!").unwrap();
    std::fs::remove_file(&path).unwrap();
    let refused = storage.fetch(&files(), &blob.sha256, &path).await;
    assert!(matches!(refused, Err(StorageError::Mismatch { .. })), "{refused:?}");
    assert_eq!(every_file(target.path()), Vec::<PathBuf>::new());
}

#[tokio::test]
async fn putting_again_heals_a_damaged_blob() {
    let (folder, storage) = world();
    let content = large();
    for content in [&b"content"[..], &content] {
        let blob = storage.put(&renders(1), None, body(content), PLENTY).await.unwrap();
        let stored = folder.path().join(keys::blob(&renders(1), &blob.sha256).as_ref());
        std::fs::write(&stored, vec![0; content.len()]).unwrap();
        storage.put(&renders(1), Some(&blob.sha256), body(content), PLENTY).await.unwrap();
        assert!(std::fs::read(stored).unwrap() == content);
    }
}

#[tokio::test]
async fn a_file_of_this_machine_is_stored_by_content() {
    let (folder, storage) = world();
    let outside = TempDir::new().unwrap();
    for (name, content) in [("empty", Vec::new()), ("small", b"small".to_vec()), ("large", large())] {
        let path = outside.path().join(name);
        std::fs::write(&path, &content).unwrap();
        let blob = storage.put_file(&renders(1), &path).await.unwrap();
        assert_eq!(blob.sha256, BlobHash::of(&content));
        assert_eq!(storage.put_file(&renders(1), &path).await.unwrap(), blob);
        assert!(read(&storage, &renders(1), &blob.sha256).await == content);
    }
    assert_eq!(every_file(folder.path()).len(), 3);
}

#[tokio::test]
async fn only_stale_temporaries_are_swept() {
    let (folder, storage) = world();
    let blob = storage.put(&files(), None, body(b"kept"), PLENTY).await.unwrap();
    let stored = folder.path().join(keys::blob(&files(), &blob.sha256).as_ref());
    let beside = PathBuf::from(format!("{}#1", stored.display()));
    std::fs::create_dir_all(folder.path().join("incoming")).unwrap();
    let [old, young] = ["old", "young#1"].map(|name| folder.path().join("incoming").join(name));
    for path in [&beside, &old, &young] {
        std::fs::write(path, b"half").unwrap();
    }
    for path in [&stored, &beside, &old] {
        set_age(path, Duration::from_secs(7200));
    }
    assert_eq!(storage.remove_stale(Duration::from_secs(3600)).await.unwrap(), 2);
    assert_eq!([&stored, &beside, &old, &young].map(|path| path.exists()), [true, false, false, true]);
}

#[tokio::test]
async fn a_dropped_upload_can_be_done_again() {
    let (folder, storage) = world();
    let content = large();
    let stuck = body(&content).chain(stream::pending()).boxed();
    let shelf = files();
    let mut upload = storage.put(&shelf, None, stuck, PLENTY);
    // Polled until it waits for more than will ever come, then dropped as a lost connection drops it.
    while every_file(folder.path()).is_empty() {
        tokio::select! {
            biased;
            _ = &mut upload => panic!("the body has no end"),
            () = tokio::task::yield_now() => {}
        }
    }
    drop(upload);
    let blob = storage.put(&shelf, None, body(&content), PLENTY).await.unwrap();
    assert_eq!(blob.size_bytes, LARGE as u64);
}

#[tokio::test]
async fn the_probe_leaves_nothing() {
    let (folder, storage) = world();
    storage.probe().await.unwrap();
    assert_eq!(every_file(folder.path()), Vec::<PathBuf>::new());
}
