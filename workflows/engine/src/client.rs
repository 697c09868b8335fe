//! The face towards whoever starts and watches runs, and the remote side of the queue that render nodes reach
//! through the API. Whatever writes a run takes the caller's transaction.

use crate::{
    activity::{Activity, Labels, LeasedTask, Progress, Standing},
    failure::Failure,
    record::to_payload,
    signals::{self, Delivery},
    store::{
        self, News,
        jobs::{NewJob, NewJobs},
        tasks::Claimant,
    },
    wakeup::{Mailbox, Ring, Wakeup},
    worker::RUN_QUEUE,
    workflow::Workflow,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection, PgPool, types::Json};
use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Longest list of tasks one claim may ask for.
const CLAIM_LIMIT: u32 = 500;

/// Runs that one statement starts.
const START: usize = 1000;
/// A remote worker is noted this often.
const REMOTE_NOTE: Duration = Duration::from_secs(30);

/// Starts, cancels and watches runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Client {
    pool: PgPool,
    wakeup: Arc<Wakeup>,
    unannounced: Arc<Mutex<HashSet<Ring>>>,
    remotes: Arc<Mutex<HashMap<String, Instant>>>,
}

/// How a job is queued.
#[derive(Debug, Clone, Default)]
pub struct JobOptions {
    /// Higher goes first.
    pub priority: i16,
    /// Not before this moment, by the clock of the database; at once when there is none.
    pub run_at: Option<DateTime<Utc>>,
    /// At most one live job of the activity and the tenant has this key; 1 to 200 bytes.
    pub unique_key: Option<String>,
}

fn new_job<A: Activity>(job: &A, unique_key: Option<String>) -> Result<NewJob, Error> {
    let (policy, labels) = (job.policy(), job.labels());
    Ok(NewJob {
        input: to_payload(job).map_err(Error::Unrecordable)?,
        policy: store::jobs::stored_policy(&policy),
        labels: (!labels.is_empty()).then(|| json!(labels)),
        unique_key,
    })
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
    /// PostgreSQL said no, or could not be reached.
    #[error("cannot reach the engine's tables")]
    Database(#[from] sqlx::Error),
}

/// A run that was started, now or before.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Started {
    /// The run.
    pub run_id: Uuid,
    /// False when the business key had a run already: this is that run.
    pub started: bool,
}

/// Where a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum RunState {
    /// Not over; what it waits for is in [`Client::progress`].
    Running,
    /// Over, with an output.
    Succeeded,
    /// Over, with an error.
    Failed,
    /// Over because somebody asked for it.
    Cancelled,
}

impl RunState {
    /// The word it is stored under.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Succeeded => "succeeded",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_final(self) -> bool {
        self != Self::Running
    }
}

/// A run, without its history.
#[derive(Debug, Clone, Serialize)]
pub struct Run {
    /// The run.
    pub id: Uuid,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// [`Workflow::NAME`].
    pub kind: String,
    /// [`Workflow::VERSION`] at the start.
    pub version: i32,
    /// What it is about.
    pub business_key: Option<String>,
    /// Where it stands.
    pub state: RunState,
    /// What it was started with.
    pub input: Value,
    /// Set when it succeeded.
    pub output: Option<Value>,
    /// Set when it failed or was cancelled.
    pub error: Option<Failure>,
    /// Higher goes first.
    pub priority: i16,
    /// When somebody first asked it to stop.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// Why.
    pub cancel_reason: Option<String>,
    /// When it was started.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
    /// The run that asked for it.
    pub parent_run_id: Option<Uuid>,
    /// Under which key.
    pub parent_key: Option<String>,
    /// The first of its ancestors.
    pub root_run_id: Option<Uuid>,
    /// Whether it outlives the run that asked for it.
    pub detached: bool,
    /// The run in whose place it goes on.
    pub continued_from: Option<Uuid>,
    /// The run that goes on in its place.
    pub continued_as: Option<Uuid>,
}

