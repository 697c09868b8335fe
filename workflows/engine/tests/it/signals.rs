//! Messages to runs.

use crate::world::{Tool, Work, World};
use flatrender_engine::{Context, Delivery, Failure, Workflow, client::RunState};
use futures::future::join;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgPool;
use std::time::Duration;

/// Takes `n` signals, one after another.
#[derive(Serialize, Deserialize)]
struct Collect(u32);

impl Workflow for Collect {
    const NAME: &'static str = "collect";
    type Output = Vec<u32>;

    async fn run(self, cx: &Context) -> Result<Vec<u32>, Failure> {
        let mut all = Vec::new();
        for n in 0..self.0 {
            all.push(cx.signal(&format!("wait {n}"), "paid").await?);
        }
        Ok(all)
    }
}

#[sqlx::test(migrations = false)]
async fn an_early_signal_is_kept_until_its_run_waits(db: PgPool) {
    let mut world = World::new(db).await;
    let run_id = world.start(Collect(2)).await;
    assert_eq!(world.signal(run_id, "paid", None, 1).await, Delivery::Accepted);
    assert_eq!(world.signal(run_id, "other", None, 7).await, Delivery::Accepted);
    assert_eq!(world.signal(run_id, "paid", None, 2).await, Delivery::Accepted);
    world.worker(|w| w.workflow::<Collect>());
    assert_eq!(world.end(run_id).await.output_as::<Vec<u32>>(), Some(vec![1, 2]));
}

#[sqlx::test(migrations = false)]
async fn a_waiting_run_in_memory_hears_a_signal_at_once(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Collect>());
    let run_id = world.start(Collect(1)).await;
    world.until(1, "select count(*) from workflow.tasks where state = 'leased'").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    let sent_at = std::time::Instant::now();
    assert_eq!(world.signal(run_id, "paid", Some("webhook 1"), 5).await, Delivery::Accepted);
    assert_eq!(world.end(run_id).await.output_as::<Vec<u32>>(), Some(vec![5]));
    assert!(sent_at.elapsed() < Duration::from_millis(700), "{:?}", sent_at.elapsed());
    assert_eq!(world.count("select count(*) from workflow.attempts").await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_run_that_sleeps_on_a_signal_is_woken_by_it(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Collect>());
    let run_id = world.start(Collect(1)).await;
    // It leaves the memory after a while, and costs nothing from then on.
    world.until(1, "select count(*) from workflow.tasks where state = 'waiting' and run_at = 'infinity'").await;
    assert_eq!(world.signal(run_id, "paid", None, 6).await, Delivery::Accepted);
    assert_eq!(world.end(run_id).await.output_as::<Vec<u32>>(), Some(vec![6]));
}

#[sqlx::test(migrations = false)]
async fn a_repeated_key_is_accepted_once(db: PgPool) {
    let mut world = World::new(db).await;
    let run_id = world.start(Collect(2)).await;
    assert_eq!(world.signal(run_id, "paid", Some("hook 1"), 1).await, Delivery::Accepted);
    assert_eq!(world.signal(run_id, "paid", Some("hook 1"), 1).await, Delivery::Repeated);
    assert_eq!(world.signal(run_id, "paid", Some("hook 2"), 2).await, Delivery::Accepted);
    world.worker(|w| w.workflow::<Collect>());
    assert_eq!(world.end(run_id).await.output_as::<Vec<u32>>(), Some(vec![1, 2]));
    // Also when the run is over: a webhook that comes again is no surprise.
    assert_eq!(world.signal(run_id, "paid", Some("hook 1"), 1).await, Delivery::Repeated);
    assert_eq!(world.signal(run_id, "paid", Some("hook 3"), 3).await, Delivery::Closed);
    assert_eq!(world.signal(run_id, "paid", None, 3).await, Delivery::Closed);
    assert_eq!(world.signal(uuid::Uuid::now_v7(), "paid", None, 3).await, Delivery::Unknown);
    insta::assert_snapshot!(world.history(run_id).await, @r"
    signal    $signal:paid:hook 1 ok
    signal    $signal:paid:hook 2 ok
    ");
}

#[sqlx::test(migrations = false)]
async fn the_same_signal_sent_by_many_at_once_counts_once(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Collect>());
    let run_id = world.start(Collect(2)).await;
    let all = futures::future::join_all((0..8).map(|_| world.signal(run_id, "paid", Some("hook"), 1))).await;
    assert_eq!(all.iter().filter(|d| **d == Delivery::Accepted).count(), 1);
    assert_eq!(all.iter().filter(|d| **d == Delivery::Repeated).count(), 7);
    let _ = world.signal(run_id, "paid", None, 2).await;
    assert_eq!(world.end(run_id).await.output_as::<Vec<u32>>(), Some(vec![1, 2]));
}

