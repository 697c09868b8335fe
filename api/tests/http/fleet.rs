//! A farm of two hundred nodes over real sockets: nobody renders what somebody else renders, and what it costs to keep them. They ask,
//! keep their leases, render and report by the agent's own code; their renderer is the stand-in, a process of its own for each task.
//! And what else is asked of a farm in milliseconds.

use crate::world::{SIZE, World, manifest, png, put};
use axum::{http::StatusCode, response::IntoResponse as _};
use flatrender_activities::{
    aerender::{
        Aerender, FrameSink, InputSource, Job, Limits, ProcessId, ProvenFrame, TransferError, cache::Cache,
        unpack::Bounds,
    },
    agent::{
        client::{Client, TaskClient},
        leases::{self, Held},
        report::{Reported, report},
    },
};
use flatrender_engine::{Attempt, Labels, LeasedTask};
use flatrender_workflows::{
    contracts::{
        node::Claim,
        render::{RenderFrames, RenderedFrames},
        storage::BlobRef,
    },
    models::content::project,
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const NODES: usize = 200;
const RENDERS: usize = 200;
/// Stand-ins that run at once: the nodes are two hundred, the machine's cores are not.
const STAND_INS: usize = 4;
/// How long what it costs is watched.
const WATCHED: Duration = Duration::from_secs(20);
/// Nothing that is waited for takes longer.
const PATIENCE: Duration = Duration::from_secs(240);
/// First and longest pause between reports that get no answer.
const RETRY: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(2));

/// How often stills are asked for that are there, in how many rounds: what disturbs a machine makes a round slower, and none faster.
const ASKED: usize = 300;
const ROUNDS: usize = 3;
/// What the answer may take, 95 times of 100.
const HIT_MS: f64 = 30.0;

/// What the nodes saw.
#[derive(Default)]
struct Seen {
    /// Milliseconds from asking to getting, while there was work.
    claims: Vec<f64>,
    /// How often each task was given out, and reported as done.
    given: HashMap<i64, u32>,
    done: HashMap<i64, u32>,
}

struct Machine {
    agent: Client,
    http: reqwest::Client,
    base: String,
    credential: String,
    seen: Arc<Mutex<Seen>>,
    renderers: Arc<Renderers>,
    /// Nobody renders before this is true.
    go: watch::Receiver<bool>,
}

impl Machine {
    async fn post(&self, path: &str, body: &Value) {
        let request = self.http.post(format!("{}/v1/nodes/{path}", self.base)).bearer_auth(&self.credential);
        let answer = request.json(body).send().await.unwrap();
        let (status, said) = (answer.status(), answer.text().await.unwrap());
        assert_eq!(status, 200, "{said}");
    }

    /// Says how it fares every ten seconds, as the agent does.
    async fn pulse(&self, incarnation: Uuid, stop: &CancellationToken) {
        let fares = json!({"incarnation": incarnation, "running_tasks": 1, "cpu_percent": 50.0, "ram_mb": 100,
                           "disk_free_mb": 5000, "rtt_ms": 3, "cache": null});
        while !stop.is_cancelled() {
            self.post("health", &fares).await;
            tokio::select! {
                () = tokio::time::sleep(Duration::from_secs(10)) => {}
                () = stop.cancelled() => {}
            }
        }
    }

    /// Says what it has, then claims and renders until it is stopped.
    async fn work(self, stop: CancellationToken) {
        let incarnation = Uuid::new_v4();
        let hello = json!({
            "incarnation": incarnation, "cache": [], "cache_limit": 1_000_000_000,
            "inventory": {"after_effects": null, "fonts": [], "plugins": [], "disk_free_mb": 5000},
            "capabilities": {"agent_version": "0.1.0", "os": "linux/x86_64", "cpus": 8, "ram_mb": 32_768, "slots": 1,
                             "labels": {"engine": "lottie"}, "renderers": {"lottie": "flatrender-aerender 0.1.0"}}});
        self.post("hello", &hello).await;
        tokio::join!(self.pulse(incarnation, &stop), self.toil(incarnation, &stop));
    }

    async fn toil(&self, incarnation: Uuid, stop: &CancellationToken) {
        let ask = Claim {
            incarnation,
            queues: Vec::new(),
            activities: Vec::new(),
            labels: Labels::from([("engine".into(), "lottie".into())]),
            slots: 1,
            wait_seconds: 25.0,
        };
        while !stop.is_cancelled() {
            let began = Instant::now();
            let claimed = tokio::select! {
                claimed = self.agent.claim(&ask) => claimed.unwrap(),
                () = stop.cancelled() => return,
            };
            let Some(claimed) = claimed else { continue };
            self.seen.lock().unwrap().claims.push(began.elapsed().as_secs_f64() * 1000.0);
            for task in claimed.tasks {
                self.attempt(task).await;
            }
        }
    }

