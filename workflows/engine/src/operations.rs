//! What people may do to runs, and what they need to see: for the API and the command line.
//!
//! Whatever changes something takes the caller's transaction and writes its audit row in it; call
//! [`Client::announce`] after the commit. Nothing here counts or scans the hot tables: lists walk keys, a bounded
//! number of rows a page.
//!
//! # What it costs
//! Counters: one delta row per statement that starts or ends runs, 30 to 50 µs for a single run, the same for a thousand
//! started together; folding 20 000 deltas takes 25 ms. Failures have three indexes of their own; a run that succeeds is in
//! none of them. A pause is one look at a primary key per queue and claim.
//!
//! # Retention
//! Runs, finished jobs and decisions of schedules lie in partitions by their time, and go with them: [`Operations::retire`],
//! or [`crate::worker::Builder::retention`] for a worker that does it by itself. A run's partition is that of the time in its id,
//! so whoever knows the id looks in one.

mod anew;
mod bulk;
mod clerk;
mod explain;
mod find;
mod fork;
mod overview;
mod retention;
mod terms;
mod timeline;

pub use anew::Anew;
pub use bulk::{Action, Bulk, Cause, Evidence, Item, Preview};
pub use explain::{Explanation, Limited, Reason};
pub use find::{Filter, Line, Page};
pub use fork::{Fork, Forked, Lineage, StepNow};
pub use overview::{AuditFilter, Child, Culprit, FailedIn, OfferNow, OldestSnapshot, VersionNow};
pub use retention::{Fate, Piece, Retention, Retired, Series};
pub use terms::{Rate, Revival, Share, Terms};
pub use timeline::{Doing, Span};
pub(crate) use {
    clerk::keep,
    explain::{Facts, Offer},
    retention::{OldPiece, keep_retention},
    timeline::{AttemptRow, MarkRow},
};

use crate::{
    client::{Client, Error},
    failure::Failure,
    record::to_payload,
    store::{self, operations as sql},
    wakeup::Ring,
    worker::RUN_QUEUE,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection, PgPool};
use std::sync::Arc;
use uuid::Uuid;

/// Who asks for an operation, and why: kept in the audit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct By {
    /// Who, at most 200 bytes.
    pub actor: String,
    /// Why, at most 1000 bytes.
    pub reason: Option<String>,
}

impl By {
    /// `actor`, who gives no reason.
    pub fn new(actor: impl Into<String>) -> Self {
        Self { actor: actor.into(), reason: None }
    }

    /// Adds why.
    #[must_use]
    pub fn because(mut self, reason: impl Into<String>) -> Self {
        self.reason = Some(reason.into());
        self
    }
}

/// Why an operation was not done. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    /// There is no such thing.
    #[error("there is no {0}")]
    NotFound(String),
    /// It is no longer in a state that the operation makes sense for.
    #[error("{0} has moved on: the operation does not fit its state")]
    Moved(String),
    /// Something else stands in the way.
    #[error("another run stands in the way of {0}")]
    Conflict(String),
    /// The run has no such step.
    #[error("the run has no step {0:?}")]
    NoSuchStep(String),
    /// The filter or a parameter makes no sense.
    #[error("{0}")]
    Bad(String),
    /// What belongs to the run is not to be done again.
    #[error("{}", .0.message)]
    Refused(Failure),
    /// The engine said no.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl From<sqlx::Error> for OperationError {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error.into())
    }
}

/// One operation that somebody did.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct AuditRow {
    /// In the order of the operations, with gaps.
    pub id: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// Whose run it was about.
    pub tenant_id: Option<Uuid>,
    /// `run:<id>`, `task:<id>`, `job:<id>`, `queue:<name>`, `bulk:<id>`.
    pub target: String,
    /// Why.
    pub reason: Option<String>,
    /// What it was before.
    pub before: Option<Value>,
    /// What it is now.
    pub after: Option<Value>,
}

