//! C9: one operation on many runs, frozen, resumable, with an outcome for each.

use crate::world::{Tool, Work, World};
use flatrender_engine::{
    Context, Failure, Policy, Workflow,
    client::RunState,
    operations::{Action, By, Filter, OperationError, Operations, Preview},
};
use serde::{Deserialize, Serialize};
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

#[derive(Debug, Serialize, Deserialize)]
struct Ride(u32);

impl Workflow for Ride {
    const NAME: &'static str = "ride";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let policy = Policy { max_failures: 1, ..Policy::default() };
        cx.activity("ride", Work { policy, ..Work::new(self.0) }).await
    }
}

/// Rides fail until the road is mended.
struct Road {
    world: World,
    operations: Operations,
    mended: Arc<AtomicBool>,
}

impl Road {
    async fn new(db: PgPool) -> Self {
        let world = World::new(db).await;
        let operations = Operations::new(world.client.clone());
        Self { world, operations, mended: Arc::default() }
    }

    fn worker(&mut self) {
        let mended = self.mended.clone();
        let tool = Tool::new(move |_, work| {
            let mended = mended.load(Ordering::SeqCst);
            async move { if mended { Ok(work.n) } else { Err(Failure::permanent("road.closed", "closed at km 7")) } }
        });
        self.world.worker(|w| w.workflow::<Ride>().handler::<Work>(tool));
    }

    async fn failed(&self, count: u32) -> Vec<Uuid> {
        let mut runs = Vec::new();
        for n in 0..count {
            runs.push(self.world.start(Ride(n)).await);
        }
        for run_id in &runs {
            assert_eq!(self.world.end(*run_id).await.state, RunState::Failed);
        }
        runs
    }

    async fn preview(&self, action: Action, filter: Filter, rate: Option<f64>) -> Preview {
        let mut tx = self.world.db.begin().await.unwrap();
        let preview = self.operations.preview(&mut tx, &by(), action, &filter, rate).await.unwrap();
        tx.commit().await.unwrap();
        preview
    }

