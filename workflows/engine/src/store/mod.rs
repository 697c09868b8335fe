//! The engine's statements: all its SQL outside the migration, a file per noun. Bound parameters only.

pub(crate) mod bulk;
mod find;
pub(crate) mod jobs;
pub(crate) mod limits;
pub(crate) mod operations;
pub(crate) mod overview;
mod retention;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod session;
pub(crate) mod steps;
pub(crate) mod tasks;
pub(crate) mod workers;

use crate::{
    activity::LeasedTask,
    failure::Failure,
    record::{Kind, Record},
    trace,
    wakeup::Ring,
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{FromRow, types::Json};
use std::{collections::HashSet, time::Duration};
use uuid::Uuid;

/// The right to write for one attempt; worth nothing once a newer token exists.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Fence {
    pub task_id: i64,
    pub token: Uuid,
}

/// A task leased to this process.
#[derive(Debug, Clone)]
pub(crate) struct Claimed {
    pub task: LeasedTask,
    pub queue: String,
    /// Set when the task is a run.
    pub run: Option<ClaimedRun>,
    /// When the activity became ready, or the run was started.
    pub at: DateTime<Utc>,
    /// Which way its end takes.
    pub lane: Lane,
}

/// The table that a claim comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lane {
    /// `workflow.tasks`: work of runs, and the runs themselves.
    Task,
    /// `workflow.jobs`: single activities.
    Job,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct ClaimedRun {
    pub created_at: DateTime<Utc>,
    /// Number of its newest record.
    pub seq: i64,
}

impl Claimed {
    pub(crate) fn fence(&self) -> Fence {
        Fence { task_id: self.task.task_id, token: self.task.lease_token }
    }

    /// Since when it could have been claimed, where that is known.
    pub(crate) fn ready_at(&self) -> Option<DateTime<Utc>> {
        self.run.is_none_or(|run| run.seq == 0).then_some(self.at)
    }
}

/// A record that a write of ours has brought about.
#[derive(Debug, Clone)]
pub(crate) struct Recorded {
    /// The task of the run, when the record was all that it asked for.
    pub task_id: Option<i64>,
    pub run_id: Uuid,
    pub seq: i64,
    pub key: String,
    /// The fence of the attempt that wrote it.
    pub token: Option<Uuid>,
    pub outcome: Result<(), Failure>,
    pub recorded_at: DateTime<Utc>,
    /// The incarnation that holds the run.
    pub holder: Option<i64>,
}

/// What a round trip has brought; see the type `workflow.news`.
#[derive(Debug, Clone)]
pub(crate) enum News {
    Settled(Fence),
    Recorded(Box<Recorded>),
    Woken(String),
    Claimed(Box<Claimed>),
    /// The terms of the queue let nothing more be claimed, until then if that is known.
    Held {
        queue: String,
        until: Option<DateTime<Utc>>,
    },
    Clock {
        now: DateTime<Utc>,
        next_due_seconds: Option<f64>,
    },
}

impl News {
    /// The fence of a write that was accepted.
    pub(crate) fn accepts(&self) -> Option<Fence> {
        match self {
            Self::Settled(fence) => Some(*fence),
            Self::Recorded(r) => r.task_id.zip(r.token).map(|(task_id, token)| Fence { task_id, token }),
            _ => None,
        }
    }
}

#[derive(FromRow)]
pub(crate) struct NewsRow {
    what: String,
    queue: Option<String>,
    task_id: Option<i64>,
    run_id: Option<Uuid>,
    tenant_id: Option<Uuid>,
    step_key: Option<String>,
    name: Option<String>,
    body: Option<Value>,
    attempt_no: Option<i32>,
    lease_token: Option<Uuid>,
    lease_seconds: Option<f64>,
    start_to_close_seconds: Option<f64>,
    seq: Option<i64>,
    at: Option<DateTime<Utc>>,
    worker_id: Option<i64>,
    traceparent: Option<String>,
}

impl NewsRow {
    /// What the row says; a recorded fact may wake a queue too.
    pub(crate) fn read(self, news: &mut Vec<News>) {
        match self.what.as_str() {
            "settled" => {
                let fence = self.task_id.zip(self.lease_token);
                news.extend(fence.map(|(task_id, token)| News::Settled(Fence { task_id, token })));
            }
            "woken" => news.extend(self.queue.map(News::Woken)),
            "held" => news.extend(self.queue.map(|queue| News::Held { queue, until: self.at })),
            "clock" => news.extend(self.at.map(|now| News::Clock { now, next_due_seconds: self.lease_seconds })),
            "recorded" => {
                news.extend(self.queue.clone().map(News::Woken));
                news.extend(self.recorded().map(|r| News::Recorded(Box::new(r))));
            }
            _ => news.extend(self.claimed().map(|c| News::Claimed(Box::new(c)))),
        }
    }

    fn recorded(self) -> Option<Recorded> {
        let outcome = match self.name.as_deref() {
            Some("ok") => Ok(()),
            _ => Err(stored_failure(self.body)),
        };
        Some(Recorded {
            task_id: self.task_id,
            run_id: self.run_id?,
            seq: self.seq?,
            key: self.step_key?,
            token: self.lease_token,
            outcome,
            recorded_at: self.at?,
            holder: self.worker_id,
        })
    }