/// How many runs there are of a kind and tenant in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Total {
    /// [`crate::Workflow::NAME`].
    pub kind: String,
    /// Whose.
    pub tenant_id: Uuid,
    /// Where they stand.
    pub state: crate::client::RunState,
    /// How many; exact.
    pub n: i64,
}

/// How many runs there are of a kind in a state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct KindTotal {
    /// [`crate::Workflow::NAME`].
    pub kind: String,
    /// Where they stand.
    pub state: crate::client::RunState,
    /// How many; exact.
    pub n: i64,
}

/// A queue that nobody claims from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct PausedQueue {
    /// Its name.
    pub queue: String,
    /// Since when.
    pub paused_at: DateTime<Utc>,
    /// Who paused it.
    pub paused_by: String,
    /// Why.
    pub reason: Option<String>,
}

/// How much ready work a queue has.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct QueueDepth {
    /// Its name.
    pub queue: String,
    /// Runs, activities and jobs that could be claimed now; 10 000 of each, in lines or not, stand for at least so many.
    pub ready: i64,
    /// For how long the oldest of them has been ready.
    pub oldest_seconds: f64,
}

/// Operates runs. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Operations {
    client: Client,
    pool: PgPool,
    anew: Option<Arc<dyn Anew>>,
}

impl Operations {
    /// Operations over the database of `client`.
    pub fn new(client: Client) -> Self {
        Self { pool: client.pool().clone(), client, anew: None }
    }

    /// With how runs are done anew that are no use as copies.
    #[must_use]
    pub fn anew(mut self, anew: Option<Arc<dyn Anew>>) -> Self {
        self.anew = anew;
        self
    }

    // ---- one task

    /// Ends the pause of an activity after a failure: it is ready now.
    ///
    /// # Errors
    /// [`OperationError::Moved`] when it does not wait for its next attempt.
    pub async fn retry_now(&self, tx: &mut PgConnection, by: &By, task_id: i64) -> Result<(), OperationError> {
        let what = format!("task {task_id}");
        let before = sql::task_of(&mut *tx, task_id).await?;
        judge(&sql::retry_now(tx, task_id).await?, &what)?;
        self.task_changed(tx, by, "retry_now", task_id, before, None).await
    }

    /// Takes a leased task away from its holder, uncounted: it is ready for another, and whatever the holder still
    /// writes is refused. An activity that was asked to stop is over with that.
    ///
    /// # Errors
    /// [`OperationError::Moved`] when nobody holds it.
    pub async fn force_release(&self, tx: &mut PgConnection, by: &By, task_id: i64) -> Result<(), OperationError> {
        let what = format!("task {task_id}");
        let before = sql::task_of(&mut *tx, task_id).await?;
        let why = format!("taken away by {}: {}", by.actor, by.reason.as_deref().unwrap_or("no reason given"));
        judge(&sql::force_release(tx, task_id, &why).await?, &what)?;
        self.client.remember(before.iter().map(|task| Ring::Run(task.run_id)).chain([Ring::Cancel]));
        self.task_changed(tx, by, "force_release", task_id, before, None).await
    }

    /// Records `output` for an activity that is not over, as if it had been done; whoever works on it loses the lease.
    /// The definition fails with `workflow.undecodable` when it cannot read the output.
    ///
    /// # Errors
    /// [`OperationError::Moved`] when the task is no activity; [`OperationError::NotFound`] when it is over.
    pub async fn skip(
        &self,
        tx: &mut PgConnection,
        by: &By,
        task_id: i64,
        output: &impl Serialize,
    ) -> Result<(), OperationError> {
        let what = format!("task {task_id}");
        let before = sql::task_of(&mut *tx, task_id).await?;
        let tenant = before.as_ref().map(|task| task.tenant_id);
        let output = self.client.stored_for(output, async { Ok(tenant) }).await?;
        judge(&sql::skip(tx, task_id, &output).await?, &what)?;
        if let Some(task) = &before {
            self.client.remember([Ring::Run(task.run_id), Ring::Cancel]);
        }
        self.task_changed(tx, by, "skip", task_id, before, Some(json!({ "output": output }))).await
    }

