//! Plain apalis task functions and tower layers on the engine's queues.

use crate::world::{Work, World};
use apalis_core::{
    error::{AbortError, BoxDynError},
    task::{attempt::Attempt as TaskAttempt, data::Data, task_fn::task_fn, task_id::TaskId},
};
use flatrender_engine::{Attempt, Context, Failure, JobOptions, Progress, Workflow};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tower::ServiceBuilder;

/// Asks for one activity and gives its result.
#[derive(Serialize, Deserialize)]
struct Ask(Work);

impl Workflow for Ask {
    const NAME: &'static str = "ask";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.activity("work", self.0).await
    }
}

/// As somebody would write it for any apalis backend.
async fn double(work: Work) -> Result<u32, BoxDynError> {
    Ok(work.n * 2)
}

#[sqlx::test(migrations = false)]
async fn a_plain_task_function_does_an_activity(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Ask>().service::<Work, _>(task_fn(double)));
    let run = world.finish(Ask(Work::new(21))).await;
    assert_eq!(run.output_as::<u32>(), Some(42));
    world.stop().await;
}

#[sqlx::test(migrations = false)]
async fn a_task_function_is_told_its_attempt_and_may_report(db: PgPool) {
    let mut world = World::new(db).await;
    let told = async |work: Work, id: TaskId, attempt: TaskAttempt, cx: Data<Attempt>| {
        cx.heartbeat(Progress { done: 1, total: 2, ..Progress::default() })?;
        assert_eq!(id.to_string(), cx.task().task_id.to_string());
        if attempt.current() < 3 { Err(BoxDynError::from("not yet")) } else { Ok(work.n + 100) }
    };
    world.worker(|w| w.workflow::<Ask>().service::<Work, _>(task_fn(told)));
    let run = world.finish(Ask(Work::new(1))).await;
    assert_eq!(run.output_as::<u32>(), Some(101));
    world.stop().await;
}

#[sqlx::test(migrations = false)]
async fn an_abort_error_is_for_good(db: PgPool) {
    let mut world = World::new(db).await;
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = calls.clone();
    let refuse = move |_: Work| {
        counted.fetch_add(1, Ordering::Relaxed);
        async { Err::<u32, BoxDynError>(Box::new(AbortError::new("no such account"))) }
    };
    world.worker(|w| w.workflow::<Ask>().service::<Work, _>(task_fn(refuse)));
    let run = world.finish(Ask(Work::new(1))).await;
    assert_eq!(run.error.unwrap().code, "service.aborted");
    assert_eq!(calls.load(Ordering::Relaxed), 1);
    world.stop().await;
}

#[sqlx::test(migrations = false)]
async fn tower_layers_stand_around_a_task_function(db: PgPool) {
    let mut world = World::new(db).await;
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (counter, highest) = (now.clone(), most.clone());
    let busy = move |work: Work| {
        let (counter, highest) = (counter.clone(), highest.clone());
        async move {
            highest.fetch_max(counter.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            tokio::time::sleep(Duration::from_millis(20)).await;
            counter.fetch_sub(1, Ordering::SeqCst);
            Ok::<u32, BoxDynError>(work.n)
        }
    };
    let layered = ServiceBuilder::new().concurrency_limit(2).timeout(Duration::from_secs(10)).service(task_fn(busy));
    world.worker(|w| w.queue("work", 10).service::<Work, _>(layered));
    let mut tx = world.db.begin().await.unwrap();
    let jobs = (0..10).map(Work::new);
    world.client.enqueue_all(&mut tx, world.tenant, jobs, &JobOptions::default()).await.unwrap();
    tx.commit().await.unwrap();
    world.client.announce();
    let left = "select count(*) from workflow.jobs";
    while sqlx::query_scalar::<_, i64>(left).fetch_one(&world.db).await.unwrap() > 0 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(most.load(Ordering::SeqCst), 2, "the layer is shared by all tasks of the queue");
    world.stop().await;
}

#[sqlx::test(migrations = false)]
async fn a_timeout_layer_fails_the_attempt_only(db: PgPool) {
    let mut world = World::new(db).await;
    let slow_once = async |work: Work, attempt: TaskAttempt| {
        if attempt.current() == 1 {
            std::future::pending::<()>().await;
        }
        Ok::<u32, BoxDynError>(work.n)
    };
    let layered = ServiceBuilder::new().timeout(Duration::from_millis(50)).service(task_fn(slow_once));
    world.worker(|w| w.workflow::<Ask>().service::<Work, _>(layered));
    let run = world.finish(Ask(Work::new(5))).await;
    assert_eq!(run.output_as::<u32>(), Some(5));
    world.stop().await;
}
