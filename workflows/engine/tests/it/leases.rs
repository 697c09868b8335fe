//! The fence, and work whose worker is gone.

use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{
    Failure, Labels, LeasedTask, Progress, Standing,
    client::{Error, RunState},
};
use serde_json::{Value, json};
use sqlx::{PgPool, types::Json};
use std::time::Duration;
use uuid::Uuid;

/// A task that one node has lost to another: (run, the first's lease, the second's).
async fn overtaken(world: &mut World) -> (Uuid, LeasedTask, LeasedTask) {
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    let first = claim(world, "first").await;
    world.move_clock(Duration::from_secs(31)).await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity' and state = 'ready'").await;
    let second = claim(world, "second").await;
    (run_id, first, second)
}

async fn claim(world: &World, node: &str) -> LeasedTask {
    let mut leased = world.client.claim(&["work"], &Labels::new(), node, 1).await.unwrap();
    leased.pop().unwrap()
}

fn is_lost(result: Result<(), Error>) -> bool {
    matches!(result, Err(Error::LeaseLost(_)))
}

#[sqlx::test(migrations = false)]
async fn a_stale_lease_cannot_renew(db: PgPool) {
    let mut world = World::new(db).await;
    let (_, first, second) = overtaken(&mut world).await;
    let client = &world.client;
    assert_eq!(client.renew(first.task_id, first.lease_token, None).await.unwrap(), Standing::Lost);
    assert_eq!(client.renew(second.task_id, second.lease_token, None).await.unwrap(), Standing::Held);
    assert!(!client.holds(first.task_id, first.lease_token).await.unwrap());
    assert!(client.holds(second.task_id, second.lease_token).await.unwrap());
    assert!(client.task_input(first.task_id, first.lease_token).await.is_err());
    assert!(client.task_input(second.task_id, second.lease_token).await.is_ok());
}

#[sqlx::test(migrations = false)]
async fn a_stale_lease_cannot_complete(db: PgPool) {
    let mut world = World::new(db).await;
    let (run_id, first, second) = overtaken(&mut world).await;
    assert!(is_lost(world.client.complete(first.task_id, first.lease_token, &1).await));
    world.client.complete(second.task_id, second.lease_token, &2).await.unwrap();
    assert!(is_lost(world.client.complete(first.task_id, first.lease_token, &1).await));
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(2));
}

#[sqlx::test(migrations = false)]
async fn a_stale_lease_cannot_fail_or_release(db: PgPool) {
    let mut world = World::new(db).await;
    let (run_id, first, second) = overtaken(&mut world).await;
    let failure = Failure::permanent("test.late", "too late");
    assert!(is_lost(world.client.fail(first.task_id, first.lease_token, &failure).await));
    assert!(is_lost(world.client.release(first.task_id, first.lease_token).await));
    world.client.complete(second.task_id, second.lease_token, &2).await.unwrap();
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(2));
}

#[sqlx::test(migrations = false)]
async fn completing_again_after_a_lost_answer_is_harmless(db: PgPool) {
    let mut world = World::new(db).await;
    let (run_id, _, second) = overtaken(&mut world).await;
    world.client.complete(second.task_id, second.lease_token, &2).await.unwrap();
    world.client.complete(second.task_id, second.lease_token, &2).await.unwrap();
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(2));
}

#[sqlx::test(migrations = false)]
async fn lost_work_is_taken_over_and_counted_apart(db: PgPool) {
    let mut world = World::new(db).await;
    let (run_id, first, second) = overtaken(&mut world).await;
    assert_eq!((first.attempt_no, second.attempt_no), (1, 2));
    let task = world.activity(run_id, "work").await;
    assert_eq!((task.failures, task.losses, task.leased_by.as_deref()), (0, 1, Some("second")));
    assert_eq!(
        world.count("select count(*) from workflow.attempts where outcome = 'lost' and worker = 'first'").await,
        1
    );
}

