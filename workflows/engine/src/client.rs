//! The face towards whoever starts and watches runs. Whatever writes a run takes the caller's transaction.

mod jobs;
mod launch;
mod remote;
mod renewals;
mod views;

pub use jobs::{Debounce, Enqueued, Excess, JobOptions, Scope, Throttle, Unique, Until};
pub use launch::Launched;
pub(crate) use remote::RemoteNote;
pub use remote::WorkWatch;
pub use views::{Event, Run, RunProgress, RunState, Task};
pub(crate) use views::{EventRow, RunRow, TaskRow};

use crate::{
    failure::Failure,
    handover::Local,
    measures,
    payload::{self, Payloads},
    signals::{self, Delivery},
    store::{self, rings},
    trace::TraceContext,
    wakeup::{Ring, Wakeup},
    worker::RUN_QUEUE,
    workflow::Workflow,
};
use serde::Serialize;
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use std::{
    collections::HashSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use uuid::Uuid;

/// Runs that one statement starts.
const START: usize = 1000;

/// Starts, cancels and watches runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pool: PgPool,
    wakeup: Arc<Wakeup>,
    unannounced: Arc<Mutex<HashSet<Ring>>>,
    remotes: Arc<Mutex<remote::Remotes>>,
    renewals: Arc<renewals::Renewals>,
    /// The worker of this process that the client belongs to.
    local: Option<Local>,
    pub(crate) payloads: Payloads,
}

/// Why a call to the engine did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The lease ended or went to somebody else: nothing was changed.
    #[error("the lease of task {0} is lost")]
    LeaseLost(i64),
    /// The value cannot be stored: see [`Failure::code`].
    #[error("cannot store the value")]
    Unrecordable(#[source] Failure),
    /// What lies outside of the tables, or is sealed, cannot be put there or read: see [`Failure::code`]. If that is
    /// [retryable](Failure::retryable), it may be possible another time.
    #[error("cannot reach the payload")]
    Payload(#[source] Failure),
    /// PostgreSQL said no, or could not be reached.
    #[error("cannot reach the engine's tables")]
    Database(#[from] sqlx::Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::LeaseLost(_) => Self::lease_lost(),
            Error::Unrecordable(failure) | Error::Payload(failure) => failure,
            Error::Database(error) => error.into(),
        }
    }
}

/// A run that was started, now or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Started {
    /// The run.
    pub run_id: Uuid,
    /// False when the business key had a run already: this is that run.
    pub started: bool,
}

pub(crate) struct StartRequest<'a> {
    pub tenant_id: Uuid,
    pub kind: &'a str,
    pub version: i32,
    pub business_key: Option<&'a str>,
    pub input: Value,
    pub priority: i16,
    pub traceparent: Option<TraceContext>,
}

impl Client {
    /// A client over `pool`.
    pub fn new(pool: PgPool) -> Self {
        let wakeup = Wakeup::new(pool.clone());
        Self::with_wakeup(pool, wakeup)
    }

    pub(crate) fn with_wakeup(pool: PgPool, wakeup: Arc<Wakeup>) -> Self {
        let payloads = Payloads::inline();
        Self {
            pool,
            wakeup,
            unannounced: Arc::default(),
            remotes: Arc::default(),
            renewals: Arc::default(),
            local: None,
            payloads,
        }
    }

    pub(crate) fn with_local(self, local: Local) -> Self {
        Self { local: Some(local), ..self }
    }

    /// How inputs, outputs and signals are stored: as every worker of this database does it.
    #[must_use]
    pub fn payloads(self, payloads: Payloads) -> Self {
        Self { payloads, ..self }
    }

