//! One job a key; starts that are debounced and throttled; jobs that are taken up again.

use crate::world::{Tool, Work, World};
use flatrender_engine::{
    Debounce, Enqueued, Excess, Failure, JobOptions, Policy, Scope, Throttle, Unique, Until,
    operations::{By, Operations, Revival},
};
use futures::future::join_all;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::{collections::HashSet, time::Duration};
use uuid::Uuid;

const OK: &str = "select count(*) from workflow.finished_jobs where outcome = 'ok'";
const LEFT: &str = "select count(*) from workflow.jobs";

async fn enqueue(world: &World, tenant: Uuid, n: u32, unique: &Unique) -> Enqueued {
    let options = JobOptions { unique: Some(unique.clone()), ..JobOptions::default() };
    let mut tx = world.db.begin().await.unwrap();
    let enqueued = world.client.enqueue(&mut tx, tenant, Work::new(n), &options).await.unwrap();
    tx.commit().await.unwrap();
    enqueued
}

// ------------------------------------------------------------------------------------------- unique keys

#[sqlx::test(migrations = false)]
async fn sixty_four_calls_at_once_make_one_job_and_all_are_told_which(db: PgPool) {
    let mut world = World::new(db).await;
    let options = (*world.db.connect_options()).clone();
    let many = PgPoolOptions::new().max_connections(64).connect_with(options).await.unwrap();
    world.db = many;
    for round in 0..3 {
        let unique = Unique::new(format!("round {round}"));
        let calls = (0..64).map(|n| enqueue(&world, world.tenant, n, &unique));
        let told = join_all(calls).await;
        let ids: HashSet<i64> = told.iter().map(|e| e.job_id).collect();
        assert_eq!((ids.len(), told.iter().filter(|e| e.new).count()), (1, 1));
        assert_eq!(world.count(LEFT).await, round + 1);
    }
}

#[sqlx::test(migrations = false)]
async fn a_key_is_taken_within_its_scope_alone(db: PgPool) {
    let world = World::new(db).await;
    let (one, other) = (Uuid::now_v7(), Uuid::now_v7());
    for (scope, shared) in
        [(Scope::Activity, false), (Scope::Queue, false), (Scope::Tenant, false), (Scope::Everywhere, true)]
    {
        let unique = Unique::new("k").within(scope);
        let first = enqueue(&world, one, 1, &unique).await;
        assert!(first.new, "{scope:?}");
        assert_eq!(enqueue(&world, one, 2, &unique).await, Enqueued { new: false, ..first });
        let elsewhere = enqueue(&world, other, 3, &unique).await;
        assert_eq!(elsewhere.new, !shared, "{scope:?}");
    }
    let refused = Unique::new("x".repeat(201));
    let options = JobOptions { unique: Some(refused), ..JobOptions::default() };
    let mut tx = world.db.begin().await.unwrap();
    assert!(world.client.enqueue(&mut tx, one, Work::new(1), &options).await.is_err());
}

/// What happens around one key.
#[derive(Debug, Clone, Copy)]
enum Deed {
    Enqueue(Until),
    Claim,
    /// Ends what was claimed first: 0 well, 1 failed for good, 2 cancelled, 3 to be tried again.
    End(u8),
    /// So many seconds go by.
    Wait(u8),
}

fn deeds() -> impl Strategy<Value = Vec<Deed>> {
    let until = prop_oneof![
        Just(Until::Claimed),
        Just(Until::Ended),
        (any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(ok, failed, cancelled)| Until::After {
            window: Duration::from_secs(60),
            ok,
            failed,
            cancelled
        }),
    ];
    let deed = prop_oneof![
        4 => until.prop_map(Deed::Enqueue),
        3 => Just(Deed::Claim),
        3 => (0u8..4).prop_map(Deed::End),
        1 => (0u8..80).prop_map(Deed::Wait),
    ];
    prop::collection::vec(deed, 1..25)
}

