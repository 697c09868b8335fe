//! Workers that speak HTTP and have no database: whose token counts, and what a bad network costs.

use crate::world::{OneWork, Tool, Work, World};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use flatrender_engine::{
    Failure, LeasedTask, TraceContext,
    client::RunState,
    remote::{self, CallError, RemoteWorker, Service},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    net::SocketAddr,
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};
use tokio::{
    io::copy_bidirectional,
    net::{TcpListener, TcpStream},
    sync::{Notify, watch},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Where a process of its own finds the server.
const SERVER: &str = "FLATRENDER_TEST_SERVER";

/// The name is the secret: good enough for a test.
async fn who(headers: HeaderMap) -> Option<RemoteWorker> {
    let name = headers.get(AUTHORIZATION)?.to_str().ok()?.strip_prefix("Bearer ")?.to_owned();
    name.starts_with("node").then(|| RemoteWorker { name, queues: vec!["work".into()] })
}

/// The routes on a real socket.
struct Server {
    address: SocketAddr,
    stop: CancellationToken,
    ended: JoinHandle<()>,
}

impl Server {
    async fn start(world: &World, port: u16) -> Self {
        let stop = CancellationToken::new();
        let routes = remote::router(Service::new(world.client.clone()).closing(stop.clone()), who);
        let listener = TcpListener::bind(("127.0.0.1", port)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let stopped = stop.clone().cancelled_owned();
        let ended =
            tokio::spawn(async move { axum::serve(listener, routes).with_graceful_shutdown(stopped).await.unwrap() });
        Self { address, stop, ended }
    }

    /// Ends and comes back at the same address.
    async fn restart(self, world: &World) -> Self {
        self.stop.cancel();
        self.ended.await.unwrap();
        Self::start(world, self.address.port()).await
    }

    /// A call of `name`: status and body.
    async fn call(&self, name: &str, path: &str, body: Value) -> (u16, Value) {
        let request = http().post(format!("http://{}/{path}", self.address)).bearer_auth(name).json(&body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn claim(&self, name: &str) -> LeasedTask {
        let body = json!({ "incarnation": Uuid::new_v4(), "wait_seconds": 20 });
        let (status, claimed) = self.call(name, "claims", body).await;
        assert_eq!(status, 200, "{claimed}");
        serde_json::from_value(claimed["tasks"][0].clone()).unwrap()
    }

    /// Every call about a task, in the order in which they would harm the least.
    async fn every_call(&self, name: &str, task_id: i64, token: Uuid) -> Vec<(u16, String)> {
        let failure = Failure::permanent("test.forged", "not so");
        let mut answers = Vec::new();
        for (what, extra) in [
            ("renew", json!({})),
            ("release", json!({})),
            ("fail", json!({ "failure": failure })),
            ("complete", json!({ "output": 666 })),
        ] {
            let mut body = extra;
            body["lease_token"] = json!(token);
            let (status, problem) = self.call(name, &format!("tasks/{task_id}/{what}"), body).await;
            answers.push((status, problem["code"].as_str().unwrap_or_default().to_owned()));
        }
        answers
    }

    async fn complete(&self, name: &str, task: &LeasedTask, output: u32) -> u16 {
        let body = json!({ "lease_token": task.lease_token, "output": output });
        self.call(name, &format!("tasks/{}/complete", task.task_id), body).await.0
    }
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().build().unwrap()
}

fn worker(address: SocketAddr, tool: &Tool) -> remote::Builder {
    let worker = remote::Worker::builder(http(), format!("http://{address}"));
    worker.credential("node").handler::<Work>(tool.clone()).grace(Duration::from_secs(1))
}

fn run(worker: remote::Builder) -> (JoinHandle<Result<(), CallError>>, CancellationToken) {
    let stop = CancellationToken::new();
    (tokio::spawn(worker.run(stop.clone())), stop)
}

/// A network that can be cut.
struct Wire {
    address: SocketAddr,
    cut: watch::Sender<bool>,
}

impl Wire {
    async fn to(server: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (cut, is_cut) = watch::channel(false);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let mut is_cut = is_cut.clone();
                tokio::spawn(async move {
                    let talk = async {
                        let mut far = TcpStream::connect(server).await.unwrap();
                        let _ = copy_bidirectional(&mut near, &mut far).await;
                    };
                    tokio::select! {
                        biased;
                        _ = is_cut.wait_for(|cut| *cut) => {}
                        () = talk => {}
                    }
                });
            }
        });
        Self { address, cut }
    }
}

/// Work whose lease lasts so long.
fn leased_for(n: u32, seconds: f64) -> OneWork {
    let mut work = Work::new(n);
    work.policy.lease = Duration::from_secs_f64(seconds);
    OneWork(work)
}

/// A tool that says when it has begun, and doubles once it is told to go on.
fn patient() -> (Tool, Arc<Notify>, Arc<Notify>) {
    let (begun, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, wait) = (begun.clone(), go.clone());
    let tool = Tool::new(move |_, work| {
        let (told, wait) = (told.clone(), wait.clone());
        async move {
            told.notify_one();
            wait.notified().await;
            Ok(work.n * 2)
        }
    });
    (tool, begun, go)
}

/// Tells of its end.
struct Tells(Arc<Notify>);

impl Drop for Tells {
    fn drop(&mut self) {
        self.0.notify_one();
    }
}

async fn attempts(world: &World) -> i64 {
    world.count("select count(*) from workflow.attempts where step_key = 'work'").await
}

/// What is left to do and what has been done, to see that nothing has changed.
async fn state(world: &World) -> Value {
    sqlx::query_scalar("select jsonb_agg(to_jsonb(t) order by id) from workflow.tasks t where kind = 'activity'")
        .fetch_one(&world.db)
        .await
        .unwrap()
}

#[sqlx::test(migrations = false)]
async fn a_worker_without_a_database_does_what_a_run_asks_for(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let server = Server::start(&world, 0).await;
    let request = TraceContext::root();
    let tool = Tool::new(move |cx, work| async move {
        assert_eq!(cx.trace_context().map(|t| t.trace_id()), Some(request.trace_id()));
        assert_eq!(TraceContext::current(), cx.trace_context());
        Ok(work.n * 2)
    });
    let (worker, stop) = run(worker(server.address, &tool).slots(4));
    let mut runs = Vec::new();
    for n in 0..10 {
        runs.push(request.scope(world.start(OneWork(Work::new(n)))).await);
    }
    for (n, run_id) in runs.into_iter().enumerate() {
        assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(2 * n as u32));
    }
    assert_eq!(
        world.count("select count(*) from workflow.attempts where worker like 'node:%' and outcome = 'ok'").await,
        10
    );
    stop.cancel();
    worker.await.unwrap().unwrap();
    world.stop().await;
}