    /// The same, with wake-ups of its own: nobody else's announcement takes them along before they are true.
    pub(crate) fn apart(&self) -> Self {
        Self { unannounced: Arc::default(), ..self.clone() }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    // ---- payloads

    /// The form in which a value is stored.
    pub(crate) async fn stored(&self, tenant_id: Uuid, value: &impl Serialize) -> Result<Value, Error> {
        self.stored_for(value, async { Ok(Some(tenant_id)) }).await
    }

    /// As [`Client::stored`], for a tenant that is looked up if need be. Null when there is none: whoever stores it finds that
    /// there is nowhere to.
    pub(crate) async fn stored_for(
        &self,
        value: &impl Serialize,
        tenant: impl Future<Output = sqlx::Result<Option<Uuid>>>,
    ) -> Result<Value, Error> {
        let value = self.payloads.encode(value).map_err(Error::Unrecordable)?;
        if self.payloads.passes(&value) {
            return Ok(value);
        }
        let Some(tenant_id) = tenant.await? else { return Ok(Value::Null) };
        self.payloads.keep(tenant_id, value, payload::FEW).await.map_err(|failure| match failure.code.as_str() {
            "workflow.unrecordable" => Error::Unrecordable(failure),
            _ => Error::Payload(failure),
        })
    }

    /// The value that is stored as this.
    pub(crate) async fn opened(&self, tenant_id: Uuid, stored: Value) -> Result<Value, Error> {
        self.payloads.fetch(tenant_id, stored, payload::FEW).await.map_err(Error::Payload)
    }

    /// For people: what cannot be read stays as it is stored.
    pub(crate) async fn show(&self, tenant_id: Uuid, stored: &mut Value) {
        if Payloads::is_reference(stored) {
            match self.payloads.fetch(tenant_id, stored.clone(), 1).await {
                Ok(value) => *stored = value,
                Err(failure) => tracing::warn!(%failure, "a payload is shown as it is stored"),
            }
        }
    }

    // ---- runs

    /// Starts a run inside the caller's transaction: it exists if and only if that commits. A business key that has
    /// a run already answers with that run, whatever its state, and is no error. It belongs to the trace of
    /// [`TraceContext::current`], with all that comes of it.
    ///
    /// Call [`Client::announce`] after the commit; without it the run is picked up a little later.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when the input cannot be stored; [`Error::Payload`].
    pub async fn start<W: Workflow>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        business_key: Option<&str>,
        workflow: W,
    ) -> Result<Started, Error> {
        let run = StartRequest {
            tenant_id,
            kind: W::NAME,
            version: W::VERSION,
            business_key,
            priority: workflow.priority(),
            input: self.stored(tenant_id, &workflow).await?,
            traceparent: TraceContext::current(),
        };
        loop {
            if let Some(run_id) = store::runs::insert(tx, &run).await? {
                metrics::counter!(measures::RUNS_STARTED, "kind" => W::NAME).increment(1);
                self.remember([Ring::Queue(RUN_QUEUE.to_owned())]);
                return Ok(Started { run_id, started: true });
            }
            // A statement of its own: it sees the rival that the insert has waited for.
            if let Some(run_id) = store::runs::by_key(tx, W::NAME, tenant_id, business_key).await? {
                return Ok(Started { run_id, started: false });
            }
        }
    }

