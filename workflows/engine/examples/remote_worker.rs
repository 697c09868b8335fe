//! A worker without a database, and the server that it works for.
//!
//! ```sh
//! DATABASE_URL=postgres://… cargo run --example remote_worker --features http,remote-worker -- server 127.0.0.1:7070
//! cargo run --example remote_worker --features http,remote-worker -- worker http://127.0.0.1:7070/remote     # on any machine
//! ```

use axum::http::{HeaderMap, header::AUTHORIZATION};
use flatrender_engine::{
    Activity, Attempt, Client, Context, Failure, Handler, Progress, Worker, Workflow,
    remote::{self, RemoteWorker, Service},
    schema,
};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

type Error = Box<dyn std::error::Error + Send + Sync>;

/// In earnest each worker has a secret of its own, and they are kept as hashes.
const SECRET: &str = "Bearer open sesame";

/// Counts the primes below `limit`, on a machine that has time for it.
#[derive(Serialize, Deserialize)]
struct CountPrimes {
    limit: u32,
}

impl Activity for CountPrimes {
    const NAME: &'static str = "CountPrimes";
    const QUEUE: &'static str = "numbers";
    type Output = u32;
}

struct Sieve;

impl Handler<CountPrimes> for Sieve {
    async fn handle(&self, cx: &Attempt, input: CountPrimes) -> Result<u32, Failure> {
        let mut count = 0;
        for n in 2..input.limit {
            count += u32::from((2..n).take_while(|d| d * d <= n).all(|d| n % d != 0));
            if n % 10_000 == 0 {
                cx.heartbeat(Progress { done: n, total: input.limit, ..Progress::default() })?;
                tokio::task::yield_now().await;
            }
        }
        Ok(count)
    }
}

#[derive(Serialize, Deserialize)]
struct Question;

impl Workflow for Question {
    const NAME: &'static str = "question";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.activity("count", CountPrimes { limit: 200_000 }).await
    }
}

/// Who calls: here everybody who knows the secret is one and the same worker.
async fn who(headers: HeaderMap) -> Option<RemoteWorker> {
    let known = headers.get(AUTHORIZATION).is_some_and(|given| given == SECRET);
    known.then(|| RemoteWorker { name: "somewhere".into(), queues: vec![CountPrimes::QUEUE.into()] })
}

async fn server(address: &str) -> Result<(), Error> {
    let db = sqlx::PgPool::connect(&std::env::var("DATABASE_URL")?).await?;
    schema::install(&db).await?;
    let client = Client::new(db.clone());
    let routes = axum::Router::new().nest("/remote", remote::router(Service::new(client.clone()), who));
    let listener = tokio::net::TcpListener::bind(address).await?;
    tokio::spawn(async move { axum::serve(listener, routes).await });
    tokio::spawn(Worker::builder(db.clone()).workflow::<Question>().run(CancellationToken::new()));

    let mut tx = db.begin().await?;
    let started = client.start(&mut tx, uuid::Uuid::nil(), None, Question).await?;
    tx.commit().await?;
    client.announce();
    println!("waiting for a worker at http://{address}/remote");
    let run = client.finished(started.run_id, Duration::from_secs(3600)).await?.ok_or("nobody came")?;
    println!("there are {} primes below 200,000", run.output.unwrap_or_default());
    Ok(())
}

async fn worker(base: &str) -> Result<(), Error> {
    // Whatever suits the network; TLS by ring.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().build()?;
    let worker =
        remote::Worker::builder(http, base).credential(&SECRET["Bearer ".len()..]).handler::<CountPrimes>(Sieve);
    Ok(worker.run(CancellationToken::new()).await?)
}

#[tokio::main]
async fn main() -> Result<(), Error> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["server", address] => server(address).await,
        ["worker", base] => worker(base).await,
        _ => Err("usage: remote_worker server ADDRESS | worker URL".into()),
    }
}
