//! Webhooks as tenants set them up.

use crate::{
    jane::pass,
    world::{Answer, World, request, with_json},
};
use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use flatrender_activities::egress::{Egress, Reach};
use flatrender_api::{app::App, router};
use flatrender_workflows::models::{DEFAULT_TENANT, identity::tenant_webhook};
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

struct Tenant<'a> {
    world: &'a World,
    id: Uuid,
    key: String,
}

impl<'a> Tenant<'a> {
    async fn new(world: &'a World, id: Uuid) -> Self {
        Self { world, id, key: world.key_for(id, &["webhooks"]).await.1 }
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        self.world.send(with_json(request(method, path, &self.key), &body)).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.world.send(request(Method::GET, path, &self.key).body(Body::empty()).unwrap()).await
    }

    /// What deliveries are signed with right now.
    async fn secrets(&self, id: Uuid) -> Vec<String> {
        let mut db = self.world.db.acquire().await.unwrap();
        let sealed = tenant_webhook::secrets(&mut db, self.id, id).await.unwrap();
        let open = |sealed: &Vec<u8>| self.world.app.vault.unseal(&format!("webhook:{id}"), sealed).unwrap();
        sealed.iter().map(|s| String::from_utf8(open(s)).unwrap()).collect()
    }
}

fn id_of(answer: &Answer) -> Uuid {
    answer.json()["id"].as_str().unwrap_or_else(|| panic!("{:?}", answer.body)).parse().unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_webhook_is_made_changed_paused_and_removed(db: PgPool) {
    let world = World::new(db).await;
    let tenant = Tenant::new(&world, DEFAULT_TENANT).await;
    let made = tenant
        .send(Method::POST, "/v1/webhooks", json!({"url": "https://Acme.example/hook", "events": ["render.failed"]}))
        .await;
    assert_eq!((made.status, made.header(header::CACHE_CONTROL)), (StatusCode::CREATED, "no-store"), "{:?}", made.body);
    let view = made.json();
    assert_eq!(
        (&view["url"], &view["events"], &view["state"]),
        (&json!("https://acme.example/hook"), &json!(["render.failed"]), &json!("active"))
    );
    let secret = view["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("whsec_") && secret.len() == 6 + 44, "32 bytes in base64: {secret}");
    let path = format!("/v1/webhooks/{}", id_of(&made));
    let (one, all) = (tenant.get(&path).await, tenant.get("/v1/webhooks").await.json());
    assert_eq!((one.json().get("secret"), &all["data"][0]), (None, &one.json()), "the secret is shown once");
    let kept: Vec<u8> =
        sqlx::query_scalar("select secret_enc from identity.tenant_webhooks").fetch_one(&world.db).await.unwrap();
    assert!(!kept.windows(10).any(|w| secret.as_bytes().windows(10).any(|s| s == w)), "and kept sealed");

    let sql = "update identity.tenant_webhooks set state = 'disabled', disabled_reason = 'failed for 3 days', consecutive_failures = 9, first_failure_at = now()";
    sqlx::query(sql).execute(&world.db).await.unwrap();
    let disabled = tenant.send(Method::PATCH, &path, json!({"events": ["*"]})).await.json();
    assert_eq!((&disabled["state"], &disabled["disabled_reason"]), (&json!("disabled"), &json!("failed for 3 days")));
    let again = tenant.send(Method::PATCH, &path, json!({"active": true})).await.json();
    assert_eq!(
        (&again["state"], &again["disabled_reason"], &again["consecutive_failures"]),
        (&json!("active"), &Value::Null, &json!(0))
    );
    assert_eq!((&again["events"], &again["url"]), (&json!(["*"]), &json!("https://acme.example/hook")));
    assert_eq!(tenant.send(Method::PATCH, &path, json!({"active": false})).await.json()["state"], "paused");
    assert_eq!(tenant.send(Method::DELETE, &path, json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(tenant.get(&path).await.problem(), "webhook.not_found");
    let sql = "select action from identity.audit_log where action like 'webhook.%' order by seq";
    let actions: Vec<String> = sqlx::query_scalar(sql).fetch_all(&world.db).await.unwrap();
    assert_eq!(actions, ["create", "update", "update", "update", "delete"].map(|a| format!("webhook.{a}")));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_secret_is_changed_with_an_overlap(db: PgPool) {
    let world = World::new(db).await;
    let tenant = Tenant::new(&world, DEFAULT_TENANT).await;
    let made = tenant.send(Method::POST, "/v1/webhooks", json!({"url": "https://acme.example/hook"})).await;
    let id = id_of(&made);
    let secret =
        |answer: &Answer| answer.json()["secret"].as_str().unwrap_or_else(|| panic!("{:?}", answer.body)).to_owned();
    let path = format!("/v1/webhooks/{id}/rotate-secret");
    let (first, second) = (secret(&made), tenant.send(Method::POST, &path, json!({"overlap_seconds": 60})).await);
    assert_eq!(second.header(header::CACHE_CONTROL), "no-store");
    assert!(second.json()["previous_secret_until"].is_string());
    let second = secret(&second);
    assert_eq!(tenant.secrets(id).await, [second.clone(), first], "both sign");
    pass(&world, 61).await;
    assert_eq!(tenant.secrets(id).await, [second.as_str()], "the old one does no longer");
    let third = secret(&tenant.send(Method::POST, &path, json!({})).await);
    let fourth = secret(&tenant.send(Method::POST, &path, json!({"overlap_seconds": 0})).await);
    assert_eq!(tenant.secrets(id).await, [fourth], "at once, as after a leak");
    assert_ne!(second, third);
    assert_eq!(
        tenant.send(Method::POST, &path, json!({"overlap_seconds": 2_592_001})).await.faults(),
        ["/overlap_seconds seconds.range"]
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn a_webhook_leads_to_the_open_net_only_and_hears_of_what_there_is(db: PgPool) {
    let world = World::new(db).await;
    let tenant = Tenant::new(&world, DEFAULT_TENANT).await;
    let make = async |url: &str, events: Value| {
        tenant.send(Method::POST, "/v1/webhooks", json!({"url": url, "events": events})).await
    };
    for url in [
        "http://acme.example/hook",
        "https://127.0.0.1/hook",
        "https://0x7f000001/hook",
        "https://169.254.169.254/latest/meta-data",
        "https://[::ffff:10.0.0.1]/",
        "https://localhost/",
        "https://db.internal/",
        "https://user:pass@acme.example/",
        "https://acme.example:22/",
        "nonsense",
    ] {
        assert_eq!(make(url, json!(["*"])).await.faults(), ["/url webhook.url"], "{url}");
    }
    for events in [
        json!([]),
        json!(["render.exploded"]),
        json!(["*", "render.failed"]),
        json!(["render.failed", "render.failed"]),
    ] {
        assert_eq!(
            make("https://acme.example/", events.clone()).await.faults(),
            ["/events webhook.events"],
            "{events}"
        );
    }
    let made = make("https://acme.example/", json!(["*"])).await;
    let path = format!("/v1/webhooks/{}", id_of(&made));
    assert_eq!(
        tenant.send(Method::PATCH, &path, json!({"url": "https://10.0.0.1/"})).await.faults(),
        ["/url webhook.url"]
    );

    // Whoever develops receives on their own machine.
    let router = router::router(App { egress: Egress::new(Reach::Anywhere), ..world.app.clone() });
    let ask =
        with_json(request(Method::POST, "/v1/webhooks", &tenant.key), &json!({"url": "http://127.0.0.1:9000/hook"}));
    let answer = tower::ServiceExt::oneshot(router, ask).await.unwrap();
    assert_eq!(answer.status(), StatusCode::CREATED);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_tenant_has_at_most_twenty_webhooks_however_they_are_made(db: PgPool) {
    let world = World::new(db).await;
    let tenant = Tenant::new(&world, DEFAULT_TENANT).await;
    let make = || tenant.send(Method::POST, "/v1/webhooks", json!({"url": "https://acme.example/hook"}));
    let answers = futures::future::join_all((0..24).map(|_| make())).await;
    let made = answers.iter().filter(|a| a.status == StatusCode::CREATED).count();
    let full = answers.iter().filter(|a| a.status == StatusCode::CONFLICT && a.problem() == "webhook.too_many").count();
    assert_eq!((made, full), (20, 4));
    let other = Tenant::new(&world, world.tenant("other").await).await;
    assert_eq!(other.get("/v1/webhooks").await.json()["data"], json!([]));
    let theirs = format!("/v1/webhooks/{}", id_of(answers.iter().find(|a| a.status == StatusCode::CREATED).unwrap()));
    assert_eq!(other.get(&theirs).await.problem(), "webhook.not_found");
    assert_eq!(other.send(Method::DELETE, &theirs, json!({})).await.problem(), "webhook.not_found");
}
