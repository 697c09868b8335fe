//! What a worker does beside its runs, every few seconds: folds counters, goes on with operations on many runs, tells the
//! metrics how things stand. Any number of workers may; locks let one at a time.

use super::{Operations, sql};
use crate::retry;
use std::{collections::HashSet, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const LOOK: Duration = Duration::from_secs(5);
/// While an operation on many runs is under way, its rate is kept in steps of this.
const BUSY_LOOK: Duration = Duration::from_millis(100);
/// How often the gauges are renewed.
const GAUGES: Duration = Duration::from_secs(15);

/// Works until `stop`; a database that is away is waited for.
pub(crate) async fn keep(operations: Operations, stop: CancellationToken) {
    let mut clerk = Clerk { operations, queues: HashSet::new(), next_gauges: Instant::now() };
    let mut pause = LOOK;
    while stop.run_until_cancelled(tokio::time::sleep(retry::jittered(pause))).await.is_some() {
        pause = match stop.run_until_cancelled(clerk.look()).await {
            Some(Ok(true)) => BUSY_LOOK,
            Some(Ok(false)) | None => LOOK,
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot look after counters and operations");
                LOOK
            }
        };
    }
}

struct Clerk {
    operations: Operations,
    /// Queues that have had ready work: their gauges go back to zero.
    queues: HashSet<String>,
    next_gauges: Instant,
}

impl Clerk {
    /// Whether there is more to do soon.
    async fn look(&mut self) -> Result<bool, super::OperationError> {
        self.operations.fold_counters().await?;
        if Instant::now() >= self.next_gauges {
            self.next_gauges = Instant::now() + retry::jittered(GAUGES);
            self.gauges().await?;
        }
        Ok(self.operations.work_on_bulk().await? > 0)
    }

    async fn gauges(&mut self) -> Result<(), super::OperationError> {
        let pool = &self.operations.pool;
        for (kind, state, n) in sql::runs_by_kind(pool).await? {
            metrics::gauge!("flatrender_engine_runs", "kind" => kind, "state" => state).set(n as f64);
        }
        let queues = self.operations.queue_depths().await?;
        for gone in self.queues.iter().filter(|known| !queues.iter().any(|q| &q.queue == *known)) {
            metrics::gauge!("flatrender_engine_ready_tasks", "queue" => gone.clone()).set(0.0);
            metrics::gauge!("flatrender_engine_oldest_ready_seconds", "queue" => gone.clone()).set(0.0);
        }
        for q in queues {
            metrics::gauge!("flatrender_engine_ready_tasks", "queue" => q.queue.clone()).set(q.ready as f64);
            metrics::gauge!("flatrender_engine_oldest_ready_seconds", "queue" => q.queue.clone()).set(q.oldest_seconds);
            self.queues.insert(q.queue);
        }
        Ok(())
    }
}
