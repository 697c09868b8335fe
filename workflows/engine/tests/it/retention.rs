//! What is old goes by whole partitions, and what is not over stays.

use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{
    Context, Delivery, Failure, JobOptions, Workflow,
    client::RunState,
    operations::{By, Fate, Filter, Fork, OperationError, Operations, Piece, Retention, Retired, Series},
};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, types::Json};
use std::time::{Duration, Instant};
use uuid::Uuid;

const DAY: Duration = Duration::from_secs(86_400);
const MONTH: Duration = Duration::from_secs(31 * 86_400);

/// Waits for a word, then says what it was.
#[derive(Serialize, Deserialize)]
struct Patient;

impl Workflow for Patient {
    const NAME: &'static str = "patient";
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        cx.memo("first", || async { Ok(1) }).await?;
        let word = cx.signal::<String>("wait", "word").await?;
        cx.memo("last", || async { Ok(2) }).await?;
        Ok(word)
    }
}

/// Goes on as another at each word, and ends with the last one.
#[derive(Serialize, Deserialize)]
struct Chain(Vec<String>);

impl Workflow for Chain {
    const NAME: &'static str = "chain";
    type Output = Vec<String>;

    async fn run(mut self, cx: &Context) -> Result<Vec<String>, Failure> {
        self.0.push(cx.signal("wait", "word").await?);
        if self.0.len() == 3 { Ok(self.0) } else { cx.continue_as_new(self) }
    }
}

fn operations(world: &World) -> Operations {
    Operations::new(world.client.clone())
}

/// Three months old, a moment ago, in the eyes of the engine.
async fn wait(world: &World, by: Duration) {
    world.move_clock(by).await;
    sqlx::raw_sql("select workflow.make_partitions()").execute(&world.db).await.unwrap();
}

async fn retire(world: &World, keep: Duration) -> Vec<Retired> {
    let report = operations(world).retire(&By::new("ada"), &Retention::forever().runs(keep)).await.unwrap();
    // The month after it is made with each, and is as old by now.
    let report: Vec<_> =
        report.into_iter().filter(|r| r.fate != Fate::Kept && (r.fate, r.gone) != (Fate::Dropped, Some(0))).collect();
    assert!(report.iter().all(|r| r.series == Series::Runs), "{report:?}");
    report
}

/// Rows of these tables are never deleted.
async fn forbid_deleting(world: &World) {
    for table in ["runs", "steps", "attempts", "run_attributes"] {
        let sql = format!(
            "create trigger nobody_deletes before delete on workflow.{table} for each row execute function workflow.refuse_change()"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(sql)).execute(&world.db).await.unwrap();
    }
}

/// Where the counters are not what counting says.
const WRONG_TOTALS: &str = "select count(*) from (
    (select kind, tenant_id, state, n from workflow.run_totals except select kind, tenant_id, state, count(*) from workflow.runs group by 1, 2, 3)
    union all
    (select kind, tenant_id, state, count(*) from workflow.runs group by 1, 2, 3 except select kind, tenant_id, state, n from workflow.run_totals)) d";
/// Partitions of runs, but for the one of odd ids.
const PIECES: &str = "select count(*) from workflow.partitions where series = 'runs'";

#[sqlx::test(migrations = false)]
async fn old_runs_go_with_their_partition_and_nothing_is_deleted_row_by_row(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>().workflow::<Patient>().handler::<Work>(Tool::doubling()));
    forbid_deleting(&world).await;
    let old = world.finish(OneWork(Work::new(4))).await;
    for n in 0..9 {
        world.finish(OneWork(Work::new(n))).await;
    }
    let live = world.start(Patient).await;
    world.until(1, "select count(*) from workflow.steps where key = 'first'").await;
    wait(&world, 3 * MONTH).await;
    let young = world.finish(OneWork(Work::new(5))).await;

    let report = retire(&world, MONTH).await;
    assert_eq!(report.iter().map(|r| (r.fate, r.gone, r.kept)).collect::<Vec<_>>(), [(Fate::Condensed, Some(10), 1)]);
    assert!(world.client.run(old.id).await.unwrap().is_none());
    assert!(world.client.history(old.id).await.unwrap().is_empty());
    assert_eq!(world.client.run(young.id).await.unwrap().unwrap().state, RunState::Succeeded);
    // Of the young run two, and of the live one another, once somebody sees that its lease ran out meanwhile.
    world.until(3, "select count(*) from workflow.attempts").await;
    assert_eq!(world.count("select count(*) from workflow.audit where action = 'retire' and actor = 'ada'").await, 2);
    assert_eq!(world.count(WRONG_TOTALS).await, 0);

    // Nothing more to gain: a second call leaves everything as it is.
    assert!(retire(&world, MONTH).await.is_empty());
    assert_eq!(world.signal(live, "word", None, "now").await, Delivery::Accepted);
    assert_eq!(world.end(live).await.output_as::<String>().as_deref(), Some("now"));
    assert_eq!(world.history(live).await.lines().count(), 3);
    assert_eq!(world.count(WRONG_TOTALS).await, 0);

    // It has ended only just now, so it is kept for as long as the others were; then nothing of that month is left.
    assert!(retire(&world, MONTH).await.is_empty());
    let before = world.count(PIECES).await;
    wait(&world, 3 * MONTH).await;
    let fates = retire(&world, MONTH).await.into_iter().map(|r| r.fate).collect::<Vec<_>>();
    assert!(fates.iter().all(|fate| *fate == Fate::Dropped), "{fates:?}");
    assert!(world.client.run(live).await.unwrap().is_none());
    assert!(world.count(PIECES).await <= before);
    assert_eq!(world.count("select count(*) from workflow.runs").await, 0);
    assert_eq!(world.count("select count(*) from workflow.run_totals").await, 0);
}

