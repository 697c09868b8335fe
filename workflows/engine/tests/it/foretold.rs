//! What a definition comes by, and looks at before it is recorded.

use crate::world::World;
use chrono::{DateTime, Utc};
use flatrender_engine::{Client, Context, Delivery, Failure, Workflow, client::RunState};
use metrics_exporter_prometheus::PrometheusBuilder;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::sync::{
    OnceLock,
    atomic::{AtomicU32, Ordering},
};
use uuid::Uuid;

/// The database, for those who look behind the back of their worker.
static DB: OnceLock<PgPool> = OnceLock::new();
static FIRSTS: AtomicU32 = AtomicU32::new(0);
static SECONDS: AtomicU32 = AtomicU32::new(0);

async fn recorded(run_id: Uuid) -> Result<i64, Failure> {
    let db = DB.get().expect("the test has set it");
    Ok(sqlx::query_scalar("select count(*) from workflow.steps where run_id = $1").bind(run_id).fetch_one(db).await?)
}

/// A signal that the worker is not told of: as if it came from another process, and its notification late.
async fn signal_in_silence(run_id: Uuid) -> Result<(), Failure> {
    let db = DB.get().expect("the test has set it");
    let mut tx = db.begin().await?;
    let signalled = Client::new(db.clone()).signal(&mut tx, run_id, "news", None, &1).await;
    assert_eq!(signalled.map_err(|error| error.to_string()), Ok(Delivery::Accepted));
    Ok(tx.commit().await?)
}

async fn world(db: PgPool) -> World {
    DB.set(db.clone()).expect("a process a test");
    World::new(db).await
}

/// Each step looks at how many are recorded when it begins.
#[derive(Serialize, Deserialize)]
struct Counting;

impl Workflow for Counting {
    const NAME: &'static str = "counting";
    type Output = Vec<i64>;

    async fn run(self, cx: &Context) -> Result<Vec<i64>, Failure> {
        let run_id = cx.run_id();
        let mut seen = Vec::new();
        for key in ["one", "two", "three"] {
            seen.push(cx.memo(key, || recorded(run_id)).await?);
        }
        Ok(seen)
    }
}

#[sqlx::test(migrations = false)]
async fn a_step_begins_when_the_one_before_is_recorded_and_the_last_is_recorded_with_the_end(db: PgPool) {
    let mut world = world(db).await;
    world.worker(|w| w.workflow::<Counting>());
    // A worker that has just started does not know the time of the database yet.
    world.finish(Counting).await;
    let run = world.finish(Counting).await;
    assert_eq!(run.output_as::<Vec<i64>>(), Some(vec![0, 1, 2]));
    // What one transaction writes has its number.
    let with_the_end: Vec<String> = sqlx::query_scalar(
        "select s.key from workflow.steps s join workflow.runs r on r.id = s.run_id where r.id = $1 and r.xmin = s.xmin",
    )
    .bind(run.id)
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert_eq!(with_the_end, ["three"]);
}

/// What it is told last is the time.
#[derive(Serialize, Deserialize)]
struct Punctual {
    goes_on: bool,
}

impl Workflow for Punctual {
    const NAME: &'static str = "punctual";
    type Output = DateTime<Utc>;

    async fn run(self, cx: &Context) -> Result<DateTime<Utc>, Failure> {
        cx.memo("one", || async { Ok(()) }).await?;
        let now = cx.now();
        if self.goes_on {
            cx.memo("two", || async { Ok(()) }).await?;
        }
        Ok(now)
    }
}

#[sqlx::test(migrations = false)]
async fn the_time_of_a_definition_is_that_of_its_newest_record_before_it_is_written(db: PgPool) {
    let mut world = world(db).await;
    world.worker(|w| w.workflow::<Punctual>());
    for goes_on in [false, false, true] {
        let run = world.finish(Punctual { goes_on }).await;
        let at: DateTime<Utc> =
            sqlx::query_scalar("select recorded_at from workflow.steps where run_id = $1 and key = 'one'")
                .bind(run.id)
                .fetch_one(&world.db)
                .await
                .unwrap();
        assert_eq!(run.output_as::<DateTime<Utc>>(), Some(at));
    }
}

/// Comes by something while a signal arrives, and ends with it or goes on.
#[derive(Serialize, Deserialize)]
struct Interrupted {
    goes_on: bool,
    fails: bool,
}

impl Workflow for Interrupted {
    const NAME: &'static str = "interrupted";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let run_id = cx.run_id();
        let first = async || {
            signal_in_silence(run_id).await?;
            Ok(FIRSTS.fetch_add(1, Ordering::SeqCst))
        };
        let first = cx.memo("first", first).await?;
        if self.goes_on {
            cx.memo("second", || async { Ok(SECONDS.fetch_add(1, Ordering::SeqCst)) }).await?;
        }
        if self.fails { Err(Failure::permanent("test.no", "never")) } else { Ok(first) }
    }
}