/// One entry of the history of a run.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Event {
    /// From 1, in the order of commits.
    pub seq: i64,
    /// The key the definition gave it.
    pub key: String,
    /// `step`, `activity`, `timer`, `cancel`, `signal`, `child`, `start`, `patch` or `compensation`.
    pub kind: String,
    /// The activity, the kind of the child or of the run that was started, the name of the signal.
    pub name: Option<String>,
    /// `ok`, `failed` or `cancelled`.
    pub outcome: String,
    /// What it gave back.
    pub output: Option<Value>,
    /// Why not.
    pub failure: Option<Failure>,
    /// The attempt that wrote it.
    pub attempt_no: i32,
    /// When it was recorded.
    pub recorded_at: DateTime<Utc>,
}

/// Something a run has still to do.
#[derive(Debug, Clone, Serialize)]
pub struct Task {
    /// The task.
    pub id: i64,
    /// The step key; empty for the run itself.
    pub key: String,
    /// The queue it is in.
    pub queue: String,
    /// The activity; for the run itself its kind and version.
    pub activity: String,
    /// `ready`, `waiting` or `leased`.
    pub state: String,
    /// Claims so far.
    pub attempt_no: i32,
    /// Attempts that failed.
    pub failures: i32,
    /// Attempts that were lost.
    pub losses: i32,
    /// When a waiting task becomes ready; null when only a record can wake it.
    pub run_at: Option<DateTime<Utc>>,
    /// Who works on it.
    pub leased_by: Option<String>,
    /// Since when.
    pub leased_at: Option<DateTime<Utc>>,
    /// Until when, unless renewed.
    pub lease_expires_at: Option<DateTime<Utc>>,
    /// How far the attempt has come.
    pub progress: Option<Progress>,
    /// Whether it was asked to stop.
    pub cancel_requested: bool,
    /// Why nobody goes on with the run until somebody resumes it: `version_mismatch`, `lost_too_often`, `unrecordable`.
    pub parked_reason: Option<String>,
    /// What stands in its way.
    pub parked_failure: Option<Failure>,
}

/// What a run is doing right now.
#[derive(Debug, Clone, Serialize)]
pub struct RunProgress {
    /// The run's own task; none once it is over.
    pub run: Option<Task>,
    /// Its live activities, oldest first.
    pub activities: Vec<Task>,
    /// What it has done, oldest first.
    pub history: Vec<Event>,
}

pub(crate) struct StartRequest<'a> {
    pub id: Uuid,
    pub tenant_id: Uuid,
    pub kind: &'a str,
    pub version: i32,
    pub business_key: Option<&'a str>,
    pub input: Value,
    pub priority: i16,
}

impl Client {
    /// A client over `pool`.
    pub fn new(pool: PgPool) -> Self {
        let wakeup = Wakeup::new(pool.clone());
        Self::with_wakeup(pool, wakeup)
    }

    pub(crate) fn with_wakeup(pool: PgPool, wakeup: Arc<Wakeup>) -> Self {
        Self { pool, wakeup, unannounced: Arc::default(), remotes: Arc::default() }
    }

    pub(crate) fn pool(&self) -> &PgPool {
        &self.pool
    }

    // ---- runs

