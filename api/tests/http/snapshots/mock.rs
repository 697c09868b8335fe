//! The mock, which paints stills where there is no node, and touches nothing else.

use super::PATIENCE;
use crate::world::{World, order};
use flatrender_api::worker::Placeholders;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::{Duration, Instant};
use uuid::Uuid;

#[sqlx::test(migrations = "../migrations")]
async fn s087_s089_the_mock_paints_stills_and_touches_nothing_else(db: PgPool) {
    let mut world = World::managed(db).await;
    world.placeholders = Placeholders::Painted;
    let stills = world.stills().await;
    let film = world.post("/v1/renders", order()).await.json()["id"].as_str().unwrap().to_owned();
    world.work();
    stills.ask(json!({})).await;
    let list = stills.settled().await;
    assert_eq!(list["counts"]["done"], 2, "{list:#}");
    for scene in list["data"].as_array().unwrap() {
        assert_eq!(scene["job"]["source"], "mock");
        let url = scene["url"].as_str().unwrap();
        assert!(url.starts_with("data:image/png;base64,") && url.len() <= 16 * 1024, "{url}");
    }
    assert_ne!(list["data"][0]["url"], list["data"][1]["url"], "each in its own colour");
    // The film's frames wait for a node, and the mock is none.
    let begun = Instant::now();
    while world.count("workflow.tasks where queue = 'node.render'").await == 0 {
        assert!(begun.elapsed() < PATIENCE, "the film asks for frames");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    stills.ask(json!({"force": true})).await;
    stills.settled().await;
    let touched = "workflow.tasks where queue = 'node.render' and (state <> 'ready' or attempt_no > 0)";
    assert_eq!(world.count(touched).await, 0);
    assert_eq!(world.get(&format!("/v1/renders/{film}")).await.json()["finished_at"], Value::Null);
}

#[sqlx::test(migrations = "../migrations")]
async fn s088_without_the_mock_nobody_paints(db: PgPool) {
    let world = World::managed(db).await;
    assert_eq!(world.placeholders, Placeholders::Off);
    world.work();
    let stills = world.stills().await;
    stills.ask(json!({"scenes": [stills.scene().await]})).await;
    // The worker is at work: it has brought the still as far as to a node.
    let task = world.node("n1").await.claim().await;
    assert_eq!(task.input["scene"], "a");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_real_still_replaces_a_painted_one_and_never_the_reverse(db: PgPool) {
    let mut world = World::managed(db).await;
    world.placeholders = Placeholders::Painted;
    let one = json!({"scenes": [world.stills().await.scene().await]});
    world.work();
    world.stills().await.ask(one.clone()).await;
    let painted = world.stills().await.settled().await["data"][0].clone();
    assert_eq!(painted["job"]["source"], "mock");
    world.stopping.cancel();
    // What paints is gone before the next still is asked for.
    let begun = Instant::now();
    while world.count("workflow.workers where ended_at is null").await > 0 {
        assert!(begun.elapsed() < PATIENCE, "the worker ends");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    world.stopping = tokio_util::sync::CancellationToken::new();
    world.placeholders = Placeholders::Off;
    world.app.stopping = world.stopping.clone();
    world.router = flatrender_api::router::router(world.app.clone());
    world.work();
    let node = world.node("n1").await;
    let again = world.stills().await.ask(one.clone()).await;
    assert_eq!(again["data"][0]["job"]["status"], "queued", "a painted still is none that was rendered");
    node.shoot(&node.claim().await, [10, 200, 10]).await;
    let real = world.stills().await.settled().await["data"][0].clone();
    assert_eq!((&real["job"]["source"], &real["url"]), (&json!("aerender"), &real["job"]["image_url"]));

    // The mock again, on demand: the scene, the kept still and the job all go on with the real one.
    world.stills().await.ask(json!({"scenes": one["scenes"], "force": true})).await;
    let task = node.claim().await;
    let placeholder = json!({"placeholder": "data:image/png;base64,AAAA"});
    let token: Uuid = task.token.parse().unwrap();
    world.app.workflows.complete(task.id, token, &placeholder).await.unwrap();
    let after = world.stills().await.settled().await["data"][0].clone();
    assert_eq!((&after["url"], &after["job"]["image_url"]), (&real["url"], &real["url"]), "{after:#}");
    assert_eq!(world.count("render.snapshots where source = 'mock'").await, 0);
}
