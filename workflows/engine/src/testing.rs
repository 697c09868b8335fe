//! For tests of definitions: a clock that the test moves, ordeals of one line each, histories as text and as files, and the
//! replay of a stored history without a database.
//!
//! ```ignore
//! let stage = Stage::new(db, |w| w.workflow::<Order>().handler::<Charge>(bank.clone()));
//! let run = stage.finish(Order { id: 7 }).await?;
//! stage.survives_a_crash_after_every_event(Order { id: 8 }).await?;
//! stage.settles_whatever_fails(|| Order { id: 9 }).await?;
//! std::fs::write("histories/order.json", serde_json::to_vec_pretty(&stage.history(run.id).await?)?)?;
//! ```
//! and in the build of every later version:
//! ```ignore
//! replay::<Order>(&serde_json::from_slice(&std::fs::read("histories/order.json")?)?)?;
//! ```

use crate::{
    client::{self, Client, Event, Run, RunProgress, RunState},
    executor,
    ledger::Ledger,
    record::{InFlight, Kind, Record},
    store::{self, Fence},
    worker::{Builder, Worker, run_definition},
    workflow::{Context, Core, Workflow},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgPool;
use std::{fmt::Write as _, sync::Arc, task::Poll, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// How long a run may take in a test, by the real clock.
const PATIENCE: Duration = Duration::from_secs(30);

/// What a run was asked to do and what it has done: enough to replay it anywhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct History {
    /// [`Workflow::NAME`].
    pub kind: String,
    /// [`Workflow::VERSION`].
    pub version: i32,
    /// The run: chance depends on it.
    pub run_id: Uuid,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// When it was started: time begins here.
    pub created_at: DateTime<Utc>,
    /// What it was started with.
    pub input: Value,
    /// How far it has come.
    pub state: RunState,
    /// Code of its error.
    pub error_code: Option<String>,
    /// What it has done, oldest first.
    pub events: Vec<Event>,
    /// What it has asked for and has not heard of.
    pub in_flight: Vec<Asked>,
}

/// Something that a run has asked for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Asked {
    /// The key the definition gave it.
    pub key: String,
    /// `activity` or `child`.
    pub kind: String,
    /// The activity, or the kind of the child.
    pub name: Option<String>,
}

impl History {
    /// The history as text that is the same each time: `kind key outcome` of each event, a line each; for snapshots.
    /// Numbers of signals that have no deduplication key are left out, and so are times.
    pub fn lines(&self) -> String {
        let mut text = String::new();
        for event in &self.events {
            let outcome = event.failure.as_ref().map_or(event.outcome.as_str(), |failure| &failure.code);
            let key = event.key.split_once(":#").map_or(event.key.as_str(), |(key, _)| key);
            let name = event.name.as_deref().unwrap_or_default();
            let _ = writeln!(text, "{:<12} {key:<20} {name:<20} {outcome}", event.kind);
        }
        text
    }
}

/// The history of a run, or `None` when there is no such run.
///
/// # Errors
/// [`client::Error::Database`].
pub async fn history(client: &Client, run_id: Uuid) -> Result<Option<History>, client::Error> {
    let Some(run) = client.run(run_id).await? else { return Ok(None) };
    let (_, in_flight) = store::steps::all(client.pool(), run_id).await?;
    Ok(Some(History {
        kind: run.kind,
        version: run.version,
        run_id,
        tenant_id: run.tenant_id,
        created_at: run.created_at,
        input: run.input,
        state: run.state,
        error_code: run.error.map(|error| error.code),
        events: client.history(run_id).await?,
        in_flight: in_flight
            .into_iter()
            .map(|work| Asked { key: work.key, kind: work.kind.name().to_owned(), name: work.name })
            .collect(),
    }))
}

/// Why a definition cannot take up a history.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("run {run_id} does not fit the definition of {kind}: {why}")]
pub struct Mismatch {
    /// The run whose history it is.
    pub run_id: Uuid,
    /// The workflow.
    pub kind: &'static str,
    /// What does not fit.
    pub why: String,
}

