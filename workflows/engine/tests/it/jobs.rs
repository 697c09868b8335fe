//! Activities that belong to no run.

use crate::world::{Tool, Work, World};
use flatrender_engine::{Failure, JobOptions, Policy, Unique};
use sqlx::PgPool;
use std::time::Duration;

async fn enqueue(world: &World, jobs: impl IntoIterator<Item = Work>, options: &JobOptions) -> u64 {
    let mut tx = world.db.begin().await.unwrap();
    let inserted = world.client.enqueue_all(&mut tx, world.tenant, jobs, options).await.unwrap();
    tx.commit().await.unwrap();
    world.client.announce();
    inserted
}

const LEFT: &str = "select count(*) from workflow.jobs";
const OK: &str = "select count(*) from workflow.finished_jobs where outcome = 'ok'";

#[sqlx::test(migrations = false)]
async fn every_job_is_done_once_and_kept_with_its_output(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::doubling();
    for _ in 0..2 {
        world.worker(|w| w.handler::<Work>(tool.clone()).queue("work", 100));
    }
    assert_eq!(enqueue(&world, (0..2500).map(Work::new), &JobOptions::default()).await, 2500);
    world.until(0, LEFT).await;
    assert_eq!(tool.count(), 2500);
    assert_eq!(
        world.count("select count(distinct input ->> 'n') from workflow.finished_jobs where (output)::int = 2 * (input ->> 'n')::int").await,
        2500
    );
}

#[sqlx::test(migrations = false)]
async fn a_job_exists_only_if_the_caller_commits(db: PgPool) {
    let world = World::new(db).await;
    let mut tx = world.db.begin().await.unwrap();
    world.client.enqueue(&mut tx, world.tenant, Work::new(1), &JobOptions::default()).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(world.count(LEFT).await, 0);
}

#[sqlx::test(migrations = false)]
async fn one_live_job_has_a_unique_key(db: PgPool) {
    let world = World::new(db).await;
    let options = JobOptions { unique: Some(Unique::new("the one")), ..JobOptions::default() };
    let mut new = 0;
    for n in 0..3 {
        let mut tx = world.db.begin().await.unwrap();
        new += i32::from(world.client.enqueue(&mut tx, world.tenant, Work::new(n), &options).await.unwrap().new);
        tx.commit().await.unwrap();
    }
    assert_eq!((new, world.count(LEFT).await), (1, 1));
}

#[sqlx::test(migrations = false)]
async fn a_failing_job_is_tried_again_and_ends_as_a_dead_letter(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|_, _| async { Err(Failure::transient("test.no", "not today")) });
    world.worker(|w| w.handler::<Work>(tool.clone()));
    let mut work = Work::new(1);
    work.policy = Policy { max_failures: 3, backoff_base: Duration::ZERO, ..Policy::default() };
    enqueue(&world, [work], &JobOptions::default()).await;
    world.until(1, "select count(*) from workflow.finished_jobs where outcome = 'failed' and failure ->> 'code' = 'test.no' and attempt_no = 3").await;
    assert_eq!((tool.count(), world.count(LEFT).await), (3, 0));
}

#[sqlx::test(migrations = false)]
async fn a_job_waits_for_its_time_and_goes_by_priority(db: PgPool) {
    let mut world = World::new(db).await;
    let later = chrono::Utc::now() + chrono::Duration::hours(1);
    enqueue(&world, [Work::new(9)], &JobOptions { run_at: Some(later), priority: 9, ..JobOptions::default() }).await;
    enqueue(&world, [Work::new(1)], &JobOptions::default()).await;
    enqueue(&world, [Work::new(2)], &JobOptions { priority: 1, ..JobOptions::default() }).await;
    world.worker(|w| w.handler::<Work>(Tool::doubling()).queue("work", 1));
    world.until(2, OK).await;
    let order: Vec<i32> =
        sqlx::query_scalar("select (input ->> 'n')::int from workflow.finished_jobs order by finished_at")
            .fetch_all(&world.db)
            .await
            .unwrap();
    assert_eq!(order, [2, 1]);
    world.move_clock(Duration::from_secs(3700)).await;
    world.until(3, OK).await;
}

