//! Starting, ending, looking.

use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{Context, Failure, Workflow, client::RunState};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;

#[derive(Serialize, Deserialize)]
struct Echo(String);

impl Workflow for Echo {
    const NAME: &'static str = "echo";
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        if self.0 == "panic" {
            panic!("asked to");
        }
        cx.step("say", async |_| Ok(self.0.clone())).await
    }
}

#[sqlx::test(migrations = false)]
async fn starting_twice_gives_one_run(db: PgPool) {
    let world = World::new(db).await;
    let mut tx = world.db.begin().await.unwrap();
    let first = world.client.start(&mut tx, world.tenant, Some("order 7"), Echo("a".into())).await.unwrap();
    let again = world.client.start(&mut tx, world.tenant, Some("order 7"), Echo("b".into())).await.unwrap();
    tx.commit().await.unwrap();
    assert!(first.started && !again.started);
    assert_eq!(first.run_id, again.run_id);
    assert_eq!(world.count("select count(*) from workflow.tasks").await, 1);
}

#[sqlx::test(migrations = false)]
async fn starting_at_the_same_time_gives_one_run(db: PgPool) {
    let world = World::new(db).await;
    let start = || async {
        let mut tx = world.db.begin().await.unwrap();
        let started = world.client.start(&mut tx, world.tenant, Some("order 7"), Echo("a".into())).await.unwrap();
        tx.commit().await.unwrap();
        started
    };
    let all = futures::future::join_all((0..8).map(|_| start())).await;
    assert_eq!(all.iter().filter(|s| s.started).count(), 1);
    assert!(all.iter().all(|s| s.run_id == all[0].run_id));
}

#[sqlx::test(migrations = false)]
async fn tenants_do_not_share_business_keys(db: PgPool) {
    let world = World::new(db).await;
    let mut tx = world.db.begin().await.unwrap();
    let ours = world.client.start(&mut tx, world.tenant, Some("order 7"), Echo("a".into())).await.unwrap();
    let theirs = world.client.start(&mut tx, uuid::Uuid::now_v7(), Some("order 7"), Echo("a".into())).await.unwrap();
    assert!(ours.started && theirs.started && ours.run_id != theirs.run_id);
}

#[sqlx::test(migrations = false)]
async fn start_rolls_back_with_the_caller(db: PgPool) {
    let world = World::new(db).await;
    let mut tx = world.db.begin().await.unwrap();
    let started = world.client.start(&mut tx, world.tenant, None, Echo("a".into())).await.unwrap();
    tx.rollback().await.unwrap();
    assert!(world.client.run(started.run_id).await.unwrap().is_none());
    assert_eq!(world.count("select count(*) from workflow.tasks").await, 0);
}

#[sqlx::test(migrations = false)]
async fn a_run_ends_with_its_output_and_leaves_the_queue(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Echo>());
    let run = world.finish(Echo("hello".into())).await;
    assert_eq!(run.output_as::<String>().as_deref(), Some("hello"));
    assert_eq!(world.count("select count(*) from workflow.tasks").await, 0);
    assert_eq!(world.count("select count(*) from workflow.attempts where outcome = 'ok'").await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_finished_run_and_its_record_cannot_be_changed(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Echo>());
    world.finish(Echo("hello".into())).await;
    for sql in [
        "update workflow.runs set state = 'running', finished_at = null, output = null",
        "update workflow.steps set output = '1'",
        "delete from workflow.steps",
        "update workflow.attempts set outcome = 'failed'",
        "delete from workflow.attempts",
    ] {
        assert!(sqlx::raw_sql(sql).execute(&world.db).await.is_err(), "{sql}");
    }
}

#[sqlx::test(migrations = false)]
async fn a_panicking_definition_fails_its_run_and_not_the_worker(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Echo>());
    let run = world.finish(Echo("panic".into())).await;
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(run.error.unwrap().code, "workflow.panicked");
    assert_eq!(world.finish(Echo("hello".into())).await.state, RunState::Succeeded);
}

#[sqlx::test(migrations = false)]
async fn progress_shows_what_runs_now(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    let task = world.activity(run_id, "work").await;
    assert_eq!((task.state.as_str(), task.queue.as_str(), task.attempt_no), ("ready", "work", 0));
    let leased = world.client.claim(&["work"], &Default::default(), "node-1", 10).await.unwrap();
    let progress = flatrender_engine::Progress { done: 3, total: 9, detail: serde_json::Value::Null };
    world.client.renew(leased[0].task_id, leased[0].lease_token, Some(&progress)).await.unwrap();
    let task = world.activity(run_id, "work").await;
    assert_eq!((task.leased_by.as_deref(), task.progress), (Some("node-1"), Some(progress)));
}

#[sqlx::test(migrations = false)]
async fn a_worker_leaves_alone_what_it_does_not_know(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>().handler::<Work>(Tool::doubling()));
    let unknown = world.start(Echo("later".into())).await;
    assert_eq!(world.finish(OneWork(Work::new(2))).await.output_as::<u32>(), Some(4));
    assert_eq!(world.count("select attempt_no::bigint from workflow.tasks").await, 0);
    world.worker(|w| w.workflow::<Echo>());
    assert_eq!(world.end(unknown).await.state, RunState::Succeeded);
}
