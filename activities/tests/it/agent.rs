//! The agent against a server: work is claimed, leases are kept, and a lost one ends everything.

use crate::{
    ledger::{Books, State, TOKEN},
    server,
    world::{self, drawn, limits, package, stand_in, until, wish},
};
use flatrender_activities::{
    aerender::process::census::{self, Mark},
    agent::{self, AgentConfig, AgentError, journal::Journal},
};
use flatrender_engine::TraceContext;
use flatrender_workflows::contracts::render::RenderFrames;
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// A server with one task, and a node.
pub struct Scene {
    pub books: Books,
    pub wish: RenderFrames,
    pub config: AgentConfig,
    pub data: tempfile::TempDir,
}

impl Scene {
    /// Frames 10 to 19 of a package in which `scenario` goes wrong; a lease lasts so many seconds.
    pub async fn new(scenario: Value, lease_seconds: f64) -> Self {
        let package = package(scenario);
        let wish = wish(&package, 10, 19);
        let books = Books::new(&package, &wish, Duration::from_secs_f64(lease_seconds));
        let data = tempfile::tempdir().unwrap();
        let server = server::start(books.clone()).await;
        let config = AgentConfig {
            token: Some(TOKEN.into()),
            name: "node-1".into(),
            renderers: vec![stand_in()],
            limits: limits(),
            claim_wait: Duration::from_millis(500),
            drain_grace: Duration::ZERO,
            pulse: Duration::from_millis(50),
            disk_reserve_bytes: 0,
            retry: (Duration::from_millis(20), Duration::from_millis(100)),
            ..AgentConfig::new(server, data.path())
        };
        Self { books, wish, config, data }
    }

    pub fn start(&self) -> (JoinHandle<Result<(), AgentError>>, CancellationToken) {
        let shutdown = CancellationToken::new();
        (tokio::spawn(agent::run(self.config.clone(), shutdown.clone())), shutdown)
    }

    /// Runs the node until the task is over, then stops it.
    pub async fn play(&self) {
        let (node, shutdown) = self.start();
        until("the task is over", || self.books.is_over() || node.is_finished()).await;
        shutdown.cancel();
        node.await.unwrap().unwrap();
    }

    pub fn token(&self) -> Uuid {
        self.books.open().task.lease_token
    }

    /// Whether the node keeps nothing of any attempt.
    pub fn is_clean(&self) -> bool {
        let empty = |name: &str| std::fs::read_dir(self.data.path().join(name)).map_or(0, Iterator::count) == 0;
        empty("journal") && empty("attempts")
    }

    pub async fn stored(&self, frames: usize) {
        until("frames are stored", || self.books.stored() == frames).await;
    }
}

