//! The face towards the world: what an activity is, who handles it, and what an attempt knows of itself.
//!
//! Nothing here knows where attempts come from: a worker feeds them from PostgreSQL, a render node over HTTP.

use crate::{
    failure::Failure,
    trace::{self, TraceContext},
};
#[cfg(any(feature = "store", feature = "remote-worker"))]
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::watch;
use uuid::Uuid;

/// Labels of a worker, and what a task asks of them: every required label must be there with the same value.
pub type Labels = BTreeMap<String, String>;

/// A contract: the input of one piece of work outside the database, done at least once.
pub trait Activity: Serialize + DeserializeOwned + Send + Sync + 'static {
    /// Stored name; lives for ever.
    const NAME: &'static str;
    /// The queue whose workers can do it.
    const QUEUE: &'static str;
    /// What a successful attempt gives back.
    type Output: Serialize + DeserializeOwned + Send + Sync + 'static;

    /// When to try again, and how long an attempt may take.
    fn policy(&self) -> Policy {
        Policy::default()
    }

    /// Labels that a worker must have to claim it.
    fn labels(&self) -> Labels {
        Labels::new()
    }

    /// What of its tenant it counts against, where its queue has terms for such keys: an account somewhere else, a licence, a
    /// customer. At most 200 bytes.
    fn limit_key(&self) -> Option<String> {
        None
    }

    /// What a worker had better hold already, such as a package that takes long to fetch. Of what has the same priority, workers
    /// take first what goes with something they hold, until something else has waited for a minute. 1 to 200 bytes.
    fn warm_key(&self) -> Option<String> {
        None
    }
}

/// Retry and time limits of an activity. Failed work and lost work are counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Policy {
    /// Attempts that may fail before the activity fails for good.
    pub max_failures: u32,
    /// Attempts that may be lost (crash, power cut, deploy) before the task is given up as poison.
    pub max_losses: u32,
    /// First delay of the exponential backoff; full jitter.
    pub backoff_base: Duration,
    /// Longest delay of the backoff.
    pub backoff_cap: Duration,
    /// An attempt that has not renewed its lease for this long is lost.
    pub lease: Duration,
    /// Longest time one attempt may take.
    pub start_to_close: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            max_failures: 4,
            max_losses: 5,
            backoff_base: Duration::from_secs(1),
            backoff_cap: Duration::from_secs(60),
            lease: Duration::from_secs(30),
            start_to_close: Duration::from_secs(600),
        }
    }
}

/// Holds the tools and no opinion about what comes next.
pub trait Handler<A: Activity>: Send + Sync + 'static {
    /// Does the work once. Dropping the future must stop whatever it started.
    fn handle(&self, cx: &Attempt, input: A) -> impl Future<Output = Result<A::Output, Failure>> + Send;
}

/// One set of tools may handle many activities.
impl<A: Activity, H: Handler<A>> Handler<A> for std::sync::Arc<H> {
    async fn handle(&self, cx: &Attempt, input: A) -> Result<A::Output, Failure> {
        (**self).handle(cx, input).await
    }
}

/// How far an attempt has come.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Progress {
    /// Units done, such as frames.
    pub done: u32,
    /// Units in all; 0 when unknown.
    pub total: u32,
    /// What the activity wants shown or kept; at most 8 KiB as JSON.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub detail: Value,
}

/// What the owner of the queue last said about an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// The lease is ours.
    Held,
    /// The run was cancelled: stop soon, nothing more is wanted.
    Cancelled,
    /// Somebody else owns the task: stop now, every further write is refused.
    Lost,
}

/// Identity of one claimed task, as workers and nodes are told it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LeasedTask {
    /// The task.
    pub task_id: i64,
    /// The run that asked for it; nil for a job, which belongs to none.
    pub run_id: Uuid,
    /// The tenant of that run.
    pub tenant_id: Uuid,
    /// The step key under which the result is recorded.
    pub key: String,
    /// Name of the activity.
    pub activity: String,
    /// The contract's input as JSON.
    pub input: Value,
    /// From 1; counts every claim.
    pub attempt_no: i32,
    /// The fence: every write of this attempt carries it.
    pub lease_token: Uuid,
    /// The lease ends this long after the last renewal.
    pub lease_seconds: f64,
    /// Longest time this attempt may take, in seconds.
    pub start_to_close_seconds: f64,
    /// The trace it belongs to; none when whoever started it was in none.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "trace::lenient")]
    pub traceparent: Option<TraceContext>,
}