async fn interrupted(world: &World, goes_on: bool, fails: bool) -> Uuid {
    FIRSTS.store(0, Ordering::SeqCst);
    let run = world.finish(Interrupted { goes_on, fails }).await;
    assert_eq!(run.state, if fails { RunState::Failed } else { RunState::Succeeded });
    assert_eq!(FIRSTS.load(Ordering::SeqCst), 1, "what the run came by is kept");
    run.id
}

#[sqlx::test(migrations = false)]
async fn a_run_that_ends_while_something_newer_is_recorded_looks_at_that_first(db: PgPool) {
    let mut world = world(db).await;
    world.worker(|w| w.workflow::<Interrupted>());
    world.finish(Interrupted { goes_on: false, fails: false }).await;
    for fails in [false, true] {
        let run_id = interrupted(&world, false, fails).await;
        assert_eq!(world.history(run_id).await, "signal    $signal:news:# ok\nstep      first    ok");
        let ends: Vec<String> =
            sqlx::query_scalar("select outcome from workflow.attempts where run_id = $1 order by attempt_no")
                .bind(run_id)
                .fetch_all(&world.db)
                .await
                .unwrap();
        assert_eq!(ends, ["released", if fails { "failed" } else { "ok" }]);
    }
}

#[sqlx::test(migrations = false)]
async fn a_run_that_goes_on_while_something_newer_is_recorded_starts_over_and_repeats_nothing(db: PgPool) {
    let mut world = world(db).await;
    world.worker(|w| w.workflow::<Interrupted>());
    world.finish(Interrupted { goes_on: false, fails: false }).await;
    let run_id = interrupted(&world, true, false).await;
    assert_eq!(SECONDS.load(Ordering::SeqCst), 1);
    let history = "signal    $signal:news:# ok\nstep      first    ok\nstep      second   ok";
    assert_eq!(world.history(run_id).await, history);
}

/// Comes by what is small as it is sent, and too large as PostgreSQL keeps it.
#[derive(Serialize, Deserialize)]
struct Boundless;

impl Workflow for Boundless {
    const NAME: &'static str = "boundless";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.memo("numbers", || async { Ok(vec![1e300; 1000]) }).await.map(drop)
    }
}

#[sqlx::test(migrations = false)]
async fn an_end_that_the_database_refuses_waits_for_somebody_who_mends_it(db: PgPool) {
    let mut world = world(db).await;
    world.worker(|w| w.workflow::<Boundless>().workflow::<Counting>());
    world.finish(Counting).await;
    let run_id = world.start(Boundless).await;
    let (reason, code) = world.parked(run_id).await;
    assert_eq!((reason.as_str(), code.as_str()), ("unrecordable", "workflow.unrecordable"));
}

/// Cannot read again what it has come by.
#[derive(Serialize, Deserialize)]
struct Illegible;

impl Workflow for Illegible {
    const NAME: &'static str = "illegible";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.memo("number", || async { Ok(f64::NAN) }).await.map(drop)
    }
}

#[sqlx::test(migrations = false)]
async fn what_cannot_be_read_again_is_recorded_before_its_run_is_set_aside(db: PgPool) {
    let mut world = world(db).await;
    world.worker(|w| w.workflow::<Illegible>().workflow::<Counting>());
    world.finish(Counting).await;
    let run_id = world.start(Illegible).await;
    world.parked(run_id).await;
    assert_eq!(world.history(run_id).await, "step      number   ok");
}

#[sqlx::test(migrations = false)]
async fn an_end_that_came_too_late_is_not_counted(db: PgPool) {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let mut world = world(db).await;
    world.worker(|w| w.workflow::<Interrupted>().workflow::<Boundless>());
    world.finish(Interrupted { goes_on: false, fails: false }).await;
    let ended = |state: &str| {
        let series = format!("flatrender_engine_runs_ended_total{{kind=\"interrupted\",state=\"{state}\"}} ");
        handle.render().lines().find_map(|line| line.strip_prefix(&series)?.parse::<u32>().ok()).unwrap_or_default()
    };
    let before = ended("succeeded");
    interrupted(&world, false, false).await;
    interrupted(&world, false, true).await;
    let boundless = world.start(Boundless).await;
    world.parked(boundless).await;
    world.stop().await;
    assert_eq!((ended("succeeded") - before, ended("failed")), (1, 1));
    assert!(!handle.render().contains("runs_ended_total{kind=\"boundless\""), "{}", handle.render());
}
