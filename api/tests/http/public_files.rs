//! Pictures that their owner shows to everybody: at an address of their content, as long as the owner says and no longer.

use crate::world::{Answer, PUBLIC_URL, World, png, request, with_json};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use serde_json::{Value, json};
use sqlx::PgPool;

async fn ask(world: &World, method: Method, path: &str, headers: &[(&str, &str)]) -> Answer {
    let request = Request::builder().method(method).uri(path);
    let request = headers.iter().fold(request, |request, (name, value)| request.header(*name, *value));
    world.send(request.body(Body::empty()).unwrap()).await
}

async fn see(world: &World, path: &str) -> Answer {
    ask(world, Method::GET, path, &[]).await
}

async fn uploaded(world: &World, content: Vec<u8>) -> String {
    world.upload("a", content).await.json()["id"].as_str().unwrap().to_owned()
}

async fn show(world: &World, file: &str, visibility: &str) -> Answer {
    let change = world.request(Method::PATCH, &format!("/v1/files/{file}"));
    world.send(with_json(change, &json!({ "visibility": visibility }))).await
}

/// The path at which everybody sees a file from now on.
async fn published(world: &World, file: &str) -> String {
    let shown = show(world, file, "public").await;
    assert_eq!((shown.status, &shown.json()["visibility"]), (StatusCode::OK, &json!("public")), "{}", shown.json());
    let url = shown.json()["public_url"].as_str().unwrap().to_owned();
    url.strip_prefix(PUBLIC_URL).unwrap().to_owned()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_public_picture_is_seen_by_everybody_and_kept_for_ever(db: PgPool) {
    let world = World::new(db).await;
    let file = world.upload("logo.png", png([1, 2, 3])).await.json();
    assert_eq!((&file["visibility"], &file["public_url"]), (&json!("private"), &Value::Null));
    let id = file["id"].as_str().unwrap();
    let path = published(&world, id).await;
    assert_eq!(path, format!("/public/{}/{}", world.tenant, file["sha256"].as_str().unwrap()));
    let listed = world.get("/v1/files").await.json()["data"][0].clone();
    assert_eq!((&listed, &listed["rev"]), (&world.get(&format!("/v1/files/{id}")).await.json(), &json!(1)));

    let (picture, etag) = (png([1, 2, 3]), format!("\"{}\"", file["sha256"].as_str().unwrap()));
    let whole = see(&world, &path).await;
    assert_eq!((whole.status, &whole.body[..]), (StatusCode::OK, &picture[..]));
    for (name, value) in [
        ("cache-control", "public, max-age=31536000, immutable"),
        ("content-type", "image/png"),
        ("content-disposition", "inline"),
        ("x-content-type-options", "nosniff"),
        ("access-control-allow-origin", "*"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("accept-ranges", "bytes"),
        ("etag", etag.as_str()),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    let policy = whole.header("content-security-policy");
    assert!(policy.contains("sandbox") && policy.contains("default-src 'none'"), "{policy}");

    let head = ask(&world, Method::HEAD, &path, &[]).await;
    let length = picture.len().to_string();
    assert_eq!((head.status, head.body.len(), head.header("content-length")), (StatusCode::OK, 0, length.as_str()));
    let part = ask(&world, Method::GET, &path, &[("range", "bytes=1-3")]).await;
    assert_eq!((part.status, &part.body[..]), (StatusCode::PARTIAL_CONTENT, &b"PNG"[..]));
    assert_eq!(part.header("content-range"), format!("bytes 1-3/{length}"));
    let outside = ask(&world, Method::GET, &path, &[("range", &format!("bytes={length}-"))]).await;
    assert_eq!(outside.problem(), "range.not_satisfiable");
    let same = ask(&world, Method::GET, &path, &[("if-none-match", &etag)]).await;
    assert_eq!((same.status, same.body.len()), (StatusCode::NOT_MODIFIED, 0));
}

/// Private again, in the trash, gone for good: it looks as if there had never been any.
#[sqlx::test(migrations = "../migrations")]
async fn a_picture_that_is_public_no_more_looks_like_none(db: PgPool) {
    let world = World::new(db).await;
    let file = uploaded(&world, png([1, 2, 3])).await;
    let path = published(&world, &file).await;
    let none = see(&world, &format!("/public/{}/{}", world.tenant, "0".repeat(64))).await;
    assert_eq!((none.problem().as_str(), none.header("cache-control")), ("file.not_found", "no-store"));
    let is_away = async || {
        let answer = see(&world, &path).await;
        assert_eq!(crate::attacks::plain(&answer), crate::attacks::plain(&none));
        assert_eq!(ask(&world, Method::HEAD, &path, &[]).await.status, StatusCode::NOT_FOUND);
    };
    let hidden = show(&world, &file, "private").await.json();
    assert_eq!((&hidden["visibility"], &hidden["public_url"]), (&json!("private"), &Value::Null));
    is_away().await;

    assert_eq!(published(&world, &file).await, path, "it is the same for ever");
    let trashed = world.post(&format!("/v1/files/{file}/trash"), json!({})).await.json();
    assert_eq!((&trashed["visibility"], &trashed["public_url"]), (&json!("public"), &Value::Null));
    is_away().await;
    assert_eq!(show(&world, &file, "private").await.problem(), "file.in_trash");
    world.post(&format!("/v1/files/{file}/restore"), json!({})).await;
    assert_eq!(see(&world, &path).await.status, StatusCode::OK);

    sqlx::query("update file_mgr.files set state = 'purged'").execute(&world.db).await.unwrap();
    is_away().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_two_files_hold_is_seen_while_one_of_them_is_public(db: PgPool) {
    let world = World::new(db).await;
    let (one, other) = (uploaded(&world, png([1, 2, 3])).await, uploaded(&world, png([1, 2, 3])).await);
    let path = published(&world, &one).await;
    assert_eq!(published(&world, &other).await, path);
    show(&world, &one, "private").await;
    assert_eq!(see(&world, &path).await.status, StatusCode::OK);
    show(&world, &other, "private").await;
    assert_eq!(see(&world, &path).await.problem(), "file.not_found");
}

#[sqlx::test(migrations = "../migrations")]
async fn an_address_leads_to_nothing_of_another_tenant(db: PgPool) {
    let world = World::new(db).await;
    let other = world.tenant("other").await;
    let (_, key) = world.key_for(other, &["files"]).await;
    let theirs = request(Method::POST, "/v1/files?name=a.png", &key).body(Body::from(png([1, 2, 3]))).unwrap();
    let theirs = world.send(theirs).await.json();
    let file = uploaded(&world, png([1, 2, 3])).await;
    let path = published(&world, &file).await;
    assert!(path.ends_with(theirs["sha256"].as_str().unwrap()), "both have the same content");
    let at_theirs = path.replace(&world.tenant.to_string(), &other.to_string());
    assert_ne!(at_theirs, path);
    assert_eq!(see(&world, &at_theirs).await.problem(), "file.not_found");
    // Nobody shows what is another's.
    let change = request(Method::PATCH, &format!("/v1/files/{file}"), &key);
    let answer = world.send(with_json(change, &json!({ "visibility": "private" }))).await;
    assert_eq!(answer.problem(), "file.not_found");
    assert_eq!(see(&world, &path).await.status, StatusCode::OK);
}

#[sqlx::test(migrations = "../migrations")]
async fn nothing_but_a_picture_that_was_uploaded_is_public(db: PgPool) {
    let world = World::new(db).await;
    let picture = uploaded(&world, png([10, 200, 30])).await;
    let traced = world.post("/v1/templates/tiny/svg-previews", json!({ "file_id": picture })).await;
    assert_eq!(traced.status, StatusCode::CREATED, "{}", traced.json());
    let svg = sqlx::query_scalar("select id::text from file_mgr.files where mime_detected = 'image/svg+xml'");
    let svg: String = svg.fetch_one(&world.db).await.unwrap();
    let sound = uploaded(&world, crate::files::wav(8000)).await;
    crate::exports::publish(&world, world.order().await, b"a film").await;
    let sheet = sqlx::query_scalar("select id::text from file_mgr.files where purpose = 'contact_sheet'");
    let sheet: String = sheet.fetch_one(&world.db).await.unwrap();
    for file in [&svg, &sound, &sheet] {
        assert_eq!(show(&world, file, "public").await.faults(), ["/visibility file.visibility"], "{file}");
        assert_eq!(show(&world, file, "private").await.status, StatusCode::OK, "it is already");
    }
    assert_eq!(show(&world, &picture, "everybody").await.faults(), ["/visibility field.type"]);
    assert_eq!(world.count("file_mgr.files where visibility = 'public'").await, 0);
    let hash = "a".repeat(63);
    for path in [format!("/public/{}/{hash}", world.tenant), format!("/public/x/{hash}a")] {
        assert_eq!(see(&world, &path).await.problem(), "path.invalid", "{path}");
    }
}
