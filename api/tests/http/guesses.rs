//! Guessing who somebody is: passwords, codes, keys. What is answered and what is done tells nothing, nothing opens twice, and the
//! person is not locked out. The numbers are those of the list of attacks.

use crate::{
    attacks::plain,
    jane::{OTHER, PASSWORD, code, credentials, jane, pass, person, post, post_from},
    keys::{get_from, thirty_a_minute},
    world::World,
};
use axum::{body::Body, http::StatusCode};
use flatrender_workflows::models::identity::tenant_api_key::text;
use serde_json::json;
use sqlx::PgPool;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tracing::{Event, Subscriber, field::Visit};
use tracing_subscriber::layer::{Context, Layer, SubscriberExt as _};

/// Statements that reach the database, in order.
#[derive(Clone, Default)]
struct Statements(Arc<Mutex<Vec<String>>>);

impl<S: Subscriber> Layer<S> for Statements {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        struct Summary(Option<String>);
        impl Visit for Summary {
            fn record_str(&mut self, field: &tracing::field::Field, value: &str) {
                if field.name() == "summary" {
                    self.0 = Some(value.to_owned());
                }
            }
            fn record_debug(&mut self, _: &tracing::field::Field, _: &dyn std::fmt::Debug) {}
        }
        if event.metadata().target() == "sqlx::query" {
            let mut summary = Summary(None);
            event.record(&mut summary);
            self.0.lock().unwrap().extend(summary.0);
        }
    }
}

impl Statements {
    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

/// How many passwords were computed so far.
async fn hashes(world: &World) -> String {
    let text = world.send(axum::http::Request::get("/metrics").body(Body::empty()).unwrap()).await;
    let text = String::from_utf8(text.body.to_vec()).unwrap();
    text.lines().find_map(|line| line.strip_prefix("flatrender_password_hashes_total ")).unwrap_or("0").to_owned()
}

/// Who has an account cannot be told by trying to sign in: not by what is answered, and not by what is done for it.
#[sqlx::test(migrations = "../migrations")]
async fn m11_somebody_and_nobody_get_the_same_answer_for_the_same_work(db: PgPool) {
    let world = World::new(db).await;
    for name in ["jane", "gone"] {
        person(&world, &format!("{name}@example.com"), &[]).await;
    }
    let gone = "update identity.users set status = 'disabled' where email = 'gone@example.com'";
    sqlx::query(gone).execute(&world.db).await.unwrap();
    let statements = Statements::default();
    let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(statements.clone()));
    let mut seen = vec![];
    // The first one warms up what is made once, such as prepared statements.
    for (n, (tenant, email)) in [
        ("default", "first@example.com"),
        ("default", "jane@example.com"),
        ("default", "nobody@example.com"),
        ("default", "gone@example.com"),
        ("nosuch", "jane@example.com"),
    ]
    .into_iter()
    .enumerate()
    {
        let body = json!({ "tenant": tenant, "email": email, "password": OTHER });
        let before: u64 = hashes(&world).await.parse().unwrap();
        statements.take();
        let answer = post_from(&world, &format!("198.51.100.{n}"), "/v1/auth/sign-in", body).await;
        let done = statements.take();
        let after: u64 = hashes(&world).await.parse().unwrap();
        assert_eq!(answer.status, StatusCode::UNAUTHORIZED);
        assert_eq!(after - before, 1, "{email}");
        assert!(done.len() > 5, "{done:?}");
        seen.push((email, plain(&answer), done));
    }
    for other in &seen[2..] {
        assert_eq!((&other.1, &other.2), (&seen[1].1, &seen[1].2), "{} and {}", other.0, seen[1].0);
    }
}

/// A letter takes longer to write than none: the answer waits for neither.
#[sqlx::test(migrations = "../migrations")]
async fn m11_who_asks_for_a_letter_waits_as_long_whoever_has_the_address(db: PgPool) {
    let world = World::new(db).await;
    person(&world, "jane@example.com", &[]).await;
    for path in ["/v1/auth/forgot-password", "/v1/auth/register"] {
        let mut seen = vec![];
        for email in ["jane@example.com", "nobody@example.com"] {
            let body = match path {
                "/v1/auth/register" => credentials(email, PASSWORD),
                _ => json!({ "email": email }),
            };
            let began = Instant::now();
            let answer = post(&world, path, body).await;
            assert!(began.elapsed() >= Duration::from_millis(400), "{path} {email}: {:?}", began.elapsed());
            seen.push(plain(&answer));
        }
        assert_eq!(seen[0].0, 202, "{path}");
        assert_eq!(seen[0], seen[1], "{path}");
    }
    assert_eq!(world.count("workflow.runs").await, 3, "two letters to her, one to somebody new");
}

