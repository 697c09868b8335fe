//! Values that do not fit a row, and values that nobody may read in one.

mod remote;
mod sweeps;
mod unreadable;

use crate::world::World;
use flatrender_engine::{
    Activity, Attempt, Client, Context, Failure, Handler, JobOptions, Payloads, Worker, Workflow,
    client::{Error, Run, RunState},
    operations::{By, Fork, Operations},
    payload::{INLINE, PayloadCodec, PayloadStore},
    schedules::{Schedules, Terms},
    testing::{self, Rehearsal},
    worker::Builder,
};
use futures::future::{BoxFuture, FutureExt, pending};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sqlx::PgPool;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

const LONG: Duration = Duration::from_secs(30);

/// Keeps payloads in memory, and is away now and then.
#[derive(Clone, Default)]
struct Vault {
    kept: Arc<Mutex<BTreeMap<Uuid, Vec<u8>>>>,
    /// Calls that find nobody there.
    away: Arc<AtomicU32>,
    /// The put that is never answered, counted from the next.
    stuck: Arc<AtomicU32>,
}

impl Vault {
    fn counts_down(counter: &AtomicU32) -> Option<u32> {
        counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).ok()
    }

    fn answer(&self) -> Result<(), Failure> {
        let away = Self::counts_down(&self.away).is_some();
        if away { Err(Failure::transient("vault.away", "the vault is away")) } else { Ok(()) }
    }

    /// Changes a byte of everything that is kept, or changes it back.
    fn spoil(&self) {
        self.kept.lock().unwrap().values_mut().for_each(|bytes| bytes[5] ^= 1);
    }

    fn ids(&self) -> BTreeSet<Uuid> {
        self.kept.lock().unwrap().keys().copied().collect()
    }

    fn payloads(&self) -> Payloads {
        Payloads::inline().stored_in(self.clone())
    }
}

impl PayloadStore for Vault {
    fn put<'a>(&'a self, id: Uuid, bytes: &'a [u8]) -> BoxFuture<'a, Result<(), Failure>> {
        async move {
            self.answer()?;
            self.kept.lock().unwrap().insert(id, bytes.to_vec());
            if Self::counts_down(&self.stuck) == Some(1) {
                return pending().await;
            }
            Ok(())
        }
        .boxed()
    }

    fn get(&self, id: Uuid) -> BoxFuture<'_, Result<Vec<u8>, Failure>> {
        async move {
            self.answer()?;
            let kept = self.kept.lock().unwrap().get(&id).cloned();
            kept.ok_or_else(|| Failure::permanent("vault.missing", "it is not there"))
        }
        .boxed()
    }

    fn list(&self, after: Uuid) -> BoxFuture<'_, Result<Vec<Uuid>, Failure>> {
        async move {
            self.answer()?;
            Ok(self.ids().into_iter().filter(|id| *id > after).take(2).collect())
        }
        .boxed()
    }

    fn delete(&self, id: Uuid) -> BoxFuture<'_, Result<(), Failure>> {
        async move {
            self.answer()?;
            self.kept.lock().unwrap().remove(&id);
            Ok(())
        }
        .boxed()
    }
}

/// Turns bits over by a key per tenant: enough to see who opens what with which key.
struct Turner {
    newest: &'static str,
    known: &'static [&'static str],
}

impl Turner {
    fn turn(tenant: Uuid, key: &str, bytes: &[u8]) -> Vec<u8> {
        let pad: Vec<u8> = tenant.as_bytes().iter().chain(key.as_bytes()).map(|b| b | 128).collect();
        bytes.iter().zip(pad.iter().cycle()).map(|(b, p)| b ^ p).collect()
    }
}

impl PayloadCodec for Turner {
    fn seal(&self, tenant_id: Uuid, bytes: &[u8]) -> Result<(String, Vec<u8>), Failure> {
        Ok((self.newest.to_owned(), Self::turn(tenant_id, self.newest, bytes)))
    }

    fn open(&self, tenant_id: Uuid, key: &str, sealed: &[u8]) -> Result<Vec<u8>, Failure> {
        match self.known.contains(&key) {
            true => Ok(Self::turn(tenant_id, key, sealed)),
            false => Err(Failure::permanent("test.no_key", format!("there is no key {key}"))),
        }
    }
}

/// Says something twice.
#[derive(Serialize, Deserialize)]
struct Echo(String);

impl Activity for Echo {
    const NAME: &'static str = "Echo";
    const QUEUE: &'static str = "echo";
    type Output = String;
}

