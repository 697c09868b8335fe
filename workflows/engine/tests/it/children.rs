//! Runs that start runs.

use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{Client, Context, Failure, Labels, Standing, Workflow, client::RunState};
use futures::future::{join_all, try_join};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::{Duration, Instant},
};

/// A tree: children as wide as it says at each level, and one activity at each leaf.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Tree(Vec<u32>);

impl Workflow for Tree {
    const NAME: &'static str = "tree";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let Some((width, deeper)) = self.0.split_first() else { return cx.activity("work", Work::new(1)).await };
        let deeper = Tree(deeper.to_vec());
        let all = (0..*width).map(|n| {
            let deeper = deeper.clone();
            async move { cx.child(&format!("child {n}"), deeper).await }
        });
        Ok(join_all(all).await.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().sum())
    }
}

#[sqlx::test(migrations = false)]
async fn the_ends_of_many_children_reach_their_parent(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Tree>().handler::<Work>(Tool::doubling()).queue("work", 16));
    let run = world.finish(Tree(vec![5, 20])).await;
    assert_eq!(run.output_as::<u32>(), Some(200));
    assert_eq!(world.count("select count(*) from workflow.runs where state = 'succeeded'").await, 106);
    assert_eq!(world.count("select count(*) from workflow.steps where kind = 'child'").await, 105);
    assert_eq!(world.count("select count(*) from workflow.tasks").await, 0);
    let leaf = "select count(*) from workflow.runs c join workflow.runs p on p.id = c.parent_run_id
                where c.root_run_id = p.parent_run_id and c.parent_key like 'child %'";
    assert_eq!(world.count(leaf).await, 100);
}

#[sqlx::test(migrations = false)]
async fn a_child_is_started_once_whatever_crashes(db: PgPool) {
    let mut world = World::new(db).await;
    for _ in 0..2 {
        world.worker(|w| w.workflow::<Tree>().handler::<Work>(Tool::doubling()).crash_after_every_event());
    }
    let run = world.finish(Tree(vec![3, 2])).await;
    assert_eq!(run.output_as::<u32>(), Some(12));
    assert_eq!(world.count("select count(*) from workflow.runs").await, 10);
    assert_eq!(world.count("select count(*) from workflow.errands").await, 0);
}

/// Says what became of its child.
#[derive(Serialize, Deserialize)]
struct Parent(Work);

impl Workflow for Parent {
    const NAME: &'static str = "parent";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.child("child", OneWork(self.0)).await
    }
}

#[sqlx::test(migrations = false)]
async fn the_failure_of_a_child_is_what_its_parent_gets(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|_, _| std::future::ready(Err(Failure::permanent("test.no", "never"))));
    world.worker(|w| w.workflow::<Parent>().workflow::<OneWork>().handler::<Work>(tool));
    let run = world.finish(Parent(Work::new(1))).await;
    assert_eq!((run.state, run.error.unwrap().code.as_str()), (RunState::Failed, "test.no"));
    assert_eq!(world.history(run.id).await, "child     child    test.no");
}

#[sqlx::test(migrations = false)]
async fn a_cancellation_reaches_five_hundred_running_leaves_within_two_seconds(db: PgPool) {
    let mut world = World::new(db).await;
    let (begun, told) = (Arc::new(AtomicU32::new(0)), Arc::new(AtomicU32::new(0)));
    let (begins, tells) = (begun.clone(), told.clone());
    let tool = Tool::new(move |cx, _| {
        let (begins, tells) = (begins.clone(), tells.clone());
        async move {
            begins.fetch_add(1, Ordering::SeqCst);
            let why = cx.ended().await;
            tells.fetch_add(1, Ordering::SeqCst);
            Err(why)
        }
    });
    world.worker(|w| w.workflow::<Tree>().handler::<Work>(tool).queue("work", 600).runs(600));
    let root = world.start(Tree(vec![10, 49])).await;
    while begun.load(Ordering::SeqCst) < 490 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked_at = Instant::now();
    assert!(world.cancel(root).await);
    while told.load(Ordering::SeqCst) < 490 {
        assert!(asked_at.elapsed() < Duration::from_secs(10), "{told:?} of 490");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let took = asked_at.elapsed();
    assert!(took < Duration::from_secs(2), "{took:?}");
    assert_eq!(world.end(root).await.state, RunState::Cancelled);
    // Leaves first: when the root is over, all are.
    assert_eq!(world.count("select count(*) from workflow.runs where state = 'cancelled'").await, 501);
    assert_eq!(begun.load(Ordering::SeqCst), 490);
}

#[sqlx::test(migrations = false)]
async fn a_child_that_is_busy_is_cancelled_a_little_later(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Parent>().workflow::<OneWork>());
    let root = world.start(Parent(Work::new(1))).await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity'").await;
    let mut hung = world.db.begin().await.unwrap();
    sqlx::query("select from workflow.tasks where kind = 'activity' for update").execute(&mut *hung).await.unwrap();
    assert!(tokio::time::timeout(Duration::from_secs(1), world.cancel(root)).await.unwrap());
    assert_eq!(world.count("select count(*) from workflow.errands where what = 'cancel'").await, 1);
    hung.rollback().await.unwrap();
    assert_eq!(world.end(root).await.state, RunState::Cancelled);
    assert_eq!(world.count("select count(*) from workflow.errands").await, 0);
}

