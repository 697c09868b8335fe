//! Signing in with an identity provider. The provider is small, speaks the real protocol, and lies when it is told to.

pub mod fake;
mod forged;

use crate::{
    jane::{OTHER, PASSWORD, credentials, pass, person, post},
    world::{Answer, World, request, with_json},
};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use fake::{CLIENT, Fake, Mood, SECRET};
use flatrender_activities::egress::{Egress, Reach};
use flatrender_api::{app::App, router};
use flatrender_workflows::models::{
    DEFAULT_TENANT,
    identity::{
        openid_sign_in,
        tenant_identity_provider::{self, IdentityProvider},
        user,
    },
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

const PAGES: &str = "https://films.example";

/// A provider of the default tenant, as it is kept.
pub async fn provider_row(world: &World) -> Uuid {
    let id = Uuid::now_v7();
    let now = chrono::Utc::now();
    let new = IdentityProvider {
        id,
        name: "Acme".into(),
        issuer: "https://login.acme.example".into(),
        client_id: CLIENT.into(),
        scopes: vec![],
        email_domains: vec![],
        default_role: None,
        enabled: true,
        created_at: now,
        updated_at: now,
        rev: 0,
    };
    let mut db = world.db.acquire().await.unwrap();
    tenant_identity_provider::create(&mut db, DEFAULT_TENANT, &new, b"sealed").await.unwrap();
    id
}

/// A world with a provider that its default tenant may use.
pub struct Scene {
    pub world: World,
    pub fake: Fake,
    pub key: String,
}

/// Somebody on the way back from a provider.
#[derive(Clone)]
struct Way {
    token: String,
    state: String,
    code: String,
}

impl Scene {
    pub async fn new(db: PgPool) -> Self {
        let mut world = World::new(db).await;
        let egress = Egress::new(Reach::Anywhere).with_patience(Duration::from_secs(2));
        world.app = App { egress, public_url: PAGES.into(), ..world.app.clone() };
        world.router = router::router(world.app.clone());
        let key = world.key_for(DEFAULT_TENANT, &["admin"]).await.1;
        Self { world, fake: Fake::start().await, key }
    }

    pub async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        self.world.send(with_json(request(method, path, &self.key), &body)).await
    }

    /// A host name that is proven to be a tenant's.
    pub async fn proven(&self, tenant_id: Uuid, hostname: &str) {
        let sql = "insert into identity.tenant_domains (tenant_id, hostname, state, dns_token, verified_at)
                   values ($1, $2, 'verified', 'fr_dv_0123456789abcdef', now())";
        sqlx::query(sql).bind(tenant_id).bind(hostname).execute(&self.world.db).await.unwrap();
    }

    pub fn new_provider(&self) -> Value {
        json!({"name": "Acme", "issuer": self.fake.url(), "client_id": CLIENT, "client_secret": SECRET, "default_role": "editor"})
    }

    /// The provider, set up; its id.
    pub async fn provider(&self, with: Value) -> String {
        let mut body = self.new_provider();
        for (name, value) in with.as_object().unwrap() {
            body[name] = value.clone();
        }
        let made = self.send(Method::POST, "/v1/identity-providers", body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// Somebody goes to the provider and signs in there.
    async fn way(&self, provider: &str) -> Way {
        self.way_of(post(&self.world, "/v1/auth/openid/start", json!({ "provider": provider })).await).await
    }

    async fn way_of(&self, started: Answer) -> Way {
        assert_eq!(started.status, StatusCode::OK, "{:?}", started.body);
        assert_eq!(started.header(header::CACHE_CONTROL), "no-store");
        let started = started.json();
        let (back, code, state) = self.fake.visit(started["authorization_url"].as_str().unwrap()).await;
        assert!(back.as_str().starts_with(&format!("{PAGES}/account/openid?")), "{back}");
        Way { token: started["token"].as_str().unwrap().to_owned(), state, code }
    }

    async fn finish(&self, way: &Way) -> Answer {
        post(&self.world, "/v1/auth/openid/finish", way.body()).await
    }

    /// Somebody signs in with the provider.
    async fn arrive(&self, provider: &str) -> Answer {
        self.finish(&self.way(provider).await).await
    }

    /// Who holds the tokens of an answer.
    async fn me(&self, signed_in: &Answer) -> Value {
        assert_eq!(signed_in.status, StatusCode::OK, "{:?}", signed_in.body);
        let access = signed_in.json()["access_token"].as_str().unwrap().to_owned();
        self.world.send(request(Method::GET, "/v1/me", &access).body(Body::empty()).unwrap()).await.json()
    }

    async fn run(&self, sql: &'static str) {
        sqlx::query(sql).execute(&self.world.db).await.unwrap();
    }
}

impl Way {
    fn body(&self) -> Value {
        json!({"token": self.token, "state": self.state, "code": self.code})
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn somebody_new_comes_in_and_is_known_ever_after(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    let first = scene.arrive(&provider).await;
    let me = scene.me(&first).await;
    assert_eq!(
        (&me["email"], &me["display_name"], &me["rights"]),
        (&json!("jane@acme.example"), &json!("Jane Doe"), &json!(["edit", "read", "render"])),
        "{me}"
    );
    assert!(me["email_verified_at"].is_string());
    // The session is as any other.
    let refresh = json!({"refresh_token": first.json()["refresh_token"]});
    let next = post(&scene.world, "/v1/auth/refresh", refresh.clone()).await;
    assert_eq!(next.status, StatusCode::OK);
    assert_eq!(post(&scene.world, "/v1/auth/refresh", refresh).await.problem(), "auth.invalid", "good once");

    // The provider knows her by another address by now, and does not vouch for it. She is who she is.
    scene.fake.says(json!({"email": "doe@elsewhere.example", "email_verified": false}));
    let again = scene.me(&scene.arrive(&provider).await).await;
    assert_eq!((&again["id"], &again["email"]), (&me["id"], &json!("jane@acme.example")));
    assert_eq!(scene.world.count("identity.users").await, 1);
    let sql = "select action || ' ' || split_part(object, ':', 1) from identity.audit_log where actor like 'user:%' order by seq";
    let done: Vec<String> = sqlx::query_scalar(sql).fetch_all(&scene.world.db).await.unwrap();
    assert_eq!(done, ["member.join user", "identity.link identity"]);

    // Made anew with the same issuer, it lets the same people in.
    let path = format!("/v1/identity-providers/{provider}");
    assert_eq!(scene.send(Method::DELETE, &path, json!({})).await.status, StatusCode::NO_CONTENT);
    let provider = scene.provider(json!({})).await;
    assert_eq!(scene.me(&scene.arrive(&provider).await).await["id"], me["id"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn nobody_new_comes_in_whom_the_tenant_does_not_vouch_for(db: PgPool) {
    let scene = Scene::new(db).await;
    let other = scene.world.tenant("other").await;
    scene.proven(other, "theirs.example").await;
    let provider = scene.provider(json!({})).await;
    let refused = async |claims: Value, why: &str| {
        scene.fake.says(claims);
        let answer = scene.arrive(&provider).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (403, "auth.identity_unknown"), "{why}");
    };
    refused(json!({}), "nobody has proven acme.example").await;
    refused(json!({"email": "jane@theirs.example"}), "another tenant has proven it").await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    scene.proven(DEFAULT_TENANT, "acme.org").await;
    refused(json!({"email_verified": false}), "the provider does not say that it is hers").await;
    refused(json!({"email_verified": null}), "nor does it here").await;
    refused(json!({"email": null}), "there is none").await;
    refused(json!({"email": "jane@sub.acme.example"}), "a name below is another name").await;
    refused(json!({"email": "jane@acme.example.evil.example"}), "and so is one around it").await;

    let path = format!("/v1/identity-providers/{provider}");
    let only = scene.send(Method::PATCH, &path, json!({"email_domains": ["acme.org"]})).await;
    assert_eq!(only.status, StatusCode::OK, "{:?}", only.body);
    refused(json!({}), "only acme.org is wanted").await;
    scene.send(Method::PATCH, &path, json!({"email_domains": [], "default_role": null})).await;
    refused(json!({}), "nobody new is").await;
    scene.send(Method::PATCH, &path, json!({"default_role": "viewer"})).await;
    scene
        .run("update identity.tenants set status = 'suspended', suspended_reason = 'unpaid' where slug = 'default'")
        .await;
    scene.fake.says(json!({}));
    assert_eq!(scene.arrive(&provider).await.problem(), "tenant.suspended");
    assert_eq!(scene.world.count("identity.users").await, 0);
    assert_eq!(scene.world.count("identity.user_sessions").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_account_is_not_taken_over_by_its_address(db: PgPool) {
    let scene = Scene::new(db).await;
    let jane = person(&scene.world, "Jane@acme.example", &["viewer"]).await;
    let provider = scene.provider(json!({})).await;
    assert_eq!(scene.arrive(&provider).await.problem(), "auth.identity_unknown", "the domain is nobody's");
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    scene.fake.says(json!({"email_verified": false}));
    assert_eq!(scene.arrive(&provider).await.problem(), "auth.identity_unknown", "the address is nobody's");
    scene.fake.says(json!({}));
    let me = scene.me(&scene.arrive(&provider).await).await;
    assert_eq!((&me["id"], &me["rights"]), (&json!(jane), &json!(["read"])), "linked, and no more than before");
    let by_password = post(&scene.world, "/v1/auth/sign-in", credentials("jane@acme.example", PASSWORD)).await;
    assert_eq!(by_password.status, StatusCode::OK, "the password is hers as before");

    // Somebody else gets her address: the provider calls them by another name.
    scene.fake.says(json!({"sub": "another"}));
    assert_eq!(scene.arrive(&provider).await.problem(), "auth.identity_unknown");
    assert_eq!(scene.world.count("identity.user_identities").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_address_that_stands_in_no_token_is_asked_for(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    let thin = |subject: &str| Mood {
        claims: json!({"email": null, "email_verified": null, "name": null}),
        described: json!({"userinfo_endpoint": format!("{}/userinfo", scene.fake.url())}),
        told_apart: json!({"sub": subject, "email": "jane@acme.example", "email_verified": true, "name": "Jane"}),
        ..Mood::default()
    };
    scene.fake.be(thin("another"));
    assert_eq!(scene.arrive(&provider).await.problem(), "auth.identity_unknown", "it is somebody else's");
    scene.fake.be(thin("248289761001"));
    let me = scene.me(&scene.arrive(&provider).await).await;
    assert_eq!((&me["email"], &me["display_name"]), (&json!("jane@acme.example"), &json!("Jane")));
}

#[sqlx::test(migrations = "../migrations")]
async fn who_registered_with_somebody_elses_address_does_not_keep_the_account(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    let body = json!({"email": "jane@acme.example", "password": OTHER});
    assert_eq!(post(&scene.world, "/v1/auth/register", body).await.status, StatusCode::ACCEPTED);
    let me = scene.me(&scene.arrive(&provider).await).await;
    assert_eq!((&me["email"], &me["rights"]), (&json!("jane@acme.example"), &json!(["edit", "read", "render"])));
    let squatter = post(&scene.world, "/v1/auth/sign-in", credentials("jane@acme.example", OTHER)).await;
    assert_eq!(squatter.problem(), "auth.credentials", "the password that was set before is gone");
}

#[sqlx::test(migrations = "../migrations")]
async fn an_owner_adds_the_login_themselves(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    let owner = scene.world.person(DEFAULT_TENANT, "jane@acme.example", &["owner"]).await;
    assert_eq!(scene.arrive(&provider).await.problem(), "auth.identity_unknown", "who sets providers up is below them");

    let access = scene.world.session(DEFAULT_TENANT, owner).await;
    let ask = async |method: Method, path: &str, body: Value| {
        scene.world.send(with_json(request(method, path, &access), &body)).await
    };
    let start = ask(Method::POST, "/v1/me/identities/start", json!({"provider": provider})).await;
    let way = scene.way_of(start).await;
    assert_eq!(scene.finish(&way).await.problem(), "auth.invalid", "it signs nobody in");
    let stranger = scene.world.person(DEFAULT_TENANT, "x@y.example", &["viewer"]).await;
    let theirs = scene.world.session(DEFAULT_TENANT, stranger).await;
    let path = "/v1/me/identities/finish";
    let stolen = scene.world.send(with_json(request(Method::POST, path, &theirs), &way.body())).await;
    assert_eq!(stolen.problem(), "auth.invalid", "only who began it");
    let added = ask(Method::POST, path, way.body()).await;
    assert_eq!(added.status, StatusCode::CREATED, "{:?}", added.body);
    assert_eq!(scene.me(&scene.arrive(&provider).await).await["id"], json!(owner));
    let listed = ask(Method::GET, "/v1/me/identities", json!({})).await.json();
    assert_eq!(listed["data"], json!([added.json()]));

    // Nobody else gets it, and nobody has two at a provider.
    let start = scene
        .world
        .send(with_json(request(Method::POST, "/v1/me/identities/start", &theirs), &json!({"provider": provider})));
    let way = scene.way_of(start.await).await;
    let twice = scene.world.send(with_json(request(Method::POST, path, &theirs), &way.body())).await;
    assert_eq!(twice.problem(), "identity.taken");

    let gone = format!("/v1/me/identities/{}", added.json()["id"].as_str().unwrap());
    let foreign = scene.world.send(with_json(request(Method::DELETE, &gone, &theirs), &json!({}))).await;
    assert_eq!(foreign.problem(), "identity.not_found");
    assert_eq!(ask(Method::DELETE, &gone, json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(scene.arrive(&provider).await.problem(), "auth.identity_unknown");
    scene.run("update identity.user_sessions set created_at = created_at - interval '11 minutes'").await;
    let late = ask(Method::POST, "/v1/me/identities/start", json!({"provider": provider})).await;
    assert_eq!(late.problem(), "auth.step_up");
}

/// A provider of one tenant is not there for the people of another, whom it would make theirs.
#[sqlx::test(migrations = "../migrations")]
async fn m2_nobody_adds_a_login_at_the_provider_of_another_tenant(db: PgPool) {
    let scene = Scene::new(db).await;
    let provider = scene.provider(json!({})).await;
    let other = scene.world.tenant("other").await;
    let stranger = scene.world.person(other, "jane@example.com", &["owner"]).await;
    let stranger = scene.world.session(other, stranger).await;
    let own = scene.world.person(DEFAULT_TENANT, "jane@example.com", &["owner"]).await;
    let own = scene.world.session(DEFAULT_TENANT, own).await;
    let start = async |access: &str, provider: &str| {
        let ask = request(Method::POST, "/v1/me/identities/start", access);
        scene.world.send(with_json(ask, &json!({ "provider": provider }))).await
    };
    let real = start(&stranger, &provider).await;
    let none = start(&stranger, &Uuid::now_v7().to_string()).await;
    assert_eq!(real.problem(), "identity_provider.not_found");
    assert_eq!(crate::attacks::plain(&real), crate::attacks::plain(&none));
    assert_eq!(scene.world.count("identity.openid_sign_ins").await, 0);
    assert_eq!(start(&own, &provider).await.status, StatusCode::OK, "it was the tenant alone");
}

/// Whoever has an account hears of each login that is added to it, by them or by their address, and of each that is removed.
#[sqlx::test(migrations = "../migrations")]
async fn a_person_is_told_by_mail_of_another_way_into_their_account(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.world.work();
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    let told = async |count| {
        let letters = crate::jane::letters(&scene.world, "jane@acme.example", count).await;
        assert_eq!(letters.iter().filter(|text| text.contains("your logins were changed")).count(), count);
    };
    let jane = scene.world.person(DEFAULT_TENANT, "jane@acme.example", &["viewer"]).await;
    assert_eq!(scene.me(&scene.arrive(&provider).await).await["id"], json!(jane));
    told(1).await;
    let access = scene.world.session(DEFAULT_TENANT, jane).await;
    let ask = async |method: Method, path: &str, body: Value| {
        scene.world.send(with_json(request(method, path, &access), &body)).await
    };
    let listed = ask(Method::GET, "/v1/me/identities", json!({})).await.json();
    let gone = format!("/v1/me/identities/{}", listed["data"][0]["id"].as_str().unwrap());
    assert_eq!(ask(Method::DELETE, &gone, json!({})).await.status, StatusCode::NO_CONTENT);
    told(2).await;
    let way = scene.way_of(ask(Method::POST, "/v1/me/identities/start", json!({ "provider": provider })).await).await;
    assert_eq!(ask(Method::POST, "/v1/me/identities/finish", way.body()).await.status, StatusCode::CREATED);
    told(3).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_way_back_is_good_once_in_time_and_for_its_browser(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    let over = async |way: &Way, why: &str| {
        let answer = scene.finish(way).await;
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), (401, "auth.invalid"), "{why}");
    };
    let way = scene.way(&provider).await;
    assert_eq!(scene.finish(&way).await.status, StatusCode::OK);
    over(&way, "used").await;
    // Somebody lays a code of theirs under another's browser, or the other way round.
    let (mine, theirs) = (scene.way(&provider).await, scene.way(&provider).await);
    over(&Way { state: theirs.state.clone(), ..mine.clone() }, "a state that is not this browser's").await;
    over(&mine, "which has used it up").await;
    let (mine, theirs) = (scene.way(&provider).await, scene.way(&provider).await);
    let swapped = scene.finish(&Way { code: theirs.code.clone(), ..mine }).await;
    assert_eq!(swapped.problem(), "auth.identity_refused", "the code belongs to another verifier");
    over(&Way { token: "fr_oi_0123456789012345678901234567890123456789".into(), ..theirs }, "unknown").await;

    let mut from_elsewhere = scene.way(&provider).await.body();
    from_elsewhere["iss"] = json!("https://login.evil.example");
    let mixed_up = post(&scene.world, "/v1/auth/openid/finish", from_elsewhere).await;
    assert_eq!(mixed_up.problem(), "auth.invalid", "another provider sent them back");

    let way = scene.way(&provider).await;
    pass(&scene.world, 601).await;
    over(&way, "too old").await;
    // The provider's clock did not move.
    scene.fake.says(json!({"exp": chrono::Utc::now().timestamp() + 7200}));
    let sessions = scene.world.count("identity.user_sessions").await;
    let way = scene.way(&provider).await;
    let answers = futures::future::join_all((0..8).map(|_| scene.finish(&way))).await;
    assert_eq!(answers.iter().filter(|a| a.status == StatusCode::OK).count(), 1, "of eight at once one comes in");
    assert!(answers.iter().filter(|a| a.status != StatusCode::OK).all(|a| a.problem() == "auth.invalid"));
    assert_eq!(scene.world.count("identity.user_sessions").await, sessions + 1);

    // Nothing of it that could be shown stands in the database, and what is over is forgotten.
    let way = scene.way(&provider).await;
    let sql = "select string_agg(t::text, ' ') from identity.openid_sign_ins t";
    let kept: String = sqlx::query_scalar(sql).fetch_one(&scene.world.db).await.unwrap();
    assert!(![&way.token, &way.state, SECRET].iter().any(|secret| kept.contains(*secret)));
    pass(&scene.world, 86_400 + 601).await;
    let mut db = scene.world.db.acquire().await.unwrap();
    assert!(openid_sign_in::forget_old(&mut db).await.unwrap() > 5);
    assert_eq!(scene.world.count("identity.openid_sign_ins").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn two_who_are_the_same_new_person_are_one(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    let mut ways = vec![];
    for _ in 0..4 {
        ways.push(scene.way(&provider).await);
    }
    let answers = futures::future::join_all(ways.iter().map(|way| scene.finish(way))).await;
    assert!(answers.iter().all(|answer| answer.status == StatusCode::OK), "{answers:?}");
    assert_eq!(scene.world.count("identity.users").await, 1);
    assert_eq!(scene.world.count("identity.user_identities").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn who_may_not_sign_in_does_not_by_a_provider(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    let path = format!("/v1/identity-providers/{provider}");
    assert_eq!(scene.arrive(&provider).await.status, StatusCode::OK);
    let on_the_way = scene.way(&provider).await;
    assert_eq!(scene.send(Method::PATCH, &path, json!({"enabled": false})).await.json()["enabled"], false);
    assert_eq!(scene.finish(&on_the_way).await.problem(), "identity_provider.not_found", "also for who was there");
    let start = async || post(&scene.world, "/v1/auth/openid/start", json!({"provider": provider})).await;
    assert_eq!(start().await.problem(), "identity_provider.not_found");
    scene.send(Method::PATCH, &path, json!({"enabled": true})).await;

    scene.run("update identity.users set status = 'disabled'").await;
    assert_eq!(scene.arrive(&provider).await.problem(), "auth.forbidden");
    scene.run("update identity.users set status = 'active'").await;
    // As with a password: a suspended tenant reads, and does nothing else.
    scene
        .run("update identity.tenants set status = 'suspended', suspended_reason = 'unpaid' where slug = 'default'")
        .await;
    let known = scene.arrive(&provider).await;
    assert_eq!(known.status, StatusCode::OK, "{:?}", known.body);
    let access = known.json()["access_token"].as_str().unwrap().to_owned();
    let ask = async |method: Method, path: &str, body: Value| {
        scene.world.send(with_json(request(method, path, &access), &body)).await
    };
    assert_eq!(ask(Method::GET, "/v1/renders", json!({})).await.status, StatusCode::OK);
    assert_eq!(ask(Method::POST, "/v1/renders", crate::world::order()).await.problem(), "tenant.suspended");

    let other = scene.world.tenant("other").await;
    scene.run("delete from identity.openid_sign_ins").await;
    sqlx::query("update identity.tenant_identity_providers set tenant_id = $1")
        .bind(other)
        .execute(&scene.world.db)
        .await
        .unwrap();
    assert_eq!(start().await.status, StatusCode::OK);
    scene.run("update identity.tenants set status = 'closed', closed_at = now() where slug = 'other'").await;
    assert_eq!(start().await.problem(), "identity_provider.not_found");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_second_factor_is_asked_for_unless_the_provider_saw_several(db: PgPool) {
    let scene = Scene::new(db).await;
    let jane = crate::jane::jane(&scene.world, &["editor"]).await;
    let (secret, _) = jane.with_factor().await;
    scene.proven(DEFAULT_TENANT, "example.com").await;
    let provider = scene.provider(json!({})).await;
    let hers = json!({"email": "jane@example.com", "amr": ["pwd"]});
    scene.fake.says(hers.clone());
    let first = scene.arrive(&provider).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{:?}", first.body);
    let code = crate::jane::code(&scene.world, &secret, 1).await;
    let second = json!({"challenge": first.json()["challenge"], "code": code});
    let second = post(&scene.world, "/v1/auth/second-step", second).await;
    assert_eq!(scene.me(&second).await["id"], json!(jane.id));

    let mut several = hers;
    several["amr"] = json!(["pwd", "otp", "mfa"]);
    scene.fake.says(several);
    assert_eq!(scene.me(&scene.arrive(&provider).await).await["id"], json!(jane.id));
    let sql = "select auth_level = 2 and mfa_at is not null from identity.user_sessions order by created_at desc, id desc limit 1";
    assert!(sqlx::query_scalar::<_, bool>(sql).fetch_one(&scene.world.db).await.unwrap());
}

#[sqlx::test(migrations = "../migrations")]
async fn who_has_a_passkey_shows_it_after_the_provider(db: PgPool) {
    let scene = Scene::new(db).await;
    let jane = crate::jane::jane(&scene.world, &["editor"]).await;
    let (mut key, ..) = crate::webauthn::with_passkey(&jane).await;
    // It was begun and never confirmed: nobody is asked for its codes.
    jane.post("/v1/me/factors/totp", json!({"label": "Phone"})).await;
    scene.proven(DEFAULT_TENANT, "example.com").await;
    let provider = scene.provider(json!({})).await;
    scene.fake.says(json!({"email": "jane@example.com", "amr": ["pwd"]}));
    let first = scene.arrive(&provider).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{:?}", first.body);
    let first = first.json();
    assert_eq!(first["factors"], json!(["webauthn", "recovery_code"]));
    let mut elsewhere = key.clone();
    elsewhere.origin = "https://login.acme.example".into();
    let shown = json!({"challenge": first["challenge"], "credential": elsewhere.sign(&first["webauthn"])});
    assert_eq!(post(&scene.world, "/v1/auth/second-step", shown).await.problem(), "auth.passkey", "at another page");
    let first = scene.arrive(&provider).await.json();
    let shown = json!({"challenge": first["challenge"], "credential": key.sign(&first["webauthn"])});
    let second = post(&scene.world, "/v1/auth/second-step", shown).await;
    assert_eq!(scene.me(&second).await["id"], json!(jane.id));
    let sql = "select auth_level = 2 and mfa_at is not null from identity.user_sessions order by created_at desc, id desc limit 1";
    assert!(sqlx::query_scalar::<_, bool>(sql).fetch_one(&scene.world.db).await.unwrap());
}

#[sqlx::test(migrations = "../migrations")]
async fn people_come_back_to_a_host_that_is_proven_and_to_no_other(db: PgPool) {
    let scene = Scene::new(db).await;
    let other = scene.world.tenant("other").await;
    scene.proven(DEFAULT_TENANT, "films.acme.example").await;
    scene.proven(other, "films.other.example").await;
    let provider = scene.provider(json!({})).await;
    for (host, back) in [
        ("films.acme.example:443", "https://films.acme.example/account/openid"),
        ("films.other.example", "https://films.example/account/openid"),
        ("evil.example", "https://films.example/account/openid"),
    ] {
        let ask = Request::builder().method(Method::POST).uri("/v1/auth/openid/start").header(header::HOST, host);
        let answer = scene.world.send(with_json(ask, &json!({"provider": provider}))).await;
        let url = reqwest::Url::parse(answer.json()["authorization_url"].as_str().unwrap()).unwrap();
        let redirect = url.query_pairs().find(|(name, _)| name == "redirect_uri").unwrap().1.into_owned();
        assert_eq!(redirect, back, "{host}");
    }
    let path = format!("/v1/identity-providers/{provider}");
    assert_eq!(
        scene.send(Method::GET, &path, json!({})).await.json()["redirect_uris"],
        json!(["https://films.example/account/openid", "https://films.acme.example/account/openid"])
    );
    let choices = async |query: &str| {
        let ask = Request::builder().uri(format!("/v1/auth/openid{query}")).body(Body::empty()).unwrap();
        scene.world.send(ask).await
    };
    let listed = choices("?tenant=default").await.json();
    assert_eq!(listed["data"], json!([{"id": provider, "object": "identity_provider", "name": "Acme"}]));
    assert_eq!(choices("?tenant=other").await.json()["data"], json!([]));
    assert_eq!(choices("?tenant=nobody").await.problem(), "tenant.not_found");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_seat_is_taken_only_where_one_is_left(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    scene.run("insert into identity.tenant_limits (tenant_id, name, hard) select id, 'seats', 0 from identity.tenants where slug = 'default'").await;
    assert_eq!(scene.arrive(&provider).await.problem(), "quota.seats");
    assert_eq!(scene.world.count("identity.users").await, 0);
    let mut db = scene.world.db.acquire().await.unwrap();
    assert_eq!(user::by_email(&mut db, DEFAULT_TENANT, "jane@acme.example").await.unwrap(), None);
}