#[sqlx::test(migrations = false)]
async fn a_run_that_is_gone_is_unknown_but_its_business_key_is_not(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(Tool::doubling()));
    let start = async |world: &World| {
        let mut tx = world.db.begin().await.unwrap();
        let started = world.client.start(&mut tx, world.tenant, Some("order 7"), OneWork(Work::new(1))).await.unwrap();
        tx.commit().await.unwrap();
        world.client.announce();
        started
    };
    let gone = start(&world).await.run_id;
    world.end(gone).await;
    wait(&world, 3 * MONTH).await;
    assert_eq!(retire(&world, MONTH).await.len(), 1);

    let again = start(&world).await;
    assert_eq!((again.run_id, again.started), (gone, false));
    assert!(world.client.finished(gone, Duration::from_secs(9)).await.unwrap().is_none());
    assert_eq!(world.signal(gone, "word", None, 1).await, Delivery::Unknown);
    assert!(!world.cancel(gone).await);
    let mut tx = world.db.begin().await.unwrap();
    let forked = operations(&world).fork(&mut tx, &By::new("ada"), gone, &Fork::default()).await;
    assert!(matches!(forked, Err(OperationError::NotFound(_))), "{forked:?}");
    let filter = Filter { tenant: Some(world.tenant), business_key: Some("order 7".to_owned()), ..Filter::default() };
    assert!(operations(&world).find(&filter, None, 10).await.unwrap().runs.is_empty());
}

#[sqlx::test(migrations = false)]
async fn a_signal_finds_its_way_along_a_chain_whose_beginning_is_old(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Chain>().workflow::<OneWork>().handler::<Work>(Tool::doubling()));
    let mut tx = world.db.begin().await.unwrap();
    let first = world.client.start(&mut tx, world.tenant, Some("customer 7"), Chain(vec![])).await.unwrap().run_id;
    tx.commit().await.unwrap();
    world.client.announce();
    for (n, word) in ["a", "b"].into_iter().enumerate() {
        world.finish(OneWork(Work::new(1))).await;
        assert_eq!(world.signal(first, "word", None, word).await, Delivery::Accepted);
        let links = [
            "select count(*) from workflow.runs where continued_as is not null and id is not null",
            "select count(*) from workflow.runs where continued_as is not null",
        ];
        world.until(n as i64 + 1, links[n]).await;
        wait(&world, 3 * MONTH).await;
        retire(&world, MONTH).await;
    }
    // Of the first of them only the row is left.
    assert_eq!(world.count("select count(*) from workflow.runs where continued_as is not null").await, 2);
    assert!(world.client.history(first).await.unwrap().is_empty());
    assert_eq!(world.signal(first, "word", None, "c").await, Delivery::Accepted);
    assert_eq!(world.end(first).await.output_as::<Vec<String>>().unwrap(), ["a", "b", "c"]);
    assert_eq!(world.signal(first, "word", None, "d").await, Delivery::Closed);
    // When its end goes, all of it goes.
    wait(&world, 3 * MONTH).await;
    retire(&world, MONTH).await;
    assert_eq!(world.count("select count(*) from workflow.runs").await, 0);
    assert_eq!(world.count("select count(*) from workflow.run_keys").await, 1);
}

