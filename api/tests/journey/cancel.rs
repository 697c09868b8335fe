//! A render nobody wants any more.

use crate::platform::Platform;
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn cancelling_stops_the_renderers_process_tree_within_five_seconds() {
    let platform = Platform::start(1).await;
    let id = platform.order(1080).await;
    while platform.renderers().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let asked = Instant::now();
    platform.cancel(&id).await;
    while !platform.renderers().is_empty() {
        assert!(asked.elapsed() < Duration::from_secs(5), "the renderer still runs");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let render = platform.until(&id, |r| !r["finished_at"].is_null()).await;
    assert_eq!(
        (render["status"].as_str(), render["error"]["code"].as_str()),
        (Some("cancelled"), Some("workflow.cancelled"))
    );
    platform.stop().await;
}
