//! Who may ask.

use crate::world::{World, order, request, with_json};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use sqlx::PgPool;

const GUARDED: [(&str, &str); 17] = [
    ("POST", "/v1/renders"),
    ("GET", "/v1/renders"),
    ("GET", "/v1/renders/0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11"),
    ("GET", "/v1/renders/0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11/events"),
    ("POST", "/v1/renders/0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11/cancel"),
    ("GET", "/v1/exports/0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11/download"),
    ("GET", "/v1/templates"),
    ("GET", "/v1/templates/tiny"),
    ("GET", "/v1/templates/tiny/preview"),
    ("POST", "/v1/files"),
    ("GET", "/v1/files/0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11"),
    ("POST", "/v1/nodes/claims"),
    ("POST", "/v1/nodes/tasks/1/renew"),
    ("POST", "/v1/nodes/tasks/1/complete"),
    ("POST", "/v1/nodes/tasks/1/fail"),
    ("POST", "/v1/nodes/tasks/1/release"),
    ("GET", "/v1/nodes/tasks/1/inputs/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
];

#[sqlx::test(migrations = "../migrations")]
async fn every_guarded_address_asks_for_a_credential(db: PgPool) {
    let world = World::new(db).await;
    for (method, path) in GUARDED {
        let method: Method = method.parse().unwrap();
        let bare = Request::builder().method(method.clone()).uri(path).body(Body::empty()).unwrap();
        let answer = world.send(bare).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::UNAUTHORIZED, "auth.missing"), "{path}");
        assert!(answer.header(header::WWW_AUTHENTICATE).starts_with("Bearer"));
        let wrong = request(method, path, "fr_live_wrong").body(Body::empty()).unwrap();
        assert_eq!(world.send(wrong).await.problem(), "auth.invalid", "{path}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_revoked_key_opens_nothing(db: PgPool) {
    let world = World::new(db).await;
    assert_eq!(world.get("/v1/renders").await.status, StatusCode::OK);
    let revoke = "update identity.tenant_api_keys set revoked_at = now()";
    sqlx::query(revoke).execute(&world.db).await.unwrap();
    assert_eq!(world.get("/v1/renders").await.problem(), "auth.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_is_no_node_and_a_node_no_tenant(db: PgPool) {
    let world = World::new(db).await;
    let node = world.node("n1").await;
    let as_tenant = with_json(request(Method::POST, "/v1/renders", &node.credential), &order());
    assert_eq!(world.send(as_tenant).await.problem(), "auth.invalid");
    let claim = serde_json::json!({"incarnation": node.incarnation, "labels": {}, "wait_seconds": 0});
    assert_eq!(world.post("/v1/nodes/claims", claim).await.problem(), "auth.invalid");
}
