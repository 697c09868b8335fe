//! Jobs: activities that belong to no run.

use super::{Client, Error};
use crate::{
    activity::Activity,
    record::to_payload,
    store::{
        self,
        jobs::{NewJob, NewJobs},
    },
    trace::TraceContext,
    wakeup::Ring,
};
use chrono::{DateTime, Utc};
use serde_json::json;
use sqlx::PgConnection;
use uuid::Uuid;

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

impl Client {
    /// Puts a job in its queue, inside the caller's transaction: an activity on its own, whose result nobody waits for, in
    /// the trace of [`TraceContext::current`]. False when its unique key has a live job already. Call [`Client::announce`] after the commit.
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
            traceparent: TraceContext::current(),
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
}
