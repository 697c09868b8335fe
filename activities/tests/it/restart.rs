//! The program `flatrender-node`, killed and started again: no process stays behind, no frame is lost or doubled.
#![cfg(unix)]

use crate::{
    agent::{Scene, processes_left},
    ledger::{State, TOKEN},
    world::{install, stand_in, until},
};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::json;
use std::process::{Child, Command, Stdio};

impl Scene {
    fn program(&self) -> Node {
        let mut command = self.command();
        command.arg("--data").arg(self.data.path()).arg("--renderer").arg(stand_in());
        Node(command.spawn().unwrap())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_flatrender-node"));
        command
            .args(["--server", &self.config.server, "--name", "node-1", "--drain-seconds", "0"])
            .args(["--disk-reserve-gb", "0"])
            .env("FLATRENDER_NODE_TOKEN", TOKEN)
            .env("RUST_LOG", "warn")
            .stdout(Stdio::null());
        command
    }
}

/// The running program; killed when the test ends early.
struct Node(Child);

impl Node {
    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    async fn ended(&mut self) -> std::process::ExitStatus {
        let mut status = None;
        let begun = std::time::Instant::now();
        while status.is_none() && begun.elapsed().as_secs() < 30 {
            status = self.0.try_wait().unwrap();
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        status.expect("the program must end")
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[tokio::test]
async fn a_node_that_is_told_of_no_folder_renders_below_the_one_it_is_started_in() {
    let scene = Scene::new(json!({}), 10.0).await;
    install(&scene.data.path().join("programs"));
    let mut command = scene.command();
    command.current_dir(scene.data.path()).env_remove("FLATRENDER_NODE_DATA").args(["--renderer", "programs/aerender"]);
    let _node = Node(command.spawn().unwrap());
    until("the task is over", || scene.books.is_over()).await;
    assert_eq!(scene.books.done().frames.len(), 10);
    assert!(scene.data.path().join("flatrender-node-data/credential.json").exists());
}

#[tokio::test]
async fn a_node_killed_in_a_render_kills_its_renderer_and_goes_on_when_it_is_back() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 }, "once": true }), 10.0).await;
    let mut node = scene.program();
    scene.stored(5).await;
    let token = scene.token();
    node.signal(Signal::SIGKILL);
    node.ended().await;
    assert!(processes_left(token), "the renderer does not notice");

    let _again = scene.program();
    until("the task is over", || scene.books.is_over()).await;
    assert!(!processes_left(token));
    until("nothing is kept", || scene.is_clean()).await;
    assert_eq!(scene.books.done().frames.len(), 10);
    let ledger = scene.books.open();
    assert_eq!((ledger.claims, ledger.puts, ledger.enrolments), (1, 10, 1), "the same attempt, each frame once");
}

#[tokio::test]
async fn a_node_killed_before_it_heard_that_its_frames_are_spoiled_says_so_when_it_is_back() {
    let silent = json!({ "hang": "after_finished", "once": true, "then": { "name": "logged_errors" } });
    let scene = Scene::new(silent, 10.0).await;
    let mut node = scene.program();
    scene.stored(10).await;
    node.signal(Signal::SIGKILL);
    node.ended().await;

    let _again = scene.program();
    until("the task is over", || scene.books.is_over()).await;
    let State::Failed(failure) = scene.books.state() else { panic!("nobody has heard of it") };
    assert_eq!(failure.code, "render.logged_errors");
    until("nothing is kept", || scene.is_clean()).await;
    assert_eq!(scene.books.open().claims, 1);
}

#[tokio::test]
async fn a_node_killed_after_it_heard_that_its_frames_are_spoiled_says_so_when_it_is_back_whoever_has_the_task() {
    let scene = Scene::new(json!({ "name": "logged_errors", "frame_ms": 150 }), 10.0).await;
    let mut node = scene.program();
    scene.stored(2).await;
    scene.books.open().down = true;
    until("it has heard it", || journal_says(&scene, "render.logged_errors")).await;
    node.signal(Signal::SIGKILL);
    node.ended().await;
    let puts = {
        let mut ledger = scene.books.open();
        ledger.lease();
        ledger.down = false;
        ledger.puts
    };

    let _again = scene.program();
    until("it is said", || scene.books.open().refused.iter().any(|call| call == "fail")).await;
    until("nothing is kept", || scene.is_clean()).await;
    let ledger = scene.books.open();
    assert_eq!((&ledger.state, ledger.puts), (&State::Leased, puts), "nothing is rendered for it any more");
}

/// What is written there, not yet renamed files left aside.
fn journal_says(scene: &Scene, words: &str) -> bool {
    let files = std::fs::read_dir(scene.data.path().join("journal")).into_iter().flatten().flatten();
    let entries = files.map(|file| file.path()).filter(|path| path.extension().is_some_and(|e| e == "json"));
    entries.filter_map(|path| std::fs::read_to_string(path).ok()).any(|text| text.contains(words))
}

#[tokio::test]
async fn a_node_that_is_back_too_late_cleans_up_and_says_nothing() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 10.0).await;
    let mut node = scene.program();
    scene.stored(5).await;
    let token = scene.token();
    node.signal(Signal::SIGKILL);
    node.ended().await;
    scene.books.open().lease();

    let _again = scene.program();
    until("the renderer is gone", || !processes_left(token)).await;
    until("nothing is kept", || scene.is_clean()).await;
    let ledger = scene.books.open();
    assert_eq!((&ledger.state, ledger.released, ledger.puts), (&State::Leased, 0, 5));
}

#[tokio::test]
async fn a_terminated_node_reports_what_it_has_and_ends_well() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 10.0).await;
    let mut node = scene.program();
    scene.stored(5).await;
    let token = scene.token();
    node.signal(Signal::SIGTERM);
    assert!(node.ended().await.success());
    assert!(!processes_left(token));
    assert_eq!(scene.books.done().frames.len(), 5);
}

#[tokio::test]
async fn a_second_signal_ends_the_node_at_once_and_its_renderer_with_it() {
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 10.0).await;
    let mut node = scene.program();
    scene.stored(5).await;
    let token = scene.token();
    // The report cannot be delivered, so the node would wait.
    scene.books.open().down = true;
    node.signal(Signal::SIGTERM);
    until("the renderer is gone", || !processes_left(token)).await;
    node.signal(Signal::SIGINT);
    assert!(!node.ended().await.success());
    assert!(!scene.is_clean(), "what it could not report is kept for the next start");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_renderer_does_not_see_the_nodes_token() {
    use flatrender_activities::agent::journal::Journal;
    let scene = Scene::new(json!({ "hang": { "frame": 15 } }), 10.0).await;
    let node = scene.program();
    scene.stored(5).await;
    let environ = |pid: u32| std::fs::read(format!("/proc/{pid}/environ")).unwrap();
    let sees = |pid: u32| String::from_utf8_lossy(&environ(pid)).contains(TOKEN);
    let journal = Journal::open(scene.data.path().join("journal")).unwrap();
    let renderer = journal.entries()[0].renderer.clone().unwrap();
    assert_eq!((sees(node.0.id()), sees(renderer.pid)), (true, false));
    let token = scene.token();
    node.signal(Signal::SIGTERM);
    until("the renderer is gone", || !processes_left(token)).await;
}
