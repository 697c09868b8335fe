//! A new run out of an old one: the records before a step are copied, the rest happens anew.

use super::{By, OperationError, Operations, judge, sql};
use crate::{
    activity::{Activity, Labels, Policy},
    client::{Error, Run},
    record::{limit_key, to_json, warm_key},
    store,
    wakeup::Ring,
    worker::RUN_QUEUE,
    workflow::Workflow,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::{Value, json};
use sqlx::{FromRow, PgConnection};
use uuid::Uuid;

/// What a fork is to do otherwise than its origin.
///
/// Chance ([`crate::Context::random`]) and idempotency keys are those of the new run; a definition that makes keys out of
/// chance cannot be forked.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Fork {
    from_key: Option<String>,
    input: Option<Value>,
    version: Option<i32>,
    step: Option<StepNow>,
}

/// The activity of the step that a fork begins with, as it is to be done now.
#[derive(Debug, Clone, PartialEq)]
pub struct StepNow {
    activity: &'static str,
    queue: &'static str,
    input: Value,
    labels: Labels,
    limit_key: String,
    warm_key: Option<String>,
    policy: Policy,
}

impl StepNow {
    /// Another input, and with it its policy, its labels and its keys, for the same activity.
    ///
    /// # Errors
    /// [`OperationError::Engine`] when the input or a key cannot be stored.
    pub fn of<A: Activity>(input: &A) -> Result<Self, OperationError> {
        Ok(Self {
            activity: A::NAME,
            queue: A::QUEUE,
            labels: input.labels(),
            limit_key: limit_key(input).map_err(Error::Unrecordable)?,
            warm_key: warm_key(input).map_err(Error::Unrecordable)?,
            policy: input.policy(),
            input: to_json(input).map_err(Error::Unrecordable)?,
        })
    }

    /// Another policy than the input asks for.
    #[must_use]
    pub fn policy(mut self, policy: Policy) -> Self {
        self.policy = policy;
        self
    }

    /// With its input in the form in which it is stored.
    fn stored(&self, input: Value) -> Value {
        let p = &self.policy;
        let seconds = |d: std::time::Duration, least: f64| d.as_secs_f64().clamp(least, 86_400.0);
        json!({
            "activity": self.activity, "queue": self.queue, "input": input, "labels": self.labels,
            "limit_key": self.limit_key, "warm_key": self.warm_key,
            "max_failures": p.max_failures.clamp(1, i32::MAX as u32), "max_losses": p.max_losses.clamp(1, i32::MAX as u32),
            "backoff_base": seconds(p.backoff_base, 0.0), "backoff_cap": seconds(p.backoff_cap, 0.0),
            "lease": seconds(p.lease, 0.1), "start_to_close": p.start_to_close.as_secs_f64().clamp(0.001, 1e9),
        })
    }
}

impl Fork {
    /// From the step whose failure ended the run.
    pub fn from_failure() -> Self {
        Self::default()
    }

    /// From the step with this key; everything that was recorded before it is kept.
    pub fn from_step(key: impl Into<String>) -> Self {
        Self { from_key: Some(key.into()), ..Self::default() }
    }

    /// With another input for the run. It is read as `W` first, so that the new run can begin.
    ///
    /// # Errors
    /// [`OperationError::Bad`] when it is not an input of `W`.
    pub fn input<W: Workflow>(mut self, input: Value) -> Result<Self, OperationError> {
        serde_json::from_value::<W>(input.clone())
            .map_err(|e| OperationError::Bad(format!("the input does not fit {}: {e}", W::NAME)))?;
        self.input = Some(to_json(&input).map_err(Error::Unrecordable)?);
        self.version = Some(W::VERSION);
        Ok(self)
    }

    /// With another version of the definition.
    #[must_use]
    pub fn version(mut self, version: i32) -> Self {
        self.version = Some(version.max(1));
        self
    }

    /// With another input or policy for the step that it begins with.
    #[must_use]
    pub fn step(mut self, step: StepNow) -> Self {
        self.step = Some(step);
        self
    }
}

/// A run that was made out of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Forked {
    /// The new run.
    pub run_id: Uuid,
    /// How many records it has from its origin.
    pub copied: i64,
}

