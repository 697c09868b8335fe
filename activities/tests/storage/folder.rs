//! What only a folder promises, and that any other object store does as well.

use super::world::*;
use flatrender_activities::storage::{ObjectStorage, keys};
use flatrender_workflows::contracts::storage::BlobStore;
use futures::{StreamExt, stream};
use object_store::memory::InMemory;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tempfile::TempDir;

fn world() -> (TempDir, ObjectStorage) {
    let folder = TempDir::new().unwrap();
    let storage = ObjectStorage::local(folder.path()).unwrap();
    (folder, storage)
}

fn set_age(path: &Path, age: Duration) {
    let file = std::fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::SystemTime::now() - age).unwrap();
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
