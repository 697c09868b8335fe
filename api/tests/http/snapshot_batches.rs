//! Requests for stills as a whole: what they are together, when they have ended, and that a node gets several at once.

use crate::world::{Answer, Claimed, Node, PUBLIC_URL, SIZE, World, png, put, with_json};
use axum::http::{Method, StatusCode};
use flatrender_api::render::scene_snapshots::enqueue;
use flatrender_workflows::{
    contracts::template::Manifest,
    models::{DEFAULT_TENANT, content::project},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Instant;
use uuid::Uuid;

/// Where stills of the template with that slug are asked for.
async fn path(world: &World, slug: &str) -> String {
    let template = world.get(&format!("/v1/templates/{slug}")).await.json();
    format!("/v1/scene-snapshots/{}", template["project_id"].as_str().unwrap())
}

async fn ask(world: &World, path: &str, key: Option<&str>, body: Value) -> Answer {
    let request = world.request(Method::POST, path);
    let request = key.into_iter().fold(request, |request, key| request.header("idempotency-key", key));
    let answer = world.send(with_json(request, &body)).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
    answer
}

fn batch_of(answer: &Answer) -> Uuid {
    answer.json()["batch_id"].as_str().unwrap().parse().unwrap()
}

fn jobs_of(answer: &Answer) -> Vec<String> {
    answer.json()["data"].as_array().unwrap().iter().map(|scene| scene["job"]["id"].to_string()).collect()
}

/// Stills that are there and stills that failed, of a batch that has ended.
async fn ended(world: &World, batch: Uuid) -> (i32, i32) {
    let begun = Instant::now();
    loop {
        let sql = "select done, failed from render.snapshot_batches where id = $1 and finished_at is not null";
        if let Some(how) = sqlx::query_as(sql).bind(batch).fetch_optional(&world.db).await.unwrap() {
            return how;
        }
        assert!(begun.elapsed().as_secs() < 30, "the batch does not end");
        tokio::task::yield_now().await;
    }
}

async fn shoot(node: &Node<'_>, task: &Claimed) {
    let frame = node.put_frame(task, &png([1, 2, 3])).await;
    let answer = node.complete(task, json!({"rendered": {"frame": frame}})).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{:?}", answer.body);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_request_has_ended_when_the_last_of_its_stills_has(db: PgPool) {
    let world = World::managed(db).await;
    world.work();
    let (path, node) = (path(&world, "tiny").await, world.node("n1").await);
    let webhook = "insert into identity.tenant_webhooks (tenant_id, url, event_types, state, secret_enc)
                   values ($1, 'https://hooks.example', '{snapshot_batch.completed}', 'paused', 'x')";
    sqlx::query(webhook).bind(DEFAULT_TENANT).execute(&world.db).await.unwrap();
    let all = ask(&world, &path, None, json!({})).await;
    let scene = all.json()["data"][0]["scene_id"].clone();
    let one = ask(&world, &path, None, json!({"scenes": [scene]})).await;
    assert_eq!(jobs_of(&one), jobs_of(&all)[..1], "a still may be of several requests");
    assert_ne!(batch_of(&one), batch_of(&all));
    let (first, second) = (node.claim().await, node.claim().await);
    let (asked, other) = if first.input["scene"] == "a" { (first, second) } else { (second, first) };
    shoot(&node, &asked).await;
    assert_eq!(ended(&world, batch_of(&one)).await, (1, 0));
    assert_eq!(world.count("render.snapshot_batches where finished_at is null").await, 1);
    let failure = json!({"code": "render.missing_composition", "message": "as told", "retryable": false});
    let body = json!({"lease_token": other.token, "failure": failure});
    let failed = node.call(&format!("/v1/nodes/tasks/{}/fail", other.id), body).await;
    assert_eq!(failed.status, StatusCode::NO_CONTENT, "{:?}", failed.body);
    assert_eq!(ended(&world, batch_of(&all)).await, (1, 1));
    let there = ask(&world, &path, Some("k"), json!({"scenes": [scene]})).await;
    assert_eq!(ended(&world, batch_of(&there)).await, (1, 0), "what is there at once has ended at once");
    let told = "select data ->> 'id', data -> 'done', data -> 'failed' from identity.tenant_webhook_events
                where type = 'snapshot_batch.completed' order by occurred_at";
    let told: Vec<(String, Value, Value)> = sqlx::query_as(told).fetch_all(&world.db).await.unwrap();
    let event = |batch: &Answer, done: i32, failed: i32| (batch_of(batch).to_string(), json!(done), json!(failed));
    assert_eq!(told, [event(&one, 1, 0), event(&all, 1, 1), event(&there, 1, 0)], "each once, with its end");
    let shown = ask(&world, &path, None, json!({"scenes": [scene]})).await.json();
    assert_eq!(shown["batch_id"], Value::Null, "nothing was to be done");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_request_that_is_sent_again_is_answered_alike_when_the_template_has_a_new_version(db: PgPool) {
    let world = World::managed(db).await;
    world.run_workflows();
    let path = path(&world, "tiny").await;
    let scene = world.get(&path).await.json()["data"][1]["scene_id"].clone();
    let body = json!({"scenes": [scene]});
    let once = ask(&world, &path, Some("k"), body.clone()).await;
    let package = put(&*world.storage, b"another package").await;
    let mut tx = world.db.begin().await.unwrap();
    project::publish(&mut tx, DEFAULT_TENANT, &crate::world::manifest(), &package, None).await.unwrap();
    tx.commit().await.unwrap();
    assert_ne!(world.get(&path).await.json()["data"][1]["scene_id"], scene, "its scenes are others");
    let again = ask(&world, &path, Some("k"), body.clone()).await;
    assert_eq!(again.header("idempotent-replayed"), "true");
    assert_eq!(jobs_of(&again), jobs_of(&once));
    assert_eq!(again.json()["data"][0]["scene_id"], scene);
    let unknown = world.post(&path, body).await;
    assert_eq!(unknown.faults(), ["/scenes/0 scene.unknown"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_template_that_is_brought_in_is_asked_for_stills_of_the_scenes_that_have_none(db: PgPool) {
    let world = World::managed(db).await;
    world.work();
    let (path, node) = (path(&world, "tiny").await, world.node("n1").await);
    let app = &world.app;
    let bring =
        async |slug: &'static str| enqueue::at_import(&app.db, &app.workflows, app.limits, PUBLIC_URL, slug).await;
    let import = async || bring("tiny").await.unwrap();
    import().await;
    import().await;
    assert_eq!(world.count("render.snapshot_jobs").await, 2, "one for each scene, however often it is asked for");
    for _ in 0..2 {
        shoot(&node, &node.claim().await).await;
    }
    let begun = Instant::now();
    while world.get(&path).await.json()["counts"]["done"] != 2 {
        assert!(begun.elapsed().as_secs() < 30, "the stills are not done");
        tokio::task::yield_now().await;
    }
    import().await;
    assert_eq!(world.count("render.snapshot_jobs").await, 2, "there is nothing to ask for any more");
    let by: Vec<String> = sqlx::query_scalar("select distinct requested_by from render.snapshot_jobs")
        .fetch_all(&world.db)
        .await
        .unwrap();
    assert_eq!(by, ["import"]);
    let unknown = bring("nothing").await.unwrap_err();
    assert_eq!(unknown.code().as_str(), "project.not_found");
}

/// A template of so many scenes.
async fn publish(world: &World, slug: &str, scenes: usize) {
    let label = json!({"en": "x"});
    let scene = |n: usize| json!({"id": format!("s{n}"), "label": label, "frames": 20, "min_frames": 20, "max_frames": 20, "required": true, "still_frame": n});
    let manifest = json!({
        "format": 1, "slug": slug, "version": 1, "kind": "lottie", "title": label, "description": label, "composition": "main",
        "width": SIZE[0], "height": SIZE[1], "fps": 10, "transition_frames": 2, "fonts": [],
        "scenes": (0..scenes).map(scene).collect::<Vec<_>>()
    });
    let package = put(&*world.storage, slug.as_bytes()).await;
    let manifest = Manifest::parse(manifest.to_string().as_bytes()).unwrap();
    let mut tx = world.db.begin().await.unwrap();
    project::publish(&mut tx, DEFAULT_TENANT, &manifest, &package, None).await.unwrap();
    tx.commit().await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_claim_brings_up_to_eight_stills_of_one_package_each_with_a_lease_of_its_own(db: PgPool) {
    let world = World::managed(db).await;
    world.run_workflows();
    publish(&world, "ten", 10).await;
    let path = path(&world, "ten").await;
    ask(&world, &path, None, json!({})).await;
    let begun = Instant::now();
    while world.count("workflow.tasks where activity = 'RenderStills' and state = 'ready'").await < 10 {
        assert!(begun.elapsed().as_secs() < 30, "the stills do not wait for nodes");
        tokio::task::yield_now().await;
    }
    let node = world.node("n1").await;
    let mut seen = std::collections::BTreeSet::new();
    for most in [8, 2] {
        let answer = node.ask(0.0).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        let tasks = answer.json()["tasks"].as_array().unwrap().clone();
        assert_eq!(tasks.len(), most);
        for task in tasks {
            assert_eq!(
                task["input"]["composition"],
                json!(format!("scene:{}", task["input"]["scene"].as_str().unwrap()))
            );
            assert!(seen.insert(task["lease_token"].to_string()), "a lease of its own");
        }
    }
    assert_eq!(node.ask(0.0).await.status, StatusCode::NO_CONTENT);
}
