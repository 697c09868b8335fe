//! Pictures traced to SVG: once each, in the palette that was found, with nothing in them that runs.

use crate::world::{Answer, World, png, request, with_json};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use flatrender_workflows::models::{DEFAULT_TENANT, Role, Scope, file_mgr::purge, identity::tenant_api_key::SCOPES};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

const PREVIEWS: &str = "/v1/templates/tiny/svg-previews";

async fn uploaded(world: &World, color: [u8; 3]) -> Value {
    world.upload("logo.png", png(color)).await.json()["id"].clone()
}

async fn send(world: &World, method: Method, path: &str, body: Value) -> Answer {
    world.send(with_json(world.request(method, path), &body)).await
}

#[sqlx::test(migrations = "../migrations")]
async fn a_picture_is_traced_once_and_its_colours_have_names(db: PgPool) {
    let world = World::new(db).await;
    let file = uploaded(&world, [0x1d, 0x4e, 0xd8]).await;
    let answer = world.post(PREVIEWS, json!({ "file_id": file })).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json());
    let preview = answer.json();
    assert_eq!(
        (&preview["object"], &preview["scene"], &preview["file_id"]),
        (&json!("svg_preview"), &json!(null), &file)
    );
    assert_eq!((&preview["width"], &preview["height"]), (&json!(256), &json!(144)));
    assert_eq!((&preview["slots"][0]["id"], &preview["slots"][0]["color"]), (&json!("slot-1"), &json!("#1d4ed8")));
    let again = world.post(PREVIEWS, json!({ "file_id": file })).await;
    assert_eq!((again.status, again.json()), (StatusCode::OK, preview.clone()));
    let scene = world.get("/v1/templates/tiny").await.json()["scenes"][0]["key"].clone();
    let of_scene = world.post(PREVIEWS, json!({ "file_id": file, "scene": scene })).await;
    assert_eq!((of_scene.status, &of_scene.json()["scene"]), (StatusCode::CREATED, &scene));

    let path = format!("{PREVIEWS}/{}", preview["id"].as_str().unwrap());
    let named = send(&world, Method::PATCH, &path, json!({"labels": {"slot-1": " زمینه "}})).await;
    assert_eq!((named.status, &named.json()["slots"][0]["label"]), (StatusCode::OK, &json!("زمینه")));
    for (labels, fault) in [
        (json!({"slot-9": "x"}), "/labels/slot-9 svg_preview.slot"),
        (json!({"slot-1": " "}), "/labels/slot-1 svg_preview.label"),
        (json!({"slot-1": "a\u{0}"}), "/labels/slot-1 svg_preview.label"),
    ] {
        assert_eq!(send(&world, Method::PATCH, &path, json!({ "labels": labels })).await.faults(), [fault]);
    }
    let listed = world.get(PREVIEWS).await.json();
    assert_eq!(listed["data"].as_array().unwrap().len(), 2);
    assert_eq!(listed["data"][1], named.json());
}