/// A job as it should be.
#[derive(Debug)]
struct Model {
    id: i64,
    until: Until,
    /// Ready, or claimed.
    claimed: Option<bool>,
    ever_claimed: bool,
    /// Until when it keeps its key after its end.
    kept_until: f64,
}

impl Model {
    fn holds(&self, now: f64) -> bool {
        match self.claimed {
            Some(_) => self.until != Until::Claimed || !self.ever_claimed,
            None => now < self.kept_until,
        }
    }
}

async fn end(world: &World, id: i64, how: u8) {
    let outcome = ["ok", "failed", "cancelled", "released"][how as usize % 4];
    let sql = match how {
        0 => "select workflow.pump_jobs(1, array[$1], array[$2], array[null::jsonb], '[]', '[]', $2, '{}'), $3",
        _ => {
            "select workflow.pump_jobs(1, '{}', '{}', '{}',
                jsonb_build_array(jsonb_build_object('id', $1, 'token', $2, 'outcome', $3)), '[]', $2, '{}')"
        }
    };
    sqlx::query(sql).bind(id).bind(Uuid::nil()).bind(outcome).execute(&world.db).await.unwrap();
}

async fn claim(world: &World) -> Option<i64> {
    sqlx::query_scalar(
        "select id from workflow.pump_jobs(1, '{}', '{}', '{}', '[]',
            '[{\"queue\": \"work\", \"want\": 1, \"names\": [\"Work\"]}]', $1, '{}')",
    )
    .bind(Uuid::nil())
    .fetch_optional(&world.db)
    .await
    .unwrap()
}

async fn incarnation(world: &World) {
    sqlx::raw_sql(
        "insert into workflow.workers (name, started_at, seen_at) values ('t', workflow.now(), workflow.now())",
    )
    .execute(&world.db)
    .await
    .unwrap();
}

#[sqlx::test(migrations = false)]
async fn whoever_has_the_key_is_found_whatever_states_hold_it(db: PgPool) {
    let world = World::new(db).await;
    incarnation(&world).await;
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &[7; 32]);
    let mut runner = TestRunner::new_with_rng(Config::default(), rng);
    let mut refused = 0;
    for case in 0..60 {
        let deeds = deeds().new_tree(&mut runner).unwrap().current();
        sqlx::raw_sql("delete from workflow.jobs; delete from workflow.finished_jobs")
            .execute(&world.db)
            .await
            .unwrap();
        let (mut jobs, mut now) = (Vec::<Model>::new(), 0.0);
        for deed in &deeds {
            match *deed {
                Deed::Enqueue(until) => {
                    let unique = Unique::new("k").until(until);
                    let told = enqueue(&world, world.tenant, case, &unique).await;
                    match jobs.iter().find(|job| job.holds(now)) {
                        Some(holder) => {
                            refused += 1;
                            assert_eq!(told, Enqueued { job_id: holder.id, new: false }, "{deeds:?}\n{jobs:?}");
                        }
                        None => {
                            assert!(told.new && jobs.iter().all(|job| job.id != told.job_id), "{deeds:?}\n{jobs:?}");
                            let id = told.job_id;
                            jobs.push(Model { id, until, claimed: Some(false), ever_claimed: false, kept_until: 0.0 });
                        }
                    }
                    assert!(jobs.iter().filter(|job| job.holds(now)).count() == 1);
                }
                Deed::Claim => {
                    let claimed = claim(&world).await;
                    let ready = jobs.iter_mut().find(|job| job.claimed == Some(false) && Some(job.id) == claimed);
                    match ready {
                        Some(job) => (job.claimed, job.ever_claimed) = (Some(true), true),
                        None => assert!(claimed.is_none() && jobs.iter().all(|job| job.claimed != Some(false))),
                    }
                }
                Deed::End(how) => {
                    let Some(job) = jobs.iter_mut().find(|job| job.claimed == Some(true)) else { continue };
                    end(&world, job.id, how).await;
                    job.claimed = (how == 3).then_some(false);
                    if let Until::After { window, ok, failed, cancelled } = job.until
                        && [ok, failed, cancelled, false][how as usize]
                    {
                        job.kept_until = now + window.as_secs_f64();
                    }
                }
                Deed::Wait(seconds) => {
                    // Never to the very end of a window: the real clock goes on meanwhile.
                    let seconds = f64::from(seconds) + 0.5;
                    world.move_clock(Duration::from_secs_f64(seconds)).await;
                    now += seconds;
                }
            }
        }
    }
    assert!(refused > 50, "{refused} calls met a key that was taken");
}

