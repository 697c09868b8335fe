//! Providers that lie, and providers that fail.

use super::{
    Scene,
    fake::{CLIENT, Mood, Sign},
};
use crate::jane::post;
use axum::http::StatusCode;
use flatrender_workflows::models::DEFAULT_TENANT;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::HashMap;

#[sqlx::test(migrations = "../migrations")]
async fn no_token_is_believed_that_the_provider_did_not_make_for_us_now(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    let now = chrono::Utc::now().timestamp();
    let lies = [
        json!({"nonce": "another"}),
        json!({"nonce": null}),
        json!({"aud": "another"}),
        json!({"aud": []}),
        json!({"aud": null}),
        json!({"aud": [CLIENT, "another"]}),
        json!({"azp": "another"}),
        json!({"iss": "https://login.evil.example"}),
        json!({"iss": format!("{}/", scene.fake.url())}),
        json!({"iss": null}),
        json!({"exp": now - 1}),
        json!({"exp": null}),
        json!({"iat": now + 3600}),
        json!({"sub": ""}),
        json!({"sub": null}),
        json!({"sub": "s".repeat(256)}),
    ];
    let signs = [Sign::WithAnotherKey, Sign::None, Sign::ByPublicKey, Sign::ByClientSecret];
    let moods = lies.into_iter().map(|claims| Mood { claims, ..Mood::default() });
    let moods = moods.chain(signs.map(|sign| Mood { sign, ..Mood::default() }));
    for mood in moods {
        scene.fake.be(mood.clone());
        let answer = scene.arrive(&provider).await;
        let lie = format!("{} {:?}: {:?}", mood.claims, mood.sign, answer.body);
        // One that has not even the shape of an ID token cannot be read.
        let shapeless = ["exp", "iss", "sub"].iter().any(|name| mood.claims.get(name) == Some(&Value::Null));
        let expected = if shapeless { (502, "identity_provider.unreachable") } else { (403, "auth.identity_refused") };
        assert_eq!((answer.status.as_u16(), answer.problem().as_str()), expected, "{lie}");
    }
    assert_eq!(scene.world.count("identity.users").await, 0);
    assert_eq!(scene.world.count("identity.user_sessions").await, 0);
    scene.fake.says(json!({"azp": CLIENT, "aud": [CLIENT], "email_verified": "true"}));
    assert_eq!(scene.arrive(&provider).await.status, StatusCode::OK, "the truth is believed");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_provider_that_fails_lets_nobody_in_and_leads_nowhere(db: PgPool) {
    let scene = Scene::new(db).await;
    scene.proven(DEFAULT_TENANT, "acme.example").await;
    let provider = scene.provider(json!({})).await;
    let lured = r#"{"access_token": "x", "token_type": "Bearer"}"#;
    for endpoint in ["discovery", "jwks", "token"] {
        for (status, body) in [(500, "oops"), (500, ""), (200, "{"), (200, "<html>"), (302, ""), (307, lured)] {
            scene.fake.be(Mood::default());
            let way = scene.way(&provider).await;
            scene.fake.be(Mood { instead: HashMap::from([(endpoint, (status, body))]), ..Mood::default() });
            let answer = scene.finish(&way).await;
            let what = format!("{endpoint} {status} {body}: {:?}", answer.body);
            assert!(matches!(answer.status.as_u16(), 502 | 422 | 403), "{what}");
            let code = answer.problem();
            assert!(code.starts_with("identity_provider.") || code == "auth.identity_refused", "{what}");
            assert!(!answer.json()["detail"].as_str().unwrap().contains("oops"), "what was read is not told: {what}");
        }
        scene.fake.be(Mood::default());
        let way = scene.way(&provider).await;
        scene.fake.be(Mood { silent: Some(endpoint), ..Mood::default() });
        assert_eq!(scene.finish(&way).await.problem(), "identity_provider.unreachable", "{endpoint} gives no answer");
    }
    assert_eq!(scene.fake.lured(), 0, "no redirect is followed");
    scene.fake.be(Mood { described: json!({"issuer": "https://login.evil.example"}), ..Mood::default() });
    let start = post(&scene.world, "/v1/auth/openid/start", json!({"provider": provider})).await;
    assert_eq!(start.problem(), "identity_provider.unfit");
    assert_eq!(scene.world.count("identity.users").await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_code_is_not_taken_twice_by_the_provider_either(db: PgPool) {
    let scene = Scene::new(db).await;
    let provider = scene.provider(json!({})).await;
    let way = scene.way(&provider).await;
    let invented = scene.finish(&super::Way { code: "invented".into(), ..way }).await;
    assert_eq!(invented.problem(), "auth.identity_refused");
    assert!(invented.json()["detail"].as_str().unwrap().ends_with("invalid_grant"), "{}", invented.json());
}