    /// Starts a run inside the caller's transaction: it exists if and only if that commits. A business key that has
    /// a run already answers with that run, whatever its state, and is no error.
    ///
    /// Call [`Client::announce`] after the commit; without it the run is picked up a little later.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when the input cannot be stored.
    pub async fn start<W: Workflow>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        business_key: Option<&str>,
        workflow: W,
    ) -> Result<Started, Error> {
        let run = StartRequest {
            id: Uuid::now_v7(),
            tenant_id,
            kind: W::NAME,
            version: W::VERSION,
            business_key,
            priority: workflow.priority(),
            input: to_payload(&workflow).map_err(Error::Unrecordable)?,
        };
        loop {
            if let Some(run_id) = store::runs::insert(tx, &run).await? {
                self.remember([Ring::Queue(RUN_QUEUE.to_owned())]);
                return Ok(Started { run_id, started: true });
            }
            // A statement of its own: it sees the rival that the insert has waited for.
            if let Some(run_id) = store::runs::by_key(tx, &run).await? {
                return Ok(Started { run_id, started: false });
            }
        }
    }

    /// Starts many runs of one workflow, without business keys, in a statement per thousand; else as [`Client::start`].
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when an input cannot be stored: nothing is started.
    pub async fn start_all<W: Workflow>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        workflows: impl IntoIterator<Item = W>,
    ) -> Result<Vec<Uuid>, Error> {
        let (mut inputs, mut priorities) = (Vec::new(), Vec::new());
        for workflow in workflows {
            inputs.push(to_payload(&workflow).map_err(Error::Unrecordable)?);
            priorities.push(workflow.priority());
        }
        let ids: Vec<Uuid> = inputs.iter().map(|_| Uuid::now_v7()).collect();
        let shared = StartRequest {
            id: Uuid::nil(),
            tenant_id,
            kind: W::NAME,
            version: W::VERSION,
            business_key: None,
            input: Value::Null,
            priority: 0,
        };
        let chunks = ids.chunks(START).zip(inputs.chunks(START)).zip(priorities.chunks(START));
        for ((ids, inputs), priorities) in chunks {
            store::runs::insert_all(tx, &shared, ids, inputs, priorities).await?;
        }
        self.remember([Ring::Queue(RUN_QUEUE.to_owned())]);
        Ok(ids)
    }

    /// Puts a job in its queue, inside the caller's transaction: an activity on its own, whose result nobody waits for. False
    /// when its unique key has a live job already. Call [`Client::announce`] after the commit.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when the input cannot be stored.
    pub async fn enqueue<A: Activity>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        job: A,
        options: &JobOptions,
    ) -> Result<bool, Error> {
        let new = new_job(&job, options.unique_key.clone())?;
        Ok(self.insert_jobs::<A>(tx, tenant_id, vec![new], options).await? == 1)
    }

    /// As [`Client::enqueue`], for many jobs of one kind, thousands in a statement. The unique key of `options` is not used.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when an input cannot be stored.
    pub async fn enqueue_all<A: Activity>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        jobs: impl IntoIterator<Item = A>,
        options: &JobOptions,
    ) -> Result<u64, Error> {
        let jobs = jobs.into_iter().map(|job| new_job(&job, None)).collect::<Result<Vec<_>, _>>()?;
        self.insert_jobs::<A>(tx, tenant_id, jobs, options).await
    }

    async fn insert_jobs<A: Activity>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        jobs: Vec<NewJob>,
        options: &JobOptions,
    ) -> Result<u64, Error> {
        let shared = NewJobs {
            tenant_id,
            queue: A::QUEUE,
            activity: A::NAME,
            priority: options.priority,
            run_at: options.run_at,
        };
        let inserted = store::jobs::insert(tx, &shared, jobs).await?;
        self.remember([Ring::Queue(A::QUEUE.to_owned())]);
        Ok(inserted)
    }

    /// How many jobs have not ended. Counts them one by one: for tests and measurements.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn unfinished_jobs(&self) -> Result<i64, Error> {
        Ok(store::jobs::unfinished(&self.pool).await?)
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
    /// [`Error::Unrecordable`] when the payload cannot be stored, or name or key have no fitting length.
    pub async fn signal(
        &self,
        tx: &mut PgConnection,
        run_id: Uuid,
        name: &str,
        dedupe_key: Option<&str>,
        payload: &impl Serialize,
    ) -> Result<Delivery, Error> {
        let payload = signals::check(name, dedupe_key, payload).map_err(Error::Unrecordable)?;
        let (delivery, news) = store::runs::signal(tx, run_id, name, dedupe_key, &payload).await?;
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

    /// A run, or `None` when there is none with this id.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn run(&self, run_id: Uuid) -> Result<Option<Run>, Error> {
        Ok(store::runs::find(&self.pool, run_id).await?.map(Run::from))
    }

    /// What a run has done, oldest first.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn history(&self, run_id: Uuid) -> Result<Vec<Event>, Error> {
        Ok(store::steps::history(&self.pool, run_id).await?.into_iter().map(Event::from).collect())
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
    /// [`Error::Database`].
    pub async fn finished(&self, run_id: Uuid, timeout: Duration) -> Result<Option<Run>, Error> {
        let began = tokio::time::Instant::now();
        let mut run_id = run_id;
        loop {
            match self.run(run_id).await? {
                Some(Run { continued_as: Some(next), .. }) => {
                    run_id = next;
                    continue;
                }
                Some(run) if run.state.is_final() => return Ok(Some(run)),
                Some(_) if began.elapsed() < timeout => {
                    // Late by a quarter of the time it took, and by a tenth of a second at most.
                    let pause = (began.elapsed() / 4).clamp(Duration::from_millis(1), Duration::from_millis(100));
                    tokio::time::sleep(pause).await;
                }
                _ => return Ok(None),
            }
        }
    }

    // ---- the remote side of the queue

    /// Leases up to `limit` ready tasks of `queues` to a remote `worker` that has `labels`. Never waits.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn claim(
        &self,
        queues: &[&str],
        labels: &Labels,
        worker: &str,
        limit: u32,
    ) -> Result<Vec<LeasedTask>, Error> {
        let who = Claimant { worker_id: None, name: worker.to_owned(), labels: labels.clone() };
        if queues.iter().any(|queue| *queue != RUN_QUEUE) && self.note_remote(worker) {
            store::operations::seen_remotely(&self.pool, worker, queues, labels).await?;
        }
        let mut leased = Vec::new();
        for queue in queues.iter().filter(|queue| **queue != RUN_QUEUE) {
            let want = limit.min(CLAIM_LIMIT) as usize - leased.len();
            if want == 0 {
                break;
            }
            let claim = json!({ "queue": queue, "want": want });
            let news = store::tasks::pump(&self.pool, &who, &[], &[], &[claim]).await?;
            leased.extend(news.into_iter().filter_map(|n| match n {
                News::Claimed(claimed) => Some(claimed.task),
                _ => None,
            }));
        }
        Ok(leased)
    }

    /// Whether it is time to note that this remote worker lives.
    fn note_remote(&self, worker: &str) -> bool {
        let mut noted = self.remotes.lock().unwrap_or_else(PoisonError::into_inner);
        if noted.get(worker).is_some_and(|at| at.elapsed() < REMOTE_NOTE) {
            return false;
        }
        noted.retain(|_, at| at.elapsed() < REMOTE_NOTE);
        noted.insert(worker.to_owned(), Instant::now());
        true
    }

    /// Renews a lease, stores progress, and says whether to go on.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when the progress cannot be stored; [`Error::Database`].
    pub async fn renew(&self, task_id: i64, token: Uuid, progress: Option<&Progress>) -> Result<Standing, Error> {
        let progress = progress.map(|p| to_payload(p).map_err(Error::Unrecordable)).transpose()?;
        let mut answer = store::tasks::renew(&self.pool, &[task_id], &[token], &[progress]).await?;
        if answer.is_empty() {
            answer = store::tasks::standing(&self.pool, &[task_id], &[token]).await?;
        }
        Ok(match answer.first() {
            Some((_, false)) => Standing::Held,
            Some((_, true)) => Standing::Cancelled,
            None => Standing::Lost,
        })
    }

    /// Records the output of an attempt. Repeating the call after a lost answer is harmless.
    ///
    /// # Errors
    /// [`Error::LeaseLost`]; [`Error::Unrecordable`].
    pub async fn complete(&self, task_id: i64, token: Uuid, output: &impl Serialize) -> Result<(), Error> {
        let output = to_payload(output).map_err(Error::Unrecordable)?;
        self.settle(json!({ "task_id": task_id, "token": token, "outcome": "ok", "output": output })).await
    }

    /// Ends an attempt with a failure: the task is repeated after its backoff, or the failure recorded.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn fail(&self, task_id: i64, token: Uuid, failure: &Failure) -> Result<(), Error> {
        self.settle(attempt_failed(task_id, token, failure)).await
    }

    /// Gives a task back; the attempt counts neither as failed nor as lost.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn release(&self, task_id: i64, token: Uuid) -> Result<(), Error> {
        self.settle(json!({ "task_id": task_id, "token": token, "outcome": "released" })).await
    }

    async fn settle(&self, attempt: Value) -> Result<(), Error> {
        let task_id = attempt["task_id"].as_i64().unwrap_or_default();
        let token: Uuid = serde_json::from_value(attempt["token"].clone()).unwrap_or_default();
        let outcome = attempt["outcome"].as_str().unwrap_or_default().to_owned();
        let who = Claimant { worker_id: None, name: String::new(), labels: Labels::new() };
        let news = store::tasks::pump(&self.pool, &who, &[attempt], &[], &[]).await?;
        self.wakeup.announce(rings(&news, None));
        if news.iter().any(|n| matches!(n, News::Settled(_))) {
            return Ok(());
        }
        match store::tasks::ended_as(&self.pool, task_id, token).await? {
            Some(before) if before == outcome => Ok(()),
            _ => Err(Error::LeaseLost(task_id)),
        }
    }

    /// Whether a lease is held at this moment.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn holds(&self, task_id: i64, token: Uuid) -> Result<bool, Error> {
        Ok(store::tasks::holds(&self.pool, task_id, token).await?)
    }

    /// Whether a lease is held; if so nobody can take it away before the caller's transaction ends.
    ///
    /// # Errors
    /// [`Error::Database`].
    pub async fn holds_for_share(&self, tx: &mut PgConnection, task_id: i64, token: Uuid) -> Result<bool, Error> {
        Ok(store::tasks::holds_for_share(tx, task_id, token).await?)
    }

    /// The input of a leased task.
    ///
    /// # Errors
    /// [`Error::LeaseLost`].
    pub async fn task_input(&self, task_id: i64, token: Uuid) -> Result<Value, Error> {
        store::tasks::input(&self.pool, task_id, token).await?.ok_or(Error::LeaseLost(task_id))
    }

    /// Hears of new work on `queues` from now on. For long polls: watch, claim, and while there is nothing wait and
    /// claim again. A message can be lost, so never wait much longer than a second before the next claim.
    pub fn watch(&self, queues: &[&str]) -> WorkWatch {
        self.wakeup.clone().listen_in_background();
        let queues = queues.iter().map(|&queue| Ring::Queue(queue.to_owned())).chain([Ring::All]).collect();
        WorkWatch { queues, mailbox: self.wakeup.subscribe() }
    }

    /// Waits until there may be work on one of `queues`, at most `timeout`; see [`Client::watch`].
    pub async fn wait_for_work(&self, queues: &[&str], timeout: Duration) -> bool {
        self.watch(queues).wait(timeout).await
    }
}

