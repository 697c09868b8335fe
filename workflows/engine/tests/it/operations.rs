//! What operators do to runs, and that each of it is done once, fenced and noted.

use crate::world::{OneWork, Tool, Work, World, effect};
use chrono::{DateTime, Utc};
use flatrender_engine::{
    Context, Failure, Labels, Policy, Workflow,
    client::{Error, RunState},
    operations::{By, Doing, Filter, Fork, OperationError, Operations, StepNow},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;

/// Two effects around one activity that may fail.
#[derive(Debug, Serialize, Deserialize)]
struct Journey {
    fuel: u32,
}

impl Workflow for Journey {
    const NAME: &'static str = "journey";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let run_id = cx.run_id();
        cx.step("pack", async |db| effect(db, run_id, "pack").await).await?;
        let far = cx.activity("ride", Work { policy: strict(), ..Work::new(self.fuel) }).await?;
        cx.step("arrive", async |db| effect(db, run_id, "arrive").await).await?;
        Ok(far)
    }
}

fn strict() -> Policy {
    Policy { max_failures: 1, ..Policy::default() }
}

/// Rides only where there is fuel.
fn car() -> Tool {
    Tool::new(|_, work| async move {
        match work.n {
            0 => Err(Failure::permanent("ride.no_fuel", "no fuel for car 17 at /garage/17")),
            n => Ok(n * 2),
        }
    })
}

fn operations(world: &World) -> Operations {
    Operations::new(world.client.clone())
}

fn by() -> By {
    By::new("ada").because("ticket 7")
}

/// Does something in a transaction of its own.
macro_rules! within {
    ($world:expr, |$tx:ident| $body:expr) => {{
        let mut transaction = $world.db.begin().await.unwrap();
        let $tx = &mut *transaction;
        let done = $body.await;
        transaction.commit().await.unwrap();
        $world.client.announce();
        done
    }};
}

async fn effects(world: &World, key: &'static str) -> i64 {
    sqlx::query_scalar("select count(*) from effects where key = $1").bind(key).fetch_one(&world.db).await.unwrap()
}

#[sqlx::test(migrations = false)]
async fn attributes_that_grow_beyond_their_room_are_refused_and_those_before_stay(db: PgPool) {
    let world = World::new(db).await;
    let run_id = world.start(OneWork(Work::new(1))).await;
    let operations = operations(&world);
    let part = |name: &str, bytes: usize| json!({ name: "x".repeat(bytes) });
    let set = async |attributes: Value| {
        let mut tx = world.db.begin().await.unwrap();
        operations.set_attributes(&mut tx, run_id, &attributes).await?;
        tx.commit().await.unwrap();
        Ok::<_, OperationError>(())
    };
    set(part("first", 4000)).await.unwrap();
    set(part("second", 4000)).await.unwrap();
    for too_much in [part("third", 4000), part("large", 4097), json!(["no", "object"])] {
        let refused = set(too_much).await;
        assert!(matches!(refused, Err(OperationError::Bad(_))), "{refused:?}");
    }
    let kept: Value = sqlx::query_scalar("select attributes from workflow.run_attributes where run_id = $1")
        .bind(run_id)
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(kept.as_object().unwrap().keys().collect::<Vec<_>>(), ["first", "second"]);
}

