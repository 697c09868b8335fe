//! Cron: when a run is started by itself. The rows decide, by the clock of the database; `tokio-cron-scheduler` only
//! wakes a process once a second to look at them.
//!
//! ```text
//!   tick ──▶ lock a due row ──▶ times in (decided_until, now] ──catch-up──▶ fire ──overlap──▶ start │ buffer │ leave
//!                                                                             one commit: fires, runs, decided_until
//! ```
//! A nominal time is decided once: its row in `schedule_fires` and the start of its run are one commit, made under the
//! lock on the row of the schedule. Two processes, a crash, a clock set back change nothing about that.
//!
//! A local time that daylight saving skips fires at the first moment after the gap; one that comes twice fires the
//! first time. A pattern that repeats within the hour follows the clock on the wall both times.

mod times;

use crate::{
    client::{Client, Error, StartRequest},
    record::to_payload,
    store,
    wakeup::Ring,
    worker::RUN_QUEUE,
    workflow::Workflow,
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::{FromRow, PgConnection, PgPool};
use std::{sync::Arc, time::Duration};
use times::{Due, Timetable};
use tokio::sync::Notify;
use tokio_cron_scheduler::{Job, JobScheduler};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Should the trigger fail, a process still looks this often.
const FALLBACK: Duration = Duration::from_secs(5);
/// Longest page of a list.
const PAGE: i64 = 500;

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
            input: to_payload(workflow).map_err(Error::Unrecordable)?,
            priority: workflow.priority(),
            catch_up: CatchUp::One,
            catch_up_window: Duration::from_secs(86_400),
            overlap: Overlap::Skip,
            enabled: true,
        })
    }

    fn check(&self) -> Result<Timetable, ScheduleError> {
        let named = (1..=100).contains(&self.name.len())
            && self.name.starts_with(|c: char| c.is_ascii_alphanumeric())
            && self.name.chars().all(|c| c.is_ascii_alphanumeric() || "_.:-".contains(c));
        if !named {
            return Err(ScheduleError::BadName(self.name.clone()));
        }
        if self.catch_up_window > Duration::from_secs(366 * 86_400) {
            return Err(ScheduleError::BadWindow);
        }
        to_payload(&self.input).map_err(Error::Unrecordable)?;
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

/// Makes, changes and fires schedules. What writes takes the caller's transaction; call [`Client::announce`] after it.
#[derive(Debug, Clone)]
pub struct Schedules {
    client: Client,
    pool: PgPool,
}

impl Schedules {
    /// Schedules over the database of `client`.
    pub fn new(client: Client) -> Self {
        Self { pool: client.pool().clone(), client }
    }

    /// Makes a schedule; its first time is the first after now.
    ///
    /// # Errors
    /// [`ScheduleError::NameTaken`] and those about the terms.
    pub async fn create(&self, tx: &mut PgConnection, tenant: Uuid, terms: &Terms) -> Result<Uuid, ScheduleError> {
        let timetable = terms.check()?;
        let now = store::runs::now(&mut *tx).await?;
        let next_at = terms.enabled.then(|| timetable.after(now)).flatten();
        store::schedules::insert(tx, Uuid::now_v7(), tenant, terms, next_at)
            .await?
            .ok_or_else(|| ScheduleError::NameTaken(terms.name.clone()))
    }

    /// Sees to it that the schedule of this name says `terms`: for those that a program brings along. One that says so
    /// already, whether paused or not, stays as it is.
    ///
    /// # Errors
    /// Those about the terms.
    pub async fn ensure(&self, tx: &mut PgConnection, tenant: Uuid, terms: &Terms) -> Result<Uuid, ScheduleError> {
        loop {
            match self.create(tx, tenant, terms).await {
                Err(ScheduleError::NameTaken(_)) => {}
                made => return made,
            }
            let Some(id) = store::schedules::id_of(&mut *tx, tenant, &terms.name).await? else { continue };
            let Some((row, _)) = store::schedules::find(&mut *tx, id).await? else { continue };
            if row.terms() != *terms {
                self.update(tx, id, None, terms).await?;
            }
            return Ok(id);
        }
    }

    /// Replaces what a schedule says. What was due until now is first decided by what it said before; `revision`, if
    /// given, must be the one it is at.
    ///
    /// # Errors
    /// [`ScheduleError::Changed`], [`ScheduleError::NotFound`], [`ScheduleError::NameTaken`] and those about the terms.
    pub async fn update(
        &self,
        tx: &mut PgConnection,
        id: Uuid,
        revision: Option<i32>,
        terms: &Terms,
    ) -> Result<(), ScheduleError> {
        let timetable = terms.check()?;
        let (row, now) = self.settle(tx, id).await?;
        if revision.is_some_and(|revision| revision != row.revision) {
            return Err(ScheduleError::Changed(row.revision));
        }
        if terms.name != row.name && store::schedules::id_of(&mut *tx, row.tenant_id, &terms.name).await?.is_some() {
            return Err(ScheduleError::NameTaken(terms.name.clone()));
        }
        let fires = terms.enabled && row.paused_at.is_none();
        let next_at = fires.then(|| timetable.after(now)).flatten();
        Ok(store::schedules::update(tx, id, terms, now, next_at).await?)
    }

    /// Lets times pass until [`Schedules::resume`]; they are not caught up. False when it is paused already.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn pause(&self, tx: &mut PgConnection, id: Uuid) -> Result<bool, ScheduleError> {
        let (row, now) = self.settle(tx, id).await?;
        if row.paused_at.is_some() {
            return Ok(false);
        }
        store::schedules::set_paused(tx, id, Some(now), now, None).await?;
        Ok(true)
    }

    /// Lets it fire again, from the first time after now. False when it is not paused.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn resume(&self, tx: &mut PgConnection, id: Uuid) -> Result<bool, ScheduleError> {
        let (row, now) = self.locked(tx, id).await?;
        if row.paused_at.is_none() {
            return Ok(false);
        }
        let next_at = if row.enabled { row.timetable()?.after(now) } else { None };
        store::schedules::set_paused(tx, id, None, now, next_at).await?;
        Ok(true)
    }

    /// Removes a schedule; its runs and what was decided stay. Its name is free again.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn delete(&self, tx: &mut PgConnection, id: Uuid) -> Result<(), ScheduleError> {
        self.settle(tx, id).await?;
        Ok(store::schedules::delete(tx, id).await?)
    }

    /// Starts a run now, whatever the schedule says about times, pauses and overlaps.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn run_now(&self, tx: &mut PgConnection, id: Uuid) -> Result<Uuid, ScheduleError> {
        let (mut row, now) = self.locked(tx, id).await?;
        let run_id = self.start(tx, &row, now).await?;
        let fire = row.decided(now, now, Decision::Manual, Some(run_id));
        store::schedules::note(tx, id, row.revision, &[fire]).await?;
        row.live_runs = store::schedules::still_live(&mut *tx, &row.live_runs).await?;
        if row.overlap != Overlap::Allow {
            row.live_runs.push(run_id);
        }
        let (until, next) = (row.decided_until, row.next_at);
        store::schedules::advance(tx, id, until, next, row.buffered_at, &row.live_runs, 0).await?;
        Ok(run_id)
    }

    /// The next `count` times, at most 1000: what it will do if nobody changes it.
    ///
    /// # Errors
    /// [`ScheduleError::NotFound`].
    pub async fn next(&self, id: Uuid, count: usize) -> Result<Vec<DateTime<Utc>>, ScheduleError> {
        let (row, now) = store::schedules::find(&self.pool, id).await?.ok_or(ScheduleError::NotFound(id))?;
        Ok(row.timetable()?.from(now).take(count.min(1000)).collect())
    }

    /// The next `count` times of an expression, without a schedule: for whoever is writing one.
    ///
    /// # Errors
    /// [`ScheduleError::BadCron`], [`ScheduleError::BadTimeZone`].
    pub fn preview(
        cron: &str,
        time_zone: &str,
        after: DateTime<Utc>,
        count: usize,
    ) -> Result<Vec<DateTime<Utc>>, ScheduleError> {
        Ok(Timetable::read(cron, time_zone)?.from(after).take(count.min(1000)).collect())
    }

    /// A schedule; `None` when there is none.
    ///
    /// # Errors
    /// [`ScheduleError::Engine`].
    pub async fn find(&self, id: Uuid) -> Result<Option<Schedule>, ScheduleError> {
        Ok(store::schedules::find(&self.pool, id).await?.map(|(row, _)| row.into()))
    }

    /// Schedules in the order of their names, after the name `after`; of all tenants when none is named.
    ///
    /// # Errors
    /// [`ScheduleError::Engine`].
    pub async fn list(
        &self,
        tenant: Option<Uuid>,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Vec<Schedule>, ScheduleError> {
        let rows = store::schedules::list(&self.pool, tenant, after, i64::from(limit).min(PAGE)).await?;
        Ok(rows.into_iter().map(Schedule::from).collect())
    }

    /// What was decided of late, newest first.
    ///
    /// # Errors
    /// [`ScheduleError::Engine`].
    pub async fn fires(&self, id: Uuid, limit: u32) -> Result<Vec<Fire>, ScheduleError> {
        Ok(store::schedules::fires(&self.pool, id, i64::from(limit).min(PAGE)).await?)
    }

    /// Decides everything that is due, as a worker that takes part does once a second. Answers how many schedules were
    /// decided. A schedule that cannot be decided does not hold up the others.
    ///
    /// # Errors
    /// [`ScheduleError::Engine`] when the database cannot be reached.
    pub async fn fire_due(&self) -> Result<usize, ScheduleError> {
        let (mut decided, mut broken) = (0, Vec::new());
        loop {
            let mut tx = self.pool.begin().await?;
            let Some(id) = store::schedules::pick_due(&mut tx, &broken).await? else { break };
            let Some((row, now)) = store::schedules::find(&mut *tx, id).await? else { break };
            match self.decide(&mut tx, row, now).await {
                Ok(_) => {
                    tx.commit().await?;
                    decided += 1;
                }
                Err(ScheduleError::Engine(Error::Database(e))) if store::is_connection_loss(&e) => return Err(e.into()),
                Err(error) => {
                    tracing::error!(%error, schedule.id = %id, "cannot decide about a schedule");
                    broken.push(id);
                }
            }
        }
        if decided > 0 {
            self.client.announce();
        }
        Ok(decided)
    }

    // ---- deciding

    async fn locked(&self, tx: &mut PgConnection, id: Uuid) -> Result<(ScheduleRow, DateTime<Utc>), ScheduleError> {
        if !store::schedules::lock(tx, id).await? {
            return Err(ScheduleError::NotFound(id));
        }
        store::schedules::find(tx, id).await?.ok_or(ScheduleError::NotFound(id))
    }

    /// Locks a schedule and decides all that is due, so that a change only counts from now on.
    async fn settle(&self, tx: &mut PgConnection, id: Uuid) -> Result<(ScheduleRow, DateTime<Utc>), ScheduleError> {
        let (mut row, now) = self.locked(tx, id).await?;
        while row.next_at.is_some_and(|next| next <= now) {
            row = self.decide(tx, row, now).await?;
        }
        Ok((row, now))
    }

    /// Decides about the times up to `now`, or as many as fit a transaction; the row is locked.
    async fn decide(
        &self,
        tx: &mut PgConnection,
        mut row: ScheduleRow,
        now: DateTime<Utc>,
    ) -> Result<ScheduleRow, ScheduleError> {
        let timetable = row.timetable()?;
        let due = match row.next_at {
            Some(next) if next <= now => Due::find(&timetable, row.catch_up, row.window(), row.decided_until, now),
            _ => Due::nothing(row.decided_until),
        };
        let mut fires: Vec<Fire> = due.missed.iter().map(|at| row.decided(*at, now, Decision::Missed, None)).collect();
        row.live_runs = store::schedules::still_live(&mut *tx, &row.live_runs).await?;
        if row.live_runs.is_empty()
            && row.paused_at.is_none()
            && let Some(at) = row.buffered_at.take()
        {
            fires.push(self.launch(tx, &mut row, at, now).await?);
        }
        for at in due.fire {
            if row.overlap == Overlap::Allow || (row.live_runs.is_empty() && row.buffered_at.is_none()) {
                fires.push(self.launch(tx, &mut row, at, now).await?);
                continue;
            }
            if row.overlap == Overlap::CancelOther {
                self.cancel_live(tx, &row).await?;
                if let Some(before) = row.buffered_at.take() {
                    fires.retain(|fire| fire.nominal_at != before);
                    fires.push(row.decided(before, now, Decision::Superseded, None));
                }
            }
            let waits = row.overlap != Overlap::Skip && row.buffered_at.is_none();
            let decision = if waits { Decision::Buffered } else { Decision::Overlapped };
            if waits {
                row.buffered_at = Some(at);
            }
            fires.push(row.decided(at, now, decision, None));
        }
        store::schedules::note(tx, row.id, row.revision, &fires).await?;
        row.decided_until = due.until;
        if row.next_at.is_some() {
            row.next_at = timetable.after(due.until);
        }
        let (next, buffered, missed) = (row.next_at, row.buffered_at, due.missed_count);
        store::schedules::advance(tx, row.id, due.until, next, buffered, &row.live_runs, missed).await?;
        Ok(row)
    }

    /// Starts the run of a nominal time.
    async fn launch(
        &self,
        tx: &mut PgConnection,
        row: &mut ScheduleRow,
        at: DateTime<Utc>,
        now: DateTime<Utc>,
    ) -> Result<Fire, ScheduleError> {
        let run_id = self.start(tx, row, at).await?;
        if row.overlap != Overlap::Allow {
            row.live_runs.push(run_id);
        }
        let lag = (now - at).to_std().unwrap_or_default();
        metrics::histogram!("flatrender_engine_schedule_lag_seconds").record(lag);
        Ok(row.decided(at, now, Decision::Started, Some(run_id)))
    }

    async fn start(&self, tx: &mut PgConnection, row: &ScheduleRow, at: DateTime<Utc>) -> Result<Uuid, ScheduleError> {
        let key = format!("schedule:{}:{}", row.id, at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
        let request = StartRequest {
            id: Uuid::now_v7(),
            tenant_id: row.tenant_id,
            kind: &row.kind,
            version: row.version,
            business_key: Some(&key),
            input: row.input.clone(),
            priority: row.priority,
        };
        self.client.remember([Ring::Queue(RUN_QUEUE.to_owned())]);
        match store::runs::insert(tx, &request).await? {
            Some(run_id) => Ok(run_id),
            None => Ok(store::runs::by_key(tx, &request).await?.ok_or(sqlx::Error::RowNotFound)?),
        }
    }

    async fn cancel_live(&self, tx: &mut PgConnection, row: &ScheduleRow) -> Result<(), ScheduleError> {
        for run_id in &row.live_runs {
            self.client.cancel(tx, *run_id, "the schedule starts a newer run").await?;
        }
        Ok(())
    }
}

/// Fires what is due for as long as the process works.
pub(crate) async fn keep(schedules: Schedules, stop: CancellationToken) {
    let bell = Arc::new(Notify::new());
    let mut trigger = trigger(bell.clone()).await.inspect_err(|error| {
        tracing::error!(%error, "the trigger of the schedules does not start; they are looked at every few seconds");
    });
    while !stop.is_cancelled() {
        let _ = stop.run_until_cancelled(tokio::time::timeout(FALLBACK, bell.notified())).await;
        if let Some(Err(error)) = stop.run_until_cancelled(schedules.fire_due()).await {
            tracing::warn!(%error, "cannot look at the schedules");
        }
    }
    if let Ok(trigger) = &mut trigger {
        let _ = trigger.shutdown().await;
    }
}

/// Rings once a second.
async fn trigger(bell: Arc<Notify>) -> Result<JobScheduler, tokio_cron_scheduler::JobSchedulerError> {
    let scheduler = JobScheduler::new().await?;
    let ring = move |_, _| {
        bell.notify_one();
    };
    scheduler.add(Job::new("* * * * * *", ring)?).await?;
    scheduler.start().await?;
    Ok(scheduler)
}

#[derive(Debug, FromRow)]
pub(crate) struct ScheduleRow {
    id: Uuid,
    tenant_id: Uuid,
    name: String,
    cron: String,
    time_zone: String,
    kind: String,
    version: i32,
    input: Value,
    priority: i16,
    catch_up: CatchUp,
    catch_up_seconds: f64,
    overlap: Overlap,
    enabled: bool,
    paused_at: Option<DateTime<Utc>>,
    revision: i32,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    decided_until: DateTime<Utc>,
    next_at: Option<DateTime<Utc>>,
    buffered_at: Option<DateTime<Utc>>,
    live_runs: Vec<Uuid>,
    missed: i64,
}

impl ScheduleRow {
    fn timetable(&self) -> Result<Timetable, ScheduleError> {
        Timetable::read(&self.cron, &self.time_zone)
    }

    fn window(&self) -> Duration {
        Duration::try_from_secs_f64(self.catch_up_seconds).unwrap_or_default()
    }

    fn decided(&self, at: DateTime<Utc>, now: DateTime<Utc>, decision: Decision, run_id: Option<Uuid>) -> Fire {
        Fire { nominal_at: at, revision: self.revision, decision, run_id, decided_at: now }
    }

    fn terms(&self) -> Terms {
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
