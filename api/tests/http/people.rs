//! People: registering, signing in, sessions, passwords, and those who try to get in.

use crate::{
    jane::{Jane, OTHER, PASSWORD, credentials, jane, letters, link, pass, person, post, post_from},
    world::{World, request},
};
use axum::{
    body::Body,
    extract::ConnectInfo,
    http::{Method, Request, StatusCode},
};
use flatrender_api::platform::owner::{self, NewOwner};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope,
    identity::{auth_challenge, role_binding},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{net::SocketAddr, time::Duration};
use uuid::Uuid;

#[sqlx::test(migrations = "../migrations")]
async fn who_registers_again_while_the_address_is_proven_does_not_get_the_account(db: PgPool) {
    let world = World::new(db).await;
    let of = |password: &str| json!({ "email": "jane@example.com", "password": password, "display_name": "Jane" });
    assert_eq!(post(&world, "/v1/auth/register", of(PASSWORD)).await.status, StatusCode::ACCEPTED);
    let link = json!({ "token": link(&world, "verify_email").await, "password": PASSWORD });
    let mut kept = world.db.begin().await.unwrap();
    sqlx::query("select from identity.user_credentials for update").execute(&mut *kept).await.unwrap();
    let waiting = async |count: i64| {
        let sql =
            "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        while sqlx::query_scalar::<_, i64>(sql).fetch_one(&world.db).await.unwrap() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let prove = async {
        // The stranger knows the account as unproven, and is about to write their password.
        waiting(1).await;
        let proof = post(&world, "/v1/auth/verify-email", link);
        tokio::pin!(proof);
        let early = tokio::select! {
            proven = &mut proof => Some(proven),
            () = waiting(2) => None,
        };
        kept.rollback().await.unwrap();
        match early {
            Some(proven) => proven,
            None => proof.await,
        }
    };
    let (again, proven) = tokio::join!(post(&world, "/v1/auth/register", of(OTHER)), prove);
    assert_eq!(again.status, StatusCode::ACCEPTED);
    let strangers = post(&world, "/v1/auth/sign-in", credentials("jane@example.com", OTHER)).await;
    assert_eq!(strangers.problem(), "auth.email_unproven");
    assert_eq!(proven.problem(), "link.invalid", "there is a newer one");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_person_registers_proves_their_address_and_signs_in(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let body = json!({ "email": "jane@example.com", "password": PASSWORD, "display_name": "Jane", "locale": "en-GB" });
    let registered = post(&world, "/v1/auth/register", body).await;
    assert_eq!(registered.status, StatusCode::ACCEPTED, "{:?}", registered.body);
    let early = post(&world, "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await;
    assert_eq!((early.status, early.problem().as_str()), (StatusCode::FORBIDDEN, "auth.email_unproven"));

    let letter = letters(&world, "jane@example.com", 1).await.remove(0);
    let start = letter.find("https://films.example/account/verify-email#").expect("a link");
    let token: String = letter[start..].split('#').nth(1).unwrap().chars().take("fr_ln_".len() + 64).collect();
    let stranger = post(&world, "/v1/auth/verify-email", json!({ "token": token, "password": OTHER })).await;
    assert_eq!(stranger.problem(), "auth.credentials", "the link alone does not open what another registered");
    let verify = json!({ "token": token, "password": PASSWORD });
    assert_eq!(post(&world, "/v1/auth/verify-email", verify.clone()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(post(&world, "/v1/auth/verify-email", verify).await.problem(), "link.invalid");

    let signed = post(&world, "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await;
    assert_eq!(signed.status, StatusCode::OK, "{:?}", signed.body);
    assert_eq!(signed.header("cache-control"), "no-store");
    let access = signed.json()["access_token"].as_str().unwrap().to_owned();
    let me = world.send(request(Method::GET, "/v1/me", &access).body(Body::empty()).unwrap()).await.json();
    assert_eq!((&me["email"], &me["locale"], &me["rights"]), (&json!("jane@example.com"), &json!("en-GB"), &json!([])));
    let stored: i64 = sqlx::query_scalar("select count(*) from workflow.runs where input::text like '%fr_ln_%'")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert_eq!(stored, 0, "no link stands in the input of a run");
}

#[sqlx::test(migrations = "../migrations")]
async fn an_address_that_is_taken_gets_the_same_answer_and_another_letter(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    person(&world, "jane@example.com", &[]).await;
    let taken = post(&world, "/v1/auth/register", credentials("JANE@example.com", OTHER)).await;
    let new = post(&world, "/v1/auth/register", credentials("joe@example.com", OTHER)).await;
    assert_eq!((taken.status, taken.body), (new.status, new.body));
    assert!(letters(&world, "jane@example.com", 1).await[0].contains("you already have an account"));
    let old = post(&world, "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await;
    assert_eq!(old.status, StatusCode::OK, "the password is the old one");
    let (known, unknown) = ("jane@example.com", "nobody@example.com");
    let forgot = async |email: &str| post(&world, "/v1/auth/forgot-password", json!({ "email": email })).await;
    let (a, b) = (forgot(known).await, forgot(unknown).await);
    assert_eq!((a.status, a.body), (b.status, b.body));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_wrong_address_a_wrong_password_and_a_wrong_tenant_look_alike(db: PgPool) {
    let world = World::new(db).await;
    person(&world, "jane@example.com", &[]).await;
    let mut answers = vec![];
    for (tenant, email, password) in [
        ("default", "jane@example.com", OTHER),
        ("default", "nobody@example.com", PASSWORD),
        ("nosuch", "jane@example.com", PASSWORD),
        ("default", "not an address", PASSWORD),
    ] {
        let body = json!({ "tenant": tenant, "email": email, "password": password });
        let answer = post(&world, "/v1/auth/sign-in", body).await;
        assert_eq!((answer.status, answer.problem().as_str()), (StatusCode::UNAUTHORIZED, "auth.credentials"));
        let mut json = answer.json();
        json["instance"].take();
        answers.push(json);
    }
    assert!(answers.windows(2).all(|pair| pair[0] == pair[1]));
}

#[sqlx::test(migrations = "../migrations")]
async fn bad_input_is_refused_field_by_field(db: PgPool) {
    let world = World::new(db).await;
    let faults = async |body: Value| post(&world, "/v1/auth/register", body).await.faults();
    assert_eq!(faults(credentials("nonsense", PASSWORD)).await, ["/email email.invalid"]);
    assert_eq!(faults(credentials("a@b.c", "short")).await, ["/password password.too_short"]);
    assert_eq!(faults(credentials("jane.doe@b.c", "jane.doe jane.doe 1")).await, ["/password password.guessable"]);
    let more = json!({ "email": "a@b.c", "password": PASSWORD, "locale": "klingon language" });
    assert_eq!(faults(more).await, ["/locale locale.invalid"]);
    let assigned =
        json!({ "email": "a@b.c", "password": PASSWORD, "is_platform_staff": true, "tenant_id": Uuid::nil() });
    assert_eq!(post(&world, "/v1/auth/register", assigned).await.status, StatusCode::UNPROCESSABLE_ENTITY);
    sqlx::query("update identity.tenants set settings = '{\"registration\": \"closed\"}'")
        .execute(&world.db)
        .await
        .unwrap();
    let closed = post(&world, "/v1/auth/register", credentials("a@b.c", PASSWORD)).await;
    assert_eq!(closed.problem(), "account.registration_closed");
    assert_eq!(world.count("identity.users").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_refresh_token_is_good_once_and_a_copy_ends_the_session(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let next = post(&world, "/v1/auth/refresh", json!({ "refresh_token": jane.refresh })).await;
    assert_eq!(next.status, StatusCode::OK);
    assert_eq!(jane.get("/v1/me").await.problem(), "auth.invalid", "the old access token is no longer good");
    let access = next.json()["access_token"].as_str().unwrap().to_owned();
    let me = async || world.send(request(Method::GET, "/v1/me", &access).body(Body::empty()).unwrap()).await.status;
    assert_eq!(me().await, StatusCode::OK);
    let copy = post(&world, "/v1/auth/refresh", json!({ "refresh_token": jane.refresh })).await;
    assert_eq!(copy.problem(), "auth.invalid");
    assert_eq!(me().await, StatusCode::UNAUTHORIZED, "whoever has the next pair is signed out, too");
    let last = json!({ "refresh_token": next.json()["refresh_token"] });
    assert_eq!(post(&world, "/v1/auth/refresh", last).await.problem(), "auth.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn of_fifty_who_show_a_refresh_token_at_once_one_gets_the_next(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let body = json!({ "refresh_token": jane.refresh });
    let tries = (0..50).map(|_| post(&world, "/v1/auth/refresh", body.clone()));
    let answers = futures::future::join_all(tries).await;
    assert_eq!(answers.iter().filter(|a| a.status == StatusCode::OK).count(), 1);
    assert_eq!(world.count("identity.user_sessions where revoked_at is not null").await, 1);
    assert_eq!(world.count("identity.refresh_tokens").await, 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn access_tokens_end_after_ten_minutes_and_sessions_when_nobody_uses_them(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    pass(&world, 599).await;
    assert_eq!(jane.get("/v1/me").await.status, StatusCode::OK);
    pass(&world, 2).await;
    assert_eq!(jane.get("/v1/me").await.problem(), "auth.invalid");
    pass(&world, 15 * 86_400).await;
    let refresh = post(&world, "/v1/auth/refresh", json!({ "refresh_token": jane.refresh })).await;
    assert_eq!(refresh.problem(), "auth.invalid");
}

/// Tokens that look like something. None is: access tokens carry nothing that could be forged.
fn forged(good: &str) -> Vec<String> {
    let mut forms = vec![];
    for head in [
        "eyJhbGciOiJub25lIn0",
        "eyJhbGciOiJIUzI1NiIsInR5cCI6ImF0K2p3dCJ9",
        "eyJhbGciOiJFZERTQSIsImtpZCI6Ii4uLy4uL2V0Yy9wYXNzd2QifQ",
        "eyJhbGciOiJFZERTQSIsImtpZCI6Iicgb3IgMT0xIC0tIn0",
        "eyJhbGciOiJSUzI1NiIsImprdSI6Imh0dHA6Ly8xMjcuMC4wLjEvIn0",
        "eyJhbGciOiJSUzI1NiIsIng1dSI6Imh0dHA6Ly8xMjcuMC4wLjEvIn0",
        "eyJhbGciOiJFZERTQSIsImNyaXQiOlsiZXhwIl19",
        "eyJhbGciOiJkaXIiLCJlbmMiOiJBMjU2R0NNIiwiemlwIjoiREVGIn0",
    ] {
        for tail in ["e30.", "e30.AAAA", "eyJzdWIiOiIxIn0.", "..", "e30", "e30.AAAA.AAAA.AAAA"] {
            forms.push(format!("{head}.{tail}"));
        }
    }
    let (kind, rest) = good.split_at("fr_at_".len());
    forms.extend([
        kind.to_owned(),
        rest.to_owned(),
        format!("{good}A"),
        good[..good.len() - 1].to_owned(),
        good.to_uppercase(),
        format!("{kind}{}", "A".repeat(rest.len())),
        format!("fr_rt_{rest}"),
        format!("fr_live_{rest}"),
        format!("{kind}' or 1=1 --"),
        format!("{kind}%00"),
        format!("{good},{good}"),
        format!("{good} {good}"),
        "a".repeat(1 << 20),
        format!("{kind}{}", "a".repeat(400)),
        "null".into(),
        "undefined".into(),
        "Bearer".into(),
    ]);
    forms
}

#[sqlx::test(migrations = "../migrations")]
async fn no_forged_token_opens_anything(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &["owner"]).await;
    let forms = forged(&jane.access);
    assert!(forms.len() >= 60, "{}", forms.len());
    for (i, form) in forms.iter().enumerate() {
        // Each from another address: it is the token that is refused, not the number of tries.
        let peer: SocketAddr = format!("192.0.2.{i}:1234").parse().unwrap();
        for path in ["/v1/me", "/v1/renders"] {
            let request = request(Method::GET, path, form).extension(ConnectInfo(peer)).body(Body::empty()).unwrap();
            let answer = world.send(request).await;
            assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{path} {:.80} {:?}", form, answer.body);
        }
    }
    assert_eq!(jane.get("/v1/me").await.status, StatusCode::OK);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_somebody_may_do_follows_their_roles_at_once(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let order = json!({ "template": "nosuch" });
    assert_eq!(jane.get("/v1/renders").await.problem(), "auth.forbidden");
    let role = async |role: &str| {
        let mut db = world.db.acquire().await.unwrap();
        sqlx::query("delete from identity.role_bindings").execute(&mut *db).await.unwrap();
        role_binding::grant(&mut db, DEFAULT_TENANT, jane.id, role, None).await.unwrap();
    };
    role("viewer").await;
    assert_eq!(jane.get("/v1/renders").await.status, StatusCode::OK);
    assert_eq!(jane.post("/v1/renders", order.clone()).await.problem(), "auth.forbidden");
    role("editor").await;
    assert_eq!(jane.post("/v1/renders", order.clone()).await.problem(), "template.unknown");
    // A role of the platform counts for its staff only.
    role("platform_admin").await;
    assert_eq!(jane.get("/v1/me").await.json()["rights"], json!([]));
    role("editor").await;
    sqlx::query("update identity.tenants set status = 'suspended', suspended_reason = 'unpaid'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(jane.get("/v1/renders").await.status, StatusCode::OK, "a suspended tenant reads");
    assert_eq!(jane.post("/v1/renders", order).await.problem(), "tenant.suspended");
    sqlx::query("update identity.users set status = 'disabled'").execute(&world.db).await.unwrap();
    assert_eq!(jane.get("/v1/renders").await.problem(), "auth.invalid");
    assert_eq!(
        post(&world, "/v1/auth/refresh", json!({ "refresh_token": jane.refresh })).await.problem(),
        "auth.invalid"
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn sessions_are_listed_and_ended_by_their_owner_only(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    post(&world, "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await;
    person(&world, "joe@example.com", &[]).await;
    let joe = post(&world, "/v1/auth/sign-in", credentials("joe@example.com", PASSWORD)).await.json();
    let list = jane.get("/v1/me/sessions").await.json();
    let sessions = list["data"].as_array().unwrap();
    assert_eq!(sessions.len(), 2);
    assert_eq!(sessions.iter().filter(|s| s["current"] == true).count(), 1);
    let theirs = format!("/v1/me/sessions/{}", joe["session_id"].as_str().unwrap());
    assert_eq!(jane.delete(&theirs).await.problem(), "session.not_found");
    let other = sessions.iter().find(|s| s["current"] == false).unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(jane.delete(&format!("/v1/me/sessions/{other}")).await.status, StatusCode::NO_CONTENT);
    assert_eq!(jane.delete(&format!("/v1/me/sessions/{other}")).await.problem(), "session.not_found");
    assert_eq!(jane.post("/v1/auth/sign-out", json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(jane.get("/v1/me").await.problem(), "auth.invalid");
    let refresh = post(&world, "/v1/auth/refresh", json!({ "refresh_token": jane.refresh })).await;
    assert_eq!(refresh.problem(), "auth.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_password_is_reset_once_by_a_link_and_every_session_ends(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    post(&world, "/v1/auth/forgot-password", json!({ "email": "jane@example.com" })).await;
    let first = link(&world, "reset").await;
    post(&world, "/v1/auth/forgot-password", json!({ "email": "jane@example.com" })).await;
    let second = link(&world, "reset").await;
    let reset = async |token: &str, password: &str| {
        post(&world, "/v1/auth/reset-password", json!({ "token": token, "password": password })).await
    };
    assert_eq!(reset(&first, OTHER).await.problem(), "link.invalid", "a newer link replaces it");
    assert_eq!(reset(&second, "short").await.faults(), ["/password password.too_short"]);
    let (a, b) = tokio::join!(reset(&second, OTHER), reset(&second, OTHER));
    assert_eq!([a.status, b.status].iter().filter(|s| **s == StatusCode::NO_CONTENT).count(), 1);
    assert_eq!(jane.get("/v1/me").await.problem(), "auth.invalid");
    let sign_in = async |password| post(&world, "/v1/auth/sign-in", credentials("jane@example.com", password)).await;
    assert_eq!(sign_in(PASSWORD).await.problem(), "auth.credentials");
    assert_eq!(sign_in(OTHER).await.status, StatusCode::OK);
    post(&world, "/v1/auth/forgot-password", json!({ "email": "jane@example.com" })).await;
    let late = link(&world, "reset").await;
    pass(&world, 3601).await;
    assert_eq!(reset(&late, PASSWORD).await.problem(), "link.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_link_that_becomes_worthless_while_it_is_used_does_not_lock_anybody_up(db: PgPool) {
    let world = World::new(db).await;
    jane(&world, &[]).await;
    post(&world, "/v1/auth/forgot-password", json!({ "email": "jane@example.com" })).await;
    let reset = json!({ "token": link(&world, "reset").await, "password": OTHER });
    // As whoever proves another address does: the person first, then the links that went to the old one.
    let mut proof = world.db.begin().await.unwrap();
    sqlx::query("select from identity.users for no key update").execute(&mut *proof).await.unwrap();
    let withdraw = async {
        let waiting = "select count(*) from pg_locks where not granted";
        while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&world.db).await.unwrap() == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        sqlx::query("update identity.auth_challenges set consumed_at = workflow.now() where kind = 'reset'")
            .execute(&mut *proof)
            .await
            .unwrap();
        proof.commit().await.unwrap();
    };
    let (answer, ()) = tokio::join!(post(&world, "/v1/auth/reset-password", reset), withdraw);
    assert_eq!(answer.problem(), "link.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn what_people_do_to_their_accounts_is_written_down(db: PgPool) {
    let world = World::new(db).await;
    let first = jane(&world, &[]).await;
    let second = post(&world, "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await.json();
    let ended = second["session_id"].as_str().unwrap();
    assert_eq!(first.delete(&format!("/v1/me/sessions/{ended}")).await.status, StatusCode::NO_CONTENT);
    let change = json!({ "current": PASSWORD, "new": OTHER });
    assert_eq!(first.post("/v1/me/password", change).await.status, StatusCode::NO_CONTENT);
    post(&world, "/v1/auth/forgot-password", json!({ "email": "jane@example.com" })).await;
    let reset = json!({ "token": link(&world, "reset").await, "password": PASSWORD });
    assert_eq!(post(&world, "/v1/auth/reset-password", reset).await.status, StatusCode::NO_CONTENT);
    let written: Vec<String> = sqlx::query_scalar(
        "select replace(l.action || ' ' || l.object, u.id::text, 'jane') from identity.audit_log l join identity.users u
         on l.actor = 'user:' || u.id order by seq",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert_eq!(
        written,
        [format!("session.revoke session:{ended}").as_str(), "password.change user:jane", "password.reset user:jane"]
    );
}

#[sqlx::test(migrations = "../migrations")]
async fn links_that_are_no_longer_good_are_forgotten_after_a_week(db: PgPool) {
    let world = World::new(db).await;
    jane(&world, &[]).await;
    post(&world, "/v1/auth/forgot-password", json!({ "email": "jane@example.com" })).await;
    let forget = async || {
        let mut tx = Scope::platform(Role::Identity).begin(&world.db).await.unwrap();
        let gone = auth_challenge::forget_old(&mut tx).await.unwrap();
        tx.commit().await.unwrap();
        gone
    };
    let all = world.count("identity.auth_challenges").await;
    pass(&world, 6 * 86_400).await;
    assert_eq!(forget().await, 0);
    pass(&world, 4 * 86_400).await;
    assert_eq!((forget().await as i64, world.count("identity.auth_challenges").await), (all, 0));
}

#[sqlx::test(migrations = "../migrations")]
async fn links_lead_where_the_configuration_says_whatever_the_request_claims(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    person(&world, "jane@example.com", &[]).await;
    let body = json!({ "email": "jane@example.com" }).to_string();
    let request = Request::builder().method(Method::POST).uri("/v1/auth/forgot-password");
    let request = request.header("content-type", "application/json").header("host", "evil.example");
    let request = request.header("x-forwarded-host", "evil.example").header("forwarded", "host=evil.example");
    assert_eq!(world.send(request.body(Body::from(body)).unwrap()).await.status, StatusCode::ACCEPTED);
    let letter = letters(&world, "jane@example.com", 1).await.remove(0);
    assert!(letter.contains("https://films.example/account/reset-password#") && !letter.contains("evil"), "{letter}");
}

#[sqlx::test(migrations = "../migrations")]
async fn another_address_counts_once_it_is_proven_and_old_links_no_longer(db: PgPool) {
    let world = World::new(db).await;
    world.work();
    let jane = jane(&world, &[]).await;
    post(&world, "/v1/auth/forgot-password", json!({ "email": "jane@example.com" })).await;
    let reset = link(&world, "reset").await;
    let asked = jane.post("/v1/me/email", json!({ "email": "jane@new.example" })).await;
    assert_eq!(asked.status, StatusCode::ACCEPTED, "{:?}", asked.body);
    assert_eq!(jane.get("/v1/me").await.json()["email"], "jane@example.com");
    let token = link(&world, "verify_email").await;
    assert_eq!(post(&world, "/v1/auth/verify-email", json!({ "token": token })).await.status, StatusCode::NO_CONTENT);
    assert_eq!(jane.get("/v1/me").await.json()["email"], "jane@new.example");
    let old = post(&world, "/v1/auth/reset-password", json!({ "token": reset, "password": OTHER })).await;
    assert_eq!(old.problem(), "link.invalid");
    assert!(letters(&world, "jane@example.com", 2).await.iter().any(|text| text.contains("jane@new.example")));
    pass(&world, 601).await;
    let next = post(&world, "/v1/auth/refresh", json!({ "refresh_token": jane.refresh })).await.json();
    let jane = Jane { access: next["access_token"].as_str().unwrap().to_owned(), ..jane };
    let stale = jane.post("/v1/me/email", json!({ "email": "other@new.example" })).await;
    assert_eq!(stale.problem(), "auth.step_up", "a screen that was left open");
    let proof = json!({ "password": PASSWORD });
    assert_eq!(jane.post("/v1/auth/step-up", proof).await.status, StatusCode::NO_CONTENT);
    person(&world, "other@new.example", &[]).await;
    assert_eq!(jane.post("/v1/me/email", json!({ "email": "other@new.example" })).await.status, StatusCode::ACCEPTED);
    let taken = link(&world, "verify_email").await;
    let answer = post(&world, "/v1/auth/verify-email", json!({ "token": taken })).await;
    assert_eq!(answer.problem(), "account.email_taken");
}

/// Somebody who was in the account for a moment and asked for another address does not get the account by the link that comes there
/// once its person has set another password.
#[sqlx::test(migrations = "../migrations")]
async fn another_password_makes_every_link_and_half_sign_in_worthless(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let change = async || {
        let asked = jane.post("/v1/me/email", json!({ "email": "mallory@evil.example" })).await;
        assert_eq!(asked.status, StatusCode::ACCEPTED, "{:?}", asked.body);
        link(&world, "verify_email").await
    };
    let prove = async |token: String| post(&world, "/v1/auth/verify-email", json!({ "token": token })).await.problem();
    let asked = change().await;
    let body = json!({ "current": PASSWORD, "new": OTHER });
    assert_eq!(jane.post("/v1/me/password", body).await.status, StatusCode::NO_CONTENT);
    assert_eq!(prove(asked).await, "link.invalid", "after a change");
    let (asked, (_, recovery)) = (change().await, jane.with_factor().await);
    let half = post(&world, "/v1/auth/sign-in", credentials("jane@example.com", OTHER)).await.json();
    post(&world, "/v1/auth/forgot-password", json!({ "email": "jane@example.com" })).await;
    let reset = link(&world, "reset").await;
    let reset = async |password: &str| {
        post(&world, "/v1/auth/reset-password", json!({ "token": reset, "password": password })).await
    };
    assert_eq!(reset("jane@example.com 1").await.faults(), ["/password password.guessable"], "who she is");
    assert_eq!(reset(PASSWORD).await.status, StatusCode::NO_CONTENT);
    assert_eq!(prove(asked).await, "link.invalid", "after a reset");
    let second = json!({ "challenge": half["challenge"], "code": recovery[0] });
    assert_eq!(
        post(&world, "/v1/auth/second-step", second).await.problem(),
        "auth.invalid",
        "begun with the old password"
    );
    assert_eq!(world.count("identity.users where email = 'jane@example.com'").await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn guesses_are_slowed_down_without_locking_the_person_out(db: PgPool) {
    let world = World::new(db).await;
    person(&world, "jane@example.com", &[]).await;
    let from = async |address: &str, password: &str| {
        post_from(&world, address, "/v1/auth/sign-in", credentials("jane@example.com", password)).await
    };
    assert_eq!(from("198.51.100.1", PASSWORD).await.status, StatusCode::OK);
    for _ in 0..6 {
        assert_eq!(from("203.0.113.1", OTHER).await.problem(), "auth.credentials");
    }
    let slowed = from("203.0.113.1", PASSWORD).await;
    assert_eq!((slowed.status, slowed.problem().as_str()), (StatusCode::TOO_MANY_REQUESTS, "auth.throttled"));
    assert!(slowed.header("retry-after").parse::<u64>().unwrap() > 0);
    pass(&world, 60).await;
    assert_eq!(from("203.0.113.1", PASSWORD).await.status, StatusCode::OK, "the pause is over");
    // Many strangers: the account itself is slowed for those who are new, not for who has been here before.
    for i in 0..110 {
        from(&format!("192.0.2.{i}"), OTHER).await;
    }
    assert_eq!(from("192.0.2.200", PASSWORD).await.problem(), "auth.throttled");
    let made_up = json!({ "email": "jane@example.com", "password": PASSWORD, "code": "123456" });
    let answer = post_from(&world, "192.0.2.201", "/v1/auth/sign-in", made_up).await;
    assert_eq!(answer.problem(), "auth.throttled", "a code that is none opens no way around");
    assert_eq!(from("198.51.100.1", PASSWORD).await.status, StatusCode::OK);
    let row: String = sqlx::query_scalar("select string_agg(key, ' ') from identity.auth_throttle")
        .fetch_one(&world.db)
        .await
        .unwrap();
    assert!(!row.contains("jane") && !row.contains("192.0.2"), "hashed: {row}");
}

#[sqlx::test(migrations = "../migrations")]
async fn an_owner_is_made_by_hand_without_a_password(db: PgPool) {
    let world = World::new(db).await;
    let new = |email, tenant, platform_admin| NewOwner { email, name: "Olga", tenant, platform_admin };
    let token = owner::create_owner(&world.db, new("olga@example.com", "default", true)).await.unwrap();
    let none = post(&world, "/v1/auth/sign-in", credentials("olga@example.com", "")).await;
    assert_eq!(none.problem(), "auth.credentials");
    let body = json!({ "token": token.reveal(), "password": PASSWORD });
    assert_eq!(post(&world, "/v1/auth/reset-password", body).await.status, StatusCode::NO_CONTENT);
    let signed = post(&world, "/v1/auth/sign-in", credentials("olga@example.com", PASSWORD)).await.json();
    let access = signed["access_token"].as_str().unwrap();
    let me = world.send(request(Method::GET, "/v1/me", access).body(Body::empty()).unwrap()).await.json();
    let rights: Vec<&str> = me["rights"].as_array().unwrap().iter().map(|r| r.as_str().unwrap()).collect();
    assert!(["close", "manage", "operate", "administer"].iter().all(|r| rights.contains(r)), "{rights:?}");
    assert_eq!(world.count("identity.audit_log where action = 'owner.create'").await, 1);
    for (email, tenant, platform) in [("nonsense", "default", false), ("a@b.c", "nosuch", false)] {
        assert!(owner::create_owner(&world.db, new(email, tenant, platform)).await.is_err());
    }
    world.stranger().await;
    assert!(owner::create_owner(&world.db, new("a@b.c", "stranger", true)).await.is_err());
}
