//! A farm of two hundred nodes over real sockets: nobody renders what somebody else renders, and what it costs to keep them.

use crate::world::{World, blob, output, png};
use axum::{http::Method, response::IntoResponse as _};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const NODES: usize = 200;
const RENDERS: usize = 200;
/// How long what it costs is watched.
const WATCHED: Duration = Duration::from_secs(20);

/// What the nodes saw.
#[derive(Default)]
struct Seen {
    /// Milliseconds from asking to getting, while there was work.
    claims: Vec<f64>,
    /// How often each task was given out, and reported as done.
    given: HashMap<i64, u32>,
    done: HashMap<i64, u32>,
}

#[derive(Clone)]
struct Machine {
    http: reqwest::Client,
    base: String,
    credential: String,
    seen: Arc<Mutex<Seen>>,
    /// Nobody reports before this is true.
    go: watch::Receiver<bool>,
}

impl Machine {
    async fn call(&self, method: Method, path: &str, token: &str, body: Vec<u8>, kind: &str) -> (u16, Value) {
        let request = self.http.request(method, format!("{}/v1/nodes/{path}", self.base)).bearer_auth(&self.credential);
        let request = request.header("lease-token", token).header("content-type", kind).body(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        self.call(Method::POST, path, "", body.to_string().into_bytes(), "application/json").await
    }

    /// Says how it fares every ten seconds, as the agent does.
    async fn pulse(self, incarnation: Uuid, stop: CancellationToken) {
        let fares = json!({"incarnation": incarnation, "running_tasks": 1, "cpu_percent": 50.0, "ram_mb": 100,
                           "disk_free_mb": 5000, "rtt_ms": 3, "cache": null});
        while !stop.is_cancelled() {
            let (status, answer) = self.post("health", fares.clone()).await;
            assert_eq!(status, 200, "{answer}");
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(10)) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Says what it has, claims, keeps the lease as the agent does, and reports, until it is stopped.
    async fn work(mut self, stop: CancellationToken) {
        let incarnation = Uuid::new_v4();
        let hello = json!({
            "incarnation": incarnation, "cache": [], "cache_limit": 1_000_000_000,
            "inventory": {"after_effects": null, "fonts": [], "plugins": [], "disk_free_mb": 5000},
            "capabilities": {"agent_version": "0.1.0", "os": "linux/x86_64", "cpus": 8, "ram_mb": 32_768, "slots": 1,
                             "labels": {"engine": "lottie"}, "renderers": {"lottie": "flatrender-aerender 0.1.0"}}});
        let (status, answer) = self.post("hello", hello).await;
        assert_eq!(status, 200, "{answer}");
        tokio::join!(self.clone().pulse(incarnation, stop.clone()), self.toil(incarnation, stop));
    }

    async fn toil(&mut self, incarnation: Uuid, stop: CancellationToken) {
        while !stop.is_cancelled() {
            let began = Instant::now();
            let ask = json!({"incarnation": incarnation, "labels": {"engine": "lottie"}, "wait_seconds": 25});
            let claimed = tokio::select! {
                claimed = self.post("claims", ask) => claimed,
                () = stop.cancelled() => return,
            };
            match claimed {
                (200, claimed) => {
                    self.seen.lock().unwrap().claims.push(began.elapsed().as_secs_f64() * 1000.0);
                    for task in claimed["tasks"].as_array().unwrap() {
                        self.render(task, &stop).await;
                    }
                }
                (204, _) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    async fn render(&mut self, task: &Value, stop: &CancellationToken) {
        let (id, token) = (task["task_id"].as_i64().unwrap(), task["lease_token"].as_str().unwrap().to_owned());
        *self.seen.lock().unwrap().given.entry(id).or_default() += 1;
        loop {
            if *self.go.borrow() {
                break;
            }
            tokio::select! {
                changed = self.go.changed() => changed.unwrap(),
                () = stop.cancelled() => return,
                // As often as the agent renews.
                () = tokio::time::sleep(Duration::from_secs(2)) => {
                    let renew = json!({"lease_token": token, "progress": {"done": 1, "total": 9}});
                    let (status, answer) = self.post(&format!("tasks/{id}/renew"), renew).await;
                    assert_eq!(status, 200, "{answer}");
                }
            }
        }
        let picture = png([200, 30, 30]);
        let stored = blob(&picture);
        let path = format!("tasks/{id}/frames/{}", stored.sha256);
        assert_eq!(self.call(Method::PUT, &path, &token, picture, "image/png").await.0, 204);
        let number = |end: &str| task["input"]["frames"][end].as_u64().unwrap();
        let frames: Vec<Value> =
            (number("first")..=number("last")).map(|n| json!({"frame": n, "blob": stored})).collect();
        let report = json!({"lease_token": token, "output": output(&frames)});
        let (status, answer) = self.post(&format!("tasks/{id}/complete"), report).await;
        assert_eq!(status, 204, "{answer}");
        *self.seen.lock().unwrap().done.entry(id).or_default() += 1;
    }
}

/// Transactions that have written something on this server so far.
async fn writes(db: &PgPool) -> i64 {
    let sql = "select pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    sqlx::query_scalar(sql).fetch_one(db).await.unwrap()
}

/// Writes a second from now on.
async fn watched(db: &PgPool) -> f64 {
    let (before, began) = (writes(db).await, Instant::now());
    tokio::time::sleep(WATCHED).await;
    (writes(db).await - before) as f64 / began.elapsed().as_secs_f64()
}

async fn until(db: &PgPool, wanted: i64, sql: &'static str) {
    loop {
        let found: i64 = sqlx::query_scalar(sql).fetch_one(db).await.unwrap();
        if found >= wanted {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * share) as usize).min(values.len() - 1)]
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes two minutes and counts the writes of a whole server: scripts/chaos.sh fleet runs it alone"]
async fn two_hundred_nodes_render_nothing_twice_and_cost_next_to_nothing(db: PgPool) {
    let world = World::new(db).await;
    sqlx::query("delete from identity.tenant_limits").execute(&world.db).await.unwrap();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let routes = world.router.clone();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder().build().unwrap();
    let samples = world.app.clone();
    tokio::spawn(async move { samples.samples.keep_writing(&samples.db).await });
    let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), CancellationToken::new());
    let (go, gone) = watch::channel(false);
    let mut fleet = Vec::new();
    for n in 0..NODES {
        let credential = world.node(&format!("n{n}")).await.credential;
        let (http, base, seen, go) = (http.clone(), base.clone(), seen.clone(), gone.clone());
        fleet.push(tokio::spawn(Machine { http, base, credential, seen, go }.work(stop.clone())));
    }
    tokio::time::sleep(Duration::from_secs(5)).await;
    let idle = watched(&world.db).await;
    let workflows = world.run_workflows();
    for _ in 0..RENDERS {
        world.order().await;
    }
    until(
        &world.db,
        NODES as i64,
        "select count(*) from workflow.tasks where queue = 'node.render' and state = 'leased'",
    )
    .await;
    // What the workers of workflows write by themselves is not the nodes'.
    workflows.stop().await;
    let busy = watched(&world.db).await;
    let workflows = world.run_workflows();
    let waiting: i64 =
        sqlx::query_scalar("select count(*) from workflow.tasks where queue = 'node.render' and state = 'ready'")
            .fetch_one(&world.db)
            .await
            .unwrap();
    seen.lock().unwrap().claims.clear();
    let began = Instant::now();
    go.send(true).unwrap();
    until(
        &world.db,
        RENDERS as i64,
        "select count(distinct run_id) from workflow.tasks r where kind = 'run'
           and not exists (select from workflow.tasks t where t.run_id = r.run_id and t.queue = 'node.render')",
    )
    .await;
    let seconds = began.elapsed().as_secs_f64();
    stop.cancel();
    futures::future::join_all(fleet).await.into_iter().for_each(|ended| ended.unwrap());
    workflows.stop().await;
    let mut seen = std::mem::take(&mut *seen.lock().unwrap());
    let twice = seen.given.values().chain(seen.done.values()).filter(|times| **times != 1).count();
    let attempts: i64 =
        sqlx::query_scalar("select count(*) from workflow.attempts where attempt_no > 1 and step_key like 'render:%'")
            .fetch_one(&world.db)
            .await
            .unwrap();
    let shown = flatrender_api::metrics::show().await.into_response().into_body();
    let shown = String::from_utf8(axum::body::to_bytes(shown, usize::MAX).await.unwrap().to_vec()).unwrap();
    let decisions: Vec<&str> = shown.lines().filter(|line| line.starts_with("flatrender_farm_")).collect();
    println!(
        "{}",
        json!({
            "nodes": NODES, "renders": RENDERS, "tasks": seen.done.len(), "waiting_at_the_start": waiting, "twice": twice,
            "second_attempts": attempts, "writes_a_second_idle": idle, "writes_a_second_all_rendering": busy,
            "seconds": seconds, "claim_p50_ms": quantile(&mut seen.claims, 0.5), "claim_p99_ms": quantile(&mut seen.claims, 0.99),
            "metrics": decisions
        })
    );
    assert_eq!((twice, attempts), (0, 0));
    assert!(seen.done.len() >= RENDERS);
    assert!(idle <= 5.0 && busy <= 5.0, "{idle} and {busy} writes a second");
}
