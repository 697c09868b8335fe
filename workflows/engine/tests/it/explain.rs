//! C16: for each staged cause one reason, and a sentence.

use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{
    Context, Failure, Labels, Progress, Workflow,
    operations::{By, Doing, Operations, Reason},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

#[derive(Serialize, Deserialize)]
struct Nap;

impl Workflow for Nap {
    const NAME: &'static str = "nap";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.sleep("nap", Duration::from_secs(86_400)).await
    }
}

/// Waits for a child that sleeps.
#[derive(Serialize, Deserialize)]
struct Parent;

impl Workflow for Parent {
    const NAME: &'static str = "parent";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.child("nap", Nap).await
    }
}

/// Waits for somebody's word.
#[derive(Serialize, Deserialize)]
struct Patient;

impl Workflow for Patient {
    const NAME: &'static str = "patient";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.signal("word", "approve").await
    }
}

/// Code that does not fit the record of [`OneWork`].
#[derive(Serialize, Deserialize)]
struct OtherWork(Work);

impl Workflow for OtherWork {
    const NAME: &'static str = OneWork::NAME;
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.step("work", async |_| Ok(1)).await
    }
}

async fn why(world: &World, run_id: Uuid) -> (Reason, String) {
    let explained = Operations::new(world.client.clone()).explain_run(run_id).await.unwrap();
    assert!(explained.text.ends_with(['.']) || explained.text.contains(": "), "{}", explained.text);
    (explained.reason, explained.text)
}

macro_rules! assert_why {
    ($world:expr, $run:expr, $reason:pat) => {{
        let (reason, text) = why(&$world, $run).await;
        assert!(matches!(reason, $reason), "{reason:?}");
        text
    }};
}

fn labelled(n: u32, gpu: &str) -> OneWork {
    let mut work = Work::new(n);
    work.labels = Labels::from([("gpu".to_owned(), gpu.to_owned())]);
    OneWork(work)
}

async fn pause(world: &World, queue: &str, paused: bool) {
    let mut tx = world.db.begin().await.unwrap();
    let (operations, by) = (Operations::new(world.client.clone()), By::new("ada").because("a full disk"));
    match paused {
        true => operations.pause_queue(&mut tx, &by, queue).await.unwrap(),
        false => operations.resume_queue(&mut tx, &by, queue).await.unwrap(),
    };
    tx.commit().await.unwrap();
    world.client.announce();
}

#[sqlx::test(migrations = false)]
async fn a_run_that_nobody_knows_says_so(db: PgPool) {
    let mut world = World::new(db).await;
    let run_id = world.start(Nap).await;
    let text = assert_why!(world, run_id, Reason::NoWorker { .. });
    assert_eq!(text, r#"The run waits: no live worker of the queue "workflows" knows "nap.v1"."#);
    // A worker that stops takes its offers along.
    world.worker(|w| w.workflow::<Nap>());
    world.until(1, "select count(*) from workflow.tasks where state = 'waiting'").await;
    world.stop().await;
    let other = world.start(Nap).await;
    assert_why!(world, other, Reason::NoWorker { .. });
}

#[sqlx::test(migrations = false)]
async fn an_activity_that_nobody_knows_or_has_the_labels_for_says_so(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(labelled(1, "yes")).await;
    world.activity(run_id, "work").await;
    assert_why!(world, run_id, Reason::NoWorker { .. });
    world.worker(|w| w.handler::<Work>(Tool::doubling()));
    world.until(1, "select count(*) from workflow.worker_offers where queue = 'work'").await;
    let text = assert_why!(world, run_id, Reason::NoLabels { .. });
    assert_eq!(text, r#""work" waits: no live worker of the queue "work" has the labels gpu=yes."#);
}

#[sqlx::test(migrations = false)]
async fn a_paused_queue_says_who_paused_it(db: PgPool) {
    let mut world = World::new(db).await;
    pause(&world, "work", true).await;
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(Tool::doubling()));
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    let text = assert_why!(world, run_id, Reason::QueuePaused { .. });
    assert!(text.contains("paused by ada") && text.ends_with(": a full disk"), "{text}");
    pause(&world, "work", false).await;
    world.end(run_id).await;
    assert_why!(world, run_id, Reason::Over { .. });
}

#[sqlx::test(migrations = false)]
async fn full_workers_and_a_holder_are_named(db: PgPool) {
    let mut world = World::new(db).await;
    let slow = Tool::new(|cx, _| async move {
        let _ = cx.heartbeat(Progress { done: 3, total: 9, ..Progress::default() });
        Err(cx.ended().await)
    });
    world.worker(|w| w.name("worker-7").workflow::<OneWork>().handler::<Work>(slow).queue("work", 1));
    let first = world.start(OneWork(Work::new(1))).await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity' and state = 'leased'").await;
    let second = world.start(OneWork(Work::new(2))).await;
    let third = world.start(OneWork(Work::new(3))).await;
    for run_id in [second, third] {
        world.activity(run_id, "work").await;
    }
    let text = assert_why!(world, second, Reason::NoSlot { slots: 1, .. });
    assert!(text.contains("all 1 of the queue"), "{text}");
    let text = assert_why!(world, first, Reason::Leased { .. });
    assert!(text.contains("worked on by worker-7"), "{text}");
    world.until(1, "select count(*) from workflow.tasks where progress ->> 'done' = '3'").await;
    let text = assert_why!(world, first, Reason::Leased { progress: Some(_), .. });
    assert!(text.ends_with("3 of 9 done."), "{text}");
}

#[sqlx::test(migrations = false)]
async fn work_for_a_known_node_is_ready(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    world.client.claim(&["work"], &Labels::new(), "node-3", 1).await.unwrap();
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    assert_why!(world, run_id, Reason::Ready { ahead: 0, .. });
    // A node that has not been heard of for minutes is none.
    world.move_clock(Duration::from_secs(300)).await;
    assert_why!(world, run_id, Reason::NoWorker { .. });
}

#[sqlx::test(migrations = false)]
async fn a_sleep_a_pause_and_a_cancellation_are_told_apart(db: PgPool) {
    let mut world = World::new(db).await;
    let failing = Tool::new(|_, _| async { Err(Failure::transient("t.busy", "busy").after(Duration::from_secs(600))) });
    world.worker(|w| w.workflow::<Nap>().workflow::<OneWork>().handler::<Work>(failing));
    let nap = world.start(Nap).await;
    let work = world.start(OneWork(Work::new(1))).await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'run' and state = 'waiting'").await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity' and state = 'waiting'").await;
    assert_why!(world, nap, Reason::Timer { .. });
    let text = assert_why!(world, work, Reason::Backoff { attempt: 2, of: 4, .. });
    assert!(text.contains("after t.busy; attempt 2, of which 4 may fail"), "{text}");
    let task = world.activity(work, "work").await;
    let of_task = Operations::new(world.client.clone()).explain_task(task.id).await.unwrap();
    assert_eq!((of_task.key.as_str(), of_task.text), ("work", text));
}

