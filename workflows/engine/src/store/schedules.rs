//! Schedules: their rows, and what was decided for their times.

use crate::failpoint::{At as _, Point};
use crate::schedules::{Failing, Fire, ScheduleRow, Terms};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgExecutor, Result};
use uuid::Uuid;

const COLUMNS: &str = "id, tenant_id, name, cron, time_zone, kind, version, input, priority, catch_up, catch_up_seconds,
    overlap, enabled, paused_at, revision, created_at, updated_at, decided_until, next_at, buffered_at, live_runs, missed";

/// Inserts a schedule. `None`: the tenant has one of this name.
pub(crate) async fn insert(
    db: &mut PgConnection,
    id: Uuid,
    tenant_id: Uuid,
    terms: &Terms,
    next_at: Option<DateTime<Utc>>,
) -> Result<Option<Uuid>> {
    sqlx::query_scalar(
        "insert into workflow.schedules
            (id, tenant_id, name, cron, time_zone, kind, version, input, priority, catch_up, catch_up_seconds, overlap,
             enabled, created_at, updated_at, decided_until, next_at)
         select $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, n.now, n.now, n.now, $14
         from (select workflow.now() as now) n
         on conflict (tenant_id, name) where deleted_at is null do nothing
         returning id",
    )
    .bind(id)
    .bind(tenant_id)
    .bind(&terms.name)
    .bind(&terms.cron)
    .bind(&terms.time_zone)
    .bind(&terms.kind)
    .bind(terms.version)
    .bind(&terms.input)
    .bind(terms.priority)
    .bind(terms.catch_up)
    .bind(terms.catch_up_window.as_secs_f64())
    .bind(terms.overlap)
    .bind(terms.enabled)
    .bind(next_at)
    .fetch_optional(db)
    .at(Point::ScheduleInsert)
    .await
}

/// Replaces the terms; the caller holds the lock. From here on times count from `decided_until`.
pub(crate) async fn update(
    db: &mut PgConnection,
    id: Uuid,
    terms: &Terms,
    decided_until: DateTime<Utc>,
    next_at: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query(
        "update workflow.schedules
         set name = $2, cron = $3, time_zone = $4, kind = $5, version = $6, input = $7, priority = $8, catch_up = $9,
             catch_up_seconds = $10, overlap = $11, enabled = $12, decided_until = $13, next_at = $14,
             revision = revision + 1, updated_at = $13
         where id = $1",
    )
    .bind(id)
    .bind(&terms.name)
    .bind(&terms.cron)
    .bind(&terms.time_zone)
    .bind(&terms.kind)
    .bind(terms.version)
    .bind(&terms.input)
    .bind(terms.priority)
    .bind(terms.catch_up)
    .bind(terms.catch_up_window.as_secs_f64())
    .bind(terms.overlap)
    .bind(terms.enabled)
    .bind(decided_until)
    .bind(next_at)
    .execute(db)
    .at(Point::ScheduleUpdate)
    .await
    .map(|_| ())
}

/// Stops or restarts the clock of a schedule; the caller holds the lock.
pub(crate) async fn set_paused(
    db: &mut PgConnection,
    id: Uuid,
    paused_at: Option<DateTime<Utc>>,
    decided_until: DateTime<Utc>,
    next_at: Option<DateTime<Utc>>,
) -> Result<()> {
    sqlx::query(
        "update workflow.schedules
         set paused_at = $2, decided_until = $3, next_at = $4, revision = revision + 1, updated_at = $3 where id = $1",
    )
    .bind(id)
    .bind(paused_at)
    .bind(decided_until)
    .bind(next_at)
    .execute(db)
    .at(Point::SchedulePause)
    .await
    .map(|_| ())
}

pub(crate) async fn delete(db: &mut PgConnection, id: Uuid) -> Result<()> {
    sqlx::query(
        "update workflow.schedules
         set deleted_at = workflow.now(), next_at = null, buffered_at = null, revision = revision + 1 where id = $1",
    )
    .bind(id)
    .execute(db)
    .at(Point::ScheduleDelete)
    .await
    .map(|_| ())
}

/// Locks the schedule that has been due for longest, or one whose buffered time may start. Never waits.
pub(crate) async fn pick_due(db: &mut PgConnection, except: &[Uuid]) -> Result<Option<Uuid>> {
    let due = sqlx::query_scalar(
        "select id from workflow.schedules where next_at <= workflow.now() and id <> all ($1)
         order by next_at limit 1 for update skip locked",
    )
    .bind(except)
    .fetch_optional(&mut *db)
    .at(Point::SchedulePick)
    .await?;
    if due.is_some() {
        return Ok(due);
    }
    sqlx::query_scalar(
        "select s.id from workflow.schedules s
         where s.buffered_at is not null and s.enabled and s.paused_at is null and s.id <> all ($1)
           and not exists (select from workflow.still_live(s.live_runs))
         limit 1 for update of s skip locked",
    )
    .bind(except)
    .fetch_optional(db)
    .at(Point::SchedulePickBuffered)
    .await
}

/// Locks a schedule; waits for whoever decides about it.
pub(crate) async fn lock(db: &mut PgConnection, id: Uuid) -> Result<bool> {
    let locked: Option<i32> =
        sqlx::query_scalar("select 1 from workflow.schedules where id = $1 and deleted_at is null for update")
            .bind(id)
            .fetch_optional(db)
            .at(Point::ScheduleLock)
            .await?;
    Ok(locked.is_some())
}

