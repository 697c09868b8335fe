//! A worker without a database: claims over HTTP, runs the same handlers as any worker, renews, reports.
//!
//! ```text
//!   claim ─▶ attempt ─▶ handler ─▶ report, again and again until it is answered or the lease is lost
//!               └─ lease renewed beside it, at least every two seconds
//! ```

use super::wire::{Claim, Claimed, Complete, Fail, LONGEST_WAIT_SECONDS, Problem, Release, Renew, Renewed};
use crate::{
    activity::{Activity, Attempt, AttemptKeeper, ErasedHandler, Handler, Labels, LeasedTask, Standing, read_input},
    failure::Failure,
    trace::{TRACEPARENT, TraceContext},
};
use futures::FutureExt;
use reqwest::{RequestBuilder, Response, StatusCode};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use std::{
    collections::{BTreeSet, HashMap},
    convert::Infallible,
    error::Error,
    panic::AssertUnwindSafe,
    sync::Arc,
    time::Duration,
};
use tokio::{sync::Semaphore, task::JoinSet, time::Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Longest time of a call, beside what it waits for work.
const SHORT: Duration = Duration::from_secs(10);
/// A cancelled run is heard of in the answer to a renewal.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A handler that was told to stop has this long.
const STOP_GRACE: Duration = Duration::from_secs(10);
/// A result that the server cannot be told for so long, and for two lengths of its lease, is given up.
const LAST_REPORT: Duration = Duration::from_secs(60);
/// Pauses between calls that are not answered: the first, and the longest.
const PAUSES: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(5));

/// Why a call did not bring what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// The task is not ours, or no longer. Final.
    #[error("the lease is lost")]
    LeaseLost,
    /// The server understood, and refuses. Final.
    #[error("the server refuses with {status} {code}: {detail}")]
    Refused {
        /// Of the answer.
        status: u16,
        /// Stable; empty when the answer had none.
        code: String,
        /// For people.
        detail: String,
    },
    /// No answer, or one that says that the server is unwell. May pass.
    #[error("the server cannot be reached")]
    Unreachable(#[source] Box<dyn Error + Send + Sync>),
}

/// Builds a [`Worker`].
pub struct Builder {
    http: reqwest::Client,
    base: String,
    credential: Option<String>,
    labels: Labels,
    handlers: HashMap<&'static str, ErasedHandler>,
    queues: BTreeSet<&'static str>,
    slots: usize,
    grace: Duration,
}

/// Performs activities for a server until it is told to stop.
pub struct Worker {
    builder: Builder,
    incarnation: Uuid,
    /// Cancelled when running attempts are to be given back.
    drain: CancellationToken,
}

impl Worker {
    /// A worker of the server whose routes for remote workers are at `base`. How connections are made, proxies and TLS included, is
    /// for `http` to say.
    pub fn builder(http: reqwest::Client, base: impl Into<String>) -> Builder {
        Builder {
            http,
            base: base.into(),
            credential: None,
            labels: Labels::new(),
            handlers: HashMap::new(),
            queues: BTreeSet::new(),
            slots: 1,
            grace: Duration::from_secs(20),
        }
    }
}

impl Builder {
    /// Sent with every call as a bearer token.
    #[must_use]
    pub fn credential(mut self, credential: impl Into<String>) -> Self {
        self.credential = Some(credential.into());
        self
    }

    /// What this worker offers to tasks that ask for labels.
    #[must_use]
    pub fn labels(mut self, labels: Labels) -> Self {
        self.labels = labels;
        self
    }

    /// Performs `A`, from the queue [`Activity::QUEUE`].
    #[must_use]
    pub fn handler<A: Activity>(mut self, handler: impl Handler<A>) -> Self {
        let handler = Arc::new(handler);
        let erased: ErasedHandler =
            Arc::new(move |attempt, input| Box::pin(perform::<A, _>(handler.clone(), attempt, input)));
        self.handlers.insert(A::NAME, erased);
        self.queues.insert(A::QUEUE);
        self
    }

    /// How many activities may run here at once; 1 by default.
    #[must_use]
    pub fn slots(mut self, slots: usize) -> Self {
        self.slots = slots.max(1);
        self
    }

