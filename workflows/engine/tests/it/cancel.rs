//! Asking a run to stop.

use crate::world::{OneWork, Tool, Work, World, effect};
use flatrender_engine::{Context, Failure, Labels, Standing, Workflow, client::RunState};
use futures::future::join;
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// Works and sleeps at once; puts things in order at the end, whatever happened.
#[derive(Serialize, Deserialize)]
struct Tidy;

impl Workflow for Tidy {
    const NAME: &'static str = "tidy";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let run_id = cx.run_id();
        let (work, nap) = join(cx.activity("work", Work::new(1)), cx.sleep("nap", Duration::from_secs(3600))).await;
        assert!(cx.cancelled() && nap.is_err());
        let more = cx.activity("more", Work::new(2)).await;
        assert!(more.is_err_and(|f| f.is_cancelled()));
        cx.step("settle", async |db| effect(db, run_id, "settle").await).await?;
        work.map(|_| ())
    }
}

#[sqlx::test(migrations = false)]
async fn cancel_ends_ready_work_and_sleep_and_lets_the_run_settle(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Tidy>());
    let run_id = world.start(Tidy).await;
    world.activity(run_id, "work").await;
    assert!(world.cancel(run_id).await);
    let run = world.end(run_id).await;
    assert_eq!((run.state, run.cancel_reason.as_deref()), (RunState::Cancelled, Some("no longer wanted")));
    insta::assert_snapshot!(world.history(run_id).await, @r"
    cancel    $cancel  ok
    activity  work     workflow.cancelled
    timer     nap      workflow.cancelled
    activity  more     workflow.cancelled
    step      settle   ok
    ");
    assert!(!world.cancel(run_id).await);
}

#[sqlx::test(migrations = false)]
async fn cancel_reaches_a_running_activity_within_a_second(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|cx, _| async move { Err(cx.ended().await) });
    let handler = tool.clone();
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(handler));
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity' and state = 'leased'").await;
    let asked_at = Instant::now();
    assert!(world.cancel(run_id).await);
    assert_eq!(world.end(run_id).await.state, RunState::Cancelled);
    assert!(asked_at.elapsed() < Duration::from_secs(1), "{:?}", asked_at.elapsed());
    assert_eq!(tool.count(), 1);
}

#[sqlx::test(migrations = false)]
async fn a_node_hears_of_the_cancellation_when_it_renews(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    let leased = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().pop().unwrap();
    world.cancel(run_id).await;
    let client = &world.client;
    assert_eq!(client.renew(leased.task_id, leased.lease_token, None).await.unwrap(), Standing::Cancelled);
    // What fails in passing is not repeated any more.
    client.fail(leased.task_id, leased.lease_token, &Failure::transient("test.busy", "busy")).await.unwrap();
    assert_eq!(world.end(run_id).await.state, RunState::Cancelled);
}

#[sqlx::test(migrations = false)]
async fn a_result_that_races_the_cancellation_is_a_fact(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    let leased = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().pop().unwrap();
    world.cancel(run_id).await;
    world.client.complete(leased.task_id, leased.lease_token, &9).await.unwrap();
    let run = world.end(run_id).await;
    assert_eq!((run.state, run.output_as::<u32>()), (RunState::Succeeded, Some(9)));
}

#[sqlx::test(migrations = false)]
async fn a_run_cancelled_before_its_first_claim_still_settles(db: PgPool) {
    let mut world = World::new(db).await;
    let run_id = world.start(OneWork(Work::new(1))).await;
    assert!(world.cancel(run_id).await);
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(Tool::doubling()));
    assert_eq!(world.end(run_id).await.state, RunState::Cancelled);
    assert_eq!(world.count("select count(*) from workflow.attempts where step_key = 'work'").await, 0);
}

#[sqlx::test(migrations = false)]
async fn what_is_taken_away_from_its_holder_after_the_cancellation_is_over(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    let hung = world.client.claim(&["work"], &Default::default(), "hung", 1).await.unwrap().remove(0);
    assert!(world.cancel(run_id).await);
    let operations = flatrender_engine::operations::Operations::new(world.client.clone());
    let by = flatrender_engine::operations::By::new("ada");
    let mut tx = world.db.begin().await.unwrap();
    operations.force_release(&mut tx, &by, hung.task_id).await.unwrap();
    tx.commit().await.unwrap();
    world.client.announce();
    assert_eq!(world.client.claim(&["work"], &Default::default(), "next", 1).await.unwrap(), [], "it begins anew");
    assert_eq!(world.end(run_id).await.state, RunState::Cancelled);
}