    async fn task_changed(
        &self,
        tx: &mut PgConnection,
        by: &By,
        action: &str,
        task_id: i64,
        before: Option<sql::TaskNote>,
        after: Option<Value>,
    ) -> Result<(), OperationError> {
        let (tenant, queue) = before.as_ref().map(|t| (t.tenant_id, t.queue.clone())).unzip();
        self.client.remember(queue.into_iter().chain([RUN_QUEUE.to_owned()]).map(Ring::Queue));
        let before = before.map(|task| json!(task));
        Ok(sql::audit(tx, by, action, tenant, &format!("task:{task_id}"), before, after).await?)
    }

    // ---- one run

    /// Asks a run to stop; see [`Client::cancel`].
    ///
    /// # Errors
    /// [`OperationError::Moved`] when it is over or was asked before.
    pub async fn cancel(&self, tx: &mut PgConnection, by: &By, run_id: Uuid) -> Result<(), OperationError> {
        let run = store::runs::find(&mut *tx, run_id).await?.map(crate::client::Run::from);
        let Some(run) = run else { return Err(OperationError::NotFound(format!("run {run_id}"))) };
        let reason = by.reason.as_deref().unwrap_or("cancelled by an operator");
        if !self.client.cancel(tx, run_id, reason).await? {
            return Err(OperationError::Moved(format!("run {run_id}")));
        }
        let target = format!("run:{run_id}");
        Ok(sql::audit(tx, by, "cancel", Some(run.tenant_id), &target, Some(json!({ "state": run.state })), None)
            .await?)
    }

    /// Changes the priority of a live run and of what it has asked for; what is under way goes on.
    ///
    /// # Errors
    /// [`OperationError::Moved`] when it is over.
    pub async fn set_priority(
        &self,
        tx: &mut PgConnection,
        by: &By,
        run_id: Uuid,
        priority: i16,
    ) -> Result<(), OperationError> {
        let what = format!("run {run_id}");
        let run = store::runs::find(&mut *tx, run_id).await?.map(crate::client::Run::from);
        let Some(run) = run else { return Err(OperationError::NotFound(what)) };
        judge(&sql::set_priority(tx, run_id, priority).await?, &what)?;
        let (before, after) = (json!({ "priority": run.priority }), json!({ "priority": priority }));
        let target = format!("run:{run_id}");
        Ok(sql::audit(tx, by, "set_priority", Some(run.tenant_id), &target, Some(before), Some(after)).await?)
    }

