//! What a server does for remote workers, whatever carries their words.

use super::wire::{Claim, Complete, Fail, LONGEST_WAIT_SECONDS, Release, Renew, Renewed};
use crate::{
    activity::{LeasedTask, Progress, Standing},
    client::{Client, Error},
    failure::Failure,
    store,
};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A claim is tried this often even when nothing is announced: a notice can be lost.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Longest name of a worker, in bytes.
const NAME: usize = 160;
/// Most labels of a claim, and the longest key or value, in bytes. Some offer a label for each font they have.
const LABELS: (usize, usize) = (8192, 200);
/// Most queues or activities of a claim.
const NAMES: usize = 200;
/// Longest code, message and evidence of a failure that are kept.
const FAILURE: (usize, usize, usize) = (128, 2000, 64 * 1024);
/// Longest detail of progress that is kept, in bytes of JSON.
const PROGRESS_BYTES: usize = 8 * 1024;

/// Somebody who may do activities, as the application that has authenticated the caller knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RemoteWorker {
    /// Who it is, 1 to 160 bytes. A lease is honoured for this name alone.
    pub name: String,
    /// The queues that are open to it.
    pub queues: Vec<String>,
}

impl RemoteWorker {
    /// What its leases are held under.
    fn holder(&self, incarnation: Uuid) -> String {
        format!("{}:{incarnation}", self.name)
    }
}

/// A lease, to whom it was given.
#[derive(Debug, Clone, PartialEq, sqlx::FromRow)]
pub struct Lease {
    /// The run.
    pub run_id: Uuid,
    /// The tenant it works for.
    pub tenant_id: Uuid,
    /// The activity.
    pub activity: String,
    /// The contract's input.
    pub input: Value,
    /// The lease ends this long after a renewal.
    pub lease_seconds: f64,
    /// Whether it has not run out, by the clock of the database.
    pub in_time: bool,
}

/// What a token of a worker is worth.
#[derive(Debug, Clone, PartialEq)]
pub enum Hold {
    /// The task is its own.
    Held(Box<Lease>),
    /// It was once: a report may be a repetition, anything else is too late.
    Ended,
}

/// Why a call of a remote worker was not answered with what was asked for.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// The attempt is over: the task was given to somebody else, has ended, or is nobody's.
    #[error("the lease is lost")]
    LeaseLost,
    /// The worker was never given this token for this task.
    #[error("this worker has no such lease")]
    Foreign,
    /// The queue is not open to the worker.
    #[error("the queue {0:?} is not open to this worker")]
    Queue(String),
    /// What was sent cannot be taken.
    #[error("{0}")]
    Invalid(String),
    /// The engine's tables, or its store of payloads, cannot be reached.
    #[error("the server cannot do it at the moment")]
    Unavailable(#[source] Error),
}

impl Refused {
    /// Stable, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::LeaseLost => "lease.lost",
            Self::Foreign => "lease.foreign",
            Self::Queue(_) => "queue.forbidden",
            Self::Invalid(_) => "request.invalid",
            Self::Unavailable(_) => "server.unavailable",
        }
    }

    /// The status of HTTP that says so.
    pub fn status(&self) -> u16 {
        match self {
            Self::LeaseLost => 409,
            Self::Foreign | Self::Queue(_) => 403,
            Self::Invalid(_) => 422,
            Self::Unavailable(_) => 503,
        }
    }
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        match error {
            Error::LeaseLost(_) => Self::LeaseLost,
            Error::Unrecordable(failure) => Self::Invalid(failure.message),
            Error::Payload(failure) if !failure.retryable => Self::Invalid(failure.message),
            error => Self::Unavailable(error),
        }
    }
}

impl From<sqlx::Error> for Refused {
    fn from(error: sqlx::Error) -> Self {
        Self::Unavailable(Error::Database(error))
    }
}

/// The calls of remote workers; errors as [`Refused`] says. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Service {
    client: Client,
    closing: CancellationToken,
}

impl Service {
    /// Over the tables of `client`.
    pub fn new(client: Client) -> Self {
        Self { client, closing: CancellationToken::new() }
    }

    /// Claims that wait are answered at once when `closing` is cancelled: the server is going away.
    #[must_use]
    pub fn closing(self, closing: CancellationToken) -> Self {
        Self { closing, ..self }
    }

    /// The longest body of a call, in bytes: an output, which may be longer as it is sent than as it is stored.
    #[cfg(feature = "http")]
    pub(super) fn longest_body(&self) -> usize {
        (2 << 20).max(self.client.payloads.ceiling().saturating_mul(2))
    }

