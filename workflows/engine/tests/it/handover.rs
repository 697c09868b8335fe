//! Runs that begin in the process that was asked for them.

use crate::world::World;
use flatrender_engine::{Client, Context, Failure, Worker, Workflow, client::RunState};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

const LONG: Duration = Duration::from_secs(30);

#[derive(Serialize, Deserialize)]
struct Add(u32, u32);

impl Workflow for Add {
    const NAME: &'static str = "add";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let sum = cx.memo("sum", || async { Ok(self.0 + self.1) }).await?;
        if sum == 13 { Err(Failure::permanent("test.unlucky", "thirteen")) } else { Ok(sum) }
    }
}

/// A worker that knows [`Add`], running, and its client.
fn adding(world: &World, runs: usize) -> (Client, CancellationToken, tokio::task::JoinHandle<()>) {
    let worker = Worker::builder(world.db.clone()).workflow::<Add>().runs(runs).build();
    let (client, stop) = (worker.client(), CancellationToken::new());
    let run = worker.run(stop.clone());
    (client, stop, tokio::spawn(async move { run.await.unwrap() }))
}

#[sqlx::test(migrations = false)]
async fn a_launched_run_begins_here_without_a_claim(db: PgPool) {
    let world = World::new(db).await;
    let (client, stop, worker) = adding(&world, 8);
    let mut first = client.launch(world.tenant, Add(0, 0)).await.unwrap();
    first.outcome(LONG).await.unwrap().expect("the worker is there").unwrap();
    // Whoever is ready can only be claimed, and nobody may claim.
    sqlx::raw_sql(
        "create function no_claim() returns trigger language plpgsql as $$ begin raise exception 'claimed'; end $$;
         create trigger no_claim before update on workflow.tasks for each row
         when (old.state = 'ready' and new.state = 'leased') execute function no_claim()",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let mut launched = client.launch(world.tenant, Add(1, 2)).await.unwrap();
    let run = client.run(launched.run_id()).await.unwrap().expect("it is there when the call returns");
    assert_eq!((run.kind.as_str(), run.tenant_id), ("add", world.tenant));
    assert_eq!(launched.outcome(LONG).await.unwrap().unwrap().unwrap(), 3);
    assert_eq!(world.end(launched.run_id()).await.state, RunState::Succeeded);
    stop.cancel();
    worker.await.unwrap();
}

#[sqlx::test(migrations = false)]
async fn more_runs_than_slots_are_launched_and_all_give_their_outcome(db: PgPool) {
    let world = World::new(db).await;
    let (client, stop, worker) = adding(&world, 2);
    let launch = |i: u32| {
        let client = client.clone();
        async move {
            let mut launched = client.launch(uuid::Uuid::nil(), Add(i, 1)).await.unwrap();
            launched.outcome(LONG).await.unwrap().unwrap()
        }
    };
    let outcomes = futures::future::join_all((0..40).map(launch)).await;
    for (i, outcome) in (0..40).zip(outcomes) {
        match outcome {
            Ok(sum) => assert_eq!(sum, i + 1),
            Err(failure) => assert_eq!((i, failure.code.as_str()), (12, "test.unlucky")),
        }
    }
    stop.cancel();
    worker.await.unwrap();
    assert_eq!(world.count("select count(*) from workflow.runs").await, 40);
    assert_eq!(world.count("select count(*) from workflow.tasks").await, 0);
}

#[sqlx::test(migrations = false)]
async fn what_this_worker_does_not_know_is_left_to_another(db: PgPool) {
    let mut world = World::new(db).await;
    let stranger =
        Worker::builder(world.db.clone()).handler::<crate::world::Work>(crate::world::Tool::doubling()).build();
    let (client, stop) = (stranger.client(), CancellationToken::new());
    let run = stranger.run(stop.clone());
    let stranger = tokio::spawn(async move { run.await.unwrap() });
    world.worker(|w| w.workflow::<Add>());
    let mut launched = client.launch(world.tenant, Add(2, 2)).await.unwrap();
    assert_eq!(launched.outcome(LONG).await.unwrap().unwrap().unwrap(), 4);
    stop.cancel();
    stranger.await.unwrap();
}

#[sqlx::test(migrations = false)]
async fn a_launch_needs_no_worker_in_its_process(db: PgPool) {
    let mut world = World::new(db).await;
    let (client, stop, worker) = adding(&world, 8);
    stop.cancel();
    worker.await.unwrap();
    let mut after = client.launch(world.tenant, Add(3, 4)).await.unwrap();
    let mut plain = world.client.launch(world.tenant, Add(5, 6)).await.unwrap();
    assert!(plain.outcome(Duration::from_millis(1)).await.unwrap().is_none(), "nobody works");
    world.worker(|w| w.workflow::<Add>());
    assert_eq!(after.outcome(LONG).await.unwrap().unwrap().unwrap(), 7);
    assert_eq!(plain.outcome(LONG).await.unwrap().unwrap().unwrap(), 11);
}

#[derive(Serialize, Deserialize)]
struct Dawdle(u64);

impl Workflow for Dawdle {
    const NAME: &'static str = "dawdle";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let dawdled = cx.memo("dawdled", || async {
            tokio::time::sleep(Duration::from_millis(self.0)).await;
            Ok(())
        });
        dawdled.await
    }
}

#[sqlx::test(migrations = false)]
async fn an_end_that_is_heard_here_costs_no_session(db: PgPool) {
    let world = World::new(db).await;
    // To get at a session takes so long that an end comes first, if whoever waits for it is about to ask.
    let slow = PgPoolOptions::new().before_acquire(|_, _| {
        Box::pin(async {
            tokio::time::sleep(Duration::from_millis(100)).await;
            Ok(true)
        })
    });
    let slow = slow.connect_with((*world.db.connect_options()).clone()).await.unwrap();
    let worker = Worker::builder(slow).workflow::<Dawdle>().runs(40).build();
    let (client, stop) = (&worker.client(), CancellationToken::new());
    let run = worker.run(stop.clone());
    let worker = tokio::spawn(async move { run.await.unwrap() });
    let one = |i: u64| async move {
        let mut launched = client.launch(uuid::Uuid::nil(), Dawdle(15 * i)).await.unwrap();
        launched.outcome(LONG).await.unwrap().unwrap().unwrap();
    };
    one(0).await; // From here on the worker knows the time, and takes what is launched.
    futures::future::join_all((0..40).map(one)).await;
    stop.cancel();
    worker.await.unwrap();
    let broken_off = "select sessions_abandoned from pg_stat_database where datname = current_database()";
    assert_eq!(world.count(broken_off).await, 0);
}
