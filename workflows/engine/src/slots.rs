//! How many tasks of a queue may be here at once, whichever lane they come by; what is held here that some go with.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::sync::Notify;

/// The slots of a queue.
#[derive(Debug)]
pub(crate) struct Slots {
    limit: usize,
    used: AtomicUsize,
    /// Rung when a full queue of this process has room again.
    room: Arc<Notify>,
}

impl Slots {
    pub(crate) fn new(limit: usize, room: Arc<Notify>) -> Arc<Self> {
        Arc::new(Self { limit, used: AtomicUsize::new(0), room })
    }

    /// Takes up to `want` slots and says how many.
    pub(crate) fn take(&self, want: usize) -> usize {
        let taken = |used: usize| want.min(self.limit.saturating_sub(used));
        let update = |used| Some(used + taken(used));
        let before = self.used.fetch_update(Ordering::AcqRel, Ordering::Acquire, update);
        before.map_or(0, taken)
    }

    /// Gives slots back.
    pub(crate) fn give(&self, count: usize) {
        if count > 0 && self.used.fetch_sub(count, Ordering::AcqRel) >= self.limit {
            self.room.notify_waiters();
        }
    }

    pub(crate) fn is_full(&self) -> bool {
        self.used.load(Ordering::Acquire) >= self.limit
    }

    pub(crate) fn limit(&self) -> usize {
        self.limit
    }
}

/// What a worker holds, by [`crate::Activity::warm_key`]: handlers say so as they fetch and drop it. Clones are of the same.
#[derive(Debug, Clone, Default)]
pub struct Warm(Arc<RwLock<BTreeSet<String>>>);

impl Warm {
    /// It is held from now on.
    pub fn add(&self, key: impl Into<String>) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).insert(key.into());
    }

    /// It is held no longer.
    pub fn remove(&self, key: &str) {
        self.0.write().unwrap_or_else(PoisonError::into_inner).remove(key);
    }

    /// Everything that is held; none when there is nothing.
    pub(crate) fn list(&self) -> Option<Vec<String>> {
        let held = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (!held.is_empty()).then(|| held.iter().cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_slots_are_taken_than_there_are() {
        let slots = Slots::new(3, Arc::default());
        assert_eq!((slots.take(2), slots.take(2), slots.take(2)), (2, 1, 0));
        assert!(slots.is_full());
        slots.give(2);
        assert_eq!(slots.take(5), 2);
    }
}
