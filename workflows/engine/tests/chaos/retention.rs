//! What is old goes while others work: whole days, at once, and never what is not over.

use crate::{
    postgres::Stop,
    program::{Ask, Duties},
    scenario::{Scenario, sized},
    work::{Errand, Trip},
};
use flatrender_engine::operations::{By, Fate, Operations, Piece, Retention, Retired, Series};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const DAY: Duration = Duration::from_secs(86_400);
/// Which day it is, by the partition of the runs that begin now.
const TODAY: &str = "select (until_at::date - '2000-01-01'::date)::bigint from workflow.partitions
                     where series = 'runs' and from_at <= workflow.now() and until_at > workflow.now()";
/// While nobody works.
const THREE_EVENINGS_LATER: &str =
    "date_trunc('day', workflow.now(), 'UTC') + interval '2 days 23:59:40' - workflow.now()";
/// So little that no lease ends.
const SHORTLY_BEFORE_MIDNIGHT: &str =
    "date_trunc('day', workflow.now(), 'UTC') + interval '23:59:58.5' - workflow.now()";

/// Moves the clock of the engine by an interval that SQL gives; while nobody works, as it ends all leases.
pub async fn move_clock(s: &Scenario, by: &'static str) {
    let sql = format!("update workflow.clock set moved_by = moved_by + ({by}); select workflow.make_partitions()");
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&s.db).await.unwrap();
}

/// Rows of these tables are never deleted.
pub async fn forbid_deleting(s: &Scenario) {
    for table in ["runs", "steps", "attempts", "run_attributes", "schedule_fires", "finished_jobs"] {
        let sql = format!(
            "create trigger nobody_deletes before delete on workflow.{table} for each row execute function workflow.refuse_change()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&s.db).await.unwrap();
    }
}

/// What has gone had ended, and nothing of it is left; then it is no longer expected to be there.
pub async fn forget_what_has_gone(s: &Scenario) {
    let live = "select count(*) from accepted a where run_id is not null
                and not exists (select from workflow.runs r where r.id = a.run_id)
                and not exists (select from transitions t where t.run_id = a.run_id)";
    assert_eq!(s.count(live).await, 0, "a live run was dropped");
    let dangling = "select (select count(*) from workflow.steps s where not exists (select from workflow.runs r where r.id = s.run_id))
                         + (select count(*) from workflow.attempts a where not exists (select from workflow.runs r where r.id = a.run_id))";
    assert_eq!(s.count(dangling).await, 0, "half of a run was dropped");
    sqlx::raw_sql(
        "delete from accepted where run_id is not null and run_id not in (select id from workflow.runs);
         delete from effects where run_id not in (select id from workflow.runs);
         delete from transitions where run_id not in (select id from workflow.runs)",
    )
    .execute(&s.db)
    .await
    .unwrap();
}

/// A trip that waits for its signal, and has come that far.
pub async fn waiting_trip(s: &Scenario, key: &str) -> Uuid {
    let run_id = s.start(key, Trip { waits: true, ..Trip::new(2) }).await;
    let far = "select count(*) from workflow.steps s join workflow.runs r on r.id = s.run_id where s.key = 'nap' and r.state = 'running'";
    s.until(1, far, Duration::from_secs(30)).await;
    run_id
}

/// For how long tables that others use were locked against them.
struct Watch {
    stop: CancellationToken,
    task: JoinHandle<(Duration, i64)>,
}

impl Watch {
    async fn start(db: &PgPool) -> Self {
        let stop = CancellationToken::new();
        // What is made later is nobody's yet.
        let known = "select array_agg(oid::bigint) from pg_class where relnamespace = 'workflow'::regnamespace";
        let known: Vec<i64> = sqlx::query_scalar(known).fetch_one(db).await.unwrap();
        let (db, told) = (db.clone(), stop.clone());
        let task = tokio::spawn(async move {
            let (mut since, mut longest, mut waited) = (HashMap::<String, Instant>::new(), Duration::ZERO, 0);
            let mut db = db.acquire().await.unwrap();
            let sql = "select array_agg(virtualtransaction) filter (where granted),
                           coalesce(max(extract(epoch from clock_timestamp() - waitstart) * 1000), 0)::bigint
                       from pg_locks where locktype = 'relation' and relation = any ($1)
                       and ((mode = 'AccessExclusiveLock' and granted) or not granted)";
            while !told.is_cancelled() {
                let (holders, waits): (Option<Vec<String>>, i64) =
                    sqlx::query_as(sql).bind(&known).fetch_one(&mut *db).await.unwrap();
                waited = waited.max(waits);
                // Who gives them back and takes them again a moment later begins anew.
                let holders = holders.unwrap_or_default();
                since.retain(|who, _| holders.contains(who));
                for who in holders {
                    longest = longest.max(since.entry(who).or_insert_with(Instant::now).elapsed());
                }
            }
            (longest, waited)
        });
        Self { stop, task }
    }

    /// The longest time that anybody was seen to lock such a table; the longest that anybody was seen to wait for one, in ms.
    async fn end(self) -> (Duration, i64) {
        self.stop.cancel();
        self.task.await.unwrap()
    }
}

/// Statements are counted from here on; false where that is not installed.
async fn count_statements(s: &mut Scenario) -> bool {
    if s.count("select count(*) from pg_available_extensions where name = 'pg_stat_statements'").await == 0 {
        s.note("pg_stat_statements LEFT OUT: not installed");
        return false;
    }
    for setting in ["shared_preload_libraries = 'pg_stat_statements'", "pg_stat_statements.track = 'all'"] {
        let sql = format!("alter system set {setting}");
        // The second is not known before the first is in force.
        let _ = sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&s.db).await;
        s.server.stop(Stop::Fast);
        s.server.restart();
    }
    sqlx::raw_sql("create extension pg_stat_statements").execute(&s.db).await.unwrap();
    true
}

