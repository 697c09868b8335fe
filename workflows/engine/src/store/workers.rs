//! Workers: incarnations and the look around.

use super::{News, NewsRow, read_news};
use crate::failpoint::{At as _, Point};
use sqlx::{PgConnection, Result};
use std::time::Duration;

/// Class of the advisory locks that say which incarnations live; also in `workflow.sweep`.
const ALIVE: i32 = 17996;

/// Registers a new incarnation on a session of its own, which holds its lock from before the row exists.
pub(crate) async fn register(db: &mut PgConnection, name: &str) -> Result<i64> {
    let id: i64 = sqlx::query_scalar("select nextval(pg_get_serial_sequence('workflow.workers', 'id'))")
        .fetch_one(&mut *db)
        .at(Point::WorkerNumber)
        .await?;
    sqlx::query("select pg_advisory_lock($1, $2)")
        .bind(ALIVE)
        .bind(id as i32)
        .execute(&mut *db)
        .at(Point::WorkerLock)
        .await?;
    sqlx::query(
        "insert into workflow.workers (id, name, started_at, seen_at)
         overriding system value values ($1, $2, workflow.now(), workflow.now())",
    )
    .bind(id)
    .bind(name)
    .execute(&mut *db)
    .at(Point::WorkerInsert)
    .await?;
    sqlx::query("select workflow.resume_mismatched()").execute(db).at(Point::ResumeMismatched).await?;
    Ok(id)
}

/// Takes an incarnation up again on a new session. `None`: not yet, its old session still holds the lock.
/// `Some(false)`: its peers have given it up.
pub(crate) async fn resume(db: &mut PgConnection, id: i64) -> Result<Option<bool>> {
    let locked: bool = sqlx::query_scalar("select pg_try_advisory_lock($1, $2)")
        .bind(ALIVE)
        .bind(id as i32)
        .fetch_one(&mut *db)
        .at(Point::WorkerTryLock)
        .await?;
    let alive = sqlx::query(
        "update workflow.workers set seen_at = workflow.now(), suspected_at = null where id = $1 and ended_at is null",
    )
    .bind(id)
    .execute(db)
    .at(Point::WorkerResume)
    .await?
    .rows_affected()
        == 1;
    Ok(if !alive { Some(false) } else { locked.then_some(true) })
}

/// The incarnation ends by itself. What it leased without knowing, or could not give back, is ready again, uncounted; the
/// answer names the queues.
pub(crate) async fn retire(db: &mut PgConnection, id: i64) -> Result<Vec<String>> {
    let queues = super::tasks::disown(&mut *db, id, &[]).await?;
    let released = sqlx::query_scalar("select workflow.recover_jobs(array[$1], 'released')");
    let queues = [queues, released.bind(id).fetch_all(&mut *db).at(Point::WorkerReleaseJobs).await?].concat();
    sqlx::query("update workflow.workers set ended_at = workflow.now() where id = $1 and ended_at is null")
        .bind(id)
        .execute(db)
        .at(Point::WorkerEnd)
        .await?;
    Ok(queues)
}

/// See `workflow.sweep`. No row `clock` in the answer: this incarnation was given up.
pub(crate) async fn sweep(db: &mut PgConnection, id: i64, patience: Duration) -> Result<Vec<News>> {
    sqlx::query_as::<_, NewsRow>("select * from workflow.sweep($1, make_interval(secs => $2))")
        .bind(id)
        .bind(patience.as_secs_f64())
        .fetch_all(db)
        .at(Point::WorkerSweep)
        .await
        .map(read_news)
}
