//! Steps and the record.

use crate::world::{Tool, Work, World, effect};
use flatrender_engine::{Context, Failure, Workflow, client::RunState};
use futures::future::{join, join_all};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::sync::atomic::{AtomicU32, Ordering};

/// Three steps, an activity between them.
#[derive(Serialize, Deserialize)]
struct Story;

impl Workflow for Story {
    const NAME: &'static str = "story";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let run_id = cx.run_id();
        cx.step("begin", async |db| effect(db, run_id, "begin").await).await?;
        let four = cx.activity("double", Work::new(2)).await?;
        cx.step("middle", async |db| effect(db, run_id, "middle").await).await?;
        let both = join(cx.activity("left", Work::new(four)), cx.activity("right", Work::new(5))).await;
        let sum = both.0? + both.1?;
        cx.step("end", async |db| effect(db, run_id, "end").await).await?;
        Ok(sum)
    }
}

#[sqlx::test(migrations = false)]
async fn a_recorded_step_is_not_repeated(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::doubling();
    let handler = tool.clone();
    world.worker(|w| w.workflow::<Story>().handler::<Work>(handler).crash_after_every_event());
    let run = world.finish(Story).await;
    assert_eq!(run.output_as::<u32>(), Some(18));
    assert_eq!(tool.count(), 3);
    assert_eq!(world.count("select count(*) from effects").await, 3);
    assert!(world.count("select count(*) from workflow.attempts where outcome = 'released'").await >= 5);
}

#[sqlx::test(migrations = false)]
async fn the_record_tells_the_story_in_order(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Story>().handler::<Work>(Tool::doubling()).queue("work", 1));
    let run = world.finish(Story).await;
    insta::assert_snapshot!(world.history(run.id).await, @r"
    step      begin    ok
    activity  double   ok
    step      middle   ok
    activity  left     ok
    activity  right    ok
    step      end      ok
    ");
    assert_eq!(world.count("select count(*) from workflow.attempts where outcome = 'released'").await, 0);
}

static TRIES: AtomicU32 = AtomicU32::new(0);

/// Writes, then fails: once in passing, or for good.
#[derive(Serialize, Deserialize)]
struct Stumble {
    for_good: bool,
}

impl Workflow for Stumble {
    const NAME: &'static str = "stumble";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let (run_id, for_good) = (cx.run_id(), self.for_good);
        cx.step("write", async |db| {
            effect(db, run_id, "write").await?;
            match TRIES.fetch_add(1, Ordering::SeqCst) {
                _ if for_good => Err(Failure::permanent("test.no", "never")),
                0 => Err(Failure::transient("test.not_yet", "once more")),
                _ => Ok(()),
            }
        })
        .await
    }
}

#[sqlx::test(migrations = false)]
async fn step_and_user_sql_commit_together(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Stumble>());
    let run = world.finish(Stumble { for_good: false }).await;
    assert_eq!(run.state, RunState::Succeeded);
    assert_eq!(world.count("select count(*) from effects").await, 1);

    let run = world.finish(Stumble { for_good: true }).await;
    assert_eq!(run.error.unwrap().code, "test.no");
    assert_eq!(world.count("select count(*) from effects").await, 1);
    assert_eq!(world.history(run.id).await, "step      write    test.no");
}

/// Takes its own lease away in the middle of a step.
#[derive(Serialize, Deserialize)]
struct Overtaken;

impl Workflow for Overtaken {
    const NAME: &'static str = "overtaken";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let run_id = cx.run_id();
        cx.step("write", async |db| {
            effect(db, run_id, "write").await?;
            let first: bool = sqlx::query_scalar("select attempt_no = 1 from workflow.tasks where run_id = $1")
                .bind(run_id)
                .fetch_one(&mut *db)
                .await?;
            if first {
                // Somebody else claims the run: on a session of its own, as in life.
                OVERTAKE.notify_one();
                OVERTAKEN.notified().await;
            }
            Ok(())
        })
        .await
    }
}

