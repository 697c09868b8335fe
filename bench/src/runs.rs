//! The verbs about workflows of three steps.

use anyhow::{Result, bail};
use flatrender_engine::{Client, Context, Failure, Worker, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::{Duration, Instant};
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
    let (client, stop) = (Client::new(db.clone()), CancellationToken::new());
    let worker = tokio::spawn(Worker::builder(db.clone()).workflow::<Three>().runs(concurrent).run(stop.clone()));
    finish(&db, &client, start(&db, &client, 1).await?).await?;
    let began = Instant::now();
    let mut left = n;
    let mut last = Vec::new();
    while left > 0 {
        let batch = left.min(1000);
        last = start(&db, &client, batch).await?;
        left -= batch;
    }
    finish(&db, &client, last).await?;
    let running = "select exists (select from workflow.tasks where kind = 'run')";
    while sqlx::query_scalar::<_, bool>(running).fetch_one(&db).await? {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let secs = began.elapsed().as_secs_f64();
    let failed: i64 =
        sqlx::query_scalar("select count(*) from workflow.runs where state <> 'succeeded'").fetch_one(&db).await?;
    if failed > 0 {
        bail!("{failed} workflows did not succeed");
    }
    stop.cancel();
    worker.await?.map_err(|error| anyhow::anyhow!("{error}"))?;
    Ok(json!({ "n": n, "secs": secs, "steps_s": 3.0 * n as f64 / secs }))
}

pub async fn one_at_a_time(db: PgPool, n: u64) -> Result<Value> {
    let (client, stop) = (Client::new(db.clone()), CancellationToken::new());
    let worker = tokio::spawn(Worker::builder(db.clone()).workflow::<Three>().run(stop.clone()));
    let mut times = Vec::new();
    for i in 0..n + 5 {
        tokio::time::sleep(Duration::from_millis(rand::random_range(20..=80))).await;
        let began = Instant::now();
        let runs = start(&db, &client, 1).await?;
        finish(&db, &client, runs).await?;
        if i >= 5 {
            times.push(began.elapsed().as_secs_f64() * 1000.0);
        }
    }
    stop.cancel();
    worker.await?.map_err(|error| anyhow::anyhow!("{error}"))?;
    times.sort_by(f64::total_cmp);
    let at =
        |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied();
    Ok(json!({ "n": n, "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": times.last() }))
}

async fn start(db: &PgPool, client: &Client, n: u64) -> Result<Vec<Uuid>> {
    let mut tx = db.begin().await?;
    let started = client.start_all(&mut tx, Uuid::nil(), (0..n).map(|_| Three)).await?;
    tx.commit().await?;
    client.announce();
    Ok(started)
}

async fn finish(_: &PgPool, client: &Client, runs: Vec<Uuid>) -> Result<()> {
    for run in runs {
        if client.finished(run, Duration::from_secs(300)).await?.is_none() {
            bail!("a workflow did not end");
        }
    }
    Ok(())
}