/// A day of `jobs` jobs, and `runs` runs of three records and two attempts each on the day that the clock shows.
async fn old_days(s: &Scenario, jobs: u32, runs: u32) {
    // Made in the transaction that fills it, a day needs no log of its own.
    let sql = format!(
        "begin;
         set local timezone = 'UTC';
         select workflow.make_partition('jobs', current_date - 60, current_date - 59);
         insert into workflow.finished_jobs
             (id, tenant_id, queue, activity, input, run_at, attempt_no, outcome, output, started_at, finished_at)
         select -n, '018f0000-0000-7000-8000-000000000000', 'errands', 'Errand', '{{\"n\": 1}}', at, 1, 'ok', '2', at, at
         from generate_series(1, {jobs}) n, lateral (select current_date - 60 + n * interval '1 day' / ({jobs} + 1) as at) t;
         commit"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&s.db).await.unwrap();
    let sql = format!(
        "insert into workflow.runs (id, tenant_id, kind, version, input, created_at, state, finished_at)
         select workflow.new_run_id(workflow.now()), gen_random_uuid(), 'old', 1, '{{}}', workflow.now(), 'succeeded', workflow.now()
         from generate_series(1, {runs});
         insert into workflow.steps (run_id, seq, tenant_id, key, kind, outcome, output, recorded_at)
         select r.id, n, tenant_id, n::text, 'step', 'ok', to_jsonb(n), workflow.now()
         from workflow.runs r cross join generate_series(1, 3) n where kind = 'old';
         insert into workflow.attempts (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome)
         select -n, n, r.id, tenant_id, '', gen_random_uuid(), 'w', workflow.now(), workflow.now(), 'ok'
         from workflow.runs r cross join generate_series(1, 2) n where kind = 'old'"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&s.db).await.unwrap();
}

async fn two_workers(s: &mut Scenario) {
    for name in ["one", "two"] {
        s.worker(name, Duties::default());
    }
    s.until(2, "select count(*) from workflow.workers where ended_at is null", Duration::from_secs(10)).await;
}

/// Drops what is old until nothing of it is in use, and says how long that took.
async fn retire(s: &Scenario, retention: Retention) -> (Vec<Retired>, Duration) {
    let (operations, began) = (Operations::new(s.client.clone()), Instant::now());
    let mut all = Vec::new();
    for _ in 0..50 {
        let report = operations.retire(&By::new("operator"), &retention).await.unwrap();
        let busy = report.iter().any(|r| r.fate == Fate::Busy);
        all.extend(report);
        if !busy {
            return (all, began.elapsed());
        }
    }
    panic!("always busy: {all:?}");
}

/// Starts trips for a while, each of which must begin; the longest time that took, and how many.
async fn load(s: &Scenario, round: u32, lasts: Duration) -> (Duration, u32) {
    let (began, mut n, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    while began.elapsed() < lasts {
        let asked = Instant::now();
        s.start(&format!("trip {round} {n}"), Trip::new(n)).await;
        slowest = slowest.max(asked.elapsed());
        n += 1;
        tokio::time::sleep(Duration::from_millis(25)).await;
    }
    (slowest, n)
}

#[tokio::test]
async fn f27_days_begin_and_go_under_load_and_nobody_waits_for_that() {
    // Old days have been vacuumed long ago; these here would be just now.
    let settings =
        ["deadlock_timeout=100ms", "log_lock_waits=on", "wal_level=minimal", "max_wal_senders=0", "autovacuum=off"];
    let mut s =
        Scenario::with("F27", "no failed write; live run stays; locks and drops short; no DELETE", &settings).await;
    let counted = count_statements(&mut s).await;
    let operations = Operations::new(s.client.clone());
    let mut tx = s.db.begin().await.unwrap();
    for series in [Series::Runs, Series::Jobs, Series::Fires] {
        operations.partition_by(&mut tx, &By::new("operator"), series, Piece::Day).await.unwrap();
    }
    tx.commit().await.unwrap();
    // Past the months that were made before, to an evening.
    move_clock(&s, "date_trunc('day', now(), 'UTC') + interval '90 days 22 hours' - workflow.now()").await;
    s.worker("first", Duties::default());
    let live = waiting_trip(&s, "live").await;
    s.stop_workers().await;
    let (jobs, runs) = sized((30_000, 2_000), (9_990_000, 50_000));
    let began = Instant::now();
    old_days(&s, jobs, runs).await;
    s.note(format!("{} old rows made in {:.0?}", jobs + runs * 6, began.elapsed()));
    forbid_deleting(&s).await;
    two_workers(&mut s).await;
    let watch = Watch::start(&s.db).await;
    // The files go when the tables are gone already, and nobody waits for that.
    let old =
        "select count(*) from workflow.partitions where series = 'jobs' and until_at < now() - interval '30 days'";
    let began = Instant::now();
    let ((report, files), gone) = tokio::join!(retire(&s, Retention::forever().jobs(DAY * 30)), async {
        s.until(0, old, Duration::from_secs(60)).await;
        began.elapsed()
    });
    assert_eq!(report.iter().map(|r| r.fate).collect::<Vec<_>>(), [Fate::Dropped]);
    s.note(format!("a day of {jobs} jobs gone in {gone:.0?}, its files in {files:.0?}"));
    assert!(gone < sized(Duration::from_secs(10), Duration::from_secs(1)), "{gone:?}");
    let (mut held, mut waited) = watch.end().await;
    s.stop_workers().await;
    let mut slowest = Duration::ZERO;
    for round in 0..sized(1, 3) {
        move_clock(&s, THREE_EVENINGS_LATER).await;
        two_workers(&mut s).await;
        let today = s.count(TODAY).await;
        let watch = Watch::start(&s.db).await;
        move_clock(&s, SHORTLY_BEFORE_MIDNIGHT).await;
        let ((slow, n), (report, took)) = tokio::join!(load(&s, round, Duration::from_secs(3)), async {
            tokio::time::sleep(Duration::from_millis(300)).await;
            retire(&s, Retention::forever().runs(DAY).fires(DAY)).await
        });
        let (exclusive, longest) = watch.end().await;
        (held, waited, slowest) = (held.max(exclusive), waited.max(longest), slowest.max(slow));
        s.injected(report.iter().filter(|r| matches!(r.fate, Fate::Dropped | Fate::Condensed)).count() as u32);
        if round == 0 {
            // But for the live one; its child is over.
            let kept = report.iter().find(|r| r.fate == Fate::Condensed).map(|r| (r.gone, r.kept));
            assert_eq!(kept, Some((Some(i64::from(runs) + 1), 1)), "{report:?}");
            s.note(format!("a day of {runs} runs and all but one in {took:.0?}"));
        }
        s.until(
            i64::from(n),
            "select count(*) from workflow.runs where business_key like 'trip%' and state = 'succeeded'
                and id >= workflow.first_run_id(workflow.now() - interval '1 hour')",
            Duration::from_secs(30),
        )
        .await;
        assert_eq!(s.count(TODAY).await, today + 1, "there is another today");
        let days = "select count(distinct date_trunc('day', created_at, 'UTC')) from workflow.runs where business_key like 'trip%'
                    and id >= workflow.first_run_id(workflow.now() - interval '1 hour')";
        assert_eq!(s.count(days).await, 2, "no midnight has passed");
        s.stop_workers().await;
        forget_what_has_gone(&s).await;
        s.check_safety().await;
    }
    s.note(format!(
        "tables locked for {held:.0?} at most, waited for {waited} ms at most; slowest start {slowest:.0?}"
    ));
    assert!(held < sized(Duration::from_secs(1), Duration::from_millis(100)), "{held:?}");
    let log = s.server.log();
    assert!(!log.contains("ERROR:"), "{log}");
    if counted {
        // Moves from the rest of a table into a day that is made late are the only ones there might be.
        let deleted = "select coalesce(sum(rows), 0)::bigint from pg_stat_statements
            where query ~* 'delete\\s+from\\s+workflow\\.(runs|steps|attempts|run_attributes|schedule_fires|finished_jobs)'";
        assert_eq!(s.count(deleted).await, 0, "something was deleted row by row");
        assert!(s.count("select count(*) from pg_stat_statements where query ~* 'drop table workflow'").await > 0);
    }
    let bad = "select count(*) from workflow.attempts where outcome in ('failed', 'lost', 'timeout')";
    assert_eq!(s.count(bad).await, 0);
    s.worker("last", Duties::default());
    let _ = s.signal(live, None, 4).await;
    s.succeeded(live, Trip { waits: true, ..Trip::new(2) }.answer(4)).await;
    s.finish(Duration::from_secs(30)).await;
}

/// Killed at `trap` while it drops the days before.
pub async fn die_retiring(s: &mut Scenario, n: usize, trap: &str) {
    s.worker("steady", Duties::default());
    for i in 0..3 {
        let run_id = s.start(&format!("trip {n} {i}"), Trip::new(i)).await;
        s.succeeded(run_id, Trip::new(i).answer(0)).await;
    }
    s.ask(&[Ask::Job(format!("job {n}"), Errand::new(1))], None).await;
    s.until(0, "select count(*) from workflow.jobs", Duration::from_secs(30)).await;
    s.stop_workers().await;
    move_clock(s, "interval '70 days'").await;
    let doomed = s.doomed("doomed", Duties { keeps_days: Some(30), ..Duties::default() }, trap);
    let ended = s.process(doomed).ended(Duration::from_secs(30)).await;
    assert!(ended.is_some_and(|code| code != Some(0)), "nobody who retires passes {trap}");
    s.process(doomed).dismissed = true;
    s.injected(1);
    forget_what_has_gone(s).await;
    s.check_safety().await;
}
