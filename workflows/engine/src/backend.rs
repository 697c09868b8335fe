//! The apalis backend of a queue, and the layer through which every outcome passes.
//!
//! apalis drives the tasks; claiming, leases and results are the pump's. A task that arrives is decoded already, so
//! no payload can end a worker, and its future resolves only after its outcome is committed.

use crate::{
    activity::{LeasedTask, Standing},
    failure::Failure,
    jobs::{JobEnd, JobOutcome},
    measures,
    pump::{What, Write},
    record::storable,
    store::{
        self, Claimed, Fence, Lane,
        tasks::{Plain, attempt_failed},
    },
};
use apalis_core::{
    backend::{Backend, BackendConfig, finalize::Ephemeral},
    error::BoxDynError,
    task::{Task, builder::TaskBuilder, task_id::TaskId},
    worker::context::WorkerContext,
};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use std::{
    convert::Infallible,
    task::{Context, Poll},
};
use tokio::sync::{mpsc, oneshot, watch};
use tokio_util::{sync::CancellationToken, task::AbortOnDropHandle};
use tower::{Layer, Service};
use uuid::Uuid;

/// A task on its way to its handler.
#[derive(Debug, Clone)]
pub(crate) struct Arrival {
    pub claimed: Claimed,
    pub standing: watch::Receiver<Standing>,
}

