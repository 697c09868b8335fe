//! Which node gets which task: the farm that each server keeps, and the database that decides.

use crate::world::World;
use axum::{
    Router,
    body::Body,
    http::{Request, StatusCode},
};
use flatrender_api::{app::App, router};
use flatrender_engine::operations::{By, Operations, Terms};
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
    sqlx::query("update render.nodes set status = 'draining', drained = true, offers = '{\"engine\": \"lottie\"}'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(ask(&world.router, &node.credential, lottie(), 1, 0.0).await.0, StatusCode::NO_CONTENT);
    let why = world.get(&format!("/v1/renders/{id}")).await.json()["waiting_because"].clone();
    assert_eq!(why, "nodes that could do it are set aside, drained or asleep: 1");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_node_that_is_drained_while_it_waits_gets_nothing(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    let node = world.node("n1").await;
    let waiting = ask(&world.router, &node.credential, lottie(), 1, 3.0);
    let meanwhile = async {
        while world.count("workflow.remote_workers").await == 0 {
            tokio::task::yield_now().await;
        }
        // It is known as it is now, and that is fresh.
        world.app.placement.read(&world.app, std::time::Instant::now()).await.unwrap();
        let drain = "update render.nodes set status = 'draining', drained = true";
        sqlx::query(drain).execute(&world.db).await.unwrap();
        world.order().await
    };
    let (answer, _) = tokio::join!(waiting, meanwhile);
    assert_eq!(answer, (StatusCode::NO_CONTENT, vec![]));
    assert_eq!(world.count("workflow.tasks where queue = 'node.render' and state = 'leased'").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_task_that_a_node_lost_goes_to_another_first(db: PgPool) {
    let world = World::new(db).await;
    world.run_workflows();
    world.order().await;
    let (first, second) = (world.node("n1").await, world.node("n2").await);
    let had = ask(&world.router, &first.credential, lottie(), 1, 20.0).await.1;
    let rest = async {
        loop {
            // Whatever else there is, so that the lost task is all that waits.
            if ask(&world.router, &second.credential, lottie(), 8, 0.0).await.0 == StatusCode::NO_CONTENT {
                break;
            }
        }
    };
    rest.await;
    let lost = "update workflow.tasks set lease_expires_at = workflow.now() where id = $1";
    sqlx::query(lost).bind(had[0]).execute(&world.db).await.unwrap();
    while world.count("workflow.attempts where outcome = 'lost'").await == 0 {
        tokio::task::yield_now().await;
    }
    while world
        .count("workflow.tasks where state = 'ready' and queue = 'node.render' and run_at <= workflow.now()")
        .await
        == 0
    {
        tokio::task::yield_now().await;
    }
    let again = ask(&world.router, &first.credential, lottie(), 1, 0.0).await;
    assert_eq!(again, (StatusCode::NO_CONTENT, vec![]), "it had it before, and another may do it");
    assert_eq!(ask(&world.router, &second.credential, lottie(), 1, 20.0).await.1, had);
}

#[sqlx::test(migrations = "../migrations")]
async fn queues_of_nodes_have_no_terms(db: PgPool) {
    let operations = Operations::new(flatrender_engine::Client::new(db.clone()));
    for (queue, fine) in [("node.render", false), ("node.snapshot", false), ("media", true)] {
        let mut tx = db.begin().await.unwrap();
        let set = operations.set_terms(&mut tx, &By::new("ada").because("a cap"), queue, &Terms::default()).await;
        assert_eq!(set.is_ok(), fine, "{queue}: {set:?}");
    }
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
