//! The verbs about workflows of three steps.

use crate::spread;
use anyhow::{Result, bail};
use flatrender_engine::{Client, Context, Failure, Worker, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Three trivial steps, each recorded before the next begins.
#[derive(Debug, Serialize, Deserialize)]
struct Three;

impl Workflow for Three {
    const NAME: &'static str = "three";
    type Output = u64;

    async fn run(self, cx: &Context) -> Result<u64, Failure> {
        let a: u64 = cx.memo("one", || async { Ok(1) }).await?;
        let b: u64 = cx.memo("two", || async move { Ok(a + 1) }).await?;
        cx.memo("three", || async move { Ok(b + 1) }).await
    }
}

pub async fn many(db: PgPool, n: u64, concurrent: usize) -> Result<Value> {
    let stop = CancellationToken::new();
    let worker = Worker::builder(db.clone()).workflow::<Three>().runs(concurrent).build();
    let client = worker.client();
    let worker = tokio::spawn(worker.run(stop.clone()));
    one(&client).await?;
    let began = Instant::now();
    let left = Arc::new(AtomicU64::new(n));
    let work = (0..concurrent).map(|_| {
        let (client, left) = (client.clone(), left.clone());
        tokio::spawn(async move {
            while left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1)).is_ok() {
                one(&client).await?;
            }
            anyhow::Ok(())
        })
    });
    for ended in futures::future::join_all(work).await {
        ended??;
    }
    let secs = began.elapsed().as_secs_f64();
    let durable: i64 =
        sqlx::query_scalar("select count(*) from workflow.runs where state = 'succeeded'").fetch_one(&db).await?;
    if durable < i64::try_from(n)? + 1 {
        bail!("{durable} of {n} workflows are recorded as succeeded");
    }
    stop.cancel();
    worker.await?.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(json!({ "n": n, "secs": secs, "steps_s": 3.0 * n as f64 / secs }))
}

pub async fn one_at_a_time(db: PgPool, n: u64) -> Result<Value> {
    let stop = CancellationToken::new();
    let worker = Worker::builder(db.clone()).workflow::<Three>().build();
    let client = worker.client();
    let worker = tokio::spawn(worker.run(stop.clone()));
    let mut times = Vec::new();
    for i in 0..n + 5 {
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..=80))).await;
        let began = Instant::now();
        one(&client).await?;
        if i >= 5 {
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    stop.cancel();
    worker.await?.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(spread(n, times))
}

/// Start to durable result.
async fn one(client: &Client) -> Result<()> {
    match client.launch(Uuid::nil(), Three).await?.outcome(Duration::from_secs(300)).await? {
        Some(Ok(3)) => Ok(()),
        other => bail!("a workflow ended as {other:?}"),
    }
}
