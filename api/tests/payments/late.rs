//! What comes early, twice, in another order, too late, or back again.

use crate::{
    fakes::{
        faults::{Call, Fault, How},
        server::Server,
    },
    gateways::Street,
    world::Answer,
};
use axum::{
    Router,
    body::Bytes,
    http::{HeaderMap, Method, StatusCode},
    routing::post,
};
use chrono::TimeDelta;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};

impl Street {
    /// Tells of an event, signed now.
    pub async fn sent(&self, event: &str) -> Answer {
        let webhook = self.stripe.webhook(event);
        self.hear(&self.account, &webhook.body, &webhook.signature).await
    }

    /// One asks for money to go back, another one agrees; gives the refund.
    pub async fn give_back(&self, payment: &str, amount: i64) -> String {
        let path = format!("/v1/payments/{payment}/refunds");
        let body = json!({"amount": amount, "reason": "late"});
        let asked = self.shop.by(self.shop.first, Method::POST, &path, body).await.json();
        let refund = format!("/v1/refunds/{}", asked["id"].as_str().unwrap());
        let agreed = self.shop.by(self.shop.second, Method::POST, &format!("{refund}/approve"), json!({})).await;
        assert_eq!(agreed.status, StatusCode::OK, "{:?}", agreed.body);
        refund
    }

    pub async fn refund_comes(&self, refund: &str, state: &str) -> Value {
        let mut now = Value::Null;
        for _ in 0..500 {
            now = self.shop.by(self.shop.first, Method::GET, refund, Value::Null).await.json();
            if now["state"] == state {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(40)).await;
        }
        panic!("it is not {state}: {now}");
    }
}

/// Where Stripe tells of what came early. It is kept until somebody passes it on.
pub struct Post {
    pub url: String,
    came: Came,
    _server: Server,
}

/// Signatures and bodies.
type Came = Arc<Mutex<Vec<(String, Vec<u8>)>>>;

impl Post {
    pub fn open() -> Self {
        let came = Came::default();
        let kept = came.clone();
        let receive = async move |headers: HeaderMap, body: Bytes| {
            kept.lock().unwrap().push((headers["stripe-signature"].to_str().unwrap().to_owned(), body.to_vec()));
        };
        let server = Server::start(Router::new().route("/in", post(receive)), 0);
        Self { url: format!("{}/in", server.url), came, _server: server }
    }

    /// The newest.
    pub fn take(&self) -> Option<(String, Vec<u8>)> {
        self.came.lock().unwrap().pop()
    }
}