#[sqlx::test(migrations = false)]
async fn every_filter_narrows_and_pages_follow_each_other(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Work>(car()));
    let operations = operations(&world);
    let mut all = BTreeSet::new();
    for n in 0..7 {
        let mut tx = world.db.begin().await.unwrap();
        let key = format!("order {n}");
        let run = world.client.start(&mut tx, world.tenant, Some(&key), Journey { fuel: n % 2 }).await.unwrap();
        operations.set_attributes(&mut tx, run.run_id, &json!({ "project": n % 3, "rush": true })).await.unwrap();
        tx.commit().await.unwrap();
        world.client.announce();
        world.end(run.run_id).await;
        all.insert(run.run_id);
    }
    world.stop().await;
    let live = world.start(OneWork(Work::new(1))).await;

    let (mut seen, mut cursor) = (Vec::new(), None);
    loop {
        let filter = Filter { kinds: vec!["journey".into()], ..Filter::default() };
        let page = operations.find(&filter, cursor, 3).await.unwrap();
        seen.extend(page.runs.iter().map(|r| r.id));
        cursor = page.next;
        if cursor.is_none() {
            break;
        }
    }
    assert!(seen.is_sorted_by(|a, b| a > b) && seen.iter().copied().collect::<BTreeSet<_>>() == all, "{seen:?}");

    let failed = Filter { states: vec![RunState::Failed], ..Filter::default() };
    let fingerprint = operations.find(&failed, None, 1).await.unwrap().runs[0].fingerprint.clone();
    let now: DateTime<Utc> = sqlx::query_scalar("select workflow.now()").fetch_one(&world.db).await.unwrap();
    let attributes = |json| Filter { attributes: Some(json), ..Filter::default() };
    for (filter, wanted) in [
        (Filter::default(), 8),
        (failed, 4),
        (Filter { states: vec![RunState::Running], ..Filter::default() }, 1),
        (Filter { states: vec![RunState::Running, RunState::Failed], ..Filter::default() }, 5),
        (Filter { tenant: Some(world.tenant), ..Filter::default() }, 8),
        (Filter { tenant: Some(Uuid::now_v7()), ..Filter::default() }, 0),
        (Filter { tenant: Some(world.tenant), business_key: Some("order 3".into()), ..Filter::default() }, 1),
        (Filter { business_key: Some("order 3".into()), ..Filter::default() }, 1),
        (attributes(json!({ "project": 1 })), 2),
        (attributes(json!({ "project": 1, "rush": false })), 0),
        (Filter { fingerprint, ..Filter::default() }, 4),
        (Filter { fingerprint: Some("ride.no_fuel:0".into()), ..Filter::default() }, 0),
        (Filter { created_from: Some(now), ..Filter::default() }, 0),
        (Filter { created_until: Some(now), ..Filter::default() }, 8),
    ] {
        let page = operations.find(&filter, None, 100).await.unwrap();
        assert_eq!((page.runs.len(), page.next), (wanted, None), "{filter:?}");
    }
    let line = operations.find(&attributes(json!({ "project": 0 })), None, 1).await.unwrap().runs.remove(0);
    assert_eq!(
        (line.error_code.as_deref(), line.attributes),
        (Some("ride.no_fuel"), Some(json!({ "project": 0, "rush": true })))
    );
    assert_ne!(line.id, live);
}

#[sqlx::test(migrations = false)]
async fn failures_with_one_cause_have_one_fingerprint(db: PgPool) {
    let world = World::new(db).await;
    let of = async |code: &str, message: &str| -> String {
        sqlx::query_scalar("select workflow.fingerprint(jsonb_build_object('code', $1::text, 'message', $2::text))")
            .bind(code)
            .bind(message)
            .fetch_one(&world.db)
            .await
            .unwrap()
    };
    let one =
        of("render.missing", r#"no font "Vazir" in /tmp/7f/a.aep at frame 12 (0195f2f0-3c47-7c10-8000-0123456789ab)"#)
            .await;
    let same =
        of("render.missing", r#"no font "Lato" in /data/b.aep at frame 9 (0195f2f0-3c47-7c10-9999-0123456789ab)"#)
            .await;
    assert_eq!(one, same);
    assert!(one.starts_with("render.missing:"), "{one}");
    assert_ne!(one, of("render.missing", "no image").await);
    assert_ne!(one, of("render.late", r#"no font "Lato" in /data/b.aep at frame 9"#).await);
}

/// I6: what is maintained equals a recount, at any moment, folded or not.
#[sqlx::test(migrations = false)]
async fn counters_equal_a_recount(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Journey>().workflow::<OneWork>().handler::<Work>(car()));
    let operations = operations(&world);
    let wrong = "select count(*) from (
        select kind, tenant_id, state, n from workflow.run_totals
        except select kind, tenant_id, state, count(*) from workflow.runs group by 1, 2, 3) d";
    let mut runs = Vec::new();
    for n in 0..30 {
        let run_id = if n % 3 == 0 {
            world.start(OneWork(Work::new(1))).await
        } else {
            world.start(Journey { fuel: n % 2 }).await
        };
        if n % 5 == 0 {
            world.cancel(run_id).await;
        }
        runs.push(run_id);
        assert_eq!(world.count(wrong).await, 0);
        if n % 7 == 0 {
            operations.fold_counters().await.unwrap();
        }
    }
    let mut tx = world.db.begin().await.unwrap();
    world.client.start(&mut tx, world.tenant, None, Journey { fuel: 1 }).await.unwrap();
    tx.rollback().await.unwrap();
    for run_id in runs {
        world.end(run_id).await;
    }
    assert_eq!(world.count(wrong).await, 0);
    futures::future::join_all((0..4).map(|_| operations.fold_counters())).await;
    while operations.fold_counters().await.unwrap() > 0 {}
    assert_eq!(world.count("select count(*) from workflow.run_count_deltas").await, 0);
    assert_eq!(
        (world.count(wrong).await, world.count("select sum(n)::bigint from workflow.run_counts").await),
        (0, 30)
    );
    let totals = operations.totals(Some(world.tenant)).await.unwrap();
    assert_eq!(totals.iter().map(|t| t.n).sum::<i64>(), 30, "{totals:?}");
}

#[sqlx::test(migrations = false)]
async fn retry_now_ends_a_pause(db: PgPool) {
    let mut world = World::new(db).await;
    let mended = Arc::new(AtomicBool::new(false));
    let broken = mended.clone();
    let tool = Tool::new(move |_, work| {
        let ok = broken.load(Ordering::SeqCst);
        async move {
            if ok { Ok(work.n) } else { Err(Failure::transient("t.busy", "busy").after(Duration::from_secs(3600))) }
        }
    });
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(tool));
    let run_id = world.start(OneWork(Work::new(3))).await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity' and state = 'waiting'").await;
    let task = world.activity(run_id, "work").await;
    mended.store(true, Ordering::SeqCst);
    within!(world, |tx| operations(&world).retry_now(tx, &by(), task.id)).unwrap();
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(3));
    let again = within!(world, |tx| operations(&world).retry_now(tx, &by(), task.id));
    assert!(matches!(again, Err(OperationError::NotFound(_))), "{again:?}");
    let audit = operations(&world).audit_of(&format!("task:{}", task.id), 10).await.unwrap();
    assert_eq!(audit.len(), 1);
    assert_eq!((audit[0].actor.as_str(), audit[0].reason.as_deref()), ("ada", Some("ticket 7")));
}

