//! Renders: accepted, listed, cancelled.

use crate::{
    exports::publish,
    world::{World, order_with},
};
use axum::http::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;

#[sqlx::test(migrations = "../migrations")]
async fn an_accepted_render_looks_like_this(db: PgPool) {
    let world = World::new(db).await;
    let answer = world.post("/v1/renders", order_with("metadata", json!({"order": 4711}))).await;
    let mut render = answer.json();
    for volatile in ["id", "created_at"] {
        assert!(render[volatile].is_string());
        render[volatile] = Value::Null;
    }
    insta::with_settings!({sort_maps => true}, { insta::assert_json_snapshot!(render) });
}

#[sqlx::test(migrations = "../migrations")]
async fn renders_are_listed_a_page_at_a_time(db: PgPool) {
    let world = World::new(db).await;
    let mut made = vec![];
    for _ in 0..5 {
        made.push(world.order().await.to_string());
    }
    made.reverse();
    let mut seen: Vec<String> = vec![];
    let mut path = "/v1/renders?limit=2".to_owned();
    loop {
        let page = world.get(&path).await.json();
        let ids = page["data"].as_array().unwrap().iter().map(|r| r["id"].as_str().unwrap().to_owned());
        seen.extend(ids);
        match page["next_cursor"].as_str() {
            Some(cursor) => path = format!("/v1/renders?limit=2&starting_after={cursor}"),
            None => break assert_eq!(page["has_more"], false),
        }
    }
    assert_eq!(seen, made);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_waiting_render_is_cancelled(db: PgPool) {
    let world = World::new(db).await;
    let id = world.order().await;
    let cancel = format!("/v1/renders/{id}/cancel");
    let answer = world.post(&cancel, json!({})).await;
    assert_eq!(answer.status, StatusCode::ACCEPTED);
    assert!(answer.json()["cancel_requested_at"].is_string());
    assert_eq!(world.post(&cancel, json!({})).await.status, StatusCode::ACCEPTED, "asking twice is harmless");
    world.run_workflows();
    let run: uuid::Uuid =
        sqlx::query_scalar("select workflow_run_id from render.render_jobs").fetch_one(&world.db).await.unwrap();
    world.app.workflows.finished(run, std::time::Duration::from_secs(20)).await.unwrap();
    let ended = world.get(&format!("/v1/renders/{id}")).await.json();
    assert_eq!((&ended["status"], &ended["error"]["code"]), (&json!("cancelled"), &json!("workflow.cancelled")));
    assert_eq!(world.post(&cancel, json!({})).await.problem(), "render.finished");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_is_published_cannot_be_cancelled(db: PgPool) {
    let world = World::new(db).await;
    let id = world.order().await;
    sqlx::query("update render.render_jobs set status = 'finalizing'").execute(&world.db).await.unwrap();
    let cancel = format!("/v1/renders/{id}/cancel");
    assert_eq!(world.post(&cancel, json!({})).await.problem(), "render.too_late");
    let asked: i64 = sqlx::query_scalar("select count(*) from workflow.runs where cancel_requested_at is not null")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(asked, 0, "the run goes on");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_completed_render_names_its_export(db: PgPool) {
    let world = World::new(db).await;
    let id = world.order().await;
    let export = publish(&world, id, b"a film").await;
    let render = world.get(&format!("/v1/renders/{id}")).await.json();
    assert_eq!((&render["status"], &render["progress"]), (&json!("completed"), &json!(1.0)));
    assert_eq!(render["export"]["id"], json!(export));
    assert_eq!(render["export"], world.get(&format!("/v1/exports/{export}")).await.json());
    assert_eq!(world.get("/v1/renders").await.json()["data"][0]["export"]["size_bytes"], 6);
}
