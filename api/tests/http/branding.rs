//! How tenants look: chosen by who manages them, seen by everybody, shown by letters.

use crate::{
    jane::letters,
    world::{Answer, World, png, request, with_json},
};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use flatrender_workflows::models::{DEFAULT_TENANT, identity::tenant_api_key::SCOPES};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

/// A tenant and a key of its that may do everything.
async fn tenant(world: &World, slug: &str) -> (Uuid, String) {
    let id = world.tenant(slug).await;
    (id, world.key_for(id, &SCOPES).await.1)
}

async fn choose(world: &World, key: &str, look: Value) -> Answer {
    world.send(with_json(request(Method::PUT, "/v1/tenant/branding", key), &look)).await
}

/// As a browser without a credential that came to a host name.
async fn seen(world: &World, host: &str, path: &str) -> Answer {
    world.send(Request::get(path).header(header::HOST, host).body(Body::empty()).unwrap()).await
}

async fn upload(world: &World, key: &str, content: Vec<u8>) -> String {
    let request = request(Method::POST, "/v1/files?name=logo.png", key).body(Body::from(content)).unwrap();
    world.send(request).await.json()["id"].as_str().unwrap().to_owned()
}

#[sqlx::test(migrations = "../migrations")]
async fn two_tenants_each_see_their_own_look(db: PgPool) {
    let world = World::new(db).await;
    let (acme, acme_key) = tenant(&world, "acme").await;
    let (_, other_key) = tenant(&world, "other").await;
    let logo = upload(&world, &acme_key, png([200, 0, 0])).await;
    let look = json!({"product_name": " Acme Studio ", "logo_file_id": logo, "primary_color": "#00AAff", "accent_color": "#ffaa00",
        "support_email": "help@acme.example", "support_url": "https://acme.example/help", "legal_footer": "Acme Ltd\n1 High Street"});
    let chosen = choose(&world, &acme_key, look).await;
    assert_eq!(chosen.status, StatusCode::OK, "{:?}", chosen.body);
    assert_eq!(choose(&world, &other_key, json!({"product_name": "Other Films"})).await.status, StatusCode::OK);

    let public = seen(&world, "localhost", "/v1/branding?tenant=ACME").await;
    let logo_url = format!("/v1/branding/acme/logo?v={}", logo.replace('-', ""));
    let expected = json!({"object": "branding", "tenant": "acme", "locale": "en", "product_name": "Acme Studio", "logo_url": logo_url,
        "favicon_url": null, "primary_color": "#00aaff", "accent_color": "#ffaa00", "support_email": "help@acme.example",
        "support_url": "https://acme.example/help", "legal_footer": "Acme Ltd\n1 High Street"});
    assert_eq!(public.json(), expected);
    assert_eq!((public.header(header::CACHE_CONTROL), public.header(header::VARY)), ("public, max-age=60", "host"));
    let picture = seen(&world, "localhost", &logo_url).await;
    assert_eq!((picture.body.to_vec(), picture.header(header::CONTENT_TYPE)), (png([200, 0, 0]), "image/png"));
    assert_eq!(picture.header(header::X_CONTENT_TYPE_OPTIONS), "nosniff");
    assert_eq!(seen(&world, "localhost", "/v1/branding/acme/favicon").await.problem(), "branding.no_picture");
    let other = seen(&world, "localhost", "/v1/branding?tenant=other").await.json();
    assert_eq!((&other["product_name"], &other["logo_url"]), (&json!("Other Films"), &Value::Null));
    let own = world.send(request(Method::GET, "/v1/tenant/branding", &acme_key).body(Body::empty()).unwrap()).await;
    assert_eq!(own.json(), chosen.json());

    let actions: Vec<String> =
        sqlx::query_scalar("select action || ' ' || object from identity.audit_log where tenant_id = $1")
            .bind(acme)
            .fetch_all(&world.db)
            .await
            .unwrap();
    assert_eq!(actions, [format!("branding.set tenant:{acme}")]);
    // What is absent is not chosen any more.
    choose(&world, &acme_key, json!({"product_name": "Acme"})).await;
    assert_eq!(seen(&world, "localhost", &logo_url).await.problem(), "branding.no_picture");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_host_name_shows_its_tenant_once_it_is_proven(db: PgPool) {
    let world = World::new(db).await;
    let (acme, _) = tenant(&world, "acme").await;
    let at = async |host: &str| {
        let answer = seen(&world, host, "/v1/branding").await;
        if answer.status == StatusCode::OK { answer.json()["product_name"].clone() } else { json!(answer.problem()) }
    };
    let sql = "insert into identity.tenant_domains (tenant_id, hostname, dns_token) values ($1, 'films.acme.example', repeat('x', 20))";
    sqlx::query(sql).bind(acme).execute(&world.db).await.unwrap();
    assert_eq!(at("films.acme.example").await, "FlatRender", "claimed is not proven");
    sqlx::query("update identity.tenant_domains set state = 'verified', verified_at = now()")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(at("Films.Acme.example:8443").await, "acme", "until it chooses, its name");
    assert_eq!(at("acme.example").await, "FlatRender");
    let named = seen(&world, "films.acme.example", "/v1/branding?tenant=default").await.json();
    assert_eq!(named["tenant"], "default", "who names a tenant means it");
    sqlx::query("update identity.tenants set status = 'suspended' where id = $1")
        .bind(acme)
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(at("films.acme.example").await, "acme", "reading goes on");
    sqlx::query("update identity.tenants set status = 'closed', closed_at = now() where id = $1")
        .bind(acme)
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(at("films.acme.example").await, "tenant.not_found");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_look_that_makes_no_sense_is_refused(db: PgPool) {
    let world = World::new(db).await;
    let (_, key) = tenant(&world, "acme").await;
    let foreign = world.upload("logo.png", png([1, 2, 3])).await.json()["id"].as_str().unwrap().to_owned();
    let with = |field: &str, value: Value| {
        let mut look = json!({"product_name": "Acme"});
        look[field] = value;
        look
    };
    for (field, value, code) in [
        ("product_name", json!("A\r\nBcc: x@y.z"), "branding.name"),
        ("product_name", json!("  "), "branding.name"),
        ("product_name", json!("x".repeat(101)), "branding.name"),
        ("primary_color", json!("red;background:url(//x)"), "color.invalid"),
        ("accent_color", json!("#12345"), "color.invalid"),
        ("support_email", json!("nobody"), "email.invalid"),
        ("support_url", json!("javascript:alert(1)"), "url.invalid"),
        ("support_url", json!("http://acme.example"), "url.invalid"),
        ("support_url", json!("https://user:pass@acme.example"), "url.invalid"),
        ("legal_footer", json!("x\u{0}"), "branding.footer"),
        ("logo_file_id", json!(Uuid::now_v7()), "file.not_found"),
        ("favicon_file_id", json!(foreign), "file.not_found"),
    ] {
        let answer = choose(&world, &key, with(field, value.clone())).await;
        assert_eq!(answer.faults(), [format!("/{field} {code}")], "{value}");
    }
    assert_eq!(world.count("identity.tenant_branding").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn letters_look_like_the_tenant_they_are_of(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let (_, key) = tenant(&world, "acme").await;
    let look = json!({"product_name": "Acme Studio", "support_email": "help@acme.example", "primary_color": "#0055aa", "legal_footer": "Acme Ltd"});
    choose(&world, &key, look).await;
    let invite = |email: &str| json!({"email": email, "roles": ["viewer"]});
    world.send(with_json(request(Method::POST, "/v1/members", &key), &invite("ann@example.com"))).await;
    let (_, own) = world.key_for(DEFAULT_TENANT, &SCOPES).await;
    world.send(with_json(request(Method::POST, "/v1/members", &own), &invite("bob@example.com"))).await;
    let theirs = letters(&world, "ann@example.com", 1).await.remove(0);
    assert!(theirs.contains("Subject: Acme Studio: you are invited"), "{theirs}");
    assert!(
        theirs.contains("Reply-To: help@acme.example") && theirs.contains("#0055aa") && theirs.contains("Acme Ltd"),
        "{theirs}"
    );
    let ours = letters(&world, "bob@example.com", 1).await.remove(0);
    assert!(ours.contains("Subject: FlatRender: you are invited") && !ours.contains("Acme"), "{ours}");
}