#[sqlx::test(migrations = false)]
async fn what_is_written_while_a_partition_is_copied_is_copied_too(db: PgPool) {
    let world = World::new(db).await;
    let (quiet, busy) = (world.start(Patient).await, world.start(Patient).await);
    let _ = world.signal(busy, "word", Some("1"), "one").await;
    let suffix = "(select suffix from workflow.partitions where series = 'runs' and from_at <= workflow.now() and until_at > workflow.now())";
    let beside = format!("select workflow.keep_beside({suffix}, '{{}}', $1, $1)");
    sqlx::query(sqlx::AssertSqlSafe(beside)).bind(vec![quiet, busy]).execute(&world.db).await.unwrap();
    let _ = world.signal(busy, "word", Some("2"), "two").await;
    assert!(world.cancel(busy).await);
    let up = format!("select workflow.keep_up({suffix}, $1, $1)");
    sqlx::query(sqlx::AssertSqlSafe(up)).bind(vec![quiet, busy]).execute(&world.db).await.unwrap();
    assert_eq!(world.count("select count(*) from workflow.steps").await, 3);
    assert_eq!(
        world
            .count("select count(*) from (select * from workflow.steps except select * from workflow.steps_kept) d")
            .await,
        0
    );
    assert_eq!(
        world
            .count("select count(*) from (select * from workflow.runs except select * from workflow.runs_kept) d")
            .await,
        0
    );
    assert_eq!(world.count("select count(*) from workflow.runs_kept where cancel_requested_at is not null").await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_run_whose_month_is_missing_starts_all_the_same_and_moves_when_it_is_made(db: PgPool) {
    let mut world = World::new(db).await;
    world.move_clock(5 * MONTH).await;
    let early = world.start(OneWork(Work::new(1))).await;
    let _ = world.signal(early, "word", None, 1).await;
    assert_eq!(world.count("select count(*) from workflow.runs_rest").await, 1);
    assert_eq!(world.count("select count(*) from workflow.steps_rest").await, 1);
    wait(&world, Duration::ZERO).await;
    assert_eq!(world.count("select count(*) from workflow.runs_rest").await, 0);
    assert_eq!(world.count("select count(*) from workflow.steps_rest").await, 0);
    assert_eq!(world.count("select count(*) from workflow.runs").await, 1);
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(Tool::doubling()));
    assert_eq!(world.end(early).await.output_as::<u32>(), Some(2));
    assert_eq!(world.count(WRONG_TOTALS).await, 0);
    // Records are still append only.
    assert!(sqlx::raw_sql("delete from workflow.steps").execute(&world.db).await.is_err());
}

/// Does one thing, once it is let, and then another.
#[derive(Serialize, Deserialize)]
struct Held;
static LET: tokio::sync::Semaphore = tokio::sync::Semaphore::const_new(0);

impl Workflow for Held {
    const NAME: &'static str = "held";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.memo("one", async || {
            LET.acquire().await.map_err(|closed| Failure::permanent("closed", closed.to_string()))?.forget();
            Ok(1)
        })
        .await
    }
}

#[sqlx::test(migrations = false)]
async fn what_is_written_while_a_month_is_made_finds_its_run_where_it_is_then(db: PgPool) {
    let mut world = World::new(db).await;
    world.move_clock(5 * MONTH).await;
    // Nobody but us makes months.
    sqlx::raw_sql("update workflow.last_sweep set partitions_at = 'infinity'").execute(&world.db).await.unwrap();
    world.worker(|w| w.workflow::<Held>().workflow::<Patient>());
    let (held, patient, stopped) = (world.start(Held).await, world.start(Patient).await, world.start(Patient).await);
    world.until(2, "select count(*) from workflow.steps where key = 'first'").await;
    assert_eq!(world.count("select count(*) from workflow.runs_rest").await, 3);

    let waiting = "select least(4, count(*)) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    let mut making = world.db.begin().await.unwrap();
    sqlx::raw_sql("select workflow.make_partitions()").execute(&mut *making).await.unwrap();
    LET.add_permits(1);
    let others = async {
        tokio::join!(world.signal(patient, "word", None, "late"), world.cancel(stopped), world.client.run(held))
    };
    let (found, ()) = tokio::join!(others, async {
        world.until(4, waiting).await;
        making.commit().await.unwrap();
    });
    assert_eq!((found.0, found.1, found.2.unwrap().map(|run| run.id)), (Delivery::Accepted, true, Some(held)));
    assert_eq!(world.count("select count(*) from workflow.runs_rest").await, 0);
    let began = Instant::now();
    assert_eq!(world.end(held).await.output_as::<u32>(), Some(1));
    assert_eq!(world.end(patient).await.output_as::<String>().as_deref(), Some("late"));
    assert_eq!(world.end(stopped).await.state, RunState::Cancelled);
    assert!(began.elapsed() < Duration::from_secs(20), "nobody lost a lease");
}

