//! Bills that are sent again: to whoever paid, in the words of the first time, and not without end.

use crate::{
    by_hand::{agree, pending, refunds_of, said},
    shop::Shop,
    world::{request, with_json},
};
use axum::http::{Method, StatusCode, header};
use flatrender_workflows::models::DEFAULT_TENANT;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;

/// A shop where Jane has paid; gives the payment, too.
async fn sold(db: PgPool) -> (Shop, String) {
    let shop = Shop::open(db).await;
    shop.gateway("manual", "live", json!({"instructions": "To us", "merchant": "us"})).await;
    shop.work();
    let id = pending(&shop, "a").await;
    let path = format!("/v1/payments/{id}/decisions");
    assert_eq!(agree(&shop, &path, said("paid", "t-1", 500)).await.status, StatusCode::OK);
    shop.comes(&id, "paid").await;
    (shop, id)
}

/// The newest bill or credit note of a payment.
async fn newest(shop: &Shop, payment: &str) -> Value {
    shop.get(&format!("/v1/invoices?payment_id={payment}")).await.json()["data"][0].clone()
}

fn sending(bill: &Value) -> String {
    format!("/v1/invoices/{}/send", bill["id"].as_str().unwrap())
}

/// Waits until Jane was told so often; gives in which different words.
async fn told(shop: &Shop, code: &str, times: i64) -> Vec<String> {
    let sql =
        "select n.title || ': ' || n.body from notification.notifications n join identity.users u on u.id = n.user_id
               where n.template_code = $1 and u.email = 'jane@example.com'";
    let mut all: Vec<String> = vec![];
    for _ in 0..500 {
        all = sqlx::query_scalar(sql).bind(code).fetch_all(&shop.world.db).await.unwrap();
        if all.len() as i64 >= times {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(all.len() as i64, times, "{code}: {all:?}");
    all.sort();
    all.dedup();
    all
}

/// Nothing is sent for so long that it may be again.
async fn later(shop: &Shop) {
    let sql = "update identity.invoices set sent_at = sent_at - interval '10 minutes'";
    sqlx::query(sql).execute(&shop.world.db).await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_bill_is_sent_again_once_in_ten_minutes_by_who_paid_or_who_manages(db: PgPool) {
    let (shop, id) = sold(db).await;
    let bill = newest(&shop, &id).await;
    let first = told(&shop, "payment.paid", 1).await;
    assert!(first[0].contains(bill["number"].as_str().unwrap()), "{first:?}");
    let sent = shop.post(&sending(&bill), json!({})).await;
    assert_eq!((sent.status, sent.json()), (StatusCode::ACCEPTED, bill.clone()));
    assert_eq!(told(&shop, "payment.paid", 2).await, first, "in the same words");
    let again = shop.by(shop.first, Method::POST, &sending(&bill), json!({})).await;
    assert_eq!((again.status.as_u16(), again.problem().as_str()), (429, "invoice.just_sent"));
    let wait: u64 = again.header(header::RETRY_AFTER).parse().unwrap();
    assert!((1..=600).contains(&wait), "{wait}");
    later(&shop).await;
    let by_owner = shop.by(shop.first, Method::POST, &sending(&bill), json!({})).await;
    assert_eq!(by_owner.status, StatusCode::ACCEPTED, "{:?}", by_owner.body);
    told(&shop, "payment.paid", 3).await;
    let sql =
        "select actor from identity.audit_log where action = 'invoice.send' and object = 'invoice:' || $1 order by seq";
    let audited: Vec<String> =
        sqlx::query_scalar(sql).bind(bill["id"].as_str().unwrap()).fetch_all(&shop.world.db).await.unwrap();
    assert_eq!((audited.len(), &audited[1]), (2, &format!("user:{}", shop.first)), "what was refused is no deed");
    shop.sound().await;
}

/// Many who press the button at once send one message.
#[sqlx::test(migrations = "../migrations")]
async fn of_many_who_send_a_bill_at_once_one_does(db: PgPool) {
    let (shop, id) = sold(db).await;
    let path = sending(&newest(&shop, &id).await);
    told(&shop, "payment.paid", 1).await;
    let all = futures::future::join_all((0..20).map(|_| shop.post(&path, json!({})))).await;
    assert_eq!(all.iter().filter(|answer| answer.status == StatusCode::ACCEPTED).count(), 1);
    assert!(all.iter().all(|a| a.status == StatusCode::ACCEPTED || a.problem() == "invoice.just_sent"));
    told(&shop, "payment.paid", 2).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_credit_note_is_sent_again_as_what_went_back(db: PgPool) {
    let (shop, id) = sold(db).await;
    let ask = json!({"amount": 200, "reason": "the film was late"});
    let refund = shop.by(shop.first, Method::POST, &format!("/v1/payments/{id}/refunds"), ask).await.json();
    let refund = format!("/v1/refunds/{}", refund["id"].as_str().unwrap());
    let approved = shop.by(shop.second, Method::POST, &format!("{refund}/approve"), json!({})).await;
    assert_eq!(approved.status, StatusCode::OK);
    for _ in 0..500 {
        if refunds_of(&shop, &id).await[0]["state"] == "manual" {
            break;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let back = json!({"outcome": "refunded", "transaction": "t-9", "evidence": "Statement, line 9"});
    assert_eq!(agree(&shop, &format!("{refund}/decisions"), back).await.status, StatusCode::OK);
    shop.comes(&id, "partially_refunded").await;
    let note = newest(&shop, &id).await;
    assert_eq!(note["kind"], "credit_note");
    let first = told(&shop, "refund.done", 1).await;
    assert_eq!(shop.post(&sending(&note), json!({})).await.status, StatusCode::ACCEPTED);
    assert_eq!(told(&shop, "refund.done", 2).await, first);
    assert!(first[0].contains("2.00 USD"), "{first:?}");
    shop.sound().await;
}

/// It is Jane's: for anybody else who does not manage the tenant it is not there, and nothing is sent.
#[sqlx::test(migrations = "../migrations")]
async fn a_bill_of_somebody_else_is_not_there_to_be_sent(db: PgPool) {
    let (shop, id) = sold(db).await;
    let bill = newest(&shop, &id).await;
    let joe = shop.world.person(DEFAULT_TENANT, "joe@example.com", &["editor"]).await;
    assert_eq!(shop.by(joe, Method::POST, &sending(&bill), json!({})).await.problem(), "invoice.not_found");
    let list = format!("/v1/invoices?payment_id={id}");
    assert_eq!(shop.by(joe, Method::GET, &list, Value::Null).await.json()["data"], json!([]));
    let stranger = shop.world.tenant("stranger").await;
    let boss = shop.world.person(stranger, "boss@example.com", &["owner"]).await;
    let boss = shop.world.session(stranger, boss).await;
    let ask = with_json(request(Method::POST, &sending(&bill), &boss), &json!({}));
    assert_eq!(shop.world.send(ask).await.problem(), "invoice.not_found");
    assert_eq!(shop.world.count("identity.invoices where sent_at is not null").await, 0);
    assert_eq!(shop.world.count("identity.audit_log where action = 'invoice.send'").await, 0);
}