#[sqlx::test(migrations = false)]
async fn a_parent_whose_record_is_busy_hears_of_the_end_a_little_later(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Parent>().workflow::<OneWork>());
    let root = world.start(Parent(Work::new(1))).await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity'").await;
    world.stop().await;
    let mut hung = world.db.begin().await.unwrap();
    let lock = "select from workflow.tasks where run_id = $1 for update";
    sqlx::query(lock).bind(root).execute(&mut *hung).await.unwrap();
    // The engine gives the child up; that waits for no lock.
    let give_up = r#"select count(*) from workflow.tasks t cross join lateral workflow.end_run(t.id, 'failed', null,
        '{"code": "test.given_up", "message": "given up", "retryable": false}') where t.kind = 'run' and t.run_id <> $1"#;
    sqlx::query(give_up).bind(root).execute(&world.db).await.unwrap();
    assert_eq!(world.count("select count(*) from workflow.errands where what = 'deliver'").await, 1);
    hung.rollback().await.unwrap();
    world.worker(|w| w.workflow::<Parent>().workflow::<OneWork>());
    assert_eq!(world.end(root).await.error.unwrap().code, "test.given_up");
    assert_eq!(world.count("select count(*) from workflow.errands").await, 0);
}

/// Fails while its child still works, and starts a run of its own before.
#[derive(Serialize, Deserialize)]
struct Careless;

impl Workflow for Careless {
    const NAME: &'static str = "careless";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let first = cx.start_detached("own way", Some("order 7"), OneWork(Work::new(1))).await?;
        let again = cx.start_detached("own way again", Some("order 7"), OneWork(Work::new(2))).await?;
        assert_eq!(first, again);
        let fail = async { cx.step("fail", async |_| Err::<(), _>(Failure::permanent("test.no", "never"))).await };
        try_join(cx.child("child", OneWork(Work::new(3))), fail).await.map(drop)
    }
}

#[sqlx::test(migrations = false)]
async fn a_child_does_not_outlive_its_parent_and_a_detached_run_does(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Careless>().workflow::<OneWork>().crash_after_every_event());
    let run = world.finish(Careless).await;
    assert_eq!(run.error.unwrap().code, "test.no");
    world
        .until(1, "select count(*) from workflow.runs where kind = 'one_work' and detached and state = 'running'")
        .await;
    world
        .until(0, "select count(*) from workflow.runs where kind = 'one_work' and not detached and state = 'running'")
        .await;
    assert_eq!(world.count("select count(*) from workflow.runs where detached").await, 1);
    let task = world.client.claim(&["work"], &Labels::new(), "node", 9).await.unwrap();
    assert_eq!(task.len(), 1);
    world.client.complete(task[0].task_id, task[0].lease_token, &4).await.unwrap();
    assert_eq!(world.end(task[0].run_id).await.output_as::<u32>(), Some(4));
}

/// Starts runs where it writes, and takes them back with what it wrote.
#[derive(Serialize, Deserialize)]
struct Starter;

impl Workflow for Starter {
    const NAME: &'static str = "starter";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let tenant = cx.tenant_id();
        let start = async move |db: &mut sqlx::PgConnection| {
            cx.client()?.start(db, tenant, Some("kept"), OneWork(Work::new(1))).await?;
            Ok(())
        };
        cx.step("start", start).await?;
        let fail = async move |db: &mut sqlx::PgConnection| {
            cx.client()?.start(db, tenant, Some("taken back"), OneWork(Work::new(2))).await?;
            Err::<(), _>(Failure::permanent("test.no", "never"))
        };
        cx.step("fail", fail).await
    }
}

