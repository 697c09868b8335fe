//! Work goes to whoever holds what it needs, and nothing waits for that for ever.

use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{
    JobOptions, Labels, Warm,
    operations::{By, Operations, Terms},
};
use sqlx::PgPool;
use std::time::Duration;

fn warm(n: u32, key: &str) -> Work {
    Work { warm_key: Some(key.to_owned()), ..Work::new(n) }
}

async fn enqueue(world: &World, job: Work, priority: i16) {
    let mut tx = world.db.begin().await.unwrap();
    let options = JobOptions { priority, ..JobOptions::default() };
    world.client.enqueue(&mut tx, world.tenant, job, &options).await.unwrap();
    tx.commit().await.unwrap();
}

/// Cold work, work for what the worker holds, work for what it does not hold; the second has come last.
async fn order_of_jobs(world: &mut World) -> Vec<i32> {
    enqueue(world, Work::new(1), 0).await;
    enqueue(world, warm(2, "other"), 0).await;
    enqueue(world, warm(3, "held"), 0).await;
    enqueue(world, warm(4, "held"), -1).await;
    enqueue(world, Work::new(5), 1).await;
    let held = Warm::default();
    held.add("held");
    held.add("dropped");
    held.remove("dropped");
    world.worker(|w| w.handler::<Work>(Tool::doubling()).queue("work", 1).warm(held));
    world.until(5, "select count(*) from workflow.finished_jobs where outcome = 'ok'").await;
    sqlx::query_scalar("select (input ->> 'n')::int from workflow.finished_jobs order by started_at")
        .fetch_all(&world.db)
        .await
        .unwrap()
}

#[sqlx::test(migrations = false)]
async fn a_worker_takes_first_what_goes_with_what_it_holds_within_a_priority(db: PgPool) {
    let mut world = World::new(db).await;
    assert_eq!(order_of_jobs(&mut world).await, [5, 3, 1, 2, 4]);
}

#[sqlx::test(migrations = false)]
async fn so_it_does_where_the_queue_has_terms(db: PgPool) {
    let mut world = World::new(db).await;
    let mut tx = world.db.begin().await.unwrap();
    let operations = Operations::new(world.client.clone());
    let terms = Terms { tenant_cap: Some(1), ..Terms::default() };
    operations.set_terms(&mut tx, &By::new("ada"), "work", &terms).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(order_of_jobs(&mut world).await, [5, 3, 1, 2, 4]);
    assert!(world.count("select count(*) from workflow.permits").await <= 1);
}

#[sqlx::test(migrations = false)]
async fn who_has_waited_for_a_minute_goes_before_what_is_warm(db: PgPool) {
    let mut world = World::new(db).await;
    enqueue(&world, Work::new(1), 0).await;
    enqueue(&world, warm(2, "other"), 0).await;
    world.move_clock(Duration::from_secs(61)).await;
    enqueue(&world, warm(3, "held"), 0).await;
    let held = Warm::default();
    held.add("held");
    world.worker(|w| w.handler::<Work>(Tool::doubling()).queue("work", 1).warm(held));
    world.until(3, "select count(*) from workflow.finished_jobs where outcome = 'ok'").await;
    let order: Vec<i32> =
        sqlx::query_scalar("select (input ->> 'n')::int from workflow.finished_jobs order by started_at")
            .fetch_all(&world.db)
            .await
            .unwrap();
    assert_eq!(order, [1, 2, 3]);
}

#[sqlx::test(migrations = false)]
async fn a_remote_worker_says_what_it_holds_and_is_never_left_idle(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let mut runs = Vec::new();
    for work in [warm(1, "a"), warm(2, "b"), warm(3, "b")] {
        runs.push(world.start(OneWork(work)).await);
        let asked = runs.len() as i64;
        while world.count("select count(*) from workflow.tasks where queue = 'work'").await < asked {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
    let holds = ["b".to_owned(), "c".to_owned()];
    let mut taken = Vec::new();
    for _ in 0..3 {
        let task = world.client.claim_holding(&["work"], &Labels::new(), &holds, "node", 1).await.unwrap().remove(0);
        taken.push(task.run_id);
    }
    assert_eq!(taken, [runs[1], runs[2], runs[0]]);
}
