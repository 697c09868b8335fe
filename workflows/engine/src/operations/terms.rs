//! Terms of queues: whose turn it is, how much at once, how fast. See `migrations/38_workflow_limits.sql`.
//!
//! # What it costs
//! A queue without terms: one look at a key per claim. A queue with terms: its claims go one at a time, each a millisecond or two,
//! whether ten tenants wait or a hundred thousand; one look at a key for every lease it has.
//!
//! # What it does not do
//! Take back what is leased: a tenant waits for a slot to become free. Caps are about leases: a worker that was cut off goes on
//! until it hears that it has lost its own. Jobs and activities of runs in one queue are under the same caps and rates, but each
//! claim is for one kind, so between the two kinds the order of the claims decides.

use super::{By, OperationError, Operations};
use crate::{
    store::{self, limits as sql},
    wakeup::Ring,
    worker::RUN_QUEUE,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgConnection;
use std::time::Duration;
use uuid::Uuid;

/// At most `n` in `per`, at an even pace, by the clock of the database, whoever claims from wherever.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Rate {
    /// How many.
    pub n: u32,
    /// In how long.
    pub per: Duration,
    /// How many more one window may see, when there was less to do before: what lets late workers catch up.
    pub burst: u32,
}

impl Rate {
    /// `n` in `per`, and not one more in any window.
    pub fn new(n: u32, per: Duration) -> Self {
        Self { n, per, burst: 0 }
    }

    /// Up to `burst` more in a window.
    #[must_use]
    pub fn burst(self, burst: u32) -> Self {
        Self { burst, ..self }
    }

    fn check(&self) -> Result<(), OperationError> {
        let fits = self.n >= 1
            && self.burst <= 1_000_000
            && self.n <= 1_000_000
            && (0.001..=86_400.0 * 366.0).contains(&self.per.as_secs_f64());
        match fits {
            true => Ok(()),
            false => Err(OperationError::Bad("a rate is 1 to a million in a millisecond to a year".to_owned())),
        }
    }
}

/// What a queue allows. With any terms, even empty ones, its tenants take turns by slot-seconds; priority goes within a tenant.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Leases at once, of all tenants.
    pub cap: Option<u32>,
    /// Leases at once of one tenant; [`Share::cap`] may say otherwise.
    pub tenant_cap: Option<u32>,
    /// Leases at once of one limit key of a tenant: [`crate::Activity::limit_key`].
    pub key_cap: Option<u32>,
    /// Claims of all tenants.
    pub rate: Option<Rate>,
    /// Claims of one tenant.
    pub tenant_rate: Option<Rate>,
    /// Claims of one limit key of a tenant.
    pub key_rate: Option<Rate>,
}

impl Terms {
    fn check(&self) -> Result<(), OperationError> {
        [self.rate, self.tenant_rate, self.key_rate].iter().flatten().try_for_each(Rate::check)?;
        match [self.cap, self.tenant_cap, self.key_cap].iter().flatten().all(|cap| (1..=1_000_000).contains(cap)) {
            true => Ok(()),
            false => Err(OperationError::Bad("a cap is 1 to a million".to_owned())),
        }
    }
}

/// A tenant that is not like the others.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Share {
    /// Its slot-seconds in proportion to others', which weigh 1; 0.001 to 1000.
    pub weight: f64,
    /// Its leases at once, instead of [`Terms::tenant_cap`].
    pub cap: Option<u32>,
}

/// What became of a job that was to be taken up again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Revival {
    /// It is in its queue.
    Done,
    /// There is no such job that did not go well.
    NotFound,
    /// It is in its queue already, or has gone well since.
    Moved,
    /// Another job has its unique key by now.
    Conflict,
}

impl Operations {
    /// Sets what a queue allows, from the next claim on. What is leased already counts.
    ///
    /// # Errors
    /// [`OperationError::Bad`] when a number is out of bounds, or it is the queue of runs.
    pub async fn set_terms(
        &self,
        tx: &mut PgConnection,
        by: &By,
        queue: &str,
        terms: &Terms,
    ) -> Result<(), OperationError> {
        terms.check()?;
        if queue == RUN_QUEUE {
            return Err(OperationError::Bad("runs wait in memory: terms are for what they ask for".to_owned()));
        }
        let before = sql::terms(&mut *tx, queue).await?;
        sql::set_terms(tx, by, queue, terms).await?;
        self.terms_changed(tx, by, "set_terms", queue, None, before.map(|t| json!(t)), Some(json!(terms))).await
    }

