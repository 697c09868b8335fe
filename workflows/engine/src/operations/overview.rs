//! What operators look at first: who works, which versions are under way, what failed of late, what was done by whom.
//!
//! Everything here looks at a bounded number of rows, and says so where it could not see all of them.

use super::{AuditRow, Bulk, OperationError, Operations, find::WINDOW};
use crate::{
    activity::Labels,
    client::{RunState, Task},
    store::{self, overview as sql},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sqlx::{FromRow, types::Json};
use std::time::Duration;
use uuid::Uuid;

/// A run that another asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Child {
    /// The run.
    pub run_id: Uuid,
    /// [`crate::Workflow::NAME`].
    pub kind: String,
    /// Under which key it was asked for.
    pub key: String,
    /// Where it stands.
    pub state: RunState,
    /// When it was started.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// What a live worker does from one queue.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct OfferNow {
    /// The incarnation of the worker.
    pub worker_id: i64,
    /// Its name.
    pub worker: String,
    /// Since when it lives.
    pub started_at: DateTime<Utc>,
    /// The queue.
    pub queue: String,
    /// Activities it knows; kinds and versions of runs, such as `notify.v1`.
    pub names: Vec<String>,
    /// What it has.
    pub labels: Json<Labels>,
    /// Tasks it takes at a time.
    pub slots: i32,
    /// Tasks it holds of this queue.
    pub busy: i64,
}

/// How many runs of a version are under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct VersionNow {
    /// Kind and version, such as `notify.v1`.
    pub name: String,
    /// Runs under way among the 10 000 oldest and the 10 000 newest.
    pub live: i64,
    /// Those of them that wait until somebody resumes them.
    pub parked: i64,
    /// The oldest of them.
    pub oldest_at: Option<DateTime<Utc>>,
    /// Live workers that know it.
    pub workers: i64,
}

/// Failures in a stretch of time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct FailedIn {
    /// Its beginning.
    pub at: DateTime<Utc>,
    /// How many runs failed, among the newest 10 000.
    pub n: i64,
}

/// Who made the attempts of a group of failures.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Culprit {
    /// The worker or node.
    pub worker: String,
    /// The step.
    pub key: String,
    /// Attempts that failed or were lost, of the 200 newest runs of the group.
    pub attempts: i64,
}

/// What somebody looks for in the audit; everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AuditFilter {
    /// Whose runs it was about.
    pub tenant: Option<Uuid>,
    /// Who.
    pub actor: Option<String>,
    /// What.
    pub action: Option<String>,
    /// To what.
    pub target: Option<String>,
}

/// The session that keeps the database from tidying up.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct OldestSnapshot {
    /// What it calls itself.
    pub application: String,
    /// What it does.
    pub state: String,
    /// For how long.
    pub seconds: f64,
}