#[sqlx::test(migrations = false)]
async fn work_that_is_lost_too_often_fails_with_its_evidence(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    for _ in 0..5 {
        world.until(1, "select count(*) from workflow.tasks where kind = 'activity' and state = 'ready'").await;
        claim(&world, "doomed").await;
        world.move_clock(Duration::from_secs(31)).await;
    }
    assert_eq!(world.end(run_id).await.error.unwrap().code, "workflow.lost_too_often");
    assert_eq!(
        world.count("select count(*) from workflow.attempts where outcome = 'lost' and step_key = 'work'").await,
        5
    );
}

#[sqlx::test(migrations = false)]
async fn a_worker_that_takes_a_run_over_from_itself_keeps_it_once(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>().runs(1));
    let first = world.start(OneWork(Work::new(1))).await;
    world.activity(first, "work").await;
    world.move_clock(Duration::from_secs(31)).await;
    world
        .until(1, "select count(*) from workflow.tasks where kind = 'run' and state = 'leased' and attempt_no = 2")
        .await;
    let second = world.start(OneWork(Work::new(2))).await;
    for run_id in [first, second] {
        world.activity(run_id, "work").await;
        let leased = claim(&world, "node").await;
        world.client.complete(leased.task_id, leased.lease_token, &leased.input["n"]).await.unwrap();
        assert!(world.end(run_id).await.output_as::<u32>().is_some());
    }
}

#[sqlx::test(migrations = false)]
async fn a_run_that_kills_its_workers_is_given_up(db: PgPool) {
    let mut world = World::new(db).await;
    let run_id = world.start(OneWork(Work::new(1))).await;
    sqlx::raw_sql(
        "update workflow.tasks set losses = 9, state = 'leased', lease_token = gen_random_uuid(), leased_by = 'doomed',
         attempt_no = 10, leased_at = workflow.now(), lease_expires_at = workflow.now();
         -- It does not end while nobody looks, however old the database is.
         update workflow.last_sweep set swept_at = clock_timestamp()",
    )
    .execute(&world.db)
    .await
    .unwrap();
    world.worker(|w| w.workflow::<OneWork>());
    assert_eq!(world.end(run_id).await.error.unwrap().code, "workflow.lost_too_often");
}

#[sqlx::test(migrations = false)]
async fn a_run_that_waits_for_work_in_other_hands_is_not_given_up_with_its_workers(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    world.stop().await;
    sqlx::raw_sql(
        "update workflow.tasks set losses = max_losses, state = 'leased', lease_token = gen_random_uuid(), leased_by = 'doomed',
         attempt_no = 10, leased_at = workflow.now(), lease_expires_at = workflow.now(), run_at = workflow.now() where kind = 'run'",
    )
    .execute(&world.db)
    .await
    .unwrap();
    world.worker(|w| w.workflow::<OneWork>());
    world
        .until(
            1,
            "select count(*) from workflow.tasks where kind = 'run' and state = 'waiting' and lease_token is null",
        )
        .await;
    let leased = claim(&world, "node").await;
    world.client.complete(leased.task_id, leased.lease_token, &leased.input["n"]).await.unwrap();
    assert!(world.end(run_id).await.output_as::<u32>().is_some(), "what came was progress: it goes on at once");
}

#[sqlx::test(migrations = false)]
async fn a_held_lease_cannot_be_taken_while_the_caller_writes(db: PgPool) {
    let mut world = World::new(db).await;
    let (_, first, second) = overtaken(&mut world).await;
    let mut tx = world.db.begin().await.unwrap();
    assert!(!world.client.holds_for_share(&mut tx, first.task_id, first.lease_token).await.unwrap());
    assert!(world.client.holds_for_share(&mut tx, second.task_id, second.lease_token).await.unwrap());
    let complete = world.client.complete(second.task_id, second.lease_token, &2);
    assert!(tokio::time::timeout(Duration::from_millis(200), complete).await.is_err());
}

