//! One operation on many runs, as something that lasts: a frozen set, a preview, what became of each, a pause, an abort.
//!
//! ```text
//!   preview ──begin──▶ running ⇄ paused ──▶ aborted
//!                        └──▶ finished
//! ```
//! Items are taken in order; the outcomes of a batch, their effects and the number of the next item are one commit: a
//! crash repeats nothing and leaves nothing out. Any worker goes on with it, one at a time. What is done anew ([`super::Anew`]) is a batch
//! of its own: it locks what others wait for, in their order, and two in one transaction would break that order.

use super::{By, Filter, Fork, Line, OperationError, Operations, find::WINDOW, sql};
use crate::{
    client::{Error, RunState},
    failpoint::{At as _, Point},
    store,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection, FromRow, PgConnection};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Longest frozen set.
const LARGEST: usize = 1_000_000;
/// Items in one transaction.
const BATCH: i64 = 100;
/// Runs that a preview shows.
const SAMPLE: i64 = 20;

/// What is to be done to each run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
pub enum Action {
    /// See [`Operations::retry`].
    Retry,
    /// See [`Operations::cancel`].
    Cancel,
    /// See [`Operations::set_priority`].
    SetPriority {
        /// The new one.
        priority: i16,
    },
}

/// What a bulk operation would do.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preview {
    /// The operation; it does nothing before [`Operations::begin`].
    pub id: Uuid,
    /// How many runs it is about: these, whatever fits the filter later.
    pub total: i32,
    /// The same by kind, state and tenant.
    pub counts: Vec<super::Total>,
    /// Some of them.
    pub sample: Vec<Line>,
    /// How many of each kind fit the filter as well, and are left out.
    pub left_out: BTreeMap<String, i64>,
}

/// A bulk operation as it stands.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct Bulk {
    /// The operation.
    pub id: Uuid,
    /// Who wants it.
    pub actor: String,
    /// `retry`, `cancel`, `set_priority`.
    pub action: String,
    /// Details of the action.
    pub params: Value,
    /// What it was made from.
    pub filter: Value,
    /// Why.
    pub reason: String,
    /// `previewed`, `running`, `paused`, `aborted`, `finished`.
    pub state: String,
    /// Items a second, at most; none: as fast as it goes.
    pub rate_per_second: Option<f64>,
    /// Items in all.
    pub total: i32,
    /// The first item that nothing has been done about, from 1.
    pub next_n: i32,
    /// Items that were done.
    pub done: i32,
    /// Items whose run had moved on.
    pub skipped: i32,
    /// Items that something stood in the way of.
    pub conflicts: i32,
    /// Items that could not be done.
    pub failed: i32,
    /// When the set was frozen.
    pub created_at: DateTime<Utc>,
    /// When it was begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it came to its end.
    pub finished_at: Option<DateTime<Utc>>,
}

impl Bulk {
    /// The tenant whose runs it is about; none: several tenants', or everybody's.
    pub fn tenant(&self) -> Option<Uuid> {
        self.filter["tenant"].as_str().and_then(|tenant| tenant.parse().ok())
    }
}

/// One run of a bulk operation, and what became of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Item {
    /// From 1.
    pub n: i32,
    /// The run.
    pub run_id: Uuid,
    /// `done`, `skipped`, `conflict`, `failed`; none before its turn.
    pub outcome: Option<String>,
    /// Why, if it was not done.
    pub note: Option<String>,
    /// The run that a retry has made.
    pub result_run_id: Option<Uuid>,
}

impl Operations {
    /// Freezes the runs that fit `filter` at this moment, and shows what would happen to them.
    ///
    /// # Errors
    /// [`OperationError::Bad`] when nothing fits, more than a million do, or there is no reason.
    pub async fn preview(
        &self,
        tx: &mut PgConnection,
        by: &By,
        action: Action,
        filter: &Filter,
        rate_per_second: Option<f64>,
    ) -> Result<Preview, OperationError> {
        self.preview_of(tx, by, action, (filter, |_| true), rate_per_second).await
    }