    /// Sets what a run may be found by: a JSON object, merged into what is there. No audit: programs do this.
    ///
    /// # Errors
    /// [`OperationError::Bad`] when it is no object, larger than 4 KiB, or makes more than 8 KiB with what is there, which fails the
    /// transaction; [`OperationError::NotFound`].
    pub async fn set_attributes(
        &self,
        tx: &mut PgConnection,
        run_id: Uuid,
        attributes: &Value,
    ) -> Result<(), OperationError> {
        let stored = to_payload(attributes).map_err(Error::Unrecordable)?;
        if !stored.is_object() || stored.to_string().len() > 4096 {
            return Err(OperationError::Bad("attributes are a JSON object of at most 4 KiB".to_owned()));
        }
        match sql::set_attributes(tx, run_id, &stored).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(OperationError::NotFound(format!("run {run_id}"))),
            Err(sqlx::Error::Database(error)) if error.is_check_violation() => {
                Err(OperationError::Bad("the attributes of a run are at most 8 KiB together".to_owned()))
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes a run that is over, with its record. `second_role`: whether somebody else than the actor, with the right
    /// to, has agreed; without that it is refused.
    ///
    /// # Errors
    /// [`OperationError::Bad`] without the second role; [`OperationError::Moved`] when the run is not over.
    pub async fn purge(
        &self,
        tx: &mut PgConnection,
        by: &By,
        run_id: Uuid,
        second_role: bool,
    ) -> Result<(), OperationError> {
        if !second_role {
            return Err(OperationError::Bad("a purge needs a second role".to_owned()));
        }
        let what = format!("run {run_id}");
        let run = store::runs::find(&mut *tx, run_id).await?.map(crate::client::Run::from);
        let Some(run) = run else { return Err(OperationError::NotFound(what)) };
        judge(&sql::purge(tx, run_id).await?, &what)?;
        let before = json!({ "kind": run.kind, "state": run.state, "business_key": run.business_key,
            "created_at": run.created_at, "code": run.error.map(|e| e.code) });
        Ok(sql::audit(tx, by, "purge", Some(run.tenant_id), &format!("run:{run_id}"), Some(before), None).await?)
    }

    // ---- queues

    /// Lets nobody claim from a queue; what is leased goes on. False when it is paused already.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn pause_queue(&self, tx: &mut PgConnection, by: &By, queue: &str) -> Result<bool, OperationError> {
        if !sql::pause_queue(tx, by, queue).await? {
            return Ok(false);
        }
        let after = json!({ "paused": true });
        sql::audit(tx, by, "pause_queue", None, &format!("queue:{queue}"), None, Some(after)).await?;
        Ok(true)
    }

    /// Lets work be claimed from a queue again. False when it is not paused.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn resume_queue(&self, tx: &mut PgConnection, by: &By, queue: &str) -> Result<bool, OperationError> {
        let Some(before) = sql::resume_queue(tx, queue).await? else { return Ok(false) };
        self.client.remember([Ring::Queue(queue.to_owned())]);
        sql::audit(tx, by, "resume_queue", None, &format!("queue:{queue}"), Some(json!(before)), None).await?;
        Ok(true)
    }

    /// The queues that are paused.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn paused_queues(&self) -> Result<Vec<PausedQueue>, OperationError> {
        Ok(sql::paused_queues(&self.pool).await?)
    }

    // ---- looking

    /// The queues with ready work, by name. Costs a bounded number of index entries per queue.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn queue_depths(&self) -> Result<Vec<QueueDepth>, OperationError> {
        Ok(sql::ready_by_queue(&self.pool).await?)
    }

    /// How many runs there are, from the maintained counters: exact, and as cheap with ten million as with ten.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn totals(&self, tenant: Option<Uuid>) -> Result<Vec<Total>, OperationError> {
        Ok(sql::totals(&self.pool, tenant).await?)
    }

    /// The same, summed over tenants unless there is one.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn totals_by_kind(&self, tenant: Option<Uuid>) -> Result<Vec<KindTotal>, OperationError> {
        Ok(sql::totals_by_kind(&self.pool, tenant).await?)
    }

    /// Folds what has happened since into the counters; workers do it by themselves. Answers how much there was.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn fold_counters(&self) -> Result<i64, OperationError> {
        Ok(sql::fold_counts(&self.pool).await?.0)
    }

    /// What was done to a target, newest first: `run:<id>`, `task:<id>`, `job:<id>`, `queue:<name>`, `bulk:<id>`.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn audit_of(&self, target: &str, limit: u32) -> Result<Vec<AuditRow>, OperationError> {
        Ok(sql::audit_of(&self.pool, target, i64::from(limit).min(500)).await?)
    }
}

/// What a function of the schema answers, as a result.
fn judge(outcome: &str, what: &str) -> Result<(), OperationError> {
    match outcome {
        "done" => Ok(()),
        "not_found" => Err(OperationError::NotFound(what.to_owned())),
        "conflict" => Err(OperationError::Conflict(what.to_owned())),
        _ => Err(OperationError::Moved(what.to_owned())),
    }
}
