//! Links to files: whoever has one gets the file, as often and as long as its owner says, and learns nothing else.

use crate::world::{Answer, World, png, request, with_json};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode},
};
use flatrender_workflows::models::identity::tenant_api_key::SCOPES;
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;

struct Shared {
    file: String,
    link: String,
    path: String,
}

async fn share(world: &World, terms: Value) -> Shared {
    let file = world.upload("سلام.png", png([1, 2, 3])).await.json()["id"].as_str().unwrap().to_owned();
    let made = world.post(&format!("/v1/files/{file}/share-links"), terms).await;
    assert_eq!(made.status, StatusCode::CREATED, "{}", made.json());
    let url = made.json()["url"].as_str().unwrap().to_owned();
    let path = url.strip_prefix(crate::world::PUBLIC_URL).unwrap().to_owned();
    Shared { file, link: made.json()["id"].as_str().unwrap().to_owned(), path }
}

async fn follow(world: &World, method: Method, path: &str) -> Answer {
    world.send(Request::builder().method(method).uri(path).body(Body::empty()).unwrap()).await
}

async fn links(world: &World, file: &str) -> Value {
    world.get(&format!("/v1/files/{file}/share-links")).await.json()["data"].clone()
}

#[sqlx::test(migrations = "../migrations")]
async fn whoever_has_a_link_gets_the_file_and_nothing_runs(db: PgPool) {
    let world = World::new(db).await;
    let shared = share(&world, json!({})).await;
    let got = follow(&world, Method::GET, &shared.path).await;
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &png([1, 2, 3])[..]));
    assert!(
        got.header("content-disposition").starts_with("attachment; filename=\"____.png\"; filename*=UTF-8''%D8%B3")
    );
    assert!(got.header("content-security-policy").contains("sandbox"));
    assert_eq!((got.header("x-content-type-options"), got.header("cache-control")), ("nosniff", "private, no-store"));
    assert_eq!((got.header("referrer-policy"), got.header("x-robots-tag")), ("no-referrer", "noindex, nofollow"));
    let part = Request::get(&shared.path).header("range", "bytes=0-3").body(Body::empty()).unwrap();
    assert_eq!(world.send(part).await.status, StatusCode::PARTIAL_CONTENT);
    let listed = links(&world, &shared.file).await;
    assert_eq!((&listed[0]["downloads"], listed[0].get("url")), (&json!(2), None), "the address is shown once");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_link_is_followed_as_often_as_agreed_by_however_many_at_once(db: PgPool) {
    let world = World::new(db).await;
    for most in [1, 3] {
        let shared = share(&world, json!({ "max_downloads": most })).await;
        let looked = follow(&world, Method::HEAD, &shared.path).await;
        assert_eq!((looked.status, looked.header("accept-ranges")), (StatusCode::OK, "none"), "looking takes nothing");
        let got = join_all((0..16).map(|_| follow(&world, Method::GET, &shared.path))).await;
        assert_eq!(got.iter().filter(|a| a.status == StatusCode::OK).count(), most);
        assert!(got.iter().filter(|a| a.status != StatusCode::OK).all(|a| a.problem() == "share_link.not_found"));
        assert_eq!(links(&world, &shared.file).await[0]["downloads"], most);
    }
}

/// Where each download counts, each gives the whole file: nobody gets it in parts, or as what they have already.
#[sqlx::test(migrations = "../migrations")]
async fn a_counted_download_is_whole(db: PgPool) {
    let world = World::new(db).await;
    let shared = share(&world, json!({ "max_downloads": 2 })).await;
    let etag = follow(&world, Method::HEAD, &shared.path).await.header("etag").to_owned();
    for (name, value) in [("range", "bytes=0-3"), ("if-none-match", &etag)] {
        let ask = Request::get(&shared.path).header(name, value).body(Body::empty()).unwrap();
        let got = world.send(ask).await;
        assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &png([1, 2, 3])[..]), "{name}");
    }
    assert_eq!(follow(&world, Method::GET, &shared.path).await.status, StatusCode::NOT_FOUND);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_download_that_cannot_begin_is_not_counted(db: PgPool) {
    let world = World::new(db).await;
    let shared = share(&world, json!({ "max_downloads": 1 })).await;
    let hash = world.get(&format!("/v1/files/{}", shared.file)).await.json()["sha256"].as_str().unwrap().to_owned();
    let stored = world.file_named(&hash);
    let aside = stored.with_extension("aside");
    std::fs::rename(&stored, &aside).unwrap();
    assert_ne!(follow(&world, Method::GET, &shared.path).await.status, StatusCode::OK);
    std::fs::rename(&aside, &stored).unwrap();
    assert_eq!(follow(&world, Method::GET, &shared.path).await.status, StatusCode::OK);
}