    /// Ends the terms of a queue: it is claimed from by priority and age alone. False when it has none.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn end_terms(&self, tx: &mut PgConnection, by: &By, queue: &str) -> Result<bool, OperationError> {
        let Some(before) = sql::terms(&mut *tx, queue).await? else { return Ok(false) };
        sql::end_terms(tx, by, queue).await?;
        self.terms_changed(tx, by, "end_terms", queue, None, Some(json!(before)), None).await?;
        Ok(true)
    }

    /// Says how a tenant differs from the others of a queue with terms; `None`: not any more.
    ///
    /// # Errors
    /// [`OperationError::NotFound`] when the queue has no terms; [`OperationError::Bad`] when a number is out of bounds.
    pub async fn set_share(
        &self,
        tx: &mut PgConnection,
        by: &By,
        queue: &str,
        tenant_id: Uuid,
        share: Option<Share>,
    ) -> Result<(), OperationError> {
        let fits =
            |s: Share| (0.001..=1000.0).contains(&s.weight) && s.cap.is_none_or(|c| (1..=1_000_000).contains(&c));
        if !share.is_none_or(fits) {
            return Err(OperationError::Bad("a weight is 0.001 to 1000, a cap 1 to a million".to_owned()));
        }
        if sql::terms(&mut *tx, queue).await?.is_none() {
            return Err(OperationError::NotFound(format!("terms of the queue {queue:?}")));
        }
        let before = sql::set_share(tx, queue, tenant_id, share).await?;
        let (before, after) = (before.map(|s| json!(s)), share.map(|s| json!(s)));
        self.terms_changed(tx, by, "set_share", queue, Some(tenant_id), before, after).await
    }

    // ---- jobs that did not go well

    /// Takes up jobs again that failed for good or were cancelled, each under its id and with all its attempts before it. What
    /// became of each, in this order; nothing has changed where it is not [`Revival::Done`].
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn retry_jobs(
        &self,
        tx: &mut PgConnection,
        by: &By,
        ids: &[i64],
    ) -> Result<Vec<(i64, Revival)>, OperationError> {
        let mut outcomes = Vec::with_capacity(ids.len());
        for &id in ids {
            let (outcome, tenant, queue) = store::jobs::revive(&mut *tx, id).await?;
            let outcome = match outcome.as_str() {
                "done" => Revival::Done,
                "conflict" => Revival::Conflict,
                "not_found" => Revival::NotFound,
                _ => Revival::Moved,
            };
            if outcome == Revival::Done {
                self.client.remember(queue.map(Ring::Queue));
                super::sql::audit(&mut *tx, by, "retry_job", tenant, &format!("job:{id}"), None, None).await?;
            }
            outcomes.push((id, outcome));
        }
        Ok(outcomes)
    }

    #[expect(clippy::too_many_arguments, reason = "the columns of an audit row")]
    async fn terms_changed(
        &self,
        tx: &mut PgConnection,
        by: &By,
        action: &str,
        queue: &str,
        tenant: Option<Uuid>,
        before: Option<Value>,
        after: Option<Value>,
    ) -> Result<(), OperationError> {
        self.client.remember([Ring::Queue(queue.to_owned())]);
        let target = format!("queue:{queue}");
        Ok(super::sql::audit(tx, by, action, tenant, &target, before, after).await?)
    }

    /// What a queue allows; `None` when it has no terms.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn terms(&self, queue: &str) -> Result<Option<Terms>, OperationError> {
        Ok(sql::terms(&self.pool, queue).await?)
    }

    /// The queues that have terms, by name.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn all_terms(&self) -> Result<Vec<(String, Terms)>, OperationError> {
        Ok(sql::all_terms(&self.pool).await?)
    }

    /// The tenants of a queue that are not like the others.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn shares(&self, queue: &str) -> Result<Vec<(Uuid, Share)>, OperationError> {
        Ok(sql::shares(&self.pool, queue).await?)
    }
}