    fn claimed(self) -> Option<Claimed> {
        let run = (self.what == "run").then_some(ClaimedRun { created_at: self.at?, seq: self.seq? });
        let at = self.at?;
        let task = LeasedTask {
            task_id: self.task_id?,
            run_id: self.run_id?,
            tenant_id: self.tenant_id?,
            key: self.step_key?,
            activity: self.name?,
            input: self.body.unwrap_or_default(),
            attempt_no: self.attempt_no?,
            lease_token: self.lease_token?,
            lease_seconds: self.lease_seconds?,
            start_to_close_seconds: self.start_to_close_seconds?,
            traceparent: trace::parse(self.traceparent.as_deref()),
        };
        Some(Claimed { task, queue: self.queue?, run, at, lane: Lane::Task })
    }
}

pub(crate) fn read_news(rows: Vec<NewsRow>) -> Vec<News> {
    let mut news = Vec::with_capacity(rows.len());
    rows.into_iter().for_each(|row| row.read(&mut news));
    news
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

/// What `call` gives; a connection that says nothing for `limit` counts as lost.
pub(crate) async fn in_time<T>(limit: Duration, call: impl Future<Output = sqlx::Result<T>>) -> sqlx::Result<T> {
    let late = |_| sqlx::Error::Io(std::io::Error::new(std::io::ErrorKind::TimedOut, "no answer"));
    tokio::time::timeout(limit, call).await.map_err(late)?
}

/// A failure as it was stored; one that an older or newer engine wrote differently stays readable.
pub(crate) fn stored_failure(json: Option<Value>) -> Failure {
    let json = json.unwrap_or_default();
    serde_json::from_value(json.clone()).unwrap_or_else(|_| {
        Failure::permanent("workflow.unreadable", "the stored failure is unreadable").with_details(json)
    })
}

#[derive(FromRow)]
struct RecordRow {
    run_id: Uuid,
    seq: i64,
    key: String,
    kind: String,
    name: Option<String>,
    outcome: String,
    output: Option<Json<Value>>,
    failure: Option<Value>,
    recorded_at: DateTime<Utc>,
}

impl RecordRow {
    fn read(self) -> (Uuid, Record) {
        let outcome = match self.outcome.as_str() {
            "ok" => Ok(self.output.map_or(Value::Null, |json| json.0)),
            _ => Err(stored_failure(self.failure)),
        };
        let kind = Kind::parse(&self.kind);
        let record =
            Record { seq: self.seq, key: self.key, kind, name: self.name, outcome, recorded_at: self.recorded_at };
        (self.run_id, record)
    }
}

/// Whether the session is not what the driver takes it for: a pooler has reset it, or what it has prepared no longer fits the
/// schema. Every further statement on it may fail as well.
fn is_reset(error: &dyn sqlx::error::DatabaseError) -> bool {
    match error.code().as_deref() {
        // No such prepared statement; its columns have changed since.
        Some("26000") => true,
        Some("0A000") => error.message().starts_with("cached plan"),
        _ => false,
    }
}

/// Whether the session or the server went away, so that nothing is known about the last statement.
pub(crate) fn is_connection_loss(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Database(e) if is_reset(&**e) => true,
        sqlx::Error::Io(_)
        | sqlx::Error::Tls(_)
        | sqlx::Error::Protocol(_)
        | sqlx::Error::PoolTimedOut
        | sqlx::Error::PoolClosed
        | sqlx::Error::WorkerCrashed => true,
        // 08 connection, 57P shutdown, 53 resources
        sqlx::Error::Database(e) => {
            e.code().is_some_and(|c| c.starts_with("08") || c.starts_with("57P") || c.starts_with("53"))
        }
        _ => false,
    }
}

/// Whether the same statement may well succeed a moment later.
pub(crate) fn is_transient(error: &sqlx::Error) -> bool {
    // 40 rollback: deadlock, serialisation; 55P03 lock timeout; 57014 statement timeout
    is_connection_loss(error)
        || matches!(error, sqlx::Error::Database(e) if e.code().is_some_and(
            |c| c.starts_with("40") || c == "55P03" || c == "57014"))
}

/// Every database error of a step is worth another try, except those that say the statement itself is wrong.
impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        let code = error.as_database_error().and_then(|e| e.code()).map(|c| c.into_owned());
        // 22 bad data, 42 bad statement or no right to it, 23502/23503/23514 a promise of the schema, P0001 a trigger's refusal
        let wrong = code.as_deref().is_some_and(|c| {
            c.starts_with("22") || c.starts_with("42") || matches!(c, "23502" | "23503" | "23514" | "23000" | "P0001")
        });
        let details = match code {
            Some(code) => serde_json::json!({ "sqlstate": code, "connection_lost": is_connection_loss(&error) }),
            None => serde_json::json!({ "connection_lost": is_connection_loss(&error) }),
        };
        let failure = if wrong { Self::permanent } else { Self::transient };
        failure(DATABASE, error.to_string()).with_details(details)
    }
}

/// Code of a failure that the database reported.
pub(crate) const DATABASE: &str = "workflow.database";

/// Whether a failure stems from a lost connection: tried again for as long as the lease lasts.
pub(crate) fn is_outage(failure: &Failure) -> bool {
    failure.code == DATABASE && failure.details["connection_lost"] == true
}
