//! Round trips of workers, by the function of the database that they call.

use crate::world::{OneWork, Work, World};
use flatrender_engine::Labels;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use uuid::Uuid;

/// A run that the test works on.
struct Held {
    run_id: Uuid,
    task_id: i64,
    token: Uuid,
}

impl Held {
    async fn start(world: &World) -> Self {
        let run_id = world.start(OneWork(Work::new(1))).await;
        let lease = "update workflow.tasks
                     set state = 'leased', lease_token = gen_random_uuid(), leased_by = 'test', attempt_no = 1,
                         leased_at = workflow.now(), lease_expires_at = workflow.now() + interval '30 s'
                     where run_id = $1 returning id, lease_token";
        let (task_id, token) = sqlx::query_as(lease).bind(run_id).fetch_one(&world.db).await.unwrap();
        Self { run_id, task_id, token }
    }

    /// Asks for an activity.
    fn request(&self, key: &str) -> Value {
        json!({ "op": "request", "task_id": self.task_id, "token": self.token, "key": key, "queue": "work", "activity": "Work",
            "input": Work::new(1), "max_failures": 1, "max_losses": 1, "backoff_base": 0, "backoff_cap": 0, "lease": 30,
            "start_to_close": 3600 })
    }

    /// Starts a child.
    fn child(&self, key: &str) -> Value {
        json!({ "op": "child", "task_id": self.task_id, "token": self.token, "key": key, "kind": "one_work", "version": 1,
            "activity": "one_work.v1", "queue": "workflows", "priority": 0, "max_losses": 10, "input": Work::new(1) })
    }

    fn timer(&self, key: &str) -> Value {
        json!({ "op": "timer", "task_id": self.task_id, "token": self.token, "key": key, "outcome": "ok" })
    }

    fn park(&self) -> Value {
        json!({ "op": "park", "task_id": self.task_id, "token": self.token, "seq": 0 })
    }
}

async fn advance(world: &World, ops: &[Value]) {
    let trip = "select * from workflow.pump(null, 'test', '[]', $1, '[]', '{}')";
    sqlx::query(trip).bind(Value::from(ops)).execute(&world.db).await.unwrap();
}

/// Pages of tables and indexes that a round trip looks at.
async fn pages(db: &mut PgConnection, attempts: &[Value], ops: &[Value]) -> i64 {
    let (attempts, ops) = (Value::from(attempts), Value::from(ops));
    let trip = format!(
        "explain (analyze, buffers, format json) select * from workflow.pump(null, 'test', '{attempts}', '{ops}', '[]', '{{}}')"
    );
    let plan: Value = sqlx::query_scalar(AssertSqlSafe(trip)).fetch_one(db).await.unwrap();
    ["Shared Hit Blocks", "Shared Read Blocks"].iter().map(|kind| plan[0]["Plan"][kind].as_i64().unwrap()).sum()
}

#[sqlx::test(migrations = false)]
async fn what_starting_children_looks_at_does_not_grow_with_the_runs_there_are(db: PgPool) {
    let world = World::new(db).await;
    let mut seen = Vec::new();
    for others in [1, 3_000] {
        let parent = Held::start(&world).await;
        let plant = "insert into workflow.runs (id, tenant_id, kind, version, state, input, created_at, finished_at, parent_run_id, parent_key, root_run_id)
                     select workflow.new_run_id(now()), $1, 'tree', 1, 'succeeded', '[]', now(), now(), $1, 'child ' || n, $1
                     from generate_series(1, $2) n";
        sqlx::query(plant).bind(parent.run_id).bind(others).execute(&world.db).await.unwrap();
        sqlx::raw_sql("analyze workflow.runs").execute(&world.db).await.unwrap();
        let children: Vec<Value> = (0..50).map(|n| parent.child(&format!("leaf {n}"))).collect();
        seen.push(pages(&mut world.db.acquire().await.unwrap(), &[], &children).await);
    }
    assert_eq!(world.count("select count(*) from workflow.tasks where parent_run_id is not null").await, 100);
    assert!(seen[1] < 2 * seen[0], "{seen:?} pages");
}

/// What workers ask for all day: activities that end, others that are asked for, timers, children, and a run that goes to sleep.
async fn a_day(world: &World, db: &mut PgConnection) -> i64 {
    let run = Held::start(world).await;
    let asked: Vec<Value> = (0..8).map(|n| run.request(&format!("work {n}"))).collect();
    let mut seen = pages(db, &[], &asked).await;
    let done = world.client.claim(&["work"], &Labels::new(), "node", 8).await.unwrap();
    let done: Vec<Value> = done
        .iter()
        .map(|task| json!({ "task_id": task.task_id, "token": task.lease_token, "outcome": "ok", "output": 2 }))
        .collect();
    assert_eq!(done.len(), 8);
    seen += pages(db, &done, &[]).await;
    seen += pages(db, &[], &[run.timer("nap"), run.child("child"), run.request("more"), run.park()]).await;
    sqlx::query("delete from workflow.tasks where state = 'ready'").execute(&mut *db).await.unwrap();
    seen
}

