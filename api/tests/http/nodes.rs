//! Render nodes: only the holder of a lease may speak for a task, and only within its plan.

use crate::world::{Claimed, Node, World, blob, output, png};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;

/// Every call about a task, as the node would make it, by name.
async fn every_call(node: &Node<'_>, task: &Claimed) -> Vec<(&'static str, crate::world::Answer)> {
    let path = |end: &str| format!("/v1/nodes/tasks/{}/{end}", task.id);
    let token = &task.token;
    let failure = json!({"code": "render.crashed", "message": "x", "retryable": true});
    let frame = png([1, 2, 3]);
    let frame_path = format!("frames/{}", blob(&frame).sha256);
    let input = format!("inputs/{}", task.input["package"]["sha256"].as_str().unwrap());
    vec![
        ("renew", node.call(&path("renew"), json!({"lease_token": token, "progress": {"done": 1, "total": 2}})).await),
        ("input", node.with_lease(Method::GET, task, &input, "").await),
        ("put", node.with_lease(Method::PUT, task, &frame_path, frame).await),
        ("head", node.with_lease(Method::HEAD, task, &frame_path, "").await),
        ("complete", node.complete(task, output(&[])).await),
        ("fail", node.call(&path("fail"), json!({"lease_token": token, "failure": failure})).await),
        ("release", node.call(&path("release"), json!({"lease_token": token})).await),
    ]
}

/// What a task and the storage look like.
async fn state(world: &World) -> (Value, usize) {
    let task: Value = sqlx::query_scalar("select jsonb_agg(to_jsonb(t) order by id) from workflow.tasks t where kind = 'activity' and queue = 'node.render'")
        .fetch_one(&world.db)
        .await
        .unwrap();
    (task, world.stored_files())
}

