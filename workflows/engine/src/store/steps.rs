//! Steps: the record of runs.

use super::{Fence, RecordRow};
use crate::{
    client::EventRow,
    failpoint::{At as _, Point},
    failure::Failure,
    record::{InFlight, Kind, Record},
};
use chrono::{DateTime, Utc};
use serde_json::Value;
use sqlx::{PgConnection, PgExecutor, Result, types::Json};
use uuid::Uuid;

/// Appends the outcome of a step, if `fence` still holds the run: its row stays locked until the commit, so
/// nobody can take the run over in between. `None`: the lease is lost.
///
/// # Errors
/// A unique violation when the key is recorded already.
pub(crate) async fn record(
    db: &mut PgConnection,
    fence: Fence,
    key: &str,
    outcome: &Result<Value, Failure>,
) -> Result<Option<Record>> {
    let row: Option<(i64, DateTime<Utc>)> = sqlx::query_as(
        "with fence as (
            update workflow.tasks set wake_seq = wake_seq + 1, losses = 0
            where id = $1 and lease_token = $2 and state = 'leased' and kind = 'run'
            returning run_id, tenant_id, wake_seq, attempt_no
        )
        insert into workflow.steps
            (run_id, seq, tenant_id, key, kind, outcome, output, failure, attempt_no, lease_token, recorded_at)
        select run_id, wake_seq, tenant_id, $3, 'step', $4, $5, $6, attempt_no, $2, workflow.now()
        from fence
        returning seq, recorded_at",
    )
    .bind(fence.task_id)
    .bind(fence.token)
    .bind(key)
    .bind(if outcome.is_ok() { "ok" } else { "failed" })
    .bind(outcome.as_ref().ok())
    .bind(outcome.as_ref().err().map(Json))
    .fetch_optional(db)
    .at(Point::StepRecord)
    .await?;
    Ok(row.map(|(seq, recorded_at)| Record {
        seq,
        key: key.to_owned(),
        kind: Kind::Step,
        name: None,
        outcome: outcome.clone(),
        recorded_at,
    }))
}

/// Waits until nobody is recording anything for the run of `fence`.
pub(crate) async fn await_others(db: impl PgExecutor<'_>, fence: Fence) -> Result<()> {
    sqlx::query("select from workflow.tasks where id = $1 and lease_token = $2 for update")
        .bind(fence.task_id)
        .bind(fence.token)
        .execute(db)
        .at(Point::StepsSettle)
        .await
        .map(drop)
}

/// All that is known of a run: its records, in order, and what it has asked for that is not recorded.
pub(crate) async fn all(db: impl PgExecutor<'_>, run_id: Uuid) -> Result<(Vec<Record>, Vec<InFlight>)> {
    // One statement: what ends in between is either here or there. What is in flight has no time of its end, and that of its
    // next attempt may be infinity.
    let sql = format!(
        "select {COLUMNS} from workflow.steps s where s.run_id = $1
         union all
         select run_id, 0, step_key, 'activity', activity, '', null, null, workflow.now() from workflow.tasks
         where run_id = $1 and kind = 'activity'
         union all
         select parent_run_id, 0, parent_key, 'child', substring(activity from '^(.*)[.]v[0-9]+$'), '', null, null, workflow.now()
         from workflow.tasks where parent_run_id = $1
         order by 2"
    );
    let rows: Vec<RecordRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(run_id).fetch_all(db).at(Point::RecordAll).await?;
    let (in_flight, records): (Vec<_>, Vec<_>) = rows.into_iter().map(|row| row.read().1).partition(|r| r.seq == 0);
    Ok((records, in_flight.into_iter().map(|r| InFlight { key: r.key, kind: r.kind, name: r.name }).collect()))
}

const COLUMNS: &str = "s.run_id, s.seq, s.key, s.kind, s.name, s.outcome, s.output, s.failure, s.recorded_at";

/// The record of one key.
pub(crate) async fn find(db: impl PgExecutor<'_>, run_id: Uuid, key: &str) -> Result<Option<Record>> {
    let sql = format!("select {COLUMNS} from workflow.steps s where s.run_id = $1 and s.key = $2");
    let row: Option<RecordRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(run_id).bind(key).fetch_optional(db).at(Point::StepFind).await?;
    Ok(row.map(|row| row.read().1))
}

/// Records newer than what each of these runs has seen, in order.
pub(crate) async fn newer(db: impl PgExecutor<'_>, runs: &[Uuid], seen: &[i64]) -> Result<Vec<(Uuid, Record)>> {
    let sql = format!(
        "select {COLUMNS} from unnest($1, $2) as g (run_id, seen)
         cross join lateral (select * from workflow.steps s where s.run_id = g.run_id and s.seq > g.seen order by s.seq) s"
    );
    let rows: Vec<RecordRow> =
        sqlx::query_as(sqlx::AssertSqlSafe(sql)).bind(runs).bind(seen).fetch_all(db).at(Point::RecordNewer).await?;
    Ok(rows.into_iter().map(RecordRow::read).collect())
}

/// The history of a run, oldest first.
pub(crate) async fn history(db: impl PgExecutor<'_>, run_id: Uuid) -> Result<Vec<EventRow>> {
    sqlx::query_as(
        "select seq, key, kind, name, outcome, output, failure, attempt_no, recorded_at
         from workflow.steps where run_id = $1 order by seq",
    )
    .bind(run_id)
    .fetch_all(db)
    .await
}

/// The last `limit` records of a run, or those before number `before`, newest first.
pub(crate) async fn newest(
    db: impl PgExecutor<'_>,
    run_id: Uuid,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<EventRow>> {
    sqlx::query_as(
        "select seq, key, kind, name, outcome, output, failure, attempt_no, recorded_at
         from workflow.steps where run_id = $1 and seq < coalesce($2, 9223372036854775807) order by seq desc limit $3",
    )
    .bind(run_id)
    .bind(before)
    .bind(limit)
    .fetch_all(db)
    .await
}
