//! A node that is late with frames: another renders them too, the first whole result counts, and nobody's frames count twice.

use crate::{
    film::finished,
    world::{Claimed, Node, World},
};
use axum::http::StatusCode;
use flatrender_api::router;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{sync::Arc, time::Instant};
use uuid::Uuid;

impl Node<'_> {
    /// Renews the lease with so many frames done; whether the node is told to stop.
    async fn renew(&self, task: &Claimed, done: u32) -> bool {
        let body = json!({"lease_token": task.token, "progress": {"done": done, "total": 38, "note": "rendering"}});
        let answer = self.call(&format!("/v1/nodes/tasks/{}/renew", task.id), body).await;
        assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
        answer.json()["cancelled"].as_bool().unwrap()
    }
}

/// A world that knows how fast its template is, and a film of one chunk that the node `slow` has been at for a minute.
async fn late_film(world: &mut World) -> (Uuid, (String, Uuid), Claimed) {
    world.work();
    let first = world.order().await.to_string();
    finished(world, &world.node("first").await, &world.key, &first).await;
    let id = world.order().await;
    let slow = world.node("slow").await;
    let task = slow.claim().await;
    assert_eq!(task.input["frames"], json!({"first": 0, "last": 37}));
    slow.renew(&task, 7).await;
    let held = (slow.credential.clone(), slow.incarnation);
    let long_ago = "update workflow.tasks set leased_at = leased_at - interval '1 minute' where id = $1";
    sqlx::query(long_ago).bind(task.id).execute(&world.db).await.unwrap();
    // A server that comes to know of the farm only now.
    world.app.placement = Arc::default();
    world.router = router::router(world.app.clone());
    (id, held, task)
}

async fn owners(world: &World, id: Uuid) -> Vec<(String, i64)> {
    let sql =
        "select n.name, count(*) from render.frame_manifests m join render.frame_job_attempts a on a.id = m.attempt_id
               join render.nodes n on n.id = a.node_id where m.render_job_id = $1 group by 1";
    sqlx::query_as(sql).bind(id).fetch_all(&world.db).await.unwrap()
}

/// Stores and tells of the frames of a task, as agents do.
async fn store(node: &Node<'_>, task: &Claimed) -> Value {
    let output = node.render(task).await;
    let told = json!({"lease_token": task.token, "frames": output["frames"]});
    let answer = node.call(&format!("/v1/nodes/tasks/{}/frames", task.id), told).await;
    assert_eq!(answer.status, StatusCode::NO_CONTENT, "{:?}", answer.body);
    output
}

#[sqlx::test(migrations = "../migrations")]
async fn a_chunk_that_a_node_is_late_with_goes_to_a_second_and_the_first_is_told_to_stop(db: PgPool) {
    let mut world = World::new(db).await;
    let (id, (credential, incarnation), task) = late_film(&mut world).await;
    let (slow, quick) = (Node { world: &world, credential, incarnation }, world.node("quick").await);
    let again = quick.claim().await;
    assert_ne!(again.id, task.id);
    assert_eq!((&again.input["frames"], &again.input["class"]), (&task.input["frames"], &json!("spare")));
    assert_eq!(again.input["avoid"], json!(["slow"]));
    assert_eq!(quick.ask(0.0).await.status, StatusCode::NO_CONTENT, "two are enough");
    let output = store(&quick, &again).await;
    assert_eq!(quick.complete(&again, output).await.status, StatusCode::NO_CONTENT);
    let begun = Instant::now();
    while !slow.renew(&task, 9).await {
        assert!(begun.elapsed().as_secs() < 20, "the late one is told to stop");
        tokio::task::yield_now().await;
    }
    // Whatever it says now comes too late.
    let output = slow.render(&task).await;
    slow.complete(&task, output).await;
    let render = finished(&world, &quick, &world.key, &id.to_string()).await;
    assert_eq!(render["status"], "completed", "{render}");
    assert_eq!(owners(&world, id).await, [("quick".to_owned(), 38)]);
    let wasted: Vec<i32> = sqlx::query_scalar("select frames_wasted from render.frame_jobs where render_job_id = $1")
        .bind(id)
        .fetch_all(&world.db)
        .await
        .unwrap();
    assert!((7..=9).contains(&wasted[0]) && wasted.len() == 1, "{wasted:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_late_node_that_is_done_first_stops_the_second(db: PgPool) {
    let mut world = World::new(db).await;
    let (id, (credential, incarnation), task) = late_film(&mut world).await;
    let (slow, quick) = (Node { world: &world, credential, incarnation }, world.node("quick").await);
    let again = quick.claim().await;
    let output = store(&slow, &task).await;
    assert_eq!(slow.complete(&task, output).await.status, StatusCode::NO_CONTENT);
    let begun = Instant::now();
    while !quick.renew(&again, 3).await {
        assert!(begun.elapsed().as_secs() < 20, "the second is told to stop");
        tokio::task::yield_now().await;
    }
    let cancelled = json!({"code": "workflow.cancelled", "message": "told to stop", "retryable": false});
    let body = json!({"lease_token": again.token, "failure": cancelled});
    assert_eq!(quick.call(&format!("/v1/nodes/tasks/{}/fail", again.id), body).await.status, StatusCode::NO_CONTENT);
    let render = finished(&world, &quick, &world.key, &id.to_string()).await;
    assert_eq!(render["status"], "completed", "{render}");
    assert_eq!(owners(&world, id).await, [("slow".to_owned(), 38)]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_late_chunk_stays_where_it_is_while_others_have_work(db: PgPool) {
    let mut world = World::new(db).await;
    let (_, _, task) = late_film(&mut world).await;
    let other = world.order().await;
    while world.count("workflow.tasks where activity = 'RenderFrames' and state = 'ready'").await == 0 {
        tokio::task::yield_now().await;
    }
    let quick = world.node("quick").await;
    let given = quick.claim().await;
    assert_eq!(given.input["render_id"], json!(other), "what waits goes first");
    assert_ne!(given.id, task.id);
    assert_eq!(world.count("workflow.tasks where step_key like '%:again'").await, 0);
}

/// The second is for none of the nodes that had it: one that lost its lease, and the late one.
#[sqlx::test(migrations = "../migrations")]
async fn a_chunk_whose_nodes_have_both_left_it_is_given_to_one_of_them_again(db: PgPool) {
    let mut world = World::new(db).await;
    let (id, (credential, incarnation), task) = late_film(&mut world).await;
    let (slow, quick) = (Node { world: &world, credential, incarnation }, world.node("quick").await);
    let again = quick.claim().await;
    assert_eq!(again.input["class"], json!("spare"));
    let expire = "update workflow.tasks set lease_expires_at = workflow.now() where id = $1";
    sqlx::query(expire).bind(again.id).execute(&world.db).await.unwrap();
    let begun = Instant::now();
    while world.count("workflow.attempts where outcome = 'lost' and step_key like '%:again'").await == 0 {
        assert!(begun.elapsed().as_secs() < 20, "its lease is lost");
        tokio::task::yield_now().await;
    }
    let crashed = json!({"code": "render.crashed", "message": "signal 11", "retryable": true});
    let body = json!({"lease_token": task.token, "failure": crashed});
    assert_eq!(slow.call(&format!("/v1/nodes/tasks/{}/fail", task.id), body).await.status, StatusCode::NO_CONTENT);
    let render = finished(&world, &quick, &world.key, &id.to_string()).await;
    assert_eq!(render["status"], "completed", "{render}");
}