/// A run leased to nobody real: (its task, the token that holds it).
async fn leased_run(world: &World) -> (i64, Uuid) {
    world.start(OneWork(Work::new(1))).await;
    sqlx::query_as(
        "update workflow.tasks
         set state = 'leased', lease_token = gen_random_uuid(), leased_by = 'test', attempt_no = 1,
             leased_at = workflow.now(), lease_expires_at = workflow.now() + interval '30 s'
         returning id, lease_token",
    )
    .fetch_one(&world.db)
    .await
    .unwrap()
}

/// Sends ops of runs in one batch; the answer lists the fences that were accepted.
async fn advance(world: &World, ops: &Value) -> Vec<(i64, Option<Uuid>)> {
    sqlx::query_as(
        "select task_id, lease_token from workflow.pump(null, 'test', '[]', $1, '[]', '{}') where what = 'settled'",
    )
    .bind(Json(ops))
    .fetch_all(&world.db)
    .await
    .unwrap()
}

fn request(task_id: i64, token: Uuid) -> Value {
    json!({ "op": "request", "task_id": task_id, "token": token, "key": "work", "queue": "work", "activity": "Work",
            "input": {}, "max_failures": 1, "max_losses": 1, "backoff_base": 1, "backoff_cap": 1, "lease": 30,
            "start_to_close": 60 })
}

#[sqlx::test(migrations = false)]
async fn a_stale_op_changes_nothing_beside_a_live_op_of_its_run(db: PgPool) {
    let world = World::new(db).await;
    let (task_id, token) = leased_run(&world).await;
    let stale = Uuid::now_v7();
    let ops = json!([
        { "op": "timer", "task_id": task_id, "token": stale, "key": "stale", "outcome": "ok" },
        { "op": "timer", "task_id": task_id, "token": token, "key": "live", "outcome": "ok" },
        { "op": "end", "task_id": task_id, "token": stale, "state": "failed", "error": { "code": "test.stale" } },
    ]);
    assert_eq!(advance(&world, &ops).await, [(task_id, Some(token))]);
    assert_eq!(world.count("select count(*) from workflow.runs where state = 'running'").await, 1);
    assert_eq!(world.count("select count(*) from workflow.steps where key = 'live'").await, 1);
    assert_eq!(world.count("select count(*) from workflow.steps").await, 1);
}

/// Sends one plain entry; the answer tells what came of it.
async fn plain(world: &World, task_id: i64, token: Uuid, what: &str, key: Option<&str>) -> Vec<String> {
    sqlx::query_scalar(
        "select what from workflow.pump(null, 'test', '[]', '[]', '[]', '{}', array[$1], array[$2], array[$3], array[$4],
                                        array[null::text], array['1'::jsonb])",
    )
    .bind(task_id)
    .bind(token)
    .bind(what)
    .bind(key)
    .fetch_all(&world.db)
    .await
    .unwrap()
}

#[sqlx::test(migrations = false)]
async fn a_plain_entry_counts_once_and_only_with_its_token(db: PgPool) {
    let world = World::new(db).await;
    let (task_id, token) = leased_run(&world).await;
    let stale = Uuid::now_v7();
    let nothing: [&str; 0] = [];
    assert_eq!(plain(&world, task_id, stale, "step", Some("a")).await, nothing);
    assert_eq!(plain(&world, task_id, stale, "succeeded", None).await, nothing);
    assert_eq!(plain(&world, task_id, token, "step", Some("a")).await, ["recorded"]);
    // Sent again, because its answer was lost.
    assert_eq!(plain(&world, task_id, token, "step", Some("a")).await, ["settled"]);
    assert_eq!(plain(&world, task_id, token, "step", Some("b")).await, ["recorded"]);
    let record = "select count(*) from workflow.steps where (key, seq) in (('a', 1), ('b', 2))";
    assert_eq!(world.count(record).await, 2);
    assert_eq!(world.count("select count(*) from workflow.runs where state = 'running'").await, 1);
    assert_eq!(plain(&world, task_id, token, "succeeded", None).await, ["settled"]);
    assert_eq!(plain(&world, task_id, token, "step", Some("c")).await, nothing, "it is over");
    assert_eq!(world.count("select count(*) from workflow.steps").await, 2);
    assert_eq!(world.count("select count(*) from workflow.runs where state = 'succeeded' and output = '1'").await, 1);
}