/// A webhook that is there before its payment is known as open, then all of them twice and the last one first: paid once.
#[sqlx::test(migrations = "../migrations")]
async fn webhooks_come_early_twice_and_in_another_order_and_count_once(db: PgPool) {
    let street = Street::open(db).await;
    let post = Post::open();
    street.stripe.early(&post.url);
    // It is opened, paid and told of, and nobody hears that it was opened.
    street.stripe.fail(Call::Create, Fault::After(How::Cut));
    let opened = street.shop.pay(street.shop.credits("stripe"), "early").await;
    let id = opened.json()["id"].as_str().unwrap().to_owned();
    let mut early = None;
    for _ in 0..500 {
        early = post.take();
        if early.is_some() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let (signature, body) = early.expect("it was told of");
    assert_eq!(street.hear(&street.account, &body, &signature).await.status, StatusCode::OK);
    street.shop.comes(&id, "paid").await;
    let applied = street.shop.world.count("identity.payment_events where outcome = 'applied'").await;
    assert_eq!((applied, street.shop.balance().await), (1, 3600), "by the hint alone");
    // Another one: the last event first, each of them three times.
    let (id, name) = street.pending("stripe").await;
    street.stripe.refuse(&name);
    street.stripe.pay(&name);
    let events: Vec<String> = street.stripe.events().into_iter().map(|(event, _)| event).rev().collect();
    let mut slow = 0;
    for event in events.iter().chain(&events).chain(events.iter().rev()) {
        let begun = Instant::now();
        assert_eq!(street.sent(event).await.status, StatusCode::OK);
        slow += usize::from(begun.elapsed() > Duration::from_secs(1));
    }
    assert!(slow <= 1, "{slow} were answered after more than a second");
    street.shop.comes(&id, "paid").await;
    assert_eq!(street.shop.world.count("identity.payment_events").await, events.len() as i64);
    assert_eq!((street.shop.balance().await, street.shop.world.count("identity.invoices").await), (7200, 2));
    assert_eq!(street.stripe.captures().len(), 2);
    street.shop.sound().await;
}

/// M41: what was paid for something cheap pays for nothing dear, whatever the address of the payer's browser says.
#[sqlx::test(migrations = "../migrations")]
async fn m041_what_was_paid_for_one_payment_pays_for_no_other(db: PgPool) {
    let street = Street::open(db).await;
    let dear = json!({"code": "year", "seconds": 3_600_000, "amount": 25_000_000, "currency": "IRT"});
    let dear = street.shop.by(street.shop.first, Method::POST, "/v1/credit-packs", dear).await.json();
    let (cheap, authority) = street.pending("zarinpal").await;
    let body = json!({"provider": "zarinpal", "credit_pack_id": dear["id"]});
    let dear = street.shop.pay(body, "dear").await.json()["id"].as_str().unwrap().to_owned();
    street.shop.comes(&dear, "pending").await;
    street.zarinpal.pay(&authority);
    for _ in 0..3 {
        let path = format!("/v1/payments/{dear}/return?Authority={authority}&Status=OK");
        assert_eq!(street.shop.get(&path).await.status, StatusCode::SEE_OTHER);
        street.pass(1).await;
    }
    street.back(&cheap).await;
    street.shop.comes(&cheap, "paid").await;
    street.pass(16).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let now = street.shop.get(&format!("/v1/payments/{dear}")).await.json();
    assert!(matches!(now["state"].as_str(), Some("pending" | "verifying")), "{now}");
    assert_eq!((street.shop.balance().await, street.zarinpal.captures().len()), (3600, 1));
    street.shop.sound().await;
}

/// Paid, and the payer's other window cancels it, or its time is over before anybody looks.
#[sqlx::test(migrations = "../migrations")]
async fn what_is_paid_while_it_is_closed_is_taken_by_both_gateways(db: PgPool) {
    let street = Street::open(db).await;
    let mut all = vec![];
    for provider in ["stripe", "zarinpal"] {
        let (id, name) = street.pending(provider).await;
        if provider == "stripe" {
            street.stripe.pay(&name)
        } else {
            street.zarinpal.pay(&name)
        };
        all.push(id);
    }
    for id in &all {
        let answer = street.shop.post(&format!("/v1/payments/{id}/cancel"), json!({})).await;
        assert_eq!(answer.status, StatusCode::ACCEPTED);
        street.shop.comes(id, "paid").await;
    }
    let (late, name) = street.pending("zarinpal").await;
    street.zarinpal.pay(&name);
    street.pass(24 * 60 + 1).await;
    street.shop.comes(&late, "paid").await;
    assert_eq!((street.zarinpal.captures().len(), street.stripe.captures().len()), (2, 1));
    assert_eq!(street.shop.balance().await, 3 * 3600);
    street.shop.sound().await;
}

/// What Stripe had done fails days later: nobody has the money, so people see to it.
#[sqlx::test(migrations = "../migrations")]
async fn a_refund_that_fails_after_it_was_done_is_heard_of(db: PgPool) {
    let street = Street::open(db).await;
    let (id, name) = street.pending("stripe").await;
    street.stripe.pay(&name);
    street.back(&id).await;
    street.shop.comes(&id, "paid").await;
    let refund = street.give_back(&id, 500).await;
    street.refund_comes(&refund, "done").await;
    street.shop.comes(&id, "refunded").await;
    let notes = "identity.invoices where refund_id is not null";
    assert_eq!(street.shop.world.count(notes).await, 1);
    street.stripe.finish_refund(&street.stripe.refunds()[0].id, "failed");
    let (event, kind) = street.stripe.events().pop().unwrap();
    assert_eq!(kind, "refund.failed");
    street.stripe.fail(Call::Read, Fault::Before(How::Status(500)));
    assert_eq!(street.sent(&event).await.status, StatusCode::OK);
    let failed = street.refund_comes(&refund, "manual").await;
    assert_eq!((&failed["failure_code"], &failed["done_at"]), (&json!("refund.came_back"), &Value::Null));
    street.shop.comes(&id, "refunding").await;
    // It is owed: two people cannot say that it is not, only that it went by another way.
    let path = format!("{refund}/decisions");
    let say = |outcome: &str| json!({"outcome": outcome, "transaction": "t-1", "evidence": "Statement, line 1"});
    let given_up = street.shop.by(street.shop.first, Method::POST, &path, say("given_up")).await;
    assert_eq!(given_up.problem(), "payment.not_decidable");
    let proposed = street.shop.by(street.shop.first, Method::POST, &path, say("refunded")).await.json();
    let confirm = format!("/v1/payment-decisions/{}/confirm", proposed["id"].as_str().unwrap());
    assert_eq!(street.shop.by(street.shop.second, Method::POST, &confirm, json!({})).await.status, StatusCode::OK);
    street.shop.comes(&id, "refunded").await;
    assert_eq!((street.shop.world.count(notes).await, street.shop.balance().await), (1, 0));
    street.shop.sound().await;
}

/// ZarinPal knows no keys, and shows a refund after a while: what may have been sent is not sent again.
#[sqlx::test(migrations = "../migrations")]
async fn a_refund_that_may_have_been_sent_is_not_sent_again(db: PgPool) {
    let street = Street::open(db).await;
    let mut paid = vec![];
    for _ in 0..2 {
        let (id, name) = street.pending("zarinpal").await;
        street.zarinpal.pay(&name);
        street.back(&id).await;
        street.shop.comes(&id, "paid").await;
        paid.push((id, name));
    }
    street.zarinpal.refunds_become("DONE");
    for ((id, _), shown_after, state) in [(&paid[0], 15, "done"), (&paid[1], 1000, "manual")] {
        street.zarinpal.hide_refunds(TimeDelta::minutes(shown_after));
        street.zarinpal.fail(Call::Refund, Fault::After(How::Cut));
        let refund = street.give_back(id, 100_000).await;
        street.refund_comes(&refund, "sending").await;
        // Sent, and its pause begun: else the clock would be moved before it is.
        tokio::time::sleep(Duration::from_millis(1500)).await;
        for _ in 0..4 {
            street.pass(50).await;
            tokio::time::sleep(Duration::from_millis(700)).await;
        }
        street.refund_comes(&refund, state).await;
    }
    let given = street.zarinpal.refunds();
    assert_eq!((given.len(), given[0].amount, given[1].amount), (2, 1_000_000, 1_000_000), "each of them once");
    assert!(given[0].provider_ref != given[1].provider_ref);
    street.shop.sound().await;
}
