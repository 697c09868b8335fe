//! Jobs: activities that belong to no run.

use super::{Client, Error};
use crate::{
    activity::Activity,
    failure::Failure,
    record::{limit_key, warm_key},
    store::{
        self,
        jobs::{KeyedJob, NewJob, NewJobs},
    },
    trace::TraceContext,
    wakeup::Ring,
};
use chrono::{DateTime, Utc};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// How a job is queued.
#[derive(Debug, Clone, Default)]
pub struct JobOptions {
    /// Higher goes first.
    pub priority: i16,
    /// Not before this moment, by the clock of the database; at once when there is none.
    pub run_at: Option<DateTime<Utc>>,
    /// Of those with the same key there is one.
    pub unique: Option<Unique>,
}

/// A key that one job has at a time. Whoever comes while it is taken is told who has it, and adds nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unique {
    /// 1 to 200 bytes.
    pub key: String,
    /// Among which jobs it is the only one.
    pub scope: Scope,
    /// For how long the job that has it keeps it.
    pub until: Until,
}

impl Unique {
    /// A key that one job of an activity and tenant has until it ends.
    pub fn new(key: impl Into<String>) -> Self {
        Self { key: key.into(), scope: Scope::Activity, until: Until::Ended }
    }

    /// Among other jobs.
    #[must_use]
    pub fn within(self, scope: Scope) -> Self {
        Self { scope, ..self }
    }

    /// For another time.
    #[must_use]
    pub fn until(self, until: Until) -> Self {
        Self { until, ..self }
    }
}

/// Among which jobs a key is the only one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scope {
    /// Those of the tenant with the same activity.
    Activity,
    /// Those of the tenant in the same queue.
    Queue,
    /// Those of the tenant.
    Tenant,
    /// All.
    Everywhere,
}

/// For how long a job keeps its key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Until {
    /// While it is ready: the first claim ends it, and what comes meanwhile is done after it.
    Claimed,
    /// While it is ready or worked on, between attempts too.
    Ended,
    /// That, and for some time after an end of these kinds.
    After {
        /// How long after its end.
        window: Duration,
        /// When it went well.
        ok: bool,
        /// When it failed for good.
        failed: bool,
        /// When it was cancelled.
        cancelled: bool,
    },
}

impl Until {
    fn stored(self) -> Option<Value> {
        match self {
            Self::Claimed => Some(json!({ "until": "claimed" })),
            Self::Ended => None,
            Self::After { window, ok, failed, cancelled } => {
                let outcomes = [("ok", ok), ("failed", failed), ("cancelled", cancelled)];
                let outcomes: Vec<_> = outcomes.iter().filter(|(_, kept)| *kept).map(|(name, _)| *name).collect();
                Some(json!({ "seconds": window.as_secs_f64().min(1e9), "outcomes": outcomes }))
            }
        }
    }
}

/// The key as it is stored: no two scopes can meet.
fn scoped<A: Activity>(scope: Scope, tenant: Uuid, key: &str) -> Result<String, Error> {
    if key.is_empty() || key.len() > 200 || key.contains('\0') {
        let bad = Failure::permanent("workflow.bad_key", format!("{key:?} is not a key: 1 to 200 bytes"));
        return Err(Error::Unrecordable(bad));
    }
    Ok(match scope {
        Scope::Activity => format!("a:{tenant}:{}:{key}", A::NAME),
        Scope::Queue => format!("q:{tenant}:{}:{key}", A::QUEUE),
        Scope::Tenant => format!("t:{tenant}:{key}"),
        Scope::Everywhere => format!("e:{key}"),
    })
}

/// A job, new or there before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Enqueued {
    /// The job.
    pub job_id: i64,
    /// False: it has the key that was asked for.
    pub new: bool,
}

/// Many calls for one thing, of which the last counts: each puts the job off again and replaces its input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Debounce {
    /// 1 to 200 bytes; of one activity and tenant.
    pub key: String,
    /// For so long nothing more may have come.
    pub wait: Duration,
    /// It is put off no further than so long after the first call.
    pub max_wait: Duration,
}

/// At most so many starts in any window.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Throttle {
    /// 1 to 200 bytes; of one tenant.
    pub key: String,
    /// Starts in a window, 1 to 1000.
    pub n: u16,
    /// How long the window is.
    pub per: Duration,
    /// What becomes of the rest.
    pub excess: Excess,
}

/// What becomes of a start that is one too many.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Excess {
    /// It does not take place.
    Dropped,
    /// It takes the next place that is free.
    Deferred,
}

fn new_job<A: Activity>(job: &A, input: Value) -> Result<NewJob, Error> {
    let (policy, labels) = (job.policy(), job.labels());
    Ok(NewJob {
        input,
        policy: store::jobs::stored_policy(&policy),
        labels: (!labels.is_empty()).then(|| json!(labels)),
        limit_key: limit_key(job).map_err(Error::Unrecordable)?,
        warm_key: warm_key(job).map_err(Error::Unrecordable)?,
    })
}