    /// Starts many runs of one workflow, without business keys, in a statement per thousand; else as [`Client::start`].
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when an input cannot be stored, [`Error::Payload`]: nothing is started.
    pub async fn start_all<W: Workflow>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        workflows: impl IntoIterator<Item = W>,
    ) -> Result<Vec<Uuid>, Error> {
        let workflows: Vec<W> = workflows.into_iter().collect();
        let priorities: Vec<_> = workflows.iter().map(W::priority).collect();
        let mut inputs = Vec::with_capacity(workflows.len());
        for workflow in workflows {
            inputs.push(self.stored(tenant_id, &workflow).await?);
        }
        let shared = StartRequest {
            tenant_id,
            kind: W::NAME,
            version: W::VERSION,
            business_key: None,
            input: Value::Null,
            priority: 0,
            traceparent: TraceContext::current(),
        };
        let mut ids = Vec::with_capacity(inputs.len());
        for (inputs, priorities) in inputs.chunks(START).zip(priorities.chunks(START)) {
            ids.extend(store::runs::insert_all(tx, &shared, inputs, priorities).await?);
        }
        metrics::counter!(measures::RUNS_STARTED, "kind" => W::NAME).increment(ids.len() as u64);
        self.remember([Ring::Queue(RUN_QUEUE.to_owned())]);
        Ok(ids)
    }

    /// Tells sleeping workers what was committed since the last call. Returns at once; many calls make one message.
    pub fn announce(&self) {
        let rings = std::mem::take(&mut *self.unannounced.lock().unwrap_or_else(PoisonError::into_inner));
        self.wakeup.announce(rings);
    }

    /// Asks a run to stop, inside the caller's transaction; see [`crate::Context::cancelled`]. False when it is over or
    /// was asked before. Call [`Client::announce`] after the commit.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn cancel(&self, tx: &mut PgConnection, run_id: Uuid, reason: &str) -> Result<bool, Error> {
        let reason: String = reason.chars().filter(|c| *c != '\0').collect();
        let news = store::runs::cancel(tx, run_id, &reason).await?;
        self.remember(rings(&news, None));
        Ok(!news.is_empty())
    }

    /// Sends a signal to a run, inside the caller's transaction: it is recorded if and only if that commits, and kept until
    /// the run takes it. A run that went on as another passes its signals on. With a deduplication key a repeated call,
    /// such as a webhook that is delivered twice, adds nothing. Call [`Client::announce`] after the commit.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when the payload cannot be stored, or name or key have no fitting length; [`Error::Payload`].
    pub async fn signal(
        &self,
        tx: &mut PgConnection,
        run_id: Uuid,
        name: &str,
        dedupe_key: Option<&str>,
        payload: &impl Serialize,
    ) -> Result<Delivery, Error> {
        signals::check(name, dedupe_key).map_err(Error::Unrecordable)?;
        let payload = self.stored_for(payload, store::runs::tenant_of(&mut *tx, run_id)).await?;
        let (delivery, news) = store::runs::signal(tx, run_id, name, dedupe_key, &payload).await?;
        if let Some(trace) = TraceContext::current() {
            // A run stays in the trace it was started in: this line leads from the one to the other.
            tracing::info!(run.id = %run_id, signal = name, trace_id = trace.trace_id(), delivery, "signal sent");
        }
        self.remember(rings(&news, None));
        Ok(Delivery::parse(&delivery))
    }

    /// Lets a parked run go on, inside the caller's transaction. False when it is not parked.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn resume(&self, tx: &mut PgConnection, run_id: Uuid) -> Result<bool, Error> {
        let news = store::runs::resume(tx, run_id).await?;
        self.remember(rings(&news, None));
        Ok(!news.is_empty())
    }

    pub(crate) fn remember(&self, rings: impl IntoIterator<Item = Ring>) {
        self.unannounced.lock().unwrap_or_else(PoisonError::into_inner).extend(rings);
    }

    /// A run, or `None` when there is none with this id. An input or output that cannot be read here is shown as it is stored.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn run(&self, run_id: Uuid) -> Result<Option<Run>, Error> {
        let Some(mut run) = self.run_as_stored(run_id).await? else { return Ok(None) };
        let Run { tenant_id, input, output, .. } = &mut run;
        for value in std::iter::once(input).chain(output) {
            self.show(*tenant_id, value).await;
        }
        Ok(Some(run))
    }

    pub(crate) async fn run_as_stored(&self, run_id: Uuid) -> Result<Option<Run>, Error> {
        Ok(store::runs::find(&self.pool, run_id).await?.map(Run::from))
    }

    /// What a run has done, oldest first. An output that cannot be read here is shown as it is stored.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn history(&self, run_id: Uuid) -> Result<Vec<Event>, Error> {
        let rows = store::steps::history(&self.pool, run_id).await?;
        self.shown(run_id, rows.into_iter().map(Event::from).collect()).await
    }

    /// The last `limit` things that a run has done, or those before number `before`, newest first; as [`Client::history`] shows them.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn newest_of(&self, run_id: Uuid, before: Option<i64>, limit: u32) -> Result<Vec<Event>, Error> {
        let rows = store::steps::newest(&self.pool, run_id, before, limit.into()).await?;
        self.shown(run_id, rows.into_iter().map(Event::from).collect()).await
    }

    async fn shown(&self, run_id: Uuid, mut events: Vec<Event>) -> Result<Vec<Event>, Error> {
        if events.iter().filter_map(|event| event.output.as_ref()).any(Payloads::is_reference) {
            let tenant_id = store::runs::tenant_of(&self.pool, run_id).await?.unwrap_or_default();
            for output in events.iter_mut().filter_map(|event| event.output.as_mut()) {
                self.show(tenant_id, output).await;
            }
        }
        Ok(events)
    }

    /// What a run is doing right now.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn progress(&self, run_id: Uuid) -> Result<RunProgress, Error> {
        let mut progress = RunProgress { run: None, activities: Vec::new(), history: self.history(run_id).await? };
        for row in store::tasks::of_run(&self.pool, run_id).await? {
            match row.kind.as_str() {
                "run" => progress.run = Some(row.into()),
                _ => progress.activities.push(row.into()),
            }
        }
        Ok(progress)
    }

    /// Waits until a run is over and returns it, or the last of those that went on in its place; `None` when there is no such
    /// run or `timeout` is up.
    ///
    /// # Errors
    /// [`Error::Payload`] when its output cannot be read; [`Error::Database`].
    pub async fn finished(&self, run_id: Uuid, timeout: Duration) -> Result<Option<Run>, Error> {
        let began = tokio::time::Instant::now();
        let mut run_id = run_id;
        loop {
            match self.run_as_stored(run_id).await? {
                Some(Run { continued_as: Some(next), .. }) => {
                    run_id = next;
                    continue;
                }
                Some(mut run) if run.state.is_final() => {
                    self.show(run.tenant_id, &mut run.input).await;
                    if let Some(output) = &mut run.output {
                        *output = self.opened(run.tenant_id, output.take()).await?;
                    }
                    return Ok(Some(run));
                }
                Some(_) if began.elapsed() < timeout => {
                    // Late by a quarter of the time it took, and by a tenth of a second at most.
                    let pause = (began.elapsed() / 4).clamp(Duration::from_millis(1), Duration::from_millis(100));
                    tokio::time::sleep(pause).await;
                }
                _ => return Ok(None),
            }
        }
    }
}