    /// Leases tasks as soon as there are any, or none when the wait is up. No connection is held meanwhile.
    ///
    /// # Errors
    /// [`Refused::Queue`], [`Refused::Invalid`].
    pub async fn claim(&self, worker: &RemoteWorker, asked: &Claim) -> Result<Vec<LeasedTask>, Refused> {
        check(worker, asked)?;
        let queues = queues(worker, asked);
        let names = (!asked.activities.is_empty()).then_some(asked.activities.as_slice());
        let holder = worker.holder(asked.incarnation);
        let until = Instant::now() + wait(asked.wait_seconds);
        let news = self.client.watch(&queues);
        while !self.closing.is_cancelled() {
            let tasks =
                self.client.claim_named(&queues, names, &asked.labels, &[], &holder, asked.slots.max(1)).await?;
            let left = until.saturating_duration_since(Instant::now());
            if !tasks.is_empty() || left.is_zero() {
                return Ok(tasks);
            }
            tokio::select! {
                _ = news.wait(left.min(LOOK_AGAIN)) => {}
                () = self.closing.cancelled() => {}
            }
        }
        Ok(Vec::new())
    }

    /// Leases to the worker those of `task_ids` that are still ready, fewer or none when others were faster: for an application that
    /// chooses itself who does what. Nothing out of a queue that is paused, or has terms: there [`Service::claim`] is the only way.
    /// Notes that the worker lives, also when there is nothing to lease.
    ///
    /// # Errors
    /// [`Refused::Queue`], [`Refused::Invalid`].
    pub async fn claim_these(
        &self,
        worker: &RemoteWorker,
        asked: &Claim,
        task_ids: &[i64],
    ) -> Result<Vec<LeasedTask>, Refused> {
        check(worker, asked)?;
        let queues = queues(worker, asked);
        self.client.note_worker(&worker.holder(asked.incarnation), &queues, &asked.labels).await?;
        let names = (!asked.activities.is_empty()).then_some(asked.activities.as_slice());
        let holder = worker.holder(asked.incarnation);
        Ok(self.client.claim_these(&queues, names, &asked.labels, &holder, task_ids).await?)
    }

    /// How long a claim waits.
    pub fn wait(asked: &Claim) -> Duration {
        wait(asked.wait_seconds)
    }

    /// What `token` is worth in the hands of `worker`.
    ///
    /// # Errors
    /// [`Refused::Foreign`].
    pub async fn hold(&self, worker: &RemoteWorker, task_id: i64, token: Uuid) -> Result<Hold, Refused> {
        let mut hold = self.standing(worker, task_id, token).await?;
        if let Hold::Held(lease) = &mut hold {
            lease.input = self.client.opened(lease.tenant_id, lease.input.take()).await?;
        }
        Ok(hold)
    }

    /// As [`Service::hold`]; the input is as it is stored.
    async fn standing(&self, worker: &RemoteWorker, task_id: i64, token: Uuid) -> Result<Hold, Refused> {
        let db = self.client.pool();
        if let Some(lease) = store::tasks::lease_of(db, &worker.name, task_id, token).await? {
            return Ok(Hold::Held(Box::new(lease)));
        }
        let ended = store::tasks::had_lease(db, &worker.name, task_id, token).await?;
        if ended { Ok(Hold::Ended) } else { Err(Refused::Foreign) }
    }

    /// As [`Service::hold`]. A lease that was taken for lost is held again if the task was given to nobody since: a worker that was
    /// cut off brings what it has done meanwhile, once, and only where nobody else has begun.
    ///
    /// # Errors
    /// [`Refused::Foreign`].
    pub async fn take_up(&self, worker: &RemoteWorker, task_id: i64, token: Uuid) -> Result<Hold, Refused> {
        let hold = self.hold(worker, task_id, token).await?;
        if hold == Hold::Ended && store::tasks::adopt(self.client.pool(), &worker.name, task_id, token).await? {
            tracing::info!(task_id, worker = worker.name, "a worker that was taken for lost is back with its task");
            return self.hold(worker, task_id, token).await;
        }
        Ok(hold)
    }

    /// What the worker was given under a lease that has ended, as long as the task is there: a report that comes too late to count may
    /// still say something of who sends it.
    ///
    /// # Errors
    /// [`Refused::Unavailable`].
    pub async fn past(&self, worker: &RemoteWorker, task_id: i64, token: Uuid) -> Result<Option<Lease>, Refused> {
        let past = store::tasks::past_lease(self.client.pool(), &worker.name, task_id, token).await?;
        let Some(mut lease) = past else { return Ok(None) };
        lease.input = self.client.opened(lease.tenant_id, lease.input.take()).await?;
        Ok(Some(lease))
    }

    /// Renews a lease, keeps the progress, and tells whether to go on. A lease that was taken for lost: see [`Service::take_up`].
    ///
    /// # Errors
    /// [`Refused::LeaseLost`], [`Refused::Foreign`].
    pub async fn renew(&self, worker: &RemoteWorker, task_id: i64, asked: Renew) -> Result<Renewed, Refused> {
        let lease = match self.standing(worker, task_id, asked.lease_token).await? {
            Hold::Held(lease) => lease,
            Hold::Ended => match self.take_up(worker, task_id, asked.lease_token).await? {
                Hold::Held(lease) => lease,
                Hold::Ended => return Err(Refused::LeaseLost),
            },
        };
        let progress = asked.progress.map(bounded_progress);
        match self.client.renew(task_id, asked.lease_token, progress.as_ref()).await? {
            Standing::Lost => Err(Refused::LeaseLost),
            standing => Ok(Renewed { cancelled: standing == Standing::Cancelled, lease_seconds: lease.lease_seconds }),
        }
    }

