//! `flatrender up` on real processes: found, refused twice, stopped without a trace.

use crate::fake::{ending, program};
use crate::postgres::folder;
use flatrender_api::platform::data_dir::{DataDir, ServerFile};
use flatrender_api::platform::process;
use nix::sys::signal::Signal;
use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};
use tokio::process::Child;

const PATIENCE: Duration = Duration::from_secs(90);

/// A platform on `dir/data`, once it can be used.
async fn up(dir: &Path) -> (Child, ServerFile) {
    let mut command = program(dir, &["up", "--listen", "127.0.0.1:0", "--no-stills"]);
    // What a shell says of another PostgreSQL is not about the private one.
    command
        .env("PGHOST", "db.invalid")
        .env("PGPORT", "6543")
        .env("PGSSLMODE", "verify-full")
        .env("PGDATABASE", "other");
    let mut child = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let (data, begun) = (DataDir::choose(Some(&dir.join("data"))).unwrap(), Instant::now());
    loop {
        if let Some(server) = data.server().filter(|s| Some(s.pid as u32) == child.id()) {
            return (child, server);
        }
        assert!(child.try_wait().unwrap().is_none(), "the platform ended at start");
        assert!(begun.elapsed() < PATIENCE, "the platform does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Processes with `dir` in their command line. Known on Linux only.
fn processes_of(dir: &Path) -> Vec<String> {
    let mark = dir.to_string_lossy().into_owned();
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let lines = entries.filter_map(|e| std::fs::read(e.path().join("cmdline")).ok());
    lines.map(|line| String::from_utf8_lossy(&line).replace('\0', " ")).filter(|line| line.contains(&mark)).collect()
}

async fn gone(dir: &Path) {
    let begun = Instant::now();
    while !processes_of(dir).is_empty() {
        assert!(begun.elapsed() < PATIENCE, "still there: {:?}", processes_of(dir));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_platform_is_found_and_stops_without_a_trace() {
    let Some(dir) = folder() else { return };
    let (child, server) = up(dir.path()).await;
    let out = program(dir.path(), &["templates", "--json"]).output().await.unwrap();
    let list: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap();
    assert_eq!(list["data"].as_array().map(Vec::len), Some(3), "{list}");

    let (code, line) = ending(&program(dir.path(), &["up", "--listen", "127.0.0.1:0"]).output().await.unwrap());
    assert!(code == 2 && line.contains("already runs on") && line.contains(&server.url), "{line}");

    let key = std::fs::read_to_string(dir.path().join("data/api-key")).unwrap();
    process::signal(server.pid, Signal::SIGTERM);
    let out = child.wait_with_output().await.unwrap();
    assert!(out.status.success());
    assert!(processes_of(dir.path()).is_empty() && !dir.path().join("data/server.json").exists());

    let (child, _) = up(dir.path()).await;
    assert_eq!(std::fs::read_to_string(dir.path().join("data/api-key")).unwrap(), key, "the key still works");
    process::signal(child.id().unwrap() as i32, Signal::SIGINT);
    assert!(child.wait_with_output().await.unwrap().status.success());
}

#[tokio::test]
async fn a_killed_platform_is_taken_up_by_the_next() {
    let Some(dir) = folder() else { return };
    let (mut child, server) = up(dir.path()).await;
    process::signal(server.pid, Signal::SIGKILL);
    child.wait().await.unwrap();
    assert_eq!(DataDir::choose(Some(&dir.path().join("data"))).unwrap().server(), None, "a dead server is not found");
    let (child, _) = up(dir.path()).await;
    process::signal(child.id().unwrap() as i32, Signal::SIGTERM);
    assert!(child.wait_with_output().await.unwrap().status.success());
    gone(dir.path()).await;
}

#[tokio::test]
async fn a_platform_started_for_a_command_ends_with_it() {
    let Some(dir) = folder() else { return };
    let mut command = program(dir.path(), &["up", "--listen", "127.0.0.1:0", "--exit-with-parent"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let lifeline = child.stdin.take();
    let data = DataDir::choose(Some(&dir.path().join("data"))).unwrap();
    let begun = Instant::now();
    while data.server().is_none() {
        assert!(begun.elapsed() < PATIENCE, "the platform does not start");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    drop(lifeline);
    assert!(child.wait().await.unwrap().success());
    gone(dir.path()).await;
}