    /// How long running activities may go on after the worker was told to stop; then they are given back. 20 s by default.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// The worker.
    #[must_use]
    pub fn build(self) -> Worker {
        Worker { builder: self, incarnation: Uuid::new_v4(), drain: CancellationToken::new() }
    }

    /// Builds and runs; see [`Worker::run`].
    ///
    /// # Errors
    /// As [`Worker::run`].
    pub async fn run(self, stop: CancellationToken) -> Result<(), CallError> {
        self.build().run(stop).await
    }
}

impl Worker {
    /// Works until `stop`, then lets activities finish for the grace and gives the rest back. A server that is away is waited for.
    ///
    /// # Errors
    /// [`CallError::Refused`] when the server does not take claims of this worker.
    pub async fn run(self, stop: CancellationToken) -> Result<(), CallError> {
        let worker = Arc::new(self);
        let free = Arc::new(Semaphore::new(worker.builder.slots));
        let mut attempts = JoinSet::new();
        let mut pauses = Pauses::new();
        let mut refused = Ok(());
        while let Some(permit) = stop.run_until_cancelled(free.clone().acquire_owned()).await.and_then(Result::ok) {
            while attempts.try_join_next().is_some() {}
            let claimed = worker.claim(free.available_permits() + 1);
            let tasks = match stop.run_until_cancelled(claimed).await {
                Some(Ok(tasks)) => tasks,
                None => break,
                Some(Err(CallError::Unreachable(error))) => {
                    tracing::warn!(%error, "cannot claim work yet");
                    drop(permit);
                    let _ = stop.run_until_cancelled(pauses.next()).await;
                    continue;
                }
                Some(Err(error)) => {
                    refused = Err(error);
                    break;
                }
            };
            pauses = Pauses::new();
            drop(permit);
            for task in tasks {
                // Only this loop takes permits, and it asked for no more tasks than there were.
                let slot = free.clone().try_acquire_owned();
                let worker = worker.clone();
                attempts.spawn(async move {
                    worker.attempt(task).await;
                    drop(slot);
                });
            }
        }
        let ended = async { while attempts.join_next().await.is_some() {} };
        if tokio::time::timeout(worker.builder.grace, ended).await.is_err() {
            worker.drain.cancel();
            while attempts.join_next().await.is_some() {}
        }
        refused
    }

    async fn claim(&self, slots: usize) -> Result<Vec<LeasedTask>, CallError> {
        let asked = Claim {
            incarnation: self.incarnation,
            queues: self.builder.queues.iter().map(ToString::to_string).collect(),
            activities: self.builder.handlers.keys().map(ToString::to_string).collect(),
            labels: self.builder.labels.clone(),
            slots: u32::try_from(slots).unwrap_or(u32::MAX),
            wait_seconds: LONGEST_WAIT_SECONDS,
        };
        let began = Instant::now();
        let patience = SHORT + Duration::from_secs_f64(LONGEST_WAIT_SECONDS);
        let answer = send(self.post("claims").timeout(patience).json(&asked)).await?;
        if answer.status() == StatusCode::NO_CONTENT {
            // A server that does not wait is one that is going away: it is not to be asked again and again.
            return if began.elapsed() < Duration::from_secs(1) {
                Err(unreachable("it is closing"))
            } else {
                Ok(Vec::new())
            };
        }
        read::<Claimed>(answer).await.map(|claimed| claimed.tasks)
    }

    fn post(&self, path: &str) -> RequestBuilder {
        let Builder { http, base, credential, .. } = &self.builder;
        let request = http.post(format!("{}/{path}", base.trim_end_matches('/')));
        match credential {
            Some(credential) => request.bearer_auth(credential),
            None => request,
        }
    }

    /// One attempt, from its claim to the answer to its report.
    async fn attempt(&self, task: LeasedTask) {
        let (attempt, keeper) = Attempt::new(task);
        let (task_id, token, trace) = (attempt.task().task_id, attempt.lease_token(), attempt.trace_context());
        let fence = Fence { worker: self, task_id, token, trace };
        let work = async {
            tokio::select! {
                never = fence.keep(attempt.task().lease_seconds, keeper) => match never {},
                () = async { fence.report(self.outcome(&attempt).await, &attempt).await } => {}
            }
        };
        attempt.traced(work).await;
    }