    async fn begin(&self, bulk: &Preview) {
        let mut tx = self.world.db.begin().await.unwrap();
        self.operations.begin(&mut tx, &by(), bulk.id, bulk.total).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn finished(&self, id: Uuid) -> flatrender_engine::operations::Bulk {
        for _ in 0..3000 {
            let bulk = self.operations.bulk(id).await.unwrap().unwrap();
            if bulk.state == "finished" {
                return bulk;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never finished: {:#?}", self.operations.bulk(id).await);
    }
}

fn by() -> By {
    By::new("ada").because("the road is mended")
}

fn failed() -> Filter {
    Filter { kinds: vec!["ride".into()], states: vec![RunState::Failed], ..Filter::default() }
}

/// F25: what grows while it runs is not touched; a crash repeats nothing.
#[sqlx::test(migrations = false)]
async fn a_bulk_retry_does_exactly_its_frozen_set_though_its_worker_dies(db: PgPool) {
    let mut road = Road::new(db).await;
    road.worker();
    let runs = road.failed(25).await;
    let preview = road.preview(Action::Retry, failed(), None).await;
    assert_eq!((preview.total, preview.sample.len(), preview.counts.len()), (25, 20, 1));
    assert_eq!((preview.counts[0].n, preview.counts[0].state), (25, RunState::Failed));
    let late = road.failed(2).await;
    road.world.stop().await;
    road.mended.store(true, Ordering::SeqCst);
    road.begin(&preview).await;

    // A worker dies amid a batch: everything it did goes with it.
    let killed = sqlx::raw_sql(
        "create function dies() returns trigger language plpgsql as $$ begin
             if (select count(*) from workflow.run_lineage) >= 9 then perform pg_terminate_backend(pg_backend_pid()); end if;
             return new; end $$;
         create trigger dies after insert on workflow.run_lineage for each row execute function dies()",
    );
    killed.execute(&road.world.db).await.unwrap();
    assert!(road.operations.work_on_bulk().await.is_err());
    sqlx::raw_sql("drop trigger dies on workflow.run_lineage").execute(&road.world.db).await.unwrap();
    assert_eq!(road.world.count("select count(*) from workflow.run_lineage").await, 0);
    assert_eq!(road.operations.bulk(preview.id).await.unwrap().unwrap().next_n, 1);

    road.worker();
    let bulk = road.finished(preview.id).await;
    assert_eq!((bulk.done, bulk.skipped, bulk.conflicts, bulk.failed), (25, 0, 0, 0));
    let items = road.operations.items(preview.id, 1, 100).await.unwrap();
    assert_eq!(items.iter().map(|i| i.run_id).collect::<BTreeSet<_>>(), runs.into_iter().collect());
    for item in items {
        assert_eq!(road.world.end(item.result_run_id.unwrap()).await.state, RunState::Succeeded);
    }
    assert_eq!(road.world.count("select count(*) from workflow.run_lineage").await, 25);
    assert!(road.operations.lineage(late[0]).await.unwrap().1.is_empty());
    assert_eq!(road.world.count("select count(*) from workflow.audit where action = 'retry' and reason like 'the road is mended (operation %'").await, 25);
    // What was tried again is no dead letter any more.
    let letters = road.operations.dead_letters(&failed(), None, 100).await.unwrap();
    assert_eq!(letters.runs.iter().map(|r| r.id).collect::<BTreeSet<_>>(), late.into_iter().collect());
}

/// F26: each item has an outcome of its own.
#[sqlx::test(migrations = false)]
async fn an_item_in_conflict_or_moved_on_is_named_and_left_alone(db: PgPool) {
    let mut road = Road::new(db).await;
    road.worker();
    let runs = road.failed(3).await;
    let preview = road.preview(Action::Retry, failed(), None).await;
    road.mended.store(true, Ordering::SeqCst);
    let mut tx = road.world.db.begin().await.unwrap();
    road.operations.retry(&mut tx, &by(), runs[1], &Default::default()).await.unwrap();
    road.operations.purge(&mut tx, &by(), runs[2], true).await.unwrap();
    tx.commit().await.unwrap();
    road.begin(&preview).await;
    let bulk = road.finished(preview.id).await;
    assert_eq!((bulk.done, bulk.skipped, bulk.conflicts, bulk.failed), (1, 0, 1, 1));

    // The rest can be tried again; cancelling what is over is skipped.
    let mut tx = road.world.db.begin().await.unwrap();
    let rest = road.operations.preview_rest(&mut tx, &by(), preview.id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(rest.total, 2);
    let over = road.preview(Action::Cancel, failed(), None).await;
    road.begin(&over).await;
    assert_eq!(road.finished(over.id).await.skipped, over.total);
}

#[sqlx::test(migrations = false)]
async fn it_begins_only_when_the_number_is_confirmed_and_stops_when_told(db: PgPool) {
    let mut road = Road::new(db).await;
    road.worker();
    road.failed(5).await;
    road.world.stop().await;
    let preview = road.preview(Action::Retry, failed(), Some(1.0)).await;
    let mut tx = road.world.db.begin().await.unwrap();
    let wrong = road.operations.begin(&mut tx, &by(), preview.id, 4).await;
    assert!(matches!(wrong, Err(OperationError::Bad(_))), "{wrong:?}");
    road.operations.begin(&mut tx, &by(), preview.id, 5).await.unwrap();
    tx.commit().await.unwrap();

    // One a second, by the clock of the database.
    assert_eq!((road.operations.work_on_bulk().await.unwrap(), road.operations.work_on_bulk().await.unwrap()), (1, 0));
    road.world.move_clock(Duration::from_secs(1)).await;
    assert_eq!(road.operations.work_on_bulk().await.unwrap(), 1);
    let mut tx = road.world.db.begin().await.unwrap();
    road.operations.pause_bulk(&mut tx, &by(), preview.id).await.unwrap();
    tx.commit().await.unwrap();
    road.world.move_clock(Duration::from_secs(60)).await;
    assert_eq!(road.operations.work_on_bulk().await.unwrap(), 0);
    let mut tx = road.world.db.begin().await.unwrap();
    road.operations.begin(&mut tx, &by(), preview.id, 5).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(road.operations.work_on_bulk().await.unwrap(), 1);
    let mut tx = road.world.db.begin().await.unwrap();
    road.operations.abort_bulk(&mut tx, &by(), preview.id).await.unwrap();
    assert!(road.operations.begin(&mut tx, &by(), preview.id, 5).await.is_err());
    tx.commit().await.unwrap();
    let bulk = road.operations.bulk(preview.id).await.unwrap().unwrap();
    assert_eq!((bulk.state.as_str(), bulk.done, bulk.next_n), ("aborted", 3, 4));
    let actions = road.operations.audit_of(&format!("bulk:{}", preview.id), 10).await.unwrap();
    let actions: Vec<_> = actions.iter().rev().map(|a| a.action.as_str()).collect();
    assert_eq!(actions, ["bulk_preview", "bulk_begin", "bulk_pause", "bulk_begin", "bulk_abort"]);
}

#[sqlx::test(migrations = false)]
async fn a_live_set_is_cancelled_and_reprioritised(db: PgPool) {
    let mut road = Road::new(db).await;
    road.world.worker(|w| w.workflow::<Ride>());
    let mut runs = Vec::new();
    for n in 0..4 {
        runs.push(road.world.start(Ride(n)).await);
        road.world.activity(runs[n as usize], "ride").await;
    }
    let live = Filter { states: vec![RunState::Running], tenant: Some(road.world.tenant), ..Filter::default() };
    let first = road.preview(Action::SetPriority { priority: 7 }, live.clone(), None).await;
    road.begin(&first).await;
    assert_eq!(road.finished(first.id).await.done, 4);
    assert_eq!(road.world.count("select count(*) from workflow.tasks where priority = 7").await, 8);
    let second = road.preview(Action::Cancel, live, None).await;
    road.begin(&second).await;
    for run_id in runs {
        assert_eq!(road.world.end(run_id).await.state, RunState::Cancelled);
    }
}

#[sqlx::test(migrations = false)]
async fn causes_group_failures_and_evidence_shows_the_attempts(db: PgPool) {
    let mut road = Road::new(db).await;
    road.worker();
    let runs = road.failed(3).await;
    let causes = road.operations.causes(Some(road.world.tenant)).await.unwrap();
    assert_eq!((causes.len(), causes[0].runs, causes[0].tenants, causes[0].code.as_str()), (1, 3, 1, "road.closed"));
    let evidence = road.operations.evidence(runs[0]).await.unwrap();
    assert!(evidence.iter().any(|e| e.key == "ride" && e.outcome == "failed" && e.failure.is_some()), "{evidence:#?}");
}

/// The rule of all writers: locks of tasks are taken in the order of their ids.
#[sqlx::test(migrations = false)]
async fn an_operation_on_live_runs_and_a_worker_do_not_wait_for_each_other(db: PgPool) {
    let road = Road::new(db).await;
    for n in 0..2 {
        road.world.start(Ride(n)).await;
    }
    let tasks: Vec<i64> =
        sqlx::query_scalar("select id from workflow.tasks order by id").fetch_all(&road.world.db).await.unwrap();
    for action in [Action::SetPriority { priority: 3 }, Action::Cancel] {
        let live = Filter { states: vec![RunState::Running], ..Filter::default() };
        let preview = road.preview(action, live, None).await;
        road.begin(&preview).await;
        // A worker has written about the older run, and is about to write about the newer.
        let mut worker = road.world.db.begin().await.unwrap();
        let lock = "select from workflow.tasks where id = $1 for update";
        sqlx::query(lock).bind(tasks[0]).execute(&mut *worker).await.unwrap();
        let operations = road.operations.clone();
        let batch = tokio::spawn(async move { operations.work_on_bulk().await });
        let waits = "select count(*) from pg_locks where not granted and database = (select oid from pg_database where datname = current_database())
                     or not granted and locktype = 'transactionid'";
        for _ in 0..1000 {
            if road.world.count(waits).await > 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        sqlx::raw_sql("set local lock_timeout = '300ms'").execute(&mut *worker).await.unwrap();
        sqlx::query(lock)
            .bind(tasks[1])
            .execute(&mut *worker)
            .await
            .expect("the operation holds the newer and waits for the older");
        worker.commit().await.unwrap();
        assert_eq!(batch.await.unwrap().unwrap(), 2);
    }
}
