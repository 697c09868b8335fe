//! What must not depend on the life of one process: bulk operations and schedules, with processes that are really killed.

use crate::world::World;
use chrono::{DateTime, Utc};
use flatrender_engine::{
    Client, Context, Failure, Worker, Workflow,
    client::RunState,
    operations::{Action, Bulk, By, Filter, Operations},
    schedules::{CatchUp, Decision, Overlap, Schedules, Terms},
};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::{
    collections::BTreeSet,
    process::{Child, Command, Stdio},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const URL: &str = "FLATRENDER_TEST_URL";

/// Not a test: a process that looks after bulk operations and schedules, and knows no definition.
#[tokio::test]
#[ignore = "a worker for other tests to kill"]
async fn clerk_process() {
    let Ok(url) = std::env::var(URL) else { return };
    let db = PgPoolOptions::new().max_connections(4).connect(&url).await.unwrap();
    Worker::builder(db).workflow::<Unknown>().schedules().run(CancellationToken::new()).await.unwrap();
}

/// A worker process that does not outlive its test.
struct Doomed(Child);

impl Doomed {
    async fn spawn(db: &PgPool) -> Self {
        let name: String = sqlx::query_scalar("select current_database()").fetch_one(db).await.unwrap();
        let server = std::env::var("DATABASE_URL").unwrap();
        let (server, _) = server.rsplit_once('/').unwrap();
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "processes::clerk_process", "--ignored"]).env(URL, format!("{server}/{name}"));
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }

    /// `kill -9`.
    fn kill(mut self) {
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

/// Nobody starts it.
#[derive(Serialize, Deserialize)]
struct Unknown;

impl Workflow for Unknown {
    const NAME: &'static str = "unknown";
    type Output = ();

    async fn run(self, _: &Context) -> Result<(), Failure> {
        Ok(())
    }
}

/// Fails at once.
#[derive(Serialize, Deserialize)]
struct Closed;

impl Workflow for Closed {
    const NAME: &'static str = "closed";
    type Output = ();

    async fn run(self, _: &Context) -> Result<(), Failure> {
        Err(Failure::permanent("road.closed", "closed"))
    }
}

fn by() -> By {
    By::new("ada").because("the road is open")
}

async fn fail(world: &mut World, count: usize) -> Vec<Uuid> {
    let mut tx = world.db.begin().await.unwrap();
    let runs = world.client.start_all(&mut tx, world.tenant, (0..count).map(|_| Closed)).await.unwrap();
    tx.commit().await.unwrap();
    world.worker(|w| w.workflow::<Closed>());
    world.until(0, "select count(*) from workflow.tasks").await;
    world.stop().await;
    runs
}

/// F25: a bulk retry of 2,000 runs, of 50,000 with `FLATRENDER_LONG=1`, whose worker is killed twice on the way. F26: an item whose
/// place is taken says so and is left alone.
#[sqlx::test(migrations = false)]
async fn a_bulk_retry_whose_processes_are_killed_does_each_of_its_frozen_set_once(db: PgPool) {
    let count = if std::env::var("FLATRENDER_LONG").is_ok_and(|long| long == "1") { 50_000 } else { 2_000 };
    let mut world = World::new(db).await;
    let operations = Operations::new(world.client.clone());
    let runs = fail(&mut world, count).await;
    let filter = Filter { kinds: vec![Closed::NAME.to_owned()], states: vec![RunState::Failed], ..Filter::default() };
    let mut tx = world.db.begin().await.unwrap();
    let preview = operations.preview(&mut tx, &by(), Action::Retry, &filter, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(preview.total as usize, count);
    // What fits the filter later is not in it, and what somebody else has retried is in conflict.
    let late = fail(&mut world, 20).await;
    let mut tx = world.db.begin().await.unwrap();
    operations.retry(&mut tx, &By::new("bob"), runs[count / 2], &Default::default()).await.unwrap();
    operations.begin(&mut tx, &by(), preview.id, preview.total).await.unwrap();
    tx.commit().await.unwrap();

    for third in [1, 2] {
        let doomed = Doomed::spawn(&world.db).await;
        reached(&operations, preview.id, |bulk| bulk.next_n as usize > count * third / 3).await;
        doomed.kill();
        let bulk = operations.bulk(preview.id).await.unwrap().unwrap();
        assert_eq!(bulk.state, "running", "it was killed too late: {} of {count}", bulk.next_n);
    }
    let _last = Doomed::spawn(&world.db).await;
    let bulk = reached(&operations, preview.id, |bulk| bulk.state == "finished").await;
    assert_eq!((bulk.done as usize, bulk.conflicts, bulk.skipped, bulk.failed), (count - 1, 1, 0, 0));

    let items: Vec<(Uuid, String, Option<Uuid>)> =
        sqlx::query_as("select run_id, outcome, result_run_id from workflow.bulk_items where bulk_id = $1")
            .bind(preview.id)
            .fetch_all(&world.db)
            .await
            .unwrap();
    assert_eq!(items.iter().map(|item| item.0).collect::<BTreeSet<_>>(), runs.iter().copied().collect());
    let made: BTreeSet<Uuid> = items.iter().filter_map(|item| item.2).collect();
    assert_eq!(made.len(), count - 1);
    let conflict: Vec<Uuid> = items.iter().filter(|item| item.1 == "conflict").map(|item| item.0).collect();
    assert_eq!(conflict, [runs[count / 2]]);
    // Each origin has one retry, and nothing else was made or touched.
    let twice = "select count(*) from (select from workflow.run_lineage group by origin_run_id having count(*) > 1) t";
    assert_eq!(world.count(twice).await, 0);
    assert_eq!(world.count("select count(*) from workflow.run_lineage").await as usize, count);
    assert_eq!(world.count("select count(*) from workflow.runs").await as usize, 2 * count + late.len());
    assert_eq!(
        world.count("select count(*) from workflow.runs where state = 'failed'").await as usize,
        count + late.len()
    );
    let audited =
        "select count(*) from workflow.audit where action = 'retry' and reason like 'the road is open (operation %'";
    assert_eq!(world.count(audited).await as usize, count - 1);
}

/// Waits until an operation is as wanted.
async fn reached(operations: &Operations, id: Uuid, is: impl Fn(&Bulk) -> bool) -> Bulk {
    for _ in 0..60_000 {
        let bulk = operations.bulk(id).await.unwrap().unwrap();
        if is(&bulk) {
            return bulk;
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    panic!("never: {:#?}", operations.bulk(id).await);
}

async fn set_clock(db: &PgPool, now: &str) {
    let now: DateTime<Utc> = now.parse().unwrap();
    let set = "update workflow.clock set moved_by = $1 - clock_timestamp()";
    sqlx::query(set).bind(now).execute(db).await.unwrap();
}

/// F20: the times of a day come while two processes look, one of which dies amid them.
#[sqlx::test(migrations = false)]
async fn two_processes_of_which_one_dies_fire_each_time_once(db: PgPool) {
    let world = World::new(db.clone()).await;
    let schedules = Schedules::new(Client::new(db.clone()));
    set_clock(&db, "2027-01-10T00:00:00Z").await;
    let mut terms = Terms::of("closed", "*/10 * * * *", &Closed).unwrap();
    (terms.catch_up, terms.overlap) = (CatchUp::All, Overlap::Allow);
    terms.catch_up_window = Duration::from_secs(86_400);
    let mut tx = db.begin().await.unwrap();
    let id = schedules.create(&mut tx, world.tenant, &terms).await.unwrap();
    tx.commit().await.unwrap();
    let (doomed, _other) = (Doomed::spawn(&db).await, Doomed::spawn(&db).await);
    world.until(2, "select count(*) from workflow.workers").await;
    set_clock(&db, "2027-01-10T06:00:00Z").await;
    world.until(1, "select least(count(*), 1) from workflow.schedule_fires").await;
    set_clock(&db, "2027-01-10T12:00:00Z").await;
    doomed.kill();
    set_clock(&db, "2027-01-10T18:00:00Z").await;
    world.until(108, "select count(*) from workflow.schedule_fires").await;
    assert_eq!(world.count("select count(*) from workflow.runs").await, 108);
    let fires = schedules.fires(id, 500).await.unwrap();
    assert!(fires.iter().all(|fire| fire.decision == Decision::Started));
    let runs: BTreeSet<Uuid> = fires.iter().filter_map(|fire| fire.run_id).collect();
    assert_eq!(runs.len(), 108);
}