    /// As [`Operations::preview`], of the kinds that are wanted; how many others fit the filter is told.
    ///
    /// # Errors
    /// As [`Operations::preview`].
    pub async fn preview_of(
        &self,
        tx: &mut PgConnection,
        by: &By,
        action: Action,
        (filter, wanted): (&Filter, fn(&str) -> bool),
        rate_per_second: Option<f64>,
    ) -> Result<Preview, OperationError> {
        filter.check()?;
        let filter = &filter.settled();
        let Some(reason) = by.reason.as_deref().filter(|reason| !reason.trim().is_empty()) else {
            return Err(OperationError::Bad("an operation on many runs needs a reason".to_owned()));
        };
        if rate_per_second.is_some_and(|rate| !(0.001..=100_000.0).contains(&rate)) {
            return Err(OperationError::Bad("a rate is 0.001 to 100000 items a second".to_owned()));
        }
        let (runs, left_out) = self.freeze(tx, filter, wanted).await?;
        if runs.is_empty() {
            return Err(OperationError::Bad(match left_out.is_empty() {
                true => "no run fits the filter".to_owned(),
                false => {
                    let kinds: Vec<_> = left_out.iter().map(|(kind, n)| format!("{n} of {kind}")).collect();
                    format!("every run that fits the filter is of a kind that is left out: {}", kinds.join(", "))
                }
            }));
        }
        let new = sql::NewBulk {
            id: Uuid::now_v7(),
            by,
            reason,
            action: json!(action),
            filter: json!(filter),
            rate_per_second,
        };
        sql::insert_bulk(tx, &new, &runs).await?;
        let counts = sql::bulk_counts(&mut *tx, new.id).await?;
        let sample = sql::lines(tx, &runs[..runs.len().min(SAMPLE as usize)]).await?;
        let target = format!("bulk:{}", new.id);
        let after = json!({ "action": action, "filter": filter, "total": runs.len(), "left_out": left_out });
        sql::audit(tx, by, "bulk_preview", filter.tenant, &target, None, Some(after)).await?;
        Ok(Preview { id: new.id, total: runs.len() as i32, counts, sample, left_out })
    }

