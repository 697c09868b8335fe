//! A renderer that stands still while its node lives: another node does its frames, long before anybody calls it dead.

use crate::platform::Platform;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use std::time::{Duration, Instant};

/// A driver lets a renderer stand still for this long before it is ended.
const STALLED: Duration = Duration::from_secs(120);

fn works_for(pid: i32, node: &str) -> bool {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&line).contains(&format!("/{node}/"))
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_renderer_that_stands_still_are_made_by_another_node() {
    let platform = Platform::start(2).await;
    // How long frames of this template take is known from here on.
    platform.completed(&platform.order(360).await).await;
    let id = platform.order(360).await;
    let begun = Instant::now();
    let stopped = loop {
        let found = platform.renderers().into_iter().find(|pid| works_for(*pid, "node0"));
        if let Some(pid) = found.filter(|pid| kill(Pid::from_raw(*pid), Signal::SIGSTOP).is_ok()) {
            break pid;
        }
        assert!(begun.elapsed() < STALLED, "node0 renders");
        tokio::time::sleep(Duration::from_millis(2)).await;
    };
    platform.completed(&id).await;
    assert!(begun.elapsed() < STALLED, "{:?}", begun.elapsed());
    let again: Vec<String> = sqlx::query_scalar("select distinct split_part(worker, ':', 2) from workflow.attempts where step_key like '%:again'")
        .fetch_all(&platform.db)
        .await
        .unwrap();
    assert_eq!(again, ["node1"]);
    let begun = Instant::now();
    while platform.renderers().contains(&stopped) {
        assert!(begun.elapsed() < Duration::from_secs(20), "the overtaken node ends its renderer");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    platform.stop().await;
}