#[sqlx::test(migrations = false)]
async fn only_progress_forgives_the_losses_of_a_run(db: PgPool) {
    let world = World::new(db).await;
    let (task_id, token) = leased_run(&world).await;
    let lose = "update workflow.tasks set losses = 3 where kind = 'run'";
    let losses = "select losses::bigint from workflow.tasks where kind = 'run'";
    let ops = json!([request(task_id, token)]);
    sqlx::raw_sql(lose).execute(&world.db).await.unwrap();
    advance(&world, &ops).await;
    assert_eq!(world.count(losses).await, 0);
    sqlx::raw_sql(lose).execute(&world.db).await.unwrap();
    advance(&world, &ops).await; // Asked for again, as every replay does.
    assert_eq!(world.count(losses).await, 3);
    advance(&world, &json!([{ "op": "timer", "task_id": task_id, "token": token, "key": "nap", "outcome": "ok" }]))
        .await;
    assert_eq!(world.count(losses).await, 0);
}

#[sqlx::test(migrations = false)]
async fn a_hung_transaction_holds_up_only_its_own_task(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let mut claimed = Vec::new();
    for n in 0..2 {
        let run_id = world.start(OneWork(Work::new(n))).await;
        world.activity(run_id, "work").await;
        claimed.push(claim(&world, "gone").await);
    }
    let mut hung = world.db.begin().await.unwrap();
    assert!(world.client.holds_for_share(&mut hung, claimed[0].task_id, claimed[0].lease_token).await.unwrap());
    world.move_clock(Duration::from_secs(31)).await;
    let others = "select count(*) from workflow.tasks where kind = 'activity' and losses = 1";
    tokio::time::timeout(Duration::from_secs(7), world.until(1, others)).await.unwrap();
    hung.rollback().await.unwrap();
    world.until(2, others).await;
}

/// A task that a worker holds and does not know of: its run, and its lease.
async fn unknown_to_its_worker(world: &mut World) -> (Uuid, LeasedTask) {
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.activity(run_id, "work").await;
    let leased = claim(world, "here").await;
    sqlx::query("update workflow.tasks set worker_id = (select max(id) from workflow.workers) where id = $1")
        .bind(leased.task_id)
        .execute(&world.db)
        .await
        .unwrap();
    (run_id, leased)
}

#[sqlx::test(migrations = false)]
async fn a_worker_that_leaves_gives_back_what_it_does_not_know_of(db: PgPool) {
    let mut world = World::new(db).await;
    let (run_id, leased) = unknown_to_its_worker(&mut world).await;
    world.stop().await;
    let task = world.activity(run_id, "work").await;
    assert_eq!((task.leased_by, task.losses, task.failures), (None, 0, 0));
    // It may have been at work: what it has recorded has its attempt.
    let noted: (String, Uuid) = sqlx::query_as("select outcome, lease_token from workflow.attempts where task_id = $1")
        .bind(leased.task_id)
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(noted, ("released".to_owned(), leased.lease_token));
}

#[sqlx::test(migrations = false)]
async fn what_is_being_cancelled_is_not_begun_again_when_its_worker_leaves(db: PgPool) {
    let mut world = World::new(db).await;
    let (run_id, _) = unknown_to_its_worker(&mut world).await;
    assert!(world.cancel(run_id).await);
    world.stop().await;
    assert_eq!(
        world.count("select count(*) from workflow.tasks where kind = 'activity' and state <> 'leased'").await,
        0
    );
    // Nobody works on its queue.
    world.worker(|w| w.workflow::<OneWork>());
    assert_eq!(world.end(run_id).await.state, RunState::Cancelled);
}