/// A thousand machines with lists of passwords: the account is slowed down for all of them, and not for its owner.
#[sqlx::test(migrations = "../migrations")]
async fn m11_stuffing_from_everywhere_does_not_lock_the_person_out(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (_, recovery) = jane.with_factor().await;
    let guess = async |n: usize, password: &str| {
        let address = format!("10.{}.{}.{}", n / 65536, n / 256 % 256, n % 256);
        post_from(&world, &address, "/v1/auth/sign-in", credentials("jane@example.com", password)).await
    };
    let mut codes = BTreeMap::new();
    for n in 0..300 {
        *codes.entry(guess(n, OTHER).await.problem()).or_insert(0) += 1;
    }
    let tried = codes["auth.credentials"];
    assert!((100..=110).contains(&tried) && tried + codes["auth.throttled"] == 300, "{codes:?}");
    assert_eq!(guess(999, PASSWORD).await.problem(), "auth.throttled", "the right guess is not told from the others");
    let body = json!({ "email": "jane@example.com", "password": PASSWORD, "code": recovery[0] });
    let herself = post_from(&world, "203.0.113.5", "/v1/auth/sign-in", body).await;
    assert_eq!(herself.status, StatusCode::OK, "{:?}", herself.body);
}

/// A code by time is good for one step to either side, at one door, once; the one before it no longer.
#[sqlx::test(migrations = "../migrations")]
async fn m12_a_code_opens_one_door_once(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (secret, _) = jane.with_factor().await;
    let step_up = async |code: String| jane.post("/v1/auth/step-up", json!({ "code": code })).await;
    let sign_in = async |code: String| {
        post(&world, "/v1/auth/sign-in", json!({ "email": "jane@example.com", "password": PASSWORD, "code": code }))
            .await
    };
    pass(&world, 300).await;
    for steps in [-2, 2, -20, 20] {
        assert_eq!(step_up(code(&world, &secret, steps).await).await.problem(), "auth.code", "{steps} steps");
    }
    let now = code(&world, &secret, 0).await;
    assert_eq!(step_up(now.clone()).await.status, StatusCode::NO_CONTENT);
    assert_eq!(step_up(now.clone()).await.problem(), "auth.code", "at the same door");
    assert_eq!(sign_in(now.clone()).await.problem(), "auth.code", "at another");
    assert_eq!(
        sign_in(code(&world, &secret, -1).await).await.problem(),
        "auth.code",
        "one before the one that was used"
    );
    assert_eq!(sign_in(code(&world, &secret, 1).await).await.status, StatusCode::OK, "a clock that is fast");
    pass(&world, 300).await;
    let next = code(&world, &secret, 0).await;
    let (a, b) = futures::future::join(
        futures::future::join_all((0..4).map(|_| step_up(next.clone()))),
        futures::future::join_all((0..4).map(|_| sign_in(next.clone()))),
    )
    .await;
    let opened = a.iter().chain(&b).filter(|answer| answer.status.is_success()).count();
    assert_eq!(opened, 1, "{a:?} {b:?}");
}

/// The end of a key by its rules: CRC-32 (ISO 3309) in six digits of base 62.
fn checksum(body: &str) -> String {
    let mut rest = u32::MAX;
    for byte in body.bytes() {
        rest ^= u32::from(byte);
        for _ in 0..8 {
            rest = if rest & 1 == 1 { rest >> 1 ^ 0xedb8_8320 } else { rest >> 1 };
        }
    }
    rest = !rest;
    let digits = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
    let mut text = vec![b'0'; 6];
    for digit in text.iter_mut().rev() {
        *digit = digits[(rest % 62) as usize];
        rest /= 62;
    }
    String::from_utf8(text).unwrap()
}

/// How a key begins is shown in lists. Whoever knows it, and how keys are written, is no nearer to the rest: what is looked for is
/// a hash of the whole, so that a guess that is nearly right does what any other does.
#[sqlx::test(migrations = "../migrations")]
async fn m13_the_beginning_of_a_key_helps_nobody(db: PgPool) {
    let world = World::new(db).await;
    let guess = |kept: usize, n: usize| {
        let body = format!("{}{n:0>width$}", &world.key[..kept], width = 38 - kept);
        format!("{body}{}", checksum(&body))
    };
    assert!(text::mode_of(&guess(16, 1)).is_some(), "it is written as keys are");
    let statements = Statements::default();
    let guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(statements.clone()));
    let mut work = vec![];
    // Of the last one but the checksum a character is left to guess: not the right one.
    let wrong = if &world.key[37..38] == "2" { 3 } else { 2 };
    for (n, kept) in [(0, 8), (1, 16), (wrong, 37)] {
        statements.take();
        let answer = get_from(&world, &guess(kept, n), &format!("198.51.100.{n}:1"), None).await;
        work.push((plain(&answer), statements.take()));
    }
    drop(guard);
    assert_eq!(work[0].0.0, 401);
    assert!(work[0].1.len() > 2, "{work:?}");
    assert_eq!((&work[1], &work[2]), (&work[0], &work[0]), "nearly right is as wrong as any other");
    // From one address few are tried; from many, the key still opens for its owner alone.
    let (mut codes, began) = (vec![], Instant::now());
    for n in 0..60 {
        codes.push(get_from(&world, &guess(16, 100 + n), "203.0.113.9:1", None).await.problem());
    }
    thirty_a_minute(&codes, began.elapsed());
    for n in 0..100 {
        assert_eq!(
            get_from(&world, &guess(16, 200 + n), &format!("192.0.2.{n}:1"), None).await.problem(),
            "auth.invalid"
        );
    }
    assert_eq!(get_from(&world, &world.key, "203.0.113.9:1", None).await.status, StatusCode::OK);
}

