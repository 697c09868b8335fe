//! What belongs to another tenant is not there.

use crate::{
    exports::publish,
    world::{World, order_with, png, request, with_json},
};
use axum::{body::Body, http::Method};
use serde_json::json;
use sqlx::PgPool;

#[sqlx::test(migrations = "../migrations")]
async fn a_stranger_finds_nothing(db: PgPool) {
    let world = World::new(db).await;
    let render = world.order().await;
    let file = world.upload("logo.png", png([1, 2, 3])).await.json()["id"].as_str().unwrap().to_owned();
    let export = publish(&world, render, b"a film").await;
    let stranger = world.stranger().await;
    let cases = [
        (Method::GET, format!("/v1/renders/{render}"), "render.not_found"),
        (Method::GET, format!("/v1/renders/{render}/events"), "render.not_found"),
        (Method::POST, format!("/v1/renders/{render}/cancel"), "render.not_found"),
        (Method::GET, format!("/v1/files/{file}"), "file.not_found"),
        (Method::GET, format!("/v1/exports/{export}"), "export.not_found"),
        (Method::GET, format!("/v1/exports/{export}/download"), "export.not_found"),
        (Method::GET, format!("/v1/exports/{export}/contact-sheet"), "export.not_found"),
    ];
    for (method, path, code) in cases {
        let answer = world.send(request(method, &path, &stranger).body(Body::empty()).unwrap()).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (404, code), "{path}");
    }
    let list = world.send(request(Method::GET, "/v1/renders", &stranger).body(Body::empty()).unwrap()).await;
    assert_eq!(list.json()["data"], json!([]));
    let order = order_with("data.images", json!({"logo": file}));
    let borrowed = world.send(with_json(request(Method::POST, "/v1/renders", &stranger), &order)).await;
    assert_eq!(borrowed.faults(), ["/data/images/logo file.not_found"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_shared_template_is_everybodys(db: PgPool) {
    let world = World::new(db).await;
    let stranger = world.stranger().await;
    let get = |path: &'static str| world.send(request(Method::GET, path, &stranger).body(Body::empty()).unwrap());
    assert_eq!(get("/v1/templates").await.json()["data"][0]["slug"], "tiny");
    assert_eq!(get("/v1/templates/tiny").await.json()["manifest"]["texts"][0]["key"], "title");
    assert_eq!(get("/v1/templates/tiny/preview").await.body, png([0, 0, 0]));
    assert_eq!(get("/v1/templates/nope").await.problem(), "template.not_found");
}
