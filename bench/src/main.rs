//! Measures the engine through the command line that adapters of other systems have too: `flatrender-bench VERB [ARGS]`.
//!
//! The database is `DATABASE_URL`. A verb ends with one JSON object on its last line; clocks are Unix time in microseconds.

mod farm;
mod gate;
mod hand;
mod queue;
mod runs;
mod timers;

use anyhow::{Context, Result};
use clap::{Parser, Subcommand};
use serde_json::json;
use sqlx::{PgPool, postgres::PgPoolOptions};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

#[derive(Parser)]
#[command(version, about = "Measures the durable workflow engine of FlatRender")]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Says who it is.
    Info,
    /// Makes the schema in an empty database.
    Setup,
    /// Puts N no-op jobs in by the best batch call.
    Enqueue { n: u64 },
    /// Puts N no-op jobs in by C clients, one job and one commit a call.
    Enqueue1 { n: u64, c: u64 },
    /// Works off N jobs, or works for MAX seconds.
    Drain {
        n: u64,
        max: f64,
        /// Stop at the end of the N-th handler, whatever is left.
        #[arg(long)]
        partial: bool,
    },
    /// Counts the jobs that have not finished.
    Unfinished,
    /// Works with default settings until SIGTERM, with a line per start and end.
    Work,
    /// Enqueues N single jobs, LO to HI milliseconds apart.
    Ping { n: u64, lo: u64, hi: u64 },
    /// Enqueues one job that sleeps S milliseconds.
    One { key: u64, s: u64 },
    /// Puts N finished jobs into the history.
    Hist { n: u64 },
    /// Runs N workflows of three steps, C at a time.
    Wf { n: u64, c: usize },
    /// Runs N workflows of three steps one at a time.
    Wflat { n: u64 },
    /// Sets N timers for random moments of S seconds and says how late they are; half-way one of two processes is killed.
    Timers {
        n: u64,
        s: f64,
        /// Nobody is killed.
        #[arg(long)]
        calm: bool,
    },
    /// Keeps timers until it is killed; part of `timers`.
    #[command(hide = true)]
    TimerWorker,
    /// Fails when a job, a workflow, a claim or an idle process costs more than its budget; on a server with nothing else to do.
    Gate {
        /// Also compares the speed with the yardsticks: in a release build, on a quiet machine.
        #[arg(long)]
        speed: bool,
    },
    /// Times scheduling decisions of the render farm; needs no database.
    Farm {
        #[arg(default_value_t = 10_000)]
        queued: usize,
        #[arg(default_value_t = 200)]
        nodes: usize,
    },
    /// The yardstick for `drain`: a hand-written batch loop on a table of its own.
    HandDrain { n: u64 },
    /// The yardstick for `wf`: the writes of a workflow of three steps, issued in batches.
    HandWf { n: u64 },
    /// The yardstick for `wflat`: the same writes, one after the other.
    HandWflat { n: u64 },
}

#[tokio::main]
async fn main() -> Result<()> {
    let verb = Arguments::parse().verb;
    if let Verb::Info = verb {
        let tuned = "drain: 1 worker, 2000 slots; wf: memo steps, 1 worker, C runs in memory";
        let version = env!("CARGO_PKG_VERSION");
        println!(
            "{}",
            json!({ "name": "flatrender-engine", "version": version, "kind": ["queue", "durable"], "tuned": tuned })
        );
        return Ok(());
    }
    if let Verb::Farm { queued, nodes } = verb {
        println!("{}", farm::decide(queued, nodes));
        return Ok(());
    }
    let url = std::env::var("DATABASE_URL").context("set DATABASE_URL")?;
    if let Verb::Gate { speed } = verb {
        println!("{}", gate::run(&url, speed).await?);
        return Ok(());
    }
    let db = PgPoolOptions::new().max_connections(16).connect(&url).await.context("cannot reach the database")?;
    let last = match verb {
        Verb::Info | Verb::Gate { .. } | Verb::Farm { .. } => return Ok(()),
        Verb::Setup => {
            flatrender_engine::schema::install(&db).await?;
            json!({ "ok": true })
        }
        Verb::Enqueue { n } => queue::enqueue(&db, n).await?,
        Verb::Enqueue1 { n, c } => queue::enqueue_singly(&url, n, c).await?,
        Verb::Drain { n, max, partial } => queue::drain(db, n, Duration::try_from_secs_f64(max)?, partial).await?,
        Verb::Unfinished => json!({ "c": flatrender_engine::Client::new(db).unfinished_jobs().await? }),
        Verb::Work => return queue::work(db).await,
        Verb::Ping { n, lo, hi } => return queue::ping(&db, n, lo, hi).await,
        Verb::One { key, s } => queue::one(&db, key, s).await?,
        Verb::Hist { n } => queue::history(&db, n).await?,
        Verb::Wf { n, c } => runs::many(db, n, c).await?,
        Verb::Wflat { n } => runs::one_at_a_time(db, n).await?,
        Verb::Timers { n, s, calm } => timers::lateness(db, n, s, !calm).await?,
        Verb::TimerWorker => return timers::keep(db).await,
        Verb::HandDrain { n } => hand::drain(&db, n).await?,
        Verb::HandWf { n } => hand::workflows(&db, n).await?,
        Verb::HandWflat { n } => hand::one_at_a_time(&db, n).await?,
    };
    println!("{last}");
    Ok(())
}

/// Unix time in microseconds.
fn now_us() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

/// How times in milliseconds are spread.
fn spread(n: u64, mut times: Vec<f64>) -> serde_json::Value {
    times.sort_by(f64::total_cmp);
    let at =
        |share: f64| times.get(((times.len() as f64 * share) as usize).min(times.len().saturating_sub(1))).copied();
    json!({ "n": n, "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": times.last() })
}

/// Refreshes what the planner knows, as autovacuum would a little later.
async fn analyze(db: &PgPool, tables: &str) -> Result<()> {
    sqlx::query(sqlx::AssertSqlSafe(format!("analyze {tables}"))).execute(db).await?;
    Ok(())
}
