//! The life of this process in the eyes of its peers, and its eyes on them: a session that holds a lock, a look
//! around a few times a second, the time of the database.

use crate::{
    failpoint::{At as _, Point},
    leases::Leases,
    measures, retry,
    store::{self, News, operations::NewOffer, rings, workers},
    wakeup::{Ring, Wakeup},
};
use chrono::{DateTime, Utc};
use sqlx::{Connection, Executor, PgConnection, PgPool};
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

/// How often it looks around while it works, and for a while after: what it did may soon be due again.
const LOOK: Duration = Duration::from_millis(250);
const AFTERMATH: Duration = Duration::from_secs(3);
/// How often it does while it has nothing to do.
const QUIET_LOOK: Duration = Duration::from_millis(2500);
/// A peer whose lock is free for this long is dead.
const PATIENCE: Duration = Duration::from_millis(400);
/// A look that takes longer means that the session is gone.
const ANSWER: Duration = Duration::from_secs(5);

/// What the server does about a look that hangs, before [`ANSWER`] is up, and about a client that is cut off: also where
/// something in between keeps the session open, the lock is not held for somebody who does not look any more.
const LIMITS: &str = "set lock_timeout = '2s'; set statement_timeout = '4s'; set idle_session_timeout = '20s';
    set tcp_keepalives_idle = 5; set tcp_keepalives_interval = 2; set tcp_keepalives_count = 3";

/// This process as the database knows it.
#[derive(Debug)]
pub(crate) struct Incarnation {
    id: AtomicI64,
    clock: watch::Sender<Option<(Instant, DateTime<Utc>)>>,
}

impl Incarnation {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { id: AtomicI64::new(0), clock: watch::Sender::new(None) })
    }

    /// The id of the incarnation; `None` before the first registration.
    pub(crate) fn id(&self) -> Option<i64> {
        Some(self.id.load(Ordering::Acquire)).filter(|id| *id != 0)
    }

    /// The time of the database, never ahead of it. `None` before the first look.
    pub(crate) fn now(&self) -> Option<DateTime<Utc>> {
        let (at, now) = (*self.clock.borrow())?;
        Some(now + at.elapsed())
    }

    /// When the database's clock will show `due`, if nobody moves it; at once before the first look.
    pub(crate) fn when(&self, due: DateTime<Utc>) -> Instant {
        Instant::now() + self.now().map_or(Duration::ZERO, |now| (due - now).to_std().unwrap_or_default())
    }

    /// Waits until the database's clock shows `due`, also when somebody moves that clock.
    pub(crate) async fn reaches(&self, due: DateTime<Utc>) {
        let mut clock = self.clock.subscribe();
        loop {
            clock.mark_unchanged();
            let left = self.now().map(|now| (due - now).to_std().unwrap_or_default());
            if left.is_some_and(|left| left.is_zero()) {
                return;
            }
            let nap = left.unwrap_or(Duration::MAX).min(Duration::from_secs(3600));
            let _ = tokio::time::timeout(nap, clock.changed()).await;
        }
    }

    fn set_clock(&self, now: DateTime<Utc>) {
        let jumped = self.now().is_none_or(|guess| (now - guess).abs() > chrono::Duration::milliseconds(50));
        let reading = Some((Instant::now(), now));
        // Sleepers only need to know when the clock did not run as expected.
        self.clock.send_if_modified(|clock| {
            *clock = reading;
            jumped
        });
    }
}

/// Lives, looks and recovers until `stop`; reconnects for as long as it takes.
pub(crate) struct Sweeper {
    pub pool: PgPool,
    pub name: String,
    pub me: Arc<Incarnation>,
    pub leases: Arc<Leases>,
    pub wakeup: Arc<Wakeup>,
    /// What it can do, for whoever asks why something waits.
    pub offers: Vec<NewOffer>,
}