    /// An attempt as agents make it: the lease is kept beside the work.
    async fn attempt(&self, task: LeasedTask) {
        *self.seen.lock().unwrap().given.entry(task.task_id).or_default() += 1;
        let held = Held { seconds: task.lease_seconds, fresh: true };
        let (attempt, keeper) = Attempt::new(task);
        let client = self.agent.task(&attempt);
        tokio::select! {
            never = leases::keep(client.clone(), held, PATIENCE, keeper) => match never {},
            () = self.carry_out(&attempt, &client) => {}
        }
    }

    async fn carry_out(&self, attempt: &Attempt, client: &TaskClient) {
        let mut go = self.go.clone();
        go.wait_for(|go| *go).await.unwrap();
        let rendered = self.renderers.render(attempt, client).await;
        let stays = CancellationToken::new();
        let reported = report(client, attempt, Ok(json!(rendered)), RETRY, PATIENCE, &stays).await;
        assert_eq!(reported, Reported::Known);
        *self.seen.lock().unwrap().done.entry(attempt.task().task_id).or_default() += 1;
    }
}

/// The driver with the stand-in for its renderer, which all machines share: they are one machine.
struct Renderers {
    aerender: Aerender,
    attempts: PathBuf,
    turns: Semaphore,
    /// Stand-ins that were started.
    started: AtomicUsize,
}

impl Renderers {
    fn in_folder(folder: &Path) -> Self {
        let stand_in = stand_in();
        let build = "cargo build -p flatrender-activities --example fake_aerender";
        assert!(stand_in.exists(), "build the stand-in first: {build}");
        let renderers = BTreeMap::from([("lottie", stand_in)]);
        let cache = Cache::open(folder.join("cache"), 1 << 30, Bounds::default()).unwrap();
        Self {
            aerender: Aerender { renderers, cache, limits: Limits::default() },
            attempts: folder.join("attempts"),
            turns: Semaphore::new(STAND_INS),
            started: AtomicUsize::new(0),
        }
    }

    /// Every frame of a task: rendered by a stand-in, proven by the driver and stored.
    async fn render(&self, attempt: &Attempt, client: &TaskClient) -> RenderedFrames {
        let _turn = self.turns.acquire().await.unwrap();
        let input: RenderFrames = serde_json::from_value(attempt.task().input.clone()).unwrap();
        let (line, folder) = (Line(client.clone()), self.attempts.join(attempt.lease_token().to_string()));
        let started = |_: &ProcessId| {
            self.started.fetch_add(1, Ordering::Relaxed);
        };
        let job = Job {
            attempt,
            stills: &[],
            folder: folder.clone(),
            inputs: &line,
            frames: Arc::new(line.clone()),
            drain: CancellationToken::new(),
            spawned: &started,
            heard: &|_| {},
            unheard: false,
        };
        let rendered = self.aerender.render(job, &input).await.unwrap();
        assert_eq!(rendered.frames.len(), input.frames.count() as usize, "{rendered:?}");
        std::fs::remove_dir_all(folder).unwrap();
        rendered
    }
}

/// The server as the driver of one attempt asks it: packages come, frames go, and nothing is asked twice.
#[derive(Clone)]
struct Line(TaskClient);

impl InputSource for Line {
    async fn fetch(&self, blob: &BlobRef, path: &Path) -> Result<(), TransferError> {
        let answer = self.0.input(&blob.sha256).await.map_err(other)?;
        Ok(std::fs::write(path, answer.bytes().await.map_err(other)?)?)
    }
}

impl FrameSink for Line {
    async fn store(&self, frame: ProvenFrame) -> Result<(), TransferError> {
        let picture = std::fs::read(&frame.path)?;
        self.0.put_frame(&frame.blob.sha256, picture.into()).await.map_err(other)
    }
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> TransferError {
    TransferError::Other(Box::new(error))
}

/// The stand-in for `aerender`, which lies beside the tests.
fn stand_in() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let folder = tests.parent().and_then(Path::parent).unwrap().join("examples");
    folder.join(format!("fake_aerender{}", std::env::consts::EXE_SUFFIX))
}

/// Publishes the template anew, with a package that the stand-in can render.
async fn publish(world: &World) {
    let manifest = manifest();
    let composition = json!({"name": manifest.composition, "frames": 100, "size": SIZE, "fps": manifest.fps});
    let mut package = zip::ZipWriter::new(std::io::Cursor::new(vec![]));
    package.start_file("project.json", zip::write::SimpleFileOptions::default()).unwrap();
    let document = json!({"compositions": [composition]}).to_string();
    std::io::Write::write_all(&mut package, document.as_bytes()).unwrap();
    let package = put(&*world.storage, &package.finish().unwrap().into_inner()).await;
    let mut tx = world.db.begin().await.unwrap();
    project::publish(&mut tx, world.tenant, &manifest, &package, Some(&world.preview)).await.unwrap();
    tx.commit().await.unwrap();
}

