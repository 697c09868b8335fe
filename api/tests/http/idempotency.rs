//! A request that is sent again is done once.

use crate::world::{Answer, World, order, order_with, with_json};
use axum::http::{Method, StatusCode};
use futures::future::join_all;
use serde_json::Value;
use sqlx::PgPool;
use std::collections::BTreeSet;

async fn send(world: &World, key: &str, body: &Value) -> Answer {
    let request = world.request(Method::POST, "/v1/renders").header("idempotency-key", key);
    world.send(with_json(request, body)).await
}

#[sqlx::test(migrations = "../migrations")]
async fn the_same_key_and_body_give_the_same_render(db: PgPool) {
    let world = World::new(db).await;
    let (first, second) = (send(&world, "k", &order()).await, send(&world, "k", &order()).await);
    assert_eq!((first.status, second.status), (StatusCode::ACCEPTED, StatusCode::ACCEPTED));
    assert_eq!(first.json()["id"], second.json()["id"]);
    assert_eq!((first.header("idempotent-replayed"), second.header("idempotent-replayed")), ("", "true"));
    assert_eq!(first.header("location"), format!("/v1/renders/{}", first.json()["id"].as_str().unwrap()));
    assert_eq!(world.count("workflow.runs").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn the_same_key_with_another_body_is_refused(db: PgPool) {
    let world = World::new(db).await;
    send(&world, "k", &order()).await;
    let other = send(&world, "k", &order_with("metadata", serde_json::json!({"a": 1}))).await;
    assert_eq!((other.status.as_u16(), other.problem().as_str()), (422, "idempotency.key_reused"));
    assert_eq!(world.count("render.render_jobs").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn sixty_four_at_once_give_one_run(db: PgPool) {
    let world = World::new(db).await;
    let body = order();
    let answers = join_all((0..64).map(|_| send(&world, "k", &body))).await;
    let statuses: BTreeSet<_> = answers.iter().map(|a| a.status.as_u16()).collect();
    assert_eq!(statuses, BTreeSet::from([202]));
    let ids: BTreeSet<_> = answers.iter().map(|a| a.json()["id"].to_string()).collect();
    assert_eq!(ids.len(), 1);
    assert_eq!(answers.iter().filter(|a| a.header("idempotent-replayed").is_empty()).count(), 1);
    assert_eq!((world.count("workflow.runs").await, world.count("render.render_jobs").await), (1, 1));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_belongs_to_its_tenant(db: PgPool) {
    let world = World::new(db).await;
    let mine = send(&world, "k", &order()).await;
    let stranger = world.stranger().await;
    let request = crate::world::request(Method::POST, "/v1/renders", &stranger).header("idempotency-key", "k");
    let theirs = world.send(with_json(request, &order())).await;
    assert_eq!(theirs.status, StatusCode::ACCEPTED);
    assert_ne!(mine.json()["id"], theirs.json()["id"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_has_bounds(db: PgPool) {
    let world = World::new(db).await;
    assert_eq!(send(&world, &"k".repeat(256), &order()).await.problem(), "header.invalid");
    assert_eq!(send(&world, "", &order()).await.problem(), "header.invalid");
    assert_eq!(send(&world, &"k".repeat(255), &order()).await.status, StatusCode::ACCEPTED);
}