#[sqlx::test(migrations = "../migrations")]
async fn the_svg_is_shapes_alone_and_is_served_so_that_nothing_runs(db: PgPool) {
    let world = World::new(db).await;
    let file = uploaded(&world, [10, 200, 30]).await;
    let preview = world.post(PREVIEWS, json!({ "file_id": file })).await.json();
    let answer = world.get(preview["url"].as_str().unwrap()).await;
    assert_eq!((answer.status, answer.header("content-type")), (StatusCode::OK, "image/svg+xml"));
    assert_eq!(answer.header("x-content-type-options"), "nosniff");
    let policy = answer.header("content-security-policy");
    assert!(policy.contains("sandbox") && !policy.contains("script-src"), "{policy}");
    let svg = String::from_utf8(answer.body.to_vec()).unwrap();
    assert_eq!(svg.len() as u64, preview["size_bytes"].as_u64().unwrap());
    let elements: Vec<_> = svg.split('<').skip(1).map(|e| e.split([' ', '>']).next().unwrap()).collect();
    assert!(elements.iter().all(|e| matches!(*e, "svg" | "path" | "/svg")), "{elements:?}");
    assert!(svg.contains("style=\"fill:var(--slot-1,#0ac81e)\""), "{svg}");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_removed_preview_is_gone_and_what_it_was_made_of_stays(db: PgPool) {
    let world = World::new(db).await;
    let file = uploaded(&world, [1, 2, 200]).await;
    let preview = world.post(PREVIEWS, json!({ "file_id": file })).await.json();
    let path = format!("{PREVIEWS}/{}", preview["id"].as_str().unwrap());
    let remove = async || world.send(world.request(Method::DELETE, &path).body(Body::empty()).unwrap()).await;
    assert_eq!(remove().await.status, StatusCode::NO_CONTENT);
    assert_eq!(remove().await.problem(), "svg_preview.not_found");
    assert_eq!(world.get(preview["url"].as_str().unwrap()).await.problem(), "svg_preview.not_found");
    assert_eq!(world.get(&format!("/v1/files/{}", file.as_str().unwrap())).await.status, StatusCode::OK);
    assert_eq!(world.count("file_mgr.blobs where refcount > 0").await, 1, "the picture alone is in use");
}

#[sqlx::test(migrations = "../migrations")]
async fn what_cannot_be_traced_says_why(db: PgPool) {
    let world = World::new(db).await;
    let nothing = json!({ "file_id": Uuid::now_v7() });
    assert_eq!(world.post(PREVIEWS, nothing).await.faults(), ["/file_id file.not_found"]);
    let ask = request(Method::POST, "/v1/files?name=b.png", &world.stranger().await);
    let theirs = world.send(ask.body(Body::from(png([7, 7, 7]))).unwrap()).await.json()["id"].clone();
    assert_eq!(world.post(PREVIEWS, json!({ "file_id": theirs })).await.faults(), ["/file_id file.not_found"]);
    let file = uploaded(&world, [3, 2, 1]).await;
    let elsewhere = world.post(PREVIEWS, json!({ "file_id": file, "scene": "nowhere" })).await;
    assert_eq!(elsewhere.faults(), ["/scene scene.unknown"]);
    let unknown = world.post("/v1/templates/none/svg-previews", json!({ "file_id": file })).await;
    assert_eq!(unknown.problem(), "template.not_found");
    assert_eq!(world.count("content.template_svg_previews").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_stranger_sees_the_previews_of_a_shared_template_and_changes_none(db: PgPool) {
    let world = World::new(db).await;
    let file = uploaded(&world, [1, 2, 200]).await;
    let preview = world.post(PREVIEWS, json!({ "file_id": file })).await.json();
    let key = world.stranger().await;
    let ask = async |method: Method, path: &str, body: Option<Value>| {
        let asked = request(method, path, &key);
        let asked: Request<Body> = match body {
            Some(body) => with_json(asked, &body),
            None => asked.body(Body::empty()).unwrap(),
        };
        world.send(asked).await
    };
    assert_eq!(ask(Method::GET, PREVIEWS, None).await.json()["data"][0], preview);
    assert_eq!(ask(Method::GET, preview["url"].as_str().unwrap(), None).await.status, StatusCode::OK);
    let path = format!("{PREVIEWS}/{}", preview["id"].as_str().unwrap());
    for (method, path, body) in [
        (Method::POST, PREVIEWS, Some(json!({ "file_id": file }))),
        (Method::PATCH, path.as_str(), Some(json!({ "labels": {} }))),
        (Method::DELETE, path.as_str(), None),
    ] {
        assert_eq!(ask(method, path, body).await.problem(), "template.not_found");
    }
    assert_eq!(world.get(PREVIEWS).await.json()["data"][0], preview);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_picture_with_the_longest_name_is_traced(db: PgPool) {
    let world = World::new(db).await;
    // 255 bytes: a Persian letter takes two.
    let named = world.upload(&format!("{}1.png", "%D8%AF".repeat(125)), png([9, 8, 200])).await;
    assert_eq!(named.status, StatusCode::CREATED, "{}", named.json());
    let traced = world.post(PREVIEWS, json!({ "file_id": named.json()["id"] })).await;
    assert_eq!(traced.status, StatusCode::CREATED, "{}", traced.json());
    let name = sqlx::query_scalar("select name from file_mgr.files where purpose = 'preview'");
    let name: String = name.fetch_one(&world.db).await.unwrap();
    assert_eq!(name, "\u{62f}".repeat(125) + "1.svg");
}

/// A picture that is held stays when it is removed, out of sight, and goes once it is released.
#[sqlx::test(migrations = "../migrations")]
async fn a_traced_picture_that_is_held_stays_until_it_is_released(db: PgPool) {
    let world = World::new(db).await;
    let file = uploaded(&world, [1, 100, 200]).await;
    let made = world.post(PREVIEWS, json!({ "file_id": file })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json());
    let hold = "insert into file_mgr.holds (tenant_id, file_id, reason, placed_by)
                select tenant_id, id, 'court order 17', 'cli' from file_mgr.files where purpose = 'preview'";
    sqlx::query(hold).execute(&world.db).await.unwrap();
    let path = format!("{PREVIEWS}/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(send(&world, Method::DELETE, &path, json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(world.get(PREVIEWS).await.json()["data"], json!([]));
    assert_eq!(purge(&world).await, 0);
    sqlx::query("update file_mgr.holds set released_at = workflow.now(), released_by = 'cli'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(purge(&world).await, 1);
}

/// One that something else names by now stays where it is seen, and goes once nothing does.
#[sqlx::test(migrations = "../migrations")]
async fn a_traced_picture_that_became_a_logo_stays_until_it_is_none(db: PgPool) {
    let world = World::new(db).await;
    let file = uploaded(&world, [1, 100, 200]).await;
    let made = world.post(PREVIEWS, json!({ "file_id": file })).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json());
    let svg = sqlx::query_scalar("select id from file_mgr.files where purpose = 'preview'");
    let svg: Uuid = svg.fetch_one(&world.db).await.unwrap();
    let (_, key) = world.key_for(DEFAULT_TENANT, &SCOPES).await;
    let brand = json!({ "product_name": "Acme", "logo_file_id": svg });
    let chosen = world.send(with_json(request(Method::PUT, "/v1/tenant/branding", &key), &brand)).await;
    assert_eq!(chosen.status, StatusCode::OK, "{}", chosen.json());
    let path = format!("{PREVIEWS}/{}", made.json()["id"].as_str().unwrap());
    assert_eq!(send(&world, Method::DELETE, &path, json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(purge(&world).await, 0);
    let logo = Request::get("/v1/branding/default/logo").header("host", "localhost").body(Body::empty()).unwrap();
    assert_eq!(world.send(logo).await.status, StatusCode::OK, "it is still seen");
    assert_eq!(world.get(&format!("/v1/files/{svg}/content")).await.status, StatusCode::OK);
    sqlx::query("update identity.tenant_branding set logo_file_id = null").execute(&world.db).await.unwrap();
    assert_eq!(purge(&world).await, 1);
    world.keeps_every_rule().await;
}

/// How many files go whose time is over.
async fn purge(world: &World) -> u64 {
    let mut tx = Scope::platform(Role::Admin).begin(&world.db).await.unwrap();
    let looked = purge::overdue(&mut tx, None, 10).await.unwrap();
    tx.commit().await.unwrap();
    looked.purged
}