    /// What `by` has previewed by this key, with what was asked then. Whoever asks by the same key waits until this transaction ends.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn preview_known(
        &self,
        tx: &mut PgConnection,
        by: &By,
        key: &str,
    ) -> Result<Option<(Preview, String)>, OperationError> {
        let Some(id) = sql::bulk_by_key(&mut *tx, &by.actor, key).await? else { return Ok(None) };
        let Some(bulk) = sql::bulk_of(&mut *tx, id).await? else { return Ok(None) };
        let items = sql::items_of(&mut *tx, id, 1, SAMPLE).await?;
        let some: Vec<Uuid> = items.into_iter().map(|item| item.run_id).collect();
        let counts = sql::bulk_counts(&mut *tx, id).await?;
        let sample = sql::lines(tx, &some).await?;
        let left_out = serde_json::from_value(bulk.params["left_out"].clone()).unwrap_or_default();
        let asked = bulk.params["asked"].as_str().unwrap_or_default().to_owned();
        Ok(Some((Preview { id, total: bulk.total, counts, sample, left_out }, asked)))
    }

    /// Keeps by which key a preview was asked for, and what was asked, for [`Operations::preview_known`]; in its transaction.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn keep_key(
        &self,
        tx: &mut PgConnection,
        preview: &Preview,
        key: &str,
        asked: &str,
    ) -> Result<(), OperationError> {
        let known = json!({ "key": key, "asked": asked, "left_out": preview.left_out });
        Ok(sql::keep_key(tx, preview.id, &known).await?)
    }

    /// As [`Operations::preview`], about the items of another operation that failed or were in conflict.
    ///
    /// # Errors
    /// [`OperationError::NotFound`]; [`OperationError::Bad`] when nothing is left over.
    pub async fn preview_rest(&self, tx: &mut PgConnection, by: &By, bulk_id: Uuid) -> Result<Preview, OperationError> {
        let Some(bulk) = sql::bulk_of(&mut *tx, bulk_id).await? else { return Err(no_bulk(bulk_id)) };
        let action: Action = read_action(&bulk)?;
        let runs = sql::left_over(&mut *tx, bulk_id).await?;
        if runs.is_empty() {
            return Err(OperationError::Bad("nothing is left over".to_owned()));
        }
        let reason = by.reason.as_deref().unwrap_or(&bulk.reason);
        let mut filter = json!({ "rest_of": bulk_id });
        if let Some(tenant) = bulk.filter.get("tenant").filter(|tenant| tenant.is_string()) {
            filter["tenant"] = tenant.clone();
        }
        let rate_per_second = bulk.rate_per_second;
        let new = sql::NewBulk { id: Uuid::now_v7(), by, reason, action: json!(action), filter, rate_per_second };
        sql::insert_bulk(tx, &new, &runs).await?;
        let counts = sql::bulk_counts(&mut *tx, new.id).await?;
        let sample = sql::lines(tx, &runs[..runs.len().min(SAMPLE as usize)]).await?;
        let (target, after) = (format!("bulk:{}", new.id), json!({ "rest_of": bulk_id, "total": runs.len() }));
        sql::audit(tx, by, "bulk_preview", bulk.tenant(), &target, None, Some(after)).await?;
        Ok(Preview { id: new.id, total: runs.len() as i32, counts, sample, left_out: BTreeMap::new() })
    }

    /// The runs that fit and are of a kind that is wanted, and how many of which other kinds fit.
    async fn freeze(
        &self,
        tx: &mut PgConnection,
        filter: &Filter,
        wanted: fn(&str) -> bool,
    ) -> Result<(Vec<Uuid>, BTreeMap<String, i64>), OperationError> {
        let (mut runs, mut left_out, mut cursor) = (Vec::new(), BTreeMap::new(), None);
        loop {
            let end = sql::window_end(&mut *tx, filter, cursor, WINDOW).await?;
            let mut lines = sql::find(&mut *tx, filter, cursor, end, i64::MAX).await?;
            if filter.dead {
                let ids: Vec<Uuid> = lines.iter().map(|line| line.id).collect();
                let mended = sql::mended(&mut *tx, &ids).await?;
                lines.retain(|line| !mended.contains(&line.id));
            }
            for line in lines {
                match wanted(&line.kind) {
                    true => runs.push(line.id),
                    false => *left_out.entry(line.kind).or_default() += 1,
                }
            }
            if runs.len() > LARGEST {
                return Err(OperationError::Bad(format!("more than {LARGEST} runs fit the filter")));
            }
            cursor = end;
            if end.is_none() {
                return Ok((runs, left_out));
            }
        }
    }

    /// Begins what was previewed, or goes on with what was paused. `confirmed` must be the number of items.
    ///
    /// # Errors
    /// [`OperationError::Bad`] when the number is wrong; [`OperationError::Moved`] when it runs or is over.
    pub async fn begin(
        &self,
        tx: &mut PgConnection,
        by: &By,
        bulk_id: Uuid,
        confirmed: i32,
    ) -> Result<(), OperationError> {
        let Some(bulk) = sql::bulk_of(&mut *tx, bulk_id).await? else { return Err(no_bulk(bulk_id)) };
        if bulk.total != confirmed {
            return Err(OperationError::Bad(format!("it is about {} runs, not {confirmed}", bulk.total)));
        }
        self.turn(tx, by, bulk_id, "bulk_begin", &["previewed", "paused"], "running").await
    }

    /// Lets an operation rest after its current batch.
    ///
    /// # Errors
    /// [`OperationError::Moved`] when it does not run.
    pub async fn pause_bulk(&self, tx: &mut PgConnection, by: &By, bulk_id: Uuid) -> Result<(), OperationError> {
        self.turn(tx, by, bulk_id, "bulk_pause", &["running"], "paused").await
    }

    /// Ends an operation for good; what was done stays done.
    ///
    /// # Errors
    /// [`OperationError::Moved`] when it is over.
    pub async fn abort_bulk(&self, tx: &mut PgConnection, by: &By, bulk_id: Uuid) -> Result<(), OperationError> {
        self.turn(tx, by, bulk_id, "bulk_abort", &["previewed", "running", "paused"], "aborted").await
    }

    async fn turn(
        &self,
        tx: &mut PgConnection,
        by: &By,
        bulk_id: Uuid,
        action: &str,
        from: &[&str],
        to: &str,
    ) -> Result<(), OperationError> {
        let Some(before) = sql::turn_bulk(tx, bulk_id, from, to).await? else {
            return Err(match sql::bulk_of(tx, bulk_id).await? {
                Some(_) => OperationError::Moved(format!("operation {bulk_id}")),
                None => no_bulk(bulk_id),
            });
        };
        let (before, after) = (json!({ "state": before }), json!({ "state": to }));
        // Whose runs it is about hears of it as well.
        let tenant = sql::bulk_of(&mut *tx, bulk_id).await?.and_then(|bulk| bulk.tenant());
        Ok(sql::audit(tx, by, action, tenant, &format!("bulk:{bulk_id}"), Some(before), Some(after)).await?)
    }

    /// An operation; `None` when there is none.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn bulk(&self, bulk_id: Uuid) -> Result<Option<Bulk>, OperationError> {
        let mut db = self.pool.acquire().await?;
        Ok(sql::bulk_of(&mut db, bulk_id).await?)
    }

    /// The items of an operation in order, from number `from` on.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn items(&self, bulk_id: Uuid, from: i32, limit: u32) -> Result<Vec<Item>, OperationError> {
        Ok(sql::items_of(&self.pool, bulk_id, from, i64::from(limit).min(1000)).await?)
    }

    /// Does the next batch of an operation that runs and is not too fast, as workers do by themselves. Answers how many
    /// items it did; none when there is nothing to do now.
    ///
    /// # Errors
    /// [`OperationError::Engine`], or a retryable [`OperationError::Refused`]: nothing of the batch was done.
    pub async fn work_on_bulk(&self) -> Result<usize, OperationError> {
        Ok(self.next_batch().await?.items)
    }

    /// As [`Operations::work_on_bulk`]; says as well whether another batch may follow at once.
    pub(super) async fn next_batch(&self) -> Result<Batch, OperationError> {
        let mut tx = self.pool.begin().at(Point::BulkBegin).await?;
        let Some((bulk_id, allowed)) = sql::pick_bulk(&mut tx, BATCH).await? else { return Ok(Batch::default()) };
        let Some(bulk) = sql::bulk_of(&mut tx, bulk_id).await? else { return Ok(Batch::default()) };
        let action = read_action(&bulk)?;
        let mut items = sql::items_of(&mut *tx, bulk_id, bulk.next_n, allowed).await?;
        let found = items.len();
        if action == Action::Retry {
            let some = self.at_once(&mut tx, &items).await?;
            items.truncate(some);
        } else {
            // As all writers do: in the order of their tasks.
            sql::lock_items(&mut tx, &items).await?;
        }
        let by = By::new(bulk.actor.clone()).because(format!("{} (operation {bulk_id})", bulk.reason));
        let mut ends = Vec::with_capacity(items.len());
        for item in &items {
            // Nothing of an item that cannot be done stays.
            let mut point = tx.begin().at(Point::BulkItemBegin).await?;
            let end = match self.act(&mut point, &by, action, item.run_id).await {
                Ok(made) => {
                    point.commit().at(Point::BulkItemCommit).await?;
                    sql::ItemEnd { n: item.n, outcome: "done", note: None, result_run_id: made }
                }
                Err(error) if passes(&error) => return Err(error),
                Err(error) => {
                    point.rollback().at(Point::BulkItemRollback).await?;
                    let outcome = match error {
                        OperationError::Moved(_) => "skipped",
                        OperationError::Conflict(_) => "conflict",
                        _ => "failed",
                    };
                    sql::ItemEnd { n: item.n, outcome, note: Some(error.to_string()), result_run_id: None }
                }
            };
            ends.push(end);
        }
        sql::end_items(&mut tx, bulk_id, &ends).await?;
        tx.commit().at(Point::BulkCommit).await?;
        self.client.announce();
        Ok(Batch { items: items.len(), more: items.len() < found || found as i64 == BATCH })
    }

    /// How many of these items, from the first on, are tried again in one transaction: up to one that is done anew, and that one alone.
    async fn at_once(&self, tx: &mut PgConnection, items: &[Item]) -> Result<usize, OperationError> {
        if self.anew.is_none() {
            return Ok(items.len());
        }
        let runs: Vec<Uuid> = items.iter().map(|item| item.run_id).collect();
        let lines = sql::lines(tx, &runs).await?;
        let alone = |run_id: Uuid| lines.iter().any(|l| l.id == run_id && self.anew_for(&l.kind).is_some());
        Ok(items.iter().position(|item| alone(item.run_id)).map_or(items.len(), |before| before.max(1)))
    }

    async fn act(
        &self,
        tx: &mut PgConnection,
        by: &By,
        action: Action,
        run_id: Uuid,
    ) -> Result<Option<Uuid>, OperationError> {
        match action {
            Action::Retry => Ok(Some(self.retry(tx, by, run_id, &Fork::from_failure()).await?.run_id)),
            Action::Cancel => self.cancel(tx, by, run_id).await.map(|()| None),
            Action::SetPriority { priority } => self.set_priority(tx, by, run_id, priority).await.map(|()| None),
        }
    }

    /// Failures with their causes, newest first: the runs that have failed and have not been tried again.
    ///
    /// # Errors
    /// [`OperationError::Bad`] when the filter makes no sense.
    pub async fn dead_letters(
        &self,
        filter: &Filter,
        after: Option<Uuid>,
        limit: u32,
    ) -> Result<super::Page, OperationError> {
        let filter = Filter { states: vec![RunState::Failed], ..filter.clone() };
        let mut page = self.find(&filter, after, limit).await?;
        let ids: Vec<Uuid> = page.runs.iter().map(|run| run.id).collect();
        let mended = sql::mended(&self.pool, &ids).await?;
        page.runs.retain(|run| !mended.contains(&run.id));
        Ok(page)
    }

    /// What is known about a failure: the last attempts at what failed, the newest first.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn evidence(&self, run_id: Uuid) -> Result<Vec<Evidence>, OperationError> {
        Ok(sql::evidence_of(&self.pool, run_id).await?)
    }

    /// Causes of failures with how often they occurred among the newest 10 000, the most frequent first.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn causes(&self, tenant: Option<Uuid>) -> Result<Vec<Cause>, OperationError> {
        Ok(sql::causes(&self.pool, tenant, WINDOW).await?)
    }
}