/// Unknown, expired, revoked, used up, in the trash: it looks the same.
#[sqlx::test(migrations = "../migrations")]
async fn a_link_that_works_no_more_looks_like_none(db: PgPool) {
    let world = World::new(db).await;
    let unknown = follow(&world, Method::GET, "/share/fr_share_nobody").await;
    assert_eq!(unknown.problem(), "share_link.not_found");
    let same = |answer: &Answer| assert_eq!(crate::attacks::plain(answer), crate::attacks::plain(&unknown));
    let shared = share(&world, json!({ "expires_in_seconds": 60 })).await;
    world.post(&format!("/v1/files/{}/trash", shared.file), json!({})).await;
    same(&follow(&world, Method::GET, &shared.path).await);
    world.post(&format!("/v1/files/{}/restore", shared.file), json!({})).await;
    assert_eq!(follow(&world, Method::GET, &shared.path).await.status, StatusCode::OK);
    sqlx::query("update file_mgr.share_links set expires_at = now() - interval '1 s'")
        .execute(&world.db)
        .await
        .unwrap();
    same(&follow(&world, Method::GET, &shared.path).await);
    let shared = share(&world, json!({})).await;
    let revoke = format!("/v1/files/{}/share-links/{}", shared.file, shared.link);
    for _ in 0..2 {
        assert_eq!(
            world.send(world.request(Method::DELETE, &revoke).body(Body::empty()).unwrap()).await.status,
            StatusCode::NO_CONTENT
        );
    }
    same(&follow(&world, Method::GET, &shared.path).await);
    assert!(links(&world, &shared.file).await[0]["revoked_at"].is_string());
}

#[sqlx::test(migrations = "../migrations")]
async fn links_are_made_within_bounds_and_by_their_owner(db: PgPool) {
    let world = World::new(db).await;
    let shared = share(&world, json!({})).await;
    let path = format!("/v1/files/{}/share-links", shared.file);
    for (terms, fault) in [
        (json!({ "expires_in_seconds": 59 }), "/expires_in_seconds seconds.range"),
        (json!({ "max_downloads": 0 }), "/max_downloads share_link.downloads"),
    ] {
        assert_eq!(world.post(&path, terms).await.faults(), [fault]);
    }
    let made = join_all((0..24).map(|_| world.post(&path, json!({})))).await;
    assert_eq!(made.iter().filter(|a| a.status == StatusCode::CREATED).count(), 19, "20 in all");
    assert!(made.iter().filter(|a| a.status != StatusCode::CREATED).all(|a| a.problem() == "share_link.too_many"));
    let stranger = world.key_for(world.tenant("stranger").await, &SCOPES).await.1;
    let theirs = world.send(with_json(request(Method::POST, &path, &stranger), &json!({}))).await;
    assert_eq!(theirs.problem(), "file.not_found");
    let revoke = request(Method::DELETE, &format!("{path}/{}", shared.link), &stranger).body(Body::empty()).unwrap();
    assert_eq!(world.send(revoke).await.problem(), "file.not_found");
    assert_eq!(follow(&world, Method::GET, &shared.path).await.status, StatusCode::OK);
    // The address is nowhere in the database.
    let token = shared.path.rsplit('/').next().unwrap().to_owned();
    let kept = sqlx::query_scalar::<_, String>("select l::text from file_mgr.share_links l").fetch_all(&world.db);
    assert!(!kept.await.unwrap().join(" ").contains(&token));
}