#[sqlx::test(migrations = false)]
async fn a_key_that_is_kept_after_the_end_is_never_free_in_between(db: PgPool) {
    let mut world = World::new(db).await;
    let kept = Until::After { window: Duration::from_secs(600), ok: true, failed: true, cancelled: true };
    let unique = Unique::new("k").until(kept);
    world.worker(|w| w.handler::<Work>(Tool::doubling()));
    // While the job is claimed, done and gone, everybody who asks is told its id.
    let first = enqueue(&world, world.tenant, 0, &unique).await;
    world.client.announce();
    for n in 1..200 {
        let told = enqueue(&world, world.tenant, n, &unique).await;
        assert_eq!(told, Enqueued { new: false, ..first });
        world.client.announce();
    }
    world.until(1, OK).await;
    assert_eq!(world.count(LEFT).await, 0);
    world.move_clock(Duration::from_secs(700)).await;
    assert!(enqueue(&world, world.tenant, 0, &unique).await.new);
}

#[sqlx::test(migrations = false)]
async fn a_dead_job_comes_back_under_its_id_unless_another_has_its_key(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|cx, work| async move {
        match cx.task().attempt_no {
            1 => Err(Failure::permanent("test.no", "not today")),
            _ => Ok(work.n),
        }
    });
    let stop = world.worker(|w| w.handler::<Work>(tool.clone()));
    let dead = [
        enqueue(&world, world.tenant, 1, &Unique::new("a")).await.job_id,
        enqueue(&world, world.tenant, 2, &Unique::new("b")).await.job_id,
    ];
    world.client.announce();
    world.until(2, "select count(*) from workflow.finished_jobs where outcome = 'failed'").await;
    stop.cancel();
    world.stop().await;
    let newer = enqueue(&world, world.tenant, 3, &Unique::new("b")).await;
    assert!(newer.new);
    let operations = Operations::new(world.client.clone());
    let by = By::new("ada");
    let retry = async |ids: &[i64]| {
        let mut tx = world.db.begin().await.unwrap();
        let outcomes = operations.retry_jobs(&mut tx, &by, ids).await.unwrap();
        tx.commit().await.unwrap();
        outcomes.into_iter().map(|(_, outcome)| outcome).collect::<Vec<_>>()
    };
    use Revival::{Conflict, Done, Moved, NotFound};
    assert_eq!(retry(&[dead[0], dead[1], 999, newer.job_id, dead[0]]).await, [Done, Conflict, NotFound, Moved, Moved]);
    // The one that came back has its key again.
    assert_eq!(enqueue(&world, world.tenant, 4, &Unique::new("a")).await, Enqueued { job_id: dead[0], new: false });
    let audit = operations.audit_of(&format!("job:{}", dead[0]), 5).await.unwrap();
    assert_eq!((audit.len(), audit[0].action.as_str()), (1, "retry_job"));
    let tool = Tool::doubling();
    world.worker(|w| w.handler::<Work>(tool.clone()));
    world.until(2, OK).await;
    assert_eq!(
        world.count("select attempt_no::bigint from workflow.finished_jobs where outcome = 'ok' and revived").await,
        2
    );
    let operations = Operations::new(world.client.clone());
    let mut tx = world.db.begin().await.unwrap();
    let outcomes = operations.retry_jobs(&mut tx, &by, &dead).await.unwrap();
    assert_eq!(outcomes, [(dead[0], Moved), (dead[1], Done)]);
}

