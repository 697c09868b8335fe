//! A look at a film before it is ordered.

use crate::world::{World, order, with_json};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

fn preview(title: &str) -> Value {
    let mut order = order();
    order["kind"] = json!("preview");
    order["data"]["texts"]["title"] = json!(title);
    order
}

#[sqlx::test(migrations = "../migrations")]
async fn a_preview_is_small_goes_first_and_is_there_for_an_hour(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    world.order().await;
    let ordered = world.post("/v1/renders", preview("Hello")).await.json();
    let size = |r: &Value| (r["kind"].clone(), r["width"].clone(), r["height"].clone());
    assert_eq!(size(&ordered), (json!("preview"), json!(128), json!(72)));
    let node = world.node("n1").await;
    // Both films are there to be claimed before the first is.
    let ready = "select count(distinct run_id) from workflow.tasks where activity = 'RenderFrames'";
    while sqlx::query_scalar::<_, i64>(ready).fetch_one(&world.db).await.unwrap() < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let task = node.claim().await;
    assert_eq!(task.input["render_id"], ordered["id"], "the film was ordered before");
    let mut picture = std::io::Cursor::new(vec![]);
    image::RgbImage::new(128, 72).write_to(&mut picture, image::ImageFormat::Png).unwrap();
    let render = async |task: &crate::world::Claimed| {
        let stored = node.put_frame(task, picture.get_ref()).await;
        let number = |end: &str| task.input["frames"][end].as_u64().unwrap();
        let frames: Vec<Value> =
            (number("first")..=number("last")).map(|n| json!({"frame": n, "blob": stored})).collect();
        assert_eq!(node.complete(task, crate::world::output(&frames)).await.status, StatusCode::NO_CONTENT);
    };
    render(&task).await;
    let path = format!("/v1/renders/{}", ordered["id"].as_str().unwrap());
    let done = loop {
        let render_now: Value = world.get(&path).await.json();
        if render_now["finished_at"].is_string() {
            break render_now;
        }
        let work = node.ask(0.2).await;
        if work.status == StatusCode::OK {
            let task = work.json()["tasks"][0].clone();
            let token = task["lease_token"].as_str().unwrap().to_owned();
            let task =
                crate::world::Claimed { id: task["task_id"].as_i64().unwrap(), token, input: task["input"].clone() };
            if task.input["render_id"] == ordered["id"] {
                render(&task).await;
            }
        }
    };
    assert_eq!(done["status"], "completed", "{done}");
    let url = done["export"]["url"].as_str().unwrap().to_owned();
    assert_eq!(world.get(&url).await.status, StatusCode::OK);
    sqlx::query("update workflow.clock set moved_by = '61 minutes'").execute(&world.db).await.unwrap();
    assert_eq!(world.get(&url).await.problem(), "export.not_found");
    assert_eq!(world.get(&path).await.json()["export"], Value::Null);
}

#[sqlx::test(migrations = "../migrations")]
async fn the_same_preview_is_made_once_in_ten_minutes(db: PgPool) {
    let world = World::new(db).await;
    let order = async |title| {
        let answer = world.post("/v1/renders", preview(title)).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        (answer.json()["id"].clone(), answer.header("idempotent-replayed") == "true")
    };
    let (first, new) = order("Hello").await;
    assert!(!new);
    assert_eq!(order("Hello").await, (first.clone(), true));
    assert_ne!(order("Other").await.0, first, "another text is another preview");
    let stranger = world.tenant("stranger").await;
    let (_, key) = world.key_for(stranger, &["render"]).await;
    let theirs =
        world.send(with_json(crate::world::request(Method::POST, "/v1/renders", &key), &preview("Hello"))).await;
    assert_ne!(theirs.json()["id"], first, "nobody gets another's");
    sqlx::query("update workflow.clock set moved_by = '11 minutes'").execute(&world.db).await.unwrap();
    assert_ne!(order("Hello").await, (first, true), "after ten minutes it is made anew");
}

#[sqlx::test(migrations = "../migrations")]
async fn an_order_that_joined_a_preview_is_answered_with_it_for_as_long_as_its_key_is_known(db: PgPool) {
    let world = World::new(db).await;
    let order = async |key: &str, title: &str| {
        let request = world.request(Method::POST, "/v1/renders").header("idempotency-key", key);
        world.send(with_json(request, &preview(title))).await
    };
    let first = order("one", "Hello").await.json()["id"].clone();
    assert_eq!(order("two", "Hello").await.json()["id"], first, "it is the same preview");
    sqlx::query("update workflow.clock set moved_by = '11 minutes'").execute(&world.db).await.unwrap();
    let again = order("two", "Hello").await;
    assert_eq!((again.status, &again.json()["id"]), (StatusCode::ACCEPTED, &first), "its answer may have been lost");
    assert_eq!(order("two", "Other").await.problem(), "idempotency.key_reused");
    assert_ne!(order("three", "Hello").await.json()["id"], first);
}
