//! The program under test: this test binary, started again with orders. As a worker it works until it is told to stop, as a
//! client it does one thing after the other, each of them once, however often it is killed and started again.

use crate::{
    ledger::Ledger,
    remote, versions,
    work::{Abroad, Blob, Booking, Detour, Errand, Nap, Race, Runner, Single, Tick, Tree, Trip},
};
use flatrender_engine::{
    Client, JobOptions, Labels, Worker, Workflow,
    client::Error,
    operations::{Action, By, Filter, Fork, OperationError, Operations, Piece, Retention, Revival, Series},
    schedules::{CatchUp, Overlap, Schedules, Terms},
};
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection, PgPool, postgres::PgPoolOptions};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Where a process finds its orders.
pub const ORDERS: &str = "FLATRENDER_CHAOS_ORDERS";

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Orders {
    pub url: String,
    pub ledger: PathBuf,
    pub name: String,
    pub role: Role,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Role {
    Worker(Duties),
    Client {
        tenant: Uuid,
        errands: Vec<Ask>,
    },
    /// Answers remote workers.
    Server {
        port: u16,
    },
    /// Does errands for the server at this address; of the database it knows nothing.
    Node {
        base: String,
    },
}

/// How a worker works.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Duties {
    pub slots: usize,
    pub grace_ms: u64,
    pub schedules: bool,
    /// Does errands.
    pub errands: bool,
    /// Continues runs.
    pub runs: bool,
    /// Drops what has been over for so many days.
    pub keeps_days: Option<u64>,
    /// Which version of [`versions`] it was deployed with.
    pub deployed: Option<versions::Deployed>,
}

impl Default for Duties {
    fn default() -> Self {
        Self { slots: 8, grace_ms: 2000, schedules: false, errands: true, runs: true, keeps_days: None, deployed: None }
    }
}

/// One thing that a client does. The text is its key: whoever finds it done does not do it again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub enum Ask {
    Install,
    Start(String, Trip),
    StartAgain(String, Trip),
    StartMany(String, u32),
    Book(String, Booking),
    Abroad(String),
    Signal(String, u32),
    Cancel(String),
    Job(String, Errand),
    /// Takes up a job again that has failed for good.
    Revive(String),
    /// Starts a run by way of a worker in its own process, which has just left.
    Launch(String),
    Fork(String, String),
    /// Claims what waits far away, fails it, tries it again, loses it, does it.
    Travel(String),
    SkipAbroad(String),
    Steer(String),
    Queue(String),
    /// Tries these runs again, all together.
    Bulk(String, Vec<String>),
    Schedule(String),
    Purge(String),
    PartitionByMonth,
    Resume(String),
}

/// Not a test: the process that the tests start.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a process for the scenarios to start and to kill"]
async fn program() {
    let Ok(orders) = std::env::var(ORDERS) else { return };
    let orders: Orders = serde_json::from_str(&orders).unwrap();
    let db = PgPoolOptions::new()
        .max_connections(6)
        .acquire_timeout(Duration::from_secs(20))
        .connect_lazy(&orders.url)
        .unwrap();
    match &orders.role {
        Role::Worker(duties) => work(&orders, duties, db).await,
        Role::Client { tenant, errands } => ask(&orders, *tenant, errands, db).await,
        Role::Server { port } => remote::serve(Client::new(db), *port).await,
        Role::Node { base } => {
            let node =
                flatrender_engine::remote::Worker::builder(remote::http(), base).credential(&orders.name).slots(8);
            let runner = Runner(Arc::new(Ledger::open(&orders.ledger, &orders.name)));
            node.handler::<Errand>(runner).run(told_to_stop()).await.unwrap();
        }
    }
}

