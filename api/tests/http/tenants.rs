//! Tenants, made and suspended by whoever administers the platform, and their people.

use crate::world::{Answer, World, request, with_json};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_workflows::models::DEFAULT_TENANT;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

struct Person<'a> {
    world: &'a World,
    id: Uuid,
    access: String,
}

async fn person<'a>(world: &'a World, tenant_id: Uuid, email: &str, role: &str) -> Person<'a> {
    let id = world.person(tenant_id, email, &[role]).await;
    Person { world, id, access: world.session(tenant_id, id).await }
}

impl Person<'_> {
    async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        self.world.send(with_json(request(method, path, &self.access), &body)).await
    }

    async fn get(&self, path: &str) -> Answer {
        self.world.send(request(Method::GET, path, &self.access).body(Body::empty()).unwrap()).await
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_tenant_is_made_limited_suspended_and_closed(db: PgPool) {
    let world = World::new(db).await;
    let admin = person(&world, DEFAULT_TENANT, "admin@example.com", "platform_admin").await;
    let made =
        admin.send(Method::POST, "/v1/platform/tenants", json!({"slug": "acme", "name": "Acme", "locale": "fa"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    let id: Uuid = made.json()["id"].as_str().unwrap().parse().unwrap();
    let again = admin.send(Method::POST, "/v1/platform/tenants", json!({"slug": "acme", "name": "Other"})).await;
    assert_eq!(again.problem(), "tenant.slug_taken");
    let wrong = admin.send(Method::POST, "/v1/platform/tenants", json!({"slug": "-Acme", "name": "x"})).await;
    assert_eq!(wrong.faults(), ["/slug tenant.slug"]);
    let (_, key) = world.key_for(id, &["render"]).await;
    let list = async || world.send(request(Method::GET, "/v1/renders", &key).body(Body::empty()).unwrap()).await;
    let order =
        async || world.send(with_json(request(Method::POST, "/v1/renders", &key), &json!({"template": "no"}))).await;
    assert_eq!(order().await.problem(), "template.unknown");

    let path = format!("/v1/platform/tenants/{id}");
    let limit = format!("{path}/limits/requests");
    let limited = admin.send(Method::PUT, &limit, json!({"hard": 2, "window_seconds": 60})).await;
    assert_eq!(limited.json()["limits"][0]["hard"], 2, "{:?}", limited.body);
    assert_eq!(admin.send(Method::PUT, &limit, json!({"hard": -1})).await.faults(), ["/hard limit.value"]);
    assert_eq!(
        admin.send(Method::PUT, &format!("{path}/limits/x"), json!({"hard": 1})).await.faults(),
        ["/name limit.name"]
    );
    let mut statuses = vec![];
    for _ in 0..4 {
        statuses.push(list().await.status.as_u16());
    }
    assert_eq!(statuses.last(), Some(&429), "{statuses:?}");
    admin.send(Method::PUT, &limit, json!({"hard": 1000, "window_seconds": 1})).await;

    let suspended = admin.send(Method::POST, &format!("{path}/suspend"), json!({"reason": "unpaid"})).await;
    assert_eq!(
        (&suspended.json()["status"], &suspended.json()["suspended_reason"]),
        (&json!("suspended"), &json!("unpaid"))
    );
    assert_eq!((list().await.status, order().await.problem().as_str()), (StatusCode::OK, "tenant.suspended"));
    assert_eq!(admin.send(Method::POST, &format!("{path}/resume"), json!({})).await.json()["status"], "active");
    assert_eq!(order().await.problem(), "template.unknown");
    assert_eq!(admin.send(Method::POST, &format!("{path}/close"), json!({})).await.json()["status"], "closed");
    assert_eq!(list().await.problem(), "auth.invalid");
    assert_eq!(admin.send(Method::POST, &format!("{path}/resume"), json!({})).await.problem(), "tenant.closed");
    let own = format!("/v1/platform/tenants/{DEFAULT_TENANT}/close");
    assert_eq!(admin.send(Method::POST, &own, json!({})).await.problem(), "tenant.closed");
    let actions: Vec<String> =
        sqlx::query_scalar("select action from identity.audit_log where tenant_id = $1 order by seq")
            .bind(id)
            .fetch_all(&world.db)
            .await
            .unwrap();
    let expected = ["create", "set_limit", "set_limit", "suspend", "resume", "close"].map(|a| format!("tenant.{a}"));
    assert_eq!(actions, expected);
}

/// Nobody who runs the platform could do anything any more, such as letting it go on.
#[sqlx::test(migrations = "../migrations")]
async fn the_platforms_own_tenant_is_not_suspended(db: PgPool) {
    let world = World::new(db).await;
    let admin = person(&world, DEFAULT_TENANT, "admin@example.com", "platform_admin").await;
    let path = format!("/v1/platform/tenants/{DEFAULT_TENANT}");
    let refused = admin.send(Method::POST, &format!("{path}/suspend"), json!({"reason": "unpaid"})).await;
    assert_eq!((refused.status, refused.problem().as_str()), (StatusCode::CONFLICT, "tenant.platform"));
    let stands = admin.get(&path).await.json();
    assert_eq!((&stands["kind"], &stands["status"]), (&json!("platform"), &json!("active")));
    let made = admin.send(Method::POST, "/v1/platform/tenants", json!({"slug": "acme", "name": "Acme"})).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_dangerous_takes_somebody_who_just_proved_who_they_are(db: PgPool) {
    let world = World::new(db).await;
    let admin = person(&world, DEFAULT_TENANT, "admin@example.com", "platform_admin").await;
    let sql = "update identity.user_sessions set created_at = created_at - interval '11 minutes'";
    sqlx::query(sql).execute(&world.db).await.unwrap();
    let made = admin.send(Method::POST, "/v1/platform/tenants", json!({"slug": "acme", "name": "Acme"})).await;
    assert_eq!(made.problem(), "auth.step_up");
    assert_eq!(admin.get("/v1/platform/tenants").await.status, StatusCode::OK);
}

/// What lets others in or data out is not done from a screen that was left open, nor with a token that somebody found: keys, roles,
/// identity providers, webhooks. A key has nobody who could prove anything.
#[sqlx::test(migrations = "../migrations")]
async fn what_lets_others_in_takes_somebody_who_just_proved_who_they_are(db: PgPool) {
    let world = World::new(db).await;
    let owner = person(&world, DEFAULT_TENANT, "owner@example.com", "owner").await;
    let editor = person(&world, DEFAULT_TENANT, "editor@example.com", "editor").await;
    let (key_id, _) = world.key_for(DEFAULT_TENANT, &["render"]).await;
    let hook = owner.send(Method::POST, "/v1/webhooks", json!({"url": "https://example.com/"})).await.json();
    let (member, hook) =
        (format!("/v1/members/{}", editor.id), format!("/v1/webhooks/{}", hook["id"].as_str().unwrap()));
    let provider = format!("/v1/identity-providers/{}", crate::openid::provider_row(&world).await);
    let sql = "update identity.user_sessions set created_at = created_at - interval '11 minutes'";
    sqlx::query(sql).execute(&world.db).await.unwrap();
    let before = world.count("identity.audit_log").await;
    let idp = json!({"name": "A", "issuer": "https://login.example", "client_id": "a", "client_secret": "s"});
    let dangerous = [
        (Method::POST, "/v1/api-keys".to_owned(), json!({"name": "Shop"})),
        (Method::POST, format!("/v1/api-keys/{key_id}/rotate"), json!({})),
        (Method::POST, "/v1/members".to_owned(), json!({"email": "new@example.com", "roles": ["owner"]})),
        (Method::PUT, format!("{member}/roles"), json!({"roles": ["owner"]})),
        (Method::DELETE, member.clone(), json!({})),
        (Method::POST, "/v1/identity-providers".to_owned(), idp),
        (Method::PATCH, provider.clone(), json!({"name": "B"})),
        (Method::DELETE, provider, json!({})),
        (Method::POST, "/v1/webhooks".to_owned(), json!({"url": "https://example.com/"})),
        (Method::PATCH, hook.clone(), json!({"url": "https://example.org/"})),
        (Method::POST, format!("{hook}/rotate-secret"), json!({})),
    ];
    for (method, path, body) in &dangerous {
        assert_eq!(owner.send(method.clone(), path, body.clone()).await.problem(), "auth.step_up", "{method} {path}");
    }
    assert_eq!(world.count("identity.audit_log").await, before, "nothing was done");
    for path in ["/v1/api-keys", "/v1/members", "/v1/webhooks", "/v1/identity-providers"] {
        assert_eq!(owner.get(path).await.status, StatusCode::OK, "{path}");
    }
    assert_eq!(owner.send(Method::DELETE, &format!("/v1/api-keys/{key_id}"), json!({})).await.status, StatusCode::OK);
    let (_, key_of_all) = world.key_for(DEFAULT_TENANT, &["render", "files", "templates", "admin"]).await;
    let by_key = with_json(request(Method::POST, "/v1/api-keys", &key_of_all), &json!({"name": "Shop"}));
    assert_eq!(world.send(by_key).await.status, StatusCode::CREATED);
}

/// Letters go to whom a tenant names: nobody's mailbox is filled that way.
#[sqlx::test(migrations = "../migrations")]
async fn a_tenant_invites_a_hundred_people_an_hour(db: PgPool) {
    let world = World::new(db).await;
    let owner = person(&world, DEFAULT_TENANT, "owner@example.com", "owner").await;
    let invite = || owner.send(Method::POST, "/v1/members", json!({"email": "jane@example.com", "roles": ["viewer"]}));
    let (mut taken, began) = (0, std::time::Instant::now());
    for _ in 0..110 {
        match invite().await.status {
            StatusCode::CREATED => taken += 1,
            status => assert_eq!(status, StatusCode::TOO_MANY_REQUESTS),
        }
    }
    assert!(taken >= 100 && taken <= 101 + began.elapsed().as_secs() / 36, "{taken}");
}

/// Who runs the platform is above the people and keys of the tenant that it belongs to.
#[sqlx::test(migrations = "../migrations")]
async fn nobody_of_the_platforms_own_tenant_removes_who_runs_the_platform(db: PgPool) {
    let world = World::new(db).await;
    let owner = person(&world, DEFAULT_TENANT, "owner@example.com", "owner").await;
    let staff = person(&world, DEFAULT_TENANT, "staff@example.com", "platform_admin").await;
    let (_, key) = world.key_for(DEFAULT_TENANT, &["admin"]).await;
    let path = format!("/v1/members/{}", staff.id);
    for access in [&owner.access, &key] {
        let remove = world.send(with_json(request(Method::DELETE, &path, access), &json!({}))).await;
        assert_eq!(remove.problem(), "member.outranked");
        let set = with_json(request(Method::PUT, &format!("{path}/roles"), access), &json!({"roles": ["viewer"]}));
        assert_eq!(world.send(set).await.problem(), "member.outranked");
    }
    assert_eq!(staff.get("/v1/platform/tenants").await.status, StatusCode::OK);
}

#[sqlx::test(migrations = "../migrations")]
async fn people_are_invited_given_roles_and_removed(db: PgPool) {
    let world = World::new(db).await;
    let owner = person(&world, DEFAULT_TENANT, "owner@example.com", "owner").await;
    let invite = json!({"email": "New@example.com", "display_name": "New", "roles": ["editor"]});
    let invited = owner.send(Method::POST, "/v1/members", invite.clone()).await;
    assert_eq!(invited.status, StatusCode::CREATED, "{:?}", invited.body);
    assert_eq!((&invited.json()["status"], &invited.json()["roles"]), (&json!("invited"), &json!(["editor"])));
    let id = invited.json()["id"].as_str().unwrap().to_owned();
    let link: Uuid = sqlx::query_scalar("select id from identity.auth_challenges where kind = 'reset'")
        .fetch_one(&world.db)
        .await
        .unwrap();
    let body = json!({"token": world.app.vault.link(link), "password": "correct horse battery staple"});
    assert_eq!(world.post("/v1/auth/reset-password", body).await.status, StatusCode::NO_CONTENT);
    let access = world.session(DEFAULT_TENANT, id.parse().unwrap()).await;
    let newcomer = Person { world: &world, id: id.parse().unwrap(), access };
    assert_eq!(newcomer.get("/v1/renders").await.status, StatusCode::OK);
    let roles = format!("/v1/members/{id}/roles");
    let changed = owner.send(Method::PUT, &roles, json!({"roles": ["viewer", "billing"]})).await;
    assert_eq!(changed.json()["roles"], json!(["billing", "viewer"]), "{:?}", changed.body);
    assert_eq!(owner.send(Method::PUT, &roles, json!({"roles": ["king"]})).await.faults(), ["/roles/0 role.unknown"]);
    let platform = owner.send(Method::PUT, &roles, json!({"roles": ["platform_admin"]})).await;
    assert_eq!(platform.faults(), ["/roles/0 role.unknown"], "the platform's roles are not a tenant's to give");
    assert_eq!(owner.get("/v1/members").await.json()["data"].as_array().unwrap().len(), 2);
    assert_eq!(
        owner.send(Method::DELETE, &format!("/v1/members/{id}"), json!({})).await.status,
        StatusCode::NO_CONTENT
    );
    assert_eq!(newcomer.get("/v1/renders").await.problem(), "auth.invalid");
    let back = owner.send(Method::POST, "/v1/members", invite).await;
    assert_eq!((&back.json()["status"], &back.json()["roles"]), (&json!("active"), &json!(["editor"])));
}

#[sqlx::test(migrations = "../migrations")]
async fn nobody_gives_or_takes_what_is_above_them_and_somebody_owns_the_tenant(db: PgPool) {
    let world = World::new(db).await;
    let owner = person(&world, DEFAULT_TENANT, "owner@example.com", "owner").await;
    let admin = person(&world, DEFAULT_TENANT, "admin@example.com", "admin").await;
    let roles = |id: Uuid| format!("/v1/members/{id}/roles");
    let take = admin.send(Method::PUT, &roles(owner.id), json!({"roles": []})).await;
    assert_eq!(take.problem(), "member.outranked");
    let give = admin.send(Method::PUT, &roles(admin.id), json!({"roles": ["owner"]})).await;
    assert_eq!(give.problem(), "member.outranked");
    let invite = admin.send(Method::POST, "/v1/members", json!({"email": "a@b.c", "roles": ["owner"]})).await;
    assert_eq!(invite.problem(), "member.outranked");
    let remove = admin.send(Method::DELETE, &format!("/v1/members/{}", owner.id), json!({})).await;
    assert_eq!(remove.problem(), "member.outranked");
    let leave = owner.send(Method::PUT, &roles(owner.id), json!({"roles": ["viewer"]})).await;
    assert_eq!(leave.problem(), "member.last_owner");
    assert_eq!(owner.send(Method::PUT, &roles(admin.id), json!({"roles": ["owner"]})).await.status, StatusCode::OK);
    let (leave, drop) = (json!({"roles": ["viewer"]}), json!({"roles": ["viewer"]}));
    // Two owners who leave at the same time: one of them stays.
    let (path, other) = (roles(owner.id), roles(admin.id));
    let (a, b) = tokio::join!(owner.send(Method::PUT, &path, leave), admin.send(Method::PUT, &other, drop));
    let left = [&a, &b].iter().filter(|answer| answer.status == StatusCode::OK).count();
    assert_eq!(left, 1, "{:?} {:?}", a.body, b.body);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_tenants_people_are_not_anothers(db: PgPool) {
    let world = World::new(db).await;
    let owner = person(&world, DEFAULT_TENANT, "owner@example.com", "owner").await;
    let other = world.tenant("other").await;
    let stranger = person(&world, other, "owner@example.com", "owner").await;
    let own = stranger.get("/v1/members").await.json();
    assert_eq!(own["data"].as_array().unwrap().len(), 1, "the same address in two tenants is two people");
    let roles = format!("/v1/members/{}/roles", owner.id);
    assert_eq!(stranger.send(Method::PUT, &roles, json!({"roles": []})).await.problem(), "member.not_found");
    assert_eq!(stranger.get("/v1/tenant").await.json()["slug"], "other");
    let renamed = stranger.send(Method::PATCH, "/v1/tenant", json!({"name": "New", "registration_open": false})).await;
    assert_eq!((&renamed.json()["name"], &renamed.json()["registration_open"]), (&json!("New"), &json!(false)));
    assert_eq!(owner.get("/v1/tenant").await.json()["name"], "Default");
}
