//! Why is this not going on? One reason out of a closed list, and a sentence that says it.

use super::{OperationError, Operations, sql};
use crate::{
    activity::{Labels, Progress},
    client::RunState,
    store::limits::{self, Limits},
    worker::RUN_QUEUE,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, PgConnection, types::Json};
use std::fmt;
use uuid::Uuid;

/// Why a run or a task is where it is.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "reason", rename_all = "snake_case")]
pub enum Reason {
    /// It is over.
    Over {
        /// How it ended.
        state: RunState,
        /// When.
        at: Option<DateTime<Utc>>,
    },
    /// Nobody may claim from its queue.
    QueuePaused {
        /// The queue.
        queue: String,
        /// Who paused it.
        by: String,
        /// Since when.
        since: DateTime<Utc>,
        /// Why.
        why: Option<String>,
    },
    /// No live worker knows how to do it.
    NoWorker {
        /// The queue.
        queue: String,
        /// The activity, or the kind and version of the run.
        name: String,
    },
    /// Workers know how to do it; none has the labels it asks for.
    NoLabels {
        /// The queue.
        queue: String,
        /// What it asks for.
        labels: Labels,
    },
    /// Everybody who could take it is busy.
    NoSlot {
        /// The queue.
        queue: String,
        /// Slots there are.
        slots: i64,
        /// Tasks that come before it; 1000 stands for at least so many.
        ahead: i64,
    },
    /// The queue, its tenant or its limit key has as much under way as the terms of the queue allow.
    Capped {
        /// The queue.
        queue: String,
        /// Whose cap it is.
        of: Limited,
        /// Leases there are.
        running: i64,
        /// Leases there may be.
        cap: i64,
    },
    /// The queue, its tenant or its limit key has had as much in this time as the terms of the queue allow.
    RateLimited {
        /// The queue.
        queue: String,
        /// Whose rate it is.
        of: Limited,
        /// When the next may be claimed.
        until: DateTime<Utc>,
    },
    /// It is the turn of other tenants, who have used less of the queue.
    OthersTurn {
        /// The queue.
        queue: String,
        /// How many come before; 1000 stands for at least so many.
        tenants: i64,
    },
    /// It is about to be claimed.
    Ready {
        /// The queue.
        queue: String,
        /// Tasks that come before it; 1000 stands for at least so many.
        ahead: i64,
    },
    /// It sleeps.
    Timer {
        /// Until then.
        until: DateTime<Utc>,
    },
    /// It pauses after a failure or a loss.
    Backoff {
        /// Until then.
        until: DateTime<Utc>,
        /// The attempt that comes next.
        attempt: i32,
        /// Attempts that may fail in all.
        of: i32,
        /// Code of the last failure.
        code: Option<String>,
    },
    /// Somebody works on it.
    Leased {
        /// Who.
        by: String,
        /// Since when.
        since: DateTime<Utc>,
        /// When the lease ends unless it is renewed.
        expires: DateTime<Utc>,
        /// How far they are.
        progress: Option<Progress>,
    },
    /// It was cancelled, and what is under way comes to its end.
    Settling {
        /// Who works on the rest, if anybody does.
        by: Option<String>,
    },
    /// It was parked and waits until somebody resumes it.
    Parked {
        /// `version_mismatch`, `lost_too_often`, `unrecordable`, `unreadable`.
        why: String,
    },
    /// It waits for a run that it has started.
    Child {
        /// That run.
        run_id: Uuid,
        /// Its kind.
        kind: String,
    },
    /// It waits for a signal, until then if that is given.
    Signal {
        /// Until then.
        until: Option<DateTime<Utc>>,
    },
}

/// What a limit is of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Limited {
    /// The whole queue.
    Queue,
    /// The tenant.
    Tenant,
    /// This limit key of the tenant.
    Key(String),
}

impl fmt::Display for Limited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue => write!(f, "the queue"),
            Self::Tenant => write!(f, "its tenant"),
            Self::Key(key) => write!(f, "its limit key {key:?}"),
        }
    }
}

/// The answer to "why is this not going on?"
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The step key of what is in the way; empty when it is the run itself.
    pub key: String,
    /// The reason.
    #[serde(flatten)]
    pub reason: Reason,
    /// The same in a sentence.
    pub text: String,
}

