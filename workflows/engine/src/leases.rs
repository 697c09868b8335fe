//! The leases of this process: renewed together, and the first to hear when one must end.

use crate::{
    activity::{Progress, Standing},
    measures,
    record::to_payload,
    retry,
    store::{self, Fence, session::Session},
    wakeup::{Mailbox, Ring},
};
use serde_json::Value;
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use uuid::Uuid;

/// How often standing is asked for: the longest a local attempt waits to hear that it was cancelled.
const LOOK: Duration = Duration::from_millis(800);
/// Progress alone is written no more often than this.
const PROGRESS: Duration = Duration::from_secs(2);
/// A renewal that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(5);

/// Everything this process holds, by task.
#[derive(Debug, Default)]
pub(crate) struct Leases {
    held: Mutex<HashMap<i64, Lease>>,
    stir: Notify,
}

#[derive(Debug)]
struct Lease {
    token: Uuid,
    length: Duration,
    renewed_at: Instant,
    standing: watch::Sender<Standing>,
    progress: Option<watch::Receiver<Progress>>,
}

impl Lease {
    /// A third of the lease has passed, or there is news worth a write.
    fn is_due(&self, now: Instant) -> bool {
        let age = now - self.renewed_at;
        let news = self.progress.as_ref().is_some_and(|p| p.has_changed().unwrap_or(false));
        age >= self.length / 3 || (news && age >= PROGRESS.min(self.length / 4))
    }

    fn latest_progress(&mut self) -> Option<Value> {
        let progress = self.progress.as_mut()?;
        if !progress.has_changed().unwrap_or(false) {
            return None;
        }
        let latest = progress.borrow_and_update().clone();
        to_payload(&latest).or_else(|_| to_payload(&Progress { detail: Value::Null, ..latest })).ok()
    }
}

impl Leases {
    fn held(&self) -> MutexGuard<'_, HashMap<i64, Lease>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a lease that was claimed no earlier than `claimed_at`.
    pub(crate) fn keep(&self, fence: Fence, seconds: f64, claimed_at: Instant, standing: watch::Sender<Standing>) {
        let lease = Lease {
            token: fence.token,
            length: Duration::from_secs_f64(seconds),
            renewed_at: claimed_at,
            standing,
            progress: None,
        };
        if let Some(older) = self.held().insert(fence.task_id, lease) {
            // This process has taken the task over from itself.
            older.standing.send_replace(Standing::Lost);
        }
        self.stir.notify_one();
    }

    /// Resolves when something was claimed since the last time.
    pub(crate) async fn stirred(&self) {
        self.stir.notified().await;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.held().is_empty()
    }

    /// Sends the progress of an attempt along with its renewals.
    pub(crate) fn report(&self, fence: Fence, progress: watch::Receiver<Progress>) {
        if let Some(lease) = self.held().get_mut(&fence.task_id).filter(|l| l.token == fence.token) {
            lease.progress = Some(progress);
        }
    }

    pub(crate) fn forget(&self, fence: Fence) {
        let mut held = self.held();
        if held.get(&fence.task_id).is_some_and(|l| l.token == fence.token) {
            held.remove(&fence.task_id);
        }
    }

    /// All of them are lost: the incarnation was given up.
    pub(crate) fn lose_all(&self) {
        for (_, lease) in self.held().drain() {
            lease.standing.send_replace(Standing::Lost);
        }
    }

    /// Renews and listens for as long as the process works.
    pub(crate) async fn run(self: Arc<Self>, db: PgPool, mailbox: Arc<Mailbox>) {
        loop {
            let called = async { while !mailbox.next().await.iter().any(|r| matches!(r, Ring::Cancel | Ring::All)) {} };
            let _ = tokio::time::timeout(retry::jittered(LOOK), called).await;
            if self.held().is_empty() {
                continue;
            }
            match tokio::time::timeout(PATIENCE, self.look_after(&db)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    metrics::counter!(measures::RENEWAL_ERRORS).increment(1);
                    tracing::warn!(%error, "cannot renew leases");
                }
                Err(_) => {
                    metrics::counter!(measures::RENEWAL_ERRORS).increment(1);
                    tracing::warn!("cannot renew leases: no answer");
                }
            }
            self.expire();
        }
    }

    async fn look_after(&self, db: &PgPool) -> sqlx::Result<()> {
        let asked_at = Instant::now();
        let (mut ids, mut tokens, mut progress) = (Vec::new(), Vec::new(), Vec::new());
        for (id, lease) in self.held().iter_mut().filter(|(_, l)| l.is_due(asked_at)) {
            ids.push(*id);
            tokens.push(lease.token);
            progress.push(lease.latest_progress());
        }
        if !ids.is_empty() {
            let mut session = Session::take(db).await?;
            let renewed = store::in_time(PATIENCE, store::tasks::renew(session.db(), &ids, &tokens, &progress)).await;
            let renewed = session.done(renewed)?;
            metrics::counter!(measures::RENEWALS).increment(renewed.len() as u64);
            let mut held = self.held();
            for (id, _) in renewed {
                if let Some(lease) = held.get_mut(&id) {
                    lease.renewed_at = asked_at;
                }
            }
        }
        let (ids, tokens): (Vec<i64>, Vec<Uuid>) = self.held().iter().map(|(id, l)| (*id, l.token)).unzip();
        let mut session = Session::take(db).await?;
        let standing = store::in_time(PATIENCE, store::tasks::standing(session.db(), &ids, &tokens)).await;
        let standing: HashMap<i64, bool> = session.done(standing)?.into_iter().collect();
        self.tell(&ids, &tokens, &standing);
        Ok(())
    }

    /// Passes on what the database said of the leases it was asked about.
    fn tell(&self, ids: &[i64], tokens: &[Uuid], standing: &HashMap<i64, bool>) {
        let mut held = self.held();
        for (id, token) in ids.iter().zip(tokens) {
            let Some(lease) = held.get(id).filter(|l| l.token == *token) else { continue };
            match standing.get(id) {
                Some(false) => {}
                Some(true) => {
                    lease
                        .standing
                        .send_if_modified(|s| std::mem::replace(s, Standing::Cancelled) != Standing::Cancelled);
                }
                None => {
                    lease.standing.send_replace(Standing::Lost);
                    held.remove(id);
                }
            }
        }
    }

    /// A lease that could not be renewed in time has ended, whatever the database would say.
    fn expire(&self) {
        let now = Instant::now();
        self.held().retain(|task_id, lease| {
            let alive = now - lease.renewed_at < lease.length;
            if !alive {
                metrics::counter!(measures::LEASES_EXPIRED).increment(1);
                tracing::warn!(task_id, "a lease ended before it could be renewed");
                lease.standing.send_replace(Standing::Lost);
            }
            alive
        });
    }
}
