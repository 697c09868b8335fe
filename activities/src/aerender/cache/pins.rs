//! Who uses what: entries that are in use or wanted stay, whatever room is needed.

use flatrender_workflows::contracts::storage::BlobHash;
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

#[derive(Debug, Default)]
pub(super) struct Pins(Mutex<Pinned>);

#[derive(Debug, Default)]
struct Pinned {
    /// How many attempts use it.
    used: HashMap<BlobHash, u32>,
    /// An operator wants them to stay.
    kept: BTreeSet<BlobHash>,
    /// Uses since this process began.
    hits: HashMap<BlobHash, u64>,
}

/// While this lives, the entry is not forgotten.
#[derive(Debug)]
pub struct Pin {
    pins: Arc<Pins>,
    hash: BlobHash,
}

impl Pins {
    fn open(&self) -> MutexGuard<'_, Pinned> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn pin(self: &Arc<Self>, hash: &BlobHash) -> Pin {
        *self.open().used.entry(hash.clone()).or_default() += 1;
        Pin { pins: self.clone(), hash: hash.clone() }
    }

    pub(super) fn keep(&self, wanted: BTreeSet<BlobHash>) {
        self.open().kept = wanted;
    }

    pub(super) fn hit(&self, hash: &BlobHash) {
        *self.open().hits.entry(hash.clone()).or_default() += 1;
    }

    pub(super) fn hits(&self, hash: &BlobHash) -> u64 {
        self.open().hits.get(hash).copied().unwrap_or(0)
    }

    pub(super) fn is_used(&self, hash: &BlobHash) -> bool {
        self.open().used.contains_key(hash)
    }

    pub(super) fn must_stay(&self, hash: &BlobHash) -> bool {
        let pinned = self.open();
        pinned.used.contains_key(hash) || pinned.kept.contains(hash)
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        let mut pinned = self.pins.open();
        if let Some(count) = pinned.used.get_mut(&self.hash) {
            *count -= 1;
            if *count == 0 {
                pinned.used.remove(&self.hash);
            }
        }
    }
}