#[sqlx::test(migrations = false)]
async fn leases_that_ended_while_nobody_looked_are_given_another_length(db: PgPool) {
    let mut world = World::new(db).await;
    let mut asking = world.worker(|w| w.workflow::<OneWork>());
    let mut claimed = Vec::new();
    for n in 0..2 {
        let run_id = world.start(OneWork(Work::new(n))).await;
        world.activity(run_id, "work").await;
        claimed.push(claim(&world, &format!("node {n}")).await);
    }
    world.stop().await;
    asking.cancel();
    // The database was away for a minute: one lease ended in that time, the other long before.
    sqlx::raw_sql("update workflow.last_sweep set swept_at = clock_timestamp() - interval '60 s'")
        .execute(&world.db)
        .await
        .unwrap();
    for (leased, ago) in claimed.iter().zip([10.0, 90.0]) {
        sqlx::query(
            "update workflow.tasks set lease_expires_at = workflow.now() - make_interval(secs => $2) where id = $1",
        )
        .bind(leased.task_id)
        .bind(ago)
        .execute(&world.db)
        .await
        .unwrap();
    }
    asking = world.worker(|w| w.workflow::<OneWork>());
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity' and losses = 1").await;
    let client = &world.client;
    assert_eq!(client.renew(claimed[0].task_id, claimed[0].lease_token, None).await.unwrap(), Standing::Held);
    assert_eq!(client.renew(claimed[1].task_id, claimed[1].lease_token, None).await.unwrap(), Standing::Lost);
    asking.cancel();
}

#[sqlx::test(migrations = false)]
async fn a_lease_is_kept_until_its_result_is_accepted(db: PgPool) {
    let mut world = World::new(db).await;
    sqlx::raw_sql(
        "create table busy (yes boolean);
         insert into busy values (true);
         create function be_busy() returns trigger language plpgsql as $$
         begin
             if new.outcome = 'ok' and exists (select from busy) then
                 raise exception 'busy' using errcode = 'serialization_failure';
             end if;
             return new;
         end $$;
         create trigger be_busy before insert on workflow.attempts for each row execute function be_busy()",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let tool = crate::world::Tool::doubling();
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(tool.clone()));
    let mut work = Work::new(1);
    work.policy.lease = Duration::from_millis(3000);
    let run_id = world.start(OneWork(work)).await;
    tokio::time::sleep(Duration::from_millis(6200)).await; // Two leases long.
    sqlx::raw_sql("delete from busy").execute(&world.db).await.unwrap();
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(2));
    assert_eq!(tool.count(), 1);
}

/// Says how far it is a thousand times a second, and then nothing more.
#[sqlx::test(migrations = false)]
async fn a_stream_of_progress_is_written_now_and_then_and_its_end_is_kept(db: PgPool) {
    const UPDATES: u32 = 5_000;
    let mut world = World::new(db).await;
    sqlx::raw_sql(
        "create table progress_writes (at timestamptz not null);
         create function note_progress() returns trigger language plpgsql as
             $$ begin insert into progress_writes values (clock_timestamp()); return null; end $$;
         create trigger note_progress after update on workflow.tasks for each row
             when (old.progress is distinct from new.progress) execute function note_progress();",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let tool = Tool::new(|cx, _| async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(1));
        for done in 1..=UPDATES {
            ticks.tick().await;
            cx.heartbeat(Progress { done, total: UPDATES, ..Progress::default() })?;
        }
        Err(cx.ended().await)
    });
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(tool));
    let run_id = world.start(OneWork(Work::new(1))).await;
    world.until(1, "select count(*) from workflow.tasks where (progress ->> 'done')::int = 5000").await;
    let gaps: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from at - lag(at) over (order by at))::float8 from progress_writes order by at offset 1",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert!(!gaps.is_empty() && gaps.iter().all(|gap| *gap >= 1.9), "{gaps:?}");
    world.cancel(run_id).await;
    world.end(run_id).await;
    world.stop().await;
}