/// Hears of new work, also of work that came between two waits.
#[derive(Debug)]
pub struct WorkWatch {
    queues: HashSet<Ring>,
    mailbox: Arc<Mailbox>,
}

impl WorkWatch {
    /// Waits until there may be work, at most `timeout`; false when it is up.
    pub async fn wait(&self, timeout: Duration) -> bool {
        let wanted = async { while self.mailbox.next().await.is_disjoint(&self.queues) {} };
        tokio::time::timeout(timeout, wanted).await.is_ok()
    }
}

/// An entry of `workflow.settle` for a failed attempt.
pub(crate) fn attempt_failed(task_id: i64, token: Uuid, failure: &Failure) -> Value {
    let outcome = if failure.is_cancelled() { "cancelled" } else { "failed" };
    let failure = storable(failure);
    json!({ "task_id": task_id, "token": token, "outcome": outcome, "failure": failure })
}

/// A failure that PostgreSQL can store: evidence that it cannot is left out.
pub(crate) fn storable(failure: &Failure) -> Value {
    to_payload(failure).unwrap_or_else(|_| {
        let message: String = failure.message.chars().filter(|c| *c != '\0').take(2000).collect();
        let bare = Failure { message, details: Value::Null, ..failure.clone() };
        to_payload(&bare)
            .unwrap_or_else(|_| json!(Failure::permanent("workflow.unrecordable", "the failure cannot be stored")))
    })
}