pub fn processes_left(attempt: Uuid) -> bool {
    census::is_alive(None, &Mark::of(attempt)) == Some(true)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_call_about_a_task_names_the_trace_it_belongs_to() {
    let scene = Scene::new(json!({}), 1.0).await;
    let request = TraceContext::root();
    scene.books.open().task.traceparent = Some(request);
    scene.play().await;
    let ledger = scene.books.open();
    let stored = ledger.frames.len();
    assert_eq!(stored, 10);
    // The package, for each frame a question and the frame, and the report.
    assert!(ledger.traces.len() >= 2 * stored + 2, "{}", ledger.traces.len());
    let attempt = ledger.traces[0];
    assert_eq!(attempt.trace_id(), request.trace_id());
    assert_ne!(attempt.span_id(), request.span_id());
    assert!(ledger.traces.iter().all(|call| *call == attempt));
}

#[tokio::test]
async fn a_task_is_claimed_rendered_stored_and_reported() {
    let scene = Scene::new(json!({}), 15.0).await;
    scene.play().await;
    let rendered = scene.books.done();
    assert_eq!(rendered.faults, []);
    for frame in &rendered.frames {
        assert_eq!(scene.books.open().frames[&frame.blob.sha256], drawn(&scene.wish, frame.frame));
    }
    assert_eq!((rendered.frames.len(), scene.books.open().claims), (10, 1));
    assert!(scene.is_clean());
}

#[tokio::test]
async fn frames_that_an_earlier_attempt_has_stored_are_neither_rendered_nor_reported() {
    let scene = Scene::new(json!({}), 15.0).await;
    scene.books.open().kept = vec![10, 11, 15];
    scene.play().await;
    let rendered = scene.books.done();
    let numbers: Vec<u32> = rendered.frames.iter().map(|f| f.frame).collect();
    assert_eq!((numbers, rendered.faults), (vec![12, 13, 14, 16, 17, 18, 19], vec![]));
    assert_eq!(scene.books.open().puts, 7);
}

#[tokio::test]
async fn the_server_is_told_of_every_frame_that_is_stored() {
    let scene = Scene::new(json!({}), 15.0).await;
    scene.play().await;
    assert_eq!(scene.books.open().noted, (10..=19).collect());
}

#[tokio::test]
async fn a_frame_that_is_there_is_not_sent_again() {
    let scene = Scene::new(json!({}), 15.0).await;
    for frame in 10..=14 {
        let png = drawn(&scene.wish, frame);
        scene.books.open().frames.insert(world::blob(&png).sha256, png);
    }
    scene.play().await;
    assert_eq!(scene.books.done().frames.len(), 10);
    assert_eq!(scene.books.open().puts, 5);
}

#[tokio::test]
async fn a_wrong_token_is_final() {
    let mut scene = Scene::new(json!({}), 15.0).await;
    scene.config.token = Some("guessed".into());
    let (node, _) = scene.start();
    assert!(matches!(node.await.unwrap(), Err(AgentError::EnrolRefused(_))));
    scene.config.token = None;
    let (node, _) = scene.start();
    assert!(matches!(node.await.unwrap(), Err(AgentError::NotEnrolled)));
    assert_eq!(scene.books.open().claims, 0);
}

#[tokio::test]
async fn a_node_enrols_once_and_keeps_its_credential_to_itself() {
    let mut scene = Scene::new(json!({}), 15.0).await;
    let (node, shutdown) = scene.start();
    let path = scene.data.path().join("credential.json");
    until("it is enrolled", || path.exists()).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
    #[cfg(unix)]
    assert_eq!(std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap()) & 0o777, 0o600);
    scene.config.token = None;
    scene.books.open().state = State::Ready;
    scene.play().await;
    assert_eq!(scene.books.open().enrolments, 1);
}

#[tokio::test]
async fn a_credential_that_no_longer_holds_ends_the_node() {
    let mut scene = Scene::new(json!({}), 15.0).await;
    let kept = json!({ "server": scene.config.server, "node_id": Uuid::new_v4(), "credential": "revoked" });
    std::fs::write(scene.data.path().join("credential.json"), kept.to_string()).unwrap();
    scene.config.token = None;
    let (node, _) = scene.start();
    assert!(matches!(node.await.unwrap(), Err(AgentError::Refused(_))));
    scene.config.token = Some(TOKEN.into());
    scene.play().await;
    assert_eq!((scene.books.done().frames.len(), scene.books.open().enrolments), (10, 1), "a new token enrols it anew");
}

#[tokio::test]
async fn two_agents_do_not_share_a_folder() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 15.0).await;
    let (first, shutdown) = scene.start();
    scene.stored(5).await;
    let (second, _) = scene.start();
    assert!(matches!(second.await.unwrap(), Err(AgentError::FolderBusy { .. })));
    shutdown.cancel();
    first.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_lease_is_kept_and_progress_travels_with_it() {
    let scene = Scene::new(json!({ "frame_ms": 200 }), 0.6).await;
    scene.play().await;
    let ledger = scene.books.open();
    assert!(ledger.renewals >= 5, "{} renewals", ledger.renewals);
    assert_eq!(ledger.progress.total, 10);
    assert!(ledger.progress.done >= 1);
}

#[tokio::test]
async fn an_attempt_whose_lease_went_to_somebody_else_stops_and_says_nothing() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 1.0).await;
    let (node, shutdown) = scene.start();
    scene.stored(5).await;
    let stale = scene.token();
    assert!(processes_left(stale));
    scene.books.open().lease();
    until("the renderer is gone", || !processes_left(stale)).await;
    until("nothing is kept", || scene.is_clean()).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
    let ledger = scene.books.open();
    assert_eq!((&ledger.state, ledger.released), (&State::Leased, 0));
    assert!(!ledger.refused.contains(&"complete".to_owned()) && !ledger.refused.contains(&"fail".to_owned()));
}