#[sqlx::test(migrations = false)]
async fn a_run_that_a_step_starts_is_there_if_the_step_is(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Starter>().workflow::<OneWork>().crash_after_every_event());
    let run = world.finish(Starter).await;
    assert_eq!(run.error.unwrap().code, "test.no");
    world.until(1, "select count(*) from workflow.runs where kind = 'one_work' and state = 'running'").await;
    assert_eq!(world.count("select count(*) from workflow.run_keys where business_key = 'kept'").await, 1);
    assert_eq!(world.count("select count(*) from workflow.run_keys where business_key = 'taken back'").await, 0);
    let task = world.client.claim(&["work"], &Labels::new(), "node", 9).await.unwrap();
    assert_eq!(task.len(), 1, "its worker was told");
}

#[sqlx::test(migrations = false)]
async fn of_a_cancellation_and_a_result_exactly_one_wins(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Parent>().workflow::<OneWork>());
    let (mut won, mut seed) = ([0, 0], 11u64);
    for n in 0..50 {
        let root = world.start(Parent(Work::new(n))).await;
        let leased = loop {
            let mut leased = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap();
            match leased.pop() {
                Some(task) => break task,
                None => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        };
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let late = Duration::from_micros((seed >> 33) % 20_000);
        let cancel = async {
            tokio::time::sleep(late).await;
            world.cancel(root).await
        };
        // Another process each time: renewals of one are 400 ms apart, and any cancellation would be first.
        let client = Client::new(world.db.clone());
        let work = async {
            tokio::time::sleep(Duration::from_millis(10)).await;
            match client.renew(leased.task_id, leased.lease_token, None).await.unwrap() {
                Standing::Held => client.complete(leased.task_id, leased.lease_token, &9).await.is_ok(),
                _ => {
                    let _ = client.fail(leased.task_id, leased.lease_token, &Failure::cancelled()).await;
                    false
                }
            }
        };
        // Each is first once; after that chance decides.
        let completed = match n {
            0 => {
                assert!(cancel.await);
                work.await
            }
            1 => {
                let completed = work.await;
                cancel.await;
                completed
            }
            _ => futures::future::join(cancel, work).await.1,
        };
        let (parent, child) = (world.end(root).await, world.end(leased.run_id).await);
        assert_eq!(parent.state, child.state, "run {n}");
        assert_eq!(child.state, if completed { RunState::Succeeded } else { RunState::Cancelled }, "run {n}");
        won[usize::from(completed)] += 1;
    }
    assert!(won[0] > 0 && won[1] > 0, "{won:?}");
    assert_eq!(world.count("select count(*) from workflow.tasks").await, 0);
    assert_eq!(
        world
            .count("select count(*) from (select run_id, key from workflow.steps group by 1, 2 having count(*) > 1) d")
            .await,
        0
    );
}

/// Waits to be told a number.
#[derive(Serialize, Deserialize)]
struct Listener;

impl Workflow for Listener {
    const NAME: &'static str = "listener";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.signal("told", "told").await
    }
}

/// Waits to be told a number, and for a child that does the same.
#[derive(Serialize, Deserialize)]
struct Family;

impl Workflow for Family {
    const NAME: &'static str = "family";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let (child, told) = try_join(cx.child("listener", Listener), cx.signal::<u32>("told", "told")).await?;
        Ok(child + told)
    }
}

#[sqlx::test(migrations = false)]
async fn a_parent_goes_on_whose_child_waits_for_nobody_knows_how_long(db: PgPool) {
    let mut world = World::new(db).await;
    // One of them is as many as it holds: each makes room while it waits.
    world.worker(|w| w.workflow::<Family>().workflow::<Listener>().runs(1));
    let parent = world.start(Family).await;
    world.until(2, "select count(*) from workflow.tasks where run_at = 'infinity'").await;
    let _ = world.signal(parent, "told", None, &1u32).await;
    world.until(1, "select count(*) from workflow.steps where kind = 'signal'").await;
    let child: uuid::Uuid = sqlx::query_scalar("select id from workflow.runs where parent_run_id = $1")
        .bind(parent)
        .fetch_one(&world.db)
        .await
        .unwrap();
    world.until(2, "select attempt_no::bigint from workflow.tasks where activity = 'family.v1'").await;
    let _ = world.signal(child, "told", None, &2u32).await;
    assert_eq!(world.end(parent).await.output_as::<u32>(), Some(3));
}

/// More of what a run asks for at once than one statement could do before its time is up.
#[sqlx::test(migrations = false)]
async fn thousands_of_children_are_started_and_joined(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|_, _| async { Ok(1) });
    world.worker(|w| w.workflow::<Tree>().handler::<Work>(tool).queue("work", 64).runs(64));
    let run = world.finish(Tree(vec![2_500])).await;
    assert_eq!(run.output_as::<u32>(), Some(2_500));
    assert_eq!(world.count("select count(*) from workflow.attempts where outcome in ('lost', 'failed')").await, 0);
}