#[sqlx::test(migrations = false)]
async fn failures_and_panics_of_remote_handlers_are_tried_again(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let server = Server::start(&world, 0).await;
    let tool = Tool::new(|cx, work| async move {
        match cx.task().attempt_no {
            1 => Err(Failure::transient("test.shaky", "once more")),
            2 => panic!("on purpose"),
            _ => Ok(work.n),
        }
    });
    let (_worker, _stop) = run(worker(server.address, &tool));
    assert_eq!(world.finish(OneWork(Work::new(7))).await.output_as::<u32>(), Some(7));
    let codes: Vec<String> = sqlx::query_scalar(
        "select failure ->> 'code' from workflow.attempts where outcome = 'failed' order by attempt_no",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert_eq!(codes, ["test.shaky", "workflow.panicked"]);
}

#[sqlx::test(migrations = false)]
async fn a_token_is_worth_nothing_in_other_hands(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    let server = Server::start(&world, 0).await;
    let task = server.claim("node").await;
    let before = state(&world).await;
    // A name that begins like the holder's, too.
    for thief in ["node2", "node:x", "nodes"] {
        let answers = server.every_call(thief, task.task_id, task.lease_token).await;
        assert!(answers.iter().all(|answer| *answer == (403, "lease.foreign".into())), "{answers:?}");
    }
    assert_eq!(state(&world).await, before);
    assert_eq!(server.complete("node", &task, 5).await, 204);
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(5));
    let late = server.every_call("node2", task.task_id, task.lease_token).await;
    assert!(late.iter().all(|answer| *answer == (403, "lease.foreign".into())), "{late:?}");
}

#[sqlx::test(migrations = false)]
async fn a_token_touches_no_task_but_its_own(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    world.start(OneWork(Work::new(1))).await;
    world.start(OneWork(Work::new(2))).await;
    let server = Server::start(&world, 0).await;
    let (one, other) = (server.claim("node").await, server.claim("node").await);
    let before = state(&world).await;
    for (task_id, token) in [
        (one.task_id, other.lease_token),
        (other.task_id, one.lease_token),
        (one.task_id, Uuid::new_v4()),
        (one.task_id + 1_000, one.lease_token),
        (i64::MAX, one.lease_token),
    ] {
        let answers = server.every_call("node", task_id, token).await;
        assert!(answers.iter().all(|answer| *answer == (403, "lease.foreign".into())), "{answers:?}");
    }
    assert_eq!(state(&world).await, before);
}