#[sqlx::test(migrations = false)]
async fn a_task_that_was_taken_away_refuses_its_old_holder(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(3))).await;
    world.activity(run_id, "work").await;
    let old = world.client.claim(&["work"], &Labels::new(), "hung", 1).await.unwrap().remove(0);
    within!(world, |tx| operations(&world).force_release(tx, &by(), old.task_id)).unwrap();
    let late = world.client.complete(old.task_id, old.lease_token, &1).await;
    assert!(matches!(late, Err(Error::LeaseLost(_))), "{late:?}");
    let new = world.client.claim(&["work"], &Labels::new(), "fresh", 1).await.unwrap().remove(0);
    world.client.complete(new.task_id, new.lease_token, &2).await.unwrap();
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(2));
    let progress = "select count(*) from workflow.attempts where outcome = 'released' and failure ->> 'message' like '%ada: ticket 7'";
    assert_eq!(world.count(progress).await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_skipped_activity_gives_the_result_it_was_given(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(3))).await;
    world.activity(run_id, "work").await;
    let leased = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().remove(0);
    within!(world, |tx| operations(&world).skip(tx, &by(), leased.task_id, &42)).unwrap();
    let late = world.client.complete(leased.task_id, leased.lease_token, &1).await;
    assert!(matches!(late, Err(Error::LeaseLost(_))), "{late:?}");
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(42));
}

#[sqlx::test(migrations = false)]
async fn a_higher_priority_goes_first_and_leaves_leases_alone(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let (first, second, third) = (
        world.start(OneWork(Work::new(1))).await,
        world.start(OneWork(Work::new(2))).await,
        world.start(OneWork(Work::new(3))).await,
    );
    for run_id in [first, second, third] {
        world.activity(run_id, "work").await;
    }
    let held = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().remove(0);
    within!(world, |tx| operations(&world).set_priority(tx, &by(), third, 9)).unwrap();
    within!(world, |tx| operations(&world).set_priority(tx, &by(), held.run_id, 5)).unwrap();
    assert!(world.client.holds(held.task_id, held.lease_token).await.unwrap());
    let next = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().remove(0);
    assert_eq!(next.run_id, third);
    let audit = operations(&world).audit_of(&format!("run:{third}"), 1).await.unwrap().remove(0);
    assert_eq!((audit.before, audit.after), (Some(json!({ "priority": 0 })), Some(json!({ "priority": 9 }))));
}

