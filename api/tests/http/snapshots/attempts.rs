//! Attempts at a still: what is lost, fails or lies is tried again or told, and shown for what it is.

use crate::world::{World, blob, png};
use axum::http::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

/// What waits for its next attempt is due now.
async fn no_more_waiting(world: &World) {
    sqlx::query("update workflow.tasks set run_at = workflow.now() where activity = 'RenderStills'")
        .execute(&world.db)
        .await
        .unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn s082_what_waits_to_be_tried_again_is_queued_and_what_has_failed_says_why(db: PgPool) {
    let world = World::managed(db).await;
    world.run_workflows();
    let stills = world.stills().await;
    let one = json!({"scenes": [stills.scene().await]});
    stills.ask(one.clone()).await;
    for attempt in 1..=3 {
        // Another each time: a node that fails at a template gets no more of it for a while.
        let node = world.node(&format!("n{attempt}")).await;
        let task = node.claim().await;
        let job = stills.list().await["data"][0]["job"].clone();
        assert_eq!((&job["status"], &job["attempts"]), (&json!("running"), &json!(attempt)));
        node.fail(&task, "render.crashed", true).await;
        if attempt < 3 {
            let job = stills.list().await["data"][0]["job"].clone();
            assert_eq!((&job["status"], &job["attempts"]), (&json!("queued"), &json!(attempt)));
        }
        no_more_waiting(&world).await;
    }
    let job = stills.settled().await["data"][0]["job"].clone();
    assert_eq!((&job["status"], &job["error"]["code"]), (&json!("error"), &json!("render.crashed")));
    assert_eq!((&job["image_url"], job["finished_at"].is_string()), (&Value::Null, true));

    stills.ask(one).await;
    let node = world.node("n4").await;
    node.fail(&node.claim().await, "render.missing_font", false).await;
    let list = stills.settled().await;
    assert_eq!(list["data"][0]["job"]["error"], json!({"code": "render.missing_font", "message": "as told"}));
    assert_eq!(list["counts"]["error"], 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_lease_that_is_lost_shows_as_queued_and_a_drained_one_too(db: PgPool) {
    let world = World::managed(db).await;
    world.run_workflows();
    let (stills, node) = (world.stills().await, world.node("n1").await);
    stills.ask(json!({"scenes": [stills.scene().await]})).await;
    let task = node.claim().await;
    let release = format!("/v1/nodes/tasks/{}/release", task.id);
    assert_eq!(node.call(&release, json!({"lease_token": task.token})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(stills.list().await["data"][0]["job"]["status"], "queued");
    let task = node.claim().await;
    assert_eq!(stills.list().await["data"][0]["job"]["status"], "running");
    let expire = "update workflow.tasks set lease_expires_at = workflow.now() where lease_token = $1::uuid";
    sqlx::query(expire).bind(&task.token).execute(&world.db).await.unwrap();
    stills.until(|list| list["data"][0]["job"]["status"] == "queued").await;
    let named: (Option<Uuid>, Option<Uuid>) =
        sqlx::query_as("select node_id, lease_token from render.snapshot_jobs").fetch_one(&world.db).await.unwrap();
    assert!(named.0.is_some() && named.1.is_none(), "it says who had it last: {named:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_frame_that_is_lost_before_its_pictures_are_made_is_rendered_again(db: PgPool) {
    let world = World::managed(db).await;
    let (stills, node) = (world.stills().await, world.node("n1").await);
    let workflows = world.run_workflows();
    stills.ask(json!({"scenes": [stills.scene().await]})).await;
    let task = node.claim().await;
    node.shoot(&task, [7, 7, 7]).await;
    std::fs::remove_file(world.file_named(blob(&png([7, 7, 7])).sha256.as_str())).unwrap();
    workflows.stop().await;
    world.work();
    let again = node.claim().await;
    assert_ne!(again.id, task.id);
    node.shoot(&again, [7, 7, 7]).await;
    assert_eq!(stills.settled().await["counts"]["done"], 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_a_node_reports_of_a_still_is_looked_at(db: PgPool) {
    let world = World::managed(db).await;
    world.run_workflows();
    let (stills, node) = (world.stills().await, world.node("n1").await);
    stills.ask(json!({"scenes": [stills.scene().await]})).await;
    let task = node.claim().await;
    let picture = png([1, 2, 3]);
    let stored = node.put_frame(&task, &picture).await;
    let cut = node.put_frame(&task, &picture[..picture.len() - 13]).await;
    let text = node.put_frame(&task, b"<svg onload=alert(1)>").await;
    let mut small = std::io::Cursor::new(vec![]);
    image::RgbImage::new(8, 8).write_to(&mut small, image::ImageFormat::Png).unwrap();
    let small = node.put_frame(&task, small.get_ref()).await;
    let rendered = |frame: Value| json!({"rendered": {"frame": frame}});
    let cases = [
        ("cut off", rendered(json!(cut))),
        ("no picture", rendered(json!(text))),
        ("of another size", rendered(json!(small))),
        ("never stored", rendered(json!(blob(b"nothing")))),
        ("of another length", rendered(json!({"sha256": stored.sha256, "size_bytes": 1}))),
        ("an address", json!({"placeholder": "data:image/png;base64,AAAA"})),
        ("an address for a frame", rendered(json!("data:image/png;base64,AAAA"))),
        ("more than is asked", json!({"rendered": {"frame": stored, "url": "data:image/png;base64,AAAA"}})),
        ("frames", json!({"frames": [], "faults": [], "warnings": [], "timing": {}})),
    ];
    for (what, output) in cases {
        let answer = node.complete(&task, output).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (422, "node.bad_output"), "{what}");
    }
    assert_eq!(stills.list().await["data"][0]["job"]["status"], "running", "nothing was recorded");
    let done = node.complete(&task, rendered(json!(stored))).await;
    assert_eq!(done.status, StatusCode::NO_CONTENT);
}