/// Which run was made out of which.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Lineage {
    /// The run.
    pub run_id: Uuid,
    /// The run it was made out of.
    pub origin_run_id: Uuid,
    /// The first of them all.
    pub root_run_id: Uuid,
    /// `retry` or `fork`.
    pub how: String,
    /// The step it began with; none when it began from the start or after the last record.
    pub from_key: Option<String>,
    /// Its first so many records are those of its origin.
    pub copied: i64,
    /// Whether an input was changed.
    pub edited: bool,
    /// When.
    pub created_at: DateTime<Utc>,
}

impl Operations {
    /// Tries a failed or cancelled run again from the step that failed, as a new run; `changes` may say otherwise. A run
    /// that has taken back what it had done begins from the start. One that is no use as a copy is done anew: see
    /// [`super::Anew`].
    ///
    /// # Errors
    /// [`OperationError::Moved`] when it has not failed; [`OperationError::Conflict`] when a retry of it is under way or has
    /// succeeded, or when it could not take back everything.
    pub async fn retry(
        &self,
        tx: &mut PgConnection,
        by: &By,
        run_id: Uuid,
        changes: &Fork,
    ) -> Result<Forked, OperationError> {
        let failed = store::runs::find(&mut *tx, run_id).await?.map(Run::from);
        let Some((failed, anew)) = failed.and_then(|run| self.anew_for(&run.kind).map(|anew| (run, anew))) else {
            return self.fork_as(tx, by, run_id, "retry", changes).await;
        };
        if changes.from_key.is_some() || changes.input.is_some() || changes.step.is_some() {
            return Err(OperationError::Bad(format!(
                "a {} is done anew as it was, and from its beginning",
                failed.kind
            )));
        }
        self.do_anew(tx, by, failed, anew).await
    }

    /// Makes a run out of another, whatever became of that; it is not touched. The business key stays with the origin, and
    /// so does a parent that waits for it.
    ///
    /// # Errors
    /// [`OperationError::NotFound`]; [`OperationError::NoSuchStep`].
    pub async fn fork(
        &self,
        tx: &mut PgConnection,
        by: &By,
        run_id: Uuid,
        changes: &Fork,
    ) -> Result<Forked, OperationError> {
        self.fork_as(tx, by, run_id, "fork", changes).await
    }

    async fn fork_as(
        &self,
        tx: &mut PgConnection,
        by: &By,
        origin: Uuid,
        how: &str,
        changes: &Fork,
    ) -> Result<Forked, OperationError> {
        let what = format!("run {origin}");
        let run = store::runs::find(&mut *tx, origin).await?.map(Run::from);
        let Some(run) = run else { return Err(OperationError::NotFound(what)) };
        let input = match &changes.input {
            Some(input) => Some(self.client.stored(run.tenant_id, input).await?),
            None => None,
        };
        let step = match &changes.step {
            Some(step) => Some(step.stored(self.client.stored(run.tenant_id, &step.input).await?)),
            None => None,
        };
        let asked = sql::NewFork {
            origin,
            new: store::runs::new_id(&mut *tx).await?,
            how,
            from: changes.from_key.as_deref(),
            input: input.as_ref(),
            version: changes.version,
            step: step.as_ref(),
        };
        match sql::fork(tx, &asked).await?.as_str() {
            "no_such_step" => return Err(OperationError::NoSuchStep(changes.from_key.clone().unwrap_or_default())),
            outcome => judge(outcome, &what)?,
        }
        let queue = changes.step.as_ref().map(|step| Ring::Queue(step.queue.to_owned()));
        self.client.remember(queue.into_iter().chain([Ring::Queue(RUN_QUEUE.to_owned())]));
        let copied = sql::lineage_of(&mut *tx, asked.new).await?.map_or(0, |lineage| lineage.copied);
        let before = json!({ "state": run.state, "code": run.error.map(|e| e.code) });
        // Inputs hold secrets, and nothing is ever removed from the audit: what they are is with the new run.
        let edited = input.is_some() || step.is_some();
        let after = json!({ "run_id": asked.new, "from": asked.from, "copied": copied, "edited": edited });
        let target = format!("run:{origin}");
        sql::audit(tx, by, how, Some(run.tenant_id), &target, Some(before), Some(after)).await?;
        Ok(Forked { run_id: asked.new, copied })
    }

    /// What a run was made out of, and what was made out of it, oldest first.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn lineage(&self, run_id: Uuid) -> Result<(Option<Lineage>, Vec<Lineage>), OperationError> {
        let origin = sql::lineage_of(&self.pool, run_id).await?;
        Ok((origin, sql::made_from(&self.pool, run_id).await?))
    }
}