#[sqlx::test(migrations = false)]
async fn for_two_years_months_come_and_go_and_who_was_there_from_the_beginning_stays(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Patient>());
    forbid_deleting(&world).await;
    let eldest = world.start(Patient).await;
    world.until(1, "select count(*) from workflow.steps where key = 'first'").await;
    // A clock that jumps takes its leases away: too often for one who never gets on.
    world.stop().await;
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(Tool::doubling()));
    for month in 0..24_u32 {
        // A second before the turn of the month the runs begin, and a second after it they end.
        sqlx::raw_sql(
            "update workflow.clock set moved_by = moved_by + (date_trunc('month', workflow.now() + interval '1 month', 'UTC')
                 - interval '1 s' - workflow.now())",
        )
        .execute(&world.db)
        .await
        .unwrap();
        let before = world.start(OneWork(Work::new(month))).await;
        wait(&world, Duration::from_secs(2)).await;
        let after = world.start(OneWork(Work::new(month))).await;
        for run in [before, after] {
            assert_eq!(world.end(run).await.output_as::<u32>(), Some(month * 2));
        }
        retire(&world, 2 * MONTH).await;
    }
    // The eldest, two months and those to come.
    assert!(world.count(PIECES).await <= 6, "{}", world.count(PIECES).await);
    assert!(world.count("select count(*) from workflow.runs").await < 12);
    assert_eq!(world.count(WRONG_TOTALS).await, 0);
    assert_eq!(world.signal(eldest, "word", None, "at last").await, Delivery::Accepted);
    world.worker(|w| w.workflow::<Patient>());
    assert_eq!(world.end(eldest).await.output_as::<String>().as_deref(), Some("at last"));
    assert_eq!(world.count("select count(*) from workflow.runs_rest").await, 0);
}

#[sqlx::test(migrations = false)]
async fn nobody_waits_a_tenth_of_a_second_for_what_goes(db: PgPool) {
    let mut world = World::new(db).await;
    // Eight thousand that are over, and two hundred that are not, with their records.
    sqlx::raw_sql(
        "insert into workflow.runs (id, tenant_id, kind, version, input, created_at, state, finished_at)
         select workflow.new_run_id(workflow.now()), gen_random_uuid(), 'old', 1, '{}', workflow.now(), 'succeeded', workflow.now()
         from generate_series(1, 8000);
         insert into workflow.runs (id, tenant_id, kind, version, input, created_at)
         select workflow.new_run_id(workflow.now()), gen_random_uuid(), 'idle', 1, '{}', workflow.now() from generate_series(1, 200);
         insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, run_at, max_failures, max_losses,
             backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds, state)
         select 'run', id, tenant_id, '', 'workflows', 'idle.v1', 'infinity', 1, 10, 0, 0, 30, 1e9, 'waiting'
         from workflow.runs where state = 'running';
         insert into workflow.steps (run_id, seq, tenant_id, key, kind, outcome, output, recorded_at)
         select r.id, n, tenant_id, n::text, 'step', 'ok', to_jsonb(repeat('x', 200)), workflow.now()
         from workflow.runs r cross join generate_series(1, 5) n",
    )
    .execute(&world.db)
    .await
    .unwrap();
    wait(&world, 3 * MONTH).await;
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(Tool::doubling()).queue("work", 64));
    let running = tokio_util::sync::CancellationToken::new();
    let (client, db, tenant, stop) = (world.client.clone(), world.db.clone(), world.tenant, running.clone());
    let load = tokio::spawn(async move {
        let mut waits = Vec::new();
        while !stop.is_cancelled() {
            let began = Instant::now();
            let mut tx = db.begin().await.unwrap();
            client.start(&mut tx, tenant, None, OneWork(Work::new(1))).await.unwrap();
            tx.commit().await.unwrap();
            client.announce();
            waits.push((began, began.elapsed()));
        }
        waits
    });
    world
        .until(
            1,
            "select (count(*) > 50)::int::bigint from workflow.runs where kind = 'one_work' and state = 'succeeded'",
        )
        .await;
    let began = Instant::now();
    let report = retire(&world, MONTH).await;
    let took = began.elapsed();
    assert_eq!(
        report.iter().map(|r| (r.fate, r.gone, r.kept)).collect::<Vec<_>>(),
        [(Fate::Condensed, Some(8000), 200)]
    );
    running.cancel();
    let waits = load.await.unwrap();
    let worst = |during: bool| {
        let of = waits.iter().filter(|(at, w)| (*at + *w > began && *at < began + took) == during);
        of.map(|(_, wait)| *wait).max().unwrap_or_default()
    };
    let (usual, meanwhile) = (worst(false), worst(true));
    println!("retired in {took:?}; the longest wait was {meanwhile:?}, at other times {usual:?}");
    // On a busy machine any start may take long; what is added is what counts.
    assert!(meanwhile < usual + Duration::from_millis(100), "{meanwhile:?} after {usual:?}");
    assert_eq!(
        world
            .count(
                "select count(*) from workflow.steps s join workflow.runs r on r.id = s.run_id where r.kind = 'idle'"
            )
            .await,
        1000
    );
    world.until(0, "select count(*) from workflow.tasks where run_id in (select id from workflow.runs where kind = 'one_work')").await;
    assert_eq!(
        world.count("select count(*) from workflow.runs where kind = 'one_work' and state <> 'succeeded'").await,
        0
    );
    assert_eq!(world.count(WRONG_TOTALS).await, 0);
}

