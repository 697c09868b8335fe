//! What a schedule says, and what is told of it.

use super::times::Timetable;
use crate::{client::Error, record::to_json, workflow::Workflow};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::FromRow;
use std::time::Duration;
use uuid::Uuid;

/// What happens to nominal times at which nobody could start a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum CatchUp {
    /// Nothing: only a time less than a minute old starts a run.
    Skip,
    /// One run, for the newest of them within the window.
    One,
    /// A run for each within the window.
    All,
}

/// What happens when the run before is not over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Overlap {
    /// The time passes without a run.
    Skip,
    /// The first such time waits until the run is over; the others pass.
    BufferOne,
    /// Runs may be under way side by side.
    Allow,
    /// The run is asked to stop, and the newest time starts when it is over.
    CancelOther,
}

/// What a schedule says.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Terms {
    /// Unique within the tenant.
    pub name: String,
    /// Five fields, or six with seconds first.
    pub cron: String,
    /// IANA name, such as `Asia/Tehran`.
    pub time_zone: String,
    /// [`Workflow::NAME`].
    pub kind: String,
    /// [`Workflow::VERSION`].
    pub version: i32,
    /// The workflow as JSON.
    pub input: Value,
    /// Higher goes first.
    pub priority: i16,
    /// About times that passed.
    pub catch_up: CatchUp,
    /// How far back [`CatchUp::One`] and [`CatchUp::All`] reach; at most 366 days.
    pub catch_up_window: Duration,
    /// About runs that are not over.
    pub overlap: Overlap,
    /// Whether it fires at all.
    pub enabled: bool,
}

impl Terms {
    /// Starts `workflow` by `cron` in UTC: one run for what was missed within a day, none beside another.
    ///
    /// # Errors
    /// [`ScheduleError::Engine`] when the workflow cannot be stored.
    pub fn of<W: Workflow>(
        name: impl Into<String>,
        cron: impl Into<String>,
        workflow: &W,
    ) -> Result<Self, ScheduleError> {
        Ok(Self {
            name: name.into(),
            cron: cron.into(),
            time_zone: "UTC".to_owned(),
            kind: W::NAME.to_owned(),
            version: W::VERSION,
            input: to_json(workflow).map_err(Error::Unrecordable)?,
            priority: workflow.priority(),
            catch_up: CatchUp::One,
            catch_up_window: Duration::from_secs(86_400),
            overlap: Overlap::Skip,
            enabled: true,
        })
    }

    pub(super) fn check(&self) -> Result<Timetable, ScheduleError> {
        let named = (1..=100).contains(&self.name.len())
            && self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && self.name.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c));
        if !named {
            return Err(ScheduleError::BadName(self.name.clone()));
        }
        if self.catch_up_window > Duration::from_secs(366 * 86_400) {
            return Err(ScheduleError::BadWindow);
        }
        Timetable::read(&self.cron, &self.time_zone)
    }
}

/// A schedule as it stands.
#[derive(Debug, Clone, Serialize)]
pub struct Schedule {
    /// The schedule.
    pub id: Uuid,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// What it says.
    pub terms: Terms,
    /// Since when nobody wants it to fire.
    pub paused_at: Option<DateTime<Utc>>,
    /// From 1; every change raises it.
    pub revision: i32,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// The next nominal time; none while it is paused or disabled.
    pub next_at: Option<DateTime<Utc>>,
    /// A nominal time that waits until a run is over.
    pub buffered_at: Option<DateTime<Utc>>,
    /// Nominal times that passed without a run because nobody was there in time.
    pub missed: i64,
}

/// What was decided for a nominal time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(type_name = "text", rename_all = "snake_case")]
pub enum Decision {
    /// A run was started.
    Started,
    /// Somebody asked for a run.
    Manual,
    /// Too late for a run.
    Missed,
    /// The run before was not over.
    Overlapped,
    /// Waits until the run before is over.
    Buffered,
    /// Was buffered; a later time took its place.
    Superseded,
}

impl Decision {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::Manual => "manual",
            Self::Missed => "missed",
            Self::Overlapped => "overlapped",
            Self::Buffered => "buffered",
            Self::Superseded => "superseded",
        }
    }
}

/// One nominal time and what became of it.
#[derive(Debug, Clone, Serialize, FromRow)]
pub struct Fire {
    /// The time by the schedule.
    pub nominal_at: DateTime<Utc>,
    /// Revision of the schedule that decided.
    pub revision: i32,
    /// What was decided.
    pub decision: Decision,
    /// The run, if one was started.
    pub run_id: Option<Uuid>,
    /// When it was decided.
    pub decided_at: DateTime<Utc>,
}

