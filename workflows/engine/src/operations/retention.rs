//! How long things are kept: what is old goes by whole partitions, never row by row; see
//! `migrations/39_workflow_retention.sql`.

use super::{By, OperationError, Operations, sql};
use crate::{
    client::Error,
    failpoint::{At as _, Point},
    retry,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use serde_json::json;
use sqlx::{FromRow, PgConnection};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// How often a worker looks for what is old.
const ROUND: Duration = Duration::from_secs(3600);
/// After a round that found tables in use.
const SOON: Duration = Duration::from_secs(60);
/// A payload that no row names after so long will not be named any more.
const SWEPT_AFTER: Duration = Duration::from_secs(7 * 86_400);
/// Longer is for ever.
const LONGEST: Duration = Duration::from_secs(100 * 366 * 86_400);

/// How long things are kept after they are over; by default everything for ever.
///
/// Counted from the end of the partition they lie in, so at most one month (or day, see [`Operations::partition_by`]) longer.
/// The audit, the lineage of forks and business keys are always kept: [`crate::Client::start`] with the key of a run that
/// is gone still answers with its id.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Retention {
    runs: Option<Duration>,
    jobs: Option<Duration>,
    fires: Option<Duration>,
}

impl Retention {
    /// Everything for ever.
    pub fn forever() -> Self {
        Self::default()
    }

    /// Runs go, with their record, their attempts and their attributes, when they were started and are over for that long.
    /// What is not over stays, whatever its age, and so does what a run has become by
    /// [`continue_as_new`](crate::Context::continue_as_new).
    #[must_use]
    pub fn runs(mut self, keep: Duration) -> Self {
        self.runs = Some(keep);
        self
    }

    /// Finished jobs go.
    #[must_use]
    pub fn jobs(mut self, keep: Duration) -> Self {
        self.jobs = Some(keep);
        self
    }

    /// Decisions of schedules go.
    #[must_use]
    pub fn fires(mut self, keep: Duration) -> Self {
        self.fires = Some(keep);
        self
    }

    fn terms(self) -> impl Iterator<Item = (Series, Duration)> {
        let all = [(Series::Runs, self.runs), (Series::Jobs, self.jobs), (Series::Fires, self.fires)];
        all.into_iter().filter_map(|(series, keep)| Some((series, keep?))).filter(|(_, keep)| *keep < LONGEST)
    }
}

/// Tables that are partitioned together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Series {
    /// Runs, their records, attempts and attributes, by the time in the id of the run.
    Runs,
    /// Finished jobs, by their end.
    Jobs,
    /// What schedules have decided, by the nominal time.
    Fires,
}

/// How long a partition is, in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Piece {
    /// From midnight to midnight.
    Day,
    /// A calendar month; the default.
    Month,
}

/// What became of a partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Fate {
    /// It is gone.
    Dropped,
    /// It is gone, and a small one with what is to be kept took its place.
    Condensed,
    /// Less than half of it may go: another time.
    Kept,
    /// Its tables were in use for too long: another time.
    Busy,
}

/// A partition that was old enough.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Retired {
    /// Of which tables.
    pub series: Series,
    /// Its beginning.
    pub from_at: DateTime<Utc>,
    /// Its end.
    pub until_at: DateTime<Utc>,
    /// What became of it.
    pub fate: Fate,
    /// Runs that went; none for jobs and schedules, which nobody counts.
    pub gone: Option<i64>,
    /// Runs that stayed.
    pub kept: i64,
}