#[sqlx::test(migrations = false)]
async fn a_partition_in_use_is_left_for_another_time(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(Tool::doubling()));
    let old = world.finish(OneWork(Work::new(1))).await;
    wait(&world, 3 * MONTH).await;
    let mut reader = world.db.begin().await.unwrap();
    sqlx::query("select count(*) from workflow.runs").execute(&mut *reader).await.unwrap();
    assert_eq!(retire(&world, MONTH).await[0].fate, Fate::Busy);
    assert!(world.client.run(old.id).await.unwrap().is_some());
    assert_eq!(world.count(WRONG_TOTALS).await, 0);
    reader.rollback().await.unwrap();
    assert_eq!(retire(&world, MONTH).await[0].fate, Fate::Dropped);
}

#[sqlx::test(migrations = false)]
async fn finished_jobs_and_decisions_of_schedules_go_with_their_partitions(db: PgPool) {
    let world = World::new(db).await;
    // Of three months ago, which have no partition until somebody makes one.
    sqlx::raw_sql(
        "insert into workflow.finished_jobs (id, tenant_id, queue, activity, input, run_at, attempt_no, outcome, finished_at)
         select n, gen_random_uuid(), 'work', 'Work', '{}', now(), 1, 'ok', now() - interval '100 days' from generate_series(1, 5) n;
         insert into workflow.schedules (id, tenant_id, name, cron, time_zone, kind, version, input, catch_up, catch_up_seconds, overlap,
             created_at, updated_at, decided_until)
         values (gen_random_uuid(), gen_random_uuid(), 'nightly', '0 0 * * *', 'UTC', 'k', 1, '{}', 'one', 0, 'skip', now(), now(), now());
         insert into workflow.schedule_fires (schedule_id, nominal_at, revision, decision, decided_at)
         select id, now() - interval '100 days', 1, 'missed', now() from workflow.schedules;
         select workflow.make_partition(series, date_trunc('month', now() - interval '100 days', 'UTC'),
             date_trunc('month', now() - interval '100 days', 'UTC') + interval '1 month')
         from workflow.partitioned where series <> 'runs'",
    )
    .execute(&world.db)
    .await
    .unwrap();
    assert_eq!(world.count("select count(*) from workflow.finished_jobs_rest").await, 0);
    assert_eq!(world.count("select count(*) from workflow.finished_jobs").await, 5);
    let keep = Retention::forever().jobs(MONTH).fires(MONTH);
    let report = operations(&world).retire(&By::new("ada"), &keep).await.unwrap();
    let fates: Vec<_> = report.iter().map(|r| (r.series, r.fate, r.gone)).collect();
    assert_eq!(fates, [(Series::Jobs, Fate::Dropped, None), (Series::Fires, Fate::Dropped, None)]);
    assert_eq!(world.count("select count(*) from workflow.finished_jobs").await, 0);
    assert_eq!(world.count("select count(*) from workflow.schedule_fires").await, 0);
}

