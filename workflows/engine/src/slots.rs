//! How many tasks of a queue may be here at once, whichever lane they come by.

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
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