struct Wall;

impl Handler<Echo> for Wall {
    async fn handle(&self, _: &Attempt, said: Echo) -> Result<String, Failure> {
        Ok(said.0)
    }
}

/// Passes a text through everything that a run can do with one.
#[derive(Debug, Serialize, Deserialize)]
struct Whisper {
    text: String,
    deeper: u32,
}

impl Workflow for Whisper {
    const NAME: &'static str = "whisper";
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        if self.deeper == 0 {
            return Ok(self.text);
        }
        let text = self.text;
        let text: String = cx.step("step", async |_| Ok(text.clone())).await?;
        let text: String = cx.memo("memo", || async { Ok(text.clone()) }).await?;
        let text = cx.activity("activity", Echo(text)).await?;
        let heard: String = cx.signal("signal", "heard").await?;
        let text = cx.child("child", Whisper { text: text + &heard[..1], deeper: 0 }).await?;
        match self.deeper {
            1 => Ok(text),
            deeper => cx.continue_as_new(Whisper { text, deeper: deeper - 1 }),
        }
    }
}

/// A world whose client keeps its payloads so.
async fn world_with(db: PgPool, payloads: &Payloads) -> World {
    with(World::new(db).await, payloads)
}

fn with(mut world: World, payloads: &Payloads) -> World {
    world.client = Client::new(world.db.clone()).payloads(payloads.clone());
    world
}

fn operations(world: &World) -> Operations {
    Operations::new(world.client.clone())
}

/// Does all that the tests here ask for.
fn all(payloads: &Payloads) -> impl Fn(Builder) -> Builder {
    let payloads = payloads.clone();
    move |w| {
        let w = w.payloads(payloads.clone()).workflow::<Whisper>().workflow::<Listener>();
        w.handler::<Echo>(Wall).handler::<Flood>(Wall)
    }
}

/// A text that does not fit a row.
fn large() -> String {
    "a large text, ".repeat(30_000)
}

fn text(run: &Run) -> String {
    run.output_as().unwrap_or_else(|| panic!("{run:?}"))
}

/// Ids in the rows themselves.
async fn named(world: &World) -> BTreeSet<Uuid> {
    let sql = "select (v #>> '{$blob,id}')::uuid from (
        select input as v from workflow.runs union all select output from workflow.runs union all select output from workflow.steps
        union all select input from workflow.tasks union all select input from workflow.jobs union all select input from workflow.schedules
        union all select input from workflow.finished_jobs union all select output from workflow.finished_jobs) x where v ? '$blob'";
    let ids: Vec<Uuid> = sqlx::query_scalar(sql).fetch_all(&world.db).await.unwrap();
    ids.into_iter().collect()
}

/// The longest value in a row, in bytes.
const LONGEST: &str = "select max(octet_length(v::text))::bigint from (
    select input as v from workflow.runs union all select output from workflow.runs union all select output from workflow.steps
    union all select input from workflow.finished_jobs union all select output from workflow.finished_jobs) x";

#[sqlx::test(migrations = false)]
async fn a_value_that_does_not_fit_a_row_goes_to_the_store_and_comes_back_whatever_crashes(db: PgPool) {
    let vault = Vault::default();
    let payloads = vault.payloads();
    let mut world = world_with(db, &payloads).await;
    for _ in 0..2 {
        world.worker(|w| all(&payloads)(w).crash_after_every_event());
    }
    let run_id = world.start(Whisper { text: large(), deeper: 2 }).await;
    for _ in 0..2 {
        let _ = world.signal(run_id, "heard", None, large()).await;
    }
    let end = world.end(run_id).await;
    assert_eq!(text(&end), large() + "aa");
    assert_eq!(world.client.history(end.id).await.unwrap()[0].output, Some(large().into()));
    assert!(world.count(LONGEST).await < 300);
    let history = testing::history(&world.client, end.id).await.unwrap().unwrap();
    testing::replay::<Whisper>(&history).unwrap();
    // What a crash left behind goes, and nothing else.
    operations(&world).sweep_payloads(Duration::ZERO).await.unwrap();
    assert_eq!(named(&world).await, vault.ids());
}