#[tokio::test]
async fn a_cancelled_task_is_stopped_and_given_back() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 1.0).await;
    let (node, shutdown) = scene.start();
    scene.stored(5).await;
    let token = scene.token();
    scene.books.open().cancelled = true;
    until("it is given back", || scene.books.open().released == 1).await;
    assert!(!processes_left(token));
    until("nothing is kept", || scene.is_clean()).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_server_that_is_away_for_a_while_loses_nothing() {
    let scene = Scene::new(json!({ "frame_ms": 150 }), 0.5).await;
    let (node, shutdown) = scene.start();
    scene.stored(2).await;
    scene.books.open().down = true;
    let rendered = scene.data.path().join("attempts").join(scene.token().to_string()).join("frames/frame_00019.png");
    until("rendering goes on without the server", || rendered.exists()).await;
    scene.books.open().down = false;
    until("the task is over", || scene.books.is_over()).await;
    assert_eq!((scene.books.done().frames.len(), scene.books.open().claims), (10, 1));
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

/// Cuts a node off as it renders and waits until it has rendered everything without the server. The lease ends meanwhile.
async fn cut_off(scene: &Scene) {
    scene.stored(2).await;
    scene.books.open().down = true;
    let token = scene.token();
    let rendered = scene.data.path().join("attempts").join(token.to_string()).join("frames/frame_00019.png");
    until("rendering goes on without the server", || rendered.exists() && !processes_left(token)).await;
    scene.books.open().lease_ends = Instant::now();
}

/// Ten minutes go by for everything in this process that keeps time.
async fn ten_minutes() {
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(600)).await;
    tokio::time::resume();
}

/// A scene whose attempts may take as long as those of films.
async fn long_scene() -> Scene {
    let scene = Scene::new(json!({ "frame_ms": 150 }), 15.0).await;
    scene.books.open().task.start_to_close_seconds = 4.0 * 3600.0;
    scene
}