#[sqlx::test(migrations = false)]
async fn a_lease_that_ran_out_is_lost_to_its_holder(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    let server = Server::start(&world, 0).await;
    let late = server.claim("node").await;
    world.move_clock(Duration::from_secs(31)).await;
    let next = server.claim("node2").await;
    assert_eq!((next.task_id, next.attempt_no), (late.task_id, 2));
    let answers = server.every_call("node", late.task_id, late.lease_token).await;
    assert!(answers.iter().all(|answer| *answer == (409, "lease.lost".into())), "{answers:?}");
    assert_eq!(server.complete("node2", &next, 2).await, 204);
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(2));
}

#[sqlx::test(migrations = false)]
async fn a_report_sent_twice_is_answered_twice_and_counts_once(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    let server = Server::start(&world, 0).await;
    let task = server.claim("node").await;
    assert_eq!(server.complete("node", &task, 1).await, 204);
    assert_eq!(server.complete("node", &task, 2).await, 204);
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(1));
    assert_eq!(attempts(&world).await, 1);
    let fail = json!({ "lease_token": task.lease_token, "failure": Failure::permanent("test.late", "no") });
    let (status, problem) = server.call("node", &format!("tasks/{}/fail", task.task_id), fail).await;
    assert_eq!((status, &problem["code"]), (409, &json!("lease.lost")));
}

#[sqlx::test(migrations = false)]
async fn a_failure_that_is_told_after_the_lease_was_lost_ends_the_attempt_if_nobody_else_has_begun(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let run_id = world.start(OneWork(Work::new(1))).await;
    let server = Server::start(&world, 0).await;
    let task = server.claim("node").await;
    world.move_clock(Duration::from_secs(31)).await;
    world.until(1, "select count(*) from workflow.attempts where outcome = 'lost' and step_key = 'work'").await;
    let fail = json!({ "lease_token": task.lease_token, "failure": Failure::permanent("test.late", "it was so") });
    let (status, problem) = server.call("node", &format!("tasks/{}/fail", task.task_id), fail).await;
    assert_eq!(status, 204, "{problem}");
    assert_eq!(world.end(run_id).await.state, RunState::Failed);
    let told = "select count(*) from workflow.attempts where failure ->> 'code' = 'test.late' and step_key = 'work'";
    assert_eq!(world.count(told).await, 1);
}

#[sqlx::test(migrations = false)]
async fn callers_and_queues_are_what_the_application_says(db: PgPool) {
    let world = World::new(db).await;
    let server = Server::start(&world, 0).await;
    let claim = json!({ "incarnation": Uuid::new_v4() });
    let with = |field: &str, value: Value| {
        let mut asked = claim.clone();
        asked[field] = value;
        asked
    };
    let many: std::collections::BTreeMap<String, String> = (0..8193).map(|n| (n.to_string(), String::new())).collect();
    for (name, body, status, code) in [
        ("stranger", claim.clone(), 401, "worker.unknown"),
        ("node", with("queues", json!(["workflows"])), 403, "queue.forbidden"),
        ("node", with("queues", json!(["work", "payments"])), 403, "queue.forbidden"),
        ("node", with("labels", json!(many)), 422, "request.invalid"),
        ("node", json!({ "incarnation": "none" }), 422, "request.invalid"),
        (&format!("node{}", "x".repeat(200)), claim.clone(), 422, "request.invalid"),
    ] {
        let (answered, problem) = server.call(name, "claims", body).await;
        assert_eq!((answered, problem["code"].as_str()), (status, Some(code)), "{problem}");
    }
    assert_eq!(server.call("node", "claims", claim).await.0, 204, "there is no work, and nobody waits");
    let refused = run(worker(server.address, &Tool::doubling()).credential("stranger")).0.await.unwrap();
    assert!(matches!(refused, Err(CallError::Refused { status: 401, .. })), "{refused:?}");
}

#[sqlx::test(migrations = false)]
async fn a_claim_is_answered_when_work_comes_and_names_what_the_worker_can_do(db: PgPool) {
    let mut world = World::new(db).await;
    let server = Server::start(&world, 0).await;
    let asked = |activities: Value, seconds: f64| json!({ "incarnation": Uuid::new_v4(), "activities": activities, "wait_seconds": seconds });
    let (answer, ()) = futures::future::join(server.call("node", "claims", asked(json!(["Work"]), 25.0)), async {
        world.worker(|w| w.workflow::<OneWork>());
        world.start(OneWork(Work::new(1))).await;
    })
    .await;
    assert_eq!((answer.0, &answer.1["tasks"][0]["activity"]), (200, &json!("Work")));
    world.start(OneWork(Work::new(2))).await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity' and state = 'ready'").await;
    assert_eq!(server.call("node", "claims", asked(json!(["Play"]), 0.0)).await.0, 204);
    assert_eq!(server.call("node", "claims", asked(json!([]), 0.0)).await.0, 200);
}

