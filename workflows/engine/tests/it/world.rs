//! A database with the engine's schema, workers in this process, and a clock that the test moves.

use flatrender_engine::{
    Activity, Attempt, Client, Failure, Handler, Policy, Worker, Workflow, automaton,
    client::{Run, Task},
    worker::Builder,
};
use futures::future::BoxFuture;
use serde::{Deserialize, Serialize};
use sqlx::{PgConnection, PgPool};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const EFFECTS: &str =
    "create table effects (n bigint generated always as identity, run_id uuid not null, key text not null, worker int)";

pub struct World {
    pub db: PgPool,
    pub client: Client,
    pub tenant: Uuid,
    stop: CancellationToken,
    workers: Vec<tokio::task::JoinHandle<()>>,
}

impl World {
    pub async fn new(db: PgPool) -> Self {
        flatrender_engine::schema::install(&db).await.unwrap();
        sqlx::raw_sql(EFFECTS).execute(&db).await.unwrap();
        let client = Client::new(db.clone());
        Self { db, client, tenant: Uuid::now_v7(), stop: CancellationToken::new(), workers: Vec::new() }
    }

    pub fn worker(&mut self, build: impl FnOnce(Builder) -> Builder) -> CancellationToken {
        let stop = self.stop.child_token();
        let builder = build(Worker::builder(self.db.clone()).grace(Duration::from_secs(2)));
        let run = builder.run(stop.clone());
        self.workers.push(tokio::spawn(async move { run.await.unwrap() }));
        stop
    }

    /// Stops all workers of this world and waits until they have given everything back.
    pub async fn stop(&mut self) {
        self.stop.cancel();
        for worker in self.workers.drain(..) {
            worker.await.unwrap();
        }
        self.stop = CancellationToken::new();
    }

    pub async fn start<W: Workflow>(&self, workflow: W) -> Uuid {
        let mut tx = self.db.begin().await.unwrap();
        let started = self.client.start(&mut tx, self.tenant, None, workflow).await.unwrap();
        tx.commit().await.unwrap();
        self.client.announce();
        started.run_id
    }

    pub async fn end(&self, run_id: Uuid) -> Run {
        match self.client.finished(run_id, Duration::from_secs(30)).await.unwrap() {
            Some(run) => {
                let mut db = self.db.acquire().await.unwrap();
                assert_eq!(automaton::refused(&mut db, Some(run_id), 1).await.unwrap(), [], "{}", run.kind);
                run
            }
            None => panic!("not over: {:#?}", self.client.progress(run_id).await.unwrap()),
        }
    }

    pub async fn finish<W: Workflow>(&self, workflow: W) -> Run {
        let run_id = self.start(workflow).await;
        self.end(run_id).await
    }

    pub async fn cancel(&self, run_id: Uuid) -> bool {
        let mut tx = self.db.begin().await.unwrap();
        let asked = self.client.cancel(&mut tx, run_id, "no longer wanted").await.unwrap();
        tx.commit().await.unwrap();
        self.client.announce();
        asked
    }

    pub async fn signal(
        &self,
        run_id: Uuid,
        name: &str,
        dedupe_key: Option<&str>,
        payload: impl Serialize,
    ) -> flatrender_engine::Delivery {
        let mut tx = self.db.begin().await.unwrap();
        let delivery = self.client.signal(&mut tx, run_id, name, dedupe_key, &payload).await.unwrap();
        tx.commit().await.unwrap();
        self.client.announce();
        delivery
    }

    pub async fn resume(&self, run_id: Uuid) -> bool {
        let mut tx = self.db.begin().await.unwrap();
        let resumed = self.client.resume(&mut tx, run_id).await.unwrap();
        tx.commit().await.unwrap();
        self.client.announce();
        resumed
    }

