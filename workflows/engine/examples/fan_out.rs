//! Measures how one run grows: activities, timers, children and signals by the thousand in a single run, so that whatever is
//! quadratic shows. `DATABASE_URL=… cargo run --release -p flatrender-engine --example fan_out [width…]`
//! creates and drops the schema `workflow` in that database.

use flatrender_engine::{Activity, Attempt, Client, Context, Failure, Handler, Worker, Workflow, client::RunState};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

type Anything = Box<dyn std::error::Error>;

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

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
enum What {
    Activities,
    Timers,
    Children,
    Signals,
}

/// Many of one kind at once.
#[derive(Serialize, Deserialize)]
struct Wide(What, u32);

impl Workflow for Wide {
    const NAME: &'static str = "wide";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let what = self.0;
        let one = |n: u32| async move {
            let key = format!("{n}");
            match what {
                What::Activities => cx.activity(&key, Noop(n)).await.map(drop),
                What::Timers => cx.sleep(&key, Duration::from_millis(200)).await,
                What::Children => cx.child(&key, Leaf).await,
                What::Signals => cx.signal::<u32>(&key, "go").await.map(drop),
            }
        };
        join_all((0..self.1).map(one)).await.into_iter().collect()
    }
}

/// A child with nothing to do.
#[derive(Serialize, Deserialize)]
struct Leaf;

impl Workflow for Leaf {
    const NAME: &'static str = "leaf";
    type Output = ();

    async fn run(self, _: &Context) -> Result<(), Failure> {
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Anything> {
    let widths: Vec<u32> = std::env::args().skip(1).filter_map(|n| n.parse().ok()).collect();
    let widths = if widths.is_empty() { vec![500, 1000, 2500, 5000] } else { widths };
    let db = PgPoolOptions::new().max_connections(16).connect(&std::env::var("DATABASE_URL")?).await?;
    sqlx::raw_sql("drop schema if exists workflow cascade").execute(&db).await?;
    flatrender_engine::schema::install(&db).await?;
    let (client, stop) = (Client::new(db.clone()), CancellationToken::new());
    let worker = Worker::builder(db.clone()).workflow::<Wide>().workflow::<Leaf>().handler::<Noop>(Nothing);
    let working = tokio::spawn(worker.queue("noop", 256).runs(256).run(stop.clone()));
    run(&client, &db, Wide(What::Activities, 10)).await?;
    for what in [What::Activities, What::Timers, What::Children, What::Signals] {
        for width in &widths {
            let took = run(&client, &db, Wide(what, *width)).await?;
            let each = took.as_secs_f64() * 1e6 / f64::from(*width);
            println!("{what:?}: {width} in one run in {:.2} s, {each:.0} us each", took.as_secs_f64());
        }
    }
    stop.cancel();
    working.await??;
    Ok(())
}

async fn run(client: &Client, db: &PgPool, workflow: Wide) -> Result<Duration, Anything> {
    let began = Instant::now();
    let signals = if matches!(workflow.0, What::Signals) { workflow.1 } else { 0 };
    let mut tx = db.begin().await?;
    let run_id = client.start(&mut tx, Uuid::now_v7(), None, workflow).await?.run_id;
    tx.commit().await?;
    client.announce();
    let mut tx = db.begin().await?;
    for n in 0..signals {
        let _ = client.signal(&mut tx, run_id, "go", None, &n).await?;
    }
    tx.commit().await?;
    client.announce();
    match client.finished(run_id, Duration::from_secs(120)).await? {
        Some(run) if run.state == RunState::Succeeded => Ok(began.elapsed()),
        other => Err(format!("not finished: {other:?}").into()),
    }
}