impl Operations {
    /// Drops what `retention` no longer keeps, a partition and a transaction at a time, each with an audit row; says what
    /// became of every partition that was old enough, the newest first. Repeating it is harmless, and one call works at a time.
    ///
    /// Whoever writes waits for the exchange of a partition only, some milliseconds. Reading what goes takes seconds per
    /// million runs, and nobody waits for that.
    ///
    /// # Errors
    /// [`OperationError::Engine`], also when this role does not own the tables.
    pub async fn retire(&self, by: &By, retention: &Retention) -> Result<Vec<Retired>, OperationError> {
        let mut report = Vec::new();
        for (series, keep) in retention.terms() {
            for piece in sql::old_pieces(&self.pool, series, keep).await? {
                let mut tx = self.pool.begin().await?;
                let retired = sql::retire_piece(&mut tx, &piece).await?;
                if matches!(retired.fate, Fate::Dropped | Fate::Condensed) {
                    let target = format!("partition:{}{}", piece.name, piece.suffix);
                    sql::audit(&mut tx, by, "retire", None, &target, None, Some(json!(retired))).await?;
                }
                tx.commit().at(Point::RetentionCommit).await?;
                report.push(retired);
            }
        }
        Ok(report)
    }

    /// Deletes from the store of [`Payloads`](crate::Payloads) what has been there for longer than `older_than` and no row names:
    /// what went with a partition, and what was kept for a commit that never came. Says how many. A worker with a
    /// [retention](crate::worker::Builder::retention) does it by itself whenever it has dropped something, for what is older than a week.
    ///
    /// `older_than` is to be longer than a value may wait for its commit: a transaction, or a worker that waits for a database that
    /// is away. Reads every row once, so it takes as long as that takes. Repeating it is harmless.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn sweep_payloads(&self, older_than: Duration) -> Result<u64, OperationError> {
        let payloads = &self.client.payloads;
        if !payloads.has_store() {
            return Ok(0);
        }
        let named = sql::named_payloads(&mut *self.pool.begin().await?).await?;
        Ok(payloads.sweep(&named, older_than).await.map_err(Error::Payload)?)
    }

    /// How long the next partitions of a series are; those that are there stay as they are.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn partition_by(
        &self,
        tx: &mut PgConnection,
        by: &By,
        series: Series,
        piece: Piece,
    ) -> Result<(), OperationError> {
        let name = sql::partition_by(tx, series, piece).await?;
        let after = json!({ "piece": piece });
        Ok(sql::audit(tx, by, "partition_by", None, &format!("partition:{name}"), None, Some(after)).await?)
    }
}

/// A partition that is old enough.
#[derive(Debug, FromRow)]
pub(crate) struct OldPiece {
    pub series: Series,
    /// The first table of its series.
    pub name: String,
    pub suffix: String,
    pub from_at: DateTime<Utc>,
    pub until_at: DateTime<Utc>,
    /// What ended before may go.
    pub before: DateTime<Utc>,
}

/// Looks for what is old until `stop`, as soon as a worker begins and then every hour. Any number of workers may.
pub(crate) async fn keep_retention(operations: Operations, retention: Retention, stop: CancellationToken) {
    let by = By::new("retention");
    loop {
        let pause = match stop.run_until_cancelled(operations.retire(&by, &retention)).await {
            Some(Ok(report)) => {
                for retired in report.iter().filter(|r| matches!(r.fate, Fate::Dropped | Fate::Condensed)) {
                    tracing::info!(?retired, "what was old is gone");
                }
                if report.iter().any(|r| matches!(r.fate, Fate::Dropped | Fate::Condensed)) {
                    sweep(&operations).await;
                }
                if report.iter().any(|r| r.fate == Fate::Busy) { SOON } else { ROUND }
            }
            Some(Err(error)) => {
                tracing::warn!(%error, "cannot drop what is old");
                SOON
            }
            None => return,
        };
        if stop.run_until_cancelled(tokio::time::sleep(retry::jittered(pause))).await.is_none() {
            return;
        }
    }
}

async fn sweep(operations: &Operations) {
    match operations.sweep_payloads(SWEPT_AFTER).await {
        Ok(0) => {}
        Ok(swept) => tracing::info!(swept, "payloads that nothing names are gone"),
        Err(error) => {
            tracing::warn!(%error, "cannot sweep the store of payloads; the next round that drops something will")
        }
    }
}
