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

mod deciding;
mod keeper;
mod terms;
mod times;

pub(crate) use keeper::keep;
pub(crate) use terms::ScheduleRow;
pub use terms::{CatchUp, Decision, Failing, Fire, Overlap, Schedule, ScheduleError, Terms};

use crate::{
    client::{Client, Error},
    failpoint::{At as _, Point},
    store,
};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use times::Timetable;
use uuid::Uuid;

/// Longest page of a list.
const PAGE: i64 = 500;

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
        let terms = &self.stored(tenant, terms).await?;
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
            let input = self.client.opened(tenant, row.input.clone()).await?;
            if (Terms { input, ..row.terms() }) != *terms {
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
        let terms = self.stored(row.tenant_id, terms).await?;
        Ok(store::schedules::update(tx, id, &terms, now, next_at).await?)
    }

    /// Terms with the input in the form in which it is stored.
    async fn stored(&self, tenant: Uuid, terms: &Terms) -> Result<Terms, ScheduleError> {
        Ok(Terms { input: self.client.stored(tenant, &terms.input).await?, ..terms.clone() })
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

    /// A schedule; `None` when there is none. An input that cannot be read here is shown as it is stored.
    ///
    /// # Errors
    /// [`ScheduleError::Engine`].
    pub async fn find(&self, id: Uuid) -> Result<Option<Schedule>, ScheduleError> {
        let Some((row, _)) = store::schedules::find(&self.pool, id).await? else { return Ok(None) };
        Ok(Some(self.shown(row).await))
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
        let mut schedules = Vec::with_capacity(rows.len());
        for row in rows {
            schedules.push(self.shown(row).await);
        }
        Ok(schedules)
    }

    async fn shown(&self, row: ScheduleRow) -> Schedule {
        let mut schedule = Schedule::from(row);
        self.client.show(schedule.tenant_id, &mut schedule.terms.input).await;
        schedule
    }

    /// What was decided of late, newest first.
    ///
    /// # Errors
    /// [`ScheduleError::Engine`].
    pub async fn fires(&self, id: Uuid, limit: u32) -> Result<Vec<Fire>, ScheduleError> {
        Ok(store::schedules::fires(&self.pool, id, i64::from(limit).min(PAGE)).await?)
    }

    /// Schedules of all tenants whose newest run that is over has failed, up to `limit`; of those that have fired within forty
    /// days, by tenant.
    /// A run that went on as others counts as the last of them. Takes the caller's connection, whose role has to see runs.
    ///
    /// # Errors
    /// Those of the database.
    pub async fn failing(db: &mut PgConnection, limit: i64) -> Result<Vec<Failing>, Error> {
        Ok(store::schedules::failing(db, limit).await?)
    }

    /// Decides everything that is due, as a worker that takes part does once a second. Answers how many schedules were
    /// decided. A schedule that cannot be decided does not hold up the others.
    ///
    /// # Errors
    /// [`ScheduleError::Engine`] when the database cannot be reached.
    pub async fn fire_due(&self) -> Result<usize, ScheduleError> {
        let (mut decided, mut broken) = (0, Vec::new());
        loop {
            let mut tx = self.pool.begin().at(Point::ScheduleBegin).await?;
            let Some(id) = store::schedules::pick_due(&mut tx, &broken).await? else { break };
            let Some((row, now)) = store::schedules::find(&mut *tx, id).await? else { break };
            match self.decide(&mut tx, row, now).await {
                Ok(_) => {
                    tx.commit().at(Point::ScheduleCommit).await?;
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
}
