//! What tenants asked, written down beside the requests.

use crate::world::{Answer, World, request};
use axum::{body::Body, http::Method};
use flatrender_workflows::models::DEFAULT_TENANT;
use futures::FutureExt as _;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

/// Writes what waits, and reads it with a key made for that.
async fn logs(world: &World, query: &str) -> Answer {
    world.app.request_log.flush(&world.app.db).await.unwrap();
    let (_, key) = world.key_for(DEFAULT_TENANT, &["admin"]).await;
    let request = request(Method::GET, &format!("/v1/request-logs{query}"), &key);
    world.send(request.body(Body::empty()).unwrap()).await
}

fn routes(page: &Value) -> Vec<String> {
    let line = |e: &Value| {
        let text = |name: &str| e[name].as_str().unwrap_or("-").to_owned();
        format!("{} {} {} {}", text("method"), text("route"), e["status"], text("error_code"))
    };
    page["data"].as_array().unwrap().iter().map(line).collect()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_request_is_written_down_with_its_route_and_outcome_and_without_its_content(db: PgPool) {
    let world = World::new(db).await;
    let (key_id, key) = world.key_for(DEFAULT_TENANT, &["render"]).await;
    let path = "/v1/renders/0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11?secret=1";
    let missing = world.send(request(Method::GET, path, &key).body(Body::empty()).unwrap()).await;
    assert_eq!(missing.problem(), "render.not_found");
    let body = json!({"template": "no"}).to_string();
    let order = request(Method::POST, "/v1/renders", &key)
        .header("content-type", "application/json")
        .header("idempotency-key", "order-1")
        .header("x-request-id", "mine");
    let refused = world.send(order.body(body.clone().into()).unwrap()).await;
    world.send(request(Method::GET, "/v1/renders", "fr_live_nonsense").body(Body::empty()).unwrap()).await;
    let page = logs(&world, &format!("?api_key_id={key_id}")).await.json();
    assert_eq!(
        routes(&page),
        ["POST /v1/renders 422 template.unknown", "GET /v1/renders/{id} 404 render.not_found"],
        "newest first, and none of nobody's"
    );
    let entry = &page["data"][0];
    assert_eq!((&entry["request_id"], &entry["bytes_in"]), (&json!("mine"), &json!(body.len())));
    assert_eq!(entry["bytes_out"], refused.body.len());
    assert!(entry["latency_us"].as_i64().unwrap() > 0);
    assert_eq!(world.count("identity.tenant_api_request_logs where idempotency_key_hash is not null").await, 1);
    let whole = "select string_agg(to_jsonb(l)::text, '') from identity.tenant_api_request_logs l";
    let whole: String = sqlx::query_scalar(whole).fetch_one(&world.db).await.unwrap();
    assert!(!whole.contains("secret") && !whole.contains("order-1") && !whole.contains(&key), "{whole}");
}

#[sqlx::test(migrations = "../migrations")]
async fn requests_are_listed_a_page_at_a_time_and_of_ones_own_tenant_only(db: PgPool) {
    let world = World::new(db).await;
    let stranger = world.stranger().await;
    for _ in 0..5 {
        world.get("/v1/templates").await;
        world.send(request(Method::GET, "/v1/renders", &stranger).body(Body::empty()).unwrap()).await;
    }
    let own: Uuid =
        sqlx::query_scalar("select id from identity.tenant_api_keys where name = 'test' and tenant_id = $1")
            .bind(DEFAULT_TENANT)
            .fetch_one(&world.db)
            .await
            .unwrap();
    let first = logs(&world, &format!("?limit=3&api_key_id={own}")).await.json();
    let cursor = first["next_cursor"].as_str().unwrap();
    let second = logs(&world, &format!("?limit=3&api_key_id={own}&starting_after={cursor}")).await.json();
    let ids = |page: &Value| page["data"].as_array().unwrap().iter().map(|e| e["id"].to_string()).collect::<Vec<_>>();
    assert_eq!((ids(&first).len(), ids(&second).len(), &second["has_more"]), (3, 2, &json!(false)));
    assert!(ids(&first).iter().all(|id| !ids(&second).contains(id)));
    let all = [routes(&first), routes(&second)].concat();
    assert!(all.iter().all(|line| line == "GET /v1/templates 200 -"), "{all:?}");
    let everybody = routes(&logs(&world, "?limit=100").await.json());
    assert!(!everybody.is_empty() && everybody.iter().all(|line| !line.contains("/v1/renders")), "{everybody:?}");
    assert_eq!(routes(&logs(&world, "?min_status=400").await.json()), Vec::<String>::new());
    for wrong in ["x", "1_x", "99999999999999999_0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11"] {
        assert_eq!(logs(&world, &format!("?starting_after={wrong}")).await.problem(), "query.invalid", "{wrong}");
    }
    assert_eq!(routes(&logs(&world, "?min_status=400").await.json()).len(), 3);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_could_not_be_written_is_written_later_and_once(db: PgPool) {
    let world = World::new(db).await;
    let rename = async |from: &str, to: &str| {
        let sql = format!("alter table identity.{from} rename to {to}");
        sqlx::query(sqlx::AssertSqlSafe(sql)).execute(&world.db).await.unwrap();
    };
    for _ in 0..3 {
        world.get("/v1/templates").await;
    }
    rename("tenant_api_request_logs", "away").await;
    assert!(world.app.request_log.flush(&world.app.db).await.is_err());
    rename("away", "tenant_api_request_logs").await;
    assert!(world.app.request_log.flush(&world.app.db).now_or_never().is_none(), "given up half-way");
    world.app.request_log.flush(&world.app.db).await.unwrap();
    world.app.request_log.flush(&world.app.db).await.unwrap();
    assert_eq!(world.count("identity.tenant_api_request_logs").await, 3);
}
