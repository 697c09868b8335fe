//! What a worker shares with the clients of its own process: starts that go along with its round trips, and ends that are heard
//! without asking the database.

use crate::{
    pump::{What, Write},
    store::{Fence, tasks::NewRun},
    sweeper::Incarnation,
};
use serde_json::Value;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, oneshot};
use uuid::Uuid;

/// How a run has ended here: the state, and the output or the error.
pub(crate) type End = (&'static str, Option<Value>);

/// Who waits for the ends of runs that may end in this process.
#[derive(Debug, Default)]
pub(crate) struct Ends {
    waiting: Mutex<HashMap<Uuid, Vec<oneshot::Sender<End>>>>,
}

impl Ends {
    fn waiting(&self) -> MutexGuard<'_, HashMap<Uuid, Vec<oneshot::Sender<End>>>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hears of the end of a run, if that happens here and after this call.
    pub(crate) fn expect(self: &Arc<Self>, run_id: Uuid) -> Expected {
        let (tell, end) = oneshot::channel();
        self.waiting().entry(run_id).or_default().push(tell);
        Expected { ends: self.clone(), run_id, end }
    }

    /// A run has ended here, and that is committed.
    pub(crate) fn tell(&self, run_id: Uuid, state: &'static str, body: Option<&Value>) {
        for waiting in self.waiting().remove(&run_id).into_iter().flatten() {
            let _ = waiting.send((state, body.cloned()));
        }
    }
}

/// The end of a run, awaited; nobody waits any more once it is dropped.
#[derive(Debug)]
pub(crate) struct Expected {
    ends: Arc<Ends>,
    run_id: Uuid,
    pub end: oneshot::Receiver<End>,
}

impl Drop for Expected {
    fn drop(&mut self) {
        self.end.close();
        let mut waiting = self.ends.waiting();
        if let Some(others) = waiting.get_mut(&self.run_id) {
            others.retain(|other| !other.is_closed());
            if others.is_empty() {
                waiting.remove(&self.run_id);
            }
        }
    }
}

/// The worker of this process, to its clients.
#[derive(Debug, Clone)]
pub(crate) struct Local {
    pub writes: mpsc::WeakUnboundedSender<Write>,
    pub ends: Arc<Ends>,
    pub me: Arc<Incarnation>,
}

impl Local {
    /// An id for a new run, by the clock of the database; `None` before the worker knows that.
    pub(crate) fn new_run_id(&self) -> Option<Uuid> {
        let now = self.me.now()?;
        let seconds = u64::try_from(now.timestamp()).ok()?;
        Some(Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, now.timestamp_subsec_nanos())))
    }

    /// Starts a run along with the worker's next round trip, and waits until that is committed. `false`: there is no worker any
    /// more, or the run is refused; it may have been started all the same.
    pub(crate) async fn start(&self, run: NewRun) -> bool {
        let Some(writes) = self.writes.upgrade() else { return false };
        let (reply, started) = oneshot::channel();
        let fence = Fence { task_id: 0, token: Uuid::nil() };
        let write = Write { fence, what: What::Start(run), last: false, again: false, reply };
        writes.send(write).is_ok() && started.await.is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_no_longer_waits_leaves_nothing_behind() {
        let ends = Arc::<Ends>::default();
        let run_id = Uuid::now_v7();
        let (first, second) = (ends.expect(run_id), ends.expect(run_id));
        drop(first);
        assert_eq!(ends.waiting()[&run_id].len(), 1);
        drop(second);
        assert!(ends.waiting().is_empty());
    }

    #[tokio::test]
    async fn all_who_wait_hear_of_an_end() {
        let ends = Arc::<Ends>::default();
        let run_id = Uuid::now_v7();
        let (mut first, mut second) = (ends.expect(run_id), ends.expect(run_id));
        ends.tell(run_id, "succeeded", Some(&Value::from(3)));
        assert_eq!((&mut first.end).await.unwrap(), ("succeeded", Some(Value::from(3))));
        assert_eq!((&mut second.end).await.unwrap(), ("succeeded", Some(Value::from(3))));
    }
}