/// Two who take up the same job: the second waits for the first to commit, and by then the job may have gone well.
#[sqlx::test(migrations = false)]
async fn a_dead_job_that_has_gone_well_meanwhile_does_not_come_back(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|_, _| async { Err(Failure::permanent("test.no", "never")) });
    world.worker(|w| w.handler::<Work>(tool));
    let id = enqueue(&world, world.tenant, 1, &Unique::new("a")).await.job_id;
    world.client.announce();
    world.until(1, "select count(*) from workflow.finished_jobs where outcome = 'failed'").await;
    world.stop().await;
    sqlx::raw_sql(
        "create function meanwhile() returns trigger language plpgsql as $$ begin
             insert into workflow.finished_jobs (id, tenant_id, queue, activity, input, run_at, attempt_no, outcome, finished_at, revived)
             values (new.id, new.tenant_id, new.queue, new.activity, new.input, new.run_at, 2, 'ok', clock_timestamp(), true);
             return new;
         end $$;
         create trigger meanwhile before insert on workflow.jobs for each row execute function meanwhile()",
    )
    .execute(&world.db)
    .await
    .unwrap();
    let mut tx = world.db.begin().await.unwrap();
    let outcomes = Operations::new(world.client.clone()).retry_jobs(&mut tx, &By::new("ada"), &[id]).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(outcomes, [(id, Revival::Moved)]);
    assert_eq!(world.count(LEFT).await, 0);
}

#[sqlx::test(migrations = false)]
async fn a_job_that_comes_back_is_as_it_was(db: PgPool) {
    let mut world = World::new(db).await;
    let tool = Tool::new(|_, _| async { Err(Failure::permanent("test.no", "never")) });
    world.worker(|w| w.handler::<Work>(tool));
    let mut work = Work { limit_key: Some("shop 7".into()), ..Work::new(1) };
    work.policy = Policy { max_failures: 9, ..work.policy };
    let options = JobOptions { priority: 5, ..JobOptions::default() };
    let mut tx = world.db.begin().await.unwrap();
    let id = world.client.enqueue(&mut tx, world.tenant, work, &options).await.unwrap().job_id;
    tx.commit().await.unwrap();
    world.client.announce();
    world.until(1, "select count(*) from workflow.finished_jobs where outcome = 'failed'").await;
    world.stop().await;
    let mut tx = world.db.begin().await.unwrap();
    Operations::new(world.client.clone()).retry_jobs(&mut tx, &By::new("ada"), &[id]).await.unwrap();
    tx.commit().await.unwrap();
    let same = "select count(*) from workflow.jobs
        where priority = 5 and limit_key = 'shop 7' and policy ->> 'max_failures' = '9' and failures = 0 and input ->> 'n' = '1'";
    assert_eq!(world.count(same).await, 1);
}

// ------------------------------------------------------------------------------------------- debounce

async fn debounce(world: &World, n: u32, debounce: &Debounce) -> Enqueued {
    let mut tx = world.db.begin().await.unwrap();
    let enqueued = world.client.debounce(&mut tx, world.tenant, Work::new(n), debounce).await.unwrap();
    tx.commit().await.unwrap();
    enqueued
}

#[sqlx::test(migrations = false)]
async fn a_hundred_events_in_a_second_make_one_job_with_the_last_of_them(db: PgPool) {
    let mut world = World::new(db).await;
    incarnation(&world).await;
    let wait = Debounce { key: "k".into(), wait: Duration::from_secs(5), max_wait: Duration::from_secs(60) };
    for n in 0..100 {
        assert_eq!(debounce(&world, n, &wait).await.new, n == 0);
        world.move_clock(Duration::from_millis(10)).await;
    }
    assert_eq!((world.count(LEFT).await, claim(&world).await), (1, None));
    world.move_clock(Duration::from_secs(5)).await;
    world.worker(|w| w.handler::<Work>(Tool::doubling()));
    world.until(1, OK).await;
    assert_eq!(world.count("select (input ->> 'n')::bigint from workflow.finished_jobs").await, 99);
    assert!(debounce(&world, 100, &wait).await.new);
}

