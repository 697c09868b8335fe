//! Real processes, really killed.

use crate::{
    sagas,
    world::{Tool, Work, World, effect},
};
use flatrender_engine::{Context, Failure, JobOptions, Worker, Workflow, client::RunState};
use futures::future::join;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const URL: &str = "FLATRENDER_TEST_URL";

/// Four steps with an effect each, three activities, a memo.
#[derive(Serialize, Deserialize)]
struct Journey;

impl Workflow for Journey {
    const NAME: &'static str = "journey";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let run_id = cx.run_id();
        cx.step("pack", async |db| effect(db, run_id, "pack").await).await?;
        let far = cx.activity("ride", hardy(1)).await?;
        let far = cx.memo("note", || async move { Ok(far) }).await?;
        cx.step("rest", async |db| effect(db, run_id, "rest").await).await?;
        let (a, b) = join(cx.activity("sea", hardy(far)), cx.activity("land", hardy(far))).await;
        let sum = a? + b?;
        cx.step("arrive", async |db| effect(db, run_id, "arrive").await).await?;
        cx.sleep("nap", Duration::from_millis(20)).await?;
        cx.step("unpack", async |db| effect(db, run_id, "unpack").await).await?;
        Ok(sum)
    }
}

/// Work that is not given up for being lost: here every worker is killed, and many may meet the same work.
fn hardy(n: u32) -> Work {
    let mut work = Work::new(n);
    work.policy.max_losses = 1_000;
    work
}

/// Starts a journey that is not given up for the workers it loses, and a job that is not either.
async fn set_out(world: &World) -> Uuid {
    let run_id = world.start(Journey).await;
    let mut tx = world.db.begin().await.unwrap();
    world.client.enqueue(&mut tx, world.tenant, hardy(3), &JobOptions::default()).await.unwrap();
    tx.commit().await.unwrap();
    world.client.announce();
    let hardy = "update workflow.tasks set max_losses = 1000 where run_id = $1";
    sqlx::query(hardy).bind(run_id).execute(&world.db).await.unwrap();
    run_id
}

/// Not a test: the process that the tests below start and kill.
#[tokio::test]
#[ignore = "a worker for other tests to kill"]
async fn worker_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let db = PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
    let slow = Tool::new(|_, work| async move {
        tokio::time::sleep(Duration::from_millis(u64::from(work.n) * 5)).await;
        Ok(work.n * 2)
    });
    let worker = Worker::builder(db.clone()).workflow::<Journey>().handler::<Work>(slow);
    let worker = worker.workflow::<sagas::Journey>().handler::<sagas::Refund>(sagas::Bank(db));
    worker.run(CancellationToken::new()).await.unwrap();
}

/// A worker process that does not outlive its test.
struct Doomed(Child);

