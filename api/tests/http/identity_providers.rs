//! Identity providers as tenants set them up.

use crate::openid::{Scene, fake::Mood};
use axum::http::{Method, StatusCode};
use flatrender_activities::egress::Egress;
use flatrender_api::{app::App, router};
use flatrender_workflows::models::DEFAULT_TENANT;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::HashMap;

const PATH: &str = "/v1/identity-providers";

#[sqlx::test(migrations = "../migrations")]
async fn a_provider_is_added_changed_and_removed_and_its_secret_never_shown(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let mut body = scene.new_provider();
    body["email_domains"] = json!(["Acme.example"]);
    let secret = body["client_secret"].as_str().unwrap().to_owned();
    let made = scene.send(Method::POST, PATH, body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    let view = made.json();
    assert_eq!(
        (
            &view["object"],
            &view["name"],
            &view["scopes"],
            &view["email_domains"],
            &view["default_role"],
            &view["enabled"]
        ),
        (
            &json!("identity_provider"),
            &json!("Acme"),
            &json!(["email", "profile"]),
            &json!(["acme.example"]),
            &json!("editor"),
            &json!(true)
        )
    );
    let path = format!("{PATH}/{}", view["id"].as_str().unwrap());
    let (one, all) = (scene.send(Method::GET, &path, json!({})).await, scene.send(Method::GET, PATH, json!({})).await);
    assert_eq!((&one.json(), &all.json()["data"]), (&view, &json!([view])));
    assert!(![&made, &one, &all].iter().any(|a| std::str::from_utf8(&a.body).unwrap().contains("secret")));
    let sql = "select client_secret_enc from identity.tenant_identity_providers";
    let kept: Vec<u8> = sqlx::query_scalar(sql).fetch_one(&scene.world.db).await.unwrap();
    assert!(!kept.windows(10).any(|w| secret.as_bytes().windows(10).any(|s| s == w)), "it is sealed");

    let changed =
        scene.send(Method::PATCH, &path, json!({"name": "Login", "default_role": null, "enabled": false})).await;
    let changed = changed.json();
    assert_eq!(
        (&changed["name"], &changed["default_role"], &changed["enabled"], &changed["issuer"]),
        (&json!("Login"), &Value::Null, &json!(false), &view["issuer"])
    );
    let again = scene.send(Method::PATCH, &path, json!({"enabled": true})).await.json();
    assert_eq!((&again["enabled"], &again["name"]), (&json!(true), &json!("Login")), "what is absent stays");
    assert_eq!(scene.send(Method::DELETE, &path, json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(scene.send(Method::GET, &path, json!({})).await.problem(), "identity_provider.not_found");
    let sql = "select action from identity.audit_log where action like 'identity_provider.%' order by seq";
    let actions: Vec<String> = sqlx::query_scalar(sql).fetch_all(&scene.world.db).await.unwrap();
    assert_eq!(actions, ["create", "update", "update", "delete"].map(|a| format!("identity_provider.{a}")));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_provider_is_asked_before_it_is_kept(db: PgPool) {
    let scene = Scene::new(db).await;
    let instead =
        |endpoint, status, body| Mood { instead: HashMap::from([(endpoint, (status, body))]), ..Mood::default() };
    let described = |described| Mood { described, ..Mood::default() };
    let (unreachable, unfit) = ("identity_provider.unreachable", "identity_provider.unfit");
    for (mood, code) in [
        (instead("discovery", 404, "{}"), unreachable),
        (instead("discovery", 500, ""), unreachable),
        (instead("discovery", 302, ""), unreachable),
        (instead("discovery", 200, "nonsense"), unfit),
        (instead("discovery", 200, "{}"), unfit),
        (instead("jwks", 500, "oops"), unreachable),
        (instead("jwks", 200, "nonsense"), unfit),
        (Mood { silent: Some("discovery"), ..Mood::default() }, unreachable),
        (described(json!({"issuer": "https://login.evil.example"})), unfit),
        (described(json!({"issuer": format!("{}/", scene.fake.url())})), unfit),
        (described(json!({"token_endpoint": null})), unfit),
        (described(json!({"token_endpoint": "ftp://login.acme.example/"})), unfit),
        (described(json!({"jwks_uri": "file:///etc/passwd"})), unfit),
        (described(json!({"authorization_endpoint": "javascript:alert(1)"})), unfit),
        (described(json!({"response_types_supported": ["id_token"]})), unfit),
        (described(json!({"id_token_signing_alg_values_supported": ["none", "HS256"]})), unfit),
    ] {
        scene.fake.be(mood.clone());
        let answer = scene.send(Method::POST, PATH, scene.new_provider()).await;
        assert_eq!(answer.problem(), code, "{mood:?}: {:?}", answer.body);
    }
    assert_eq!(scene.fake.lured(), 0, "no redirect is followed");
    assert_eq!(scene.world.count("identity.tenant_identity_providers").await, 0);

    // So often and no more; and outside of development only what everybody can reach.
    let asked = (0..30).map(|_| scene.send(Method::POST, PATH, scene.new_provider()));
    let answers = futures::future::join_all(asked).await;
    assert!(answers.iter().any(|answer| answer.problem() == "rate.limited"));
    let router = router::router(App { egress: Egress::default(), ..scene.world.app.clone() });
    let ask = crate::world::with_json(crate::world::request(Method::POST, PATH, &scene.key), &scene.new_provider());
    let answer = tower::ServiceExt::oneshot(router, ask).await.unwrap();
    assert_eq!(answer.status(), StatusCode::UNPROCESSABLE_ENTITY);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_wrong_with_a_provider_is_told(db: PgPool) {
    let scene = Scene::new(db).await;
    let other = scene.world.tenant("other").await;
    scene.proven(other, "theirs.example").await;
    let wrong = async |field: &str, value: Value, fault: &str| {
        let mut body = scene.new_provider();
        body[field] = value;
        assert_eq!(scene.send(Method::POST, PATH, body.clone()).await.faults(), [fault], "{body}");
    };
    wrong("name", json!(" "), "/name identity_provider.name").await;
    wrong("issuer", json!("nonsense"), "/issuer identity_provider.issuer").await;
    wrong("issuer", json!("HTTPS://login.acme.example"), "/issuer identity_provider.issuer").await;
    wrong("issuer", json!("https://login.acme.example/?a=b"), "/issuer identity_provider.issuer").await;
    wrong("issuer", json!("https://login.acme.example/\u{0}"), "/issuer identity_provider.issuer").await;
    wrong("issuer", json!("https://user@login.acme.example"), "/issuer identity_provider.issuer").await;
    wrong("client_id", json!(""), "/client_id identity_provider.client").await;
    wrong("client_secret", json!(""), "/client_secret identity_provider.client").await;
    wrong("scopes", json!(["two words"]), "/scopes identity_provider.scopes").await;
    wrong("default_role", json!("owner"), "/default_role role.unknown").await;
    wrong("default_role", json!("platform_admin"), "/default_role role.unknown").await;
    wrong("email_domains", json!(["acme.example"]), "/email_domains/0 identity_provider.domain").await;
    wrong("email_domains", json!(["theirs.example"]), "/email_domains/0 identity_provider.domain").await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_secret_goes_where_it_was_meant_to_go(db: PgPool) {
    let (scene, elsewhere) = (Scene::new(db).await, crate::openid::fake::Fake::start().await);
    let path = format!("{PATH}/{}", scene.provider(json!({})).await);
    let moved = scene.send(Method::PATCH, &path, json!({"issuer": elsewhere.url()})).await;
    assert_eq!(moved.faults(), ["/client_secret identity_provider.client"]);
    let moved = scene.send(Method::PATCH, &path, json!({"issuer": elsewhere.url(), "client_secret": "its own"})).await;
    assert_eq!((moved.status, &moved.json()["issuer"]), (StatusCode::OK, &json!(elsewhere.url())));
    let same = scene
        .send(
            Method::POST,
            PATH,
            json!({"name": "Two", "issuer": elsewhere.url(), "client_id": "x", "client_secret": "y"}),
        )
        .await;
    assert_eq!(same.problem(), "identity_provider.exists");
    let second = scene.provider(json!({})).await;
    let same = scene
        .send(Method::PATCH, &format!("{PATH}/{second}"), json!({"issuer": elsewhere.url(), "client_secret": "y"}))
        .await;
    assert_eq!(same.problem(), "identity_provider.exists");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_tenant_has_at_most_ten_providers_however_they_are_made(db: PgPool) {
    let scene = Scene::new(db).await;
    let sql = "insert into identity.tenant_identity_providers (tenant_id, name, issuer, client_id, client_secret_enc)
               select id, 'P', 'https://p' || n || '.example', 'c', 's' from identity.tenants, generate_series(1, 9) n where slug = 'default'";
    sqlx::query(sql).execute(&scene.world.db).await.unwrap();
    let fakes = [crate::openid::fake::Fake::start().await, crate::openid::fake::Fake::start().await];
    let make = async |url: &str| {
        scene
            .send(Method::POST, PATH, json!({"name": "P", "issuer": url, "client_id": "c", "client_secret": "s"}))
            .await
    };
    let (a, b) = tokio::join!(make(fakes[0].url()), make(fakes[1].url()));
    let mut statuses = [a.status.as_u16(), b.status.as_u16()];
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409], "{:?} {:?}", a.body, b.body);
    let full = if a.status == StatusCode::CONFLICT { a } else { b };
    assert_eq!(full.problem(), "identity_provider.too_many");
}
