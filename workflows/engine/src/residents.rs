//! Runs in the memory of this process, and how new records reach them.

use crate::{
    failpoint::{self, Point},
    ledger::Ledger,
    measures,
    record::Record,
    retry,
    store::{self, session::Session},
    wakeup::{Mailbox, Ring},
};
use sqlx::PgPool;
use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use uuid::Uuid;

/// Messages are lost now and then: this is how long a record may take to be found without one.
const LOOK: Duration = Duration::from_secs(1);
/// A look that takes longer has lost its connection.
const ANSWER: Duration = Duration::from_secs(5);
/// A run that has done nothing for this long may make room for another.
const IDLE: Duration = Duration::from_secs(2);

#[derive(Debug, Default)]
pub(crate) struct Residents {
    runs: Mutex<HashMap<Uuid, Resident>>,
    next_stay: AtomicU64,
}

#[derive(Debug)]
struct Resident {
    stay: u64,
    ledger: Arc<Ledger>,
    idle_since: Option<Instant>,
    evict: Arc<Notify>,
}

/// A stay of a run in memory; ends when dropped.
#[derive(Debug)]
pub(crate) struct Stay {
    residents: Arc<Residents>,
    run_id: Uuid,
    stay: u64,
    evict: Arc<Notify>,
}

impl Stay {
    /// Tells whether the run waits for somebody else, and may be sent away.
    pub(crate) fn set_idle(&self, idle: bool) {
        if let Some(resident) = self.residents.runs().get_mut(&self.run_id).filter(|r| r.stay == self.stay) {
            resident.idle_since = idle.then(|| resident.idle_since.unwrap_or_else(Instant::now));
        }
    }

    /// Resolves when the run is to make room.
    pub(crate) async fn evicted(&self) {
        self.evict.notified().await;
    }
}

impl Drop for Stay {
    fn drop(&mut self) {
        metrics::gauge!(measures::RESIDENT_RUNS).decrement(1.0);
        let mut runs = self.residents.runs();
        if runs.get(&self.run_id).is_some_and(|r| r.stay == self.stay) {
            runs.remove(&self.run_id);
        }
    }
}

impl Residents {
    fn runs(&self) -> MutexGuard<'_, HashMap<Uuid, Resident>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn admit(self: &Arc<Self>, run_id: Uuid, ledger: Arc<Ledger>) -> Stay {
        let stay = self.next_stay.fetch_add(1, Ordering::Relaxed);
        let evict = Arc::new(Notify::new());
        metrics::gauge!(measures::RESIDENT_RUNS).increment(1.0);
        self.runs().insert(run_id, Resident { stay, ledger, idle_since: None, evict: evict.clone() });
        Stay { residents: self.clone(), run_id, stay, evict }
    }

    /// Hands a record to its run, if that is here.
    pub(crate) fn deliver(&self, run_id: Uuid, record: Record) {
        if let Some(resident) = self.runs().get(&run_id) {
            failpoint::around(Point::Deliver, || resident.ledger.add(record));
        }
    }

    /// Asks up to `count` runs that have long been idle to make room, the longest idle first.
    pub(crate) fn make_room(&self, count: usize) {
        let runs = self.runs();
        let mut idle: Vec<_> = runs
            .values()
            .filter_map(|r| r.idle_since.filter(|since| since.elapsed() >= IDLE).map(|since| (since, &r.evict)))
            .collect();
        idle.sort_by_key(|(since, _)| *since);
        idle.iter().take(count).for_each(|(_, evict)| evict.notify_one());
    }

    /// Finds new records for as long as the process works.
    pub(crate) async fn run(self: Arc<Self>, db: PgPool, mailbox: Arc<Mailbox>) {
        let mut next_look = Instant::now() + LOOK;
        loop {
            let rings =
                tokio::time::timeout_at(next_look, mailbox.next()).await.unwrap_or_else(|_| HashSet::from([Ring::All]));
            let all = rings.contains(&Ring::All);
            if all {
                next_look = Instant::now() + retry::jittered(LOOK);
            }
            let (runs, seen): (Vec<Uuid>, Vec<i64>) = self
                .runs()
                .iter()
                .filter(|(run_id, _)| all || rings.contains(&Ring::Run(**run_id)))
                .map(|(run_id, r)| (*run_id, r.ledger.seen()))
                .unzip();
            if runs.is_empty() {
                continue;
            }
            let news = async {
                let mut session = Session::take(&db).await?;
                let records = store::in_time(ANSWER, store::steps::newer(session.db(), &runs, &seen)).await;
                session.done(records)
            };
            match news.await {
                Ok(records) => records.into_iter().for_each(|(run_id, record)| self.deliver(run_id, record)),
                Err(error) => tracing::warn!(%error, "cannot read new records"),
            }
        }
    }
}
