//! Passkeys: added, asked for at sign-in and before what is dangerous, and good once, here, for one person.

use crate::{
    authenticator::{AAGUID, Authenticator, PRESENT, VERIFIED, encoded},
    jane::{Jane, PASSWORD, credentials, jane, pass, person, post},
    world::{Answer, World, request, with_json},
};
use axum::{
    body::Body,
    http::{Method, Request, StatusCode, header},
};
use flatrender_api::{app::App, router};
use serde_json::{Value, json};
use sqlx::PgPool;
use tower::ServiceExt as _;
use uuid::Uuid;

const OPTIONS: &str = "/v1/me/factors/webauthn/options";
const ADD: &str = "/v1/me/factors/webauthn";

/// What a new authenticator makes of the options that Jane gets.
async fn begin(jane: &Jane<'_>, key: &mut Authenticator) -> Value {
    let options = jane.post(OPTIONS, json!({})).await;
    assert_eq!(options.status, StatusCode::OK, "{:?}", options.body);
    json!({ "label": "Laptop", "credential": key.create(&options.json()) })
}

/// Adds a passkey and gives it, its factor's path and the recovery codes.
pub async fn with_passkey(jane: &Jane<'_>) -> (Authenticator, String, Value) {
    let mut key = Authenticator::new();
    let body = begin(jane, &mut key).await;
    let added = jane.post(ADD, body).await;
    assert_eq!(added.status, StatusCode::CREATED, "{:?}", added.body);
    let added = added.json();
    let path = format!("/v1/me/factors/{}", added["factor"]["id"].as_str().unwrap());
    (key, path, added["recovery_codes"].clone())
}

