//! A plain apalis task function, behind tower layers, on a durable queue.
//! `DATABASE_URL=… cargo run -p flatrender-engine --example apalis_task` makes the schema `workflow` in that database if there
//! is none, enqueues five letters and sends them.

use apalis_core::{
    error::BoxDynError,
    task::{attempt::Attempt, task_fn::task_fn},
};
use flatrender_engine::{Activity, Client, JobOptions, Worker, schema};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;
use uuid::Uuid;

/// The arguments of a task, and the queue where it waits.
#[derive(Debug, Serialize, Deserialize)]
struct Letter {
    to: String,
}

impl Activity for Letter {
    const NAME: &'static str = "Letter";
    const QUEUE: &'static str = "letters";
    type Output = ();
}

/// A task function as apalis knows them: arguments first, then whatever it wants to be told.
async fn send(letter: Letter, attempt: Attempt) -> Result<(), BoxDynError> {
    println!("to {}, attempt {}", letter.to, attempt.current());
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), BoxDynError> {
    let db = PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    schema::install(&db).await?;
    let client = Client::new(db.clone());
    let mut tx = db.begin().await?;
    let letters = (1..=5).map(|n| Letter { to: format!("reader{n}@example.com") });
    client.enqueue_all(&mut tx, Uuid::nil(), letters, &JobOptions::default()).await?;
    tx.commit().await?;
    client.announce();

    let layered = ServiceBuilder::new().concurrency_limit(2).timeout(Duration::from_secs(5)).service(task_fn(send));
    let stop = CancellationToken::new();
    let worker = tokio::spawn(Worker::builder(db.clone()).service::<Letter, _>(layered).run(stop.clone()));
    let left = "select count(*) from workflow.jobs where queue = 'letters'";
    while sqlx::query_scalar::<_, i64>(left).fetch_one(&db).await? > 0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    worker.await??;
    Ok(())
}
