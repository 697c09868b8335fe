//! What two people look at and change: who knows it as it was changes nothing, and is told so.

use crate::world::{Answer, World, request, with_json};
use axum::{
    body::Body,
    http::{Method, StatusCode, header},
};
use flatrender_workflows::models::{DEFAULT_TENANT, identity::tenant_api_key::SCOPES};
use serde_json::{Value, json};
use sqlx::PgPool;

/// Something that is changed by one of its fields.
struct Thing {
    method: Method,
    path: String,
    field: &'static str,
    /// What the field is to be.
    value: fn(&str) -> Value,
    /// What else a change has to say.
    rest: Value,
}

impl Thing {
    fn named(method: Method, path: String, field: &'static str) -> Self {
        Self { method, path, field, value: |word| json!(word), rest: json!({}) }
    }

    fn counted(path: String, field: &'static str) -> Self {
        let number =
            |word: &str| json!(["none", "one", "two", "three", "four"].iter().position(|known| *known == word));
        Self { value: number, ..Self::named(Method::PATCH, path, field) }
    }

    fn value(&self, word: &str) -> Value {
        (self.value)(word)
    }
}

/// Somebody who manages the tenant.
struct Desk {
    world: World,
    key: String,
}

impl Desk {
    async fn new(db: PgPool) -> Self {
        let world = World::new(db).await;
        let key = world.key_for(DEFAULT_TENANT, &SCOPES).await.1;
        Self { world, key }
    }

    async fn made(&self, path: &str, body: &Value) -> String {
        let made = self.world.send(with_json(request(Method::POST, path, &self.key), body)).await;
        assert_eq!((made.status, made.header(header::ETAG)), (StatusCode::CREATED, "\"0\""), "{:?}", made.body);
        format!("{path}/{}", made.json()["id"].as_str().unwrap())
    }

    async fn things(&self) -> Vec<Thing> {
        let rule = json!({"name": "old", "target": "trash", "older_than_seconds": 86_400, "cron": "30 3 * * *"});
        let schedule = self.made("/v1/cleanup-schedules", &rule).await;
        let webhook = self.made("/v1/webhooks", &json!({"url": "https://acme.example/"})).await;
        let provider = format!("/v1/identity-providers/{}", crate::openid::provider_row(&self.world).await);
        let title = json!({"en": "A film"});
        let gift = json!({"code": "present", "title": title, "kind": "credits", "value": 600, "stock": 9});
        let gift = self.made("/v1/gift-catalogue", &gift).await;
        let once =
            json!({"code": "first_film", "title": title, "points": 25, "rule": {"source": "render", "count": 1}});
        let achievement = self.made("/v1/achievements", &once).await;
        vec![
            Thing { rest: rule, ..Thing::named(Method::PUT, schedule, "name") },
            Thing {
                value: |word| json!(format!("https://acme.example/{word}")),
                ..Thing::named(Method::PATCH, webhook, "url")
            },
            Thing::named(Method::PATCH, provider, "name"),
            Thing::named(Method::PATCH, "/v1/tenant".into(), "name"),
            Thing::named(Method::PUT, "/v1/tenant/branding".into(), "product_name"),
            Thing::counted(self.coupon().await, "max_redemptions"),
            Thing::counted(gift, "stock"),
            Thing { value: |word| json!(word != "one"), ..Thing::named(Method::PATCH, achievement, "active") },
        ]
    }

    async fn coupon(&self) -> String {
        let coupon = json!({"code": "SPRING", "kind": "percent", "value": 20, "max_redemptions": 9, "valid_to": "2099-01-01T00:00:00Z"});
        self.made("/v1/coupons", &coupon).await
    }

    async fn see(&self, thing: &Thing) -> Answer {
        self.world.send(request(Method::GET, &thing.path, &self.key).body(Body::empty()).unwrap()).await
    }