/// A schedule whose newest run that is over has failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, FromRow)]
pub struct Failing {
    /// The schedule.
    pub id: Uuid,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// Its name.
    pub name: String,
    /// For which time the run was.
    pub nominal_at: DateTime<Utc>,
    /// The run.
    pub run_id: Uuid,
    /// The code of its failure.
    pub code: Option<String>,
}

/// Why a call about schedules did not succeed.
#[derive(Debug, thiserror::Error)]
pub enum ScheduleError {
    /// The name is not 1 to 100 of `A-Za-z0-9_.:-`.
    #[error("{0:?} is no name for a schedule")]
    BadName(String),
    /// The expression is not cron, or never comes true.
    #[error("{cron:?} is no cron expression: {why}")]
    BadCron {
        /// What was given.
        cron: String,
        /// What is wrong.
        why: String,
    },
    /// The time zone is not in the IANA database.
    #[error("{0:?} is no time zone")]
    BadTimeZone(String),
    /// The window of the catch-up policy is longer than 366 days.
    #[error("the catch-up window is longer than 366 days")]
    BadWindow,
    /// The tenant has a schedule of this name.
    #[error("there is a schedule {0:?} already")]
    NameTaken(String),
    /// There is no such schedule.
    #[error("there is no schedule {0}")]
    NotFound(Uuid),
    /// Somebody has changed it since it was read: it is at this revision now.
    #[error("the schedule was changed: it is at revision {0}")]
    Changed(i32),
    /// The engine said no.
    #[error(transparent)]
    Engine(#[from] Error),
}

impl From<sqlx::Error> for ScheduleError {
    fn from(error: sqlx::Error) -> Self {
        Self::Engine(error.into())
    }
}

#[derive(Debug, FromRow)]
pub(crate) struct ScheduleRow {
    pub(super) id: Uuid,
    pub(super) tenant_id: Uuid,
    pub(super) name: String,
    pub(super) cron: String,
    pub(super) time_zone: String,
    pub(super) kind: String,
    pub(super) version: i32,
    pub(super) input: Value,
    pub(super) priority: i16,
    pub(super) catch_up: CatchUp,
    pub(super) catch_up_seconds: f64,
    pub(super) overlap: Overlap,
    pub(super) enabled: bool,
    pub(super) paused_at: Option<DateTime<Utc>>,
    pub(super) revision: i32,
    pub(super) created_at: DateTime<Utc>,
    pub(super) updated_at: DateTime<Utc>,
    pub(super) decided_until: DateTime<Utc>,
    pub(super) next_at: Option<DateTime<Utc>>,
    pub(super) buffered_at: Option<DateTime<Utc>>,
    pub(super) live_runs: Vec<Uuid>,
    pub(super) missed: i64,
}

impl ScheduleRow {
    pub(super) fn timetable(&self) -> Result<Timetable, ScheduleError> {
        Timetable::read(&self.cron, &self.time_zone)
    }

    pub(super) fn window(&self) -> Duration {
        Duration::try_from_secs_f64(self.catch_up_seconds).unwrap_or_default()
    }

    pub(super) fn decided(
        &self,
        at: DateTime<Utc>,
        now: DateTime<Utc>,
        decision: Decision,
        run_id: Option<Uuid>,
    ) -> Fire {
        Fire { nominal_at: at, revision: self.revision, decision, run_id, decided_at: now }
    }

    pub(super) fn terms(&self) -> Terms {
        Terms {
            name: self.name.clone(),
            cron: self.cron.clone(),
            time_zone: self.time_zone.clone(),
            kind: self.kind.clone(),
            version: self.version,
            input: self.input.clone(),
            priority: self.priority,
            catch_up: self.catch_up,
            catch_up_window: self.window(),
            overlap: self.overlap,
            enabled: self.enabled,
        }
    }
}

impl From<ScheduleRow> for Schedule {
    fn from(row: ScheduleRow) -> Self {
        Self {
            id: row.id,
            tenant_id: row.tenant_id,
            terms: row.terms(),
            paused_at: row.paused_at,
            revision: row.revision,
            created_at: row.created_at,
            updated_at: row.updated_at,
            next_at: row.next_at,
            buffered_at: row.buffered_at,
            missed: row.missed,
        }
    }
}