/// Of any number of guesses at once no more are judged than one after the other would be: passwords from one address, and codes.
#[sqlx::test(migrations = "../migrations")]
async fn m11_guesses_at_once_are_no_more_than_guesses_in_turn(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let guess = || post_from(&world, "203.0.113.7", "/v1/auth/sign-in", credentials("jane@example.com", OTHER));
    let judged = |answers: &[crate::world::Answer], code: &str| answers.iter().filter(|a| a.problem() == code).count();
    // Five and one that makes the first pause, of two seconds; the machine may be slow enough for another after it.
    let answers = futures::future::join_all((0..40).map(|_| guess())).await;
    let wrong = judged(&answers, "auth.credentials");
    assert!((6..=9).contains(&wrong) && wrong + judged(&answers, "auth.throttled") == 40, "{wrong}");
    jane.with_factor().await;
    let guess = || jane.post("/v1/auth/step-up", json!({ "code": "000000" }));
    let answers = futures::future::join_all((0..40).map(|_| guess())).await;
    let wrong = judged(&answers, "auth.code");
    assert!((11..=14).contains(&wrong) && wrong + judged(&answers, "auth.throttled") == 40, "{wrong}");
}

/// Strangers who know no password use up neither the tries nor the codes of the person: with codes that are wrong nobody is kept out.
#[sqlx::test(migrations = "../migrations")]
async fn m11_wrong_codes_of_strangers_do_not_lock_the_person_out(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (_, recovery) = jane.with_factor().await;
    let sign_in = async |address: &str, password: &str, code: &str| {
        let body = json!({ "email": "jane@example.com", "password": password, "code": code });
        post_from(&world, address, "/v1/auth/sign-in", body).await
    };
    for n in 0..130 {
        let answer = sign_in(&format!("10.0.{}.{}", n / 3, n % 3), OTHER, "000000").await;
        assert!(["auth.credentials", "auth.throttled"].contains(&answer.problem().as_str()), "{:?}", answer.body);
    }
    let herself = sign_in("203.0.113.5", PASSWORD, &recovery[0]).await;
    assert_eq!(herself.status, StatusCode::OK, "{:?}", herself.body);
    let step_up = jane.post("/v1/auth/step-up", json!({ "code": recovery[1] })).await;
    assert_eq!(step_up.status, StatusCode::NO_CONTENT, "{:?}", step_up.body);
}

/// A machine with IPv6 has more addresses than there are guesses: all of its network are one.
#[sqlx::test(migrations = "../migrations")]
async fn m11_m13_the_addresses_of_a_network_are_one_guesser(db: PgPool) {
    let world = World::new(db).await;
    person(&world, "jane@example.com", &[]).await;
    let mut codes = vec![];
    for n in 0..8 {
        let address = format!("[2001:db8:0:1::{n:x}]");
        codes.push(
            post_from(&world, &address, "/v1/auth/sign-in", credentials("jane@example.com", OTHER)).await.problem(),
        );
    }
    assert_eq!(codes[5..], ["auth.credentials", "auth.throttled", "auth.throttled"]);
    let next =
        post_from(&world, "[2001:db8:0:2::1]", "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await;
    assert_eq!(next.status, StatusCode::OK, "the network beside it");
    let (mut codes, began) = (vec![], Instant::now());
    for n in 0..60 {
        let guess = text::generate(flatrender_workflows::models::identity::tenant_api_key::Mode::Live);
        codes.push(get_from(&world, guess.reveal(), &format!("[2001:db8:0:3::{n:x}]:1"), None).await.problem());
    }
    thirty_a_minute(&codes, began.elapsed());
}

/// Whoever has no link makes the server compute no password.
#[sqlx::test(migrations = "../migrations")]
async fn a_link_that_is_made_up_costs_no_password(db: PgPool) {
    let world = World::new(db).await;
    let before = hashes(&world).await;
    let body = json!({ "token": "fr_ln_made_up", "password": PASSWORD });
    assert_eq!(post(&world, "/v1/auth/reset-password", body).await.problem(), "link.invalid");
    assert_eq!(hashes(&world).await, before);
}
