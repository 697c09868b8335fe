//! Sleeping without sleeping: the test moves the clock.

use crate::world::{Work, World};
use flatrender_engine::{Context, Failure, Labels, Workflow, client::RunState};
use futures::future::{Either, select};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::{pin::pin, time::Duration};

const DAY: Duration = Duration::from_secs(86_400);

#[derive(Serialize, Deserialize)]
struct Nap(Duration);

impl Workflow for Nap {
    const NAME: &'static str = "nap";
    type Output = i64;

    async fn run(self, cx: &Context) -> Result<i64, Failure> {
        let before = cx.now();
        cx.sleep("nap", self.0).await?;
        Ok((cx.now() - before).num_seconds())
    }
}

#[sqlx::test(migrations = false)]
async fn a_long_sleep_leaves_memory_and_ends_when_it_is_due(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Nap>());
    let run_id = world.start(Nap(DAY)).await;
    world.until(1, "select count(*) from workflow.tasks where state = 'waiting'").await;
    world.move_clock(DAY / 2).await;
    world.until(1, "select count(*) from workflow.tasks where state = 'waiting'").await;
    assert!(world.client.history(run_id).await.unwrap().is_empty());
    world.move_clock(DAY / 2).await;
    let slept = world.end(run_id).await.output_as::<i64>().unwrap();
    assert!((86_400..86_410).contains(&slept), "{slept}");
    assert_eq!(world.history(run_id).await, "timer     nap      ok");
}

#[sqlx::test(migrations = false)]
async fn a_short_sleep_is_slept_in_memory(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Nap>());
    let run = world.finish(Nap(Duration::from_millis(300))).await;
    assert_eq!(run.state, RunState::Succeeded);
    let took = run.finished_at.unwrap() - run.created_at;
    assert!((300..1500).contains(&took.num_milliseconds()), "{took}");
    assert_eq!(world.count("select count(*) from workflow.attempts").await, 1);
}

/// Work that is only wanted for an hour.
#[derive(Serialize, Deserialize)]
struct Deadline;

impl Workflow for Deadline {
    const NAME: &'static str = "deadline";
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        let late = pin!(cx.sleep("deadline", Duration::from_secs(3600)));
        let work = pin!(cx.activity("work", Work::new(1)));
        let won = match select(late, work).await {
            Either::Left(_) => "late",
            Either::Right(_) => "done",
        };
        cx.step(won, async |_| Ok(())).await?;
        Ok(won.to_owned())
    }
}

#[sqlx::test(migrations = false)]
async fn who_won_a_race_is_the_same_on_every_replay(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Deadline>().crash_after_every_event());
    let run_id = world.start(Deadline).await;
    world.activity(run_id, "work").await;
    world.move_clock(Duration::from_secs(3600)).await;
    let run = world.end(run_id).await;
    assert_eq!(run.output_as::<String>().as_deref(), Some("late"));
    // The work that nobody waits for any more is closed with the run.
    insta::assert_snapshot!(world.history(run_id).await, @r"
    timer     deadline ok
    step      late     ok
    activity  work     workflow.cancelled
    ");
}

#[sqlx::test(migrations = false)]
async fn a_run_that_made_room_is_woken_by_a_result(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Deadline>().runs(1));
    let first = world.start(Deadline).await;
    world.activity(first, "work").await;
    let second = world.start(Deadline).await;
    // There is room for one: the first, which only waits, makes room for the second.
    world.activity(second, "work").await;
    let leased = world.client.claim(&["work"], &Labels::new(), "node", 10).await.unwrap();
    for task in leased {
        world.client.complete(task.task_id, task.lease_token, &1).await.unwrap();
    }
    assert_eq!(world.end(first).await.output_as::<String>().as_deref(), Some("done"));
    assert_eq!(world.end(second).await.output_as::<String>().as_deref(), Some("done"));
}

#[sqlx::test(migrations = false)]
async fn a_sleep_of_ten_thousand_years_is_slept(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Nap>());
    let run_id = world.start(Nap(DAY * 366 * 10_000)).await;
    world.until(1, "select count(*) from workflow.tasks where state = 'waiting' and run_at < 'infinity'").await;
    assert!(world.client.history(run_id).await.unwrap().is_empty());
}