#[sqlx::test(migrations = false)]
async fn jobs_of_a_worker_that_died_are_done_by_another(db: PgPool) {
    let mut world = World::new(db).await;
    enqueue(&world, (0..10).map(Work::new), &JobOptions::default()).await;
    sqlx::raw_sql(
        "with dead as (
            insert into workflow.workers (name, started_at, seen_at) values ('dead', workflow.now(), workflow.now()) returning id
        )
        update workflow.jobs set worker_id = dead.id, lease_token = gen_random_uuid(), leased_at = workflow.now(), attempt_no = 1
        from dead",
    )
    .execute(&world.db)
    .await
    .unwrap();
    world.worker(|w| w.handler::<Work>(Tool::doubling()));
    world.until(10, OK).await;
    assert_eq!(world.count("select count(*) from workflow.finished_jobs where attempt_no = 2").await, 10);
}

/// Registers an incarnation that nobody stands behind: number 1.
async fn incarnation(world: &World) {
    sqlx::raw_sql(
        "insert into workflow.workers (name, started_at, seen_at) values ('test', workflow.now(), workflow.now())",
    )
    .execute(&world.db)
    .await
    .unwrap();
}

#[sqlx::test(migrations = false)]
async fn an_incarnation_that_was_given_up_claims_nothing(db: PgPool) {
    let world = World::new(db).await;
    enqueue(&world, [Work::new(1)], &JobOptions::default()).await;
    incarnation(&world).await;
    let claim = "select count(*) from workflow.pump_jobs(1, '{}', '{}', '{}', '[]',
        '[{\"queue\": \"work\", \"want\": 5, \"names\": [\"Work\"]}]', gen_random_uuid(), '{}')";
    sqlx::raw_sql("update workflow.workers set ended_at = workflow.now()").execute(&world.db).await.unwrap();
    assert_eq!(world.count(claim).await, 0);
    sqlx::raw_sql("update workflow.workers set ended_at = null").execute(&world.db).await.unwrap();
    assert_eq!(world.count(claim).await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_claim_that_commits_after_its_worker_was_given_up_is_freed(db: PgPool) {
    let mut world = World::new(db).await;
    incarnation(&world).await;
    sqlx::raw_sql("update workflow.workers set ended_at = workflow.now()").execute(&world.db).await.unwrap();
    world.worker(|w| w.workflow::<crate::world::OneWork>());
    // The first look after the end has found nothing.
    world.until(2, "select count(*) from workflow.workers").await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    enqueue(&world, [Work::new(1)], &JobOptions::default()).await;
    sqlx::raw_sql(
        "update workflow.jobs set worker_id = 1, lease_token = gen_random_uuid(), leased_at = workflow.now()",
    )
    .execute(&world.db)
    .await
    .unwrap();
    world.until(1, "select count(*) from workflow.jobs where worker_id is null and losses = 1").await;
}

#[sqlx::test(migrations = false)]
async fn a_worker_that_takes_jobs_over_from_itself_keeps_its_slots(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|attempt, work| async move {
        if attempt.task().attempt_no == 1 {
            attempt.ended().await;
        }
        Ok(work.n)
    });
    world.worker(|w| w.handler::<Work>(tool).queue("work", 3));
    enqueue(&world, (0..3).map(Work::new), &JobOptions::default()).await;
    world.until(3, "select count(*) from workflow.jobs where worker_id is not null").await;
    // Its peers give it up, though it lives.
    sqlx::raw_sql("update workflow.workers set ended_at = workflow.now()").execute(&world.db).await.unwrap();
    world.until(3, OK).await;
    let mut late = Vec::new();
    for n in 3..9 {
        late.push(Work::new(n));
    }
    sqlx::raw_sql("alter sequence workflow.jobs_id_seq restart with 1000").execute(&world.db).await.unwrap();
    enqueue(&world, late, &JobOptions::default()).await;
    world.until(3, "select count(*) from workflow.jobs where worker_id is not null").await;
}