#[sqlx::test(migrations = false)]
async fn a_round_trip_looks_at_what_it_is_about_however_short_the_queue_was_when_its_plan_was_made(db: PgPool) {
    let world = World::new(db).await;
    let mut session = world.db.acquire().await.unwrap();
    a_day(&world, &mut session).await;
    let few = a_day(&world, &mut session).await;
    let plant = "with run as (
                     insert into workflow.tasks (kind, run_id, tenant_id, step_key, queue, activity, input, run_at, state, max_failures,
                         max_losses, backoff_base_seconds, backoff_cap_seconds, lease_seconds, start_to_close_seconds)
                     select k.kind, r.id, $1, k.key, k.queue, 'any', 'null', 'tomorrow', 'waiting', 1, 1, 0, 0, 30, 60
                     from (select workflow.new_run_id(now()) as id from generate_series(1, 3000)) r,
                          (values ('run', '', 'workflows'), ('activity', 'work', 'work')) k (kind, key, queue)
                     returning run_id, kind)
                 insert into workflow.steps (run_id, seq, tenant_id, key, kind, outcome, recorded_at)
                 select run_id, 1, $1, 'before', 'step', 'ok', now() from run where kind = 'run'";
    sqlx::query(plant).bind(world.tenant).execute(&world.db).await.unwrap();
    // What a session knows of tables is forgotten whenever others of the server make and drop many, and then read anew.
    let mut many = i64::MAX;
    for _ in 0..4 {
        many = many.min(a_day(&world, &mut session).await);
    }
    assert!(many < 2 * few, "{few} pages, beside 6000 tasks {many}");
}

#[sqlx::test(migrations = false)]
async fn ends_of_attempts_look_at_as_much_each_however_many_come_together(db: PgPool) {
    let world = World::new(db).await;
    let mut session = world.db.acquire().await.unwrap();
    let mut seen = Vec::new();
    for many in [40, 40, 400] {
        let run = Held::start(&world).await;
        advance(&world, &(0..many).map(|n| run.request(&format!("work {n}"))).collect::<Vec<_>>()).await;
        let lease = "update workflow.tasks
                     set state = 'leased', lease_token = gen_random_uuid(), leased_by = 'node', attempt_no = 1,
                         leased_at = workflow.now(), lease_expires_at = workflow.now() + interval '30 s'
                     where run_id = $1 and kind = 'activity' returning id, lease_token";
        let leased: Vec<(i64, Uuid)> = sqlx::query_as(lease).bind(run.run_id).fetch_all(&world.db).await.unwrap();
        let done: Vec<Value> = leased
            .iter()
            .map(|(task_id, token)| json!({ "task_id": task_id, "token": token, "outcome": "ok", "output": 2 }))
            .collect();
        seen.push(pages(&mut session, &done, &[]).await);
    }
    // Ten times as many, and what is looked up about tables for the first time.
    assert!(seen[2] < 40 * seen[1], "{seen:?} pages");
}

#[sqlx::test(migrations = false)]
async fn what_is_worked_on_when_its_run_is_cancelled_says_itself_what_came_of_it_however_often_it_is_asked_for(
    db: PgPool,
) {
    let world = World::new(db).await;
    let run = Held::start(&world).await;
    let asked = [run.request("work"), run.child("child")];
    advance(&world, &asked).await;
    let task = world.client.claim(&["work"], &Labels::new(), "node", 1).await.unwrap().remove(0);
    assert!(world.cancel(run.run_id).await);
    // Because the answer was lost.
    advance(&world, &asked).await;
    assert_eq!(world.history(run.run_id).await, "cancel    $cancel  ok");
    world.client.complete(task.task_id, task.lease_token, &2).await.unwrap();
    insta::assert_snapshot!(world.history(run.run_id).await, @r"
    cancel    $cancel  ok
    activity  work     ok
    ");
    // What was not asked for before is not begun.
    advance(&world, &[run.request("more"), run.child("another")]).await;
    insta::assert_snapshot!(world.history(run.run_id).await, @r"
    cancel    $cancel  ok
    activity  work     ok
    activity  more     workflow.cancelled
    child     another  workflow.cancelled
    ");
    assert_eq!(
        world.count("select count(*) from workflow.tasks where step_key = 'more' or parent_key = 'another'").await,
        0
    );
}