#[sqlx::test(migrations = false)]
async fn jobs_bulk_starts_and_launches_go_the_same_way(db: PgPool) {
    let vault = Vault::default();
    let payloads = vault.payloads();
    let mut world = world_with(db, &payloads).await;
    let worker = all(&payloads)(Worker::builder(world.db.clone())).build();
    let (local, stop) = (worker.client(), CancellationToken::new());
    let worker = tokio::spawn(worker.run(stop.clone()));

    let mut tx = world.db.begin().await.unwrap();
    world.client.enqueue(&mut tx, world.tenant, Echo(large()), &JobOptions::default()).await.unwrap();
    let jobs = [Echo(large()), Echo("small".to_owned())];
    world.client.enqueue_all(&mut tx, world.tenant, jobs, &JobOptions::default()).await.unwrap();
    let runs = ["one", "two"].map(|end| Whisper { text: large() + end, deeper: 0 });
    let runs = world.client.start_all(&mut tx, world.tenant, runs).await.unwrap();
    tx.commit().await.unwrap();
    world.client.announce();
    let done =
        "select count(*) from workflow.finished_jobs where outcome = 'ok' and input ? '$blob' and output ? '$blob'";
    world.until(2, done).await;
    assert_eq!(text(&world.end(runs[0]).await), large() + "one");
    assert_eq!(text(&world.end(runs[1]).await), large() + "two");

    // Once by the worker's own client, until the outcome is heard of in this process; once from outside.
    for client in [&local, &world.client] {
        for _ in 0..2 {
            let mut run = client.launch(world.tenant, Whisper { text: large(), deeper: 0 }).await.unwrap();
            assert_eq!(run.outcome(LONG).await.unwrap().expect("it ends").unwrap(), large());
            // As often as it is asked.
            assert_eq!(run.outcome(LONG).await.unwrap().expect("it ends").unwrap(), large());
        }
    }
    assert!(world.count(LONGEST).await < 300);
    stop.cancel();
    worker.await.unwrap().unwrap();
    world.stop().await;
}

#[sqlx::test(migrations = false)]
async fn a_schedule_keeps_its_input_outside_for_all_its_runs(db: PgPool) {
    let vault = Vault::default();
    let payloads = vault.payloads();
    let mut world = world_with(db, &payloads).await;
    world.worker(all(&payloads));
    let schedules = Schedules::new(world.client.clone());
    let terms = Terms::of("nightly", "0 3 * * *", &Whisper { text: large(), deeper: 0 }).unwrap();
    let mut tx = world.db.begin().await.unwrap();
    let id = schedules.create(&mut tx, world.tenant, &terms).await.unwrap();
    let first = schedules.run_now(&mut tx, id).await.unwrap();
    // It says so already.
    assert_eq!(schedules.ensure(&mut tx, world.tenant, &terms).await.unwrap(), id);
    tx.commit().await.unwrap();
    assert_eq!(text(&world.end(first).await), large());
    let schedule = schedules.find(id).await.unwrap().unwrap();
    assert_eq!((&schedule.terms, schedule.revision), (&terms, 1));
    operations(&world).sweep_payloads(Duration::ZERO).await.unwrap();
    let mut tx = world.db.begin().await.unwrap();
    let second = schedules.run_now(&mut tx, id).await.unwrap();
    tx.commit().await.unwrap();
    assert_eq!(text(&world.end(second).await), large());
    assert_eq!(world.count("select count(distinct input #>> '{$blob,id}') from workflow.runs").await, 1);
}

#[sqlx::test(migrations = false)]
async fn a_fork_may_have_a_large_input_and_a_step_be_skipped_with_a_large_output(db: PgPool) {
    let vault = Vault::default();
    let payloads = vault.payloads();
    let mut world = world_with(db, &payloads).await;
    world.worker(|w| w.payloads(payloads.clone()).workflow::<Whisper>());
    let run_id = world.start(Whisper { text: "small".to_owned(), deeper: 1 }).await;
    let task = world.activity(run_id, "activity").await;
    let by = By::new("ada");
    let input = json!(Whisper { text: large(), deeper: 0 });
    let mut tx = world.db.begin().await.unwrap();
    operations(&world).skip(&mut tx, &by, task.id, &large()).await.unwrap();
    let changes = Fork::from_step("step").input::<Whisper>(input).unwrap();
    let fork = operations(&world).fork(&mut tx, &by, run_id, &changes).await.unwrap();
    tx.commit().await.unwrap();
    let _ = world.signal(run_id, "heard", None, "b").await;
    assert_eq!(text(&world.end(run_id).await), large() + "b");
    assert_eq!(text(&world.end(fork.run_id).await), large());
    assert!(world.count("select max(octet_length(t::text))::bigint from workflow.audit t").await < 2000);
}

