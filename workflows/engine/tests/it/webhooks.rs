//! C5: signed webhooks as signals. The signatures are made by a library that we have not written.

use crate::world::World;
use axum::{body::Body, http::Request};
use flatrender_engine::{
    Context, Failure, Workflow,
    webhooks::{self, Message, Secrets, Webhook},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use tokio::net::TcpListener;
use tower::ServiceExt as _;
use uuid::Uuid;

const OLD: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
const NEW: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";
const STRANGE: &str = "whsec_plJ3nmyCDGBKInavdOK15jsl15jslP15";

/// Waits for as many payments, and gives their sum.
#[derive(Serialize, Deserialize)]
struct Order(u32);

impl Workflow for Order {
    const NAME: &'static str = "order";
    type Output = i64;

    async fn run(self, cx: &Context) -> Result<i64, Failure> {
        let mut sum = 0;
        for n in 0..self.0 {
            sum += cx.signal::<i64>(&format!("payment {n}"), "paid").await?;
        }
        Ok(sum)
    }
}

/// A bank tells of payments.
async fn meaning(tenant: Uuid, webhook: Webhook) -> Result<Option<Message>, Failure> {
    let data = &webhook.payload["data"];
    match webhook.payload["type"].as_str() {
        Some("payment.made") => {
            let (Some(order), Some(cents)) = (data["order"].as_str(), data["cents"].as_i64()) else {
                return Err(Failure::permanent("bank.unclear", "a payment has an order and cents"));
            };
            Ok(Some(Message::to_key::<Order>(tenant, order, "paid", json!(cents))))
        }
        Some("payment.pending") => Err(Failure::transient("bank.later", "not now")),
        _ => Ok(None),
    }
}

struct Bank {
    url: String,
    http: reqwest::Client,
    routes: axum::Router,
}

impl Bank {
    async fn of(world: &World) -> Self {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let (secrets, tenant) = (Secrets::new([OLD, NEW]).unwrap(), world.tenant);
        let receive = webhooks::receive(world.client.clone(), secrets, move |webhook| meaning(tenant, webhook));
        let routes = axum::Router::new().route("/webhooks/bank", receive);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/webhooks/bank", listener.local_addr().unwrap());
        let served = routes.clone();
        tokio::spawn(async move { axum::serve(listener, served).await.unwrap() });
        Self { url, http: reqwest::Client::builder().build().unwrap(), routes }
    }

    async fn post(&self, headers: &[(&str, &str)], body: &str) -> (u16, Value) {
        let request =
            headers.iter().fold(self.http.post(&self.url), |request, (name, value)| request.header(*name, *value));
        let answer = request.body(body.to_owned()).send().await.unwrap();
        (answer.status().as_u16(), serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap_or_default())
    }

    async fn send(&self, secret: &str, id: &str, at: i64, body: &str) -> (u16, String) {
        let signature = standardwebhooks::Webhook::new(secret).unwrap().sign(id, at, body.as_bytes()).unwrap();
        let at = at.to_string();
        let (status, answer) =
            self.post(&[("webhook-id", id), ("webhook-timestamp", &at), ("webhook-signature", &signature)], body).await;
        (status, answer["delivery"].as_str().or(answer["code"].as_str()).unwrap_or_default().to_owned())
    }
}

fn payment(order: &str, cents: i64) -> String {
    json!({ "type": "payment.made", "data": { "order": order, "cents": cents } }).to_string()
}

async fn start(world: &World, key: &str, payments: u32) -> Uuid {
    let mut tx = world.db.begin().await.unwrap();
    let started = world.client.start(&mut tx, world.tenant, Some(key), Order(payments)).await.unwrap();
    tx.commit().await.unwrap();
    world.client.announce();
    started.run_id
}

async fn now(world: &World) -> i64 {
    world.count("select extract(epoch from workflow.now())::bigint").await
}

const SIGNALS: &str = "select count(*) from workflow.steps where kind = 'signal'";

#[sqlx::test(migrations = false)]
async fn a_signed_webhook_is_a_signal_once_however_often_it_comes(db: PgPool) {
    let mut world = World::new(db).await;
    let (bank, at) = (Bank::of(&world).await, now(&world).await);
    let run_id = start(&world, "order 7", 2).await;
    let long_id = format!("msg_{}", "x".repeat(200));
    let said = |status: u16, what: &str| (status, what.to_owned());
    // Before anybody works on the run; the old secret is still good, as is the new one.
    assert_eq!(bank.send(OLD, "msg_1", at, &payment("order 7", 5)).await, said(200, "accepted"));
    assert_eq!(bank.send(NEW, "msg_1", at + 2, &payment("order 7", 5)).await, said(200, "repeated"));
    let body = payment("order 7", 30);
    let all = (0..16).map(|_| bank.send(NEW, &long_id, at, &body));
    let mut all = futures::future::join_all(all).await;
    all.sort();
    assert_eq!(
        (all[0].clone(), all[1].clone(), all[15].clone()),
        (said(200, "accepted"), said(200, "repeated"), said(200, "repeated"))
    );
    assert_eq!(world.count(SIGNALS).await, 2);
    world.worker(|w| w.workflow::<Order>());
    assert_eq!(world.end(run_id).await.output_as::<i64>(), Some(35));
    // Once it is over the sender is to be content, too.
    assert_eq!(bank.send(NEW, "msg_1", at, &payment("order 7", 5)).await, said(200, "repeated"));
    assert_eq!(bank.send(NEW, "msg_2", at, &payment("order 7", 5)).await, said(200, "closed"));
    assert_eq!(world.count(SIGNALS).await, 2);
}

#[sqlx::test(migrations = false)]
async fn what_is_not_authentic_or_not_readable_is_refused_and_is_no_signal(db: PgPool) {
    let world = World::new(db).await;
    let (bank, at) = (Bank::of(&world).await, now(&world).await);
    start(&world, "order 7", 1).await;
    let good = payment("order 7", 5);
    let unclear = json!({ "type": "payment.made", "data": {} }).to_string();
    for (secret, at, body, status, what) in [
        (STRANGE, at, good.as_str(), 401, "webhook.unauthentic"),
        (NEW, at - 320, &good, 401, "webhook.unauthentic"),
        (NEW, at + 320, &good, 401, "webhook.unauthentic"),
        (NEW, at, "{\"type\":", 400, "webhook.invalid"),
        (NEW, at, "", 400, "webhook.invalid"),
        (NEW, at, &unclear, 400, "bank.unclear"),
        (NEW, at, "{\"type\":\"payment.pending\"}", 503, "bank.later"),
        (NEW, at, "{\"type\":\"account.opened\"}", 200, "ignored"),
        (NEW, at, &payment("order 8", 5), 404, "run.unknown"),
    ] {
        assert_eq!(bank.send(secret, "msg_1", at, body).await, (status, what.to_owned()), "{body}");
    }
    let seconds = at.to_string();
    let signature = standardwebhooks::Webhook::new(NEW).unwrap().sign("msg_1", at, good.as_bytes()).unwrap();
    let full =
        [("webhook-id", "msg_1"), ("webhook-timestamp", seconds.as_str()), ("webhook-signature", signature.as_str())];
    for (n, changed, status) in [
        (0, Some("msg_2"), 401),
        (1, Some("1614265330"), 401),
        (2, Some("v1,"), 401),
        (2, Some("v1a,MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"), 401),
        (1, Some("yesterday"), 400),
        (1, Some("99999999999999999"), 400),
        (0, Some(""), 400),
        (0, None, 400),
        (1, None, 400),
        (2, None, 400),
    ] {
        let mut sent: Vec<_> = full.to_vec();
        match changed {
            Some(value) => sent[n].1 = value,
            None => drop(sent.remove(n)),
        }
        let (answered, problem) = bank.post(&sent, &good).await;
        assert_eq!(answered, status, "{sent:?}: {problem}");
    }
    let (status, _) = bank.post(&full, &good.replace('5', "6")).await;
    assert_eq!(status, 401, "the body is another");
    // Not over the wire: the answer comes before the body has been sent.
    let much = full.iter().fold(Request::post("/webhooks/bank"), |much, (name, value)| much.header(*name, *value));
    let answer = bank.routes.clone().oneshot(much.body(Body::from(vec![b'x'; 3 << 20])).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 413);
    assert_eq!(world.count(SIGNALS).await, 0);
    assert_eq!(bank.post(&full, &good).await.0, 200);
}

#[sqlx::test(migrations = false)]
async fn a_webhook_is_good_for_five_minutes_by_the_clock_of_the_database(db: PgPool) {
    let world = World::new(db).await;
    let (bank, at) = (Bank::of(&world).await, now(&world).await);
    start(&world, "order 7", 2).await;
    world.move_clock(Duration::from_secs(280)).await;
    assert_eq!(bank.send(NEW, "msg_1", at, &payment("order 7", 1)).await.0, 200);
    world.move_clock(Duration::from_secs(25)).await;
    assert_eq!(bank.send(NEW, "msg_2", at, &payment("order 7", 1)).await.0, 401);
    assert_eq!(world.count(SIGNALS).await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_webhook_that_is_faster_than_the_start_of_its_run_is_taken_when_it_is_sent_again(db: PgPool) {
    let mut world = World::new(db).await;
    let (bank, at) = (Bank::of(&world).await, now(&world).await);
    world.worker(|w| w.workflow::<Order>());
    let mut tx = world.db.begin().await.unwrap();
    let run_id = world.client.start(&mut tx, world.tenant, Some("order 7"), Order(1)).await.unwrap().run_id;
    assert_eq!(bank.send(NEW, "msg_1", at, &payment("order 7", 9)).await.0, 404);
    tx.commit().await.unwrap();
    world.client.announce();
    assert_eq!(bank.send(NEW, "msg_1", at + 1, &payment("order 7", 9)).await.0, 200);
    assert_eq!(world.end(run_id).await.output_as::<i64>(), Some(9));
}