    async fn outcome(&self, attempt: &Attempt) -> Outcome {
        let task = attempt.task();
        let Some(handler) = self.builder.handlers.get(task.activity.as_str()) else { return Outcome::GivenBack };
        let limit = Duration::try_from_secs_f64(task.start_to_close_seconds).unwrap_or(Duration::MAX);
        let work = AssertUnwindSafe(handler(attempt.clone(), task.input.clone())).catch_unwind();
        let ended = async {
            let failure = attempt.ended().await;
            if failure.is_cancelled() {
                // The handler may see it, too, and leave things in order.
                tokio::time::sleep(STOP_GRACE).await;
            }
            failure
        };
        let result = tokio::select! {
            done = tokio::time::timeout(limit, work) => match done {
                Ok(done) => done.unwrap_or_else(|panic| Err(Failure::panicked("a handler", &*panic))),
                Err(_) => Err(Failure::transient("workflow.timeout", "the attempt took longer than it may")),
            },
            failure = ended => Err(failure),
            () = self.drain.cancelled() => return Outcome::GivenBack,
        };
        match result {
            Ok(output) => Outcome::Done(output),
            Err(failure) if failure.is_lease_lost() => Outcome::Lost,
            Err(failure) if failure.is_cancelled() => Outcome::GivenBack,
            Err(failure) => Outcome::Failed(failure),
        }
    }
}

async fn perform<A: Activity, H: Handler<A>>(
    handler: Arc<H>,
    attempt: Attempt,
    input: Value,
) -> Result<Value, Failure> {
    let output = handler.handle(&attempt, read_input(A::NAME, input)?).await?;
    serde_json::to_value(output).map_err(|e| Failure::permanent("workflow.unrecordable", format!("not JSON: {e}")))
}

/// What there is to report of an attempt.
enum Outcome {
    Done(Value),
    Failed(Failure),
    GivenBack,
    /// Nothing: somebody else has the task.
    Lost,
}

/// The calls about one attempt.
struct Fence<'a> {
    worker: &'a Worker,
    task_id: i64,
    token: Uuid,
    trace: Option<TraceContext>,
}

impl Fence<'_> {
    async fn call(&self, what: &str, body: &impl Serialize, patience: Duration) -> Result<Response, CallError> {
        let mut request = self.worker.post(&format!("tasks/{}/{what}", self.task_id)).timeout(patience).json(body);
        if let Some(trace) = self.trace {
            request = request.header(TRACEPARENT, trace.to_string());
        }
        send(request).await.map_err(|error| match error {
            // A task that is gone is nobody's any more.
            CallError::Refused { status: 404 | 410, .. } => CallError::LeaseLost,
            error => error,
        })
    }

    /// Renews the lease until it is lost or nobody wants the result, and tells the attempt; never resolves.
    async fn keep(&self, seconds: f64, mut keeper: AttemptKeeper) -> Infallible {
        let (mut lease, mut renewed_at, mut answered) = (length(seconds), Instant::now(), true);
        let mut progress = None;
        let standing = loop {
            tokio::time::sleep((lease / if answered { 3 } else { 8 }).min(LONGEST_PAUSE)).await;
            if keeper.progress.has_changed().unwrap_or(false) {
                progress = Some(keeper.progress.borrow_and_update().clone());
            }
            let (asked_at, renew) = (Instant::now(), Renew { lease_token: self.token, progress: progress.clone() });
            let answer = async { read::<Renewed>(self.call("renew", &renew, SHORT.min(lease / 3)).await?).await }.await;
            match answer {
                Ok(renewed) if renewed.cancelled => break Standing::Cancelled,
                Ok(renewed) => {
                    (lease, renewed_at, answered) = (length(renewed.lease_seconds), asked_at, true);
                    progress = None;
                }
                Err(CallError::Unreachable(error)) => {
                    tracing::warn!(task.id = self.task_id, %error, "cannot renew a lease yet");
                    answered = false;
                }
                Err(_) => break Standing::Lost,
            }
            if renewed_at.elapsed() >= lease {
                break Standing::Lost;
            }
        };
        keeper.standing.send_replace(standing);
        std::future::pending().await
    }

    /// Tells the outcome: tries until the server answers, or the lease is lost.
    async fn report(&self, mut outcome: Outcome, attempt: &Attempt) {
        let mut pauses = Pauses::new();
        let until = Instant::now() + LAST_REPORT.max(length(attempt.task().lease_seconds) * 2);
        while Instant::now() < until {
            match self.tell(&outcome).await {
                Ok(()) => return,
                Err(CallError::LeaseLost) => {
                    return tracing::warn!(task.id = self.task_id, "the lease was lost: nobody wants the report");
                }
                Err(CallError::Unreachable(error)) => {
                    tracing::warn!(task.id = self.task_id, %error, "cannot report yet")
                }
                Err(error) => {
                    tracing::error!(task.id = self.task_id, %error, "the server refuses a report");
                    if !matches!(outcome, Outcome::Done(_)) {
                        return;
                    }
                    outcome = Outcome::Failed(Failure::permanent("workflow.unrecordable", error.to_string()));
                    continue;
                }
            }
            if attempt.check().is_err_and(|failure| failure.is_lease_lost()) {
                return;
            }
            pauses.next().await;
        }
    }

    async fn tell(&self, outcome: &Outcome) -> Result<(), CallError> {
        let lease_token = self.token;
        match outcome {
            Outcome::Done(output) => {
                self.call("complete", &Complete { lease_token, output: output.clone() }, SHORT).await.map(drop)
            }
            Outcome::Failed(failure) => {
                self.call("fail", &Fail { lease_token, failure: failure.clone() }, SHORT).await.map(drop)
            }
            Outcome::GivenBack => self.call("release", &Release { lease_token }, SHORT).await.map(drop),
            Outcome::Lost => Ok(()),
        }
    }
}

