//! What storage promises, on a real folder and on a real S3 server.

use super::world::*;
use bytes::Bytes;
use flatrender_activities::storage::keys;
use flatrender_workflows::contracts::storage::{BlobHash, BlobStore, Shelf, StorageError};
use futures::{StreamExt, TryStreamExt, stream};
use std::{path::PathBuf, sync::Arc};
use tempfile::TempDir;
use uuid::Uuid;

/// Each of these on a folder and on a bucket.
macro_rules! on_both {
    ($($name:ident)+) => {
        mod folder {
            $(#[tokio::test] async fn $name() { super::$name(super::World::folder()).await })+
        }
        mod bucket {
            $(#[tokio::test] async fn $name() { super::$name(super::World::bucket()).await })+
        }
    };
}

on_both! {
    what_was_put_comes_back
    putting_twice_is_harmless
    many_at_once_put_the_same
    a_repeated_body_is_read_to_its_end
    a_cut_stream_leaves_nothing
    a_body_longer_than_its_limit_is_refused
    an_endless_body_is_not_read_beyond_its_limit
    other_content_than_announced_is_refused
    ranges_are_read_and_wrong_ones_refused
    shelves_of_tenants_and_renders_are_apart
    clearing_a_shelf_leaves_the_others
    a_fetched_file_is_whole_or_not_there
    a_file_of_this_machine_is_stored_by_content
    the_probe_leaves_nothing
    a_removed_blob_is_gone_and_the_others_stay
    a_shelf_lists_its_blobs_and_nothing_else
}

async fn what_was_put_comes_back(world: World) {
    let storage = world.storage.clone();
    for content in [Vec::new(), b"small".to_vec(), large()] {
        let blob = storage.put(&files(), None, body(&content), PLENTY).await.unwrap();
        assert_eq!((&blob.sha256, blob.size_bytes), (&BlobHash::of(&content), content.len() as u64));
        assert_eq!(storage.stat(&files(), &blob.sha256).await.unwrap(), Some(blob.size_bytes));
        assert!(read(&storage, &files(), &blob.sha256).await == content);
    }
}

async fn putting_twice_is_harmless(world: World) {
    let storage = world.storage.clone();
    for content in [b"small".to_vec(), large()] {
        let first = storage.put(&files(), None, body(&content), PLENTY).await.unwrap();
        let second = storage.put(&files(), Some(&first.sha256), body(&content), PLENTY).await.unwrap();
        assert_eq!(first, second);
        assert_eq!(storage.put(&files(), None, body(&content), PLENTY).await.unwrap(), first);
    }
    assert_eq!(world.objects().len(), 2);
}

async fn many_at_once_put_the_same(world: World) {
    let storage = world.storage.clone();
    let content = large();
    let puts = (0..4).map(|_| {
        let (storage, content) = (storage.clone(), content.clone());
        tokio::spawn(async move { storage.put(&renders(1), None, body(&content), PLENTY).await.unwrap() })
    });
    let blobs = futures::future::join_all(puts).await;
    assert!(blobs.into_iter().all(|blob| blob.unwrap().sha256 == BlobHash::of(&content)));
    assert_eq!(world.objects().len(), 1);
}

async fn a_repeated_body_is_read_to_its_end(world: World) {
    let storage = world.storage.clone();
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

async fn a_cut_stream_leaves_nothing(world: World) {
    let storage = world.storage.clone();
    for content in [b"small".to_vec(), large()] {
        for expected in [None, Some(BlobHash::of(&content))] {
            let refused = storage.put(&files(), expected.as_ref(), cut(&content), PLENTY).await;
            assert!(matches!(refused, Err(StorageError::Io(_))), "{refused:?}");
        }
    }
    assert_eq!(world.objects(), Vec::<String>::new());
}

async fn a_body_longer_than_its_limit_is_refused(world: World) {
    let storage = world.storage.clone();
    for content in [b"small".to_vec(), large()] {
        let limit = content.len() as u64 - 1;
        let refused = storage.put(&files(), None, body(&content), limit).await;
        assert!(matches!(refused, Err(StorageError::TooLong { limit_bytes }) if limit_bytes == limit), "{refused:?}");
        storage.put(&renders(1), None, body(&content), limit + 1).await.unwrap();
    }
    assert!(world.objects().iter().all(|path| path.contains("renders")));
}

async fn an_endless_body_is_not_read_beyond_its_limit(world: World) {
    let storage = world.storage.clone();
    let endless = stream::repeat_with(|| Ok(Bytes::from_static(&[0; 4096]))).boxed();
    let refused = storage.put(&files(), None, endless, 20 * 1024 * 1024).await;
    assert!(matches!(refused, Err(StorageError::TooLong { .. })), "{refused:?}");
}

async fn other_content_than_announced_is_refused(world: World) {
    let storage = world.storage.clone();
    let announced = BlobHash::of(b"something else");
    for content in [b"small".to_vec(), large()] {
        let refused = storage.put(&files(), Some(&announced), body(&content), PLENTY).await;
        let Err(StorageError::Mismatch { expected, found }) = refused else { panic!("{refused:?}") };
        assert_eq!((expected, found), (announced.clone(), BlobHash::of(&content)));
    }
    assert_eq!(world.objects(), Vec::<String>::new());
}

async fn ranges_are_read_and_wrong_ones_refused(world: World) {
    let storage = world.storage.clone();
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

async fn shelves_of_tenants_and_renders_are_apart(world: World) {
    let storage = world.storage.clone();
    let blob = storage.put(&renders(1), None, body(b"frame"), PLENTY).await.unwrap();
    let stranger = Shelf::Render { tenant_id: Uuid::from_u128(2), render_id: Uuid::from_u128(1) };
    for shelf in [files(), renders(2), stranger] {
        assert_eq!(storage.stat(&shelf, &blob.sha256).await.unwrap(), None);
        let refused = storage.open(&shelf, &blob.sha256, None).await.err();
        assert!(matches!(refused, Some(StorageError::NotFound(hash)) if hash == blob.sha256));
    }
}

async fn clearing_a_shelf_leaves_the_others(world: World) {
    let storage = world.storage.clone();
    let shelves = [files(), renders(1), renders(2)];
    let mut hash = BlobHash::of(b"");
    for shelf in &shelves {
        hash = storage.put(shelf, None, body(b"content"), PLENTY).await.unwrap().sha256;
    }
    storage.clear(&renders(1)).await.unwrap();
    storage.clear(&renders(1)).await.unwrap();
    let left = [storage.stat(&shelves[0], &hash).await, storage.stat(&shelves[1], &hash).await];
    assert!(matches!(left, [Ok(Some(7)), Ok(None)]));
    assert_eq!(world.objects().len(), 2);
}

async fn a_fetched_file_is_whole_or_not_there(world: World) {
    let storage = world.storage.clone();
    let target = TempDir::new().unwrap();
    let path = target.path().join("frame.png");
    let blob = storage.put(&files(), None, body(b"content"), PLENTY).await.unwrap();
    storage.fetch(&files(), &blob.sha256, &path).await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), b"content");

    std::fs::write(world.path(&keys::blob(&files(), &blob.sha256)), b"rotten!").unwrap();
    std::fs::remove_file(&path).unwrap();
    let refused = storage.fetch(&files(), &blob.sha256, &path).await;
    assert!(matches!(refused, Err(StorageError::Mismatch { .. })), "{refused:?}");
    assert_eq!(every_file(target.path()), Vec::<PathBuf>::new());
}

async fn a_file_of_this_machine_is_stored_by_content(world: World) {
    let storage = world.storage.clone();
    let outside = TempDir::new().unwrap();
    for (name, content) in [("empty", Vec::new()), ("small", b"small".to_vec()), ("large", large())] {
        let path = outside.path().join(name);
        std::fs::write(&path, &content).unwrap();
        let blob = storage.put_file(&files(), &path).await.unwrap();
        assert_eq!(blob.sha256, BlobHash::of(&content));
        assert_eq!(storage.put_file(&files(), &path).await.unwrap(), blob);
        assert!(read(&storage, &files(), &blob.sha256).await == content);
    }
    assert_eq!(world.objects().len(), 3);
}

async fn the_probe_leaves_nothing(world: World) {
    let storage = world.storage.clone();
    storage.probe().await.unwrap();
    assert_eq!(world.objects(), Vec::<String>::new());
}

async fn a_removed_blob_is_gone_and_the_others_stay(world: World) {
    let storage = world.storage.clone();
    let [gone, stays] = [&b"gone"[..], b"stays"].map(BlobHash::of);
    for content in [&b"gone"[..], b"stays"] {
        storage.put(&files(), None, body(content), PLENTY).await.unwrap();
    }
    storage.remove(&files(), &gone).await.unwrap();
    storage.remove(&files(), &gone).await.unwrap();
    assert_eq!(storage.stat(&files(), &gone).await.unwrap(), None);
    assert_eq!(storage.stat(&files(), &stays).await.unwrap(), Some(5));
}

async fn a_shelf_lists_its_blobs_and_nothing_else(world: World) {
    let storage = world.storage.clone();
    assert!(storage.list(&files(), None).next().await.is_none(), "an empty shelf");
    let mut put = Vec::new();
    for n in 0..20_u8 {
        put.push(storage.put(&files(), None, body(&[n; 3]), PLENTY).await.unwrap());
    }
    storage.put(&renders(1), None, body(b"frame"), PLENTY).await.unwrap();
    let stranger = Shelf::Files { tenant_id: Uuid::from_u128(2) };
    storage.put(&stranger, None, body(b"of another"), PLENTY).await.unwrap();
    std::fs::write(world.path(&keys::shelf(&files())).join("notes.txt"), b"not ours").unwrap();
    let listed: Vec<_> = storage.list(&files(), None).try_collect().await.unwrap();
    let age = chrono::Utc::now() - listed[0].modified_at;
    assert!(age.num_minutes().abs() < 10, "{age}");
    let mut found: Vec<_> = listed.into_iter().map(|stored| stored.blob).collect();
    found.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    put.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    assert_eq!(found, put);
    let mut parts = Vec::new();
    for first in 0..=u8::MAX {
        let part = storage.list(&files(), Some(first)).map_ok(|stored| stored.blob);
        let part: Vec<_> = part.try_collect().await.unwrap();
        assert!(part.iter().all(|blob| blob.sha256.as_str().starts_with(&format!("{first:02x}"))), "{part:?}");
        parts.extend(part);
    }
    parts.sort_by(|a, b| a.sha256.cmp(&b.sha256));
    assert_eq!(parts, put, "part by part it is the same");
}
