//! Deciding about nominal times, under the lock on the row of the schedule.

use super::{Decision, Fire, Overlap, ScheduleError, ScheduleRow, Schedules, times::Due};
use crate::{client::StartRequest, measures, store, trace::TraceContext, wakeup::Ring, worker::RUN_QUEUE};
use chrono::{DateTime, Utc};
use sqlx::PgConnection;
use uuid::Uuid;

impl Schedules {
    pub(super) async fn locked(
        &self,
        tx: &mut PgConnection,
        id: Uuid,
    ) -> Result<(ScheduleRow, DateTime<Utc>), ScheduleError> {
        if !store::schedules::lock(tx, id).await? {
            return Err(ScheduleError::NotFound(id));
        }
        store::schedules::find(tx, id).await?.ok_or(ScheduleError::NotFound(id))
    }

    /// Locks a schedule and decides all that is due, so that a change only counts from now on.
    pub(super) async fn settle(
        &self,
        tx: &mut PgConnection,
        id: Uuid,
    ) -> Result<(ScheduleRow, DateTime<Utc>), ScheduleError> {
        let (mut row, now) = self.locked(tx, id).await?;
        while row.next_at.is_some_and(|next| next <= now) {
            row = self.decide(tx, row, now).await?;
        }
        Ok((row, now))
    }

    /// Decides about the times up to `now`, or as many as fit a transaction; the row is locked.
    pub(super) async fn decide(
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
        for fire in &fires {
            metrics::counter!(measures::SCHEDULE_FIRES, "decision" => fire.decision.as_str()).increment(1);
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
    pub(super) async fn launch(
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
        metrics::histogram!(measures::SCHEDULE_LAG_SECONDS).record(lag);
        Ok(row.decided(at, now, Decision::Started, Some(run_id)))
    }

    pub(super) async fn start(
        &self,
        tx: &mut PgConnection,
        row: &ScheduleRow,
        at: DateTime<Utc>,
    ) -> Result<Uuid, ScheduleError> {
        let key = format!("schedule:{}:{}", row.id, at.to_rfc3339_opts(chrono::SecondsFormat::AutoSi, true));
        let request = StartRequest {
            tenant_id: row.tenant_id,
            kind: &row.kind,
            version: row.version,
            business_key: Some(&key),
            input: row.input.clone(),
            priority: row.priority,
            // Nobody asked but the clock: a trace begins here.
            traceparent: TraceContext::current().or_else(|| Some(TraceContext::root())),
        };
        self.client.remember([Ring::Queue(RUN_QUEUE.to_owned())]);
        match store::runs::insert(tx, &request).await? {
            Some(run_id) => Ok(run_id),
            None => {
                let run_id = store::runs::by_key(tx, &row.kind, row.tenant_id, Some(&key)).await?;
                Ok(run_id.ok_or(sqlx::Error::RowNotFound)?)
            }
        }
    }

    pub(super) async fn cancel_live(&self, tx: &mut PgConnection, row: &ScheduleRow) -> Result<(), ScheduleError> {
        for run_id in &row.live_runs {
            self.client.cancel(tx, *run_id, "the schedule starts a newer run").await?;
        }
        Ok(())
    }
}
