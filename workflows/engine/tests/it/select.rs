//! Waiting for the first of several.

use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{Context, Failure, Labels, Standing, Workflow, client::RunState};
use futures::{
    FutureExt, StreamExt,
    future::{Either, select},
    select_biased,
    stream::FuturesUnordered,
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::{pin::pin, time::Duration};

const HOUR: Duration = Duration::from_secs(3600);

/// A signal, a timer and an activity: the first decides, and is recorded in a step that shows which it was.
#[derive(Serialize, Deserialize)]
struct First;

impl Workflow for First {
    const NAME: &'static str = "first_of_three";
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        let (signal, timer, work) =
            (cx.signal::<u32>("signal", "go"), cx.sleep("timer", HOUR), cx.activity("work", Work::new(1)));
        let (mut signal, mut timer, mut work) = (pin!(signal.fuse()), pin!(timer.fuse()), pin!(work.fuse()));
        let won = select_biased! {
            n = signal => format!("signal {}", n?),
            _ = timer => "timer".to_owned(),
            n = work => format!("work {}", n?),
        };
        cx.step(&format!("won: {won}"), async |_| Ok(())).await?;
        Ok(won)
    }
}

#[sqlx::test(migrations = false)]
async fn whichever_comes_first_wins_on_every_replay(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<First>().crash_after_every_event());
    for who in ["signal", "timer", "work"] {
        let run_id = world.start(First).await;
        world.activity(run_id, "work").await;
        let leased = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().pop().unwrap();
        let won = match who {
            "signal" => {
                let _ = world.signal(run_id, "go", None, 7).await;
                "signal 7"
            }
            "timer" => {
                world.move_clock(HOUR).await;
                "timer"
            }
            _ => {
                world.client.complete(leased.task_id, leased.lease_token, &3).await.unwrap();
                "work 3"
            }
        };
        // What comes second changes nothing.
        if who == "work" {
            let _ = world.signal(run_id, "go", None, 8).await;
        }
        let run = world.end(run_id).await;
        assert_eq!(run.output_as::<String>().as_deref(), Some(won), "{:?}", run.error);
    }
}

/// Gives its work up after an hour, and then waits for a word.
#[derive(Serialize, Deserialize)]
struct GivesUp;

impl Workflow for GivesUp {
    const NAME: &'static str = "gives_up";
    type Output = bool;

    async fn run(self, cx: &Context) -> Result<bool, Failure> {
        let done = match select(pin!(cx.sleep("late", HOUR)), Box::pin(cx.activity("work", Work::new(1)))).await {
            Either::Left(_) => false,
            Either::Right(_) => true,
        };
        cx.signal::<()>("word", "go on").await?;
        Ok(done)
    }
}

#[sqlx::test(migrations = false)]
async fn work_that_nobody_waits_for_any_more_does_not_begin(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<GivesUp>().crash_after_every_event());
    let run_id = world.start(GivesUp).await;
    world.activity(run_id, "work").await;
    world.move_clock(HOUR).await;
    world.until(0, "select count(*) from workflow.tasks where kind = 'activity'").await;
    assert!(world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().is_empty());
    let _ = world.signal(run_id, "go on", None, ()).await;
    assert_eq!(world.end(run_id).await.output_as::<bool>(), Some(false));
    insta::assert_snapshot!(world.history(run_id).await, @r"
    timer     late     ok
    activity  work     workflow.cancelled
    signal    $signal:go on:# ok
    ");
}

#[sqlx::test(migrations = false)]
async fn a_running_attempt_that_nobody_waits_for_any_more_is_told_to_stop(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<GivesUp>());
    let run_id = world.start(GivesUp).await;
    world.activity(run_id, "work").await;
    let leased = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().pop().unwrap();
    // Its lease is kept, whatever the clock says.
    sqlx::raw_sql(
        "update workflow.tasks set lease_seconds = 86400, start_to_close_seconds = 1e6 where kind = 'activity'",
    )
    .execute(&world.db)
    .await
    .unwrap();
    world.client.renew(leased.task_id, leased.lease_token, None).await.unwrap();
    world.move_clock(HOUR).await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity' and cancel_requested").await;
    let client = &world.client;
    assert_eq!(client.renew(leased.task_id, leased.lease_token, None).await.unwrap(), Standing::Cancelled);
    // A result that was nearly there is a fact, and reaches nobody.
    client.complete(leased.task_id, leased.lease_token, &3).await.unwrap();
    let _ = world.signal(run_id, "go on", None, ()).await;
    assert_eq!(world.end(run_id).await.output_as::<bool>(), Some(false));
    assert_eq!(world.count("select count(*) from workflow.steps where key = 'work' and outcome = 'ok'").await, 1);
}

/// Takes the first two of five children.
#[derive(Serialize, Deserialize)]
struct FirstTwo;

impl Workflow for FirstTwo {
    const NAME: &'static str = "first_two";
    type Output = Vec<u32>;

    async fn run(self, cx: &Context) -> Result<Vec<u32>, Failure> {
        let mut all: FuturesUnordered<_> =
            (0..5).map(|n| async move { cx.child(&format!("child {n}"), OneWork(Work::new(n))).await }).collect();
        let mut first = Vec::new();
        while first.len() < 2
            && let Some(done) = all.next().await
        {
            first.push(done?);
        }
        drop(all);
        cx.signal::<()>("word", "go on").await?;
        Ok(first)
    }
}

#[sqlx::test(migrations = false)]
async fn children_that_nobody_waits_for_any_more_are_cancelled(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|cx, work| async move {
        match work.n {
            1 | 3 => Ok(work.n),
            _ => Err(cx.ended().await),
        }
    });
    world.worker(|w| w.workflow::<FirstTwo>().workflow::<OneWork>().handler::<Work>(tool).crash_after_every_event());
    let run_id = world.start(FirstTwo).await;
    world.until(3, "select count(*) from workflow.runs where state = 'cancelled'").await;
    let _ = world.signal(run_id, "go on", None, ()).await;
    let mut first = world.end(run_id).await.output_as::<Vec<u32>>().unwrap();
    first.sort_unstable();
    assert_eq!(first, [1, 3]);
    assert_eq!(world.client.run(run_id).await.unwrap().unwrap().state, RunState::Succeeded);
}
