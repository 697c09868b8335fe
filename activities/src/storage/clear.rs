//! Listing and removing: blobs, whole shelves, stale temporaries, and the proof that writing works at all.

use super::{ObjectStorage, errors, keys};
use flatrender_workflows::contracts::storage::{BlobHash, BlobRef, BlobStream, Shelf, StorageError, StoredBlob};
use futures::{StreamExt, TryStreamExt};
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, path::Path as Key};
use std::{
    io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

impl ObjectStorage {
    /// Removes temporaries nobody has written to for `age`, left by crashes; tells how many. To be called at
    /// the start of a process and now and then. `age` must be longer than any upload takes: other processes may be writing.
    ///
    /// # Errors
    /// [`StorageError::Io`] when the storage cannot be listed.
    pub async fn remove_stale(&self, age: Duration) -> Result<u64, StorageError> {
        match self.root.clone() {
            Some(root) => {
                let sweep = move || remove_stale_files(&root, SystemTime::now() - age, false);
                tokio::task::spawn_blocking(sweep).await.map_err(errors::from_join)?.map_err(errors::from_io)
            }
            None => remove_stale_objects(self.renders.as_ref(), age).await,
        }
    }

    pub(super) async fn remove_blob(&self, shelf: &Shelf, hash: &BlobHash) -> Result<(), StorageError> {
        match self.store(shelf).delete(&keys::blob(shelf, hash)).await {
            Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
            Err(error) => Err(errors::from_store(error)),
        }
    }

    pub(super) fn list_shelf(&self, shelf: &Shelf, first: Option<u8>) -> BlobStream {
        let place = first.map_or_else(|| keys::shelf(shelf), |first| keys::part(shelf, first));
        let found = self.store(shelf).list(Some(&place));
        found.map_err(errors::from_store).try_filter_map(async |object| Ok(stored(&object))).boxed()
    }

    pub(super) async fn clear_shelf(&self, shelf: &Shelf) -> Result<(), StorageError> {
        if matches!(shelf, Shelf::Public | Shelf::Archives) {
            return Err(errors::from_io(io::Error::other("what is public or an archive is never emptied")));
        }
        let prefix = keys::shelf(shelf);
        match &self.root {
            // One pass, and it takes folders and temporaries along, which the store neither lists nor removes.
            Some(root) => remove_folder(root.join(prefix.as_ref())).await,
            None => remove_objects(self.store(shelf).as_ref(), &prefix).await,
        }
    }

    pub(super) async fn write_read_remove(&self) -> Result<(), StorageError> {
        let key = keys::temporary(keys::PROBE);
        let probe = async {
            self.files.put(&key, "flatrender".into()).await?;
            self.files.get(&key).await?.bytes().await?;
            self.files.delete(&key).await
        };
        probe.await.map_err(errors::from_store)
    }
}

/// Nothing lies on a shelf but blobs; what somebody else put there is not ours to name.
fn stored(object: &ObjectMeta) -> Option<StoredBlob> {
    let sha256 = object.location.filename()?.parse().ok()?;
    Some(StoredBlob { blob: BlobRef { sha256, size_bytes: object.size }, modified_at: object.last_modified })
}

async fn remove_folder(folder: PathBuf) -> Result<(), StorageError> {
    match tokio::fs::remove_dir_all(&folder).await {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(errors::from_io(error)),
        _ => Ok(()),
    }
}

async fn remove_objects(store: &dyn ObjectStore, prefix: &Key) -> Result<(), StorageError> {
    let found = store.list(Some(prefix)).map_ok(|object| object.location).boxed();
    store.delete_stream(found).try_for_each(async |_| Ok(())).await.map_err(errors::from_store)
}

async fn remove_stale_objects(store: &dyn ObjectStore, age: Duration) -> Result<u64, StorageError> {
    let before = chrono::DateTime::<chrono::Utc>::from(SystemTime::now() - age);
    let temporaries = store.list(Some(&Key::from(keys::INCOMING))).chain(store.list(Some(&Key::from(keys::PROBE))));
    let stale = temporaries.try_filter(move |object| std::future::ready(object.last_modified < before));
    let removed = store.delete_stream(stale.map_ok(|object| object.location).boxed());
    removed.try_fold(0, async |count, _| Ok(count + 1)).await.map_err(errors::from_store)
}

/// Walks a folder of the local store. A temporary is anything below `incoming` or `probe`, and any `<key>#<number>`,
/// which is how the local store names a file it has not published.
fn remove_stale_files(folder: &Path, before: SystemTime, all: bool) -> io::Result<u64> {
    let mut removed = 0;
    for entry in std::fs::read_dir(folder)? {
        let entry = entry?;
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if entry.file_type()?.is_dir() {
            let temporary = all || name == keys::INCOMING || name == keys::PROBE;
            removed += gone_is_fine(remove_stale_files(&entry.path(), before, temporary))?;
        } else if all || name.contains('#') {
            removed += gone_is_fine(remove_if_older(&entry.path(), before))?;
        }
    }
    Ok(removed)
}

fn remove_if_older(path: &Path, before: SystemTime) -> io::Result<u64> {
    if path.metadata()?.modified()? >= before {
        return Ok(0);
    }
    std::fs::remove_file(path).map(|()| 1)
}

/// Others may finish an upload or clear a shelf while we walk.
fn gone_is_fine(removed: io::Result<u64>) -> io::Result<u64> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(0) } else { Err(error) })
}
