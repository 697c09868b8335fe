//! What wakes the executor of a run.

use std::{
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Poll, Wake},
};

/// Wakes the executor of a run; stays rung until it is heard.
#[derive(Debug, Default)]
pub(crate) struct Bell {
    rung: AtomicBool,
    listener: futures::task::AtomicWaker,
}

impl Bell {
    pub(crate) fn ring(&self) {
        self.rung.store(true, Ordering::Release);
        self.listener.wake();
    }

    /// Whether it was rung since it was last heard.
    pub(crate) fn hear(&self) -> bool {
        self.rung.swap(false, Ordering::AcqRel)
    }

    /// Waits until it rings.
    pub(crate) async fn rings(&self) {
        poll_fn(|cx| {
            self.listener.register(cx.waker());
            if self.hear() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.ring();
    }
}
