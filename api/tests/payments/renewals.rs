//! A plan that is renewed by a payment nobody had to open, an event that two accounts hear of, and differences that two people explain.

use crate::gateways::Street;
use axum::http::{Method, StatusCode};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;

/// The payments for plans, oldest first, as they are.
async fn states(street: &Street) -> Vec<String> {
    let sql = "select coalesce(substring(idempotency_key from '^renewal:.*:(.*)$'), 'asked for') || ' ' || state from identity.payments
               where purpose = 'plan' order by created_at, id";
    sqlx::query_scalar(sql).fetch_all(&street.shop.world.db).await.unwrap()
}

async fn come(street: &Street, expected: &[&str]) {
    for _ in 0..1500 {
        if states(street).await == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(states(street).await, expected);
}

/// Waits until a payment was opened when something was told; gives it, and what its gateway calls it.
pub async fn opened(street: &Street, told: &str, n: i64) -> (String, String) {
    let sql = "select id::text, provider_ref from identity.payments where idempotency_key like 'renewal:%:' || $1 and state = 'pending'
               order by created_at";
    for _ in 0..1500 {
        let found: Option<(String, String)> =
            sqlx::query_as(sql).bind(told).fetch_optional(&street.shop.world.db).await.unwrap();
        match found {
            Some(found) => return found,
            None => tokio::time::sleep(Duration::from_millis(20)).await,
        }
    }
    panic!("nothing is open ({n}): {:?}", states(street).await);
}

/// Lets so many minutes pass since the end of the period.
pub async fn until(street: &Street, minutes: i64) {
    let sql =
        "select (extract(epoch from current_period_end - workflow.now()) / 60)::bigint from identity.subscriptions";
    let left: i64 = sqlx::query_scalar(sql).fetch_one(&street.shop.world.db).await.unwrap();
    street.pass(left + minutes).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_plan_is_renewed_by_a_payment_that_nobody_had_to_open(db: PgPool) {
    let street = Street::open(db).await;
    let shop = &street.shop;
    let id = shop.pay(shop.plan("stripe"), "a").await.json()["id"].as_str().unwrap().to_owned();
    shop.comes(&id, "pending").await;
    let sql = "select provider_ref from identity.payments where id = $1::uuid";
    let name: String = sqlx::query_scalar(sql).bind(&id).fetch_one(&shop.world.db).await.unwrap();
    street.stripe.pay(&name);
    street.back(&id).await;
    shop.comes(&id, "paid").await;

    // Three days before the end: the notice brings a payment along, which pays the next period.
    const DAY: i64 = 24 * 60;
    until(&street, -3 * DAY + 5).await;
    let (renewal, name) = opened(&street, "notice", 1).await;
    let told =
        "select data->>'payment_id' from notification.notifications where template_code = 'subscription.renewal_soon'";
    let mut payment: Option<String> = None;
    for _ in 0..500 {
        payment = sqlx::query_scalar(told).fetch_optional(&shop.world.db).await.unwrap();
        if payment.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(payment.as_ref(), Some(&renewal));
    let link =
        "select data->>'action_url' from notification.notifications where template_code = 'subscription.renewal_soon'";
    let link: String = sqlx::query_scalar(link).fetch_one(&shop.world.db).await.unwrap();
    assert_eq!(link, format!("/billing/payments/{renewal}"));
    let shown = shop.get(&format!("/v1/payments/{renewal}")).await.json();
    assert_eq!((&shown["amount"], shown["redirect_url"].is_string()), (&json!(1999), true), "{shown}");
    street.stripe.pay(&name);
    street.back(&renewal).await;
    shop.comes(&renewal, "paid").await;
    let period = "select period_no from identity.subscriptions";
    assert_eq!(sqlx::query_scalar::<_, i32>(period).fetch_one(&shop.world.db).await.unwrap(), 2);

    // Nobody pays: that one ends after a day, without a word, and another one comes when the plan is due.
    until(&street, -3 * DAY + 5).await;
    opened(&street, "notice", 2).await;
    street.pass(DAY + 5).await;
    come(&street, &["asked for paid", "notice paid", "notice expired"]).await;
    until(&street, 5).await;
    let (due, name) = opened(&street, "due", 3).await;
    assert_ne!(due, renewal);
    let failed = "select count(*) from workflow.runs where kind = 'notify' and business_key like '%:payment.failed'";
    assert_eq!(sqlx::query_scalar::<_, i64>(failed).fetch_one(&shop.world.db).await.unwrap(), 0);

    // Its payer opens one as well, and pays that: the other one is closed.
    sqlx::query("select platform.ensure_months(workflow.now(), now())").execute(&shop.world.db).await.unwrap();
    // A session ends when nobody uses it for a month.
    sqlx::query("update identity.user_sessions set idle_expires_at = absolute_expires_at")
        .execute(&shop.world.db)
        .await
        .unwrap();
    let own = shop.pay(shop.plan("stripe"), "b").await;
    assert_eq!(own.status, StatusCode::CREATED, "{:?}", own.body);
    let own = own.json()["id"].as_str().unwrap().to_owned();
    shop.comes(&own, "pending").await;
    let sql = "select provider_ref from identity.payments where id = $1::uuid";
    let own_name: String = sqlx::query_scalar(sql).bind(&own).fetch_one(&shop.world.db).await.unwrap();
    street.stripe.pay(&own_name);
    street.back(&own).await;
    shop.comes(&own, "paid").await;
    come(&street, &["asked for paid", "notice paid", "notice expired", "due cancelled", "asked for paid"]).await;
    assert!(!street.stripe.is_open(&name));
    let state = "select state from identity.subscriptions where period_no = 3";
    assert_eq!(sqlx::query_scalar::<_, String>(state).fetch_one(&shop.world.db).await.unwrap(), "active");
    shop.sound().await;
}

/// The account was put anew: two of ours are one at Stripe, which tells both of everything.
#[sqlx::test(migrations = "../migrations")]
async fn an_event_that_another_account_has_heard_counts_where_it_belongs(db: PgPool) {
    let street = Street::open(db).await;
    let settings = json!({"secret_key": crate::fakes::stripe::TEST_KEY, "webhook_secrets": [crate::fakes::stripe::WEBHOOK_SECRET]});
    let put: Value = street.shop.gateway("stripe", "test", settings).await;
    let account = put["id"].as_str().unwrap();
    assert_ne!(account, street.account);
    let (id, name) = street.pending("stripe").await;
    street.stripe.pay(&name);
    let event = street.stripe.events().into_iter().map(|(event, _)| event).next_back().unwrap();
    let webhook = street.stripe.webhook(&event);
    for hears in [street.account.as_str(), account, account] {
        assert_eq!(street.hear(hears, &webhook.body, &webhook.signature).await.status, StatusCode::OK);
    }
    street.shop.comes(&id, "paid").await;
    let kept = "select outcome from identity.payment_events order by received_at";
    let kept: Vec<String> = sqlx::query_scalar(kept).fetch_all(&street.shop.world.db).await.unwrap();
    assert_eq!(kept, ["ignored", "applied"]);
    street.shop.sound().await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_differs_from_a_gateway_is_explained_by_two_people(db: PgPool) {
    let street = Street::open(db).await;
    let shop = &street.shop;
    let found = "with day as (insert into identity.provider_reconciliations (tenant_id, provider, day, currency, our_amount, their_amount, state, note)
                     select tenant_id, provider, '2026-11-20', 'USD', 5, 9, 'open', 'pi_1: not ours, 4' from identity.payment_gateways where id = $1::uuid)
                 insert into identity.unmatched_payments (tenant_id, gateway_id, provider_ref, amount, currency, why)
                 select tenant_id, id, 'cs_1', 4, 'USD', 'unknown' from identity.payment_gateways where id = $1::uuid";
    sqlx::query(found).bind(&street.account).execute(&shop.world.db).await.unwrap();
    assert_eq!(shop.get("/v1/payment-differences").await.status, StatusCode::FORBIDDEN, "Jane does not manage");
    let list = async |query: &str| {
        let listed = shop.by(shop.first, Method::GET, &format!("/v1/payment-differences{query}"), Value::Null).await;
        listed.json()["data"].as_array().unwrap().clone()
    };
    let open = list("").await;
    assert_eq!(open.len(), 2, "{open:?}");
    assert_eq!(list(&format!("?starting_after={}", open[0]["id"].as_str().unwrap())).await, open[1..]);
    for difference in &open {
        let path = |what: &str| format!("/v1/payment-differences/{}/{what}", difference["id"].as_str().unwrap());
        let explain = json!({"explanation": "paid at the counter", "our_amount": difference["our_amount"], "their_amount": difference["their_amount"]});
        let at = path("").trim_end_matches('/').to_owned();
        assert_eq!(shop.by(shop.first, Method::GET, &at, Value::Null).await.json(), *difference);
        let said = shop.by(shop.first, Method::POST, &path("confirm"), explain.clone()).await;
        assert_eq!(said.problem(), "second_person.needed", "nobody has said anything");
        let mut other = explain.clone();
        other["explanation"] = json!(" ");
        let empty = shop.by(shop.first, Method::POST, &path("explain"), other.clone()).await;
        assert_eq!(empty.problem(), "request.invalid");
        other = explain.clone();
        other["their_amount"] = json!(8);
        let unseen = shop.by(shop.first, Method::POST, &path("explain"), other.clone()).await;
        assert_eq!(unseen.problem(), "payment_difference.over", "it is not what was seen");
        let said = shop.by(shop.first, Method::POST, &path("explain"), explain.clone()).await;
        assert_eq!(
            (said.status, &said.json()["explained_by"]),
            (StatusCode::OK, &json!(shop.first)),
            "{:?}",
            said.body
        );
        let own = shop.by(shop.first, Method::POST, &path("confirm"), explain.clone()).await;
        assert_eq!(own.problem(), "second_person.needed");
        for (name, value) in [("their_amount", json!(8)), ("explanation", json!("a gift"))] {
            let mut unread = explain.clone();
            unread[name] = value;
            let unread = shop.by(shop.second, Method::POST, &path("confirm"), unread).await;
            assert_eq!(unread.problem(), "payment_difference.over", "{name} is not what was said");
        }
        let confirmed = shop.by(shop.second, Method::POST, &path("confirm"), explain.clone()).await;
        assert_eq!((confirmed.status, &confirmed.json()["confirmed_by"]), (StatusCode::OK, &json!(shop.second)));
        let late = shop.by(shop.first, Method::POST, &path("explain"), explain).await;
        assert_eq!(late.problem(), "payment_difference.over");
    }
    assert_eq!((list("").await.len(), list("?all=true").await.len()), (0, 2));
    let audited = "select count(*) from identity.audit_log where action like 'payment_difference.%'";
    assert_eq!(sqlx::query_scalar::<_, i64>(audited).fetch_one(&shop.world.db).await.unwrap(), 4);
    let said = json!({"explanation": "a gift", "our_amount": 0, "their_amount": 0});
    let nobody = format!("/v1/payment-differences/{}/confirm", shop.plan);
    assert_eq!(shop.by(shop.first, Method::POST, &nobody, said).await.problem(), "payment_difference.not_found");
    shop.sound().await;
}