/// Puts the world's server on a socket; its address.
async fn serve(world: &World) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let base = format!("http://{}", listener.local_addr().unwrap());
    let routes = world.router.clone();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    let _ = rustls::crypto::ring::default_provider().install_default();
    base
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
    let began = Instant::now();
    loop {
        let found: i64 = sqlx::query_scalar(sql).fetch_one(db).await.unwrap();
        if found >= wanted {
            return;
        }
        assert!(began.elapsed() < PATIENCE, "{found} of {wanted}: {sql}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn quantile(values: &mut [f64], share: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    values[((values.len() as f64 * share) as usize).min(values.len() - 1)]
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes minutes and counts the writes of a whole server: scripts/chaos.sh fleet runs it alone, and builds the stand-in"]
async fn two_hundred_nodes_render_nothing_twice_and_cost_next_to_nothing(db: PgPool) {
    let world = World::new(db).await;
    sqlx::query("delete from identity.tenant_limits").execute(&world.db).await.unwrap();
    publish(&world).await;
    let renderers = Arc::new(Renderers::in_folder(&world.folder.path().join("nodes")));
    let base = serve(&world).await;
    let (http, agent) = (reqwest::Client::builder().build().unwrap(), Client::new(&base).unwrap());
    let samples = world.app.clone();
    tokio::spawn(async move { samples.samples.keep_writing(&samples.db).await });
    let (seen, stop) = (Arc::new(Mutex::new(Seen::default())), CancellationToken::new());
    let (go, gone) = watch::channel(false);
    let mut fleet = Vec::new();
    for n in 0..NODES {
        let credential = world.node(&format!("n{n}")).await.credential;
        let agent = agent.with_credential(&credential);
        let (http, base, seen, go) = (http.clone(), base.clone(), seen.clone(), gone.clone());
        let machine = Machine { agent, http, base, credential, seen, renderers: renderers.clone(), go };
        fleet.push(tokio::spawn(machine.work(stop.clone())));
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
    let started = renderers.started.load(Ordering::Relaxed);
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
            "nodes": NODES, "renders": RENDERS, "tasks": seen.done.len(), "stand_ins": started, "waiting_at_the_start": waiting, "twice": twice,
            "second_attempts": attempts, "writes_a_second_idle": idle, "writes_a_second_all_rendering": busy,
            "seconds": seconds, "claim_p50_ms": quantile(&mut seen.claims, 0.5), "claim_p99_ms": quantile(&mut seen.claims, 0.99),
            "metrics": decisions
        })
    );
    assert_eq!((twice, attempts), (0, 0));
    assert!(seen.done.len() >= RENDERS && started >= seen.done.len(), "{started} stand-ins were started");
    assert!(idle <= 5.0 && busy <= 5.0, "{idle} and {busy} writes a second");
}

#[sqlx::test(migrations = "../migrations")]
#[ignore = "takes the time of answers: scripts/chaos.sh fleet runs it alone"]
async fn stills_that_are_there_are_answered_with_in_thirty_milliseconds(db: PgPool) {
    let world = World::managed(db).await;
    sqlx::query("delete from identity.tenant_limits").execute(&world.db).await.unwrap();
    world.work();
    let project = world.get("/v1/templates").await.json()["data"][0]["project_id"].as_str().unwrap().to_owned();
    let path = format!("/v1/scene-snapshots/{project}");
    assert_eq!(world.post(&path, json!({})).await.status, StatusCode::ACCEPTED);
    let node = world.node("n1").await;
    for color in [[200, 30, 30], [30, 30, 200]] {
        let task = node.claim().await;
        let frame = node.put_frame(&task, &png(color)).await;
        let told = node.complete(&task, json!({"rendered": {"frame": frame}})).await;
        assert_eq!(told.status, StatusCode::NO_CONTENT, "{:?}", told.body);
    }
    until(&world.db, 2, "select count(*) from render.snapshot_jobs where status = 'done'").await;

    let (base, http) = (serve(&world).await, reqwest::Client::builder().build().unwrap());
    let mut rounds = Vec::new();
    // The first one warms what is warm on a server that is at work.
    for round in 0..=ROUNDS {
        let mut took = Vec::new();
        for _ in 0..ASKED {
            let asked = http.post(format!("{base}{path}")).bearer_auth(&world.key).json(&json!({}));
            let began = Instant::now();
            let answer = asked.send().await.unwrap();
            let (status, body) = (answer.status().as_u16(), answer.bytes().await.unwrap());
            took.push(began.elapsed().as_secs_f64() * 1000.0);
            let said: Value = serde_json::from_slice(&body).unwrap();
            let counts = &said["counts"];
            assert_eq!((status, &counts["done"], &counts["queued"]), (202, &json!(2), &json!(0)), "{said}");
        }
        if round > 0 {
            rounds.push([0.5, 0.95, 0.99].map(|share| quantile(&mut took, share)));
        }
    }
    println!("{}", json!({"hits_of_a_round": ASKED, "p50_p95_p99_ms": rounds}));
    assert!(rounds.iter().any(|[_, p95, _]| *p95 < HIT_MS), "{rounds:?}");
}