#[sqlx::test(migrations = false)]
async fn a_job_that_its_handler_gives_up_is_done_again(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|attempt, work| async move {
        if attempt.task().attempt_no == 1 { Err(Failure::lease_lost()) } else { Ok(work.n) }
    });
    world.worker(|w| w.handler::<Work>(tool));
    enqueue(&world, [Work::new(1)], &JobOptions::default()).await;
    world.until(1, OK).await;
}

#[sqlx::test(migrations = false)]
async fn a_stale_worker_cannot_end_a_job(db: PgPool) {
    let world = World::new(db).await;
    enqueue(&world, [Work::new(1)], &JobOptions::default()).await;
    incarnation(&world).await;
    let told: Vec<(String, i64)> = sqlx::query_as(
        "with claimed as (
            select id from workflow.pump_jobs(1, '{}', '{}', '{}', '[]', '[{\"queue\": \"work\", \"want\": 5, \"names\": [\"Work\"]}]',
                '00000000-0000-4000-8000-000000000001', '{}')
        )
        select n.what, n.id from claimed c cross join lateral workflow.pump_jobs(1, array[c.id],
            array['00000000-0000-4000-8000-000000000002'::uuid], array[null::jsonb],
            jsonb_build_array(jsonb_build_object('id', c.id, 'token', '00000000-0000-4000-8000-000000000003', 'outcome', 'failed')),
            '[]', gen_random_uuid(), '{}') n",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert_eq!(told.iter().map(|(what, _)| what.as_str()).collect::<Vec<_>>(), ["stale", "stale"]);
    assert_eq!(world.count("select count(*) from workflow.jobs where failures = 0 and worker_id = 1").await, 1);
    assert_eq!(world.count("select count(*) from workflow.finished_jobs").await, 0);
}

#[sqlx::test(migrations = false)]
async fn a_worker_that_stops_gives_its_jobs_back_uncounted(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|_, _| std::future::pending());
    world.worker(|w| w.handler::<Work>(tool.clone()).grace(Duration::from_millis(50)));
    enqueue(&world, (0..3).map(Work::new), &JobOptions::default()).await;
    world.until(3, "select count(*) from workflow.jobs where worker_id is not null").await;
    world.stop().await;
    let free = "select count(*) from workflow.jobs where worker_id is null and failures = 0 and losses = 0";
    assert_eq!(world.count(free).await, 3);
}

#[sqlx::test(migrations = false)]
async fn jobs_and_activities_of_runs_share_the_slots_of_their_queue(db: PgPool) {
    let mut world = World::new(db).await;
    let most = std::sync::Arc::new(std::sync::Mutex::new((0, 0)));
    let seen = most.clone();
    let tool = Tool::new(move |_, work| {
        let seen = seen.clone();
        async move {
            {
                let mut seen = seen.lock().unwrap();
                seen.0 += 1;
                seen.1 = seen.1.max(seen.0);
            }
            tokio::time::sleep(Duration::from_millis(2)).await;
            seen.lock().unwrap().0 -= 1;
            Ok(work.n)
        }
    });
    world.worker(|w| w.workflow::<crate::world::OneWork>().handler::<Work>(tool).queue("work", 2));
    enqueue(&world, (0..30).map(Work::new), &JobOptions::default()).await;
    for n in 0..10 {
        world.start(crate::world::OneWork(Work::new(n))).await;
    }
    world.until(30, OK).await;
    world.until(0, "select count(*) from workflow.tasks").await;
    assert_eq!(most.lock().unwrap().1, 2);
}
