//! What is served, to whom and as what: files of a tenant, addresses that were given away, and what everybody may see.

use crate::{
    exports::publish,
    server::{KEY, S3Server, SECRET},
    world::{Answer, PUBLIC_URL, World, png, with_json},
};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use flatrender_activities::storage::{Credentials, StorageSettings};
use flatrender_api::vault::Vault;
use flatrender_workflows::contracts::storage::{BlobHash, Shelf};
use futures::StreamExt as _;
use serde_json::json;
use sqlx::PgPool;
use std::process::Command;
use uuid::Uuid;

const FILM: &[u8] = b"0123456789abcdefghij";

/// Without a credential.
async fn bare(world: &World, url: &str) -> Answer {
    let path = url.strip_prefix(PUBLIC_URL).unwrap_or(url);
    world.send(Request::get(path).body(Body::empty()).unwrap()).await
}

async fn link(world: &World, path: &str) -> String {
    let answer = world.post(path, json!({"valid_seconds": 600})).await;
    assert_eq!(answer.status, StatusCode::CREATED, "{}", answer.json());
    let ends: chrono::DateTime<chrono::Utc> = answer.json()["expires_at"].as_str().unwrap().parse().unwrap();
    assert!((ends - chrono::Utc::now()).num_seconds().abs_diff(600) < 60, "{ends}");
    answer.json()["url"].as_str().unwrap().to_owned()
}

/// An address as we sign it, with any time.
fn address(world: &World, path: &str, exp: i64) -> String {
    let sig = Vault::of(&[7; 32]).mark(&format!("address {} {exp} {path}", world.tenant));
    format!("{path}?tenant={}&exp={exp}&sig={sig}", world.tenant)
}

#[sqlx::test(migrations = "../migrations")]
async fn an_address_that_was_given_away_works_until_it_ends(db: PgPool) {
    let world = World::new(db).await;
    let export = publish(&world, world.order().await, FILM).await;
    let logo = world.upload("logo.png", png([1, 2, 3])).await.json();
    let (file, sha256) = (logo["id"].as_str().unwrap(), logo["sha256"].as_str().unwrap());
    let film = link(&world, &format!("/v1/exports/{export}/links")).await;
    let logo = link(&world, &format!("/v1/files/{file}/links")).await;
    assert!(film.starts_with(PUBLIC_URL), "{film}");
    assert_eq!(&bare(&world, &film).await.body[..], FILM);
    assert_eq!(BlobHash::of(&bare(&world, &logo).await.body).as_str(), sha256);

    let now = chrono::Utc::now().timestamp();
    let path = format!("/v1/exports/{export}/download");
    assert_eq!(bare(&world, &address(&world, &path, now + 60)).await.status, StatusCode::OK);
    let over = bare(&world, &address(&world, &path, now - 1)).await;
    assert_eq!((over.status.as_u16(), over.problem().as_str()), (410, "link.expired"));
    let gone = address(&world, &format!("/v1/exports/{}/download", Uuid::now_v7()), now + 60);
    assert_eq!(bare(&world, &gone).await.status, StatusCode::NOT_FOUND);
}

