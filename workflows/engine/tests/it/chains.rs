//! Runs that go on as others.

use crate::world::World;
use flatrender_engine::{Context, Delivery, Failure, Workflow, client::RunState};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::Duration;

/// Takes one payment a month for `left` months, each in a run of its own.
#[derive(Serialize, Deserialize)]
struct Subscription {
    left: u32,
    paid: Vec<u32>,
}

impl Subscription {
    fn of(left: u32) -> Self {
        Self { left, paid: Vec::new() }
    }
}

impl Workflow for Subscription {
    const NAME: &'static str = "subscription";
    type Output = Vec<u32>;

    async fn run(mut self, cx: &Context) -> Result<Vec<u32>, Failure> {
        if self.left == 0 {
            return Ok(self.paid);
        }
        self.paid.push(cx.signal("payment", "paid").await?);
        cx.step("book", async |_| Ok(())).await?;
        cx.continue_as_new(Self { left: self.left - 1, paid: self.paid })
    }
}

#[sqlx::test(migrations = false)]
async fn a_chain_of_runs_takes_its_signals_along_whatever_crashes(db: PgPool) {
    let mut world = World::new(db).await;
    for _ in 0..2 {
        world.worker(|w| w.workflow::<Subscription>().crash_after_every_event());
    }
    let first = world.start(Subscription::of(3)).await;
    for (n, key) in [(1, "a"), (2, "b"), (2, "b"), (3, "c")] {
        let _ = world.signal(first, "paid", Some(key), n).await;
    }
    let last = world.end(first).await;
    assert_eq!(last.output_as::<Vec<u32>>(), Some(vec![1, 2, 3]));
    assert_ne!(last.id, first);
    assert_eq!(world.count("select count(*) from workflow.runs where state = 'succeeded'").await, 4);
    assert_eq!(
        world.count("select count(*) from workflow.runs where continued_as is not null and output is null").await,
        3
    );
    assert_eq!(world.count("select count(*) from workflow.tasks").await, 0);
    assert_eq!(world.signal(first, "paid", Some("b"), 2).await, Delivery::Repeated);
    assert_eq!(world.signal(first, "paid", Some("z"), 2).await, Delivery::Closed);
}

#[sqlx::test(migrations = false)]
async fn the_business_key_belongs_to_the_newest_of_the_chain(db: PgPool) {
    let mut world = World::new(db).await;
    let start = async |world: &World| {
        let mut tx = world.db.begin().await.unwrap();
        let started = world.client.start(&mut tx, world.tenant, Some("customer 7"), Subscription::of(2)).await.unwrap();
        tx.commit().await.unwrap();
        world.client.announce();
        started
    };
    let first = start(&world).await;
    world.worker(|w| w.workflow::<Subscription>());
    assert_eq!(world.signal(first.run_id, "paid", None, 1).await, Delivery::Accepted);
    world.until(1, "select count(*) from workflow.runs where continued_as is not null").await;
    let now = start(&world).await;
    assert!(!now.started && now.run_id != first.run_id);
    // Whoever knows the first one reaches the newest.
    assert_eq!(world.signal(first.run_id, "paid", None, 2).await, Delivery::Accepted);
    assert_eq!(world.end(first.run_id).await.output_as::<Vec<u32>>(), Some(vec![1, 2]));
}

#[sqlx::test(migrations = false)]
async fn a_cancellation_reaches_the_newest_of_the_chain(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Subscription>());
    let first = world.start(Subscription::of(5)).await;
    let _ = world.signal(first, "paid", None, 1).await;
    world.until(1, "select count(*) from workflow.runs where continued_as is not null").await;
    assert!(world.cancel(first).await);
    let last = world.end(first).await;
    assert_eq!((last.state, last.cancel_reason.as_deref()), (RunState::Cancelled, Some("no longer wanted")));
}

#[sqlx::test(migrations = false)]
async fn a_cancellation_that_comes_too_late_is_taken_along(db: PgPool) {
    let mut world = World::new(db).await;
    let first = world.start(Subscription::of(5)).await;
    let _ = world.signal(first, "paid", None, 1).await;
    assert!(world.cancel(first).await);
    world.worker(|w| w.workflow::<Subscription>());
    assert_eq!(world.end(first).await.state, RunState::Cancelled);
    assert_eq!(world.count("select count(*) from workflow.runs where cancel_requested_at is not null").await, 2);
}

/// Waits for a subscription.
#[derive(Serialize, Deserialize)]
struct Account;

impl Workflow for Account {
    const NAME: &'static str = "account";
    type Output = Vec<u32>;

    async fn run(self, cx: &Context) -> Result<Vec<u32>, Failure> {
        cx.child("subscription", Subscription::of(2)).await
    }
}

#[sqlx::test(migrations = false)]
async fn a_parent_waits_for_the_end_of_the_chain(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Account>().workflow::<Subscription>().crash_after_every_event());
    let run_id = world.start(Account).await;
    world.until(1, "select count(*) from workflow.runs where kind = 'subscription'").await;
    let child: uuid::Uuid = sqlx::query_scalar("select id from workflow.runs where kind = 'subscription'")
        .fetch_one(&world.db)
        .await
        .unwrap();
    for n in [4, 5] {
        let _ = world.signal(child, "paid", None, n).await;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(world.end(run_id).await.output_as::<Vec<u32>>(), Some(vec![4, 5]));
    assert_eq!(world.history(run_id).await, "child     subscription ok");
}

/// Wants to go on as something else.
#[derive(Serialize, Deserialize)]
struct Confused;

impl Workflow for Confused {
    const NAME: &'static str = "confused";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.continue_as_new(Account)
    }
}

#[sqlx::test(migrations = false)]
async fn a_run_goes_on_as_the_same_workflow_only(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Confused>());
    assert_eq!(world.finish(Confused).await.error.unwrap().code, "workflow.bad_successor");
}

#[sqlx::test(migrations = false)]
async fn a_signal_that_an_earlier_run_of_the_chain_has_taken_is_repeated_for_the_later_ones(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Subscription>());
    let (first, other) = (world.start(Subscription::of(3)).await, world.start(Subscription::of(3)).await);
    for n in [1, 2] {
        assert_eq!(world.signal(first, "paid", Some(&format!("webhook {n}")), n).await, Delivery::Accepted);
    }
    world.until(2, "select count(*) from workflow.runs where continued_as is not null").await;
    let newest: uuid::Uuid = sqlx::query_scalar(
        "with recursive chain as (
            select id, continued_as from workflow.runs where id = $1
            union all
            select r.id, r.continued_as from chain c join workflow.runs r on r.id = c.continued_as)
         select id from chain where continued_as is null",
    )
    .bind(first)
    .fetch_one(&world.db)
    .await
    .unwrap();
    for n in [1, 2] {
        assert_eq!(world.signal(newest, "paid", Some(&format!("webhook {n}")), n).await, Delivery::Repeated);
    }
    // The key is that of a chain, not of the world.
    assert_eq!(world.signal(other, "paid", Some("webhook 1"), 7).await, Delivery::Accepted);
    assert_eq!(world.signal(newest, "paid", Some("webhook 3"), 3).await, Delivery::Accepted);
    assert_eq!(world.end(first).await.output_as::<Vec<u32>>(), Some(vec![1, 2, 3]));
}