fn shared<A: Activity>(tenant_id: Uuid, options: &JobOptions) -> NewJobs<'static> {
    NewJobs {
        tenant_id,
        queue: A::QUEUE,
        activity: A::NAME,
        priority: options.priority,
        run_at: options.run_at,
        traceparent: TraceContext::current(),
    }
}

impl Client {
    /// Puts a job in its queue, inside the caller's transaction: an activity on its own, whose result nobody waits for, in
    /// the trace of [`TraceContext::current`]. When its unique key is taken, answers with the job that has it; waits for whoever
    /// has asked for the same key and has not committed. Call [`Client::announce`] after the commit.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when the input cannot be stored, or the key has no fitting length; [`Error::Payload`].
    pub async fn enqueue<A: Activity>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        job: A,
        options: &JobOptions,
    ) -> Result<Enqueued, Error> {
        let new = new_job(&job, self.stored(tenant_id, &job).await?)?;
        let shared = shared::<A>(tenant_id, options);
        let enqueued = match &options.unique {
            None => Enqueued { job_id: store::jobs::insert_one(tx, &shared, new).await?, new: true },
            Some(Unique { key, scope, until }) => {
                let key = scoped::<A>(*scope, tenant_id, key)?;
                let keyed = KeyedJob { key, held: until.stored(), waits: None };
                store::jobs::insert_keyed(tx, &shared, new, &keyed).await?.into()
            }
        };
        self.remember([Ring::Queue(A::QUEUE.to_owned())]);
        Ok(enqueued)
    }

    /// Puts a job in its queue a little later, inside the caller's transaction, or puts off the one that waits under the same key
    /// and gives it this input. What comes once that one has been claimed makes another. Calls with one key wait for each other
    /// to commit.
    ///
    /// # Errors
    /// As [`Client::enqueue`].
    pub async fn debounce<A: Activity>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        job: A,
        debounce: &Debounce,
    ) -> Result<Enqueued, Error> {
        let key = format!("d{}", scoped::<A>(Scope::Activity, tenant_id, &debounce.key)?);
        let waits = Some((debounce.wait, debounce.max_wait));
        let keyed = KeyedJob { key, held: Until::Claimed.stored(), waits };
        let shared = shared::<A>(tenant_id, &JobOptions::default());
        let new = new_job(&job, self.stored(tenant_id, &job).await?)?;
        Ok(store::jobs::insert_keyed(tx, &shared, new, &keyed).await?.into())
    }

    /// When something may start under a throttle, decided in the caller's transaction, which is to start it: now, or later when
    /// the excess is deferred. `None`: not at all. Calls with one key wait for each other to commit.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when the key has no fitting length, or there is no such number of starts.
    pub async fn throttle(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        throttle: &Throttle,
    ) -> Result<Option<DateTime<Utc>>, Error> {
        if throttle.key.is_empty() || throttle.key.len() > 200 || !(1..=1000).contains(&throttle.n) {
            let why = format!("{:?} is not a key of 1 to 200 bytes, or {} not 1 to 1000", throttle.key, throttle.n);
            return Err(Error::Unrecordable(Failure::permanent("workflow.bad_key", why)));
        }
        let (key, deferred) = (format!("{tenant_id}:{}", throttle.key), throttle.excess == Excess::Deferred);
        Ok(store::jobs::throttle(tx, &key, throttle.n.into(), throttle.per, deferred).await?)
    }

    /// As [`Client::enqueue`], under a throttle; `None` when the job is dropped. A job that adds nothing, because its unique key
    /// is taken, has its place in the window all the same.
    ///
    /// # Errors
    /// As [`Client::enqueue`] and [`Client::throttle`].
    pub async fn enqueue_throttled<A: Activity>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        job: A,
        throttle: &Throttle,
        options: &JobOptions,
    ) -> Result<Option<Enqueued>, Error> {
        let Some(at) = self.throttle(tx, tenant_id, throttle).await? else { return Ok(None) };
        let options = JobOptions { run_at: Some(options.run_at.map_or(at, |asked| asked.max(at))), ..options.clone() };
        self.enqueue(tx, tenant_id, job, &options).await.map(Some)
    }

    /// As [`Client::enqueue`], for many jobs of one kind, thousands in a statement. The unique key of `options` is not used.
    ///
    /// # Errors
    /// [`Error::Unrecordable`] when an input cannot be stored; [`Error::Payload`].
    pub async fn enqueue_all<A: Activity>(
        &self,
        tx: &mut PgConnection,
        tenant_id: Uuid,
        jobs: impl IntoIterator<Item = A>,
        options: &JobOptions,
    ) -> Result<u64, Error> {
        let jobs: Vec<A> = jobs.into_iter().collect();
        let mut new = Vec::with_capacity(jobs.len());
        for job in jobs {
            new.push(new_job(&job, self.stored(tenant_id, &job).await?)?);
        }
        let inserted = store::jobs::insert(tx, &shared::<A>(tenant_id, options), new).await?;
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
}

impl From<(i64, bool)> for Enqueued {
    fn from((job_id, new): (i64, bool)) -> Self {
        Self { job_id, new }
    }
}
