//! A tenant that sells something, people who buy it, and a worker that sees to payments.

use crate::world::{Answer, World, request, with_json};
use axum::{
    body::Body,
    http::{Method, StatusCode},
};
use flatrender_engine::Worker;
use flatrender_workflows::{
    contracts::pay::{
        CheckGateway, CreatePayment, ExpirePayment, FetchPayment, FetchRefund, ListSettlements, ListUnsettled,
        RefundPayment, VerifyPayment,
    },
    definitions::{
        check_account::CheckAccount,
        notify::Notify,
        payment::TakePayment,
        reconcile::{CompareSettlements, ReconcilePayments},
        refund::GiveBack,
        subscription::KeepSubscription,
    },
    models::{DEFAULT_TENANT, invariants},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// Two owners, somebody who buys, and what is sold.
pub struct Shop {
    pub world: World,
    pub first: Uuid,
    pub second: Uuid,
    pub jane_in: String,
    pub plan: String,
    pub pack: String,
}

impl Shop {
    pub async fn open(db: PgPool) -> Self {
        let world = World::new(db).await;
        let first = world.person(DEFAULT_TENANT, "first@example.com", &["owner"]).await;
        let second = world.person(DEFAULT_TENANT, "second@example.com", &["owner"]).await;
        let jane = world.person(DEFAULT_TENANT, "jane@example.com", &["editor"]).await;
        let jane_in = world.session(DEFAULT_TENANT, jane).await;
        let long = "update identity.user_sessions set access_expires_at = '2100-01-01Z', idle_expires_at = '2100-01-01Z', absolute_expires_at = '2100-01-01Z'";
        sqlx::query(long).execute(&world.db).await.unwrap();
        let mut shop = Self { world, first, second, jane_in, plan: String::new(), pack: String::new() };
        let plan = json!({"code": "pro", "name": {"en": "Pro"}, "prices": [{"currency": "USD", "interval": "month", "amount": 1999}],
            "entitlements": {"render_minutes": 10}});
        shop.plan = shop.made("/v1/plans", plan).await;
        let sold = shop.by(shop.first, Method::POST, &format!("/v1/plans/{}/activate", shop.plan), json!({})).await;
        assert_eq!(sold.status, StatusCode::OK);
        let pack = json!({"code": "hour", "seconds": 3600, "amount": 500, "currency": "USD"});
        shop.pack = shop.made("/v1/credit-packs", pack).await;
        shop
    }

    async fn made(&self, path: &str, body: Value) -> String {
        let made = self.by(self.first, Method::POST, path, body).await;
        assert_eq!(made.status, StatusCode::CREATED, "{path}: {:?}", made.body);
        made.json()["id"].as_str().unwrap().to_owned()
    }

    /// As somebody who has just signed in.
    pub async fn by(&self, user: Uuid, method: Method, path: &str, body: Value) -> Answer {
        let session = self.world.session(DEFAULT_TENANT, user).await;
        self.ask(&session, method, path, body).await
    }

    async fn ask(&self, by: &str, method: Method, path: &str, body: Value) -> Answer {
        let safe = method.is_safe();
        let request = request(method, path, by);
        let request = if safe { request.body(Body::empty()).unwrap() } else { with_json(request, &body) };
        self.world.send(request).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.ask(&self.jane_in, Method::GET, path, Value::Null).await
    }

    pub async fn post(&self, path: &str, body: Value) -> Answer {
        self.ask(&self.jane_in, Method::POST, path, body).await
    }

    /// Jane decides to pay; gives the payment.
    pub async fn pay(&self, body: Value, key: &str) -> Answer {
        let request = request(Method::POST, "/v1/payments", &self.jane_in).header("idempotency-key", key);
        self.world.send(with_json(request, &body)).await
    }

    pub fn credits(&self, provider: &str) -> Value {
        json!({"provider": provider, "credit_pack_id": self.pack})
    }

    pub fn plan(&self, provider: &str) -> Value {
        json!({"provider": provider, "plan_id": self.plan, "currency": "USD", "interval": "month"})
    }

    pub async fn gateway(&self, provider: &str, mode: &str, settings: Value) -> Value {
        let body = json!({"mode": mode, "settings": settings});
        let put = self.by(self.first, Method::PUT, &format!("/v1/gateways/{provider}"), body).await;
        assert_eq!(put.status, StatusCode::OK, "{:?}", put.body);
        put.json()
    }

    /// Sees to payments in the background, for as long as the test lasts.
    pub fn work(&self) {
        let cashier = self.world.cashier();
        let builder = Worker::builder(self.world.db.clone())
            .workflow::<TakePayment>()
            .workflow::<GiveBack>()
            .workflow::<KeepSubscription>()
            .workflow::<ReconcilePayments>()
            .workflow::<CompareSettlements>()
            .workflow::<CheckAccount>()
            .workflow::<Notify>()
            .handler::<CreatePayment>(cashier.clone())
            .handler::<FetchPayment>(cashier.clone())
            .handler::<VerifyPayment>(cashier.clone())
            .handler::<ExpirePayment>(cashier.clone())
            .handler::<RefundPayment>(cashier.clone())
            .handler::<FetchRefund>(cashier.clone())
            .handler::<ListUnsettled>(cashier.clone())
            .handler::<ListSettlements>(cashier.clone())
            .handler::<CheckGateway>(cashier);
        let (worker, stopping) = (builder.build(), self.world.stopping.clone());
        tokio::spawn(async move { worker.run(stopping).await.unwrap() });
    }

    /// Waits until a payment is so.
    pub async fn comes(&self, id: &str, state: &str) -> Value {
        let mut now = Value::Null;
        for _ in 0..1000 {
            now = self.get(&format!("/v1/payments/{id}")).await.json();
            if now["state"] == state {
                return now;
            }
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
        panic!("it is not {state}: {now}");
    }

    pub async fn balance(&self) -> i64 {
        self.get("/v1/credits").await.json()["balance"].as_i64().unwrap()
    }

    pub async fn sound(&self) {
        sqlx::query("select platform.ensure_months(workflow.now(), now())").execute(&self.world.db).await.unwrap();
        assert_eq!(invariants::check(&self.world.db, true).await.unwrap(), []);
    }
}
