//! Two processes that look at the same clock.

use crate::platform::Platform;
use chrono::{DateTime, Days, Utc};
use flatrender_workflows::models::invariants;
use sqlx::{AssertSqlSafe, PgPool};
use std::time::{Duration, Instant};

const PATIENCE: Duration = Duration::from_secs(60);

async fn number(db: &PgPool, sql: &str) -> i64 {
    sqlx::query_scalar(AssertSqlSafe(sql.to_owned())).fetch_one(db).await.unwrap()
}

async fn until(db: &PgPool, wanted: i64, sql: &str) {
    let began = Instant::now();
    while number(db, sql).await != wanted {
        assert!(began.elapsed() < PATIENCE, "never {wanted}: {sql}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn set_clock(db: &PgPool, at: DateTime<Utc>) {
    let sql = "update workflow.clock set moved_by = $1 - clock_timestamp()";
    sqlx::query(sql).bind(at).execute(db).await.unwrap();
}

/// How many times of a schedule between these led to that.
async fn fires(db: &PgPool, name: &str, decision: &str, (from, to): (DateTime<Utc>, DateTime<Utc>)) -> i64 {
    let sql = "select count(*) from workflow.schedule_fires f join workflow.schedules s on s.id = f.schedule_id
               where s.name = $1 and f.decision = $2 and f.nominal_at > $3 and f.nominal_at <= $4";
    sqlx::query_scalar(sql).bind(name).bind(decision).bind(from).bind(to).fetch_one(db).await.unwrap()
}

const WORKERS: &str = "select least(count(*), 2) from workflow.workers where ended_at is null";
const SCHEDULES: &str = "select least(count(*), 10) from workflow.schedules";
const DUE: &str = "select count(*) from workflow.schedules where next_at <= workflow.now()";
const RUNNING: &str = "select count(*) from workflow.runs where state = 'running'";
/// Times that led to a run, the runs they led to, and all runs of schedules there are.
const SUMS: &str = "select (select count(*) from workflow.schedule_fires where decision = 'started'),
    (select count(distinct r.id) from workflow.runs r join workflow.schedule_fires f on f.run_id = r.id),
    (select count(*) from workflow.runs where business_key like 'schedule:%')";

/// P22: both alive, one killed amid the times, both dead for three hours, the clock an hour back.
#[tokio::test(flavor = "multi_thread")]
async fn p22_two_processes_fire_each_time_of_every_schedule_once() {
    let mut platform = Platform::without_nodes(0).await;
    let db = platform.db.clone();
    let mut other = platform.another_worker();
    until(&db, 2, WORKERS).await;
    until(&db, 10, SCHEDULES).await;
    let noon = (Utc::now() + Days::new(1)).date_naive().and_hms_opt(12, 10, 30).unwrap().and_utc();
    let hour = |n: i64| noon + chrono::Duration::hours(n);
    for n in 0..=6 {
        set_clock(&db, hour(n)).await;
        if n == 3 {
            other.kill().unwrap();
            other.wait().unwrap();
            other = platform.another_worker();
        }
        until(&db, 0, DUE).await;
        until(&db, 0, RUNNING).await;
    }
    assert_eq!(fires(&db, "usage_hourly", "started", (hour(0), hour(6))).await, 6);
    assert_eq!(fires(&db, "file_purge", "started", (hour(0), hour(6))).await, 6);

    // Nobody is there for three hours.
    other.kill().unwrap();
    other.wait().unwrap();
    platform.kill_worker();
    set_clock(&db, hour(9)).await;
    let mut other = platform.another_worker();
    platform.start_worker();
    until(&db, 0, DUE).await;
    let gap = (hour(6), hour(9));
    assert_eq!(fires(&db, "usage_hourly", "started", gap).await, 3, "each");
    assert_eq!(fires(&db, "file_purge", "started", gap).await, 1, "the newest");
    assert_eq!(fires(&db, "file_purge", "missed", gap).await, 2);
    assert!(fires(&db, "deletion_drain", "started", gap).await <= 1, "only what is not late");

    // The clock goes back: what has been fired is not fired again.
    set_clock(&db, hour(8)).await;
    until(&db, 0, RUNNING).await;
    assert_eq!(fires(&db, "usage_hourly", "started", (hour(0), hour(10))).await, 9);
    set_clock(&db, hour(10)).await;
    until(&db, 0, DUE).await;
    assert_eq!(fires(&db, "usage_hourly", "started", (hour(0), hour(10))).await, 10);

    until(&db, 0, RUNNING).await;
    let (started, led_to, all): (i64, i64, i64) = sqlx::query_as(SUMS).fetch_one(&db).await.unwrap();
    assert_eq!((led_to, all), (started, started));
    assert_eq!(invariants::check(&db, true).await.unwrap(), []);
    other.kill().unwrap();
    other.wait().unwrap();
    platform.stop().await;
}