/// Runs a definition through a stored history, without a database and without doing anything. A definition that fits asks for
/// what is recorded, in an order that allows it, and ends where the run has ended.
///
/// # Errors
/// [`Mismatch`]: runs like this one would be parked by a worker with this definition.
pub fn replay<W: Workflow>(history: &History) -> Result<(), Mismatch> {
    let mismatch = |why: String| Mismatch { run_id: history.run_id, kind: W::NAME, why };
    if (history.kind.as_str(), history.version) != (W::NAME, W::VERSION) {
        return Err(mismatch(format!("it is of {} version {}", history.kind, history.version)));
    }
    let ledger = Ledger::new(history.created_at);
    let records = history.events.iter().map(record).collect();
    let in_flight = history.in_flight.iter().map(|asked| InFlight {
        key: asked.key.clone(),
        kind: Kind::parse(&asked.kind),
        name: asked.name.clone(),
    });
    ledger.begin(records, in_flight.collect());
    let core = Core {
        run_id: history.run_id,
        tenant_id: history.tenant_id,
        kind: W::NAME.to_owned(),
        fence: Fence { task_id: 0, token: Uuid::nil() },
        pool: None,
        ledger: ledger.clone(),
        trace: None,
    };
    let definition: executor::Definition = Arc::new(|input, cx| Box::pin(run_definition::<W>(input, cx)));
    let future = executor::to_the_end(&definition, history.input.clone(), Context::new(Arc::new(core)));
    let end = executor::replay(future, &ledger).map_err(|failure| mismatch(failure.message))?;
    match (history.state, end) {
        (RunState::Running, _) => Ok(()),
        (RunState::Succeeded, Poll::Ready(Ok(_))) => Ok(()),
        (RunState::Succeeded, Poll::Ready(Err(_))) if ledger.has_successor() => Ok(()),
        (RunState::Failed | RunState::Cancelled, Poll::Ready(Err(_))) => Ok(()),
        // The engine gave it up, wherever it was.
        (RunState::Failed, Poll::Pending) if given_up(history.error_code.as_deref()) => Ok(()),
        (state, Poll::Ready(Err(failure))) => {
            Err(mismatch(format!("the run ended as {state:?}, the definition with {failure}")))
        }
        (state, Poll::Ready(Ok(_))) => Err(mismatch(format!("the run ended as {state:?}, the definition succeeds"))),
        (state, Poll::Pending) => Err(mismatch(format!("the run ended as {state:?}, the definition asks for more"))),
    }
}

fn given_up(code: Option<&str>) -> bool {
    matches!(code, Some("workflow.lost_too_often" | "workflow.unrecordable"))
}

fn record(event: &Event) -> Record {
    Record {
        seq: event.seq,
        key: event.key.clone(),
        kind: Kind::parse(&event.kind),
        name: event.name.clone(),
        outcome: match &event.failure {
            None => Ok(event.output.clone().unwrap_or_default()),
            Some(failure) => Err(failure.clone()),
        },
        recorded_at: event.recorded_at,
    }
}

/// Moves the engine's clock, for all sessions at once. Leases end by the same clock: what is leased at the moment counts as
/// lost when it moves further than their length.
///
/// # Errors
/// The database cannot be reached.
pub async fn move_clock(pool: &PgPool, by: Duration) -> sqlx::Result<()> {
    sqlx::query("update workflow.clock set moved_by = moved_by + make_interval(secs => $1)")
        .bind(by.as_secs_f64())
        .execute(pool)
        .await
        .map(drop)
}

/// Moves the clock to the moment at which the next sleeper wakes, if there is nothing else to do. False when there is.
///
/// # Errors
/// The database cannot be reached.
pub async fn skip_to_next_timer(pool: &PgPool) -> sqlx::Result<bool> {
    let moved = sqlx::query(
        "update workflow.clock set moved_by = moved_by + (
             select greatest(min(run_at) - workflow.now(), interval '0') from workflow.tasks
             where state = 'waiting' and run_at < 'infinity')
         where not exists (select from workflow.tasks where state <> 'waiting')
           and exists (select from workflow.tasks where state = 'waiting' and run_at < 'infinity')",
    );
    Ok(moved.execute(pool).await?.rows_affected() > 0)
}

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