#[sqlx::test(migrations = false)]
async fn a_cut_shorter_than_the_lease_costs_nothing(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let server = Server::start(&world, 0).await;
    let wire = Wire::to(server.address).await;
    let (tool, begun, go) = patient();
    let (_worker, _stop) = run(worker(wire.address, &tool));
    let run_id = world.start(leased_for(21, 8.0)).await;
    begun.notified().await;
    wire.cut.send_replace(true);
    // The work is done while nobody can be told, and two renewals fail.
    go.notify_one();
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!(attempts(&world).await, 0, "the cut is real");
    wire.cut.send_replace(false);
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(42));
    assert_eq!((tool.count(), attempts(&world).await), (1, 1));
}

#[sqlx::test(migrations = false)]
async fn a_cut_longer_than_the_lease_ends_the_attempt_on_both_sides(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let server = Server::start(&world, 0).await;
    let wire = Wire::to(server.address).await;
    let (begun, stopped) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (told, tells) = (begun.clone(), stopped.clone());
    let tool = Tool::new(move |cx, work| {
        let (told, tells) = (told.clone(), tells.clone());
        async move {
            if cx.task().attempt_no > 1 {
                return Ok(work.n);
            }
            told.notify_one();
            // Dropped with the attempt.
            let _end = Tells(tells);
            std::future::pending().await
        }
    });
    let (_worker, _stop) = run(worker(wire.address, &tool));
    let run_id = world.start(leased_for(3, 1.0)).await;
    begun.notified().await;
    wire.cut.send_replace(true);
    stopped.notified().await;
    world.until(1, "select count(*) from workflow.attempts where outcome = 'lost' and step_key = 'work'").await;
    wire.cut.send_replace(false);
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(3));
    assert_eq!(tool.count(), 2);
}

#[sqlx::test(migrations = false)]
async fn a_server_may_restart_under_its_workers(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let server = Server::start(&world, 0).await;
    let (tool, begun, go) = patient();
    let (_worker, _stop) = run(worker(server.address, &tool).slots(2));
    let first = world.start(leased_for(1, 10.0)).await;
    begun.notified().await;
    let server = server.restart(&world).await;
    let second = world.start(leased_for(2, 10.0)).await;
    begun.notified().await;
    let _server = server.restart(&world).await;
    go.notify_waiters();
    assert_eq!(world.end(first).await.output_as::<u32>(), Some(2));
    assert_eq!(world.end(second).await.output_as::<u32>(), Some(4));
    assert_eq!((tool.count(), attempts(&world).await), (2, 2));
}

#[sqlx::test(migrations = false)]
async fn a_cancelled_run_stops_its_remote_handler(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let server = Server::start(&world, 0).await;
    let (begun, told) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (tells, hears) = (begun.clone(), told.clone());
    let tool = Tool::new(move |cx, _| {
        let (tells, hears) = (tells.clone(), hears.clone());
        async move {
            tells.notify_one();
            let failure = cx.ended().await;
            hears.notify_one();
            Err(failure)
        }
    });
    let (_worker, _stop) = run(worker(server.address, &tool));
    let run_id = world.start(leased_for(1, 1.5)).await;
    begun.notified().await;
    world.cancel(run_id).await;
    told.notified().await;
    assert_eq!(world.end(run_id).await.state, RunState::Cancelled);
}

#[sqlx::test(migrations = false)]
async fn a_worker_that_is_stopped_gives_back_what_it_has(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let server = Server::start(&world, 0).await;
    let (tool, begun, _) = patient();
    let (worker, stop) = run(worker(server.address, &tool).grace(Duration::ZERO));
    let run_id = world.start(OneWork(Work::new(1))).await;
    begun.notified().await;
    stop.cancel();
    worker.await.unwrap().unwrap();
    let task = world.activity(run_id, "work").await;
    assert_eq!((task.state.as_str(), task.failures, task.losses), ("ready", 0, 0));
}

/// A process that does not outlive its test.
struct Process(Child);

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Not a test: the process that the test below starts.
#[tokio::test]
#[ignore = "a remote worker for another test"]
async fn remote_process() {
    let Ok(address) = std::env::var(SERVER) else { return };
    let known: Vec<String> = std::env::vars().map(|(name, _)| name).collect();
    assert_eq!(known, [SERVER], "this process knows of no database");
    let tool = Tool::doubling();
    worker(address.parse().unwrap(), &tool).run(CancellationToken::new()).await.unwrap();
}

#[sqlx::test(migrations = false)]
async fn a_process_that_knows_of_no_database_does_the_work(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<OneWork>());
    let server = Server::start(&world, 0).await;
    let process = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "remote::remote_process", "--ignored", "--nocapture"])
        .env_clear()
        .env(SERVER, server.address.to_string())
        .stdout(Stdio::null())
        .spawn();
    let _process = Process(process.unwrap());
    assert_eq!(world.finish(OneWork(Work::new(21))).await.output_as::<u32>(), Some(42));
}
