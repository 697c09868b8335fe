//! The verb about timers: how late they are.

use anyhow::{Result, bail};
use chrono::{DateTime, Utc};
use flatrender_engine::{Client, Context, Failure, Worker, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{process::Stdio, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Sleeps until it is due.
#[derive(Debug, Serialize, Deserialize)]
struct Alarm {
    due: DateTime<Utc>,
}

impl Workflow for Alarm {
    const NAME: &'static str = "alarm";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.sleep_until("alarm", self.due).await
    }
}

/// Keeps alarms until it is killed.
pub async fn keep(db: PgPool) -> Result<()> {
    let worker = Worker::builder(db).workflow::<Alarm>().run(CancellationToken::new());
    worker.await.map_err(|error| anyhow::anyhow!("{error}"))
}

/// Sets `n` alarms for random moments of `seconds`, for two processes. Half-way one of them, which may be the one that looks after
/// all, is killed; or none, when `kill` is false.
pub async fn lateness(db: PgPool, n: u64, seconds: f64, kill: bool) -> Result<Value> {
    let (client, stop) = (Client::new(db.clone()), CancellationToken::new());
    let mut doomed = std::process::Command::new(std::env::current_exe()?)
        .arg("timer-worker")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()?;
    let worker = tokio::spawn(Worker::builder(db.clone()).workflow::<Alarm>().run(stop.clone()));
    // By the clock of the database, some seconds ahead: all are asleep before the first is due.
    let now: DateTime<Utc> = sqlx::query_scalar("select workflow.now()").fetch_one(&db).await?;
    let lead = 2.0 + n as f64 / 1000.0;
    let alarms = (0..n).map(|_| {
        let ahead = lead + rand::random_range(0.0..seconds);
        Alarm { due: now + chrono::TimeDelta::microseconds((ahead * 1e6) as i64) }
    });
    let alarms: Vec<Alarm> = alarms.collect();
    let mut tx = db.begin().await?;
    client.start_all(&mut tx, Uuid::nil(), alarms).await?;
    tx.commit().await?;
    client.announce();
    tokio::time::sleep(Duration::from_secs_f64(lead + seconds / 2.0)).await;
    if kill {
        doomed.kill()?;
    }
    let running = "select exists (select from workflow.tasks)";
    while sqlx::query_scalar::<_, bool>(running).fetch_one(&db).await? {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stop.cancel();
    worker.await?.map_err(|error| anyhow::anyhow!("{error}"))?;
    let _ = doomed.kill();
    doomed.wait()?;
    let late: Vec<f64> = sqlx::query_scalar(
        "select extract(epoch from s.recorded_at - (r.input ->> 'due')::timestamptz)::float8 * 1000
         from workflow.steps s join workflow.runs r on r.id = s.run_id
         where s.kind = 'timer' and s.outcome = 'ok' and r.kind = 'alarm' order by 1",
    )
    .fetch_all(&db)
    .await?;
    if late.len() as u64 != n {
        bail!("{} of {n} alarms went off", late.len());
    }
    let at = |share: f64| late.get(((late.len() as f64 * share) as usize).min(late.len().saturating_sub(1))).copied();
    Ok(json!({
        "n": n, "seconds": seconds, "killed": kill, "early": late.iter().filter(|ms| **ms < 0.0).count(),
        "p50_ms": at(0.5), "p90_ms": at(0.9), "p99_ms": at(0.99), "max_ms": late.last(),
    }))
}
