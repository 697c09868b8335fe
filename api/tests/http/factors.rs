//! Second factors: asked for, used once, removed by who just showed them.

use crate::{
    jane::{OTHER, PASSWORD, code, credentials, jane, pass, post, post_from},
    world::World,
};
use axum::http::StatusCode;
use serde_json::{Value, json};
use sqlx::PgPool;

#[sqlx::test(migrations = "../migrations")]
async fn a_second_factor_is_asked_for_and_each_code_works_once(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (secret, recovery) = jane.with_factor().await;
    let sign_in = async || post(&world, "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await;
    let first = sign_in().await;
    assert_eq!(first.status, StatusCode::ACCEPTED);
    assert!(first.json().get("access_token").is_none());
    let second = async |challenge: &Value, code: &str| {
        post(&world, "/v1/auth/second-step", json!({ "challenge": challenge, "code": code })).await
    };
    let challenge = first.json()["challenge"].clone();
    // The code that confirmed the factor is used.
    assert_eq!(second(&challenge, &code(&world, &secret, 0).await).await.problem(), "auth.code");
    assert_eq!(second(&challenge, &code(&world, &secret, 2).await).await.problem(), "auth.code", "two steps ahead");
    let next = code(&world, &secret, 1).await;
    let other = sign_in().await.json()["challenge"].clone();
    let (a, b) = tokio::join!(second(&challenge, &next), second(&other, &next));
    assert_eq!([a.status, b.status].iter().filter(|s| **s == StatusCode::OK).count(), 1, "{:?} {:?}", a.body, b.body);
    let third = sign_in().await.json()["challenge"].clone();
    assert_eq!(second(&third, &recovery[0]).await.status, StatusCode::OK);
    assert_eq!(second(&third, &recovery[1]).await.problem(), "auth.invalid", "the challenge is used up");
    let fourth = sign_in().await.json()["challenge"].clone();
    assert_eq!(second(&fourth, &recovery[0]).await.problem(), "auth.code", "so is the recovery code");
    pass(&world, 301).await;
    assert_eq!(second(&fourth, &recovery[1]).await.problem(), "auth.invalid", "too late");
}

#[sqlx::test(migrations = "../migrations")]
async fn who_shows_a_second_factor_gets_past_the_guesses_of_others(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (_, recovery) = jane.with_factor().await;
    for i in 0..110 {
        let guess = credentials("jane@example.com", OTHER);
        post_from(&world, &format!("192.0.2.{i}"), "/v1/auth/sign-in", guess).await;
    }
    // However long the guesses took: the pause that they made is not over.
    let long =
        "update identity.auth_throttle set locked_until = workflow.now() + interval '1 hour' where failures > 100";
    assert_eq!(sqlx::query(long).execute(&world.db).await.unwrap().rows_affected(), 1);
    let sign_in = async |address: &str, code: &str| {
        let body = json!({ "email": "jane@example.com", "password": PASSWORD, "code": code });
        post_from(&world, address, "/v1/auth/sign-in", body).await
    };
    assert_eq!(sign_in("198.51.100.9", "000000").await.problem(), "auth.throttled");
    assert_eq!(sign_in("198.51.100.9", &recovery[0]).await.status, StatusCode::OK);
    assert_eq!(sign_in("198.51.100.10", &recovery[0]).await.problem(), "auth.throttled", "used up");
}

#[sqlx::test(migrations = "../migrations")]
async fn five_wrong_codes_use_a_challenge_up(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (_, recovery) = jane.with_factor().await;
    let first = post(&world, "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await;
    let second = async |code: &str| {
        post(&world, "/v1/auth/second-step", json!({ "challenge": first.json()["challenge"], "code": code })).await
    };
    for _ in 0..5 {
        assert_eq!(second("000000").await.problem(), "auth.code");
    }
    assert_eq!(second(&recovery[0]).await.problem(), "auth.invalid");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_factor_is_removed_by_who_just_showed_it(db: PgPool) {
    let world = World::new(db).await;
    let jane = jane(&world, &[]).await;
    let (secret, _) = jane.with_factor().await;
    let list = jane.get("/v1/me/factors").await.json();
    assert!(!list.to_string().contains("secret"));
    let path = format!("/v1/me/factors/{}", list["data"][0]["id"].as_str().unwrap());
    // Her access token is good for ten minutes.
    pass(&world, 540).await;
    sqlx::query("update identity.user_sessions set mfa_at = workflow.now() - interval '11 minutes'")
        .execute(&world.db)
        .await
        .unwrap();
    assert_eq!(jane.delete(&path).await.problem(), "auth.step_up");
    let password = jane.post("/v1/auth/step-up", json!({ "password": PASSWORD })).await;
    assert_eq!(password.problem(), "auth.code", "who has a factor shows it");
    let shown = jane.post("/v1/auth/step-up", json!({ "code": code(&world, &secret, 0).await })).await;
    assert_eq!(shown.status, StatusCode::NO_CONTENT);
    assert_eq!(jane.delete(&path).await.status, StatusCode::NO_CONTENT);
    let again = post(&world, "/v1/auth/sign-in", credentials("jane@example.com", PASSWORD)).await;
    assert_eq!(again.status, StatusCode::OK);
    assert_eq!(world.count("identity.mfa_recovery_codes").await, 0);
    let factor = path.rsplit('/').next().unwrap();
    let written: Vec<String> = sqlx::query_scalar(
        "select action || ' ' || object from identity.audit_log where action like 'factor.%' order by seq",
    )
    .fetch_all(&world.db)
    .await
    .unwrap();
    assert_eq!(written, [format!("factor.confirm factor:{factor}"), format!("factor.remove factor:{factor}")]);
}