#[tokio::test]
async fn a_node_cut_off_for_ten_minutes_finishes_its_chunk_and_brings_it() {
    let scene = long_scene().await;
    let (node, shutdown) = scene.start();
    cut_off(&scene).await;
    ten_minutes().await;
    assert_eq!(Journal::open(scene.data.path().join("journal")).unwrap().entries().len(), 1, "it is remembered");
    scene.books.open().down = false;
    until("the task is over", || scene.books.is_over()).await;
    assert_eq!((scene.books.done().frames.len(), scene.books.open().claims), (10, 1));
    assert_eq!(scene.books.done().faults, []);
    assert_eq!(scene.books.open().puts, 10, "each frame once");
    until("nothing is kept", || scene.is_clean()).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_node_cut_off_for_ten_minutes_says_nothing_where_somebody_else_has_begun() {
    let scene = long_scene().await;
    let (node, shutdown) = scene.start();
    cut_off(&scene).await;
    let puts = scene.books.open().puts;
    ten_minutes().await;
    {
        let mut ledger = scene.books.open();
        ledger.lease();
        ledger.down = false;
    }
    until("nothing is kept", || scene.is_clean()).await;
    {
        let ledger = scene.books.open();
        assert_eq!((&ledger.state, ledger.puts, ledger.released), (&State::Leased, puts, 0));
        assert!(!ledger.refused.iter().any(|call| call == "complete" || call == "fail"), "{:?}", ledger.refused);
    }
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

#[tokio::test]
async fn an_agent_that_dies_while_it_is_cut_off_brings_what_its_journal_says_when_it_is_back() {
    let scene = long_scene().await;
    let (node, _) = scene.start();
    cut_off(&scene).await;
    node.abort();
    assert!(node.await.unwrap_err().is_cancelled());
    ten_minutes().await;
    let (node, shutdown) = scene.start();
    scene.books.open().down = false;
    until("the task is over", || scene.books.is_over()).await;
    assert_eq!((scene.books.done().frames.len(), scene.books.open().claims), (10, 1));
    assert_eq!(scene.books.open().puts, 10, "each frame once, and none is rendered again");
    until("nothing is kept", || scene.is_clean()).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_wall_before_the_server_ends_neither_an_attempt_nor_the_node() {
    let scene = Scene::new(json!({ "frame_ms": 100 }), 0.5).await;
    let credential = scene.data.path().join("credential.json");
    let (node, shutdown) = scene.start();
    scene.stored(2).await;
    let before = std::fs::read(&credential).unwrap();
    let rendered = scene.data.path().join("attempts").join(scene.token().to_string()).join("frames/frame_00019.png");
    scene.books.open().wall = Some(403);
    until("rendering goes on without the server", || rendered.exists()).await;
    scene.books.open().wall = None;
    until("the task is over", || scene.books.is_over()).await;
    assert_eq!((scene.books.done().frames.len(), scene.books.open().claims), (10, 1));
    for status in [401, 403, 404, 405, 400] {
        scene.books.open().wall = Some(status);
        let walled = scene.books.open().walled;
        until("it asks for work", || scene.books.open().walled > walled + 1 || node.is_finished()).await;
        assert!(!node.is_finished(), "{status}");
    }
    assert_eq!(std::fs::read(&credential).unwrap(), before);
    scene.books.open().wall = None;
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_credential_is_there_until_another_takes_its_place() {
    let scene = Scene::new(json!({}), 15.0).await;
    scene.play().await;
    let path = scene.data.path().join("credential.json");
    let revoked = std::fs::read_to_string(&path).unwrap().replace("secret", "revoked");
    std::fs::write(&path, &revoked).unwrap();
    let (node, _shutdown) = scene.start();
    let ended = node.await.unwrap();
    assert!(matches!(ended, Err(AgentError::EnrolRefused(_))), "its token is used up: {ended:?}");
    assert_eq!(std::fs::read_to_string(&path).unwrap(), revoked);
}

#[tokio::test]
async fn a_server_that_stays_away_ends_the_attempt() {
    let mut scene = Scene::new(json!({ "hang": { "frame": 15 } }), 0.3).await;
    scene.config.offline_patience = Duration::from_secs(1);
    let (node, shutdown) = scene.start();
    scene.stored(5).await;
    let token = scene.token();
    scene.books.open().down = true;
    until("the renderer is gone", || !processes_left(token)).await;
    until("nothing is kept", || scene.is_clean()).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_package_with_another_content_fails_the_attempt() {
    let scene = Scene::new(json!({}), 15.0).await;
    let announced = scene.wish.package.sha256.clone();
    scene.books.open().inputs.insert(announced, b"something else".to_vec());
    scene.play().await;
    let State::Failed(failure) = scene.books.state() else { panic!("it must fail") };
    assert_eq!((failure.code.as_str(), failure.retryable), ("render.hash_mismatch", true));
    assert!(scene.is_clean());
}

#[tokio::test]
async fn a_node_that_goes_away_reports_the_frames_it_has() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 15.0).await;
    let (node, shutdown) = scene.start();
    scene.stored(5).await;
    let token = scene.token();
    shutdown.cancel();
    node.await.unwrap().unwrap();
    let rendered = scene.books.done();
    assert_eq!((rendered.frames.len(), rendered.faults.len()), (5, 5));
    assert!(!processes_left(token) && scene.is_clean());
}

#[tokio::test]
async fn a_node_that_goes_away_without_a_frame_gives_the_task_back() {
    let scene = Scene::new(json!({ "hang": { "frame": 10 } }), 15.0).await;
    let (node, shutdown) = scene.start();
    until("it renders", || scene.books.open().claims == 1 && processes_left(scene.token())).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
    assert_eq!(scene.books.open().released, 1);
    assert!(scene.is_clean());
}

#[tokio::test]
async fn a_full_disk_claims_nothing() {
    let mut scene = Scene::new(json!({}), 15.0).await;
    scene.config.disk_reserve_bytes = u64::MAX;
    let (node, shutdown) = scene.start();
    until("it is enrolled", || scene.data.path().join("credential.json").exists()).await;
    let claimed = until("it claims", || scene.books.open().claims > 0);
    assert!(tokio::time::timeout(Duration::from_millis(500), claimed).await.is_err());
    assert_eq!(scene.books.open().enrolments, 1);
    until("it says why", || scene.books.open().healths.last().is_some_and(|health| health.is_full)).await;
    shutdown.cancel();
    node.await.unwrap().unwrap();
}