#[sqlx::test(migrations = false)]
async fn a_child_a_signal_and_code_that_does_not_fit_are_told_apart(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Parent>().workflow::<Nap>().workflow::<Patient>().workflow::<OneWork>());
    let parent = world.start(Parent).await;
    world.until(2, "select count(*) from workflow.tasks where kind = 'run' and attempt_no > 0").await;
    let text = assert_why!(world, parent, Reason::Child { .. });
    assert!(text.ends_with("(nap)."), "{text}");
    let patient = world.start(Patient).await;
    let run_id = world.start(OneWork(Work::new(1))).await;
    let task = world.activity(run_id, "work").await;
    world.stop().await;
    world
        .until(
            1,
            "select count(*) from workflow.tasks t join workflow.runs r on r.id = t.run_id
                    where r.kind = 'patient' and t.state in ('ready', 'waiting')",
        )
        .await;
    world.worker(|w| w.workflow::<OtherWork>().workflow::<Patient>());
    world
        .until(
            0,
            "select count(*) from workflow.tasks t join workflow.runs r on r.id = t.run_id
                    where r.kind = 'patient' and t.state = 'ready'",
        )
        .await;
    let leased = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().remove(0);
    assert_eq!(leased.task_id, task.id);
    world.client.complete(leased.task_id, leased.lease_token, &1).await.unwrap();
    world.parked(run_id).await;
    assert_why!(world, run_id, Reason::Parked { .. });
    let (reason, text) = why(&world, patient).await;
    assert!(matches!(reason, Reason::Signal { .. } | Reason::Leased { .. }), "{text}");
}

#[sqlx::test(migrations = false)]
async fn a_cancelled_run_waits_for_whoever_has_still_to_stop(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    world.client.claim(&["work"], &Labels::new(), "node-3", 1).await.unwrap();
    world.cancel(run_id).await;
    let text = assert_why!(world, run_id, Reason::Settling { by: Some(_) });
    assert_eq!(text, "The run was cancelled; node-3 has still to stop.");
}

#[sqlx::test(migrations = false)]
async fn a_run_that_waits_for_a_word_says_so(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Patient>());
    let run_id = world.start(Patient).await;
    world.until(1, "select count(*) from workflow.tasks where state = 'leased'").await;
    assert_why!(world, run_id, Reason::Leased { progress: None, .. });
    world.stop().await;
    world.until(1, "select count(*) from workflow.tasks where state = 'waiting'").await;
    let text = assert_why!(world, run_id, Reason::Signal { until: None });
    assert_eq!(text, "The run waits for a signal.");
}

#[sqlx::test(migrations = false)]
async fn a_timeline_shows_what_is_waited_for_now(db: PgPool) {
    let mut world = World::new(db).await;
    let worker = world.worker(|w| w.workflow::<Nap>().workflow::<OneWork>().workflow::<Patient>());
    let lasts = async |run_id: Uuid, key: &str| {
        let spans = Operations::new(world.client.clone()).timeline(run_id).await.unwrap();
        let now = spans.iter().filter(|span| span.key == key && span.until.is_none());
        now.map(|span| span.doing).collect::<Vec<_>>()
    };
    let (nap, work, patient) =
        (world.start(Nap).await, world.start(OneWork(Work::new(1))).await, world.start(Patient).await);
    world.activity(work, "work").await;
    assert_eq!(lasts(work, "work").await, [Doing::Queued]);
    world.until(1, "select count(*) from workflow.tasks where activity = 'nap.v1' and state = 'waiting'").await;
    assert_eq!(lasts(nap, "").await, [Doing::Sleeping]);
    world.until(1, "select count(*) from workflow.tasks where activity = 'patient.v1' and state = 'leased'").await;
    worker.cancel();
    world.until(1, "select count(*) from workflow.tasks where activity = 'patient.v1' and state = 'waiting'").await;
    assert_eq!(lasts(patient, "").await, [Doing::Signal]);
}