    async fn change(&self, thing: &Thing, known: Option<&str>, word: &str) -> Answer {
        let mut body = thing.rest.clone();
        body[thing.field] = thing.value(word);
        let mut ask = request(thing.method.clone(), &thing.path, &self.key);
        if let Some(tag) = known {
            ask = ask.header(header::IF_MATCH, tag);
        }
        self.world.send(with_json(ask, &body)).await
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_change_is_made_of_what_was_seen(db: PgPool) {
    let desk = Desk::new(db).await;
    for thing in desk.things().await {
        let path = &thing.path;
        let seen = desk.see(&thing).await.header(header::ETAG).to_owned();
        let changed = desk.change(&thing, Some(&seen), "one").await;
        assert_eq!(changed.status, StatusCode::OK, "{path}: {:?}", changed.body);
        let recorded = desk.world.count("identity.audit_log").await;
        for old in [&*seen, "nonsense", "W/\"1\""] {
            let late = desk.change(&thing, Some(old), "two").await;
            assert_eq!((late.status.as_u16(), late.problem().as_str()), (412, "revision.stale"), "{path} {old}");
        }
        assert_eq!(desk.world.count("identity.audit_log").await, recorded, "{path}");
        let now = desk.see(&thing).await;
        assert_eq!(
            (&now.json()[thing.field], now.header(header::ETAG)),
            (&thing.value("one"), changed.header(header::ETAG))
        );
        assert_ne!(now.header(header::ETAG), seen, "{path}");
        for (known, word) in [(Some("*"), "three"), (None, "four")] {
            let any = desk.change(&thing, known, word).await;
            assert_eq!((any.status, &any.json()[thing.field]), (StatusCode::OK, &thing.value(word)), "{path}");
        }
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn of_two_who_saw_the_same_one_changes_it(db: PgPool) {
    let desk = Desk::new(db).await;
    for thing in desk.things().await {
        let seen = desk.see(&thing).await.header(header::ETAG).to_owned();
        let change = async |word: &str| desk.change(&thing, Some(&seen), word).await.status.as_u16();
        let (a, b) = tokio::join!(change("one"), change("two"));
        assert_eq!((a.min(b), a.max(b)), (200, 412), "{}", thing.path);
    }
}

/// Its uses are no changes: of a coupon that many use, somebody may still change what they saw.
#[sqlx::test(migrations = "../migrations")]
async fn a_coupon_ends_as_it_was_seen(db: PgPool) {
    let desk = Desk::new(db).await;
    let coupon = Thing::counted(desk.coupon().await, "max_redemptions");
    let end = async |known: &str| {
        let ask = request(Method::DELETE, &coupon.path, &desk.key).header(header::IF_MATCH, known);
        desk.world.send(ask.body(Body::empty()).unwrap()).await
    };
    let seen = desk.change(&coupon, None, "three").await.header(header::ETAG).to_owned();
    sqlx::query("update identity.coupons set redeemed = 1").execute(&desk.world.db).await.unwrap();
    let late = end("\"0\"").await;
    assert_eq!((late.status.as_u16(), late.problem().as_str()), (412, "revision.stale"));
    assert_eq!(end(&seen).await.status, StatusCode::NO_CONTENT);
    assert_eq!(end(&seen).await.problem(), "revision.stale", "it has ended meanwhile");
    assert_eq!(end("*").await.status, StatusCode::NO_CONTENT, "doing so twice is harmless");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_render_that_has_not_changed_is_not_told_again(db: PgPool) {
    let world = World::new(db).await;
    let id = world.order().await;
    let path = format!("/v1/renders/{id}");
    let ask = async |known: &str| {
        let ask = world.request(Method::GET, &path).header(header::IF_NONE_MATCH, known);
        world.send(ask.body(Body::empty()).unwrap()).await
    };
    let queued = world.get(&path).await.header(header::ETAG).to_owned();
    crate::exports::publish(&world, id, b"a film").await;
    let completed = ask(&queued).await;
    assert_eq!((completed.status, &completed.json()["status"]), (StatusCode::OK, &json!("completed")));
    let etag = completed.header(header::ETAG);
    let same = ask(etag).await;
    assert_eq!((same.status, same.body.len(), same.header(header::ETAG)), (StatusCode::NOT_MODIFIED, 0, etag));
}