    /// Records the output of an attempt.
    ///
    /// # Errors
    /// [`Refused::LeaseLost`], [`Refused::Foreign`], [`Refused::Invalid`].
    pub async fn complete(&self, worker: &RemoteWorker, task_id: i64, asked: Complete) -> Result<(), Refused> {
        self.take_up(worker, task_id, asked.lease_token).await?;
        Ok(self.client.complete(task_id, asked.lease_token, &asked.output).await?)
    }

    /// Ends an attempt with a failure, also one that was taken for lost: see [`Service::take_up`]. One that only says that the attempt
    /// had to stop gives the task back: whether a run is cancelled is not for workers to say.
    ///
    /// # Errors
    /// [`Refused::LeaseLost`], [`Refused::Foreign`].
    pub async fn fail(&self, worker: &RemoteWorker, task_id: i64, asked: Fail) -> Result<(), Refused> {
        let failure = asked.failure;
        if failure.is_cancelled() || failure.is_lease_lost() {
            self.standing(worker, task_id, asked.lease_token).await?;
            return Ok(self.client.release(task_id, asked.lease_token).await?);
        }
        self.take_up(worker, task_id, asked.lease_token).await?;
        Ok(self.client.fail(task_id, asked.lease_token, &bounded(failure)).await?)
    }

    /// Gives a task back; the attempt counts neither as failed nor as lost.
    ///
    /// # Errors
    /// [`Refused::LeaseLost`], [`Refused::Foreign`].
    pub async fn release(&self, worker: &RemoteWorker, task_id: i64, asked: &Release) -> Result<(), Refused> {
        self.standing(worker, task_id, asked.lease_token).await?;
        Ok(self.client.release(task_id, asked.lease_token).await?)
    }
}

/// Where to look for work.
fn queues<'a>(worker: &'a RemoteWorker, asked: &'a Claim) -> Vec<&'a str> {
    let named = if asked.queues.is_empty() { &worker.queues } else { &asked.queues };
    named.iter().map(String::as_str).collect()
}

fn check(worker: &RemoteWorker, asked: &Claim) -> Result<(), Refused> {
    let (most, longest) = LABELS;
    let fits = |text: &String| text.len() <= longest && !text.contains('\0');
    if asked.labels.len() > most || !asked.labels.iter().all(|(key, value)| fits(key) && fits(value)) {
        return Err(Refused::Invalid(format!("at most {most} labels of at most {longest} bytes")));
    }
    if !(1..=NAME).contains(&worker.name.len()) {
        return Err(Refused::Invalid(format!("the name of a worker has 1 to {NAME} bytes")));
    }
    if asked.queues.len().max(asked.activities.len()) > NAMES || !asked.activities.iter().all(fits) {
        return Err(Refused::Invalid(format!("at most {NAMES} queues and activities")));
    }
    match asked.queues.iter().find(|queue| !worker.queues.contains(queue)) {
        Some(closed) => Err(Refused::Queue(closed.chars().take(100).collect())),
        None => Ok(()),
    }
}

fn wait(seconds: f64) -> Duration {
    Duration::try_from_secs_f64(seconds.min(LONGEST_WAIT_SECONDS)).unwrap_or_default()
}

/// A failure that is fit to be kept.
fn bounded(failure: Failure) -> Failure {
    let (code, message, details) = FAILURE;
    let keep = failure.details.to_string().len() <= details;
    let fine = |c: &char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_');
    let cleaned: String = failure.code.chars().filter(fine).take(code).collect();
    Failure {
        code: if cleaned.is_empty() { "remote.failed".into() } else { cleaned },
        message: failure.message.chars().filter(|c| *c != '\0').take(message).collect(),
        details: if keep { failure.details } else { Value::Null },
        ..failure
    }
}

/// Progress that is fit to be kept: a lease is not lost over its decoration.
fn bounded_progress(mut progress: Progress) -> Progress {
    let detail = progress.detail.to_string();
    if detail.len() > PROGRESS_BYTES || detail.contains("\\u0000") {
        progress.detail = Value::Null;
    }
    progress
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failure_is_cut_to_size() {
        let wild = Failure::permanent("a b\0".repeat(500), "x\0".repeat(9000)).with_details(json!("y".repeat(70_000)));
        let kept = bounded(wild);
        assert_eq!(kept.code.len(), 128);
        assert_eq!(kept.message.len(), 2000);
        assert!(kept.details.is_null());
        assert_eq!(bounded(Failure::permanent("…", "")).code, "remote.failed");
    }

    #[test]
    fn a_wait_is_bounded_whatever_it_says() {
        assert_eq!([1e300, f64::INFINITY, -1.0, 0.5].map(|asked| wait(asked).as_millis()), [25_000, 25_000, 0, 500]);
    }
}
