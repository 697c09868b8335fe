//! Stills that come together, by an agent with After Effects: one start for all of them, and each reported by itself.
#![cfg(unix)]

use crate::{
    ledger::CREDENTIAL,
    world::{SIZE, blob, install, limits, until, zip},
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{get, head, post},
};
use flatrender_activities::agent::{
    self, AgentConfig,
    journal::{Entry, Journal},
};
use flatrender_engine::{Labels, LeasedTask};
use flatrender_workflows::contracts::{
    node::{Claimed, Complete, Enrolled, Fail, KeptFrames, Orders, Renewed},
    render::{Engine, RenderData},
    snapshot::{RenderStills, Still},
    storage::BlobRef,
};
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    os::unix::fs::PermissionsExt as _,
    path::{Path as File, PathBuf},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// What the server has given out, and what it was told.
#[derive(Default)]
struct Desk {
    tasks: Vec<LeasedTask>,
    package: Vec<u8>,
    /// Frames by task and hash.
    frames: HashMap<(i64, String), Vec<u8>>,
    done: BTreeMap<i64, Still>,
    failed: BTreeMap<i64, String>,
    /// Renewals and reports, in order.
    calls: Vec<(&'static str, i64)>,
}

impl Desk {
    /// The tasks whose leases were renewed before any task was reported.
    fn before_any_report(&self) -> BTreeSet<i64> {
        self.calls.iter().take_while(|(call, _)| *call == "renew").map(|(_, task)| *task).collect()
    }
}

#[derive(Clone, Default)]
struct Server(Arc<Mutex<Desk>>);

impl Server {
    fn open(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap()
    }

    async fn start(&self) -> String {
        let tasks = Router::new()
            .route("/renew", post(renew))
            .route("/complete", post(complete))
            .route("/fail", post(fail))
            .route("/inputs/{sha256}", get(async |State(server): State<Self>| server.open().package.clone()))
            .route("/frames", get(async || Json(KeptFrames { frames: vec![] })).post(async || StatusCode::NO_CONTENT))
            .route("/frames/{sha256}", head(has_frame).put(put_frame));
        let enrol = async || Json(Enrolled { node_id: Uuid::new_v4(), credential: CREDENTIAL.into() });
        let nodes = Router::new()
            .route("/enrol", post(enrol))
            .route("/claims", post(claim))
            .route("/hello", post(async || Json(Orders::default())))
            .route("/health", post(async || Json(Orders::default())))
            .nest("/tasks/{task}", tasks)
            .with_state(self.clone());
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().nest("/v1/nodes", nodes)).await });
        address
    }
}

async fn claim(State(server): State<Server>) -> Response {
    let tasks = std::mem::take(&mut server.open().tasks);
    if tasks.is_empty() {
        tokio::time::sleep(Duration::from_millis(200)).await;
        return StatusCode::NO_CONTENT.into_response();
    }
    Json(Claimed { tasks }).into_response()
}

async fn renew(State(server): State<Server>, Path(task): Path<i64>) -> Json<Renewed> {
    server.open().calls.push(("renew", task));
    Json(Renewed { cancelled: false, lease_seconds: 30.0 })
}

async fn complete(State(server): State<Server>, Path(task): Path<i64>, Json(body): Json<Complete>) -> StatusCode {
    server.open().calls.push(("complete", task));
    server.open().done.insert(task, serde_json::from_value(body.output).unwrap());
    StatusCode::NO_CONTENT
}

async fn fail(State(server): State<Server>, Path(task): Path<i64>, Json(body): Json<Fail>) -> StatusCode {
    server.open().failed.insert(task, body.failure.code);
    StatusCode::NO_CONTENT
}

async fn has_frame(State(server): State<Server>, Path(frame): Path<(i64, String)>) -> StatusCode {
    if server.open().frames.contains_key(&frame) { StatusCode::OK } else { StatusCode::NOT_FOUND }
}

async fn put_frame(State(server): State<Server>, Path(frame): Path<(i64, String)>, body: Bytes) -> StatusCode {
    server.open().frames.insert(frame, body.to_vec());
    StatusCode::CREATED
}

/// After Effects' two programs, which write down that they were started.
pub fn listening_install(folder: &File) -> (PathBuf, PathBuf) {
    let real = install(&folder.join("real"));
    let (bin, calls) = (folder.join("bin"), folder.join("calls"));
    std::fs::create_dir(&bin).unwrap();
    for (name, version) in
        [("aerender", "[ \"$1\" = -version ] && echo 'aerender version 24.0x1' && exit\n"), ("AfterFX", "")]
    {
        let program = real.with_file_name(name);
        let script =
            format!("#!/bin/sh\n{version}echo {name} >> '{}'\nexec '{}' \"$@\"\n", calls.display(), program.display());
        std::fs::write(bin.join(name), script).unwrap();
        std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
    }
    (bin.join("aerender"), calls)
}

fn task(id: i64, scene: &str, frame: u32, package: BlobRef) -> LeasedTask {
    let still = RenderStills {
        job_id: Uuid::new_v4(),
        engine: Engine::AfterEffects,
        package,
        package_owner: Uuid::nil(),
        scene: scene.into(),
        composition: format!("scene:{scene}"),
        frame,
        data: RenderData {
            version: 1,
            texts: BTreeMap::from([(scene.to_owned(), format!("words of {scene}"))]),
            ..RenderData::default()
        },
        size: SIZE,
        fps: 30,
        needs: Labels::new(),
    };
    LeasedTask {
        task_id: id,
        run_id: Uuid::new_v4(),
        tenant_id: Uuid::nil(),
        key: "render:1".into(),
        activity: "RenderStills".into(),
        input: serde_json::to_value(still).unwrap(),
        attempt_no: 1,
        lease_token: Uuid::new_v4(),
        lease_seconds: 30.0,
        start_to_close_seconds: 300.0,
        traceparent: None,
    }
}