    /// Waits until a run is parked; gives the reason and the code of what stands in its way.
    pub async fn parked(&self, run_id: Uuid) -> (String, String) {
        for _ in 0..1000 {
            let task = self.client.progress(run_id).await.unwrap().run.expect("the run is over");
            if let (Some(reason), Some(failure)) = (task.parked_reason, task.parked_failure) {
                return (reason, failure.code);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never parked: {:#?}", self.client.progress(run_id).await.unwrap());
    }

    /// `kind key outcome` of each event, a line each.
    pub async fn history(&self, run_id: Uuid) -> String {
        let line = |e: flatrender_engine::client::Event| {
            let outcome = e.failure.map_or(e.outcome.clone(), |f| f.code);
            // The key of a signal without a deduplication key is chance.
            let key = e.key.split_once("#").map_or(e.key.clone(), |(key, _)| format!("{key}#"));
            format!("{:<9} {key:<8} {outcome}", e.kind)
        };
        self.client.history(run_id).await.unwrap().into_iter().map(line).collect::<Vec<_>>().join("\n")
    }

    pub async fn move_clock(&self, by: Duration) {
        sqlx::query("update workflow.clock set moved_by = moved_by + make_interval(secs => $1)")
            .bind(by.as_secs_f64())
            .execute(&self.db)
            .await
            .unwrap();
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db).await.unwrap()
    }

    /// Waits until `sql` counts `wanted`.
    pub async fn until(&self, wanted: i64, sql: &'static str) {
        for _ in 0..3000 {
            if self.count(sql).await == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never {wanted}: {sql}");
    }

    /// The live activity `key` of a run.
    pub async fn activity(&self, run_id: Uuid, key: &str) -> Task {
        for _ in 0..1000 {
            let progress = self.client.progress(run_id).await.unwrap();
            if let Some(task) = progress.activities.into_iter().find(|t| t.key == key) {
                return task;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("the run never asked for {key}");
    }
}

/// Workers leave when their test does, so that its database can be dropped.
impl Drop for World {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// An effect that shows when it happens twice.
pub async fn effect(db: &mut PgConnection, run_id: Uuid, key: &str) -> Result<(), Failure> {
    let worker = std::process::id() as i32;
    sqlx::query("insert into effects (run_id, key, worker) values ($1, $2, $3)")
        .bind(run_id)
        .bind(key)
        .bind(worker)
        .execute(db)
        .await?;
    Ok(())
}

/// An activity for every purpose.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Work {
    pub n: u32,
    pub policy: Policy,
    #[serde(default)]
    pub labels: flatrender_engine::Labels,
    #[serde(default)]
    pub limit_key: Option<String>,
    #[serde(default)]
    pub warm_key: Option<String>,
}

impl Work {
    pub fn new(n: u32) -> Self {
        let policy = Policy { backoff_base: Duration::from_millis(10), ..Policy::default() };
        Self { n, policy, labels: Default::default(), limit_key: None, warm_key: None }
    }
}

impl Activity for Work {
    const NAME: &'static str = "Work";
    const QUEUE: &'static str = "work";
    type Output = u32;

    fn policy(&self) -> Policy {
        self.policy
    }

    fn labels(&self) -> flatrender_engine::Labels {
        self.labels.clone()
    }

    fn limit_key(&self) -> Option<String> {
        self.limit_key.clone()
    }

    fn warm_key(&self) -> Option<String> {
        self.warm_key.clone()
    }
}

type Behaviour = dyn Fn(Attempt, Work) -> BoxFuture<'static, Result<u32, Failure>> + Send + Sync;

/// A handler that does what the test says, and counts.
#[derive(Clone)]
pub struct Tool {
    behaviour: Arc<Behaviour>,
    pub calls: Arc<AtomicU32>,
}

impl Tool {
    pub fn new<F>(behaviour: impl Fn(Attempt, Work) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<u32, Failure>> + Send + 'static,
    {
        Self { behaviour: Arc::new(move |cx, work| Box::pin(behaviour(cx, work))), calls: Arc::default() }
    }

    pub fn doubling() -> Self {
        Self::new(|_, work| async move { Ok(work.n * 2) })
    }

    pub fn count(&self) -> u32 {
        self.calls.load(Ordering::SeqCst)
    }
}

impl Handler<Work> for Tool {
    async fn handle(&self, cx: &Attempt, input: Work) -> Result<u32, Failure> {
        self.calls.fetch_add(1, Ordering::SeqCst);
        (self.behaviour)(cx.clone(), input).await
    }
}

/// One activity, nothing else.
#[derive(Debug, Serialize, Deserialize)]
pub struct OneWork(pub Work);

impl Workflow for OneWork {
    const NAME: &'static str = "one_work";
    type Output = u32;

    async fn run(self, cx: &flatrender_engine::Context) -> Result<u32, Failure> {
        cx.activity("work", self.0).await
    }
}
