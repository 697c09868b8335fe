//! Which node gets which task: the farm that each server keeps, and the database that decides.

use crate::world::World;
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use flatrender_api::{app::App, router};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{collections::BTreeSet, sync::Arc};
use tower::ServiceExt as _;
use uuid::Uuid;

/// Asks a server for work: the status, and the tasks that were given.
async fn ask(server: &Router, credential: &str, labels: Value, slots: u32, wait: f64) -> (StatusCode, Vec<i64>) {
    let body = json!({"incarnation": Uuid::new_v4(), "labels": labels, "slots": slots, "wait_seconds": wait});
    let request = Request::post("/v1/nodes/claims")
        .header("authorization", format!("Bearer {credential}"))
        .header("content-type", "application/json")
        .body(Body::from(body.to_string()));
    let response = server.clone().oneshot(request.unwrap()).await.unwrap();
    let status = response.status();
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.unwrap();
    let answer: Value = serde_json::from_slice(&body).unwrap_or_default();
    let tasks = answer["tasks"].as_array().into_iter().flatten();
    (status, tasks.map(|task| task["task_id"].as_i64().unwrap()).collect())
}

/// Waits until films have tasks for nodes, as many as they will have, and counts them.
async fn ready(world: &World, films: i64) -> usize {
    loop {
        let (runs, tasks): (i64, i64) = sqlx::query_as(
            "select count(distinct run_id), count(*) from workflow.tasks
             where kind = 'activity' and queue = 'node.render' and state = 'ready'",
        )
        .fetch_one(&world.db)
        .await
        .unwrap();
        if runs == films {
            return tasks as usize;
        }
        tokio::task::yield_now().await;
    }
}

fn lottie() -> Value {
    json!({"engine": "lottie"})
}

#[sqlx::test(migrations = "../migrations")]
async fn nodes_that_ask_at_once_get_each_task_once(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    for _ in 0..3 {
        world.order().await;
    }
    let tasks = ready(&world, 3).await;
    let mut credentials = Vec::new();
    for n in 0..12 {
        credentials.push(world.node(&format!("n{n}")).await.credential);
    }
    // A second server over the same database keeps a farm of its own.
    let other = router::router(App { placement: Arc::default(), ..world.app.clone() });
    let asked = credentials
        .iter()
        .enumerate()
        .map(|(n, credential)| ask(if n % 2 == 0 { &world.router } else { &other }, credential, lottie(), 1, 0.0));
    let answers = futures::future::join_all(asked).await;
    let given: Vec<i64> = answers.into_iter().flat_map(|(_, tasks)| tasks).collect();
    assert_eq!(given.len(), given.iter().collect::<BTreeSet<_>>().len(), "{given:?}");
    assert_eq!(given.len(), tasks.min(12), "whoever lost chooses again");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_render_says_which_label_no_node_has_until_one_comes(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let id = world.order().await;
    ready(&world, 1).await;
    let other = world.node("other").await;
    assert_eq!(ask(&world.router, &other.credential, json!({}), 1, 0.0).await.0, StatusCode::NO_CONTENT);
    let path = format!("/v1/renders/{id}");
    let why = |render: &Value| render["waiting_because"].as_str().unwrap_or_default().to_owned();
    assert_eq!(why(&world.get(&path).await.json()), "no node has engine=lottie");
    let able = world.node("able").await;
    assert_eq!(ask(&world.router, &able.credential, lottie(), 1, 20.0).await.0, StatusCode::OK, "without a restart");
    assert_eq!(why(&world.get(&path).await.json()), "", "it is worked on");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_is_drained_gets_nothing(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let id = world.order().await;
    ready(&world, 1).await;
    let node = world.node("n1").await;
    sqlx::query("update render.nodes set status = 'draining', offers = '{\"engine\": \"lottie\"}'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(ask(&world.router, &node.credential, lottie(), 1, 0.0).await.0, StatusCode::NO_CONTENT);
    let why = world.get(&format!("/v1/renders/{id}")).await.json()["waiting_because"].clone();
    assert_eq!(why, "nodes that could do it are set aside, drained or asleep: 1");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_of_one_tenant_does_that_tenants_work_only(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    ready(&world, 1).await;
    let node = world.node("n1").await;
    for (tenant, status) in [(Uuid::new_v4(), StatusCode::NO_CONTENT), (world.tenant, StatusCode::OK)] {
        sqlx::query("update render.nodes set tenant_id = $1").bind(tenant).execute(&world.db).await.unwrap();
        assert_eq!(ask(&world.router, &node.credential, lottie(), 1, 0.0).await.0, status);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_with_two_slots_gets_two_tasks(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    for _ in 0..2 {
        world.order().await;
    }
    ready(&world, 2).await;
    let node = world.node("n1").await;
    assert_eq!(ask(&world.router, &node.credential, lottie(), 2, 0.0).await.1.len(), 2);
}
