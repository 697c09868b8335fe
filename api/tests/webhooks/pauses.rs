//! Webhooks that fail for too long, and what they missed.

use crate::kit::{Hook, Receiver, Shop};
use axum::http::{Method, StatusCode};
use flatrender_workflows::models::{Role, Scope, identity::tenant_webhook_delivery};
use serde_json::json;
use sqlx::PgPool;

async fn failing_since(shop: &Shop, hook: &Hook, times: i32, age: &str) {
    let sql = "update identity.tenant_webhooks set consecutive_failures = $2, first_failure_at = workflow.now() - $3::interval where id = $1";
    sqlx::query(sql).bind(hook.id).bind(times).bind(age).execute(shop.db()).await.unwrap();
}

async fn patch(shop: &Shop, hook: &Hook, active: bool) {
    let answer = shop.send(Method::PATCH, &format!("/v1/webhooks/{}", hook.id), json!({"active": active})).await;
    assert_eq!(answer.status, StatusCode::OK, "{:?}", answer.body);
}

/// So that nobody has just been changed when something happens.
async fn a_minute_later(shop: &Shop) {
    shop.pass(60.0).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_has_failed_for_five_days_is_paused_and_gets_what_it_missed_when_it_goes_on(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[("/dead", &[500, 500, 200])]).await;
    let dead = shop.hook(&format!("{}/dead", receiver.url), &["*"]).await;
    let alive = shop.hook(&format!("{}/alive", receiver.url), &["webhook.paused"]).await;
    a_minute_later(&shop).await;
    failing_since(&shop, &dead, 9, "4 days 23 hours").await;
    shop.happens("render.completed").await;
    shop.work();
    until(&shop, &dead, "&state=pending", 1, 1).await;
    assert_eq!(shop.view(&dead).await["state"], "active", "not yet");
    failing_since(&shop, &dead, 10, "5 days").await;
    shop.happens("render.failed").await;
    until(&shop, &alive, "&state=delivered", 1, 1).await;
    let view = shop.view(&dead).await;
    assert_eq!(
        (&view["state"], &view["disabled_reason"]),
        (&json!("paused"), &json!("nothing has arrived for five days"))
    );
    let told = receiver.at("/alive")[0].json();
    assert_eq!((&told["type"], &told["data"]["id"]), (&json!("webhook.paused"), &json!(dead.id)));

    a_minute_later(&shop).await;
    shop.happens("render.cancelled").await;
    // What was under way when it was paused is missed as soon as its time comes, and so is what happens meanwhile.
    until(&shop, &dead, "&state=missed", 3, 0).await;
    assert_eq!(receiver.at("/dead").len(), 2, "nothing is sent to one that is paused");
    let replay = format!("/v1/webhooks/{}/replay", dead.id);
    assert_eq!(shop.send(Method::POST, &replay, json!({"state": "missed"})).await.problem(), "webhook.not_active");
    patch(&shop, &dead, true).await;
    let sent = shop.send(Method::POST, &replay, json!({"state": "missed"})).await;
    assert_eq!((sent.status, &sent.json()["count"]), (StatusCode::ACCEPTED, &json!(3)), "{:?}", sent.body);
    until(&shop, &dead, "&state=delivered", 3, 1).await;
    let again = shop.send(Method::POST, &replay, json!({"state": "missed"})).await.json();
    assert_eq!(
        (&again["count"], &again["has_more"]),
        (&json!(0), &json!(false)),
        "what has arrived is not missed any more"
    );
    shop.check().await;
}

/// Waits until so many deliveries are as asked for, and have been tried so often.
pub async fn until(shop: &Shop, hook: &Hook, query: &str, count: usize, attempts: usize) {
    for n in 0..600 {
        let found = shop.deliveries(hook, query).await;
        let tried = |d: &&serde_json::Value| d["attempts"].as_array().unwrap().len() >= attempts;
        if found.iter().filter(tried).count() == count {
            return;
        }
        // A pause of seconds passes by itself, longer ones are skipped.
        if n % 10 == 9 {
            flatrender_engine::testing::skip_to_next_timer(shop.db()).await.unwrap();
        }
        tokio::time::sleep(std::time::Duration::from_millis(25)).await;
    }
    panic!("{query}: {:?}", shop.deliveries(hook, "").await);
}