static OVERTAKE: tokio::sync::Notify = tokio::sync::Notify::const_new();
static OVERTAKEN: tokio::sync::Notify = tokio::sync::Notify::const_new();

#[sqlx::test(migrations = false)]
async fn a_stale_lease_cannot_record(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Overtaken>());
    let run_id = world.start(Overtaken).await;
    OVERTAKE.notified().await;
    let taken = "update workflow.tasks set lease_token = gen_random_uuid(), attempt_no = 2, worker_id = null,
                 lease_expires_at = workflow.now() + interval '3 s'";
    sqlx::raw_sql(taken).execute(&world.db).await.unwrap();
    OVERTAKEN.notify_one();
    // The new owner never shows up: its lease ends, and the run is continued once more.
    assert_eq!(world.end(run_id).await.state, RunState::Succeeded);
    assert_eq!(world.count("select count(*) from effects").await, 1);
    assert_eq!(world.count("select attempt_no::bigint from workflow.steps").await, 3);
}

#[derive(Serialize, Deserialize)]
struct SameKey;

impl Workflow for SameKey {
    const NAME: &'static str = "same_key";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.step("a", async |_| Ok(())).await?;
        cx.step("a", async |_| Ok(())).await
    }
}

#[sqlx::test(migrations = false)]
async fn a_key_used_twice_is_a_failure(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<SameKey>());
    assert_eq!(world.finish(SameKey).await.error.unwrap().code, "workflow.key_reused");
}

/// What a definition did before and does after a careless change, under one name.
#[derive(Serialize, Deserialize)]
struct Before;
#[derive(Serialize, Deserialize)]
struct After;

impl Workflow for Before {
    const NAME: &'static str = "changed";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.step("count", async |_| Ok(1)).await?;
        cx.activity("work", Work::new(1)).await
    }
}

impl Workflow for After {
    const NAME: &'static str = "changed";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.activity("count", Work::new(1)).await
    }
}

#[sqlx::test(migrations = false)]
async fn a_record_that_does_not_fit_is_not_misapplied(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Before>());
    let run_id = world.start(Before).await;
    world.activity(run_id, "work").await;
    world.stop().await;
    let tool = Tool::doubling();
    let handler = tool.clone();
    sqlx::raw_sql("delete from workflow.tasks where kind = 'activity'; update workflow.tasks set state = 'ready', run_at = workflow.now()")
        .execute(&world.db)
        .await
        .unwrap();
    world.worker(|w| w.workflow::<After>().handler::<Work>(handler));
    let (reason, code) = world.parked(run_id).await;
    assert_eq!((reason.as_str(), code.as_str()), ("version_mismatch", "workflow.nondeterministic"));
    assert_eq!(tool.count(), 0);
}

/// Steps, time and chance from several branches at once.
#[derive(Serialize, Deserialize)]
struct Branches;

impl Workflow for Branches {
    const NAME: &'static str = "branches";
    type Output = Vec<(u64, i64)>;

    async fn run(self, cx: &Context) -> Result<Vec<(u64, i64)>, Failure> {
        let branch = async |n: u32| {
            let key = format!("b{n}");
            cx.activity(&key, Work::new(n)).await?;
            let seen = (cx.random(&key), cx.now().timestamp_micros());
            cx.step(&format!("s{n}"), async |_| Ok(seen)).await?;
            Ok::<_, Failure>((cx.random(&key), cx.now().timestamp_micros()))
        };
        join_all((0..6).map(branch)).await.into_iter().collect()
    }
}

