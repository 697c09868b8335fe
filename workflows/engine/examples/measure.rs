//! Measures the engine on an empty database: activities and workflows a second, pickup latency, recovery from `kill -9`.
//!
//! `DATABASE_URL=… cargo run --release -p flatrender-engine --example measure [activities] [workflows]`
//! creates and drops the schema `workflow` in that database.

use flatrender_engine::{Activity, Attempt, Client, Context, Failure, Handler, Worker, Workflow};
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

#[derive(Serialize, Deserialize)]
struct Noop(u32);

impl Activity for Noop {
    const NAME: &'static str = "Noop";
    const QUEUE: &'static str = "noop";
    type Output = u32;
}

struct Nothing;

impl Handler<Noop> for Nothing {
    async fn handle(&self, _: &Attempt, input: Noop) -> Result<u32, Failure> {
        Ok(input.0)
    }
}

/// `n` activities at once.
#[derive(Serialize, Deserialize)]
struct Many(u32);

impl Workflow for Many {
    const NAME: &'static str = "many";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let all = (0..self.0).map(|n| async move { cx.activity(&format!("{n}"), Noop(n)).await });
        futures::future::join_all(all).await.into_iter().collect::<Result<Vec<_>, _>>().map(|_| ())
    }
}

/// Three steps that each write a row.
#[derive(Serialize, Deserialize)]
struct Three;

impl Workflow for Three {
    const NAME: &'static str = "three";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        for key in ["one", "two", "three"] {
            cx.step(key, async |db| {
                sqlx::query("insert into public.measured values ($1)").bind(key).execute(db).await?;
                Ok(())
            })
            .await?;
        }
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let url = std::env::var("DATABASE_URL")?;
    let db = PgPoolOptions::new().max_connections(16).connect(&url).await?;
    match std::env::args().nth(1).as_deref() {
        Some("worker") => worker(db, CancellationToken::new()).await,
        _ => measure(db).await,
    }
}

async fn worker(db: PgPool, stop: CancellationToken) -> Result<(), Box<dyn std::error::Error>> {
    let worker = Worker::builder(db).workflow::<Many>().workflow::<Three>().handler::<Noop>(Nothing);
    Ok(worker.queue("noop", 256).runs(256).run(stop).await?)
}

async fn measure(db: PgPool) -> Result<(), Box<dyn std::error::Error>> {
    let number = |i: usize, default| std::env::args().nth(i).and_then(|n| n.parse().ok()).unwrap_or(default);
    let (activities, workflows): (u32, u32) = (number(1, 20_000), number(2, 3_000));
    sqlx::raw_sql(
        "drop schema if exists workflow cascade; drop table if exists measured; create table measured (key text)",
    )
    .execute(&db)
    .await?;
    flatrender_engine::schema::install(&db).await?;
    let client = Client::new(db.clone());
    let stop = CancellationToken::new();
    let (pool, stopped) = (db.clone(), stop.clone());
    let running = tokio::spawn(async move { worker(pool, stopped).await.map_err(|e| e.to_string()) });
    start(&client, &db, 1, || Three).await?;
    wait(&db, 0).await?;

    for (per_run, label) in [(100, "fan-out of 100"), (1, "one a run")] {
        let runs = if per_run == 1 { activities / 4 } else { activities / per_run };
        let began = Instant::now();
        start(&client, &db, runs, || Many(per_run)).await?;
        wait(&db, 0).await?;
        println!("no-op activities, {label}: {:.0}/s", f64::from(runs * per_run) / began.elapsed().as_secs_f64());
    }
    let began = Instant::now();
    start(&client, &db, workflows, || Three).await?;
    wait(&db, 0).await?;
    println!("3-step workflows: {:.0}/s", f64::from(workflows) / began.elapsed().as_secs_f64());
    pickup(&client, &db).await?;
    stop.cancel();
    running.await??;
    recovery(&client, &db).await?;
    Ok(())
}

async fn start<W: Workflow>(
    client: &Client,
    db: &PgPool,
    runs: u32,
    make: impl Fn() -> W,
) -> Result<(), Box<dyn std::error::Error>> {
    let tenant = Uuid::now_v7();
    let mut left = runs;
    while left > 0 {
        let mut tx = db.begin().await?;
        for _ in 0..left.min(200) {
            client.start(&mut tx, tenant, None, make()).await?;
        }
        tx.commit().await?;
        client.announce();
        left -= left.min(200);
    }
    Ok(())
}

/// Waits until `left` tasks are left.
async fn wait(db: &PgPool, left: i64) -> sqlx::Result<()> {
    loop {
        let tasks: i64 = sqlx::query_scalar("select count(*) from workflow.tasks").fetch_one(db).await?;
        if tasks <= left {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Commit of the start to claim, by the clock of the database, at 50 starts a second.
async fn pickup(client: &Client, db: &PgPool) -> Result<(), Box<dyn std::error::Error>> {
    let mut runs = Vec::new();
    for _ in 0..300 {
        let mut tx = db.begin().await?;
        runs.push(client.start(&mut tx, Uuid::now_v7(), None, Three).await?.run_id);
        tx.commit().await?;
        client.announce();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    wait(db, 0).await?;
    let waits: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from a.started_at - r.created_at)::float8 * 1000
         from workflow.attempts a join workflow.runs r on r.id = a.run_id where r.id = any ($1) and a.attempt_no = 1 order by 1",
    )
    .bind(&runs)
    .fetch_all(db)
    .await?;
    let at = |share: f64| waits[((waits.len() - 1) as f64 * share) as usize];
    println!("pickup, insert to claim: p50 {:.1} ms, p99 {:.1} ms, max {:.1} ms", at(0.5), at(0.99), at(1.0));
    Ok(())
}

/// Kill to takeover by a peer, over ten kills.
async fn recovery(client: &Client, db: &PgPool) -> Result<(), Box<dyn std::error::Error>> {
    let peer = CancellationToken::new();
    let (pool, stopped) = (db.clone(), peer.clone());
    let looking = tokio::spawn(Worker::builder(pool).workflow::<Many>().run(stopped));
    let mut times = Vec::new();
    for _ in 0..10 {
        let mut tx = db.begin().await?;
        client.start(&mut tx, Uuid::now_v7(), None, Three).await?;
        // A lock on the table of the steps keeps the run in the middle of its first step.
        let mut lock = db.begin().await?;
        sqlx::query("lock table public.measured in exclusive mode").execute(&mut *lock).await?;
        tx.commit().await?;
        let mut doomed = std::process::Command::new(std::env::current_exe()?).arg("worker").spawn()?;
        while leased(db).await? == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        doomed.kill()?;
        doomed.wait()?;
        let killed_at = Instant::now();
        while leased(db).await? > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times.push(killed_at.elapsed().as_secs_f64());
        drop(lock);
        sqlx::query("delete from workflow.tasks").execute(db).await?;
    }
    peer.cancel();
    looking.await??;
    times.sort_by(f64::total_cmp);
    println!("recovery after kill -9: p50 {:.2} s, max {:.2} s", times[5], times[9]);
    Ok(())
}

async fn leased(db: &PgPool) -> sqlx::Result<i64> {
    sqlx::query_scalar("select count(*) from workflow.tasks where state = 'leased'").fetch_one(db).await
}