/// SIGTERM: gently. A second one: at once.
async fn work(orders: &Orders, duties: &Duties, db: PgPool) {
    let ledger = Arc::new(Ledger::open(&orders.ledger, &orders.name));
    let mut worker = Worker::builder(db)
        .name(&orders.name)
        .grace(Duration::from_millis(duties.grace_ms))
        .queue("errands", duties.slots);
    if duties.runs {
        worker = worker.workflow::<Trip>().workflow::<Detour>().workflow::<Booking>().workflow::<Tree>();
        worker =
            worker.workflow::<Single>().workflow::<Abroad>().workflow::<Tick>().workflow::<Race>().workflow::<Blob>();
        worker = worker.workflow::<Nap>();
    }
    if duties.errands {
        worker = worker.handler::<Errand>(Runner(ledger.clone()));
    }
    if duties.schedules {
        worker = worker.schedules();
    }
    if let Some(days) = duties.keeps_days {
        let keep = Duration::from_secs(days * 86_400);
        worker = worker.retention(Retention::forever().runs(keep).jobs(keep).fires(keep));
    }
    if let Some(deployed) = duties.deployed {
        worker = deployed.on(worker, &ledger);
    }
    worker.run(told_to_stop()).await.unwrap();
}

/// Cancelled by SIGTERM.
fn told_to_stop() -> CancellationToken {
    let (stop, mut term) = (CancellationToken::new(), signal(SignalKind::terminate()).unwrap());
    let told = stop.clone();
    tokio::spawn(async move {
        term.recv().await;
        told.cancel();
    });
    stop
}

async fn ask(orders: &Orders, tenant: Uuid, errands: &[Ask], db: PgPool) {
    let client = Client::new(db.clone());
    let asker = Asker { operations: Operations::new(client.clone()), client, db, tenant, who: orders.name.clone() };
    for errand in errands {
        asker.ask(errand).await;
    }
    // Wake-ups leave in the background.
    tokio::time::sleep(Duration::from_millis(50)).await;
}

struct Asker {
    client: Client,
    operations: Operations,
    db: PgPool,
    tenant: Uuid,
    who: String,
}

impl Asker {
    async fn ask(&self, ask: &Ask) {
        match ask {
            Ask::Install => flatrender_engine::schema::install(&self.db).await.unwrap(),
            Ask::Start(key, trip) | Ask::StartAgain(key, trip) => self.start(key, Some(key), trip.clone()).await,
            Ask::Book(key, booking) => self.start(key, None, booking.clone()).await,
            Ask::Abroad(key) => self.start(key, None, Abroad(5)).await,
            Ask::StartMany(key, count) => self.start_many(key, *count).await,
            Ask::Signal(key, n) => {
                let run_id = self.run_of(key).await;
                let mut tx = self.db.begin().await.unwrap();
                let delivery = self.client.signal(&mut tx, run_id, "go", Some("once"), n).await.unwrap();
                tx.commit().await.unwrap();
                assert!(delivery != flatrender_engine::Delivery::Unknown, "{key}: {delivery:?}");
            }
            Ask::Cancel(key) => {
                let run_id = self.run_of(key).await;
                self.tolerate(async |tx| self.operations.cancel(tx, &self.by(), run_id).await).await;
            }
            Ask::Job(key, errand) => {
                let Some(mut tx) = self.once(key, "job", None).await else { return };
                let options =
                    JobOptions { unique: Some(flatrender_engine::Unique::new(key.clone())), ..JobOptions::default() };
                let job = self.client.enqueue(&mut tx, self.tenant, errand.clone(), &options).await.unwrap();
                assert!(job.new, "{key}");
                sqlx::query("update accepted set job_id = $2 where key = $1")
                    .bind(key)
                    .bind(job.job_id)
                    .execute(&mut *tx)
                    .await
                    .unwrap();
                tx.commit().await.unwrap();
            }
            Ask::Revive(key) => self.revive(key).await,
            Ask::Launch(key) => self.launch(key).await,
            Ask::Fork(key, of) => self.fork(key, of).await,
            Ask::Travel(key) => self.travel(key).await,
            Ask::SkipAbroad(key) => {
                while let Some(task_id) = self.abroad(key).await {
                    self.tolerate(async |tx| self.operations.skip(tx, &self.by(), task_id, &99).await).await;
                }
            }
            Ask::Steer(key) => {
                let run_id = self.run_of(key).await;
                self.tolerate(async |tx| self.operations.set_priority(tx, &self.by(), run_id, 3).await).await;
                let attributes = serde_json::json!({ "order": key });
                self.tolerate(async |tx| self.operations.set_attributes(tx, run_id, &attributes).await).await;
            }
            Ask::Queue(name) => {
                self.tolerate(async |tx| self.operations.pause_queue(tx, &self.by(), name).await.map(drop)).await;
                self.tolerate(async |tx| self.operations.resume_queue(tx, &self.by(), name).await.map(drop)).await;
            }
            Ask::Bulk(key, of) => self.bulk(key, of).await,
            Ask::Schedule(key) => self.schedule(key).await,
            Ask::Purge(key) => self.purge(key).await,
            Ask::PartitionByMonth => {
                self.tolerate(async |tx| {
                    self.operations.partition_by(tx, &self.by(), Series::Fires, Piece::Month).await
                })
                .await;
            }
            Ask::Resume(key) => {
                let run_id = self.run_of(key).await;
                let mut tx = self.db.begin().await.unwrap();
                self.client.resume(&mut tx, run_id).await.unwrap();
                tx.commit().await.unwrap();
            }
        }
        self.client.announce();
    }

