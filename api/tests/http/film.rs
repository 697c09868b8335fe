//! A film from its order to its download, by HTTP alone; only the pixels are painted by the test.

use crate::{
    jane::{PASSWORD, credentials, post},
    world::{Answer, Claimed, Node, World, blob, order, request, with_json},
};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_api::platform::owner::{self, NewOwner};
use flatrender_workflows::models::DEFAULT_TENANT;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// The longest time until a film of four seconds is done.
const PATIENCE: Duration = Duration::from_secs(90);

async fn get(world: &World, key: &str, path: &str) -> Answer {
    world.send(request(Method::GET, path, key).body(Body::empty()).unwrap()).await
}

/// The render as its tenant sees it once it has ended; the node does what there is to do.
pub async fn finished(world: &World, node: &Node<'_>, key: &str, id: &str) -> Value {
    let (path, started) = (format!("/v1/renders/{id}"), Instant::now());
    loop {
        let work = node.ask(0.5).await;
        if work.status == StatusCode::OK {
            let task = work.json()["tasks"][0].clone();
            let token = task["lease_token"].as_str().unwrap().to_owned();
            let task = Claimed { id: task["task_id"].as_i64().unwrap(), token, input: task["input"].clone() };
            let output = node.render(&task).await;
            assert_eq!(node.complete(&task, output).await.status, StatusCode::NO_CONTENT);
        }
        let render: Value = get(world, key, &path).await.json();
        if render["finished_at"].is_string() {
            return render;
        }
        assert!(started.elapsed() < PATIENCE, "{render}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn an_order_becomes_a_film(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let id = world.order().await.to_string();
    let node = world.node("n1").await;
    let render = finished(&world, &node, &world.key, &id).await;
    assert_eq!(render["status"], "completed", "{render}");
    assert_eq!((render["frames"]["rendered"].as_i64(), render["export"]["frames"].as_i64()), (Some(38), Some(38)));
    let film = world.get(render["export"]["url"].as_str().unwrap()).await;
    assert_eq!(blob(&film.body).sha256.as_str(), render["export"]["sha256"].as_str().unwrap());
    let sheet = world.get(render["export"]["contact_sheet_url"].as_str().unwrap()).await;
    assert!(sheet.body.starts_with(b"\x89PNG"));
    // What was set aside was enough, and what is kept counts instead.
    let (set_aside, used, reserved): (i64, i64, i64) = sqlx::query_as(
        "select r.amount_bytes, q.used_bytes, q.reserved_bytes from file_mgr.quotas q join file_mgr.quota_reservations r using (tenant_id)
         where q.owner_id is null and r.state = 'used'",
    )
    .fetch_one(&world.db)
    .await
    .unwrap();
    assert!(used >= (film.body.len() + sheet.body.len()) as i64 && used <= set_aside, "{used} of {set_aside}");
    assert_eq!(reserved, 0);
}

/// A reseller is a tenant: the platform makes it, its owner makes a key, and the key orders films that nobody else sees.
#[sqlx::test(migrations = "../migrations")]
async fn s039_a_reseller_has_films_made_with_a_key_of_its_own(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let admin = world.person(DEFAULT_TENANT, "admin@example.com", &["platform_admin"]).await;
    let admin = world.session(DEFAULT_TENANT, admin).await;
    let new = json!({ "slug": "acme", "name": "Acme Films" });
    let made = world.send(with_json(request(Method::POST, "/v1/platform/tenants", &admin), &new)).await;
    assert_eq!((made.status, &made.json()["kind"]), (StatusCode::CREATED, &json!("reseller")), "{:?}", made.body);
    let new = NewOwner { email: "ann@acme.example", name: "Ann", tenant: "acme", platform_admin: false };
    let token = owner::create_owner(&world.db, new).await.unwrap();
    let body = json!({ "token": token.reveal(), "password": PASSWORD });
    assert_eq!(post(&world, "/v1/auth/reset-password", body).await.status, StatusCode::NO_CONTENT);
    let mut sign_in = credentials("ann@acme.example", PASSWORD);
    sign_in["tenant"] = json!("acme");
    let ann = post(&world, "/v1/auth/sign-in", sign_in).await.json()["access_token"].as_str().unwrap().to_owned();
    let key = world.send(with_json(request(Method::POST, "/v1/api-keys", &ann), &json!({ "name": "Shop" }))).await;
    let key = key.json()["secret"].as_str().unwrap().to_owned();

    let ordered = world.send(with_json(request(Method::POST, "/v1/renders", &key), &order())).await;
    assert_eq!(ordered.status, StatusCode::ACCEPTED, "{:?}", ordered.body);
    let id = ordered.json()["id"].as_str().unwrap().to_owned();
    let node = world.node("n1").await;
    let render = finished(&world, &node, &key, &id).await;
    assert_eq!(render["status"], "completed", "{render}");
    let url = render["export"]["url"].as_str().unwrap();
    let film = get(&world, &key, url).await;
    assert_eq!(blob(&film.body).sha256.as_str(), render["export"]["sha256"].as_str().unwrap());
    assert_eq!(world.get(url).await.problem(), "export.not_found", "not even the platform's own key");
    assert_eq!(world.get(&format!("/v1/renders/{id}")).await.problem(), "render.not_found");
    let usage = get(&world, &ann, "/v1/tenant/quotas").await.json();
    assert_eq!(usage["data"][0], json!({ "name": "renders_per_day", "used": 1, "limit": null }));
}