/// Where it is the store's own, nobody else ends it.
#[sqlx::test(migrations = "../migrations")]
async fn an_address_ends_with_the_file_or_its_film_at_the_latest(db: PgPool) {
    let server = S3Server::start();
    let Ok(StorageSettings::S3(bucket)) = server.storage("p").parse() else { panic!("a bucket") };
    let storage = bucket.open(Some(Credentials::new(KEY, SECRET))).unwrap();
    let world = World::keeping(db, tempfile::tempdir().unwrap(), storage).await;
    let export = publish(&world, world.order().await, FILM).await;
    let soon = "update render.exports set expires_at = workflow.now() + interval '10 minutes'";
    sqlx::raw_sql(soon).execute(&world.db).await.unwrap();
    let its_own = world.upload("a.png", png([1, 2, 3])).await.json();
    let its_own: Uuid = its_own["id"].as_str().unwrap().parse().unwrap();
    let soon = "update file_mgr.files set purge_after = workflow.now() + interval '10 minutes' where name = 'a.png'";
    sqlx::raw_sql(soon).execute(&world.db).await.unwrap();
    let files: (Uuid, Uuid) =
        sqlx::query_as("select file_id, sheet_file_id from render.exports").fetch_one(&world.db).await.unwrap();
    let paths = [files.0, files.1, its_own].map(|file| format!("/v1/files/{file}/links"));
    for path in paths.into_iter().chain([format!("/v1/exports/{export}/links")]) {
        let given = world.post(&path, json!({"valid_seconds": 604_800})).await.json();
        let ends: chrono::DateTime<chrono::Utc> = given["expires_at"].as_str().unwrap().parse().unwrap();
        assert!((ends - chrono::Utc::now()).num_seconds() <= 600, "{path}: {given}");
        let url = given["url"].as_str().unwrap();
        let seconds: u64 = url.split("X-Amz-Expires=").nth(1).unwrap().split('&').next().unwrap().parse().unwrap();
        assert!((500..=600).contains(&seconds), "{url}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn an_address_that_was_changed_is_refused_whatever_it_names(db: PgPool) {
    let world = World::new(db).await;
    let [mine, other] = [png([1, 2, 3]), png([4, 5, 6])];
    let id = world.upload("a.png", mine).await.json()["id"].as_str().unwrap().to_owned();
    let other = world.upload("b.png", other).await.json()["id"].as_str().unwrap().to_owned();
    let url = link(&world, &format!("/v1/files/{id}/links")).await;
    let (base, sig) = url.split_once("sig=").unwrap();
    let exp = url.split("exp=").nth(1).unwrap().split('&').next().unwrap();
    let wrong = [
        url.replace(&id, &other),
        url.replace(&id, &Uuid::now_v7().to_string()),
        url.replace(exp, &format!("{exp}0")),
        url.replace(&world.tenant.to_string(), &Uuid::now_v7().to_string()),
        url.replace(&format!("/v1/files/{id}/content"), &format!("/v1/exports/{id}/download")),
        format!("{base}sig={}", "0".repeat(sig.len())),
        format!("{base}sig={}", &sig[1..]),
        format!("{base}sig="),
        format!("{base}sig={sig}&tenant={}", world.tenant),
        format!("/v1/files/{id}/content?sig={sig}"),
    ];
    for changed in wrong {
        let answer = bare(&world, &changed).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "link.forged"), "{changed}");
    }
    assert_eq!(bare(&world, &format!("/v1/files/{id}/content")).await.problem(), "auth.missing");
    for seconds in [0, 59, 604_801] {
        let refused = world.post(&format!("/v1/files/{id}/links"), json!({ "valid_seconds": seconds })).await;
        assert_eq!(refused.faults(), ["/valid_seconds link.valid"]);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn with_a_bucket_the_address_is_the_stores_own_and_a_stranger_reads_it(db: PgPool) {
    let server = S3Server::start();
    let Ok(StorageSettings::S3(bucket)) = server.storage("p").parse() else { panic!("a bucket") };
    let storage = bucket.open(Some(Credentials::new(KEY, SECRET))).unwrap();
    let world = World::keeping(db, tempfile::tempdir().unwrap(), storage).await;
    let export = publish(&world, world.order().await, FILM).await;
    let url = link(&world, &format!("/v1/exports/{export}/links")).await;
    assert!(url.starts_with(&server.endpoint) && url.contains("response-content-disposition=attachment"), "{url}");
    let curl = |url: &str, range: &str| {
        let output = Command::new("curl").args(["-s", "-r", range, "-w", " %{http_code}", url]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    assert_eq!(curl(&url, "0-"), "0123456789abcdefghij 206");
    assert_eq!(curl(&url, "-3"), "hij 206");
    let tampered = url.replace("X-Amz-Expires=600", "X-Amz-Expires=604800");
    assert!(tampered != url && curl(&tampered, "0-").ends_with(" 403"));

    assert!(server.objects().join("p/tenants").is_dir());
    // What comes through us is the same.
    let ours = world.get(&format!("/v1/exports/{export}/download")).await;
    assert_eq!((ours.status, &ours.body[..]), (StatusCode::OK, FILM));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_file_is_downloaded_whole_and_in_parts_under_its_name(db: PgPool) {
    let world = World::new(db).await;
    let answer = world.upload("%D9%84%D9%88%DA%AF%D9%88.png", png([1, 2, 3])).await;
    let path = format!("/v1/files/{}/content", answer.json()["id"].as_str().unwrap());
    let etag = format!("\"{}\"", answer.json()["sha256"].as_str().unwrap());
    let get = async |method: Method, headers: &[(&str, &str)]| {
        let mut request = world.request(method, &path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        world.send(request.body(Body::empty()).unwrap()).await
    };
    let whole = get(Method::GET, &[]).await;
    let picture = whole.body.clone();
    assert_eq!((whole.status, format!("\"{}\"", BlobHash::of(&picture))), (StatusCode::OK, etag.clone()));
    for (name, value) in [
        ("content-type", "image/png"),
        ("x-content-type-options", "nosniff"),
        ("content-disposition", "attachment; filename=\"____.png\"; filename*=UTF-8''%D9%84%D9%88%DA%AF%D9%88.png"),
        ("etag", etag.as_str()),
        ("accept-ranges", "bytes"),
        ("access-control-allow-origin", ""),
    ] {
        assert_eq!(whole.header(name), value, "{name}");
    }
    assert!(whole.header("content-security-policy").contains("sandbox"));
    assert!(whole.header("cache-control").starts_with("private"));
    let size = picture.len();
    let head = get(Method::HEAD, &[]).await;
    assert_eq!((head.body.len(), head.header("content-length")), (0, size.to_string().as_str()));
    let tail = get(Method::GET, &[("range", "bytes=-4")]).await;
    assert_eq!((tail.status, &tail.body[..]), (StatusCode::PARTIAL_CONTENT, &picture[size - 4..]));
    assert_eq!(tail.header(header::CONTENT_RANGE), format!("bytes {}-{}/{size}", size - 4, size - 1));
    let stale = get(Method::GET, &[("range", "bytes=0-0"), ("if-range", "\"old\"")]).await;
    assert_eq!((stale.status, stale.body.len()), (StatusCode::OK, size));
    let outside = get(Method::GET, &[("range", &format!("bytes={size}-"))]).await;
    assert_eq!((outside.status.as_u16(), outside.problem().as_str()), (416, "range.not_satisfiable"));
    assert_eq!(get(Method::GET, &[("if-none-match", &etag)]).await.status, StatusCode::NOT_MODIFIED);
    let stranger = with_json(crate::world::request(Method::GET, &path, &world.stranger().await), &json!({}));
    assert_eq!(world.send(stranger).await.status, StatusCode::NOT_FOUND);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_everybody_may_see_is_kept_for_ever_and_runs_nothing(db: PgPool) {
    let world = World::new(db).await;
    let body = futures::stream::iter([Ok(bytes::Bytes::from_static(b"a still"))]).boxed();
    let still = world.storage.put(&Shelf::Public, None, body, 100).await.unwrap();
    let answer = bare(&world, &format!("/snap/{}", still.sha256)).await;
    assert_eq!((answer.status, &answer.body[..]), (StatusCode::OK, &b"a still"[..]));
    for (name, value) in [
        ("cache-control", "public, max-age=31536000, immutable"),
        ("content-type", "image/webp"),
        ("x-content-type-options", "nosniff"),
        ("access-control-allow-origin", "*"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("etag", &format!("\"{}\"", still.sha256)),
    ] {
        assert_eq!(answer.header(name), value, "{name}");
    }
    let policy = answer.header("content-security-policy");
    assert!(policy.contains("sandbox") && policy.contains("default-src 'none'"), "{policy}");
}

#[sqlx::test(migrations = "../migrations")]
async fn content_of_a_tenant_cannot_be_told_from_none_at_public_addresses(db: PgPool) {
    let world = World::new(db).await;
    let uploaded = world.upload("a.png", png([9, 9, 9])).await.json();
    let theirs = bare(&world, &format!("/snap/{}", uploaded["sha256"].as_str().unwrap())).await;
    let none = bare(&world, &format!("/snap/{}", BlobHash::of(b"of nobody"))).await;
    let plain = |answer: &Answer| {
        let mut json = answer.json();
        json["instance"] = json!(null);
        let mut headers = answer.headers.clone();
        headers.remove("x-request-id");
        headers.remove("traceparent");
        (answer.status, json, format!("{headers:?}"))
    };
    assert_eq!(theirs.status, StatusCode::NOT_FOUND);
    assert_eq!(plain(&theirs), plain(&none));
    for listing in ["/snap", "/snap/", "/snap/..", "/snap/%2e%2e%2ftenants", "/v1/files//content"] {
        assert!(bare(&world, listing).await.status.is_client_error(), "{listing}");
    }
    // Another tenant that uploads the same is told what the first one was.
    let (_, key) = world.key_for(world.tenant("other").await, &["files"]).await;
    let request = crate::world::request(Method::POST, "/v1/files?name=a.png", &key);
    let again = world.send(request.body(Body::from(png([9, 9, 9]))).unwrap()).await;
    assert_eq!((again.status, again.json()["sha256"] == uploaded["sha256"]), (StatusCode::CREATED, true));
    let keys = |json: &serde_json::Value| json.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    assert_eq!(keys(&again.json()), keys(&uploaded));
    assert_ne!(again.json()["id"], uploaded["id"]);
}
