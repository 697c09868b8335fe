//! What tenants see of their deliveries, and how they send them again.

use crate::{
    kit::{Receiver, Shop},
    world::{request, with_json},
};
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::collections::BTreeSet;
use uuid::Uuid;

fn id(of: &Value) -> String {
    of["id"].as_str().unwrap().to_owned()
}

#[sqlx::test(migrations = "../migrations")]
async fn deliveries_are_listed_by_pages_states_and_events(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[("/a", &[200, 200, 200, 410])]).await;
    let hook = shop.hook(&format!("{}/a", receiver.url), &["*"]).await;
    let other = shop.hook(&format!("{}/b", receiver.url), &["gift.earned"]).await;
    let mut subjects = vec![];
    for kind in ["render.completed", "gift.earned", "render.completed", "render.failed"] {
        subjects.push(shop.happens(kind).await);
        shop.settle().await;
    }
    let path = format!("/v1/webhooks/{}/deliveries", hook.id);
    let mut seen = vec![];
    let mut cursor = String::new();
    loop {
        let page = shop.get(&format!("{path}?limit=3{cursor}")).await.json();
        seen.extend(page["data"].as_array().unwrap().clone());
        match page["next_cursor"].as_str() {
            Some(next) if page["has_more"] == true => cursor = format!("&starting_after={next}"),
            _ => break,
        }
    }
    let kinds: Vec<&str> = seen.iter().map(|d| d["event_type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["render.failed", "render.completed", "gift.earned", "render.completed"]);
    assert_eq!(seen.iter().map(id).collect::<BTreeSet<_>>().len(), 4);
    assert_eq!(shop.deliveries(&hook, "&state=failed").await.len(), 1);
    assert_eq!(shop.deliveries(&hook, "&state=delivered&type=render.completed").await.len(), 2);
    assert_eq!(shop.deliveries(&other, "").await.len(), 1);
    for wrong in ["?state=lost", "?limit=0", "?limit=101", "?starting_after=x", "?nonsense=1"] {
        assert_eq!(shop.get(&format!("{path}{wrong}")).await.problem(), "query.invalid", "{wrong}");
    }
    let one = shop.get(&format!("{path}/{}", id(&seen[3]))).await.json();
    assert_eq!((&one["data"]["id"], &one["attempts"][0]["no"]), (&json!(subjects[0]), &json!(1)));
    assert!(one["attempts"][0]["latency_ms"].is_i64() && one["next_at"].is_null());
    let theirs = format!("/v1/webhooks/{}/deliveries/{}", other.id, id(&seen[3]));
    assert_eq!(shop.get(&theirs).await.problem(), "webhook.delivery_not_found", "it is of another webhook");
    let stranger = shop.world.tenant("stranger").await;
    let key = shop.world.key_for(stranger, &["webhooks", "admin"]).await.1;
    for (method, path) in [
        (Method::GET, path.clone()),
        (Method::GET, format!("{path}/{}", id(&seen[3]))),
        (Method::POST, format!("{path}/{}/replay", id(&seen[3]))),
        (Method::POST, format!("/v1/webhooks/{}/replay", hook.id)),
        (Method::POST, format!("/v1/webhooks/{}/test", hook.id)),
    ] {
        let answer = shop.world.send(with_json(request(method, &path, &key), &json!({}))).await;
        assert_eq!(answer.problem(), "webhook.not_found", "{path}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_delivery_is_sent_again_under_its_id_with_a_new_signature(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[]).await;
    let hook = shop.hook(&format!("{}/a", receiver.url), &["*"]).await;
    shop.happens("render.completed").await;
    let [delivery] = &shop.deliveries(&hook, "").await[..] else { panic!("there is one") };
    let path = format!("/v1/webhooks/{}/deliveries/{}/replay", hook.id, id(delivery));
    assert_eq!(shop.send(Method::POST, &path, json!({})).await.problem(), "webhook.delivery_pending");
    shop.settle().await;
    let again = shop.send(Method::POST, &path, json!({})).await;
    assert_eq!((again.status, &again.json()["replay_no"]), (StatusCode::ACCEPTED, &json!(1)), "{:?}", again.body);
    // Two at once take numbers of their own.
    let both = tokio::join!(shop.send(Method::POST, &path, json!({})), shop.send(Method::POST, &path, json!({})));
    let numbers = BTreeSet::from([&both.0, &both.1].map(|a| a.json()["replay_no"].as_i64().unwrap()));
    assert_eq!(numbers, BTreeSet::from([2, 3]));
    shop.settle().await;
    let got = receiver.at("/a");
    assert_eq!(got.len(), 4);
    assert!(got.iter().all(|g| g.header("webhook-id") == got[0].header("webhook-id") && g.body == got[0].body));
    assert!(got.iter().all(|g| g.is_signed_with(&hook.secret)));
    let actions: i64 = sqlx::query_scalar("select count(*) from identity.audit_log where action = 'webhook.replay'")
        .fetch_one(shop.db())
        .await
        .unwrap();
    assert_eq!(actions, 3);
}

#[sqlx::test(migrations = "../migrations")]
async fn what_failed_within_a_time_is_sent_again_at_once(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[("/a", &[404])]).await;
    let hook = shop.hook(&format!("{}/a", receiver.url), &["render.failed", "render.completed"]).await;
    let now = async || -> String {
        sqlx::query_scalar("select to_char(workflow.now() at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"')")
            .fetch_one(shop.db())
            .await
            .unwrap()
    };
    shop.happens("render.failed").await;
    let from = now().await;
    shop.happens("render.completed").await;
    shop.happens("render.failed").await;
    let until = now().await;
    shop.happens("render.failed").await;
    shop.settle().await;
    let path = format!("/v1/webhooks/{}/replay", hook.id);
    let replay = async |body: Value| {
        let answer = shop.send(Method::POST, &path, body).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED, "{:?}", answer.body);
        answer.json()["count"].as_i64().unwrap()
    };
    assert_eq!(replay(json!({"state": "delivered"})).await, 0);
    assert_eq!(replay(json!({"state": "failed", "type": "render.failed", "from": from, "until": until})).await, 1);
    assert_eq!(replay(json!({"from": from, "until": until})).await, 1, "the other one is being sent");
    shop.settle().await;
    // By now nothing has arrived for five days.
    assert_eq!(shop.view(&hook).await["state"], "paused");
    shop.send(Method::PATCH, &format!("/v1/webhooks/{}", hook.id), json!({"active": true})).await;
    assert_eq!(replay(json!({})).await, 4, "each event once, however often it was sent");
    for (wrong, fault) in
        [(json!({"state": "pending"}), "/state webhook.state"), (json!({"type": "x"}), "/type webhook.events")]
    {
        assert_eq!(shop.send(Method::POST, &path, wrong).await.faults(), [fault]);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_webhook_is_tried_with_an_event_of_its_own(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[]).await;
    let hook = shop.hook(&format!("{}/a", receiver.url), &["render.failed"]).await;
    let other = shop.hook(&format!("{}/b", receiver.url), &["*"]).await;
    shop.pass(60.0).await;
    let test = format!("/v1/webhooks/{}/test", hook.id);
    assert_eq!(shop.send(Method::POST, &test, json!({})).await.status, StatusCode::ACCEPTED);
    shop.send(Method::PATCH, &format!("/v1/webhooks/{}", hook.id), json!({"active": false})).await;
    let paused = shop.send(Method::POST, &test, json!({})).await;
    assert_eq!((paused.status, &paused.json()["event_type"]), (StatusCode::ACCEPTED, &json!("webhook.test")));
    shop.pass(120.0).await;
    shop.settle().await;
    let got = receiver.at("/a");
    assert!(got.len() == 2 && got.iter().all(|g| g.is_signed_with(&hook.secret) && g.json()["type"] == "webhook.test"));
    assert!(receiver.at("/b").is_empty() && shop.deliveries(&other, "").await.is_empty());
    let sql = "update identity.tenant_webhooks set state = 'disabled', disabled_reason = 'gone'";
    sqlx::query(sql).execute(shop.db()).await.unwrap();
    assert_eq!(shop.send(Method::POST, &test, json!({})).await.problem(), "webhook.not_active");
    let none = format!("/v1/webhooks/{}/test", Uuid::now_v7());
    assert_eq!(shop.send(Method::POST, &none, json!({})).await.problem(), "webhook.not_found");
}

#[sqlx::test(migrations = "../migrations")]
async fn every_event_can_be_subscribed_to_and_shows_what_it_tells(db: PgPool) {
    let shop = Shop::new(db).await;
    let events = shop.get("/v1/webhook-events").await.json();
    let events = events["data"].as_array().unwrap();
    assert!(events.len() >= 17);
    for event in events {
        assert_eq!(event["example"]["type"], event["type"]);
        let body = json!({"url": "http://127.0.0.1:9/", "events": [event["type"]]});
        let made = shop.send(Method::POST, "/v1/webhooks", body).await;
        let expected =
            if event["type"] == "webhook.test" { StatusCode::UNPROCESSABLE_ENTITY } else { StatusCode::CREATED };
        assert_eq!(made.status, expected, "{:?}", made.body);
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn a_webhook_may_be_signed_by_a_key_that_only_we_have(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[]).await;
    let make = async |signing: &str| {
        let body = json!({"url": format!("{}/a", receiver.url), "signing": signing});
        shop.send(Method::POST, "/v1/webhooks", body).await
    };
    let made = make("v1a").await.json();
    let first = made["secret"].as_str().unwrap().to_owned();
    assert!(first.starts_with("whpk_") && made["signing"] == "v1a", "{made}");
    let rotate = format!("/v1/webhooks/{}/rotate-secret", id(&made));
    let second = shop.send(Method::POST, &rotate, json!({})).await.json()["secret"].as_str().unwrap().to_owned();
    assert!(second.starts_with("whpk_") && second != first);
    shop.happens("render.completed").await;
    shop.settle().await;
    let [got] = &receiver.at("/a")[..] else { panic!("there is one") };
    assert!(got.is_signed_with(&first) && got.is_signed_with(&second));
    assert!(got.header("webhook-signature").split(' ').all(|signature| signature.starts_with("v1a,")));
    let stranger = make("v1a").await.json()["secret"].as_str().unwrap().to_owned();
    assert!(!got.is_signed_with(&stranger));
    assert_eq!(make("v2").await.faults(), ["/signing webhook.signing"]);
}