/// One attempt at a task, seen from its handler.
#[derive(Debug, Clone)]
pub struct Attempt {
    task: LeasedTask,
    trace: Option<TraceContext>,
    progress: watch::Sender<Progress>,
    standing: watch::Receiver<Standing>,
}

/// The other end of an [`Attempt`]: whoever renews its lease.
#[derive(Debug)]
pub struct AttemptKeeper {
    /// Latest progress the handler reported.
    pub progress: watch::Receiver<Progress>,
    /// Where the keeper tells the handler what became of the lease.
    pub standing: watch::Sender<Standing>,
}

impl Attempt {
    /// An attempt at `task`, and the end that its lease keeper holds.
    pub fn new(task: LeasedTask) -> (Self, AttemptKeeper) {
        let (progress_tx, progress_rx) = watch::channel(Progress::default());
        let (standing_tx, standing_rx) = watch::channel(Standing::Held);
        let trace = task.traceparent.map(|parent| parent.child());
        let attempt = Self { task, trace, progress: progress_tx, standing: standing_rx };
        (attempt, AttemptKeeper { progress: progress_rx, standing: standing_tx })
    }

    /// The claimed task.
    pub fn task(&self) -> &LeasedTask {
        &self.task
    }

    /// The fence of this attempt.
    pub fn lease_token(&self) -> Uuid {
        self.task.lease_token
    }

    /// The same on every attempt at the same step of the same run, or at the same job.
    pub fn idempotency_key(&self) -> String {
        format!("{}:{}", self.task.run_id, self.task.key)
    }

    /// The span of this attempt in the trace that its task belongs to; for the header `traceparent` of calls to others.
    pub fn trace_context(&self) -> Option<TraceContext> {
        self.trace
    }

    /// Does `work` in the span of this attempt, with its context as [`TraceContext::current`]: for those who call handlers.
    pub async fn traced<F: Future>(&self, work: F) -> F::Output {
        trace::within(self.trace, trace::attempt_span(&self.task, self.trace), work).await
    }

    /// Reports progress; it travels with the next renewal of the lease. Never waits.
    ///
    /// # Errors
    /// [`Failure::cancelled`] or [`Failure::lease_lost`] when the attempt must end.
    pub fn heartbeat(&self, progress: Progress) -> Result<(), Failure> {
        self.progress.send_replace(progress);
        self.check()
    }

    /// Whether the attempt may go on.
    ///
    /// # Errors
    /// As [`Attempt::heartbeat`].
    pub fn check(&self) -> Result<(), Failure> {
        match *self.standing.borrow() {
            Standing::Held => Ok(()),
            Standing::Cancelled => Err(Failure::cancelled()),
            Standing::Lost => Err(Failure::lease_lost()),
        }
    }

    /// Resolves once the attempt must end, with the reason. Waits for ever while the lease is held.
    pub async fn ended(&self) -> Failure {
        let mut standing = self.standing.clone();
        let outcome = standing.wait_for(|s| *s != Standing::Held).await.map(|s| *s);
        match outcome {
            Ok(Standing::Cancelled) => Failure::cancelled(),
            // A keeper that is gone can renew nothing: the lease is as good as lost.
            _ => Failure::lease_lost(),
        }
    }
}

/// A handler with its types taken off.
#[cfg(any(feature = "store", feature = "remote-worker"))]
pub(crate) type ErasedHandler =
    std::sync::Arc<dyn Fn(Attempt, Value) -> BoxFuture<'static, Result<Value, Failure>> + Send + Sync>;

/// The input of a contract or a definition of this name.
///
/// # Errors
/// `workflow.bad_input` when it is not what that expects.
#[cfg(any(feature = "store", feature = "remote-worker"))]
pub(crate) fn read_input<T: DeserializeOwned>(name: &str, input: Value) -> Result<T, Failure> {
    serde_json::from_value(input).map_err(|error| {
        Failure::permanent("workflow.bad_input", format!("the stored input does not fit {name}: {error}"))
    })
}
