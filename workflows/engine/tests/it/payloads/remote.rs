//! Remote workers, who get and give large values and know nothing of the store.

use super::{Echo, LONGEST, Turner, Vault, Wall, Whisper, large, text, world_with};
use crate::world::World;
use axum::http::HeaderMap;
use flatrender_engine::{
    Context, Failure, Workflow,
    remote::{self, RemoteWorker, Service},
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use sqlx::PgPool;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Asks somebody else.
#[derive(Serialize, Deserialize)]
struct Aside(String);

impl Workflow for Aside {
    const NAME: &'static str = "aside";
    type Output = usize;

    async fn run(self, cx: &Context) -> Result<usize, Failure> {
        Ok(cx.activity("echo", Echo(self.0)).await?.len())
    }
}

async fn who(_: HeaderMap) -> Option<RemoteWorker> {
    Some(RemoteWorker { name: "node".into(), queues: vec!["echo".into()] })
}

/// The address of a server for remote workers.
async fn serve(world: &World) -> String {
    let routes = remote::router(Service::new(world.client.clone()), who);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, routes).await.unwrap() });
    format!("http://{address}")
}

fn http() -> reqwest::Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    reqwest::Client::builder().build().unwrap()
}

#[sqlx::test(migrations = false)]
async fn a_remote_worker_gets_and_gives_large_values_without_knowing_the_store(db: PgPool) {
    let vault = Vault::default();
    let payloads = vault.payloads().sealed_by(Turner { newest: "k1", known: &["k1"] });
    let mut world = world_with(db, &payloads).await;
    world.worker(|w| w.payloads(payloads.clone()).workflow::<Whisper>());
    let stop = CancellationToken::new();
    let remote = remote::Worker::builder(http(), serve(&world).await).credential("node").handler::<Echo>(Wall);
    let remote = tokio::spawn(remote.run(stop.clone()));
    // Longer than what a server takes by itself.
    let long = large().repeat(10);
    let run_id = world.start(Whisper { text: long.clone(), deeper: 1 }).await;
    let _ = world.signal(run_id, "heard", None, "b").await;
    assert_eq!(text(&world.end(run_id).await), long + "b");
    assert!(world.count(LONGEST).await < 300);
    stop.cancel();
    remote.await.unwrap().unwrap();
}

#[sqlx::test(migrations = false)]
async fn what_cannot_be_read_is_not_given_to_a_remote_worker_and_holds_up_nobody_else(db: PgPool) {
    let vault = Vault::default();
    let mut world = world_with(db, &vault.payloads()).await;
    world.worker(|w| w.payloads(vault.payloads()).workflow::<Aside>());
    let bad = world.start(Aside(large())).await;
    world.until(1, "select count(*) from workflow.tasks where kind = 'activity'").await;
    vault.spoil();
    let good = world.start(Aside("fine".to_owned())).await;
    world.until(2, "select count(*) from workflow.tasks where kind = 'activity'").await;
    let claim = json!({ "incarnation": Uuid::new_v4(), "slots": 8, "wait_seconds": 20 });
    let server = serve(&world).await;
    let answer = http().post(format!("{server}/claims")).json(&claim).send().await.unwrap();
    let answer: Value = serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap();
    let tasks = answer["tasks"].as_array().unwrap();
    assert_eq!(tasks.iter().map(|task| &task["input"]).collect::<Vec<_>>(), ["fine"]);
    assert_eq!(world.end(bad).await.error.unwrap().code, "workflow.payload_corrupt");
    let (id, token) = (&tasks[0]["task_id"], &tasks[0]["lease_token"]);
    let done = json!({ "lease_token": token, "output": large() });
    for _ in 0..2 {
        // The second time its answer was lost.
        let answer = http().post(format!("{server}/tasks/{id}/complete")).json(&done).send().await.unwrap();
        assert_eq!(answer.status(), 204);
    }
    assert_eq!(world.end(good).await.output_as::<usize>(), Some(large().len()));
}
