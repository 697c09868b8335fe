//! A server with tenants, a receiver that does what it is told, and a worker.

use crate::world::{Answer, World, request, with_json};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, StatusCode, Uri},
    response::Response,
};
use chrono::{DateTime, Utc};
use flatrender_activities::{
    egress::{Egress, Reach},
    webhook::{Caller, is_signed},
};
use flatrender_api::router;
use flatrender_engine::{Client, Worker, client::RunState, testing::skip_to_next_timer, worker::Builder};
use flatrender_workflows::{
    contracts::webhook::{CallSlowWebhook, CallWebhook, SLOW_WEBHOOK_QUEUE, WEBHOOK_QUEUE},
    definitions::{
        events::{self, Event},
        notify::Notify,
        webhook::TellWebhook,
    },
    models::{DEFAULT_TENANT, invariants},
};
use futures::future::BoxFuture;
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The patience of a call in tests.
pub const PATIENCE: Duration = Duration::from_millis(600);

/// Something that came.
#[derive(Debug, Clone)]
pub struct Received {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Bytes,
}

impl Received {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap()
    }

    /// Whether it is signed with this secret.
    pub fn is_signed_with(&self, secret: &str) -> bool {
        let at = DateTime::from_timestamp(self.header("webhook-timestamp").parse().unwrap(), 0).unwrap();
        is_signed(secret, self.header("webhook-id"), at, &self.body, self.header("webhook-signature")).unwrap()
    }
}

/// What a receiver does with what came as the nth to a path, from 1.
type Does = Box<dyn Fn(&Received, usize) -> BoxFuture<'static, Response> + Send + Sync>;

/// A receiver with a memory of its own.
pub struct Receiver {
    pub url: String,
    seen: Seen,
}

/// What came, and when.
type Seen = Arc<Mutex<Vec<(Received, DateTime<Utc>)>>>;

impl Receiver {
    pub async fn new(does: impl Fn(&Received, usize) -> BoxFuture<'static, Response> + Send + Sync + 'static) -> Self {
        let seen = Seen::default();
        let state = (seen.clone(), Arc::new(Box::new(does) as Does));
        let app = Router::new().fallback(take).with_state(state);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, app).await.unwrap() });
        Self { url, seen }
    }

    /// One that answers each path with statuses in this order, the last of them for ever.
    pub async fn answering(statuses: &'static [(&'static str, &'static [u16])]) -> Self {
        let statuses: HashMap<_, _> = statuses.iter().copied().collect();
        Self::new(move |got, nth| {
            let all = statuses.get(got.path.as_str()).copied().unwrap_or(&[200]);
            let status = all.get(nth - 1).or(all.last()).copied().unwrap();
            Box::pin(async move { said(status) })
        })
        .await
    }

    /// What came to a path, in order.
    pub fn at(&self, path: &str) -> Vec<Received> {
        self.all().into_iter().map(|(got, _)| got).filter(|got| got.path == path).collect()
    }

    /// All that came, and when.
    pub fn all(&self) -> Vec<(Received, DateTime<Utc>)> {
        self.seen.lock().unwrap().clone()
    }
}

type Memory = (Seen, Arc<Does>);

async fn take(State((seen, does)): State<Memory>, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let got = Received { path: uri.path().to_owned(), headers, body };
    let nth = {
        let mut seen = seen.lock().unwrap();
        seen.push((got.clone(), Utc::now()));
        seen.iter().filter(|(other, _)| other.path == got.path).count()
    };
    does(&got, nth).await
}

pub fn said(status: u16) -> Response {
    let text = if status == 204 { "" } else { "told" };
    Response::builder().status(status).header("content-type", "text/plain").body(Body::from(text)).unwrap()
}

/// A server that lets webhooks be on this machine, and a key that manages its tenant.
pub struct Shop {
    pub world: World,
    pub key: String,
}

/// A webhook, with the secret that its tenant was told.
#[derive(Debug, Clone)]
pub struct Hook {
    pub id: Uuid,
    pub secret: String,
}

impl Shop {
    pub async fn new(db: PgPool) -> Self {
        let mut world = World::new(db).await;
        world.app.egress = Egress::new(Reach::Anywhere);
        world.router = router::router(world.app.clone());
        let key = world.key_for(DEFAULT_TENANT, &["webhooks", "admin"]).await.1;
        Self { world, key }
    }

    pub fn db(&self) -> &PgPool {
        &self.world.db
    }

    pub async fn send(&self, method: Method, path: &str, body: Value) -> Answer {
        self.world.send(with_json(request(method, path, &self.key), &body)).await
    }

    pub async fn get(&self, path: &str) -> Answer {
        self.world.send(request(Method::GET, path, &self.key).body(Body::empty()).unwrap()).await
    }

    pub async fn hook(&self, url: &str, events: &[&str]) -> Hook {
        let made = self.send(Method::POST, "/v1/webhooks", json!({"url": url, "events": events})).await;
        assert_eq!(made.status, StatusCode::CREATED, "{:?}", made.body);
        let text = |name: &str| made.json()[name].as_str().unwrap().to_owned();
        Hook { id: text("id").parse().unwrap(), secret: text("secret") }
    }