#[sqlx::test(migrations = false)]
async fn events_that_never_cease_put_a_job_off_no_longer_than_they_may(db: PgPool) {
    let world = World::new(db).await;
    incarnation(&world).await;
    let wait = Debounce { key: "k".into(), wait: Duration::from_secs(10), max_wait: Duration::from_secs(30) };
    for n in 0..4 {
        assert_eq!(claim(&world).await, None, "{n}");
        debounce(&world, n, &wait).await;
        world.move_clock(Duration::from_secs(9)).await;
    }
    // 36 seconds after the first; the fourth came at 27.
    let id = claim(&world).await.expect("put off for too long");
    // What comes now is for the next.
    let next = debounce(&world, 9, &wait).await;
    assert!(next.new && next.job_id != id);
    assert_eq!(world.count("select (input ->> 'n')::bigint from workflow.jobs where worker_id is not null").await, 3);
}

#[sqlx::test(migrations = false)]
async fn events_of_many_processes_at_once_make_one_job(db: PgPool) {
    let world = World::new(db).await;
    let wait = Debounce { key: "k".into(), wait: Duration::from_secs(5), max_wait: Duration::from_secs(60) };
    let told = join_all((0..40).map(|n| debounce(&world, n, &wait))).await;
    assert_eq!(told.iter().filter(|e| e.new).count(), 1);
    assert_eq!(world.count(LEFT).await, 1);
}

// ------------------------------------------------------------------------------------------- throttle

async fn throttled(world: &World, n: u32, throttle: &Throttle) -> bool {
    let mut tx = world.db.begin().await.unwrap();
    let options = JobOptions::default();
    let started =
        world.client.enqueue_throttled(&mut tx, world.tenant, Work::new(n), throttle, &options).await.unwrap();
    tx.commit().await.unwrap();
    started.is_some()
}

#[sqlx::test(migrations = false)]
async fn no_window_sees_more_starts_than_its_throttle_and_the_rest_is_dropped(db: PgPool) {
    let world = World::new(db).await;
    let throttle = Throttle { key: "k".into(), n: 5, per: Duration::from_secs(60), excess: Excess::Dropped };
    let started = join_all((0..30).map(|n| throttled(&world, n, &throttle))).await;
    assert_eq!(started.iter().filter(|s| **s).count(), 5);
    assert_eq!(world.count(LEFT).await, 5);
    world.move_clock(Duration::from_secs(50)).await;
    assert!(!throttled(&world, 0, &throttle).await);
    world.move_clock(Duration::from_secs(12)).await;
    let started = join_all((0..30).map(|n| throttled(&world, n, &throttle))).await;
    assert_eq!(started.iter().filter(|s| **s).count(), 5);
    // A start that is rolled back has not taken place.
    world.move_clock(Duration::from_secs(100)).await;
    for _ in 0..10 {
        let mut tx = world.db.begin().await.unwrap();
        assert!(world.client.throttle(&mut tx, world.tenant, &throttle).await.unwrap().is_some());
        tx.rollback().await.unwrap();
    }
}

#[sqlx::test(migrations = false)]
async fn deferred_starts_take_the_next_place_that_is_free(db: PgPool) {
    let world = World::new(db).await;
    let throttle = Throttle { key: "k".into(), n: 3, per: Duration::from_secs(60), excess: Excess::Deferred };
    let started = join_all((0..20).map(|n| throttled(&world, n, &throttle))).await;
    assert!(started.iter().all(|s| *s));
    let worst = "select max(n) from (
        select count(*) over (order by run_at range between current row and '59.999999 s' following) as n from workflow.jobs) w";
    assert_eq!(world.count(worst).await, 3);
    let last = "select round(extract(epoch from max(run_at) - min(run_at)))::bigint from workflow.jobs";
    assert_eq!(world.count(last).await, 360);
}