/// A schedule and the time.
pub(crate) async fn find(db: impl PgExecutor<'_>, id: Uuid) -> Result<Option<(ScheduleRow, DateTime<Utc>)>> {
    #[derive(sqlx::FromRow)]
    struct Timed {
        #[sqlx(flatten)]
        row: ScheduleRow,
        now: DateTime<Utc>,
    }
    let sql =
        format!("select {COLUMNS}, workflow.now() as now from workflow.schedules where id = $1 and deleted_at is null");
    let found: Option<Timed> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(id).fetch_optional(db).at(Point::ScheduleFind).await?;
    Ok(found.map(|timed| (timed.row, timed.now)))
}

pub(crate) async fn id_of(db: impl PgExecutor<'_>, tenant_id: Uuid, name: &str) -> Result<Option<Uuid>> {
    sqlx::query_scalar("select id from workflow.schedules where tenant_id = $1 and name = $2 and deleted_at is null")
        .bind(tenant_id)
        .bind(name)
        .fetch_optional(db)
        .await
}

/// Schedules by name, of one tenant or of all, after `after`.
pub(crate) async fn list(
    db: impl PgExecutor<'_>,
    tenant_id: Option<Uuid>,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<ScheduleRow>> {
    let sql = format!(
        "select {COLUMNS} from workflow.schedules
         where deleted_at is null and ($1::uuid is null or tenant_id = $1) and ($2::text is null or name > $2)
         order by name, id limit $3"
    );
    sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(tenant_id).bind(after).bind(limit).fetch_all(db).await
}

/// What was decided of late, newest first.
pub(crate) async fn fires(db: impl PgExecutor<'_>, id: Uuid, limit: i64) -> Result<Vec<Fire>> {
    sqlx::query_as(
        "select nominal_at, revision, decision, run_id, decided_at from workflow.schedule_fires
         where schedule_id = $1 order by nominal_at desc limit $2",
    )
    .bind(id)
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Schedules whose newest run that is over has failed.
pub(crate) async fn failing(db: impl PgExecutor<'_>, limit: i64) -> Result<Vec<Failing>> {
    sqlx::query_as(
        "select s.id, s.tenant_id, s.name, last.nominal_at, last.run_id, last.code
         from workflow.schedules s
         cross join lateral (
             select f.nominal_at, o.id as run_id, o.state, o.error ->> 'code' as code
             from workflow.schedule_fires f
             cross join lateral (
                 with recursive chain as (
                     select r.id, r.state, r.error, r.continued_as from workflow.runs r where r.id = f.run_id
                     union all
                     select n.id, n.state, n.error, n.continued_as from chain c join workflow.runs n on n.id = c.continued_as
                 )
                 select * from chain where continued_as is null and state <> 'running'
             ) o
             where f.schedule_id = s.id and f.run_id is not null and f.nominal_at > workflow.now() - interval '40 days'
             order by f.nominal_at desc limit 1
         ) last
         where s.deleted_at is null and last.state = 'failed'
         order by s.tenant_id, s.name limit $1",
    )
    .bind(limit)
    .fetch_all(db)
    .await
}

/// Which of these runs, or of those that go on for them, are not over.
pub(crate) async fn still_live(db: impl PgExecutor<'_>, runs: &[Uuid]) -> Result<Vec<Uuid>> {
    sqlx::query_scalar("select * from workflow.still_live($1)").bind(runs).fetch_all(db).at(Point::ScheduleLive).await
}

/// Notes decisions, one per time; the last word on a time that was buffered replaces the first.
pub(crate) async fn note(db: &mut PgConnection, id: Uuid, revision: i32, decided: &[Fire]) -> Result<()> {
    let (mut times, mut words, mut runs) = (Vec::new(), Vec::new(), Vec::new());
    for fire in decided {
        times.push(fire.nominal_at);
        words.push(fire.decision.as_str());
        runs.push(fire.run_id);
    }
    sqlx::query(
        "insert into workflow.schedule_fires as f (schedule_id, nominal_at, revision, decision, run_id, decided_at)
         select $1, g.at, $2, g.word, g.run_id, workflow.now() from unnest($3, $4, $5::uuid[]) as g (at, word, run_id)
         on conflict (schedule_id, nominal_at) do update
         set decision = excluded.decision, run_id = excluded.run_id, decided_at = excluded.decided_at
         where f.decision = 'buffered'",
    )
    .bind(id)
    .bind(revision)
    .bind(times)
    .bind(words)
    .bind(runs)
    .execute(db)
    .at(Point::ScheduleNote)
    .await
    .map(|_| ())
}

/// Moves a schedule on after a decision; the caller holds the lock.
pub(crate) async fn advance(
    db: &mut PgConnection,
    id: Uuid,
    decided_until: DateTime<Utc>,
    next_at: Option<DateTime<Utc>>,
    buffered_at: Option<DateTime<Utc>>,
    live_runs: &[Uuid],
    missed: i64,
) -> Result<()> {
    sqlx::query(
        "update workflow.schedules
         set decided_until = $2, next_at = $3, buffered_at = $4, live_runs = $5, missed = missed + $6 where id = $1",
    )
    .bind(id)
    .bind(decided_until)
    .bind(next_at)
    .bind(buffered_at)
    .bind(live_runs)
    .bind(missed)
    .execute(db)
    .at(Point::ScheduleAdvance)
    .await
    .map(|_| ())
}