#[sqlx::test(migrations = false)]
async fn a_job_that_ends_in_a_month_that_nobody_made_is_kept(db: PgPool) {
    let mut world = World::new(db).await;
    sqlx::raw_sql("do $$ declare v_name text; begin
        for v_name in select name from workflow.partitions where series = 'jobs' loop execute format('drop table workflow.%I', v_name); end loop; end $$")
        .execute(&world.db).await.unwrap();
    let mut tx = world.db.begin().await.unwrap();
    world.client.enqueue(&mut tx, world.tenant, Work::new(1), &JobOptions::default()).await.unwrap();
    tx.commit().await.unwrap();
    world.worker(|w| w.handler::<Work>(Tool::doubling()));
    world.until(1, "select count(*) from workflow.finished_jobs where outcome = 'ok'").await;
    // Whoever looks around makes the months anew, and what came before them moves there.
    sqlx::raw_sql("update workflow.last_sweep set partitions_at = clock_timestamp() - interval '61 s'")
        .execute(&world.db)
        .await
        .unwrap();
    world.until(2, "select count(*) from workflow.partitions where series = 'jobs'").await;
    assert_eq!(world.count("select count(*) from workflow.finished_jobs_rest").await, 0);
    assert_eq!(world.count("select count(*) from workflow.finished_jobs").await, 1);
}

#[sqlx::test(migrations = false)]
async fn partitions_may_be_days(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(Tool::doubling()));
    let mut tx = world.db.begin().await.unwrap();
    operations(&world).partition_by(&mut tx, &By::new("ada"), Series::Runs, Piece::Day).await.unwrap();
    tx.commit().await.unwrap();
    // The months that are there stay; days begin after them.
    wait(&world, 3 * MONTH).await;
    for _ in 0..3 {
        world.finish(OneWork(Work::new(1))).await;
        wait(&world, DAY).await;
    }
    assert_eq!(
        world
            .count("select count(*) from workflow.partitions where series = 'runs' and until_at - from_at = '1 day'")
            .await,
        5
    );
    wait(&world, DAY).await;
    let report = retire(&world, 2 * DAY).await;
    assert_eq!(report.iter().filter(|r| r.until_at - r.from_at == chrono::Duration::days(1)).count(), 2, "{report:?}");
    assert_eq!(world.count("select count(*) from workflow.runs").await, 1);
    assert_eq!(world.count("select count(*) from workflow.runs_rest").await, 0);
}

#[sqlx::test(migrations = false)]
async fn a_worker_drops_what_is_old_by_itself(db: PgPool) {
    let mut world = World::new(db).await;
    let stop = world.worker(|w| w.workflow::<OneWork>().handler::<Work>(Tool::doubling()));
    world.finish(OneWork(Work::new(1))).await;
    stop.cancel();
    wait(&world, 3 * MONTH).await;
    world.worker(|w| w.workflow::<OneWork>().retention(Retention::forever().runs(MONTH)));
    world.until(0, "select count(*) from workflow.runs").await;
    assert_eq!(
        world.count("select count(*) from workflow.audit where action = 'retire' and actor = 'retention'").await,
        2
    );
}

#[sqlx::test(migrations = false)]
async fn an_id_begins_with_the_time_of_the_database(db: PgPool) {
    let world = World::new(db).await;
    world.move_clock(400 * DAY).await;
    let mut tx = world.db.begin().await.unwrap();
    let many = world.client.start_all(&mut tx, world.tenant, (0..1500).map(|n| OneWork(Work::new(n)))).await.unwrap();
    tx.commit().await.unwrap();
    assert!(many.is_sorted(), "in the order of the inputs");
    let inputs: Vec<Json<OneWork>> =
        sqlx::query_scalar("select input from workflow.runs order by id").fetch_all(&world.db).await.unwrap();
    assert!(inputs.iter().map(|work| work.0.0.n).eq(0..1500));
    let odd =
        "select count(*) from workflow.runs where abs(extract(epoch from created_at - workflow.moment_of(id))) > 0.01";
    assert_eq!(world.count(odd).await, 0);
    assert!(many.iter().all(|id| id.get_version_num() == 7 && id.get_variant() == uuid::Variant::RFC4122));
    // Odd ids have their place, too.
    sqlx::query(
        "insert into workflow.runs (id, tenant_id, kind, version, input, created_at, state, finished_at)
        values ($1, $1, 'odd', 1, '{}', now(), 'succeeded', now())",
    )
    .bind(Uuid::nil())
    .execute(&world.db)
    .await
    .unwrap();
    assert_eq!(world.client.run(Uuid::nil()).await.unwrap().unwrap().kind, "odd");
}