/// How one stay of a task in this process ended.
#[derive(Debug)]
pub(crate) enum Outcome {
    /// The activity is done.
    Done(Value),
    /// The attempt failed.
    Failed(Failure),
    /// The attempt took too long.
    TimedOut,
    /// The run sleeps until `due`, or until it has a record newer than `seq`.
    Parked { seq: i64, due: Option<DateTime<Utc>> },
    /// Nobody can go on with the run as it is: it waits until somebody resumes it.
    SetAside { reason: &'static str, failure: Failure },
    /// The run is over, and another goes on in its place.
    Continued { next: Value },
    /// The run is over. `last`: the record that is to be written with its end.
    Ended { state: &'static str, output: Option<Value>, error: Option<Failure>, last: Option<Box<Plain>> },
    /// Somebody else is to go on with it.
    Unfinished,
    /// Somebody else has it already.
    Lost,
}

impl Outcome {
    fn write(self, task: &Identity) -> What {
        let Fence { task_id, token } = task.fence;
        match self {
            Self::Lost => What::Forget,
            outcome if task.is_run => match outcome.of_run(task.fence) {
                What::Plain(end) => What::Plain(Plain { ends: Some(task.run_id), ..end }),
                other => other,
            },
            outcome => {
                let entry = match outcome {
                    Self::Done(output) => {
                        json!({ "task_id": task_id, "token": token, "outcome": "ok", "output": output })
                    }
                    Self::Failed(failure) => attempt_failed(task_id, token, &failure),
                    Self::TimedOut => timed_out(task_id, token),
                    _ => json!({ "task_id": task_id, "token": token, "outcome": "released" }),
                };
                What::Attempt { entry, key: task.key.clone(), activity: task.activity.clone() }
            }
        }
    }

    /// What the end of a run's stay writes.
    pub(crate) fn of_run(self, fence: Fence) -> What {
        match self {
            Self::Ended { state, output, error, last } => {
                let body = output.filter(|output| !output.is_null()).or(error.as_ref().map(storable));
                let seq = last.as_ref().and_then(|last| last.seq);
                What::Plain(Plain { what: state, body, seq, last, ..Plain::default() })
            }
            outcome => What::Ops(vec![outcome.run_op(fence)]),
        }
    }

    fn run_op(self, Fence { task_id, token }: Fence) -> Value {
        let failed = |failure: &Failure| json!({ "op": "end", "task_id": task_id, "token": token, "state": "failed", "error": storable(failure) });
        match self {
            Self::Parked { seq, due } => {
                json!({ "op": "park", "task_id": task_id, "token": token, "seq": seq, "due": due })
            }
            Self::SetAside { reason, failure } => json!({
                "op": "park", "task_id": task_id, "token": token, "reason": reason, "failure": storable(&failure),
            }),
            Self::Continued { next } => {
                json!({ "op": "end", "task_id": task_id, "token": token, "state": "succeeded", "next": next })
            }
            Self::Failed(failure) => failed(&failure),
            _ => json!({ "op": "release", "task_id": task_id, "token": token }),
        }
    }

    /// The state in which a run ends with it.
    fn end(&self) -> Option<&'static str> {
        match self {
            Self::Ended { state, .. } => Some(state),
            Self::Continued { .. } => Some("continued"),
            Self::Failed(_) => Some("failed"),
            _ => None,
        }
    }

    fn of_job(self) -> JobOutcome {
        match self {
            Self::Done(output) => JobOutcome::Done(output),
            Self::Failed(failure) if failure.is_cancelled() => JobOutcome::Ended("cancelled", Some(storable(&failure))),
            Self::Failed(failure) => JobOutcome::Ended("failed", Some(storable(&failure))),
            Self::TimedOut => JobOutcome::Ended("failed", Some(storable(&late()))),
            // Its token tells whether the lease is really lost; if not, its handler has given it up.
            Self::Lost => JobOutcome::Ended("lost", Some(storable(&Failure::lease_lost()))),
            _ => JobOutcome::Ended("released", None),
        }
    }

    /// The outcome of an activity.
    pub(crate) fn of_activity(result: Result<Value, Failure>) -> Self {
        match result {
            Ok(output) => Self::Done(output),
            Err(failure) if failure.is_lease_lost() => Self::Lost,
            Err(failure) => Self::Failed(failure),
        }
    }
}

fn late() -> Failure {
    Failure::transient("workflow.timeout", "the attempt took longer than it may")
}

fn timed_out(task_id: i64, token: Uuid) -> Value {
    let failure = storable(&late());
    json!({ "task_id": task_id, "token": token, "outcome": "timeout", "failure": failure })
}

/// What an outcome needs to know of its task.
#[derive(Debug, Clone)]
struct Identity {
    fence: Fence,
    run_id: Uuid,
    key: String,
    activity: String,
    is_run: bool,
    lane: Lane,
}

impl Identity {
    fn of(claimed: &Claimed) -> Self {
        let LeasedTask { run_id, key, activity, .. } = &claimed.task;
        Self {
            fence: claimed.fence(),
            run_id: *run_id,
            key: key.clone(),
            activity: activity.clone(),
            is_run: claimed.run.is_some(),
            lane: claimed.lane,
        }
    }
}

/// Gives back what was claimed and never started.
pub(crate) fn given_back(claimed: &Claimed) -> Write {
    last_write(&Identity::of(claimed), Outcome::Unfinished).0
}

/// As [`given_back`], for a job.
pub(crate) fn given_back_job(claimed: &Claimed) -> JobEnd {
    job_end(claimed.fence(), Outcome::Unfinished).0
}

fn job_end(Fence { task_id, token }: Fence, outcome: Outcome) -> (JobEnd, oneshot::Receiver<bool>) {
    let (reply, answer) = oneshot::channel();
    (JobEnd { id: task_id, token, how: outcome.of_job(), reply }, answer)
}

fn last_write(task: &Identity, outcome: Outcome) -> (Write, oneshot::Receiver<bool>) {
    let (reply, answer) = oneshot::channel();
    (Write { fence: task.fence, what: outcome.write(task), last: true, again: false, reply }, answer)
}

/// One queue, as apalis sees it.
#[derive(Debug)]
pub(crate) struct QueueBackend {
    pub arrivals: mpsc::UnboundedReceiver<Arrival>,
    pub layer: LeaseLayer,
}

impl Backend for QueueBackend {
    type Task = Task<Arrival>;
    type Error = Infallible;

    fn poll_ready(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(())) // The pump claims, renews and writes whether it is polled or not.
    }

    fn poll_next(&mut self, cx: &mut Context<'_>, _: &WorkerContext) -> Poll<Option<Result<Self::Task, Infallible>>> {
        self.arrivals.poll_recv(cx).map(|arrival| {
            let arrival = arrival?;
            let id = TaskId::from_int(arrival.claimed.task.task_id as u64);
            let attempt = arrival.claimed.task.attempt_no as usize;
            Some(Ok(TaskBuilder::new(arrival).task_id(id).attempt(attempt).build()))
        })
    }

