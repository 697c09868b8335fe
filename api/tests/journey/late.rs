//! A renderer that stands still while its node lives: another node makes its frames, long before anybody calls it dead.

use crate::platform::Platform;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use uuid::Uuid;

const NODES: [&str; 2] = ["node0", "node1"];
const PATIENCE: Duration = Duration::from_secs(60);

/// Stops the first renderer that is found at work; which, and of which node.
async fn stop_a_renderer(platform: &Platform) -> (i32, &'static str) {
    let began = Instant::now();
    loop {
        for pid in platform.renderers() {
            let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            let line = String::from_utf8_lossy(&line).into_owned();
            let node = NODES.into_iter().find(|node| line.contains(&format!("/{node}/")));
            if let Some(node) = node.filter(|_| kill(Pid::from_raw(pid), Signal::SIGSTOP).is_ok()) {
                return (pid, node);
            }
        }
        assert!(began.elapsed() < PATIENCE, "nobody renders");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

async fn frames(platform: &Platform, id: &str) -> Vec<String> {
    let sql = "select sha256 from render.frame_manifests where render_job_id = $1 order by frame_no";
    sqlx::query_scalar(sql).bind(Uuid::parse_str(id).unwrap()).fetch_all(&platform.db).await.unwrap()
}

/// Whose the frames of the chunk are that an activity rendered, and how those attempts ended.
async fn owners(platform: &Platform, id: &str, activity: &str) -> Vec<(String, String)> {
    let chunk: i32 = activity.split(':').nth(1).unwrap().parse().unwrap();
    let sql = "select distinct n.name, a.outcome from render.frame_jobs c
               join render.frame_manifests m on m.render_job_id = c.render_job_id and m.frame_no between c.first_frame and c.last_frame
               join render.frame_job_attempts a on a.id = m.attempt_id join render.nodes n on n.id = a.node_id
               where c.render_job_id = $1 and c.chunk_no = $2";
    sqlx::query_as(sql).bind(Uuid::parse_str(id).unwrap()).bind(chunk).fetch_all(&platform.db).await.unwrap()
}

/// What a node is told when it calls about a task: the status and the code.
async fn call(platform: &Platform, node: &str, path: &str, body: Value) -> (u16, String) {
    let kept = std::fs::read(platform.folder().join(node).join("credential.json")).unwrap();
    let kept: Value = serde_json::from_slice(&kept).unwrap();
    let asked = platform.http.post(format!("{}/v1/nodes/tasks/{path}", platform.url));
    let answer = asked.bearer_auth(kept["credential"].as_str().unwrap()).json(&body).send().await.unwrap();
    let status = answer.status().as_u16();
    let told: Value = answer.json().await.unwrap_or_default();
    (status, told["code"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test(flavor = "multi_thread")]
async fn frames_of_a_renderer_that_stands_still_are_made_by_another_node() {
    let mut platform = Platform::start(NODES.len()).await;
    // From here on it is known how long frames of this template take.
    let sound = platform.order(144).await;
    platform.completed(&sound).await;
    let id = platform.order(144).await;
    let (stopped, late) = stop_a_renderer(&platform).await;
    let other = NODES.into_iter().find(|node| *node != late).unwrap();
    // It has been at it for ten minutes, as far as a server knows that comes to know of it only now.
    let sql = "update workflow.tasks set leased_at = leased_at - interval '10 minutes'
               where activity = 'RenderFrames' and split_part(leased_by, ':', 2) = $1 returning id, lease_token, step_key::text";
    let (task, token, key): (i64, Uuid, String) = sqlx::query_as(sql).bind(late).fetch_one(&platform.db).await.unwrap();
    platform.kill_and_restart_api();

    platform.completed(&id).await;
    assert_eq!(frames(&platform, &id).await, frames(&platform, &sound).await);
    let made =
        "select split_part(worker, ':', 2) from workflow.attempts where step_key = $1 || ':again' and outcome = 'ok'";
    let made: Vec<String> = sqlx::query_scalar(made).bind(&key).fetch_all(&platform.db).await.unwrap();
    // Given up by its own driver on a slow machine it ends the second, too: what that has not stored yet is asked for anew.
    let given_up = "select count(*) from workflow.attempts where task_id = $1 and outcome in ('failed', 'timeout')";
    let given_up: i64 = sqlx::query_scalar(given_up).bind(task).fetch_one(&platform.db).await.unwrap();
    assert!(made == [other] || made.is_empty() && given_up > 0, "{made:?}, {given_up} given up");
    let owners = owners(&platform, &id, &key).await;
    let ok = |node: &str| owners.contains(&(node.to_owned(), "ok".to_owned()));
    assert!(!ok(late) && (ok(other) || made.is_empty()), "{owners:?}");
    let began = Instant::now();
    while platform.renderers().contains(&stopped) {
        assert!(began.elapsed() < PATIENCE, "the overtaken node ends its renderer");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    // Overtaken, or given up by its own driver on a slow machine: it delivered nothing.
    let ended = "select count(*) from workflow.attempts where task_id = $1 and outcome = 'ok'";
    let ended: i64 = sqlx::query_scalar(ended).bind(task).fetch_one(&platform.db).await.unwrap();
    assert_eq!(ended, 0);
    let refused = (409, "lease.lost".to_owned());
    let noted = json!({"lease_token": token, "frames": []});
    assert_eq!(call(&platform, late, &format!("{task}/frames"), noted).await, refused);
    let output = json!({"frames": [], "faults": [], "warnings": [], "timing": {"prepare_ms": 1, "render_ms": 1, "upload_ms": 1}});
    let complete = json!({"lease_token": token, "output": output});
    assert_eq!(call(&platform, late, &format!("{task}/complete"), complete).await, refused);
    platform.stop().await;
}