/// The first step of a sign-in of somebody who has a passkey.
async fn first_step(world: &World) -> Value {
    let first = post(world, "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await;
    assert_eq!(first.status, StatusCode::ACCEPTED, "{:?}", first.body);
    first.json()
}

async fn second_step(world: &World, first: &Value, credential: &Value) -> Answer {
    let body = json!({ "challenge": first["challenge"], "credential": credential });
    post(world, "/v1/auth/second-step", body).await
}

/// The first step anew, and the second with what the key makes of it.
async fn sign_in(world: &World, key: &mut Authenticator) -> Answer {
    let first = first_step(world).await;
    let credential = key.sign(&first["webauthn"]);
    second_step(world, &first, &credential).await
}

async fn step_up_options(jane: &Jane<'_>) -> Value {
    let options = jane.post("/v1/auth/step-up/options", json!({})).await;
    assert_eq!(options.status, StatusCode::OK, "{:?}", options.body);
    options.json()
}

async fn step_up(jane: &Jane<'_>, credential: &Value) -> Answer {
    jane.post("/v1/auth/step-up", json!({ "credential": credential })).await
}

/// The screen was left open for longer than what is dangerous allows.
async fn grow_stale(world: &World) {
    let sql = "update identity.user_sessions set mfa_at = workflow.now() - interval '11 minutes'";
    sqlx::query(sql).execute(&world.db).await.unwrap();
}

async fn deeds(world: &World) -> Vec<String> {
    let sql = "select action || ' ' || object from identity.audit_log where action like 'factor.%' order by seq";
    sqlx::query_scalar(sql).fetch_all(&world.db).await.unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn a_passkey_is_added_and_then_asked_for_at_sign_in(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let options = jane.post(OPTIONS, json!({})).await.json();
    let asked = &options["publicKey"];
    assert_eq!(asked["rp"], json!({ "id": "films.example", "name": "FlatRender" }));
    assert_eq!(asked["user"]["id"], encoded(jane.id.as_bytes()));
    assert_eq!(asked["authenticatorSelection"]["userVerification"], "required");
    let (mut key, path, recovery) = with_passkey(&jane).await;
    assert_eq!(recovery.as_array().unwrap().len(), 10, "the first factor comes with recovery codes");
    let listed = jane.get("/v1/me/factors").await.json()["data"][0].clone();
    assert_eq!((&listed["kind"], &listed["label"]), (&json!("webauthn"), &json!("Laptop")));
    assert_eq!(listed["aaguid"], json!(Uuid::from_bytes(AAGUID)));
    let first = first_step(&world).await;
    assert_eq!(first["factors"], json!(["webauthn", "recovery_code"]));
    assert_eq!(first["webauthn"]["publicKey"]["rpId"], "films.example");
    assert_eq!(first["webauthn"]["publicKey"]["allowCredentials"][0]["id"], encoded(&key.id));
    let credential = key.sign(&first["webauthn"]);
    let second = second_step(&world, &first, &credential).await;
    assert_eq!(second.status, StatusCode::OK, "{:?}", second.body);
    let session: Uuid = serde_json::from_value(second.json()["session_id"].clone()).unwrap();
    let level = "select auth_level::int4 from identity.user_sessions where id = $1 and mfa_at is not null";
    let level: i32 = sqlx::query_scalar(level).bind(session).fetch_one(&world.db).await.unwrap();
    assert_eq!(level, 2);
    let (_, other, none) = with_passkey(&jane).await;
    assert_eq!(none, Value::Null, "those of the first factor stay good");
    let recovered = json!({ "challenge": first_step(&world).await["challenge"], "code": recovery[0] });
    assert_eq!(post(&world, "/v1/auth/second-step", recovered).await.status, StatusCode::OK);
    let both: Vec<String> = [path, other].iter().map(|p| p.rsplit('/').next().unwrap().to_owned()).collect();
    assert_eq!(deeds(&world).await, both.iter().map(|id| format!("factor.confirm factor:{id}")).collect::<Vec<_>>());
}

#[sqlx::test(migrations = "../migrations")]
async fn a_passkey_stands_beside_a_factor_that_makes_codes(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    jane.with_factor().await;
    let (mut key, _, recovery) = with_passkey(&jane).await;
    assert_eq!(recovery, Value::Null);
    assert_eq!(first_step(&world).await["factors"], json!(["totp", "webauthn", "recovery_code"]));
    assert_eq!(sign_in(&world, &mut key).await.status, StatusCode::OK);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_a_passkey_signed_is_good_once(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, _, _) = with_passkey(&jane).await;
    let first = first_step(&world).await;
    let credential = key.sign(&first["webauthn"]);
    assert_eq!(second_step(&world, &first, &credential).await.status, StatusCode::OK);
    assert_eq!(second_step(&world, &first, &credential).await.problem(), "auth.invalid");
    let again = first_step(&world).await;
    assert_eq!(second_step(&world, &again, &credential).await.problem(), "auth.passkey", "at another sign-in");
    let credential = key.sign(&step_up_options(&jane).await);
    assert_eq!(step_up(&jane, &credential).await.status, StatusCode::NO_CONTENT);
    assert_eq!(step_up(&jane, &credential).await.problem(), "auth.passkey");
    let mut body = begin(&jane, &mut Authenticator::new()).await;
    assert_eq!(jane.post(ADD, body.clone()).await.status, StatusCode::CREATED);
    body["label"] = json!("Again");
    assert_eq!(jane.post(ADD, body).await.problem(), "auth.passkey");
}

#[sqlx::test(migrations = "../migrations")]
async fn of_two_who_answer_one_challenge_at_once_one_wins(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let won = |a: &Answer, b: &Answer| [a, b].iter().filter(|answer| answer.status.is_success()).count();
    let body = begin(&jane, &mut Authenticator::new()).await;
    let (a, b) = tokio::join!(jane.post(ADD, body.clone()), jane.post(ADD, body));
    assert_eq!(won(&a, &b), 1, "{:?} {:?}", a.body, b.body);
    let (mut key, _, _) = with_passkey(&jane).await;
    let options = step_up_options(&jane).await;
    let (one, two) = (key.sign(&options), key.sign(&options));
    let (a, b) = tokio::join!(step_up(&jane, &one), step_up(&jane, &two));
    assert_eq!(won(&a, &b), 1, "{:?} {:?}", a.body, b.body);
    let first = first_step(&world).await;
    let one = key.sign(&first["webauthn"]);
    let (a, b) = tokio::join!(second_step(&world, &first, &one), second_step(&world, &first, &one));
    assert_eq!(won(&a, &b), 1, "{:?} {:?}", a.body, b.body);
    assert!(
        deeds(&world).await.iter().all(|deed| deed.starts_with("factor.confirm")),
        "to press twice is not to clone"
    );
}

/// What is wrong with an answer, and how an authenticator comes to give it.
type Mistake = (&'static str, fn(&mut Authenticator));

fn mistakes() -> Vec<Mistake> {
    vec![
        ("another page", |key| key.origin = "https://evil.example".into()),
        ("a page below ours", |key| key.origin = "https://a.films.example".into()),
        ("our page without encryption", |key| key.origin = "http://films.example".into()),
        ("another port of ours", |key| key.origin = "https://films.example:8443".into()),
        ("no page", |key| key.origin = "nonsense".into()),
        ("a key for another host", |key| key.rp_id = "evil.example".into()),
        ("another challenge", |key| key.challenge = Some(json!(encoded([7; 32])))),
        ("a challenge that is none", |key| key.challenge = Some(json!(7))),
        ("nobody was there", |key| key.flags = VERIFIED),
        ("it did not make sure who", |key| key.flags = PRESENT),
    ]
}

#[sqlx::test(migrations = "../migrations")]
async fn a_passkey_that_was_not_made_as_it_should_be_is_not_added(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    for (what, spoil) in mistakes() {
        let mut key = Authenticator::new();
        spoil(&mut key);
        let body = begin(&jane, &mut key).await;
        assert_eq!(jane.post(ADD, body).await.problem(), "auth.passkey", "{what}");
    }
    let mut signed = begin(&jane, &mut Authenticator::new()).await;
    let kind = json!({ "type": "webauthn.get", "challenge": "x", "origin": "https://films.example" }).to_string();
    signed["credential"]["response"]["clientDataJSON"] = json!(encoded(kind));
    assert_eq!(jane.post(ADD, signed).await.problem(), "auth.passkey");
    let mut long = Authenticator::new();
    long.id = vec![7; 1024];
    let body = begin(&jane, &mut long).await;
    assert_eq!(jane.post(ADD, body).await.problem(), "auth.passkey", "longer than an id may be");
    let (key, path, _) = with_passkey(&jane).await;
    let options = step_up_options(&jane).await;
    let crossed = json!({ "label": "Laptop", "credential": key.clone().create(&options) });
    assert_eq!(jane.post(ADD, crossed).await.problem(), "auth.passkey", "the challenge was for signing");
    let id = path.rsplit('/').next().unwrap();
    assert_eq!(deeds(&world).await, [format!("factor.confirm factor:{id}")]);
}

#[sqlx::test(migrations = "../migrations")]
async fn an_answer_that_is_not_as_it_should_be_opens_nothing(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, _, _) = with_passkey(&jane).await;
    let mut all = mistakes();
    all.push(("somebody else's handle", |key| key.user = Some(json!(encoded(Uuid::nil().as_bytes())))));
    for (what, spoil) in all {
        let mut spoiled = key.clone();
        spoil(&mut spoiled);
        assert_eq!(sign_in(&world, &mut spoiled).await.problem(), "auth.passkey", "{what}");
        let options = step_up_options(&jane).await;
        assert_eq!(step_up(&jane, &spoiled.sign(&options)).await.problem(), "auth.passkey", "{what}");
        key.count = spoiled.count;
        assert_eq!(sign_in(&world, &mut key).await.status, StatusCode::OK, "the failures are forgotten");
    }
    let first = first_step(&world).await;
    let mut forged = key.sign(&first["webauthn"]);
    forged["response"]["signature"] = Authenticator::new().sign(&first["webauthn"])["response"]["signature"].clone();
    assert_eq!(second_step(&world, &first, &forged).await.problem(), "auth.passkey", "signed with another key");
    let mut key_without_handle = key.clone();
    key_without_handle.user = None;
    assert_eq!(sign_in(&world, &mut key_without_handle).await.status, StatusCode::OK, "a handle is not needed");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_passkey_and_a_challenge_are_one_persons_and_one_sessions(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, path, _) = with_passkey(&jane).await;
    person(&world, "joe@example.com", &[]).await;
    let joe = post(&world, "/v1/auth/sign-in", credentials("joe@example.com", PASSWORD)).await.json();
    let joe =
        Jane { world: &world, id: jane.id, access: joe["access_token"].as_str().unwrap().into(), refresh: "".into() };
    let mut joes = Authenticator::new();
    let body = begin(&jane, &mut joes).await;
    assert_eq!(joe.post(ADD, body).await.problem(), "auth.passkey", "what Jane was asked");
    let (mut joes, _, _) = with_passkey(&joe).await;
    assert_eq!(sign_in(&world, &mut joes).await.problem(), "auth.passkey", "Joe's key at Jane's door");
    let mut disguised = joes.clone();
    disguised.id = key.id.clone();
    disguised.user = key.user.clone();
    assert_eq!(sign_in(&world, &mut disguised).await.problem(), "auth.passkey");
    let here = key.sign(&step_up_options(&jane).await);
    let elsewhere = sign_in(&world, &mut key).await.json();
    let elsewhere = Jane { access: elsewhere["access_token"].as_str().unwrap().into(), ..jane };
    assert_eq!(step_up(&elsewhere, &here).await.problem(), "auth.passkey", "what another session of hers was asked");
    let renamed = json!({ "label": "Mine" });
    let rename = with_json(request(Method::PATCH, &path, &joe.access), &renamed);
    assert_eq!(world.send(rename).await.problem(), "factor.not_found");
    assert_eq!(joe.delete(&path).await.problem(), "factor.not_found");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_passkey_is_a_factor_once(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (key, path, _) = with_passkey(&jane).await;
    let options = jane.post(OPTIONS, json!({})).await.json();
    assert_eq!(options["publicKey"]["excludeCredentials"][0]["id"], encoded(&key.id), "browsers are told");
    let add = async |jane: &Jane<'_>| {
        let body = begin(jane, &mut key.clone()).await;
        jane.post(ADD, body).await.problem()
    };
    assert_eq!(add(&jane).await, "auth.passkey", "and one that does not listen is refused");
    person(&world, "joe@example.com", &[]).await;
    let joe = post(&world, "/v1/auth/sign-in", credentials("joe@example.com", PASSWORD)).await.json();
    let joe =
        Jane { world: &world, id: jane.id, access: joe["access_token"].as_str().unwrap().into(), refresh: "".into() };
    assert_eq!(add(&joe).await, "factor.exists", "for nobody else either");
    assert_eq!(jane.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(add(&jane).await, "factor.exists", "nor when it was removed");
    for _ in 0..10 {
        with_passkey(&jane).await;
    }
    let body = begin(&jane, &mut Authenticator::new()).await;
    assert_eq!(jane.post(ADD, body).await.problem(), "factor.too_many");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_count_that_goes_back_is_refused_and_written_down_as_a_clone(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, path, recovery) = with_passkey(&jane).await;
    let mut copy = key.clone();
    assert_eq!(sign_in(&world, &mut key).await.status, StatusCode::OK);
    assert_eq!(sign_in(&world, &mut copy).await.problem(), "auth.passkey_cloned");
    let id = path.rsplit('/').next().unwrap();
    let cloned = format!("factor.cloned factor:{id}");
    assert_eq!(deeds(&world).await, [format!("factor.confirm factor:{id}"), cloned.clone()]);
    // One that was asked before the count went up, and answers afterwards.
    let (first, mut late) = (first_step(&world).await, key.clone());
    assert_eq!(sign_in(&world, &mut key).await.status, StatusCode::OK);
    let credential = late.sign(&first["webauthn"]);
    assert_eq!(second_step(&world, &first, &credential).await.problem(), "auth.passkey_cloned");
    late.step = 0;
    assert_eq!(sign_in(&world, &mut late).await.problem(), "auth.passkey_cloned", "a count that stands still, too");
    assert_eq!(deeds(&world).await[1..], [cloned.clone(), cloned.clone(), cloned]);
    let recovered = json!({ "challenge": first_step(&world).await["challenge"], "code": recovery[0] });
    assert_eq!(post(&world, "/v1/auth/second-step", recovered).await.status, StatusCode::OK);
    let kept: i64 =
        sqlx::query_scalar("select sign_count from identity.mfa_factors").fetch_one(&world.db).await.unwrap();
    assert_eq!(kept, i64::from(key.count));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_passkey_that_does_not_count_is_good_again_and_again(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let mut key = Authenticator::new();
    key.step = 0;
    let body = begin(&jane, &mut key).await;
    assert_eq!(jane.post(ADD, body).await.status, StatusCode::CREATED);
    for _ in 0..3 {
        assert_eq!(sign_in(&world, &mut key).await.status, StatusCode::OK);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_removed_passkey_opens_nothing(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, path, _) = with_passkey(&jane).await;
    let (mut other, other_path, _) = with_passkey(&jane).await;
    let first = first_step(&world).await;
    assert_eq!(jane.delete(&path).await.status, StatusCode::NO_CONTENT);
    let credential = key.sign(&first["webauthn"]);
    assert_eq!(second_step(&world, &first, &credential).await.problem(), "auth.passkey", "asked for before");
    let first = first_step(&world).await;
    assert_eq!(first["webauthn"]["publicKey"]["allowCredentials"].as_array().unwrap().len(), 1);
    let credential = key.sign(&first["webauthn"]);
    assert_eq!(second_step(&world, &first, &credential).await.problem(), "auth.passkey");
    assert_eq!(sign_in(&world, &mut other).await.status, StatusCode::OK);
    assert_eq!(jane.delete(&other_path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(jane.post("/v1/auth/step-up/options", json!({})).await.problem(), "factor.not_found");
    assert_eq!(world.count("identity.mfa_recovery_codes").await, 0);
    let plain = post(&world, "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await;
    assert_eq!(plain.status, StatusCode::OK, "there is no second step any longer");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_challenge_is_good_for_five_minutes(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, _, _) = with_passkey(&jane).await;
    let (first, options) = (first_step(&world).await, step_up_options(&jane).await);
    let body = begin(&jane, &mut Authenticator::new()).await;
    pass(&world, 301).await;
    let credential = key.sign(&first["webauthn"]);
    assert_eq!(second_step(&world, &first, &credential).await.problem(), "auth.invalid");
    assert_eq!(step_up(&jane, &key.sign(&options)).await.problem(), "auth.passkey");
    assert_eq!(jane.post(ADD, body).await.problem(), "auth.passkey");
}

#[sqlx::test(migrations = "../migrations")]
async fn what_is_done_to_factors_takes_who_just_showed_one(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, path, _) = with_passkey(&jane).await;
    let body = begin(&jane, &mut Authenticator::new()).await;
    grow_stale(&world).await;
    let rename = async |label: &str| {
        world.send(with_json(request(Method::PATCH, &path, &jane.access), &json!({ "label": label }))).await
    };
    assert_eq!(jane.post(OPTIONS, json!({})).await.problem(), "auth.step_up");
    assert_eq!(jane.post(ADD, body).await.problem(), "auth.step_up");
    assert_eq!(rename("Old laptop").await.problem(), "auth.step_up");
    assert_eq!(jane.delete(&path).await.problem(), "auth.step_up");
    let password = jane.post("/v1/auth/step-up", json!({ "password": PASSWORD })).await;
    assert_eq!(password.problem(), "auth.code", "who has a factor shows it");
    let options = step_up_options(&jane).await;
    assert_eq!(step_up(&jane, &key.sign(&options)).await.status, StatusCode::NO_CONTENT);
    assert_eq!(rename(" ").await.faults(), ["/label factor.label"]);
    let renamed = rename(" Old laptop ").await;
    assert_eq!((renamed.status, &renamed.json()["label"]), (StatusCode::OK, &json!("Old laptop")));
    assert_eq!(jane.delete(&path).await.status, StatusCode::NO_CONTENT);
    assert_eq!(rename("Gone").await.problem(), "factor.not_found");
    let id = path.rsplit('/').next().unwrap();
    let done = ["confirm", "rename", "remove"].map(|deed| format!("factor.{deed} factor:{id}"));
    assert_eq!(deeds(&world).await, done);
}

#[sqlx::test(migrations = "../migrations")]
async fn failures_of_passkeys_are_slowed_down(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, _, _) = with_passkey(&jane).await;
    let mut stranger = key.clone();
    stranger.origin = "https://evil.example".into();
    for _ in 0..11 {
        assert_eq!(sign_in(&world, &mut stranger).await.problem(), "auth.passkey");
    }
    let slowed = sign_in(&world, &mut key).await;
    assert_eq!((slowed.status, slowed.problem().as_str()), (StatusCode::TOO_MANY_REQUESTS, "auth.throttled"));
    let options = step_up_options(&jane).await;
    assert_eq!(step_up(&jane, &key.sign(&options)).await.problem(), "auth.throttled", "the same count");
    pass(&world, 3601).await;
    assert_eq!(sign_in(&world, &mut key).await.status, StatusCode::OK);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_wrong_answer_uses_a_sign_in_up(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, _, _) = with_passkey(&jane).await;
    let first = first_step(&world).await;
    let mut stranger = key.clone();
    stranger.flags = PRESENT;
    let credential = stranger.sign(&first["webauthn"]);
    assert_eq!(second_step(&world, &first, &credential).await.problem(), "auth.passkey");
    let credential = key.sign(&first["webauthn"]);
    assert_eq!(second_step(&world, &first, &credential).await.problem(), "auth.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn whatever_is_sent_as_a_passkey_is_the_clients_mistake(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, _, _) = with_passkey(&jane).await;
    let junk = [
        json!(null),
        json!(""),
        json!("%%%"),
        json!("AAAA"),
        json!(encoded("\u{0}")),
        json!(encoded([0xff; 64])),
        json!(encoded([0xa1])),
        json!(encoded(vec![0x9f; 10_000])),
        json!(encoded(vec![0x81; 100_000])),
        json!(encoded("[".repeat(100_000))),
        json!(encoded([&[0x5b][..], &[0xff; 8]].concat())),
        json!({}),
        json!([1]),
        json!(7),
    ];
    let mut answered = 0;
    for field in ["attestationObject", "clientDataJSON", "transports"] {
        for value in &junk {
            let mut body = begin(&jane, &mut Authenticator::new()).await;
            body["credential"]["response"][field] = value.clone();
            let answer = jane.post(ADD, body).await;
            let fine = answer.status.is_client_error() || (field == "transports" && answer.status.is_success());
            assert!(fine, "{field} {value}: {:?}", answer.body);
            answered += 1;
        }
    }
    for field in ["authenticatorData", "clientDataJSON", "signature", "userHandle"] {
        for value in junk.iter().filter(|value| !(value.is_null() && field == "userHandle")) {
            let mut credential = key.sign(&step_up_options(&jane).await);
            credential["response"][field] = value.clone();
            let answer = step_up(&jane, &credential).await;
            assert!(answer.status.is_client_error(), "{field} {value}: {:?}", answer.body);
            answered += 1;
            // Who fails often waits; here everything is to be looked at.
            sqlx::query("delete from identity.auth_throttle").execute(&world.db).await.unwrap();
        }
    }
    for whole in
        [json!({}), json!([]), json!("x"), json!({ "id": "x", "rawId": "AA", "type": "public-key", "response": {} })]
    {
        let challenge = first_step(&world).await["challenge"].clone();
        for (path, body) in [
            (ADD, json!({ "label": "Laptop", "credential": whole })),
            ("/v1/auth/step-up", json!({ "credential": whole })),
            ("/v1/auth/second-step", json!({ "challenge": challenge, "credential": whole })),
        ] {
            let answer = jane.post(path, body).await;
            assert_eq!(answer.problem(), "request.invalid", "{path} {whole}");
            answered += 1;
        }
    }
    for neither in [
        json!({ "challenge": "fr_mf_x" }),
        json!({ "challenge": "fr_mf_x", "code": "1", "credential": key.sign(&json!({})) }),
    ] {
        assert_eq!(post(&world, "/v1/auth/second-step", neither).await.faults(), ["/code field.missing"]);
    }
    assert_eq!(answered, 3 * 14 + 4 * 14 - 1 + 12);
    let cut = begin(&jane, &mut Authenticator::new()).await;
    let object = cut["credential"]["response"]["attestationObject"].as_str().unwrap().to_owned();
    for length in (0..object.len()).step_by(3) {
        let mut body = begin(&jane, &mut Authenticator::new()).await;
        body["credential"]["response"]["attestationObject"] = json!(object[..length]);
        let answer = jane.post(ADD, body).await;
        assert!(answer.status.is_client_error(), "{length}: {:?}", answer.body);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn passkeys_are_for_the_configured_host_whatever_the_request_claims(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let asked = |host: &str| {
        let request = request(Method::POST, OPTIONS, &jane.access).header(header::HOST, host);
        request
            .header("x-forwarded-host", host)
            .header("origin", format!("https://{host}"))
            .body(Body::empty())
            .unwrap()
    };
    let options = world.send(asked("evil.example")).await.json();
    assert_eq!(options["publicKey"]["rp"]["id"], "films.example");
    let mut key = Authenticator::new();
    (key.origin, key.rp_id) = ("https://evil.example".into(), "evil.example".into());
    let body = json!({ "label": "Laptop", "credential": key.create(&options) });
    assert_eq!(jane.post(ADD, body).await.problem(), "auth.passkey");
}

#[sqlx::test(migrations = "../migrations")]
async fn without_a_host_name_nobody_is_asked_for_a_passkey(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (mut key, _, recovery) = with_passkey(&jane).await;
    let credential = key.sign(&first_step(&world).await["webauthn"]);
    let router = router::router(App { relying_party: None, ..world.app.clone() });
    let ask = async |path: &str, token: &str, body: Value| {
        let request: Request<Body> = with_json(request(Method::POST, path, token), &body);
        let (parts, body) = router.clone().oneshot(request).await.unwrap().into_parts();
        Answer {
            status: parts.status,
            headers: parts.headers,
            body: axum::body::to_bytes(body, usize::MAX).await.unwrap(),
        }
    };
    for path in [OPTIONS, "/v1/auth/step-up/options"] {
        assert_eq!(ask(path, &jane.access, json!({})).await.problem(), "webauthn.unavailable", "{path}");
    }
    let first = ask("/v1/auth/sign-in", "", credentials("jane@example.com", PASSWORD)).await.json();
    assert_eq!((&first["factors"], &first["webauthn"]), (&json!(["recovery_code"]), &Value::Null));
    let shown = json!({ "challenge": first["challenge"], "credential": credential });
    assert_eq!(ask("/v1/auth/second-step", "", shown).await.problem(), "auth.passkey");
    let first = ask("/v1/auth/sign-in", "", credentials("jane@example.com", PASSWORD)).await.json();
    let recovered = json!({ "challenge": first["challenge"], "code": recovery[0] });
    assert_eq!(ask("/v1/auth/second-step", "", recovered).await.status, StatusCode::OK);
}