impl Operations {
    /// The runs that a run has asked for, oldest first: among those that were started soonest after it.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn children(&self, run_id: Uuid) -> Result<Vec<Child>, OperationError> {
        Ok(sql::children(&self.pool, run_id, WINDOW).await?)
    }

    /// What a run is doing right now: its own task first; none once it is over.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn tasks(&self, run_id: Uuid) -> Result<Vec<Task>, OperationError> {
        let mut rows = store::tasks::of_run(&self.pool, run_id).await?;
        rows.sort_by_key(|row| row.kind != "run");
        Ok(rows.into_iter().map(Task::from).collect())
    }

    /// What live workers do, by queue and name.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn offers_now(&self) -> Result<Vec<OfferNow>, OperationError> {
        Ok(sql::offers_now(&self.pool).await?)
    }

    /// Leases by queue.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn leased_by_queue(&self) -> Result<Vec<(String, i64)>, OperationError> {
        Ok(sql::leased_by_queue(&self.pool).await?)
    }

    /// Versions of definitions that have runs under way or workers that know them.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn versions(&self) -> Result<Vec<VersionNow>, OperationError> {
        Ok(sql::versions(&self.pool, WINDOW).await?)
    }

    /// How many runs are parked, by reason; 10 000 stands for at least so many.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn parked(&self) -> Result<Vec<(String, i64)>, OperationError> {
        Ok(store::operations::parked_by_reason(&self.pool).await?)
    }

    /// Failures of the last `back`, in stretches of `every`, oldest first; stretches without any are left out.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn failed_lately(
        &self,
        tenant: Option<Uuid>,
        back: Duration,
        every: Duration,
    ) -> Result<Vec<FailedIn>, OperationError> {
        Ok(sql::failed_lately(&self.pool, tenant, back, every, WINDOW).await?)
    }

    /// Who made the attempts of failures with one fingerprint, the most frequent first.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn culprits(&self, tenant: Option<Uuid>, fingerprint: &str) -> Result<Vec<Culprit>, OperationError> {
        Ok(sql::culprits(&self.pool, tenant, fingerprint).await?)
    }

    /// Operations on many runs, newest first, before `before`; of one tenant: those whose filter says so.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn bulks(
        &self,
        tenant: Option<Uuid>,
        before: Option<Uuid>,
        limit: u32,
    ) -> Result<Vec<Bulk>, OperationError> {
        Ok(sql::bulks(&self.pool, tenant, before, i64::from(limit).min(500)).await?)
    }

    /// What was done, newest first, before `before`; and where to go on, if there may be more.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn audit(
        &self,
        filter: &AuditFilter,
        before: Option<i64>,
        limit: u32,
    ) -> Result<(Vec<AuditRow>, Option<i64>), OperationError> {
        let limit = i64::from(limit.clamp(1, 500));
        let rows = sql::audit_before(&self.pool, filter, before, limit, WINDOW).await?;
        if rows.len() as i64 == limit {
            let next = rows.last().map(|row| row.id);
            return Ok((rows, next));
        }
        let next = sql::audit_window_end(&self.pool, filter.tenant, before, WINDOW).await?;
        Ok((rows, next))
    }

    /// What was done after `after` and is not among the `known`, oldest first; for those who follow. `after` none: nothing, and the newest
    /// number there is.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn audit_after(
        &self,
        tenant: Option<Uuid>,
        after: Option<i64>,
        known: &[i64],
        limit: u32,
    ) -> Result<(Vec<AuditRow>, i64), OperationError> {
        let Some(after) = after else { return Ok((vec![], sql::newest_audit(&self.pool).await?)) };
        let rows = sql::audit_after(&self.pool, tenant, after, known, i64::from(limit).min(500)).await?;
        let newest = rows.last().map_or(after, |row| row.id);
        Ok((rows, newest))
    }

    /// The session that keeps the oldest snapshot of the database, if any.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn oldest_snapshot(&self) -> Result<Option<OldestSnapshot>, OperationError> {
        let found = store::operations::oldest_snapshot(&self.pool).await?;
        Ok(found.map(|s| OldestSnapshot { application: s.application, state: s.state, seconds: s.seconds }))
    }

    /// Lets a parked run go on; see [`crate::Client::resume`].
    ///
    /// # Errors
    /// [`OperationError::Moved`] when it is not parked.
    pub async fn resume(
        &self,
        tx: &mut sqlx::PgConnection,
        by: &super::By,
        run_id: Uuid,
    ) -> Result<(), OperationError> {
        let run = store::runs::find(&mut *tx, run_id).await?.map(crate::client::Run::from);
        let Some(run) = run else { return Err(OperationError::NotFound(format!("run {run_id}"))) };
        if !self.client.resume(&mut *tx, run_id).await? {
            return Err(OperationError::Moved(format!("run {run_id}")));
        }
        let target = format!("run:{run_id}");
        Ok(store::operations::audit(tx, by, "resume", Some(run.tenant_id), &target, None, None).await?)
    }

    /// Sends a signal to a run; see [`crate::Client::signal`].
    ///
    /// # Errors
    /// [`OperationError::Moved`] when the run is over; [`OperationError::Engine`] when name, key or payload do not fit.
    pub async fn signal(
        &self,
        tx: &mut sqlx::PgConnection,
        by: &super::By,
        run_id: Uuid,
        signal: (&str, Option<&str>),
        payload: &serde_json::Value,
    ) -> Result<crate::signals::Delivery, OperationError> {
        let what = format!("run {run_id}");
        let run = store::runs::find(&mut *tx, run_id).await?.map(crate::client::Run::from);
        let Some(run) = run else { return Err(OperationError::NotFound(what)) };
        let (name, key) = signal;
        let delivery = self.client.signal(&mut *tx, run_id, name, key, payload).await?;
        match delivery {
            crate::signals::Delivery::Closed => return Err(OperationError::Moved(what)),
            crate::signals::Delivery::Unknown => return Err(OperationError::NotFound(what)),
            crate::signals::Delivery::Accepted | crate::signals::Delivery::Repeated => {}
        }
        let after = serde_json::json!({ "signal": name, "dedupe_key": key, "delivery": delivery });
        let target = format!("run:{run_id}");
        store::operations::audit(tx, by, "signal", Some(run.tenant_id), &target, None, Some(after)).await?;
        Ok(delivery)
    }
}