#[track_caller]
fn all_lost(answers: &[(&str, crate::world::Answer)]) {
    for (name, answer) in answers {
        assert_eq!(answer.status, StatusCode::CONFLICT, "{name}: {:?}", answer.body);
        if *name != "head" {
            assert_eq!(answer.problem(), "lease.lost", "{name}");
        }
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_renders_a_task(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let package = format!("inputs/{}", world.package.sha256);
    assert_eq!(node.with_lease(Method::GET, &task, &package, "").await.body, "a package");
    let renew = json!({"lease_token": task.token, "progress": {"done": 3, "total": 9}});
    let renewed = node.call(&format!("/v1/nodes/tasks/{}/renew", task.id), renew).await;
    assert_eq!(renewed.json(), json!({"cancelled": false, "lease_seconds": 15.0}));
    let render = world.get("/v1/renders").await.json()["data"][0].clone();
    assert_eq!((&render["step"], &render["frames"]["rendered"]), (&json!("rendering frames"), &json!(3)));
    let output = node.render(&task).await;
    assert_eq!(node.complete(&task, output.clone()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(node.complete(&task, output).await.status, StatusCode::NO_CONTENT, "the answer may have been lost");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_stale_lease_is_refused_everywhere_and_changes_nothing(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let first = node.claim().await;
    let _the_other_chunk = node.claim().await;
    let release = format!("/v1/nodes/tasks/{}/release", first.id);
    assert_eq!(node.call(&release, json!({"lease_token": first.token})).await.status, StatusCode::NO_CONTENT);
    let second = node.claim().await;
    assert_eq!(second.id, first.id);
    let before = state(&world).await;
    let stale = Claimed { input: second.input.clone(), ..first };
    let mut answers = every_call(&node, &stale).await;
    let repeated = answers.pop().unwrap();
    assert_eq!(
        (repeated.0, repeated.1.status),
        ("release", StatusCode::NO_CONTENT),
        "the same report, answered as before"
    );
    all_lost(&answers);
    assert_eq!(state(&world).await, before);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_lease_belongs_to_its_node(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let (node, thief) = (world.node("n1").await, world.node("n10").await);
    let task = node.claim().await;
    let before = state(&world).await;
    all_lost(&every_call(&thief, &task).await);
    assert_eq!(state(&world).await, before);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_lease_opens_its_own_attempt_and_no_other(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let (one, two) = (world.node("n1").await, world.node("n2").await);
    let (mine, theirs) = (one.claim().await, two.claim().await);
    assert_ne!(mine.id, theirs.id);
    let before = state(&world).await;
    let my_token = Claimed { token: mine.token.clone(), ..theirs.clone() };
    let their_token = Claimed { token: theirs.token.clone(), ..mine.clone() };
    for borrowed in [&my_token, &their_token, &theirs] {
        all_lost(&every_call(&one, borrowed).await);
    }
    assert_eq!(state(&world).await, before);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_invented_lease_opens_nothing(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let invented = Claimed { token: uuid::Uuid::new_v4().to_string(), ..task.clone() };
    let before = state(&world).await;
    all_lost(&every_call(&node, &invented).await);
    all_lost(&every_call(&node, &Claimed { id: 999_999, ..task }).await);
    assert_eq!(state(&world).await, before);
}

#[sqlx::test(migrations = "../migrations")]
async fn enrolling_again_takes_the_credential_from_the_earlier_process(db: PgPool) {
    let world = World::new(db).await;
    let earlier = world.node("n1").await;
    let later = world.node("n1").await;
    assert_eq!(earlier.ask(0.0).await.problem(), "auth.invalid");
    assert_eq!(later.ask(0.0).await.status, StatusCode::NO_CONTENT);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_enrolment_token_is_good_once(db: PgPool) {
    let world = World::new(db).await;
    let mut conn = world.db.acquire().await.unwrap();
    let token =
        flatrender_workflows::models::render::node::create_token(&mut conn, Duration::from_secs(60)).await.unwrap();
    let body = |name: &str| {
        json!({"token": token.reveal(), "name": name, "capabilities": {
        "agent_version": "0", "os": "t", "cpus": 1, "ram_mb": 1, "slots": 1, "labels": {}, "renderers": {}}})
    };
    assert_eq!(world.post("/v1/nodes/enrol", body("a b")).await.faults(), ["/name node.name"]);
    assert_eq!(world.post("/v1/nodes/enrol", body("a")).await.status, StatusCode::OK);
    assert_eq!(world.post("/v1/nodes/enrol", body("b")).await.problem(), "node.token_invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_reads_only_what_its_task_names(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let preview = format!("inputs/{}", world.preview.sha256);
    assert_eq!(node.with_lease(Method::GET, &task, &preview, "").await.problem(), "node.input_not_named");
    assert_eq!(node.with_lease(Method::GET, &task, "inputs/..%2Fkeys", "").await.problem(), "path.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_frame_is_what_its_hash_says(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let frame = png([4, 5, 6]);
    let path = format!("frames/{}", blob(&frame).sha256);
    assert_eq!(node.with_lease(Method::HEAD, &task, &path, "").await.status, StatusCode::NOT_FOUND);
    assert_eq!(node.with_lease(Method::PUT, &task, &path, "other").await.problem(), "blob.mismatch");
    assert_eq!(node.with_lease(Method::HEAD, &task, &path, "").await.status, StatusCode::NOT_FOUND);
    node.put_frame(&task, &frame).await;
    let there = node.with_lease(Method::HEAD, &task, &path, "").await;
    assert_eq!((there.status, there.header("content-length")), (StatusCode::OK, frame.len().to_string().as_str()));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_damaged_frame_is_asked_for_again_and_mended(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let frame = png([1, 2, 3]);
    let blob = node.put_frame(&task, &frame).await;
    let stored = world.file_named(blob.sha256.as_str());
    std::fs::set_permissions(&stored, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    std::fs::write(&stored, vec![0; frame.len()]).unwrap();
    let path = format!("frames/{}", blob.sha256);
    assert_eq!(node.with_lease(Method::HEAD, &task, &path, "").await.status, StatusCode::NOT_FOUND);
    node.put_frame(&task, &frame).await;
    assert_eq!(std::fs::read(&stored).unwrap(), frame);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_output_beyond_the_plan_is_refused(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let stored = node.put_frame(&task, &png([7, 7, 7])).await;
    let frame = |n: u64, blob: &Value| json!({"frame": n, "blob": blob});
    let (stored, absent) = (json!(stored), json!(blob(b"never stored")));
    let shorter = json!({"sha256": stored["sha256"], "size_bytes": 1});
    let before = state(&world).await;
    let cases = [
        ("outside", output(&[frame(5000, &stored)])),
        ("twice", output(&[frame(0, &stored), frame(0, &stored)])),
        ("not stored", output(&[frame(0, &absent)])),
        ("another length", output(&[frame(0, &shorter)])),
        ("no output at all", json!({"frames": "all"})),
    ];
    for (what, output) in cases {
        let answer = node.complete(&task, output).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (422, "node.bad_output"), "{what}");
    }
    assert_eq!(state(&world).await, before);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_is_told_that_its_run_was_cancelled(db: PgPool) {
    let world = World::new(db).await;
    let workflows = world.run_workflows();
    let id = world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    // A run that goes on may be over, and the lease with it, before the node asks.
    workflows.stop().await;
    let answer = world.post(&format!("/v1/renders/{id}/cancel"), json!({})).await;
    assert!(answer.status.is_success(), "{answer:?}");
    let renew = json!({"lease_token": task.token, "progress": {"done": 0, "total": 0}});
    let path = format!("/v1/nodes/tasks/{}/renew", task.id);
    assert_eq!(node.call(&path, renew).await.json()["cancelled"], true);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_lease_is_not_lost_over_wild_progress(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let path = format!("/v1/nodes/tasks/{}/renew", task.id);
    for detail in [json!("x".repeat(500_000)), json!({"line": "\0"})] {
        let renew = json!({"lease_token": task.token, "progress": {"done": u32::MAX, "total": 0, "detail": detail}});
        assert_eq!(node.call(&path, renew).await.status, StatusCode::OK);
    }
    let frames = world.get("/v1/renders").await.json()["data"][0]["frames"].clone();
    assert_eq!(frames["rendered"], frames["total"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_failure_for_good_ends_the_render_with_its_code(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let id = world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let path = format!("/v1/nodes/tasks/{}/fail", task.id);
    let failure = json!({"code": "render.missing_font", "message": "font \"Nope\" is missing", "retryable": false});
    let body = json!({"lease_token": task.token, "failure": failure});
    assert_eq!(node.call(&path, body).await.status, StatusCode::NO_CONTENT);
    // The other chunk's node hears of the end and gives its task back; here nobody holds it.
    let run: uuid::Uuid =
        sqlx::query_scalar("select workflow_run_id from render.render_jobs").fetch_one(&world.db).await.unwrap();
    let settled = async {
        loop {
            let render = world.get(&format!("/v1/renders/{id}")).await.json();
            if render["finished_at"].is_string() {
                break render;
            }
            world.app.workflows.finished(run, Duration::from_millis(100)).await.unwrap();
        }
    };
    let render = tokio::time::timeout(Duration::from_secs(20), settled).await.expect("the render ends");
    assert_eq!((&render["status"], &render["error"]["code"]), (&json!("failed"), &json!("render.missing_font")));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_lease_that_ran_out_reads_and_stores_nothing(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let task = node.claim().await;
    let expire = "update workflow.tasks set lease_expires_at = workflow.now() where lease_token = $1::uuid";
    sqlx::query(expire).bind(&task.token).execute(&world.db).await.unwrap();
    let before = world.stored_files();
    let frame = png([8, 8, 8]);
    let frame_path = format!("frames/{}", blob(&frame).sha256);
    let input = format!("inputs/{}", world.package.sha256);
    assert_eq!(node.with_lease(Method::PUT, &task, &frame_path, frame).await.problem(), "lease.lost");
    assert_eq!(node.with_lease(Method::GET, &task, &input, "").await.problem(), "lease.lost");
    assert_eq!(world.stored_files(), before);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_waiting_node_gets_work_as_soon_as_there_is_some(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let node = world.node("n1").await;
    let started = std::time::Instant::now();
    let (task, _) = tokio::join!(node.claim(), world.order());
    assert!(task.input["render_id"].is_string());
    assert!(started.elapsed() < Duration::from_secs(10));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_without_the_label_gets_nothing(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let node = world.node("n1").await;
    let body = json!({"incarnation": node.incarnation, "labels": {"engine": "after_effects"}, "wait_seconds": 2.0});
    assert_eq!(node.call("/v1/nodes/claims", body).await.status, StatusCode::NO_CONTENT);
}
