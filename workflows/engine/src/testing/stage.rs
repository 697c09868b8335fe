//! Definitions on a real database, with a clock that moves by itself.

use super::{History, Mismatch, history, replay, skip_to_next_timer};
use crate::{
    client::{self, Client, Run, RunProgress},
    worker::{Builder, Worker},
    workflow::Workflow,
};
use sqlx::PgPool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a run may take in a test, by the real clock.
const PATIENCE: Duration = Duration::from_secs(30);

/// Why an ordeal was not passed.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    /// The run did not come to an end.
    #[error("the run is not over: {0:#?}")]
    NotOver(Box<RunProgress>),
    /// What it had done could not be done again from its record.
    #[error("replay")]
    Replay(#[from] Mismatch),
    /// The engine.
    #[error("cannot run the test")]
    Engine(#[from] client::Error),
}

impl From<sqlx::Error> for Failed {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error.into())
    }
}

type Build = Box<dyn Fn(Builder) -> Builder + Send + Sync>;

/// A place to run definitions in: each run with workers of its own, and a clock that skips what is only waiting.
pub struct Stage {
    pool: PgPool,
    client: Client,
    tenant_id: Uuid,
    build: Build,
    patience: Duration,
}

impl Stage {
    /// A stage over a database that has the engine's schema. `build` gives a worker what it must know.
    pub fn new(pool: PgPool, build: impl Fn(Builder) -> Builder + Send + Sync + 'static) -> Self {
        let client = Client::new(pool.clone());
        Self { client, pool, tenant_id: Uuid::now_v7(), build: Box::new(build), patience: PATIENCE }
    }

    /// How long a run may take, by the real clock; half a minute by default.
    #[must_use]
    pub fn patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// A client over the same database.
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Starts a run and waits for its end; sleeps take no time.
    ///
    /// # Errors
    /// [`Failed::NotOver`] when it waits for something that does not come.
    pub async fn finish<W: Workflow>(&self, workflow: W) -> Result<Run, Failed> {
        self.act(workflow, |w| w).await
    }

    /// As [`Stage::finish`], with workers that lose the run from memory after each of its events.
    ///
    /// # Errors
    /// [`Failed::NotOver`]; a definition that does not repeat itself is parked.
    pub async fn survives_a_crash_after_every_event<W: Workflow>(&self, workflow: W) -> Result<Run, Failed> {
        self.act(workflow, Builder::crash_after_every_event).await
    }

    /// Finishes a run, and then one more for each of its activities, in which that one fails for good: each must come to an
    /// end. Gives the key that failed and the run, the undisturbed one first, under an empty key.
    ///
    /// # Errors
    /// [`Failed::NotOver`] for the first that does not.
    pub async fn settles_whatever_fails<W: Workflow>(
        &self,
        make: impl Fn() -> W,
    ) -> Result<Vec<(String, Run)>, Failed> {
        let run = self.finish(make()).await?;
        let events = self.client.history(run.id).await?;
        let mut runs = vec![(String::new(), run)];
        for event in events.into_iter().filter(|event| event.kind == "activity") {
            let run = self.act(make(), |w| w.fail_activity(&event.key)).await?;
            runs.push((event.key, run));
        }
        Ok(runs)
    }

    /// The history of a run; see [`history`].
    ///
    /// # Errors
    /// [`Failed::Engine`].
    pub async fn history(&self, run_id: Uuid) -> Result<Option<History>, Failed> {
        Ok(history(&self.client, run_id).await?)
    }

    async fn act<W: Workflow>(&self, workflow: W, how: impl FnOnce(Builder) -> Builder) -> Result<Run, Failed> {
        let mut tx = self.pool.begin().await?;
        let started = self.client.start(&mut tx, self.tenant_id, None, workflow).await?;
        tx.commit().await?;
        let stop = CancellationToken::new();
        let worker = how((self.build)(Worker::builder(self.pool.clone()).grace(Duration::from_secs(1)).hasty()));
        let working = tokio::spawn(worker.run(stop.clone()));
        let over = self.wait(started.run_id).await;
        stop.cancel();
        let _ = working.await;
        let run = over?;
        if let Some(history) = history(&self.client, run.id).await?
            && (history.kind.as_str(), history.version) == (W::NAME, W::VERSION)
        {
            replay::<W>(&history)?;
        }
        Ok(run)
    }

    async fn wait(&self, run_id: Uuid) -> Result<Run, Failed> {
        let until = tokio::time::Instant::now() + self.patience;
        while tokio::time::Instant::now() < until {
            if let Some(run) = self.client.finished(run_id, Duration::from_millis(20)).await? {
                return Ok(run);
            }
            skip_to_next_timer(&self.pool).await?;
        }
        Err(Failed::NotOver(Box::new(self.client.progress(run_id).await?)))
    }
}

impl std::fmt::Debug for Stage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Stage").field("tenant_id", &self.tenant_id).finish_non_exhaustive()
    }
}