    fn poll_close(&mut self, _: &mut Context<'_>, _: &WorkerContext) -> Poll<Result<(), Infallible>> {
        self.arrivals.close();
        while let Ok(arrival) = self.arrivals.try_recv() {
            self.layer.send(&Identity::of(&arrival.claimed), Outcome::Unfinished);
        }
        Poll::Ready(Ok(()))
    }
}

impl BackendConfig for QueueBackend {
    type Args = Arrival;
    type Id = u64;
    type Kind = Ephemeral;
    type Config = ();
    type Layer = LeaseLayer;

    fn config(&self) -> &() {
        &()
    }

    fn middleware(&mut self, _: &mut WorkerContext) -> LeaseLayer {
        self.layer.clone()
    }
}

/// The outermost layer: runs the task on the thread pool, survives its panic, and resolves after the commit.
#[derive(Debug, Clone)]
pub(crate) struct LeaseLayer {
    pub writes: mpsc::UnboundedSender<Write>,
    pub ends: mpsc::UnboundedSender<JobEnd>,
    /// Ends what still runs when the grace of a shutdown is over.
    pub abort: CancellationToken,
}

impl LeaseLayer {
    fn send(&self, task: &Identity, outcome: Outcome) -> oneshot::Receiver<bool> {
        // Without a pump nobody holds anything any more.
        match task.lane {
            Lane::Task => {
                let (write, answer) = last_write(task, outcome);
                let _ = self.writes.send(write);
                answer
            }
            Lane::Job => {
                let (end, answer) = job_end(task.fence, outcome);
                let _ = self.ends.send(end);
                answer
            }
        }
    }
}

impl<S> Layer<S> for LeaseLayer {
    type Service = LeaseService<S>;

    fn layer(&self, inner: S) -> LeaseService<S> {
        LeaseService { inner, layer: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct LeaseService<S> {
    inner: S,
    layer: LeaseLayer,
}

/// Gives a task back whose future was dropped before it had an outcome.
struct Guard {
    task: Identity,
    layer: LeaseLayer,
    armed: bool,
}

impl Guard {
    fn settle(&mut self, outcome: Outcome) -> oneshot::Receiver<bool> {
        self.armed = false;
        self.layer.send(&self.task, outcome)
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if self.armed {
            self.settle(Outcome::Unfinished);
        }
    }
}

impl<S> Service<Task<Arrival>> for LeaseService<S>
where
    S: Service<Task<Arrival>, Response = Outcome>,
    S::Future: Send + 'static,
    S::Error: Into<BoxDynError> + Send + 'static,
{
    type Response = ();
    type Error = BoxDynError;
    type Future = BoxFuture<'static, Result<(), BoxDynError>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxDynError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, task: Task<Arrival>) -> Self::Future {
        let mut guard = Guard { task: Identity::of(&task.args.claimed), layer: self.layer.clone(), armed: true };
        let work = AbortOnDropHandle::new(tokio::spawn(self.inner.call(task)));
        Box::pin(async move {
            let outcome = tokio::select! {
                joined = work => match joined {
                    Ok(Ok(outcome)) => outcome,
                    Ok(Err(error)) => Outcome::Failed(Failure::transient("workflow.worker", error.into().to_string())),
                    Err(stopped) => Outcome::Failed(panicked(stopped)),
                },
                () = guard.layer.abort.cancelled() => Outcome::Unfinished,
            };
            let end = outcome.end().filter(|_| guard.task.is_run);
            // One that came too late is none.
            if guard.settle(outcome).await == Ok(true)
                && let Some(state) = end
            {
                let kind = store::runs::kind_of(&guard.task.activity).to_owned();
                metrics::counter!(measures::RUNS_ENDED, "kind" => kind, "state" => state).increment(1);
            }
            Ok(())
        })
    }
}

fn panicked(stopped: tokio::task::JoinError) -> Failure {
    match stopped.try_into_panic() {
        Ok(payload) => Failure::panicked("a handler or a definition", &*payload),
        Err(stopped) => Failure::transient("workflow.panicked", stopped.to_string()),
    }
}