#[sqlx::test(migrations = false)]
async fn a_signal_rolls_back_with_its_sender(db: PgPool) {
    let world = World::new(db).await;
    let run_id = world.start(Collect(1)).await;
    let mut tx = world.db.begin().await.unwrap();
    let delivery = world.client.signal(&mut tx, run_id, "paid", None, &1).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(delivery, Delivery::Accepted);
    assert!(world.client.history(run_id).await.unwrap().is_empty());
}

#[sqlx::test(migrations = false)]
async fn what_cannot_be_a_signal_is_refused_at_the_door(db: PgPool) {
    let world = World::new(db).await;
    let run_id = world.start(Collect(1)).await;
    let mut tx = world.db.begin().await.unwrap();
    let client = &world.client;
    assert!(client.signal(&mut tx, run_id, "paid", None, &"x".repeat(300_000)).await.is_err());
    assert!(client.signal(&mut tx, run_id, "", None, &1).await.is_err());
    assert!(client.signal(&mut tx, run_id, "paid", Some(&"k".repeat(200)), &1).await.is_err());
    assert_eq!(client.signal(&mut tx, run_id, "paid", None, &1).await.unwrap(), Delivery::Accepted);
}

/// Two branches that wait for the same name, and one for another, in between work.
#[derive(Serialize, Deserialize)]
struct Branches;

impl Workflow for Branches {
    const NAME: &'static str = "branches_of_signals";
    type Output = (u32, u32, String);

    async fn run(self, cx: &Context) -> Result<Self::Output, Failure> {
        let other = async {
            cx.activity("work", Work::new(1)).await?;
            cx.signal::<String>("c", "name").await
        };
        let (ab, c) = join(join(cx.signal("a", "number"), cx.signal("b", "number")), other).await;
        Ok((ab.0?, ab.1?, c?))
    }
}

#[sqlx::test(migrations = false)]
async fn signals_in_any_order_reach_the_same_waits_on_every_replay(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Branches>().handler::<Work>(Tool::doubling()).crash_after_every_event());
    let sent = [("number", json!(1)), ("number", json!(2)), ("name", json!("x"))];
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let run_id = world.start(Branches).await;
        let mut numbers = Vec::new();
        for i in order {
            let (name, payload) = &sent[i];
            assert_eq!(world.signal(run_id, name, None, payload).await, Delivery::Accepted);
            numbers.extend(payload.as_u64().map(|n| n as u32));
        }
        let run = world.end(run_id).await;
        assert_eq!(
            run.output_as::<(u32, u32, String)>(),
            Some((numbers[0], numbers[1], "x".into())),
            "{:?}",
            run.error
        );
    }
}

/// Waits an hour for an answer, then for a second one.
#[derive(Serialize, Deserialize)]
struct Patient;

impl Workflow for Patient {
    const NAME: &'static str = "patient";
    type Output = (Option<u32>, Option<u32>);

    async fn run(self, cx: &Context) -> Result<Self::Output, Failure> {
        let hour = Duration::from_secs(3600);
        let first = cx.signal_within("first", "answer", hour).await?;
        Ok((first, cx.signal_within("second", "answer", hour).await?))
    }
}

#[sqlx::test(migrations = false)]
async fn a_wait_with_a_timeout_ends_with_whichever_is_first(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Patient>().crash_after_every_event());
    let run_id = world.start(Patient).await;
    let _ = world.signal(run_id, "answer", None, 1).await;
    world.until(1, "select count(*) from workflow.steps").await;
    world.move_clock(Duration::from_secs(3700)).await;
    assert_eq!(world.end(run_id).await.output_as(), Some((Some(1), None::<u32>)));
    insta::assert_snapshot!(world.history(run_id).await, @r"
    signal    $signal:answer:# ok
    timer     second   ok
    ");
    // A signal that comes when its wait is over belongs to the next one.
    let run_id = world.start(Patient).await;
    world.until(2, "select count(*) from workflow.attempts where outcome = 'released'").await;
    world.move_clock(Duration::from_secs(3700)).await;
    world.until(3, "select count(*) from workflow.steps").await;
    let _ = world.signal(run_id, "answer", None, 2).await;
    assert_eq!(world.end(run_id).await.output_as(), Some((None::<u32>, Some(2))));
}

#[sqlx::test(migrations = false)]
async fn a_cancelled_run_stops_waiting_for_signals(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Collect>().workflow::<Patient>());
    for run_id in [world.start(Collect(1)).await, world.start(Patient).await] {
        world.cancel(run_id).await;
        assert_eq!(world.end(run_id).await.state, RunState::Cancelled);
    }
}

#[sqlx::test(migrations = false)]
async fn a_signal_that_is_not_what_was_expected_is_a_failure(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Collect>());
    let run_id = world.start(Collect(1)).await;
    let _ = world.signal(run_id, "paid", None, "five").await;
    assert_eq!(world.end(run_id).await.error.unwrap().code, "workflow.bad_signal");
}