/// Whom to wake after a round trip: queues with new work, and holders of runs with new records other than `me`.
pub(crate) fn rings(news: &[News], me: Option<i64>) -> HashSet<Ring> {
    news.iter()
        .filter_map(|n| match n {
            News::Woken(queue) => Some(Ring::Queue(queue.clone())),
            News::Recorded(r) if r.holder.is_some() && r.holder != me => Some(Ring::Run(r.run_id)),
            _ => None,
        })
        .chain(news.iter().any(is_cancellation).then_some(Ring::Cancel))
        .collect()
}

/// Attempts of a run that is asked to stop are to hear of it at once.
fn is_cancellation(news: &News) -> bool {
    matches!(news, News::Recorded(recorded) if recorded.key == "$cancel")
}

#[derive(FromRow)]
pub(crate) struct RunRow {
    id: Uuid,
    tenant_id: Uuid,
    kind: String,
    version: i32,
    business_key: Option<String>,
    state: RunState,
    input: Value,
    output: Option<Value>,
    error: Option<Value>,
    priority: i16,
    cancel_requested_at: Option<DateTime<Utc>>,
    cancel_reason: Option<String>,
    created_at: DateTime<Utc>,
    finished_at: Option<DateTime<Utc>>,
    parent_run_id: Option<Uuid>,
    parent_key: Option<String>,
    root_run_id: Option<Uuid>,
    detached: bool,
    continued_from: Option<Uuid>,
    continued_as: Option<Uuid>,
}