/// Gives an agent stills of these scenes at once and waits until it has told of each; the starts of After Effects' programs.
async fn visit(server: &Server, scenes: &[(&str, u32)]) -> Vec<String> {
    server.offer(scenes, &json!({}));
    play(server, &tempfile::tempdir().unwrap(), scenes.len()).await
}

impl Server {
    /// Has stills of these scenes for whoever asks, of a package in which `scenario` goes wrong.
    fn offer(&self, scenes: &[(&str, u32)], scenario: &Value) {
        let scene = |id: &str| -> Value {
            json!({ "name": format!("scene:{id}"), "frames": 60, "size": SIZE,
                    "layers": [{ "name": format!("txt:{id}"), "text": { "words": "-" } }] })
        };
        let project = json!({
            "compositions": [scene("a"), scene("b"), scene("c")], "queue": [{ "composition": "scene:a", "span": [0, 3] }],
        });
        let package =
            zip(&[("project.aep", project.to_string().as_bytes()), ("scenario.json", scenario.to_string().as_bytes())]);
        let of = |(n, (id, frame)): (usize, &(&str, u32))| task(n as i64 + 1, id, *frame, blob(&package));
        self.open().tasks = scenes.iter().enumerate().map(of).collect();
        self.open().package = package;
    }
}

/// Starts an agent that keeps its things in `folder` and waits until it has told of so many stills; the starts of After Effects' programs.
async fn play(server: &Server, folder: &tempfile::TempDir, stills: usize) -> Vec<String> {
    let (renderer, calls) = listening_install(folder.path());
    let config = AgentConfig {
        token: Some("token".into()),
        name: "node-1".into(),
        renderers: vec![renderer],
        limits: limits(),
        claim_wait: Duration::from_millis(200),
        drain_grace: Duration::ZERO,
        disk_reserve_bytes: 0,
        retry: (Duration::from_millis(20), Duration::from_millis(100)),
        ..AgentConfig::new(server.start().await, folder.path().join("data"))
    };
    let shutdown = CancellationToken::new();
    let node = tokio::spawn(agent::run(config, shutdown.clone()));
    let told = || {
        let desk = server.open();
        desk.done.len() + desk.failed.len()
    };
    until("every still was told of", || told() == stills).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
    for kept in ["journal", "attempts"] {
        let kept = std::fs::read_dir(folder.path().join("data").join(kept)).map_or(0, Iterator::count);
        assert_eq!(kept, 0, "nothing is kept");
    }
    std::fs::read_to_string(calls).unwrap().lines().map(str::to_owned).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn after_effects_is_started_once_for_all_stills_of_a_visit() {
    let server = Server::default();
    let calls = visit(&server, &[("a", 7), ("b", 0), ("c", 59)]).await;
    assert_eq!(calls, ["AfterFX", "aerender"]);
    let desk = server.open();
    let mut pictures = BTreeSet::new();
    for (task, still) in &desk.done {
        let Still::Rendered(still) = still else { panic!("{still:?}") };
        let hash = still.frame.sha256.to_string();
        assert!(desk.frames.contains_key(&(*task, hash.clone())), "it is stored with its own task");
        pictures.insert(hash);
    }
    assert_eq!((pictures.len(), desk.frames.len()), (3, 3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_still_that_cannot_be_made_keeps_no_other_of_its_visit_from_being_made() {
    let server = Server::default();
    visit(&server, &[("a", 7), ("nowhere", 0), ("c", 59)]).await;
    let desk = server.open();
    assert_eq!(desk.done.keys().copied().collect::<Vec<_>>(), [1, 3]);
    assert_eq!(desk.failed, BTreeMap::from([(2, "render.comp_not_found".to_owned())]));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_still_that_waits_for_others_of_its_visit_is_written_down_and_keeps_its_lease_meanwhile() {
    let (server, folder) = (Server::default(), tempfile::tempdir().unwrap());
    server.offer(&[("a", 7), ("b", 0), ("a", 9)], &json!({ "frame_ms": 1500 }));
    // Other words in the same scene: it cannot be shown together with the first.
    server.open().tasks[2].input["data"]["texts"]["a"] = json!("other words");
    server.open().tasks.iter_mut().for_each(|task| task.lease_seconds = 1.0);
    let written = || {
        let entries = std::fs::read_dir(folder.path().join("data/journal")).into_iter().flatten().flatten();
        entries.filter(|entry| entry.path().extension().is_some_and(|ending| ending == "json")).count()
    };
    let watching =
        until("all are written down before any is reported", || written() == 3 && server.open().done.is_empty());
    tokio::join!(play(&server, &folder, 3), watching);
    let desk = server.open();
    assert_eq!((desk.done.len(), &desk.failed), (3, &BTreeMap::new()));
    assert!(desk.before_any_report().contains(&3), "{:?}", desk.calls);
}

#[tokio::test(flavor = "multi_thread")]
async fn attempts_of_an_earlier_process_keep_their_leases_while_they_wait_for_a_slot() {
    let (server, folder) = (Server::default(), tempfile::tempdir().unwrap());
    server.offer(&[("a", 7), ("b", 0)], &json!({ "frame_ms": 1500 }));
    let journal = Journal::open(folder.path().join("data/journal")).unwrap();
    let tasks = std::mem::take(&mut server.open().tasks);
    for task in tasks {
        journal.write(&Entry::new(task)).unwrap();
    }
    play(&server, &folder, 2).await;
    let desk = server.open();
    assert_eq!(desk.before_any_report(), BTreeSet::from([1, 2]), "{:?}", desk.calls);
}
