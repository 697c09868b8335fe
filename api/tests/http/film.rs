//! A film from its order to its download, by HTTP alone; only the pixels are painted by the test.

use crate::world::World;
use axum::http::StatusCode;
use serde_json::Value;
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// The longest time until a film of four seconds is done.
const PATIENCE: Duration = Duration::from_secs(90);

#[sqlx::test(migrations = "../migrations")]
async fn an_order_becomes_a_film(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let id = world.order().await;
    let node = world.node("n1").await;
    let started = Instant::now();
    let render = loop {
        assert!(started.elapsed() < PATIENCE, "{}", world.get(&format!("/v1/renders/{id}")).await.json());
        let work = node.ask(0.5).await;
        if work.status == StatusCode::OK {
            let task = work.json()["tasks"][0].clone();
            let token = task["lease_token"].as_str().unwrap().to_owned();
            let task =
                crate::world::Claimed { id: task["task_id"].as_i64().unwrap(), token, input: task["input"].clone() };
            let output = node.render(&task).await;
            assert_eq!(node.complete(&task, output).await.status, StatusCode::NO_CONTENT);
        }
        let render: Value = world.get(&format!("/v1/renders/{id}")).await.json();
        if render["finished_at"].is_string() {
            break render;
        }
    };
    assert_eq!(render["status"], "completed", "{render}");
    assert_eq!((render["frames"]["rendered"].as_i64(), render["export"]["frames"].as_i64()), (Some(38), Some(38)));
    let film = world.get(render["export"]["url"].as_str().unwrap()).await;
    assert_eq!(crate::world::blob(&film.body).sha256.as_str(), render["export"]["sha256"].as_str().unwrap());
    let sheet = world.get(render["export"]["contact_sheet_url"].as_str().unwrap()).await;
    assert!(sheet.body.starts_with(b"\x89PNG"));
}