/// Whatever the server says, we neither hammer it nor sleep for ever.
fn length(seconds: f64) -> Duration {
    Duration::from_secs_f64(if seconds.is_finite() { seconds.clamp(0.1, 3600.0) } else { 15.0 })
}

/// Pauses that grow, each by chance between its half and the whole: workers do not return in step.
struct Pauses(Duration);

impl Pauses {
    fn new() -> Self {
        Self(PAUSES.0)
    }

    async fn next(&mut self) {
        let chance = f64::from(Uuid::new_v4().as_fields().0) / f64::from(u32::MAX);
        let pause = self.0.mul_f64(0.5 + 0.5 * chance);
        self.0 = (self.0 * 2).min(PAUSES.1);
        tokio::time::sleep(pause).await;
    }
}

async fn send(request: RequestBuilder) -> Result<Response, CallError> {
    let response = request.send().await.map_err(unreachable)?;
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let problem: Problem = serde_json::from_slice(&response.bytes().await.unwrap_or_default()).unwrap_or_default();
    Err(refusal(status, problem))
}

fn refusal(status: StatusCode, problem: Problem) -> CallError {
    match (status, problem.code.as_str()) {
        (_, "lease.lost" | "lease.foreign") => CallError::LeaseLost,
        (StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS, _) => {
            unreachable(format!("it answered {status}"))
        }
        _ if status.is_server_error() => unreachable(format!("it answered {status}")),
        _ => CallError::Refused { status: status.as_u16(), code: problem.code, detail: problem.detail },
    }
}

async fn read<T: DeserializeOwned>(response: Response) -> Result<T, CallError> {
    response.json().await.map_err(unreachable)
}

fn unreachable(error: impl Into<Box<dyn Error + Send + Sync>>) -> CallError {
    CallError::Unreachable(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_says_what_to_do() {
        let of = |status, code: &str| {
            let problem = Problem { status, code: code.to_owned(), detail: String::new() };
            refusal(StatusCode::from_u16(status).unwrap(), problem)
        };
        assert!(matches!(of(409, "lease.lost"), CallError::LeaseLost));
        assert!(matches!(of(403, "lease.foreign"), CallError::LeaseLost));
        assert!(matches!(of(403, "queue.forbidden"), CallError::Refused { status: 403, .. }));
        assert!(matches!(of(401, "worker.unknown"), CallError::Refused { .. }));
        assert!(matches!(of(503, "server.unavailable"), CallError::Unreachable(_)));
        assert!(matches!(of(429, ""), CallError::Unreachable(_)));
    }
}
