//! Attempts that succeed, fail, wait and end for good.

use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{Context, Failure, Labels, Policy, Workflow, client::RunState};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::{sync::atomic::Ordering, time::Duration};

#[derive(Serialize, Deserialize)]
struct FanOut(u32);

impl Workflow for FanOut {
    const NAME: &'static str = "fan_out";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let all = (0..self.0).map(|n| async move { cx.activity(&format!("work {n}"), Work::new(n)).await });
        Ok(join_all(all).await.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().sum())
    }
}

#[sqlx::test(migrations = false)]
async fn a_fan_out_of_200_joins(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::doubling();
    let handler = tool.clone();
    world.worker(|w| w.workflow::<FanOut>().handler::<Work>(handler).queue("work", 16));
    let run = world.finish(FanOut(200)).await;
    assert_eq!(run.output_as::<u32>(), Some(199 * 200));
    assert_eq!(tool.count(), 200);
    assert_eq!(world.count("select count(*) from workflow.steps").await, 200);
}

#[sqlx::test(migrations = false)]
async fn two_workers_share_a_fan_out_without_doubling_it(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::doubling();
    for _ in 0..2 {
        let handler = tool.clone();
        world.worker(|w| w.workflow::<FanOut>().handler::<Work>(handler).queue("work", 4));
    }
    let runs = join_all((0..6).map(|_| world.finish(FanOut(50)))).await;
    assert!(runs.iter().all(|run| run.output_as::<u32>() == Some(49 * 50)));
    assert_eq!(tool.count(), 300);
}

fn failing(failure: Failure) -> Tool {
    Tool::new(move |_, _| std::future::ready(Err(failure.clone())))
}

#[sqlx::test(migrations = false)]
async fn a_permanent_failure_is_not_repeated(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = failing(Failure::permanent("test.no", "never"));
    let handler = tool.clone();
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(handler));
    let run = world.finish(OneWork(Work::new(1))).await;
    assert_eq!((run.state, run.error.unwrap().code.as_str()), (RunState::Failed, "test.no"));
    assert_eq!(tool.count(), 1);
}

#[sqlx::test(migrations = false)]
async fn a_transient_failure_is_repeated_up_to_its_ceiling(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = failing(Failure::transient("test.not_now", "busy"));
    let handler = tool.clone();
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(handler));
    let run = world.finish(OneWork(Work::new(1))).await;
    assert_eq!(run.error.unwrap().code, "test.not_now");
    assert_eq!(tool.count(), 4);
    assert_eq!(
        world.count("select count(*) from workflow.attempts where outcome = 'failed' and step_key = 'work'").await,
        4
    );
}

#[sqlx::test(migrations = false)]
async fn a_panicking_handler_is_a_failed_attempt(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|cx, work| async move {
        if cx.task().attempt_no == 1 {
            panic!("asked to");
        }
        Ok(work.n)
    });
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(tool));
    assert_eq!(world.finish(OneWork(Work::new(7))).await.output_as::<u32>(), Some(7));
    assert_eq!(
        world.count("select count(*) from workflow.attempts where failure ->> 'code' = 'workflow.panicked'").await,
        1
    );
}

#[sqlx::test(migrations = false)]
async fn the_backoff_is_kept_by_the_database(db: PgPool) {
    let mut world = World::new(db).await;
    let hour = Duration::from_secs(3600);
    let mut work = Work::new(1);
    work.policy = Policy { backoff_base: hour, backoff_cap: 2 * hour, ..Policy::default() };
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(work)).await;
    world.activity(run_id, "work").await;
    let mut longest = Duration::ZERO;
    for failures in 1..4 {
        let leased = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap();
        world
            .client
            .fail(leased[0].task_id, leased[0].lease_token, &Failure::transient("test.busy", "busy"))
            .await
            .unwrap();
        let task = world.activity(run_id, "work").await;
        assert_eq!((task.state.as_str(), task.failures), ("waiting", failures));
        assert!(world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().is_empty());
        let now: chrono::DateTime<chrono::Utc> =
            sqlx::query_scalar("select workflow.now()").fetch_one(&world.db).await.unwrap();
        let wait = (task.run_at.unwrap() - now).to_std().unwrap_or_default();
        let cap = hour * 2u32.pow(failures as u32 - 1).min(2);
        assert!(wait <= cap, "{wait:?}");
        longest = longest.max(wait);
        world.move_clock(cap).await;
        world.until(1, "select count(*) from workflow.tasks where kind = 'activity' and state = 'ready'").await;
    }
    assert!(longest > Duration::from_secs(60), "no jitter is that unlucky three times: {longest:?}");
}

#[sqlx::test(migrations = false)]
async fn retry_after_is_honoured(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    let leased = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap();
    let failure = Failure::transient("test.throttled", "slow down").after(Duration::from_secs(900));
    world.client.fail(leased[0].task_id, leased[0].lease_token, &failure).await.unwrap();
    let seconds =
        "select round(extract(epoch from run_at - workflow.now()))::bigint from workflow.tasks where kind = 'activity'";
    assert!((895..=900).contains(&world.count(seconds).await));
}