impl Explanation {
    fn new(key: &str, reason: Reason) -> Self {
        let subject = if key.is_empty() { "The run".to_owned() } else { format!("{key:?}") };
        let text = format!("{subject} {reason}");
        Self { key: key.to_owned(), reason, text }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let time = |at: &DateTime<Utc>| at.format("%Y-%m-%d %H:%M:%S UTC").to_string();
        match self {
            Self::Over { state, .. } => write!(f, "is over: {state:?}."),
            Self::QueuePaused { queue, by, since, why } => {
                write!(f, "waits: the queue {queue:?} was paused by {by} at {}", time(since))?;
                why.as_ref().map_or(write!(f, "."), |why| write!(f, ": {why}"))
            }
            Self::NoWorker { queue, name } => {
                write!(f, "waits: no live worker of the queue {queue:?} knows {name:?}.")
            }
            Self::NoLabels { queue, labels } => {
                let wanted: Vec<_> = labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
                write!(f, "waits: no live worker of the queue {queue:?} has the labels {}.", wanted.join(", "))
            }
            Self::NoSlot { queue, slots, ahead } => {
                write!(f, "waits for a slot: all {slots} of the queue {queue:?} are in use; {ahead} come before it.")
            }
            Self::Capped { queue, of, running, cap } => {
                write!(f, "waits: {of} has {running} of {cap} under way that the queue {queue:?} allows.")
            }
            Self::RateLimited { queue, of, until } => {
                write!(f, "waits: the rate of {of} in the queue {queue:?} is used up until {}.", time(until))
            }
            Self::OthersTurn { queue, tenants } => {
                write!(
                    f,
                    "waits for its turn in the queue {queue:?}: {tenants} tenants that have used less come before."
                )
            }
            Self::Ready { queue, ahead } => {
                write!(f, "is ready in the queue {queue:?}; {ahead} come before it.")
            }
            Self::Timer { until } => write!(f, "sleeps until {}.", time(until)),
            Self::Backoff { until, attempt, of, code } => {
                let code = code.as_deref().unwrap_or("a lost worker");
                write!(f, "pauses until {} after {code}; attempt {attempt}, of which {of} may fail.", time(until))
            }
            Self::Leased { by, since, progress, .. } => {
                write!(f, "is worked on by {by} since {}", time(since))?;
                match progress {
                    Some(Progress { done, total, .. }) if *total > 0 => write!(f, "; {done} of {total} done."),
                    _ => write!(f, "."),
                }
            }
            Self::Settling { by: Some(by) } => write!(f, "was cancelled; {by} has still to stop."),
            Self::Settling { by: None } => write!(f, "was cancelled and puts things in order."),
            Self::Parked { why } => write!(f, "is parked ({why}) until somebody resumes it."),
            Self::Child { run_id, kind } => write!(f, "waits for its child {run_id} ({kind})."),
            Self::Signal { until: Some(until) } => write!(f, "waits for a signal, until {}.", time(until)),
            Self::Signal { until: None } => write!(f, "waits for a signal."),
        }
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct Facts {
    pub id: i64,
    pub kind: String,
    pub run_id: Uuid,
    pub key: String,
    pub queue: String,
    pub activity: String,
    pub labels: Json<Labels>,
    pub tenant_id: Uuid,
    pub limit_key: String,
    pub priority: i16,
    pub state: String,
    pub run_at: Option<DateTime<Utc>>,
    pub attempt_no: i32,
    pub failures: i32,
    pub max_failures: i32,
    pub leased_by: Option<String>,
    pub leased_at: Option<DateTime<Utc>>,
    pub lease_expires_at: Option<DateTime<Utc>>,
    pub progress: Option<Json<Progress>>,
    pub cancel_requested: bool,
    pub parked_reason: Option<String>,
    pub last_code: Option<String>,
}

/// Who could do something: a worker process, or somebody who claims over HTTP.
#[derive(Debug, FromRow)]
pub(crate) struct Offer {
    pub worker_id: Option<i64>,
    pub labels: Json<Labels>,
    pub slots: i64,
}

impl Operations {
    /// Why a run does not go on, or what it is doing.
    ///
    /// # Errors
    /// [`OperationError::NotFound`].
    pub async fn explain_run(&self, run_id: Uuid) -> Result<Explanation, OperationError> {
        let mut db = self.pool.acquire().await?;
        let tasks = sql::facts(&mut db, None, Some(run_id)).await?;
        let Some(run) = tasks.iter().find(|t| t.kind == "run") else {
            let over = self.client.run(run_id).await?;
            let over = over.ok_or_else(|| OperationError::NotFound(format!("run {run_id}")))?;
            return Ok(Explanation::new("", Reason::Over { state: over.state, at: over.finished_at }));
        };
        if let Some(why) = &run.parked_reason {
            return Ok(Explanation::new("", Reason::Parked { why: why.clone() }));
        }
        // A run in memory, or asleep, waits for the oldest of what it has asked for; a ready one for a worker.
        let oldest = tasks.iter().filter(|t| t.kind != "run").min_by_key(|t| t.id);
        let reason = match (run.state.as_str(), oldest) {
            ("ready", _) => ready(&mut db, run).await?,
            (_, Some(activity)) if run.cancel_requested => Reason::Settling { by: activity.leased_by.clone() },
            (_, Some(activity)) => return Ok(Explanation::new(&activity.key, of_activity(&mut db, activity).await?)),
            _ if run.cancel_requested => Reason::Settling { by: run.leased_by.clone() },
            _ => match (sql::live_child(&mut db, run_id).await?, run.state.as_str(), run.run_at) {
                (Some((run_id, kind)), ..) => Reason::Child { run_id, kind },
                (None, "waiting", Some(until)) if run.attempt_no > 0 && run.last_code.is_none() => {
                    Reason::Timer { until }
                }
                (None, "waiting", Some(until)) => backoff(run, until),
                (None, "waiting", None) => Reason::Signal { until: None },
                _ => leased(run),
            },
        };
        Ok(Explanation::new("", reason))
    }

    /// Why a task does not go on, or who is doing it.
    ///
    /// # Errors
    /// [`OperationError::NotFound`] when there is none, or it is over.
    pub async fn explain_task(&self, task_id: i64) -> Result<Explanation, OperationError> {
        let mut db = self.pool.acquire().await?;
        let tasks = sql::facts(&mut db, Some(task_id), None).await?;
        let Some(task) = tasks.first() else { return Err(OperationError::NotFound(format!("task {task_id}"))) };
        if task.kind == "run" {
            drop(db);
            return self.explain_run(task.run_id).await;
        }
        Ok(Explanation::new(&task.key, of_activity(&mut db, task).await?))
    }
}

async fn of_activity(db: &mut PgConnection, task: &Facts) -> Result<Reason, OperationError> {
    Ok(match (task.state.as_str(), task.run_at) {
        ("leased", _) if task.cancel_requested => Reason::Settling { by: task.leased_by.clone() },
        ("leased", _) => leased(task),
        ("waiting", Some(until)) => backoff(task, until),
        _ => ready(db, task).await?,
    })
}

fn leased(task: &Facts) -> Reason {
    Reason::Leased {
        by: task.leased_by.clone().unwrap_or_default(),
        since: task.leased_at.unwrap_or_default(),
        expires: task.lease_expires_at.unwrap_or_default(),
        progress: task.progress.as_ref().map(|json| json.0.clone()),
    }
}

fn backoff(task: &Facts, until: DateTime<Utc>) -> Reason {
    Reason::Backoff { until, attempt: task.failures + 1, of: task.max_failures, code: task.last_code.clone() }
}

/// Ready, and yet nobody has it.
async fn ready(db: &mut PgConnection, task: &Facts) -> Result<Reason, OperationError> {
    let queue = task.queue.clone();
    if let Some(paused) = sql::paused(db, &queue).await? {
        return Ok(Reason::QueuePaused { queue, by: paused.paused_by, since: paused.paused_at, why: paused.reason });
    }
    let knowing = sql::offers(db, &queue, &task.activity, queue != RUN_QUEUE).await?;
    if knowing.is_empty() {
        return Ok(Reason::NoWorker { queue, name: task.activity.clone() });
    }
    let wanted = &task.labels.0;
    let fitting: Vec<&Offer> =
        knowing.iter().filter(|o| wanted.iter().all(|(name, value)| o.labels.0.get(name) == Some(value))).collect();
    if fitting.is_empty() {
        return Ok(Reason::NoLabels { queue, labels: wanted.clone() });
    }
    let limits = limits::limits(db, task).await?;
    if let Some(reason) = limits.as_ref().and_then(|limits| limited(task, limits)) {
        return Ok(reason);
    }
    let ahead = sql::ahead(db, task).await?;
    let workers: Vec<i64> = fitting.iter().filter_map(|o| o.worker_id).collect();
    if workers.len() == fitting.len() {
        let slots: i64 = fitting.iter().map(|o| o.slots).sum();
        if sql::in_use(db, &queue, &workers).await? >= slots {
            return Ok(Reason::NoSlot { queue, slots, ahead });
        }
    }
    Ok(match limits {
        Some(limits) if limits.before > 0 => Reason::OthersTurn { queue, tenants: limits.before },
        _ => Reason::Ready { queue, ahead },
    })
}

/// Which of the terms of its queue a task runs into, the widest first.
fn limited(task: &Facts, limits: &Limits) -> Option<Reason> {
    let scopes = [
        (Limited::Queue, limits.cap, limits.running, limits.queue_free_at),
        (Limited::Tenant, limits.tenant_cap, limits.tenant_running, limits.tenant_free_at),
        (Limited::Key(task.limit_key.clone()), limits.key_cap, limits.key_running, limits.key_free_at),
    ];
    let queue = task.queue.clone();
    scopes.into_iter().find_map(|(of, cap, running, free_at)| match (cap, free_at) {
        (Some(cap), _) if running >= cap => {
            Some(Reason::Capped { queue: queue.clone(), of, running: running.into(), cap: cap.into() })
        }
        (_, Some(until)) if until > limits.now => Some(Reason::RateLimited { queue: queue.clone(), of, until }),
        _ => None,
    })
}