#[sqlx::test(migrations = false)]
async fn time_and_chance_are_the_same_on_every_replay(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Branches>().handler::<Work>(Tool::doubling()).crash_after_every_event());
    let run = world.finish(Branches).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    // Replayed a dozen times, each time with the whole record: what a branch saw did not change.
    let events = world.client.history(run.id).await.unwrap();
    for (i, (chance, now)) in run.output_as::<Vec<(u64, i64)>>().unwrap().into_iter().enumerate() {
        let step = events.iter().find(|e| e.key == format!("s{i}")).unwrap();
        assert_eq!(now, step.recorded_at.timestamp_micros());
        let before: (u64, i64) = serde_json::from_value(step.output.clone().unwrap()).unwrap();
        assert_eq!(before.0, chance);
        let activity = events.iter().find(|e| e.key == format!("b{i}")).unwrap();
        assert_eq!(before.1, activity.recorded_at.timestamp_micros());
    }
}

/// Counts how often its memo is really done.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
struct Remember(u32);

static DONE: std::sync::atomic::AtomicU32 = std::sync::atomic::AtomicU32::new(0);

impl Workflow for Remember {
    const NAME: &'static str = "remember";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let mut sum = 0;
        for n in 0..self.0 {
            sum += cx
                .memo(&format!("memo:{n}"), || async move {
                    DONE.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    Ok(n)
                })
                .await?;
        }
        let refused: Result<u32, Failure> = cx.memo("no", || async { Err(Failure::permanent("test.no", "no")) }).await;
        assert_eq!(refused.unwrap_err().code, "test.no");
        Ok(sum)
    }
}

#[sqlx::test(migrations = false)]
async fn a_memo_is_recorded_and_not_repeated(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Remember>().crash_after_every_event());
    let run = world.finish(Remember(5)).await;
    assert_eq!(run.output_as::<u32>(), Some(10));
    assert_eq!(DONE.load(std::sync::atomic::Ordering::SeqCst), 5);
    assert_eq!(world.count("select count(*) from workflow.steps where kind = 'step'").await, 6);
}

/// Ten steps and nothing else.
#[derive(Serialize, Deserialize)]
struct TenSteps;

impl Workflow for TenSteps {
    const NAME: &'static str = "ten_steps";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let run_id = cx.run_id();
        for n in 0..10 {
            let key = format!("step {n}");
            cx.step(&key, async |db| effect(db, run_id, &key).await).await?;
        }
        Ok(())
    }
}

/// C2: a transaction a step, one to begin and one to end; each effect once, whoever dies after whichever step.
#[sqlx::test(migrations = false)]
async fn ten_steps_take_twelve_transactions_and_a_death_after_each_repeats_none(db: PgPool) {
    let mut world = World::new(db).await;
    sqlx::raw_sql(
        "create table writes (xid bigint not null);
         create function note_write() returns trigger language plpgsql as
             $$ begin insert into writes values (txid_current()); return null; end $$;
         create trigger note_write after insert or update or delete on workflow.tasks for each row execute function note_write();
         create trigger note_write after insert on workflow.steps for each row execute function note_write();
         create trigger note_write after insert on workflow.attempts for each row execute function note_write();
         create trigger note_write after insert or update on workflow.runs for each row execute function note_write();",
    )
    .execute(&world.db)
    .await
    .unwrap();
    world.worker(|w| w.workflow::<TenSteps>());
    let writes = "select count(distinct xid) from writes";
    world.finish(TenSteps).await;
    // The start is its caller's.
    assert_eq!(world.count(writes).await - 1, 12);
    world.stop().await;
    world.worker(|w| w.workflow::<TenSteps>().crash_after_every_event());
    let run = world.finish(TenSteps).await;
    assert_eq!(run.state, RunState::Succeeded);
    let once = "select count(*) from (select run_id, key from effects group by 1, 2 having count(*) = 1) e";
    assert_eq!((world.count("select count(*) from effects").await, world.count(once).await), (20, 20));
    let deaths = "select count(*) from workflow.attempts where outcome = 'released'";
    assert!(world.count(deaths).await >= 10, "it was interrupted {} times", world.count(deaths).await);
}