/// F29: earlier effects are not repeated, both runs know of each other, the origin stays as it was.
#[sqlx::test(migrations = false)]
async fn a_fork_with_another_input_keeps_what_was_done_before_its_step(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Work>(car()));
    let origin = world.start(Journey { fuel: 0 }).await;
    assert_eq!(world.end(origin).await.state, RunState::Failed);
    let history = world.history(origin).await;

    let operations = operations(&world);
    assert!(Fork::from_step("ride").input::<Journey>(json!({ "petrol": 3 })).is_err());
    let changes = Fork::from_step("ride").input::<Journey>(json!({ "fuel": 3 })).unwrap();
    let forked = within!(world, |tx| operations.fork(tx, &by(), origin, &changes)).unwrap();
    assert_eq!((forked.copied, world.end(forked.run_id).await.output_as::<u32>()), (1, Some(6)));
    insta::assert_snapshot!(world.history(forked.run_id).await, @r"
    step      pack     ok
    activity  ride     ok
    step      arrive   ok
    ");
    assert_eq!((effects(&world, "pack").await, effects(&world, "arrive").await), (1, 1));
    assert_eq!(
        (world.history(origin).await, world.client.run(origin).await.unwrap().unwrap().state),
        (history, RunState::Failed)
    );
    let (from, made) = operations.lineage(origin).await.unwrap();
    assert!(from.is_none() && made.len() == 1 && made[0].run_id == forked.run_id && made[0].edited);
    let (from, _) = operations.lineage(forked.run_id).await.unwrap();
    assert_eq!(from.map(|l| (l.origin_run_id, l.from_key)), Some((origin, Some("ride".to_owned()))));
}

#[sqlx::test(migrations = false)]
async fn a_run_can_be_forked_while_it_is_under_way(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Journey>());
    let origin = world.start(Journey { fuel: 1 }).await;
    let task = world.activity(origin, "ride").await;
    let forked = within!(world, |tx| operations(&world).fork(tx, &by(), origin, &Fork::from_step("ride"))).unwrap();
    let twin = world.activity(forked.run_id, "ride").await;
    for (id, n) in [(twin.id, 20), (task.id, 10)] {
        within!(world, |tx| operations(&world).skip(tx, &by(), id, &n)).unwrap();
    }
    assert_eq!(world.end(origin).await.output_as::<u32>(), Some(10));
    assert_eq!(world.end(forked.run_id).await.output_as::<u32>(), Some(20));
    assert_eq!((effects(&world, "pack").await, effects(&world, "arrive").await), (1, 2));
    let nowhere = within!(world, |tx| operations(&world).fork(tx, &by(), origin, &Fork::from_step("fly")));
    assert!(matches!(nowhere, Err(OperationError::NoSuchStep(_))), "{nowhere:?}");
}

#[sqlx::test(migrations = false)]
async fn a_failed_step_can_be_done_with_another_input_and_policy(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Work>(car()));
    let origin = world.start(Journey { fuel: 0 }).await;
    world.end(origin).await;
    let step = StepNow::of(&Work::new(4)).unwrap().policy(Policy { max_failures: 9, ..Policy::default() });
    let retried =
        within!(world, |tx| operations(&world).retry(tx, &by(), origin, &Fork::from_failure().step(step))).unwrap();
    assert_eq!(world.end(retried.run_id).await.output_as::<u32>(), Some(8));
    assert_eq!(effects(&world, "pack").await, 1);
}

/// F26: what stands in the way is named, and nothing is changed.
#[sqlx::test(migrations = false)]
async fn of_two_retries_one_is_a_conflict(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Work>(car()));
    let origin = world.start(Journey { fuel: 0 }).await;
    world.end(origin).await;
    let good = Fork::from_failure().input::<Journey>(json!({ "fuel": 1 })).unwrap();
    let retry = async || within!(world, |tx| operations(&world).retry(tx, &by(), origin, &good));
    let (a, b) = futures::future::join(retry(), retry()).await;
    let (won, lost) = if a.is_ok() { (a, b) } else { (b, a) };
    assert!(matches!(lost, Err(OperationError::Conflict(_))), "{lost:?}");
    let won = won.unwrap();
    assert_eq!(world.end(won.run_id).await.state, RunState::Succeeded);
    assert!(matches!(retry().await, Err(OperationError::Conflict(_))));
    let of_success = within!(world, |tx| operations(&world).retry(tx, &by(), won.run_id, &good));
    assert!(matches!(of_success, Err(OperationError::Moved(_))), "{of_success:?}");
    assert_eq!(operations(&world).audit_of(&format!("run:{origin}"), 10).await.unwrap().len(), 1);
}