#[test]
fn a_rehearsal_lets_values_be_as_long_as_they_are_told_to_be() {
    let rehearsal = Rehearsal::new()
        .workflow::<Whisper>()
        .handler::<Echo>(|_, said| Ok(said.0))
        .step("step", |_| Ok(large()))
        .signal("heard", "b");
    let whisper = || Whisper { text: large(), deeper: 1 };
    assert!(rehearsal.run(whisper()).is_err());
    let played = rehearsal.payloads(Vault::default().payloads()).run(whisper()).unwrap();
    assert_eq!(played.output_as::<String>().unwrap(), large() + "b");
}

#[sqlx::test(migrations = false)]
async fn a_byte_decides_and_without_a_store_it_is_refused_by_its_code(db: PgPool) {
    let payloads = Vault::default().payloads().ceiling_bytes(2 * INLINE);
    let mut world = world_with(db, &payloads).await;
    world.worker(all(&payloads));
    // With the quotes, the name of the fields and the blanks that PostgreSQL writes.
    let fits = INLINE - r#"{"text": "", "deeper": 0}"#.len();
    let outside = "select count(*) from workflow.runs where input ? '$blob'";
    for (length, stored_outside) in [(fits, 0), (fits + 1, 1)] {
        let run = world.finish(Whisper { text: "x".repeat(length), deeper: 0 }).await;
        assert_eq!(text(&run).len(), length);
        assert_eq!(world.count(outside).await, stored_outside);
    }
    let start = async |client: &Client, length: usize| {
        let mut tx = world.db.begin().await.unwrap();
        let whisper = Whisper { text: "x".repeat(length), deeper: 0 };
        match client.start(&mut tx, world.tenant, None, whisper).await {
            Err(Error::Unrecordable(failure)) => failure.code,
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(start(&world.client, 2 * INLINE).await, "workflow.unrecordable");
    assert_eq!(start(&Client::new(world.db.clone()), fits + 1).await, "workflow.unrecordable");
    // Sealed it is longer.
    let sealed = Payloads::inline().sealed_by(Turner { newest: "k1", known: &["k1"] });
    assert_eq!(start(&Client::new(world.db.clone()).payloads(sealed), fits).await, "workflow.unrecordable");
}

/// Says more than anybody wants to hear.
#[derive(Serialize, Deserialize)]
struct Flood(usize);

impl Activity for Flood {
    const NAME: &'static str = "Flood";
    const QUEUE: &'static str = "flood";
    type Output = String;
}

impl Handler<Flood> for Wall {
    async fn handle(&self, _: &Attempt, flood: Flood) -> Result<String, Failure> {
        Ok("x".repeat(flood.0))
    }
}

#[derive(Serialize, Deserialize)]
struct Listener(usize);

impl Workflow for Listener {
    const NAME: &'static str = "listener";
    type Output = usize;

    async fn run(self, cx: &Context) -> Result<usize, Failure> {
        Ok(cx.activity("listen", Flood(self.0)).await?.len())
    }
}

#[sqlx::test(migrations = false)]
async fn a_result_of_a_hundred_megabytes_fails_once_and_by_its_code(db: PgPool) {
    let payloads = Vault::default().payloads();
    let mut world = world_with(db, &payloads).await;
    world.worker(all(&payloads));
    let run = world.finish(Listener(100_000_000)).await;
    assert_eq!((run.state, run.error.unwrap().code.as_str()), (RunState::Failed, "workflow.unrecordable"));
    assert_eq!(world.count("select count(*) from workflow.attempts where step_key = 'listen'").await, 1);
    assert_eq!(world.finish(Listener(10_000_000)).await.output_as::<usize>(), Some(10_000_000));
}

#[sqlx::test(migrations = false)]
async fn nobody_passes_a_reference_off_as_a_value(db: PgPool) {
    let world = World::new(db).await;
    let blob = json!({ "$blob": { "id": Uuid::nil(), "sha256": "00", "size": 1 } });
    let sealed = json!({ "$sealed": { "key": "k1", "data": "" } });
    for forged in [blob, sealed] {
        let mut tx = world.db.begin().await.unwrap();
        let sent = world.client.signal(&mut tx, Uuid::nil(), "heard", None, &forged).await;
        assert!(matches!(&sent, Err(Error::Unrecordable(f)) if f.code == "workflow.unrecordable"), "{sent:?}");
    }
}