/// What came of a look at the operations that run.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Items that had their turn.
    items: usize,
    /// Whether nothing is known to hold up the next ones: neither the rate nor the end.
    pub more: bool,
}

/// One failed attempt.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct Evidence {
    /// The step key; empty for the run itself.
    pub key: String,
    /// From 1.
    pub attempt_no: i32,
    /// Who made it.
    pub worker: String,
    /// How it ended.
    pub outcome: String,
    /// What went wrong, with its evidence.
    pub failure: Option<Value>,
    /// When it ended.
    pub ended_at: DateTime<Utc>,
}

/// Failures with one fingerprint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Cause {
    /// See [`Line::fingerprint`].
    pub fingerprint: String,
    /// The code.
    pub code: String,
    /// The message of the newest.
    pub message: Option<String>,
    /// Kinds and versions of the runs, such as `notify.v1`.
    pub versions: Vec<String>,
    /// How many runs.
    pub runs: i64,
    /// How many tenants.
    pub tenants: i64,
    /// The oldest, among those looked at.
    pub first_at: DateTime<Utc>,
    /// The newest.
    pub last_at: DateTime<Utc>,
}

/// Whether an item is worth another try by itself, and with it its batch.
fn passes(error: &OperationError) -> bool {
    match error {
        OperationError::Refused(failure) => failure.retryable,
        OperationError::Engine(Error::Database(error)) => store::is_transient(error),
        _ => false,
    }
}

fn no_bulk(bulk_id: Uuid) -> OperationError {
    OperationError::NotFound(format!("operation {bulk_id}"))
}

fn read_action(bulk: &Bulk) -> Result<Action, OperationError> {
    serde_json::from_value(bulk.params.clone())
        .map_err(|e| OperationError::Bad(format!("the operation is unreadable: {e}")))
}