#[sqlx::test(migrations = false)]
async fn an_attempt_that_takes_too_long_is_a_failure(db: PgPool) {
    let mut world = World::new(db).await;
    let mut work = Work::new(3);
    work.policy.start_to_close = Duration::from_millis(200);
    let tool = Tool::new(|cx, work| async move {
        if cx.task().attempt_no == 1 {
            std::future::pending::<()>().await;
        }
        Ok(work.n)
    });
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(tool));
    assert_eq!(world.finish(OneWork(work)).await.output_as::<u32>(), Some(3));
    assert_eq!(world.count("select count(*) from workflow.attempts where outcome = 'timeout'").await, 1);
}

#[sqlx::test(migrations = false)]
async fn an_output_that_cannot_be_stored_fails_alone(db: PgPool) {
    #[derive(Serialize, Deserialize)]
    struct Big(bool);
    impl flatrender_engine::Activity for Big {
        const NAME: &'static str = "Big";
        const QUEUE: &'static str = "work";
        type Output = String;
    }
    struct Pages;
    impl flatrender_engine::Handler<Big> for Pages {
        async fn handle(&self, _: &flatrender_engine::Attempt, input: Big) -> Result<String, Failure> {
            Ok(if input.0 { "x".repeat(300_000) } else { "fine".into() })
        }
    }
    #[derive(Serialize, Deserialize)]
    struct Print(bool);
    impl Workflow for Print {
        const NAME: &'static str = "print";
        type Output = String;
        async fn run(self, cx: &Context) -> Result<String, Failure> {
            cx.activity("big", Big(self.0)).await
        }
    }
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Print>().handler::<Big>(Pages));
    let (bad, good) = futures::future::join(world.finish(Print(true)), world.finish(Print(false))).await;
    assert_eq!(bad.error.unwrap().code, "workflow.unrecordable");
    assert_eq!(good.output_as::<String>().as_deref(), Some("fine"));
}

#[sqlx::test(migrations = false)]
async fn work_for_other_labels_does_not_hide_the_rest(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let gpu = Labels::from([("gpu".to_owned(), "yes".to_owned())]);
    for n in 0..30 {
        world.start(OneWork(Work { labels: gpu.clone(), ..Work::new(n) })).await;
    }
    world.until(30, "select count(*) from workflow.tasks where kind = 'activity'").await;
    world.start(OneWork(Work::new(99))).await;
    world.until(31, "select count(*) from workflow.tasks where kind = 'activity'").await;
    let plain = world.client.claim(&["work"], &Labels::new(), "plain", 5).await.unwrap();
    assert_eq!(plain.len(), 1);
    assert_eq!(plain[0].input["n"], 99);
    let both = Labels::from([("gpu".to_owned(), "yes".to_owned()), ("os".to_owned(), "linux".to_owned())]);
    assert_eq!(world.client.claim(&["work"], &both, "gpu", 50).await.unwrap().len(), 30);
}

#[sqlx::test(migrations = false)]
async fn a_stopping_worker_gives_work_back_uncounted(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|cx, work| async move {
        if cx.task().attempt_no == 1 {
            std::future::pending::<()>().await;
        }
        Ok(work.n)
    });
    let handler = tool.clone();
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(handler).grace(Duration::from_millis(100)));
    let run_id = world.start(OneWork(Work::new(5))).await;
    while tool.calls.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    world.stop().await;
    let task = world.activity(run_id, "work").await;
    assert_eq!((task.state.as_str(), task.failures, task.losses), ("ready", 0, 0));
    assert_eq!(world.count("select count(*) from workflow.workers where ended_at is null").await, 0);
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(tool));
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(5));
}

/// Full jitter, as the AWS Architecture Blog has it ("Exponential Backoff And Jitter"): anything from nothing to the whole.
#[sqlx::test(migrations = false)]
async fn a_pause_is_anything_up_to_its_doubling_and_never_beyond_its_cap(db: PgPool) {
    let world = World::new(db).await;
    for (failures, base, cap, most) in [
        (0, 1.0, 60.0, 1.0),
        (1, 1.0, 60.0, 2.0),
        (5, 1.0, 60.0, 32.0),
        (6, 1.0, 60.0, 60.0),
        (i32::MAX, 86_400.0, 86_400.0, 86_400.0),
        (3, 0.0, 60.0, 0.0),
    ] {
        let (least, mean, longest): (f64, f64, f64) = sqlx::query_as(
            "select min(d), avg(d)::float8, max(d)
             from (select workflow.retry_delay($1, $2, $3, null) as d from generate_series(1, 2000)) t",
        )
        .bind(failures)
        .bind(base)
        .bind(cap)
        .fetch_one(&world.db)
        .await
        .unwrap();
        assert!(least >= 0.0 && longest <= most, "{failures}: {least} to {longest} of {most}");
        // A chance of one in ten thousand million that two thousand of them lie elsewhere.
        assert!((mean - most / 2.0).abs() <= most * 0.05, "{failures}: {mean} of {most}");
        assert!(least <= most * 0.01 && longest >= most * 0.99, "{failures}: {least} to {longest} of {most}");
    }
    let asked: Vec<f64> = sqlx::query_scalar(
        "select workflow.retry_delay(3, 1, 60, jsonb_build_object('retry_after_seconds', s)) from unnest(array[7.5, 1e9, -1]) s",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert_eq!(asked, [7.5, 86_400.0, 0.0]);
}
