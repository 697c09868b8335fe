//! The verbs about jobs.

use crate::{analyze, now_us};
use anyhow::Result;
use flatrender_engine::{Activity, Attempt, Client, Failure, Handler, JobOptions, Policy, Worker};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection, PgPool};
use std::{
    io::Write,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Jobs of one call and one commit.
const BATCH: u64 = 5000;
/// Slots of the worker that `drain` starts.
const SLOTS: usize = 2000;

/// Sleeps `s` milliseconds; 0 does nothing.
#[derive(Debug, Serialize, Deserialize)]
pub struct Job {
    k: u64,
    s: u64,
}

impl Activity for Job {
    const NAME: &'static str = "Job";
    const QUEUE: &'static str = "bench";
    type Output = ();

    fn policy(&self) -> Policy {
        Policy::default()
    }
}

fn job(k: u64) -> Job {
    Job { k, s: 0 }
}

pub async fn enqueue(db: &PgPool, n: u64) -> Result<Value> {
    let client = Client::new(db.clone());
    let began = Instant::now();
    let mut next = 0;
    while next < n {
        let until = n.min(next + BATCH);
        let mut tx = db.begin().await?;
        client.enqueue_all(&mut tx, Uuid::nil(), (next..until).map(job), &JobOptions::default()).await?;
        tx.commit().await?;
        client.announce();
        next = until;
    }
    let secs = began.elapsed().as_secs_f64();
    analyze(db, "workflow.jobs").await?;
    Ok(json!({ "n": n, "secs": secs }))
}

pub async fn enqueue_singly(url: &str, n: u64, clients: u64) -> Result<Value> {
    let pool = PgPool::connect(url).await?;
    let client = Client::new(pool);
    let mut connections = Vec::new();
    for _ in 0..clients {
        let mut db = PgConnection::connect(url).await?;
        put(&client, &mut db, 0).await?;
        connections.push(db);
    }
    let next = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let work = connections.into_iter().map(|mut db| {
        let (client, next) = (client.clone(), next.clone());
        tokio::spawn(async move {
            while next.fetch_add(1, Ordering::Relaxed) < n {
                put(&client, &mut db, 0).await?;
            }
            anyhow::Ok(())
        })
    });
    for ended in futures::future::join_all(work).await {
        ended??;
    }
    Ok(json!({ "n": n, "secs": began.elapsed().as_secs_f64() }))
}

/// One job and one commit: a single statement is a transaction of its own.
async fn put(client: &Client, db: &mut PgConnection, s: u64) -> Result<()> {
    client.enqueue(db, Uuid::nil(), Job { k: 0, s }, &JobOptions::default()).await?;
    client.announce();
    Ok(())
}

struct Counting {
    wanted: u64,
    handled: AtomicU64,
    began: Instant,
    first_ms: Mutex<Option<f64>>,
    done: Notify,
}

struct CountingHandler(Arc<Counting>);

impl Handler<Job> for CountingHandler {
    async fn handle(&self, _: &Attempt, job: Job) -> Result<(), Failure> {
        if job.s > 0 {
            tokio::time::sleep(Duration::from_millis(job.s)).await;
        }
        let handled = self.0.handled.fetch_add(1, Ordering::AcqRel) + 1;
        if handled == 1 {
            let ms = self.0.began.elapsed().as_secs_f64() * 1000.0;
            *self.0.first_ms.lock().unwrap_or_else(PoisonError::into_inner) = Some(ms);
        }
        if handled == self.0.wanted {
            self.0.done.notify_one();
        }
        Ok(())
    }
}

pub async fn drain(db: PgPool, n: u64, max: Duration, partial: bool) -> Result<Value> {
    let counting = Arc::new(Counting {
        wanted: n,
        handled: AtomicU64::new(0),
        began: Instant::now(),
        first_ms: Mutex::new(None),
        done: Notify::new(),
    });
    let stop = CancellationToken::new();
    let began = Instant::now();
    let worker = Worker::builder(db.clone()).handler::<Job>(CountingHandler(counting.clone())).queue(Job::QUEUE, SLOTS);
    let running = tokio::spawn(worker.run(stop.clone()));
    let in_time = tokio::time::timeout(max, counting.done.notified()).await.is_ok();
    if in_time && !partial {
        let left = "select exists (select from workflow.jobs)";
        while sqlx::query_scalar::<_, bool>(left).fetch_one(&db).await? && began.elapsed() < max {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
    let secs = began.elapsed().as_secs_f64();
    stop.cancel();
    running.await?.map_err(|error| anyhow::anyhow!("{error}"))?;
    let first_ms = *counting.first_ms.lock().unwrap_or_else(PoisonError::into_inner);
    Ok(json!({ "n": counting.handled.load(Ordering::Acquire), "secs": secs, "first_ms": first_ms }))
}

/// Prints when it starts and ends.
struct Telling;

impl Handler<Job> for Telling {
    async fn handle(&self, _: &Attempt, job: Job) -> Result<(), Failure> {
        say(&format!("START {} {}", job.k, now_us()));
        tokio::time::sleep(Duration::from_millis(job.s)).await;
        say(&format!("END {} {}", job.k, now_us()));
        Ok(())
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listens any more: the work goes on.
    let _ = writeln!(out, "{line}").and_then(|()| out.flush());
}

pub async fn work(db: PgPool) -> Result<()> {
    let stop = CancellationToken::new();
    let worker = tokio::spawn(Worker::builder(db).handler::<Job>(Telling).run(stop.clone()));
    say("READY");
    let mut terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        end = tokio::signal::ctrl_c() => end?,
    }
    stop.cancel();
    worker.await?.map_err(|error| anyhow::anyhow!("{error}"))
}

pub async fn ping(db: &PgPool, n: u64, lo: u64, hi: u64) -> Result<()> {
    let client = Client::new(db.clone());
    let mut connection = db.acquire().await?;
    for k in 0..n {
        tokio::time::sleep(Duration::from_millis(rand::random_range(lo..=hi.max(lo)))).await;
        let called = now_us();
        client.enqueue(&mut connection, Uuid::nil(), Job { k, s: 0 }, &JobOptions::default()).await?;
        client.announce();
        say(&format!("ENQ {k} {called} {}", now_us()));
    }
    // The last announcement is on its way.
    tokio::time::sleep(Duration::from_millis(50)).await;
    println!("{}", json!({ "n": n }));
    Ok(())
}

pub async fn one(db: &PgPool, k: u64, s: u64) -> Result<Value> {
    let client = Client::new(db.clone());
    let mut connection = db.acquire().await?;
    client.enqueue(&mut connection, Uuid::nil(), Job { k, s }, &JobOptions::default()).await?;
    client.announce();
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(json!({ "ok": true }))
}

pub async fn history(db: &PgPool, n: u64) -> Result<Value> {
    let began = Instant::now();
    sqlx::query(
        "insert into workflow.finished_jobs
            (id, tenant_id, queue, activity, input, run_at, attempt_no, outcome, started_at, finished_at)
         select -i, $2, 'bench', 'Job', jsonb_build_object('k', i, 's', 0), now(), 1, 'ok', now(), now()
         from generate_series(1, $1) i",
    )
    .bind(i64::try_from(n)?)
    .bind(Uuid::nil())
    .execute(db)
    .await?;
    Ok(json!({ "n": n, "secs": began.elapsed().as_secs_f64() }))
}

const QUEUES: [&str; 20] = [
    "q1", "q2", "q3", "q4", "q5", "q6", "q7", "q8", "q9", "q10", "q11", "q12", "q13", "q14", "q15", "q16", "q17",
    "q18", "q19", "q20",
];

/// Work for one of twenty queues.
#[derive(Serialize, Deserialize)]
struct Errand<const Q: usize>;

impl<const Q: usize> Activity for Errand<Q> {
    const NAME: &'static str = QUEUES[Q];
    const QUEUE: &'static str = QUEUES[Q];
    type Output = ();
}

struct Nothing;

impl<const Q: usize> Handler<Errand<Q>> for Nothing {
    async fn handle(&self, _: &Attempt, _: Errand<Q>) -> Result<(), Failure> {
        Ok(())
    }
}

/// A worker with twenty queues.
pub fn worker_of_twenty_queues(db: PgPool) -> Worker {
    macro_rules! queues {
        ($builder:expr, $($q:literal)*) => { $builder$(.handler::<Errand<$q>>(Nothing))* };
    }
    queues!(Worker::builder(db), 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19).build()
}
