//! Whatever is killed, the same film comes out.

use crate::platform::Platform;
use std::time::Duration;
use uuid::Uuid;

/// Hash of every accepted frame, in order.
async fn frames(platform: &Platform, id: &str) -> Vec<String> {
    let sql = "select sha256 from render.frame_manifests where render_job_id = $1 order by frame_no";
    sqlx::query_scalar(sql).bind(Uuid::parse_str(id).unwrap()).fetch_all(&platform.db).await.unwrap()
}

async fn count(platform: &Platform, sql: &'static str, id: &str) -> i64 {
    sqlx::query_scalar(sql).bind(Uuid::parse_str(id).unwrap()).fetch_one(&platform.db).await.unwrap()
}

const RENDERING_NODES: &str = "select count(distinct worker) from workflow.attempts a
    join render.render_jobs j on j.workflow_run_id = a.run_id where j.id = $1 and a.step_key like 'render:%'";
const ATTEMPTS_LOST: &str = "select count(*) from workflow.attempts a
    join render.render_jobs j on j.workflow_run_id = a.run_id where j.id = $1 and a.outcome <> 'ok'";
const EXPORTS: &str = "select count(*) from render.exports where render_job_id = $1";
/// Without those that note what became of renders: one that was killed is noted, and what is missing is rendered again.
const STEPS: &str = "select count(*) from workflow.steps s
    join render.render_jobs j on j.workflow_run_id = s.run_id
    where j.id = $1 and s.kind = 'step' and s.key !~ '^(warn|note|repair|accept):'";

/// One kill every so often, a victim after the other, until the render has ended.
async fn disturb(platform: &mut Platform, id: &str) -> u32 {
    let mut kills = 0;
    loop {
        // Uneven, so that the victims are met at other moments in each round.
        tokio::time::sleep(Duration::from_millis(350 + u64::from(kills * 137 % 400))).await;
        if platform.render(id).await.is_some_and(|r| !r["finished_at"].is_null()) {
            return kills;
        }
        match kills % 6 {
            0 => platform.kill_renderers(),
            1 => platform.kill_and_restart_worker(),
            n @ (2 | 3) => {
                let node = (n - 2) as usize;
                platform.kill_node(node);
                platform.start_node(node);
            }
            4 => platform.kill_postgres(),
            _ => platform.kill_and_restart_api(),
        }
        kills += 1;
        // From here on let it come to an end: what is killed for ever never ends.
        if kills >= 24 {
            platform.until(id, |r| !r["finished_at"].is_null()).await;
            return kills;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_worker_node_renderer_api_and_postgres_changes_no_frame() {
    let mut platform = Platform::start(2).await;
    platform.give_credits().await;
    let calm = platform.order(360).await;
    let calm_film = platform.completed(&calm).await;
    assert_eq!(count(&platform, RENDERING_NODES, &calm).await, 2, "two nodes share a render");

    let disturbed = platform.order(360).await;
    let kills = disturb(&mut platform, &disturbed).await;
    let film = platform.completed(&disturbed).await;
    assert!(kills >= 6, "{kills} kills only");
    assert!(count(&platform, ATTEMPTS_LOST, &disturbed).await > 0, "no kill met an attempt");
    assert_eq!(frames(&platform, &disturbed).await, frames(&platform, &calm).await);
    assert_eq!(film["export"]["sha256"], calm_film["export"]["sha256"], "the films differ");
    assert_eq!(count(&platform, EXPORTS, &disturbed).await, 1);
    assert_eq!(count(&platform, STEPS, &disturbed).await, count(&platform, STEPS, &calm).await);
    platform.has_charged_once(2).await;
    assert!(platform.renderers().is_empty(), "a renderer was left behind");
    platform.stop().await;
}
