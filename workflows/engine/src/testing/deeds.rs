//! What a definition does in place, in a rehearsal: steps that wait until the stage has done them.

use crate::failure::Failure;
use std::sync::{Mutex, PoisonError};
use tokio::sync::oneshot;

/// Asked for and not done yet, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Deeds(Mutex<Vec<Deed>>);

#[derive(Debug)]
pub(crate) enum Deed {
    /// A step. `done` is closed once nobody waits for it any more: its transaction may have been committed all the same.
    Step { key: String, done: oneshot::Sender<()> },
    /// A small computation that failed for good.
    FailedMemo { key: String, failure: Failure },
    /// All steps whose branches were dropped have come to their end, one way or the other.
    Settle { done: oneshot::Sender<()> },
}

impl Deeds {
    /// Waits until a step is recorded.
    pub(crate) async fn step(&self, key: &str) {
        let (done, is_done) = oneshot::channel();
        self.add(Deed::Step { key: key.to_owned(), done });
        let _ = is_done.await;
    }

    pub(crate) fn failed(&self, key: &str, failure: Failure) {
        self.add(Deed::FailedMemo { key: key.to_owned(), failure });
    }

    pub(crate) async fn settle(&self) {
        let (done, is_done) = oneshot::channel();
        self.add(Deed::Settle { done });
        let _ = is_done.await;
    }

    fn add(&self, deed: Deed) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(deed);
    }

    pub(crate) fn take(&self) -> Vec<Deed> {
        std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