#[sqlx::test(migrations = false)]
async fn a_retry_that_fails_again_can_be_retried(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Work>(car()));
    let mut run_id = world.start(Journey { fuel: 0 }).await;
    for _ in 0..3 {
        assert_eq!(world.end(run_id).await.state, RunState::Failed);
        run_id = within!(world, |tx| operations(&world).retry(tx, &by(), run_id, &Fork::default())).unwrap().run_id;
    }
    world.end(run_id).await;
    assert_eq!(effects(&world, "pack").await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_paused_queue_is_not_claimed_from(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::doubling();
    let handler = tool.clone();
    let operations = operations(&world);
    assert!(within!(world, |tx| operations.pause_queue(tx, &by(), "work")).unwrap());
    assert!(!within!(world, |tx| operations.pause_queue(tx, &by(), "work")).unwrap());
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(handler));
    let run_id = world.start(OneWork(Work::new(4))).await;
    world.activity(run_id, "work").await;
    assert!(world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().is_empty());
    assert_eq!((operations.paused_queues().await.unwrap().len(), tool.count()), (1, 0));
    assert!(within!(world, |tx| operations.resume_queue(tx, &by(), "work")).unwrap());
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(8));
    let audit = operations.audit_of("queue:work", 10).await.unwrap();
    assert_eq!(audit.iter().map(|a| a.action.as_str()).collect::<Vec<_>>(), ["resume_queue", "pause_queue"]);
}

#[sqlx::test(migrations = false)]
async fn an_operation_and_its_audit_roll_back_together(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    let mut tx = world.db.begin().await.unwrap();
    operations(&world).cancel(&mut tx, &by(), run_id).await.unwrap();
    tx.rollback().await.unwrap();
    assert_eq!(world.count("select count(*) from workflow.audit").await, 0);
    within!(world, |tx| operations(&world).cancel(tx, &by(), run_id)).unwrap();
    assert_eq!(world.end(run_id).await.state, RunState::Cancelled);
    assert_eq!(world.count("select count(*) from workflow.audit").await, 1);
    for sql in ["update workflow.audit set actor = 'eve'", "delete from workflow.audit"] {
        assert!(sqlx::raw_sql(sql).execute(&world.db).await.is_err(), "{sql}");
    }
}

#[sqlx::test(migrations = false)]
async fn a_purge_needs_a_second_role_and_takes_only_what_is_over(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Journey>().workflow::<OneWork>().handler::<Work>(car()));
    let failed = world.start(Journey { fuel: 0 }).await;
    world.end(failed).await;
    let operations = operations(&world);
    let alone = within!(world, |tx| operations.purge(tx, &by(), failed, false));
    assert!(matches!(alone, Err(OperationError::Bad(_))), "{alone:?}");
    within!(world, |tx| operations.purge(tx, &by(), failed, true)).unwrap();
    assert!(world.client.run(failed).await.unwrap().is_none());
    assert_eq!(world.count("select count(*) from workflow.steps").await, 0);
    assert_eq!(operations.audit_of(&format!("run:{failed}"), 1).await.unwrap()[0].action, "purge");
    // The door is shut again.
    let kept = world.start(Journey { fuel: 1 }).await;
    world.end(kept).await;
    assert!(sqlx::raw_sql("delete from workflow.steps").execute(&world.db).await.is_err());
}

#[sqlx::test(migrations = false)]
async fn a_timeline_tells_waits_from_work(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Journey>());
    let run_id = world.start(Journey { fuel: 1 }).await;
    world.activity(run_id, "ride").await;
    let claim = async || world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().remove(0);
    let first = claim().await;
    world.client.release(first.task_id, first.lease_token).await.unwrap();
    let second = claim().await;
    let spans = operations(&world).timeline(run_id).await.unwrap();
    let of = |key: &str| {
        spans.iter().filter(|s| s.key == key).map(|s| (s.doing, s.attempt_no, s.outcome.as_deref())).collect::<Vec<_>>()
    };
    assert_eq!(
        of("ride"),
        [
            (Doing::Queued, 1, None),
            (Doing::Working, 1, Some("released")),
            (Doing::Paused, 2, None),
            (Doing::Working, 2, None)
        ]
    );
    assert_eq!(of("pack"), [(Doing::Step, 0, Some("ok"))]);
    assert_eq!(of("")[0].0, Doing::Queued);
    assert!(spans.iter().all(|s| s.until.is_none_or(|until| until >= s.from)), "{spans:#?}");
    world.client.complete(second.task_id, second.lease_token, &2).await.unwrap();
    world.end(run_id).await;
}