impl Sweeper {
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut session = None;
        while !stop.is_cancelled() {
            let end = stop.run_until_cancelled(self.live(&mut session)).await;
            match end {
                None => break,
                Some(Ok(())) => {}
                Some(Err(error)) => {
                    tracing::warn!(%error, worker = self.name, "lost the session of this worker; it comes back");
                    session = None;
                }
            }
            let _ = stop.run_until_cancelled(tokio::time::sleep(retry::jittered(LOOK))).await;
        }
        if let (Some(mut session), Some(id)) = (session, self.me.id()) {
            if let Ok(queues) = store::in_time(ANSWER, workers::retire(&mut session, id)).await {
                self.wakeup.announce(queues.into_iter().map(Ring::Queue).collect());
            }
            let _ = session.close().await;
        }
    }

    /// One session, from its start until it breaks or the incarnation ends.
    async fn live(&self, session: &mut Option<PgConnection>) -> sqlx::Result<()> {
        // A connection of its own, outside the pool: the lock dies with it, and with nothing else.
        let options = self.pool.connect_options();
        let db = session
            .insert(store::in_time(ANSWER, PgConnection::connect_with(&options).at(Point::WorkerConnect)).await?);
        store::in_time(ANSWER, db.execute(LIMITS)).await?;
        match self.me.id() {
            None => self.begin(db).await?,
            Some(id) => match store::in_time(ANSWER, workers::resume(db, id)).await? {
                Some(true) => {}
                Some(false) => {
                    tracing::warn!(worker = self.name, id, "peers have given this worker up; it starts anew");
                    self.leases.lose_all();
                    self.begin(db).await?;
                }
                None => return Ok(()),
            },
        }
        let mut quiet_from = Instant::now() + AFTERMATH;
        loop {
            let news =
                match store::in_time(ANSWER, workers::sweep(db, self.me.id().unwrap_or_default(), PATIENCE)).await {
                    // A look that was cut short leaves the session, and with it the life of this incarnation, as it was.
                    Err(error) if store::is_transient(&error) && !store::is_connection_loss(&error) => {
                        tracing::warn!(%error, worker = self.name, "a look around was cut short");
                        tokio::time::sleep(retry::jittered(LOOK)).await;
                        continue;
                    }
                    looked => looked?,
                };
            self.wakeup.announce(rings(&news, None));
            let lost = news.iter().filter(|n| matches!(n, News::Settled(_))).count();
            metrics::counter!(measures::LOSSES).increment(lost as u64);
            let clock = news.iter().find_map(|n| match n {
                News::Clock { now, next_due_seconds } => Some((*now, *next_due_seconds)),
                _ => None,
            });
            let Some((now, next_due_seconds)) = clock else { return Ok(()) };
            self.me.set_clock(now);
            let now = Instant::now();
            if !self.leases.is_empty() {
                quiet_from = now + AFTERMATH;
            }
            let look = if now < quiet_from { LOOK } else { QUIET_LOOK };
            let until_due = next_due_seconds.map_or(look, |s| Duration::from_secs_f64(s.max(0.001)));
            tokio::select! {
                () = tokio::time::sleep(until_due.min(retry::jittered(look))) => {}
                () = self.leases.stirred(), if now >= quiet_from => quiet_from = Instant::now() + AFTERMATH,
            }
        }
    }

    async fn begin(&self, db: &mut PgConnection) -> sqlx::Result<()> {
        let id = store::in_time(ANSWER, workers::register(db, &self.name)).await?;
        store::in_time(ANSWER, store::operations::offer(db, id, &self.offers)).await?;
        self.me.id.store(id, Ordering::Release);
        tracing::info!(worker = self.name, id, "worker registered");
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_clock_that_is_moved_wakes_its_sleepers() {
        let me = Incarnation::new();
        let start = DateTime::<Utc>::UNIX_EPOCH;
        me.set_clock(start);
        let hour = chrono::Duration::hours(1);
        let (sleeper, other) = (me.clone(), me.clone());
        let asleep = tokio::spawn(async move { sleeper.reaches(start + hour).await });
        tokio::task::yield_now().await;
        other.set_clock(start + hour);
        asleep.await.unwrap();
    }
}