    fn by(&self) -> By {
        By::new(&self.who).because("the scenario wants it")
    }

    /// A transaction in which `key` is noted as done; none when it was done before.
    async fn once(
        &self,
        key: &str,
        what: &str,
        run_id: Option<Uuid>,
    ) -> Option<sqlx::Transaction<'static, sqlx::Postgres>> {
        let mut tx = self.db.begin().await.unwrap();
        let noted = sqlx::query("insert into accepted (key, what, run_id) values ($1, $2, $3) on conflict do nothing")
            .bind(key)
            .bind(what)
            .bind(run_id)
            .execute(&mut *tx)
            .await
            .unwrap();
        (noted.rows_affected() == 1).then_some(tx)
    }

    async fn run_of(&self, key: &str) -> Uuid {
        sqlx::query_scalar("select run_id from accepted where key = $1").bind(key).fetch_one(&self.db).await.unwrap()
    }

    async fn start<W: Workflow>(&self, key: &str, business_key: Option<&str>, workflow: W) {
        let Some(mut tx) = self.once(key, W::NAME, None).await else {
            if business_key.is_some() {
                // Whoever starts it again is told which run it is.
                let mut tx = self.db.begin().await.unwrap();
                let again = self.client.start(&mut tx, self.tenant, business_key, workflow).await.unwrap();
                tx.commit().await.unwrap();
                assert!(!again.started && again.run_id == self.run_of(key).await);
            }
            return;
        };
        let started = self.client.start(&mut tx, self.tenant, business_key, workflow).await.unwrap();
        self.name(&mut tx, key, started.run_id).await;
        tx.commit().await.unwrap();
    }

    async fn name(&self, tx: &mut PgConnection, key: &str, run_id: Uuid) {
        sqlx::query("update accepted set run_id = $2 where key = $1").bind(key).bind(run_id).execute(tx).await.unwrap();
    }

    async fn start_many(&self, key: &str, count: u32) {
        let Some(mut tx) = self.once(key, "many", None).await else { return };
        let runs =
            self.client.start_all(&mut tx, self.tenant, (0..count).map(|n| Single(Errand::new(n)))).await.unwrap();
        for (n, run_id) in runs.into_iter().enumerate() {
            sqlx::query("insert into accepted (key, what, run_id) values ($1, 'single', $2)")
                .bind(format!("{key} {n}"))
                .bind(run_id)
                .execute(&mut *tx)
                .await
                .unwrap();
        }
        tx.commit().await.unwrap();
    }

    /// Takes a job up again once it is dead.
    async fn revive(&self, key: &str) {
        let job = sqlx::query_scalar("select job_id from accepted where key = $1").bind(key);
        let job_id: i64 = job.fetch_one(&self.db).await.unwrap();
        let dead = "select exists (select from workflow.finished_jobs where id = $1)";
        while !sqlx::query_scalar::<_, bool>(dead).bind(job_id).fetch_one(&self.db).await.unwrap() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        let mut tx = self.db.begin().await.unwrap();
        let outcomes = self.operations.retry_jobs(&mut tx, &self.by(), &[job_id]).await.unwrap();
        tx.commit().await.unwrap();
        // Who was killed before the answer came finds it in its queue, or dead once more.
        assert!(matches!(outcomes[..], [(_, Revival::Done | Revival::Moved)]), "{outcomes:?}");
    }

    async fn launch(&self, key: &str) {
        let known = sqlx::query_scalar("select exists (select from accepted where key = $1)").bind(key);
        if known.fetch_one(&self.db).await.unwrap() {
            return;
        }
        let worker = Worker::builder(self.db.clone()).name(key).workflow::<Nap>().build();
        let (client, stop) = (worker.client(), CancellationToken::new());
        let running = worker.run(stop.clone());
        let running = tokio::spawn(async move { running.await.unwrap() });
        // Who has seen the end of a nap knows the time, and so how to name a run.
        let patience = Duration::from_secs(20);
        let mut nap = client.launch(self.tenant, Nap).await.unwrap();
        nap.outcome(patience).await.unwrap().expect("its worker is there").unwrap();
        stop.cancel();
        running.await.unwrap();
        let launched = client.launch(self.tenant, Nap).await.unwrap();
        let tx = self.once(key, "nap", Some(launched.run_id())).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Does an operation, whatever has become of what it is about.
    async fn tolerate(&self, act: impl AsyncFnOnce(&mut PgConnection) -> Result<(), OperationError>) {
        let mut tx = self.db.begin().await.unwrap();
        match act(&mut tx).await {
            Ok(()) => tx.commit().await.unwrap(),
            Err(OperationError::Moved(_) | OperationError::Conflict(_) | OperationError::NotFound(_)) => {
                tx.rollback().await.unwrap();
            }
            Err(error) => panic!("{error:?}"),
        }
    }

    /// Makes a run out of another that may still be under way, from its last step, or from its first.
    async fn fork(&self, key: &str, of: &str) {
        let origin = self.run_of(of).await;
        let last = Fork::from_step("fx arrive").input::<Trip>(serde_json::json!(Trip::new(7))).unwrap();
        loop {
            for changes in [&last, &Fork::from_step("fx pack")] {
                let Some(mut tx) = self.once(key, "fork", None).await else { return };
                match self.operations.fork(&mut tx, &self.by(), origin, changes).await {
                    Ok(forked) => {
                        self.name(&mut tx, key, forked.run_id).await;
                        return tx.commit().await.unwrap();
                    }
                    Err(OperationError::NoSuchStep(_)) => tx.rollback().await.unwrap(),
                    Err(error) => panic!("{error:?}"),
                }
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// The task of a run that waits for somebody far away; none once the run is over.
    async fn abroad(&self, key: &str) -> Option<i64> {
        let run_id = self.run_of(key).await;
        loop {
            let progress = self.client.progress(run_id).await.unwrap();
            if let Some(task) = progress.activities.first() {
                return Some(task.id);
            }
            if self.client.run(run_id).await.unwrap()?.state.is_final() {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn claim(&self, task_id: i64) -> Option<flatrender_engine::LeasedTask> {
        let claimed = self.client.claim(&["faraway"], &Labels::new(), &self.who, 10).await.unwrap();
        for other in claimed.iter().filter(|task| task.task_id != task_id) {
            self.client.release(other.task_id, other.lease_token).await.unwrap();
        }
        claimed.into_iter().find(|task| task.task_id == task_id)
    }

    async fn travel(&self, key: &str) {
        let failure = flatrender_engine::Failure::transient("far.away", "not today");
        if let Some(task_id) = self.abroad(key).await
            && let Some(task) = self.claim(task_id).await
        {
            self.settled(self.client.fail(task_id, task.lease_token, &failure).await);
        }
        if let Some(task_id) = self.abroad(key).await {
            self.tolerate(async |tx| self.operations.retry_now(tx, &self.by(), task_id).await).await;
            self.claim(task_id).await;
        }
        while let Some(task_id) = self.abroad(key).await {
            // Also what a client before this one has claimed and not done.
            self.tolerate(async |tx| self.operations.force_release(tx, &self.by(), task_id).await).await;
            self.tolerate(async |tx| self.operations.retry_now(tx, &self.by(), task_id).await).await;
            if let Some(task) = self.claim(task_id).await {
                self.client.renew(task_id, task.lease_token, None).await.unwrap();
                self.settled(self.client.complete(task_id, task.lease_token, &11).await);
                self.settled(self.client.complete(task_id, task.lease_token, &11).await);
            }
        }
    }

    fn settled(&self, outcome: Result<(), Error>) {
        match outcome {
            Ok(()) | Err(Error::LeaseLost(_)) => {}
            Err(error) => panic!("{error:?}"),
        }
    }

    async fn bulk(&self, key: &str, of: &[String]) {
        let Some(mut tx) = self.once(key, "bulk", None).await else { return };
        let attributes = serde_json::json!({ "bulk": key });
        for run in of {
            let run_id = self.run_of(run).await;
            self.operations.set_attributes(&mut tx, run_id, &attributes).await.unwrap();
        }
        let filter = Filter { tenant: Some(self.tenant), attributes: Some(attributes), ..Filter::default() };
        let preview = self.operations.preview(&mut tx, &self.by(), Action::Retry, &filter, None).await.unwrap();
        assert_eq!(preview.total as usize, of.len());
        self.operations.begin(&mut tx, &self.by(), preview.id, preview.total).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn schedule(&self, key: &str) {
        let schedules = Schedules::new(self.client.clone());
        let mut terms = Terms::of(key, "*/2 * * * * *", &Tick).unwrap();
        (terms.catch_up, terms.overlap) = (CatchUp::All, Overlap::BufferOne);
        let mut db = self.db.acquire().await.unwrap();
        let mut tx = db.begin().await.unwrap();
        let id = schedules.ensure(&mut tx, self.tenant, &terms).await.unwrap();
        tx.commit().await.unwrap();
        let mut tx = db.begin().await.unwrap();
        schedules.pause(&mut tx, id).await.unwrap();
        schedules.resume(&mut tx, id).await.unwrap();
        terms.overlap = Overlap::Allow;
        schedules.update(&mut tx, id, None, &terms).await.unwrap();
        tx.commit().await.unwrap();
        let gone = format!("{key}-gone");
        let mut tx = db.begin().await.unwrap();
        let id = schedules.ensure(&mut tx, self.tenant, &Terms::of(gone, "0 0 1 1 *", &Tick).unwrap()).await.unwrap();
        schedules.run_now(&mut tx, id).await.unwrap();
        schedules.delete(&mut tx, id).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// Removes a run that is over, and what says that it must be there.
    async fn purge(&self, key: &str) {
        let known = sqlx::query_scalar("select run_id from accepted where key = $1").bind(key);
        let Some(run_id) = known.fetch_optional(&self.db).await.unwrap() else { return };
        while self.client.run(run_id).await.unwrap().is_some_and(|run| !run.state.is_final()) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        self.tolerate(async |tx| {
            sqlx::query("delete from accepted where run_id = $1").bind(run_id).execute(&mut *tx).await?;
            self.operations.purge(tx, &self.by(), run_id, true).await
        })
        .await;
    }
}