#[sqlx::test(migrations = "../migrations")]
async fn fifty_failures_within_a_day_pause_a_webhook_of_which_nothing_has_arrived_for_a_day(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[("/dead", &[500])]).await;
    let dead = shop.hook(&format!("{}/dead", receiver.url), &["render.completed"]).await;
    for _ in 0..24 {
        shop.happens("render.completed").await;
    }
    shop.work();
    until(&shop, &dead, "&state=pending", 24, 2).await;
    failing_since(&shop, &dead, 48, "1 day").await;
    assert_eq!(shop.view(&dead).await["state"], "active");
    shop.happens("render.completed").await;
    until(&shop, &dead, "", 25, 2).await;
    let view = shop.view(&dead).await;
    assert_eq!(view["state"], "paused", "{view}");
    assert!(view["disabled_reason"].as_str().unwrap().contains("fifty"), "{view}");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_receiver_that_is_gone_is_not_called_again_and_its_tenant_hears_of_it(db: PgPool) {
    let shop = Shop::new(db).await;
    let receiver = Receiver::answering(&[("/gone", &[410])]).await;
    let gone = shop.hook(&format!("{}/gone", receiver.url), &["*"]).await;
    let other = shop.hook(&format!("{}/other", receiver.url), &["webhook.disabled"]).await;
    a_minute_later(&shop).await;
    shop.happens("render.completed").await;
    shop.settle().await;
    a_minute_later(&shop).await;
    shop.happens("render.completed").await;
    shop.settle().await;
    assert_eq!((receiver.at("/gone").len(), receiver.at("/other").len()), (1, 1));
    assert_eq!(receiver.at("/other")[0].json()["data"]["id"], json!(gone.id));
    assert_eq!(shop.deliveries(&gone, "").await.len(), 1, "one that is disabled misses nothing: it hears of nothing");
    assert_eq!(shop.view(&other).await["state"], "active");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_delivery_whose_run_the_engine_gave_up_is_settled_however_many_wait_for_their_next_attempt(db: PgPool) {
    let shop = Shop::new(db).await;
    let hook = shop.hook("http://127.0.0.1:1/dead", &["*"]).await;
    a_minute_later(&shop).await;
    shop.happens("render.completed").await;
    let waiting = "insert into identity.tenant_webhook_deliveries
                       (occurred_at, tenant_id, webhook_id, event_id, replay_no, workflow_run_id, next_at, created_at, updated_at)
                   select occurred_at, tenant_id, webhook_id, event_id, n, lpad(to_hex(n), 32, '0')::uuid,
                       workflow.now() + interval '1 hour', created_at, updated_at
                   from identity.tenant_webhook_deliveries, generate_series(1, 10000) n";
    sqlx::query(waiting).execute(shop.db()).await.unwrap();
    shop.happens("render.failed").await;
    let give_up = r#"select workflow.end_run(t.id, 'failed', null,
            '{"code": "workflow.lost_too_often", "message": "given up", "retryable": false}')
        from identity.tenant_webhook_deliveries d join identity.tenant_webhook_events e on e.id = d.event_id
        join workflow.tasks t on t.run_id = d.workflow_run_id where e.type = 'render.failed'"#;
    sqlx::query(give_up).execute(shop.db()).await.unwrap();
    a_minute_later(&shop).await;
    let mut tx = Scope::platform(Role::Identity).begin(shop.db()).await.unwrap();
    assert_eq!(tenant_webhook_delivery::settle_abandoned(&mut tx).await.unwrap(), 1);
    tx.commit().await.unwrap();
    let settled = shop.deliveries(&hook, "&state=failed").await;
    assert_eq!((settled.len(), &settled[0]["event_type"]), (1, &json!("render.failed")));
}
