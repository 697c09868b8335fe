//! API keys: made, shown once, rotated, revoked; and what does not open anything.

use crate::world::{Answer, World, request, with_json};
use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Method, Request, StatusCode},
};
use flatrender_api::{peer::Proxies, router};
use flatrender_workflows::models::{
    DEFAULT_TENANT,
    identity::tenant_api_key::{Mode, text},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

/// A key that may do everything, and what it may do.
async fn admin(world: &World) -> String {
    key_for(world, &["admin", "render", "files", "templates"]).await
}

async fn key_for(world: &World, scopes: &[&str]) -> String {
    world.key_for(DEFAULT_TENANT, scopes).await.1
}

async fn post(world: &World, key: &str, path: &str, body: Value) -> Answer {
    world.send(with_json(request(Method::POST, path, key), &body)).await
}

async fn get(world: &World, key: &str, path: &str) -> Answer {
    world.send(request(Method::GET, path, key).body(Body::empty()).unwrap()).await
}

async fn delete(world: &World, key: &str, path: &str) -> Answer {
    world.send(request(Method::DELETE, path, key).body(Body::empty()).unwrap()).await
}

pub async fn get_from(world: &World, key: &str, address: &str, forwarded: Option<&str>) -> Answer {
    let peer: SocketAddr = address.parse().unwrap();
    let mut request = request(Method::GET, "/v1/renders", key).extension(ConnectInfo(peer));
    if let Some(forwarded) = forwarded {
        request = request.header("x-forwarded-for", forwarded);
    }
    world.send(request.body(Body::empty()).unwrap()).await
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_is_shown_once_and_kept_as_a_hash(db: PgPool) {
    let world = World::new(db).await;
    let admin = admin(&world).await;
    let answer = post(&world, &admin, "/v1/api-keys", json!({"name": "Shop", "mode": "test"})).await;
    assert_eq!((answer.status, answer.header("cache-control")), (StatusCode::CREATED, "no-store"));
    let made = answer.json();
    let secret = made["secret"].as_str().unwrap();
    assert_eq!(text::mode_of(secret), Some(Mode::Test));
    assert!(secret.starts_with(made["prefix"].as_str().unwrap()) && secret.ends_with(made["last4"].as_str().unwrap()));
    assert_eq!(made["scopes"], json!(["render", "files", "templates"]));
    assert_eq!(get(&world, secret, "/v1/renders").await.status, StatusCode::OK);
    let list = get(&world, &admin, "/v1/api-keys").await.json();
    assert_eq!((&list["data"][0]["id"], list["data"].as_array().unwrap().len()), (&made["id"], 3));
    assert!(!list.to_string().contains(&secret[16..40]));
    let dump: String = sqlx::query_scalar("select string_agg(k::text, ' ') from identity.tenant_api_keys k")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert!(!dump.contains(&secret[16..40]));
}

#[sqlx::test(migrations = "../migrations")]
async fn m13_a_key_goes_in_its_header_only(db: PgPool) {
    let world = World::new(db).await;
    let bare = |request: axum::http::request::Builder| world.send(request.body(Body::empty()).unwrap());
    let path = format!("/v1/renders?api_key={0}&access_token={0}", world.key);
    assert_eq!(bare(Request::get(path)).await.problem(), "auth.missing");
    assert_eq!(
        bare(Request::get("/v1/renders").header("cookie", format!("key={}", world.key))).await.problem(),
        "auth.missing"
    );
    assert_eq!(bare(Request::get("/v1/renders").header("x-api-key", &world.key)).await.problem(), "auth.missing");
}

#[sqlx::test(migrations = "../migrations")]
async fn m13_a_made_up_key_is_refused_without_asking_the_database(db: PgPool) {
    let world = World::new(db).await;
    let mut typo = world.key.clone();
    let last = if typo.pop() == Some('0') { '1' } else { '0' };
    typo.push(last);
    let real = text::generate(Mode::Live).reveal().to_owned();
    world.db.close().await;
    for wrong in [typo.as_str(), "fr_live_", "fr_node_x", &world.key[..20]] {
        assert_eq!(get(&world, wrong, "/v1/renders").await.problem(), "auth.invalid", "{wrong}");
    }
    assert_eq!(get(&world, &real, "/v1/renders").await.problem(), "server.unavailable");
}

/// Asserts that of guesses from one address thirty were looked at, and what came back of the thirty a minute meanwhile.
pub fn thirty_a_minute(codes: &[String], took: Duration) {
    let looked_at = codes.iter().filter(|code| *code == "auth.invalid").count();
    assert!(codes.iter().all(|code| code == "auth.invalid" || code == "rate.limited"), "{codes:?}");
    assert!(looked_at >= 30 && looked_at as f64 <= 31.0 + took.as_secs_f64() / 2.0, "{looked_at} within {took:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn m13_guesses_open_nothing_and_slow_down_only_the_guesser(db: PgPool) {
    let world = World::new(db).await;
    // 100,000 guesses with the prefix known and a right checksum one time in none.
    let known = &world.key[..16];
    let opened = (0..100_000).filter(|n| text::mode_of(&format!("{known}{n:028}")).is_some()).count();
    assert_eq!(opened, 0);
    let (mut answers, began) = (vec![], Instant::now());
    for _ in 0..90 {
        let guess = text::generate(Mode::Live).reveal().to_owned();
        answers.push(get_from(&world, &guess, "203.0.113.9:1", None).await);
    }
    let codes: Vec<_> = answers.iter().map(Answer::problem).collect();
    thirty_a_minute(&codes, began.elapsed());
    let limited = answers.iter().find(|a| a.status == StatusCode::TOO_MANY_REQUESTS).unwrap();
    assert!(!limited.header("retry-after").is_empty());
    assert_eq!(get_from(&world, &world.key, "203.0.113.9:1", None).await.status, StatusCode::OK, "the real key");
    let elsewhere = text::generate(Mode::Live).reveal().to_owned();
    assert_eq!(get_from(&world, &elsewhere, "203.0.113.10:1", None).await.problem(), "auth.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_is_good_from_its_networks_only(db: PgPool) {
    let mut world = World::new(db).await;
    let admin = admin(&world).await;
    let body = json!({"name": "Office", "allowed_cidrs": ["192.0.2.0/24", "2001:db8::/32"]});
    let key = post(&world, &admin, "/v1/api-keys", body).await.json()["secret"].as_str().unwrap().to_owned();
    assert_eq!(get_from(&world, &key, "192.0.2.7:1", None).await.status, StatusCode::OK);
    assert_eq!(get_from(&world, &key, "[::ffff:192.0.2.7]:1", None).await.status, StatusCode::OK);
    assert_eq!(get_from(&world, &key, "[2001:db8::5]:1", None).await.status, StatusCode::OK);
    assert_eq!(get_from(&world, &key, "198.51.100.1:1", None).await.problem(), "auth.address");
    assert_eq!(get(&world, &key, "/v1/renders").await.problem(), "auth.address", "an unknown address");
    // M6: what a stranger writes into the header is not believed; what a proxy of ours writes is.
    assert_eq!(get_from(&world, &key, "198.51.100.1:1", Some("192.0.2.7")).await.problem(), "auth.address");
    world.app.proxies = Proxies::parse("10.0.0.0/8").unwrap();
    world.router = router::router(world.app.clone());
    assert_eq!(get_from(&world, &key, "10.0.0.1:1", Some("192.0.2.7")).await.status, StatusCode::OK);
    assert_eq!(get_from(&world, &key, "10.0.0.1:1", Some("192.0.2.7, 198.51.100.1")).await.problem(), "auth.address");
    assert_eq!(get_from(&world, &key, "192.0.2.7:1", Some("198.51.100.1")).await.status, StatusCode::OK);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_rotated_key_stays_good_for_its_grace(db: PgPool) {
    let world = World::new(db).await;
    let admin = admin(&world).await;
    let old = post(&world, &admin, "/v1/api-keys", json!({"name": "Shop", "scopes": ["render"]})).await.json();
    let (old_key, path) =
        (old["secret"].as_str().unwrap(), format!("/v1/api-keys/{}/rotate", old["id"].as_str().unwrap()));
    let new = post(&world, &admin, &path, json!({"grace_seconds": 60})).await;
    assert_eq!(new.status, StatusCode::CREATED);
    let new = new.json();
    assert_eq!((&new["rotated_from"], &new["scopes"], &new["name"]), (&old["id"], &old["scopes"], &old["name"]));
    for key in [old_key, new["secret"].as_str().unwrap()] {
        assert_eq!(get(&world, key, "/v1/renders").await.status, StatusCode::OK);
    }
    assert_eq!(post(&world, &admin, &path, json!({})).await.problem(), "api_key.rotated");
    sqlx::query("update workflow.clock set moved_by = interval '61 seconds'").execute(&world.db).await.unwrap();
    assert_eq!(get(&world, old_key, "/v1/renders").await.problem(), "auth.invalid");
    assert_eq!(get(&world, new["secret"].as_str().unwrap(), "/v1/renders").await.status, StatusCode::OK);
    let too_long = post(&world, &admin, &path, json!({"grace_seconds": 2_592_001})).await;
    assert_eq!(too_long.faults(), ["/grace_seconds seconds.range"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_revoked_key_opens_nothing_from_the_next_request_on(db: PgPool) {
    let world = World::new(db).await;
    let admin = admin(&world).await;
    let made = post(&world, &admin, "/v1/api-keys", json!({"name": "Shop"})).await.json();
    let (key, path) = (made["secret"].as_str().unwrap(), format!("/v1/api-keys/{}", made["id"].as_str().unwrap()));
    assert_eq!(get(&world, key, "/v1/renders").await.status, StatusCode::OK);
    assert!(delete(&world, &admin, &path).await.json()["revoked_at"].is_string());
    assert_eq!(get(&world, key, "/v1/renders").await.problem(), "auth.invalid");
    assert_eq!(delete(&world, &admin, &path).await.status, StatusCode::OK, "asking twice is harmless");
    assert_eq!(post(&world, &admin, &format!("{path}/rotate"), json!({})).await.problem(), "api_key.ended");
    let actions = get(&world, &admin, "/v1/audit").await.json();
    let actions: Vec<_> = actions["data"].as_array().unwrap().iter().map(|e| e["action"].as_str().unwrap()).collect();
    assert_eq!(actions, ["api_key.revoke", "api_key.create"], "once each");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_key_does_what_its_scopes_say(db: PgPool) {
    let world = World::new(db).await;
    let files = key_for(&world, &["files"]).await;
    let refused = get(&world, &files, "/v1/renders").await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::FORBIDDEN, "auth.scope"));
    assert_eq!(get(&world, &files, "/v1/files/00000000-0000-0000-0000-000000000009").await.problem(), "file.not_found");
    assert_eq!(get(&world, &world.key, "/v1/api-keys").await.problem(), "auth.scope");
    let admin = key_for(&world, &["admin"]).await;
    let beyond = post(&world, &admin, "/v1/api-keys", json!({"name": "x", "scopes": ["admin", "billing"]})).await;
    assert_eq!(beyond.faults(), ["/scopes scope.beyond"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_wrong_with_a_key_is_told(db: PgPool) {
    let world = World::new(db).await;
    let admin = admin(&world).await;
    let cases = [
        (json!({"name": ""}), "/name name.length"),
        (json!({"name": "x", "scopes": ["root"]}), "/scopes scope.unknown"),
        (json!({"name": "x", "scopes": []}), "/scopes scope.unknown"),
        (json!({"name": "x", "scopes": ["render", "render"]}), "/scopes scope.unknown"),
        (json!({"name": "x", "allowed_cidrs": ["192.0.2.7/24"]}), "/allowed_cidrs cidr.invalid"),
        (json!({"name": "x", "allowed_cidrs": []}), "/allowed_cidrs cidr.invalid"),
        (json!({"name": "x", "expires_at": "2001-01-01T00:00:00Z"}), "/expires_at time.past"),
        (json!({"name": "x", "tenant_id": DEFAULT_TENANT}), "/tenant_id field.unknown"),
        (json!({"name": "x", "key_hash": "00"}), "/key_hash field.unknown"),
    ];
    for (body, fault) in cases {
        assert_eq!(post(&world, &admin, "/v1/api-keys", body).await.faults(), [fault]);
    }
    assert_eq!(world.count("identity.tenant_api_keys").await, 2);
}

/// A key that is stolen is good in its networks and until its end; it makes none that would be good elsewhere or for longer, and
/// does not get the text of one by rotating it.
#[sqlx::test(migrations = "../migrations")]
async fn a_key_hands_out_no_more_than_it_has(db: PgPool) {
    let world = World::new(db).await;
    let (wide, _) = world.key_for(DEFAULT_TENANT, &["render"]).await;
    let (id, mine) = world.key_for(DEFAULT_TENANT, &["render", "admin"]).await;
    let narrow = "update identity.tenant_api_keys set allowed_cidrs = '{10.0.0.0/8,2001:db8::/32}',
                  expires_at = workflow.now() + interval '1 day' where id = $1";
    sqlx::query(narrow).bind(id).execute(&world.db).await.unwrap();
    let peer: std::net::SocketAddr = "10.1.2.3:1".parse().unwrap();
    let ask = async |path: &str, body: Value| {
        let ask = request(Method::POST, path, &mine).extension(axum::extract::ConnectInfo(peer));
        world.send(with_json(ask, &body)).await
    };
    let soon = chrono::Utc::now() + chrono::TimeDelta::hours(1);
    let late = chrono::Utc::now() + chrono::TimeDelta::days(2);
    let new = |networks: &[&str], ends: Option<chrono::DateTime<chrono::Utc>>| {
        let networks = if networks.is_empty() { Value::Null } else { json!(networks) };
        json!({ "name": "k", "scopes": ["render"], "allowed_cidrs": networks, "expires_at": ends })
    };
    let make = async |networks: &[&str], ends| ask("/v1/api-keys", new(networks, ends)).await;
    assert_eq!(make(&[], Some(soon)).await.faults(), ["/allowed_cidrs cidr.beyond"], "everywhere");
    assert_eq!(make(&["10.0.0.0/7"], Some(soon)).await.faults(), ["/allowed_cidrs cidr.beyond"]);
    assert_eq!(make(&["10.1.0.0/16", "0.0.0.0/0"], Some(soon)).await.faults(), ["/allowed_cidrs cidr.beyond"]);
    assert_eq!(make(&["10.1.0.0/16"], None).await.faults(), ["/expires_at time.beyond"], "for ever");
    assert_eq!(make(&["10.1.0.0/16"], Some(late)).await.faults(), ["/expires_at time.beyond"]);
    assert_eq!(make(&["10.1.0.0/16", "2001:db8::/64"], Some(soon)).await.status, StatusCode::CREATED);
    let rotate = async |id: uuid::Uuid| ask(&format!("/v1/api-keys/{id}/rotate"), json!({})).await;
    assert_eq!(rotate(wide).await.faults(), ["/allowed_cidrs cidr.beyond"], "another's text");
    assert_eq!(rotate(id).await.status, StatusCode::CREATED, "its own");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_tenant_has_a_hundred_live_keys_at_most(db: PgPool) {
    let world = World::new(db).await;
    let admin = admin(&world).await;
    let fill = "insert into identity.tenant_api_keys (tenant_id, name, prefix, last4, key_hash)
        select $1, 'n', 'prefix' || n, 'last', sha256(n::text::bytea) from generate_series(100, 196) n";
    sqlx::query(fill).bind(DEFAULT_TENANT).execute(&world.db).await.unwrap();
    let make = || post(&world, &admin, "/v1/api-keys", json!({"name": "x"}));
    let answers = futures::future::join_all((0..4).map(|_| make())).await;
    let made = answers.iter().filter(|a| a.status == StatusCode::CREATED).count();
    assert_eq!(made, 1);
    assert!(answers.iter().any(|a| a.status == StatusCode::CONFLICT && a.problem() == "api_key.too_many"));
}

#[sqlx::test(migrations = "../migrations")]
async fn the_use_of_a_key_is_written_once_a_minute(db: PgPool) {
    let world = World::new(db).await;
    let used = || async {
        let sql = "select xmin::text || last_used_at::text from identity.tenant_api_keys";
        sqlx::query_scalar::<_, Option<String>>(sql).fetch_one(&world.db).await.unwrap()
    };
    world.get("/v1/renders").await;
    let first = used().await;
    world.get("/v1/renders").await;
    assert_eq!(used().await, first);
    sqlx::query("update workflow.clock set moved_by = interval '61 seconds'").execute(&world.db).await.unwrap();
    world.get("/v1/renders").await;
    assert_ne!(used().await, first);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_deed_that_cannot_be_written_down_is_not_done(db: PgPool) {
    let world = World::new(db).await;
    let admin = admin(&world).await;
    let before = world.count("identity.tenant_api_keys").await;
    sqlx::query("alter table identity.audit_log rename to gone").execute(&world.db).await.unwrap();
    assert_eq!(post(&world, &admin, "/v1/api-keys", json!({"name": "x"})).await.problem(), "server.internal");
    assert_eq!(world.count("identity.tenant_api_keys").await, before);
}
