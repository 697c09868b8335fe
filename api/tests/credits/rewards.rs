//! Points, achievements, gifts and who brought whom.

use crate::{
    money::{ask, sound},
    plans::{Cast, cast},
    subscriptions::tellings,
    world::order,
};
use axum::http::{Method, StatusCode};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Role, Scope,
    identity::{points::Source, reward},
};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::PgPool;
use uuid::Uuid;

async fn done(cast: &Cast, user: Uuid, source: Source, id: Uuid) {
    let mut tx = Scope::tenant(Role::Identity, DEFAULT_TENANT).begin(&cast.world.db).await.unwrap();
    reward::reward(&mut tx, DEFAULT_TENANT, user, source, id).await.unwrap();
    tx.commit().await.unwrap();
}

async fn gift(cast: &Cast, code: &str, kind: &str, value: i64, stock: i32) -> Uuid {
    let body = json!({"code": code, "title": {"en": "A present"}, "kind": kind, "value": value, "stock": stock});
    let made = cast.own_post("/v1/gift-catalogue", body).await;
    assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
    made.json()["id"].as_str().unwrap().parse().unwrap()
}

#[sqlx::test(migrations = "../migrations")]
async fn s054_points_are_the_sum_of_their_ledger_and_what_they_reach_is_given_once(db: PgPool) {
    let cast = cast(db).await;
    let first = json!({"code": "first_film", "title": {"en": "Your first film"}, "points": 25, "rule": {"source": "render", "count": 1}});
    assert_eq!(cast.own_post("/v1/achievements", first.clone()).await.status, StatusCode::CREATED);
    assert_eq!(cast.own_post("/v1/achievements", first).await.problem(), "achievement.exists");
    let wrong = json!({"code": "x", "title": {"en": "x"}, "points": 1, "rule": {"source": "sleep", "count": 1}});
    assert_eq!(cast.own_post("/v1/achievements", wrong).await.faults(), ["/rule achievement.rule"]);
    gift(&cast, "level_2", "credits", 600, 10).await;
    let film = Uuid::now_v7();
    for _ in 0..3 {
        done(&cast, cast.user, Source::Render, film).await;
    }
    let progress = cast.get("/v1/me/progress").await.json();
    let numbers = ["points", "level", "next_level_at", "streak_days"].map(|name| progress[name].as_i64().unwrap());
    assert_eq!(numbers, [35, 1, 100, 1], "one film, counted once, and the first");
    let achieved = cast.get("/v1/achievements").await.json();
    assert!(achieved["data"][0]["earned_at"].is_string(), "{achieved}");
    done(&cast, cast.user, Source::Payment, Uuid::now_v7()).await;
    assert_eq!(cast.get("/v1/gifts").await.json()["data"], json!([]), "85 points are no second level");
    done(&cast, cast.user, Source::Payment, Uuid::now_v7()).await;
    let gifts = cast.get("/v1/gifts").await.json();
    assert_eq!((gifts["data"].as_array().unwrap().len(), &gifts["data"][0]["state"]), (1, &json!("earned")));
    let points = cast.get("/v1/me/points?limit=2").await.json();
    assert_eq!((&points["data"][0]["source"], &points["has_more"]), (&json!("payment"), &json!(true)));
    sound(&cast.world.db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn s055_a_gift_comes_with_its_message_and_s056_is_claimed_once_by_a_hundred_at_a_time(db: PgPool) {
    let cast = cast(db).await;
    let credits = gift(&cast, "present", "credits", 600, 5).await;
    let path = format!("/v1/gift-catalogue/{credits}/give");
    let give = || json!({"user_id": cast.user, "period_key": "2026-11", "reason": "the film of the month"});
    for _ in 0..3 {
        assert_eq!(cast.own_post(&path, give()).await.status, StatusCode::NO_CONTENT);
    }
    let gifts = cast.get("/v1/gifts").await.json();
    assert_eq!(gifts["data"].as_array().unwrap().len(), 1, "one a person, gift and period");
    assert_eq!(tellings(&cast.world.db, "gift.earned").await, 1, "and they are told of it");
    let orphan = sqlx::query("update identity.earned_gifts set notification_id = gen_random_uuid()");
    assert!(orphan.execute(&cast.world.db).await.unwrap_err().as_database_error().unwrap().is_foreign_key_violation());

    let claim = format!("/v1/gifts/{}/claim", gifts["data"][0]["id"].as_str().unwrap());
    let answers = join_all((0..100).map(|_| cast.post(&claim, json!({})))).await;
    let claimed = answers.iter().filter(|a| a.status == StatusCode::NO_CONTENT).count();
    assert_eq!(claimed, 1);
    assert!(answers.iter().filter(|a| a.status != StatusCode::NO_CONTENT).all(|a| a.problem() == "gift.claimed"));
    assert_eq!(cast.get("/v1/credits").await.json()["balance"], 600);
    assert_eq!(
        ask(&cast.world, &cast.owner, Method::POST, &claim, None).await.problem(),
        "gift.not_found",
        "it is Jane's"
    );

    let coupon = gift(&cast, "discount", "coupon", 20, 1).await;
    let path = format!("/v1/gift-catalogue/{coupon}/give");
    for period in ["a", "b"] {
        let body = json!({"user_id": cast.user, "period_key": period, "reason": "a present"});
        assert_eq!(cast.own_post(&path, body).await.status, StatusCode::NO_CONTENT);
    }
    let gifts = cast.get("/v1/gifts").await.json();
    let ids: Vec<String> = (0..2).map(|n| gifts["data"][n]["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(cast.post(&format!("/v1/gifts/{}/claim", ids[0]), json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(cast.post(&format!("/v1/gifts/{}/claim", ids[1]), json!({})).await.problem(), "gift.sold_out");
    let code = cast.get("/v1/gifts").await.json()["data"][0]["coupon"].as_str().map(ToOwned::to_owned);
    assert!(code.is_some_and(|code| code.starts_with("GIFT-")));
    let expired =
        json!({"user_id": cast.user, "period_key": "late", "reason": "x", "expires_at": "2001-01-01T00:00:00Z"});
    assert_eq!(
        cast.own_post(&format!("/v1/gift-catalogue/{credits}/give"), expired).await.status,
        StatusCode::NO_CONTENT
    );
    let late = cast.get("/v1/gifts?limit=1").await.json();
    assert_eq!(late["data"][0]["state"], "expired");
    let claim = format!("/v1/gifts/{}/claim", late["data"][0]["id"].as_str().unwrap());
    assert_eq!(cast.post(&claim, json!({})).await.problem(), "gift.expired");
    sound(&cast.world.db).await;
}

/// Twenty seconds pay for one film: the next one is what it was before, free of charge here.
#[sqlx::test(migrations = "../migrations")]
async fn a_gift_that_is_claimed_locks_nobody_out_of_films_that_are_free_for_all(db: PgPool) {
    let cast = cast(db).await;
    let present = gift(&cast, "present", "credits", 20, 1).await;
    let body = json!({"user_id": cast.user, "period_key": "a", "reason": "a present"});
    cast.own_post(&format!("/v1/gift-catalogue/{present}/give"), body).await;
    let id = cast.get("/v1/gifts").await.json()["data"][0]["id"].as_str().unwrap().to_owned();
    assert_eq!(cast.post(&format!("/v1/gifts/{id}/claim"), json!({})).await.status, StatusCode::NO_CONTENT);
    let mut held = vec![];
    for _ in 0..2 {
        let ordered = cast.post("/v1/renders", order()).await;
        assert_eq!(ordered.status, StatusCode::ACCEPTED, "{:?}", ordered.body);
        held.push(cast.get("/v1/credits").await.json()["held"].as_i64().unwrap());
    }
    assert_eq!(held, [19, 19], "the gift has paid for the first, and the second is free");
    sound(&cast.world.db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_gift_that_does_not_fit_stays_to_be_claimed(db: PgPool) {
    let cast = cast(db).await;
    let present = gift(&cast, "present", "credits", 20, 1).await;
    let body = json!({"user_id": cast.user, "period_key": "a", "reason": "a present"});
    cast.own_post(&format!("/v1/gift-catalogue/{present}/give"), body).await;
    let full = 1_000_000_000_000;
    assert_eq!(cast.grant(full - 19, "all").await.status, StatusCode::OK);
    let id = cast.get("/v1/gifts").await.json()["data"][0]["id"].as_str().unwrap().to_owned();
    let claim = format!("/v1/gifts/{id}/claim");
    assert_eq!(cast.post(&claim, json!({})).await.problem(), "credits.full");
    assert_eq!(cast.get("/v1/gifts").await.json()["data"][0]["state"], "earned");
    assert_eq!(cast.world.count("identity.gift_catalog where redeemed > 0").await, 0);
    assert_eq!(cast.grant(-1, "spent").await.status, StatusCode::OK);
    assert_eq!(cast.post(&claim, json!({})).await.status, StatusCode::NO_CONTENT);
    assert_eq!(cast.get("/v1/credits").await.json()["balance"], full);
    sound(&cast.world.db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn everybody_is_brought_once_by_somebody_else_and_the_reward_comes_once(db: PgPool) {
    let cast = cast(db).await;
    let invite = async |by: &str| -> String {
        let made = ask(&cast.world, by, Method::POST, "/v1/referrals", None).await;
        assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
        made.json()["code"].as_str().unwrap().to_owned()
    };
    let (of_jane, of_owner) = (invite(&cast.jane).await, invite(&cast.owner).await);
    let join = async |by: &str, code: &str| {
        ask(&cast.world, by, Method::POST, "/v1/referrals/join", Some(json!({ "code": code }))).await
    };
    assert_eq!(join(&cast.jane, &of_jane).await.problem(), "referral.self");
    assert_eq!(join(&cast.jane, "NOBODY").await.problem(), "referral.not_found");
    assert_eq!(join(&cast.jane, &of_owner).await.status, StatusCode::NO_CONTENT);
    let other = invite(&cast.owner).await;
    assert_eq!(join(&cast.jane, &other).await.problem(), "referral.late", "once");
    assert_eq!(join(&cast.owner, &of_owner).await.problem(), "referral.self");
    let points = async || -> Value {
        ask(&cast.world, &cast.owner, Method::GET, "/v1/me/progress", None).await.json()["points"].clone()
    };
    assert_eq!(points().await, 0);
    for _ in 0..2 {
        done(&cast, cast.user, Source::Render, Uuid::now_v7()).await;
        assert_eq!(points().await, 100);
    }
    let mine = ask(&cast.world, &cast.owner, Method::GET, "/v1/referrals", None).await.json();
    let states: Vec<&Value> = mine["data"].as_array().unwrap().iter().map(|r| &r["state"]).collect();
    assert_eq!(states.iter().filter(|s| **s == "rewarded").count(), 1);
    sound(&cast.world.db).await;
}
