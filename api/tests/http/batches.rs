//! Many orders in one request.

use crate::world::{World, order, order_with, with_json};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;

#[sqlx::test(migrations = "../migrations")]
async fn each_order_of_a_batch_is_taken_or_refused_for_itself_and_once(db: PgPool) {
    let world = World::new(db).await;
    let orders =
        json!({"orders": [order(), order_with("template", json!("nobody")), {"tempalte": "promo"}, 7, order()]});
    let send = async || {
        let request = world.request(Method::POST, "/v1/renders/batch").header("idempotency-key", "spring");
        let answer = world.send(with_json(request, &orders)).await;
        assert_eq!(answer.status, StatusCode::OK, "{}", answer.json());
        answer.json()
    };
    let first = send().await;
    assert_eq!(json!([first["accepted"], first["replayed"], first["refused"]]), json!([2, 0, 3]));
    let codes = |batch: &Value| -> Vec<Value> {
        batch["data"]
            .as_array()
            .unwrap()
            .iter()
            .map(|i| json!([i["index"], i["outcome"], i["problem"]["code"]]))
            .collect()
    };
    assert_eq!(
        codes(&first),
        [
            json!([0, "accepted", null]),
            json!([1, "refused", "template.unknown"]),
            json!([2, "refused", "request.invalid"]),
            json!([3, "refused", "request.invalid"]),
            json!([4, "accepted", null]),
        ]
    );
    let second = send().await;
    assert_eq!(json!([second["accepted"], second["replayed"], second["refused"]]), json!([0, 2, 3]));
    let ids = |batch: &Value| json!([batch["data"][0]["render"]["id"], batch["data"][4]["render"]["id"]]);
    assert_eq!(ids(&first), ids(&second));
    assert_eq!(world.get("/v1/renders").await.json()["data"].as_array().unwrap().len(), 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_batch_has_one_to_a_thousand_orders(db: PgPool) {
    let world = World::new(db).await;
    for orders in [json!([]), json!(vec![0; 1001]), json!("x"), json!({})] {
        assert_eq!(world.post("/v1/renders/batch", json!({"orders": orders})).await.problem(), "request.invalid");
    }
    let most = world.post("/v1/renders/batch", json!({"orders": vec![0; 1000]})).await;
    assert_eq!(most.json()["refused"], 1000);
    let long = world.request(Method::POST, "/v1/renders/batch").header("idempotency-key", "k".repeat(252));
    assert_eq!(world.send(with_json(long, &json!({"orders": [order()]}))).await.problem(), "header.invalid");
}