impl From<RunRow> for Run {
    fn from(row: RunRow) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            kind: row.kind,
            version: row.version,
            business_key: row.business_key,
            state: row.state,
            input: row.input,
            output: row.output,
            error: row.error.map(|json| store::stored_failure(Some(json))),
            priority: row.priority,
            cancel_requested_at: row.cancel_requested_at,
            cancel_reason: row.cancel_reason,
            created_at: row.created_at,
            finished_at: row.finished_at,
            parent_run_id: row.parent_run_id,
            parent_key: row.parent_key,
            root_run_id: row.root_run_id,
            detached: row.detached,
            continued_from: row.continued_from,
            continued_as: row.continued_as,
        }
    }
}

impl Run {
    /// The output of a run that succeeded, as its workflow's type.
    pub fn output_as<T: DeserializeOwned>(&self) -> Option<T> {
        (self.state == RunState::Succeeded)
            .then(|| serde_json::from_value(self.output.clone().unwrap_or_default()).ok())
            .flatten()
    }
}

#[derive(FromRow)]
pub(crate) struct EventRow {
    seq: i64,
    key: String,
    kind: String,
    name: Option<String>,
    outcome: String,
    output: Option<Value>,
    failure: Option<Value>,
    attempt_no: i32,
    recorded_at: DateTime<Utc>,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        Self {
            seq: row.seq,
            key: row.key,
            kind: row.kind,
            name: row.name,
            outcome: row.outcome,
            output: row.output,
            failure: row.failure.map(|json| store::stored_failure(Some(json))),
            attempt_no: row.attempt_no,
            recorded_at: row.recorded_at,
        }
    }
}

#[derive(FromRow)]
pub(crate) struct TaskRow {
    id: i64,
    kind: String,
    key: String,
    queue: String,
    activity: String,
    state: String,
    attempt_no: i32,
    failures: i32,
    losses: i32,
    run_at: Option<DateTime<Utc>>,
    leased_by: Option<String>,
    leased_at: Option<DateTime<Utc>>,
    lease_expires_at: Option<DateTime<Utc>>,
    progress: Option<Json<Progress>>,
    cancel_requested: bool,
    parked_reason: Option<String>,
    parked_failure: Option<Value>,
}

impl From<TaskRow> for Task {
    fn from(row: TaskRow) -> Self {
        Self {
            id: row.id,
            key: row.key,
            queue: row.queue,
            activity: row.activity,
            state: row.state,
            attempt_no: row.attempt_no,
            failures: row.failures,
            losses: row.losses,
            run_at: row.run_at,
            leased_by: row.leased_by,
            leased_at: row.leased_at,
            lease_expires_at: row.lease_expires_at,
            progress: row.progress.map(|json| json.0),
            cancel_requested: row.cancel_requested,
            parked_reason: row.parked_reason,
            parked_failure: row.parked_failure.map(|json| store::stored_failure(Some(json))),
        }
    }
}
