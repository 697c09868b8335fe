//! Renewals of remote workers, written together: hundreds of machines renew every few seconds, and a commit each would be most of
//! what the database does.

use crate::store;
use serde_json::Value;
use sqlx::PgPool;
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{sync::oneshot, time::Instant};
use uuid::Uuid;

/// Writes are at least so far apart; who comes after a pause does not wait.
const APART: Duration = Duration::from_millis(400);

/// Whether its run was cancelled; none: the lease was not renewed.
type Answer = Option<bool>;

#[derive(Debug)]
struct Renewal {
    task_id: i64,
    token: Uuid,
    progress: Option<Value>,
    answer: oneshot::Sender<Answer>,
}

/// What waits for the next write.
#[derive(Debug, Default)]
pub(crate) struct Renewals {
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    renewals: Vec<Renewal>,
    writing: bool,
    written: Option<Instant>,
}

impl Renewals {
    /// Renews with others. None when the write did not succeed: whoever needs to know why tries alone.
    pub async fn renew(
        self: &Arc<Self>,
        db: &PgPool,
        task_id: i64,
        token: Uuid,
        progress: Option<Value>,
    ) -> Option<Answer> {
        let (answer, answered) = oneshot::channel();
        let writes = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            waiting.renewals.push(Renewal { task_id, token, progress, answer });
            !std::mem::replace(&mut waiting.writing, true)
        };
        if writes {
            tokio::spawn(self.clone().write(db.clone()));
        }
        answered.await.ok()
    }

    async fn write(self: Arc<Self>, db: PgPool) {
        while let Some(at) = self.next_at() {
            tokio::time::sleep_until(at).await;
            let batch = self.take();
            let ids: Vec<i64> = batch.iter().map(|r| r.task_id).collect();
            let tokens: Vec<Uuid> = batch.iter().map(|r| r.token).collect();
            let progress: Vec<Option<Value>> = batch.iter().map(|r| r.progress.clone()).collect();
            // A write that fails drops the batch, and each renewal hears of that.
            if let Ok(held) = store::tasks::renew(&db, &ids, &tokens, &progress).await {
                let held: HashMap<i64, bool> = held.into_iter().collect();
                for renewal in batch {
                    // Whoever has gone away does not need to know.
                    let _ = renewal.answer.send(held.get(&renewal.task_id).copied());
                }
            }
        }
    }

    /// When the next write is due; none: there is nothing to write, and nobody writes any more.
    fn next_at(&self) -> Option<Instant> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.writing = !waiting.renewals.is_empty();
        let written = waiting.written;
        waiting.writing.then(|| written.map_or_else(Instant::now, |at| at + APART))
    }

    /// One renewal of each task: the answer names tasks, not tokens.
    fn take(&self) -> Vec<Renewal> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.written = Some(Instant::now());
        let mut tasks = HashSet::new();
        let (batch, later) =
            std::mem::take(&mut waiting.renewals).into_iter().partition(|renewal| tasks.insert(renewal.task_id));
        waiting.renewals = later;
        batch
    }
}
