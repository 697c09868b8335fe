//! What a worker does beside its runs, every few seconds: folds counters, goes on with operations on many runs, tells the
//! metrics how things stand. Any number of workers may; locks let one at a time.

use super::{Operations, sql};
use crate::{measures, retry};
use std::{collections::HashSet, time::Duration};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const LOOK: Duration = Duration::from_secs(5);
/// While an operation on many runs is under way, its rate is kept in steps of this.
const BUSY_LOOK: Duration = Duration::from_millis(100);
/// A snapshot that is older keeps tables from being cleared.
const OLD_SNAPSHOT: Duration = Duration::from_secs(60);
/// A look that takes longer has lost its connection.
const LIMIT: Duration = Duration::from_secs(60);
/// How often the gauges are renewed.
const GAUGES: Duration = Duration::from_secs(15);

/// Works until `stop`; a database that is away is waited for.
pub(crate) async fn keep(operations: Operations, stop: CancellationToken) {
    let mut clerk = Clerk { operations, queues: HashSet::new(), next_gauges: Instant::now() };
    // An operation whose worker has died may wait for this one.
    let mut pause = BUSY_LOOK;
    while stop.run_until_cancelled(tokio::time::sleep(retry::jittered(pause))).await.is_some() {
        pause = match stop.run_until_cancelled(tokio::time::timeout(LIMIT, clerk.look())).await {
            Some(Ok(Ok(pause))) => pause,
            None => LOOK,
            Some(Err(_)) => {
                tracing::warn!("cannot look after counters and operations: no answer");
                LOOK
            }
            Some(Ok(Err(error))) => {
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
    /// How long to rest until the next look.
    async fn look(&mut self) -> Result<Duration, super::OperationError> {
        let (_, bulk) = sql::fold_counts(&self.operations.pool).await?;
        if Instant::now() >= self.next_gauges {
            self.next_gauges = Instant::now() + retry::jittered(GAUGES);
            self.gauges().await?;
        }
        Ok(match bulk {
            true if self.operations.next_batch().await?.more => Duration::ZERO,
            true => BUSY_LOOK,
            false => LOOK,
        })
    }

    async fn gauges(&mut self) -> Result<(), super::OperationError> {
        let pool = &self.operations.pool;
        for (kind, state, n) in sql::runs_by_kind(pool).await? {
            metrics::gauge!(measures::RUNS, "kind" => kind, "state" => state).set(n as f64);
        }
        let queues = self.operations.queue_depths().await?;
        for gone in self.queues.iter().filter(|known| !queues.iter().any(|q| &q.queue == *known)) {
            metrics::gauge!(measures::READY_TASKS, "queue" => gone.clone()).set(0.0);
            metrics::gauge!(measures::OLDEST_READY_SECONDS, "queue" => gone.clone()).set(0.0);
        }
        for q in queues {
            metrics::gauge!(measures::READY_TASKS, "queue" => q.queue.clone()).set(q.ready as f64);
            metrics::gauge!(measures::OLDEST_READY_SECONDS, "queue" => q.queue.clone()).set(q.oldest_seconds);
            self.queues.insert(q.queue);
        }
        for (reason, n) in sql::parked_by_reason(pool).await? {
            metrics::gauge!(measures::PARKED_RUNS, "reason" => reason).set(n as f64);
        }
        self.horizon().await?;
        let (all, idle) = (f64::from(pool.size()), pool.num_idle() as f64);
        metrics::gauge!(measures::POOL_CONNECTIONS, "state" => "idle").set(idle);
        metrics::gauge!(measures::POOL_CONNECTIONS, "state" => "busy").set((all - idle).max(0.0));
        Ok(())
    }

    /// Vacuum clears nothing away that the oldest snapshot may still see: the queues of an engine swell behind a transaction that
    /// somebody has left open.
    async fn horizon(&self) -> Result<(), super::OperationError> {
        let oldest = sql::oldest_snapshot(&self.operations.pool).await?;
        metrics::gauge!(measures::HORIZON_SECONDS).set(oldest.as_ref().map_or(0.0, |oldest| oldest.seconds));
        if let Some(culprit) = oldest.filter(|oldest| oldest.seconds > OLD_SNAPSHOT.as_secs_f64()) {
            let sql::Snapshot { pid, application, state, seconds } = culprit;
            tracing::warn!(pid, application, state, seconds, "an old transaction keeps vacuum from its work");
        }
        Ok(())
    }
}