#[sqlx::test(migrations = false)]
async fn who_is_long_gone_is_forgotten(db: PgPool) {
    let mut world = World::new(db).await;
    sqlx::raw_sql(
        "insert into workflow.workers (name, started_at, seen_at, ended_at, jobs_freed)
             select 'gone', now(), now(), now() - age, true from unnest(array[interval '31 days', '2 hours', '1 minute']) age;
         insert into workflow.worker_offers (worker_id, queue, names, labels, slots) select id, 'work', '{}', '{}', 1 from workflow.workers;
         insert into workflow.remote_workers (name, queues, labels, seen_at)
             select 'node ' || age, '{work}', '{}', now() - age from unnest(array[interval '2 hours', '1 minute']) age;
         update workflow.last_sweep set partitions_at = now() - interval '2 minutes'",
    )
    .execute(&world.db)
    .await
    .unwrap();
    world.worker(|w| w.workflow::<OneWork>());
    world.until(2, "select count(*) from workflow.workers where name = 'gone'").await;
    // What it offers itself is there as well.
    world.until(1, "select count(*) from workflow.worker_offers where queue = 'work'").await;
    world.until(1, "select count(*) from workflow.remote_workers").await;
}

/// C16: what two hundred that report ten times a second cost the database.
#[sqlx::test(migrations = false)]
async fn two_hundred_that_tell_how_far_they_are_take_at_most_five_transactions_a_second(db: PgPool) {
    const COUNT: i64 = 200;
    let mut world = World::new(db).await;
    sqlx::raw_sql(
        "create table writes (at timestamptz not null, xid bigint not null, done int);
         create function note_write() returns trigger language plpgsql as
             $$ begin insert into writes values (clock_timestamp(), txid_current(), (new.progress ->> 'done')::int); return null; end $$;
         create trigger note_write after update on workflow.tasks for each row
             when (new.kind = 'activity' and new.state = 'leased' and old.state = 'leased') execute function note_write();",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let tool = Tool::new(|cx, _| async move {
        let mut ticks = tokio::time::interval(Duration::from_millis(100));
        for done in 1.. {
            tokio::select! {
                failure = cx.ended() => return Err(failure),
                _ = ticks.tick() => cx.heartbeat(Progress { done, total: 1_000, ..Progress::default() })?,
            }
        }
        Ok(0)
    });
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(tool).queue("work", COUNT as usize));
    let mut tx = world.db.begin().await.unwrap();
    let works = (0..COUNT).map(|_| OneWork(Work::new(1)));
    let runs = world.client.start_all(&mut tx, world.tenant, works).await.unwrap();
    tx.commit().await.unwrap();
    world.client.announce();
    world.until(COUNT, "select count(*) from workflow.tasks where kind = 'activity' and state = 'leased'").await;
    sqlx::raw_sql("delete from writes").execute(&world.db).await.unwrap();
    tokio::time::sleep(Duration::from_secs(8)).await;
    let (transactions, rows, seconds): (i64, i64, f64) = sqlx::query_as(
        "select count(distinct xid), count(*), extract(epoch from max(at) - min(at))::float8 from writes",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    // All of them are heard of, and more than once; also on a machine that does other things.
    assert!(rows >= 2 * COUNT && seconds > 3.0, "{rows} rows in {seconds} s");
    assert!(transactions as f64 <= 5.0 * seconds, "{transactions} transactions in {seconds} s");
    for run_id in runs {
        world.cancel(run_id).await;
    }
    world.stop().await;
}