#[sqlx::test(migrations = false)]
async fn what_waits_has_waited_since_its_last_attempt_however_many_came_after(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    let task = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().remove(0);
    let failure = Failure::transient("test.later", "not now").after(Duration::from_secs(3600));
    world.client.fail(task.task_id, task.lease_token, &failure).await.unwrap();
    let after = "insert into workflow.attempts (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker,
                                                started_at, ended_at, outcome)
                 select 1000000 + n, 1, id, tenant_id, 'other ' || n, gen_random_uuid(), 'node', workflow.now(), workflow.now(), 'ok'
                 from workflow.runs cross join generate_series(1, 1000) n where id = $1";
    sqlx::query(after).bind(run_id).execute(&world.db).await.unwrap();
    let spans = operations(&world).timeline(run_id).await.unwrap();
    let wait = spans.iter().find(|s| s.key == "work" && s.until.is_none()).unwrap();
    let ended_at = "select ended_at from workflow.attempts where step_key = 'work'";
    let ended_at: DateTime<Utc> = sqlx::query_scalar(ended_at).fetch_one(&world.db).await.unwrap();
    assert_eq!((wait.doing, wait.from, wait.attempt_no), (Doing::Paused, ended_at, 2));
}

#[sqlx::test(migrations = false)]
async fn a_run_is_in_its_timeline_however_much_of_it_is_under_way(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    let busy = "insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, input, run_at, max_failures, max_losses,
                    backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds, state, attempt_no, lease_token,
                    leased_by, leased_at, lease_expires_at)
                select 'activity', id, tenant_id, 'other ' || n, 'elsewhere', 'Work', '0'::jsonb, workflow.now(), 1, 1, 0, 0, 3600, 3600,
                       'leased', 1, gen_random_uuid(), 'node', workflow.now(), workflow.now() + interval '1 h'
                from workflow.runs cross join generate_series(1, 1000) n where id = $1";
    sqlx::query(busy).bind(run_id).execute(&world.db).await.unwrap();
    let spans = operations(&world).timeline(run_id).await.unwrap();
    let lasting = spans.iter().filter(|s| s.until.is_none()).collect::<Vec<_>>();
    assert_eq!(lasting.len(), 1000);
    assert!(lasting.iter().any(|s| s.key.is_empty()), "{lasting:#?}");
}

#[sqlx::test(migrations = false)]
async fn a_queue_tells_how_much_is_ready_and_since_when(db: PgPool) {
    let mut world = World::new(db).await;
    assert!(operations(&world).queue_depths().await.unwrap().is_empty());
    world.worker(|w| w.workflow::<OneWork>());
    for n in 0..3 {
        let run_id = world.start(OneWork(Work::new(n))).await;
        world.activity(run_id, "work").await;
    }
    world.move_clock(Duration::from_secs(60)).await;
    world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap();
    world.stop().await;
    world.start(OneWork(Work::new(9))).await;
    let depths = operations(&world).queue_depths().await.unwrap();
    let of = |queue: &str| depths.iter().find(|d| d.queue == queue).unwrap();
    assert_eq!(of("work").ready, 2);
    assert!((60.0..90.0).contains(&of("work").oldest_seconds), "{depths:?}");
    assert!(of("workflows").ready >= 1, "{depths:?}");
}

#[sqlx::test(migrations = false)]
async fn a_step_that_is_done_otherwise_counts_against_its_limit_key(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Journey>().handler::<Work>(car()));
    let origin = world.start(Journey { fuel: 0 }).await;
    assert_eq!(world.end(origin).await.state, RunState::Failed);
    world.stop().await;
    let operations = operations(&world);
    let terms = flatrender_engine::operations::Terms { key_cap: Some(1), ..Default::default() };
    within!(world, |tx| operations.set_terms(tx, &by(), "work", &terms)).unwrap();
    let work = Work { limit_key: Some("garage".into()), warm_key: Some("car".into()), ..Work::new(4) };
    for _ in 0..3 {
        let changes = Fork::from_step("ride").step(StepNow::of(&work).unwrap());
        within!(world, |tx| operations.fork(tx, &by(), origin, &changes)).unwrap();
    }
    let leased = world.client.claim(&["work"], &Labels::new(), "node", 3).await.unwrap();
    assert_eq!(leased.len(), 1, "the cap of the key was exceeded");
    assert_eq!(world.count("select count(*) from workflow.tasks where warm_key = 'car'").await, 3);
}