impl Doomed {
    fn kill(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

impl Drop for Doomed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn spawn(url: &str, kill_at: Option<&str>) -> Doomed {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--exact", "kills::worker_process", "--ignored"]).env(URL, url);
    command.stdout(Stdio::null()).stderr(Stdio::null());
    if let Some(point) = kill_at {
        command.env("FLATRENDER_FAILPOINTS", point);
    }
    Doomed(command.spawn().unwrap())
}

async fn url_of(db: &PgPool) -> String {
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(db).await.unwrap();
    let server = std::env::var("DATABASE_URL").unwrap();
    let (server, _) = server.rsplit_once('/').unwrap();
    format!("{server}/{name}")
}

async fn assert_each_effect_once(world: &World, runs: &[Uuid]) {
    for run_id in runs {
        let run = world.end(*run_id).await;
        assert_eq!((run.state, run.output_as::<u32>()), (RunState::Succeeded, Some(8)), "{:?}", run.error);
    }
    world.until(0, "select count(*) from workflow.jobs").await;
    let done = "select count(*) from workflow.finished_jobs where outcome = 'ok'";
    assert_eq!(world.count(done).await, runs.len() as i64);
    let wanted = runs.len() as i64 * 4;
    assert_eq!(world.count("select count(*) from effects").await, wanted);
    assert_eq!(world.count("select count(*) from (select distinct run_id, key from effects) e").await, wanted);
    assert_eq!(world.count("select count(*) from workflow.tasks").await, 0);
    let broken = "select count(*) from (
        select run_id from workflow.steps group by run_id having count(*) <> 9 or max(seq) <> 9) r";
    assert_eq!(world.count(broken).await, 0);
}

#[sqlx::test(migrations = false)]
async fn thirty_workers_killed_at_random_leave_each_effect_once(db: PgPool) {
    let world = World::new(db).await;
    let url = url_of(&world.db).await;
    let mut runs = Vec::new();
    let mut seed = 7u64;
    for _ in 0..30 {
        for _ in 0..4 {
            runs.push(set_out(&world).await);
        }
        let mut worker = spawn(&url, None);
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        tokio::time::sleep(Duration::from_millis(60 + (seed >> 33) % 500)).await;
        worker.kill();
    }
    let _last = spawn(&url, None);
    assert_each_effect_once(&world, &runs).await;
}

#[sqlx::test(migrations = false)]
async fn a_worker_killed_at_every_named_point_leaves_each_effect_once(db: PgPool) {
    let world = World::new(db).await;
    let url = url_of(&world.db).await;
    let mut runs = Vec::new();
    let points = [
        ("step.record.before", 4),
        ("step.commit.before", 4),
        ("step.commit.after", 4),
        ("task.pump.before", 10),
        ("task.pump.after", 10),
        ("job.pump.before", 3),
        ("job.pump.after", 3),
    ];
    for (point, passes) in points {
        for pass in 1..=passes {
            let run_id = set_out(&world).await;
            runs.push(run_id);
            die_at(&world, &url, &format!("{point}:{pass}"), run_id).await;
        }
    }
    let _last = spawn(&url, None);
    assert_each_effect_once(&world, &runs).await;
}

/// Starts a worker that dies at the point, unless the run is over before it gets there.
async fn die_at(world: &World, url: &str, point: &str, run_id: Uuid) {
    let mut doomed = spawn(url, Some(point));
    while doomed.0.try_wait().unwrap().is_none() {
        let run = world.client.run(run_id).await.unwrap().unwrap();
        if run.state.is_final() {
            doomed.kill();
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[sqlx::test(migrations = false)]
async fn a_saga_killed_at_every_named_point_takes_everything_back_once(db: PgPool) {
    let world = World::new(db).await;
    let url = url_of(&world.db).await;
    let mut runs = Vec::new();
    // The flight, the hotel, the car, the payment that fails, the return of the car; three marks and two refunds.
    for (point, passes) in
        [("step.commit.before", 5), ("step.commit.after", 5), ("task.pump.before", 9), ("task.pump.after", 9)]
    {
        for pass in 1..=passes {
            let run_id = world.start(sagas::Journey { fails: 1, ..sagas::Journey::that(sagas::Ending::Fails) }).await;
            runs.push(run_id);
            die_at(&world, &url, &format!("{point}:{pass}"), run_id).await;
        }
    }
    let _last = spawn(&url, None);
    for run_id in &runs {
        let run = world.end(*run_id).await;
        assert_eq!(run.error.map(|e| e.code).as_deref(), Some("test.no_money"));
        let effects: Vec<String> = sqlx::query_scalar("select key from effects where run_id = $1 order by n")
            .bind(run_id)
            .fetch_all(&world.db)
            .await
            .unwrap();
        assert_eq!(effects, ["flight", "hotel", "car", "return car", "refund hotel", "refund flight"]);
    }
}

#[sqlx::test(migrations = false)]
async fn the_work_of_a_killed_worker_is_taken_over_long_before_its_lease_ends(db: PgPool) {
    let mut world = World::new(db).await;
    let url = url_of(&world.db).await;
    let mut doomed = spawn(&url, Some("step.commit.before:2"));
    let run_id = set_out(&world).await;
    world.until(1, "select count(*) from workflow.workers").await;
    world.worker(|w| w.workflow::<crate::world::OneWork>()); // A peer that looks around and cannot take the run.
    doomed.0.wait().unwrap();
    let died_at = std::time::Instant::now();
    world.until(1, "select count(*) from workflow.tasks where kind = 'run' and state = 'ready' and losses = 1").await;
    assert!(died_at.elapsed() < Duration::from_secs(15), "{:?}", died_at.elapsed());
    world.worker(|w| w.workflow::<Journey>().handler::<Work>(Tool::doubling()));
    assert_each_effect_once(&world, &[run_id]).await;
}