    /// Something happens to a new object; gives the object.
    pub async fn happens(&self, kind: &'static str) -> Uuid {
        let subject = Uuid::now_v7();
        self.happens_to(kind, subject, DEFAULT_TENANT).await;
        subject
    }

    pub async fn happens_to(&self, kind: &'static str, subject: Uuid, tenant_id: Uuid) {
        let mut tx = self.db().begin().await.unwrap();
        let occurred_at = sqlx::query_scalar("select workflow.now()").fetch_one(&mut *tx).await.unwrap();
        let data = json!({"object": "render", "status": "completed"});
        let event = Event { tenant_id, kind, subject, user_id: None, data, occurred_at };
        events::happened(&self.world.app.workflows, &mut tx, event).await.unwrap();
        tx.commit().await.unwrap();
        self.world.app.workflows.announce();
    }

    /// Deliveries to a webhook as the API tells them, the newest events first.
    pub async fn deliveries(&self, hook: &Hook, query: &str) -> Vec<Value> {
        let list = self.get(&format!("/v1/webhooks/{}/deliveries?limit=100{query}", hook.id)).await;
        assert_eq!(list.status, StatusCode::OK, "{:?}", list.body);
        list.json()["data"].as_array().unwrap().clone()
    }

    pub async fn view(&self, hook: &Hook) -> Value {
        self.get(&format!("/v1/webhooks/{}", hook.id)).await.json()
    }

    pub fn caller(&self) -> Caller {
        self.caller_through(Egress::new(Reach::Anywhere).with_patience(PATIENCE))
    }

    pub fn caller_through(&self, egress: Egress) -> Caller {
        let vault = self.world.app.vault.clone();
        Caller::new(egress, Arc::new(move |id, sealed| vault.unseal(&format!("webhook:{id}"), sealed).ok()))
    }

    fn worker(&self, caller: Caller) -> Builder {
        Worker::builder(self.db().clone())
            .workflow::<TellWebhook>()
            // People are told of the same events. Nobody is there whom it concerns, and a run that nobody takes would stop the clock.
            .workflow::<Notify>()
            .queue(WEBHOOK_QUEUE, 32)
            .handler::<CallWebhook>(caller.clone())
            .queue(SLOW_WEBHOOK_QUEUE, 32)
            .handler::<CallSlowWebhook>(caller)
            .grace(Duration::from_millis(200))
    }

    /// Works in the background until the shop is gone.
    pub fn work(&self) {
        let (worker, stopping) = (self.worker(self.caller()), self.world.stopping.clone());
        tokio::spawn(async move { worker.run(stopping).await.unwrap() });
    }

    /// Works until every delivery has ended, however long they wait: the clock skips what is only waiting.
    pub async fn settle(&self) {
        self.settle_with(|worker| worker).await;
    }

    pub async fn settle_with(&self, how: impl FnOnce(Builder) -> Builder) {
        let stop = CancellationToken::new();
        let working = tokio::spawn(how(self.worker(self.caller())).run(stop.clone()));
        for _ in 0..3000 {
            let open = "select count(*) from workflow.runs where kind = 'webhook' and state = 'running'";
            let open: i64 = sqlx::query_scalar(open).fetch_one(self.db()).await.unwrap();
            if open == 0 {
                stop.cancel();
                working.await.unwrap().unwrap();
                self.check().await;
                return;
            }
            skip_to_next_timer(self.db()).await.unwrap();
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        panic!("some deliveries never end");
    }

    /// Every rule of the platform is kept, and no run has failed.
    pub async fn check(&self) {
        // The clock may have come into another month, and nobody here makes them.
        sqlx::query("select platform.ensure_months(workflow.now())").execute(self.db()).await.unwrap();
        let breaches = invariants::check(self.db(), false).await.unwrap();
        assert!(breaches.is_empty(), "{breaches:#?}");
        let failed = "select count(*) from workflow.runs where kind = 'webhook' and state = 'failed'";
        assert_eq!(sqlx::query_scalar::<_, i64>(failed).fetch_one(self.db()).await.unwrap(), 0);
    }

    pub async fn pass(&self, seconds: f64) {
        let sql = "update workflow.clock set moved_by = moved_by + make_interval(secs => $1)";
        sqlx::query(sql).bind(seconds).execute(self.db()).await.unwrap();
    }

    /// The run that sends a delivery.
    pub async fn run_of(&self, delivery: &Value) -> RunState {
        let sql = "select workflow_run_id from identity.tenant_webhook_deliveries where id = $1";
        let id: Uuid = delivery["id"].as_str().unwrap().parse().unwrap();
        let run = sqlx::query_scalar(sql).bind(id).fetch_one(self.db()).await.unwrap();
        Client::new(self.db().clone()).run(run).await.unwrap().unwrap().state
    }
}
