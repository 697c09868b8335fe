//! Layer 1: the tables in memory and those of PostgreSQL get the same commands, drawn at random; after each the rows must be the
//! same. So the reference is honest, and so is every rehearsal.
//!
//! The same commands each time; `PROPTEST_CASES=2000` draws as many others. What it finds is shrunk.

mod commands;
mod jobs;
mod reference;
mod rows;

use super::{Memory, NewRun, TaskRow};
use crate::{
    activity::Labels,
    client::StartRequest,
    record::Kind,
    store::{
        self, Fence, News,
        tasks::{Claimant, Plain, Trip},
    },
    testing::chance::Chance,
    worker::RUN_QUEUE,
};
use chrono::{DateTime, Utc};
use commands::{Batch, Command, Round, attempt, commands};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use reference::Lineage;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection, PgPool};
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// Cases of a normal run.
const CASES: u32 = 40;
const WORK: &str = "work";
const TENANT: Uuid = Uuid::from_u128(7);

struct Both<'a> {
    db: &'a mut PgConnection,
    memory: Memory,
    lineage: Vec<Lineage>,
    /// Runs in the order of their starts.
    runs: Vec<Uuid>,
    /// Every lease there ever was: in memory, and in PostgreSQL.
    leases: Vec<(Fence, Fence)>,
    paused: bool,
    last_id: u128,
    /// What has been in any row.
    seen: &'a Mutex<BTreeSet<String>>,
}

type Tried = Result<(), TestCaseError>;

/// A command that PostgreSQL refuses is a bug, too.
fn refused(error: sqlx::Error) -> TestCaseError {
    TestCaseError::fail(format!("PostgreSQL refuses: {error}"))
}

impl Both<'_> {
    fn id(&mut self) -> Uuid {
        self.last_id += 1;
        Uuid::from_u128(self.last_id)
    }

    fn run(&self, n: u8) -> Option<Uuid> {
        // Lately started ones are the interesting ones.
        self.runs.iter().rev().nth(usize::from(n) % self.runs.len().max(1)).copied()
    }

    /// A lease: a recent one, held or stale.
    fn lease(&self, n: u8) -> Option<(Fence, Fence)> {
        self.leases.iter().rev().nth(usize::from(n) % self.leases.len().max(1)).copied()
    }

    fn task(&self, n: u8) -> Option<i64> {
        self.memory.tasks.keys().nth(usize::from(n) % self.memory.tasks.len().max(1)).copied()
    }

    async fn obey(&mut self, command: &Command) -> Tried {
        match command {
            Command::Start { business } => self.start(*business).await,
            Command::StartHere { worker, runs, lease, again } => self.start_here(*worker, *runs, *lease, *again).await,
            Command::Claim { worker, runs, want, gpu } => self.claim(*worker, *runs, *want, *gpu).await,
            Command::Pump(batches) => self.pump(batches).await,
            Command::Step { run, key, ok } => self.step(*run, *key, *ok).await,
            Command::Renew { task } => self.renew(*task).await,
            Command::Cancel { run } => {
                let Some(run_id) = self.run(*run) else { return Ok(()) };
                let asked = store::runs::cancel(self.db, run_id, "no").await.map_err(refused)?;
                prop_assert_eq!(self.memory.cancel(run_id, "no"), !asked.is_empty());
                Ok(())
            }
            Command::Signal { run, dedupe } => {
                let run_id = self.run(*run).unwrap_or(TENANT);
                let dedupe = dedupe.map(|n| n.to_string());
                let told = store::runs::signal(self.db, run_id, "word", dedupe.as_deref(), &json!(1))
                    .await
                    .map_err(refused)?;
                prop_assert_eq!(self.memory.signal(run_id, "word", dedupe.as_deref(), json!(1)), told.0);
                Ok(())
            }
            Command::Resume { run } => {
                let Some(run_id) = self.run(*run) else { return Ok(()) };
                let resumed = store::runs::resume(self.db, run_id).await.map_err(refused)?;
                prop_assert_eq!(self.memory.resume(run_id), !resumed.is_empty());
                Ok(())
            }
            Command::Pass { seconds } => {
                self.memory.now += chrono::Duration::seconds(i64::from(*seconds));
                self.execute(
                    "update workflow.clock set moved_by = moved_by + make_interval(secs => $1)",
                    f64::from(*seconds),
                )
                .await
            }
            Command::Wake => {
                self.memory.wake_due();
                self.execute("select workflow.wake_due() where $1 = 0", 0.0).await
            }
            Command::Recover { gone } => {
                let gone: Vec<i64> = gone.iter().map(|worker| i64::from(*worker)).collect();
                self.memory.recover(&gone);
                sqlx::query("select workflow.recover($1)")
                    .bind(gone)
                    .execute(&mut *self.db)
                    .await
                    .map(drop)
                    .map_err(refused)
            }
            Command::RetryNow { task } => {
                let Some(task_id) = self.task(*task) else { return Ok(()) };
                let told = store::operations::retry_now(self.db, task_id).await.map_err(refused)?;
                prop_assert_eq!(self.memory.retry_now(task_id), told);
                Ok(())
            }
            Command::ForceRelease { task } => {
                let Some(task_id) = self.task(*task) else { return Ok(()) };
                let told = store::operations::force_release(self.db, task_id, "test").await.map_err(refused)?;
                prop_assert_eq!(self.memory.force_release(task_id), told);
                Ok(())
            }
            Command::Skip { task } => {
                let Some(task_id) = self.task(*task) else { return Ok(()) };
                let told = store::operations::skip(self.db, task_id, &json!(5)).await.map_err(refused)?;
                prop_assert_eq!(self.memory.skip(task_id, &json!(5)), told);
                Ok(())
            }
            Command::Priority { run, priority } => {
                let Some(run_id) = self.run(*run) else { return Ok(()) };
                let told = store::operations::set_priority(self.db, run_id, *priority).await.map_err(refused)?;
                prop_assert_eq!(self.memory.set_priority(run_id, *priority), told);
                Ok(())
            }
            Command::Fork { run, retry, from } => self.fork(*run, *retry, *from).await,
            Command::Pause { paused } => {
                self.paused = *paused;
                let sql = match paused {
                    true => {
                        "insert into workflow.queue_controls select 'work', workflow.now(), 'test' where $1 = 0 on conflict do nothing"
                    }
                    false => "delete from workflow.queue_controls where $1 = 0",
                };
                self.execute(sql, 0.0).await
            }
        }
    }

    async fn execute(&mut self, sql: &'static str, number: f64) -> Tried {
        sqlx::query(sql).bind(number).execute(&mut *self.db).await.map(drop).map_err(refused)
    }

    async fn start(&mut self, business: Option<u8>) -> Tried {
        let (id, business_key) = (self.memory.new_run_id(), business.map(|n| n.to_string()));
        let request = StartRequest {
            tenant_id: TENANT,
            kind: "a",
            version: 1,
            business_key: business_key.as_deref(),
            input: json!(1),
            priority: 0,
            traceparent: None,
        };
        let started = store::runs::insert(self.db, &request).await.map_err(refused)?;
        let new =
            NewRun { id, tenant_id: TENANT, kind: "a".into(), version: 1, business_key, input: json!(1), priority: 0 };
        prop_assert_eq!(self.memory.start(new), started);
        self.runs.extend(started);
        // Given up for the second worker that it kills.
        self.memory.tasks.values_mut().filter(|t| t.run_id == id).for_each(|t| t.max_losses = 2);
        let frail = sqlx::query("update workflow.tasks set max_losses = 2 where run_id = $1").bind(id);
        frail.execute(&mut *self.db).await.map(drop).map_err(refused)
    }

    /// A client of a worker's own process starts runs, perhaps the last one again.
    async fn start_here(&mut self, worker: u8, runs: u8, lease: u8, again: bool) -> Tried {
        let mut ids: Vec<Uuid> = self.run(0).filter(|_| again).into_iter().collect();
        ids.extend((0..runs).map(|_| self.id()));
        let start = |id: &Uuid| store::tasks::NewRun {
            id: *id,
            tenant_id: TENANT,
            kind: "a",
            version: 1,
            input: json!(1),
            priority: 0,
            traceparent: None,
        };
        let starts: Vec<_> = ids.iter().map(start).collect();
        let starts: Vec<_> = starts.iter().collect();
        let who = Claimant { worker_id: Some(i64::from(worker)), name: "w".into(), labels: Labels::new() };
        let trip = Trip { starts: &starts, lease: usize::from(lease), ..Trip::default() };
        let news = store::tasks::pump(&mut *self.db, &who, trip).await.map_err(refused)?;
        let new = |id: &Uuid| NewRun {
            id: *id,
            tenant_id: TENANT,
            kind: "a".into(),
            version: 1,
            business_key: None,
            input: json!(1),
            priority: 0,
        };
        let here = self.memory.start_here(ids.iter().map(new).collect(), usize::from(lease), i64::from(worker));
        self.runs.extend(ids.iter().rev().take(usize::from(runs)).rev());
        let mut reached = self.seen.lock().unwrap();
        reached.extend((!here.is_empty()).then(|| "start here leased".to_owned()));
        reached.extend((ids.len() > usize::from(runs)).then(|| "start here repeated".to_owned()));
        drop(reached);
        self.lease_both(here, news)
    }

    async fn claim(&mut self, worker: u8, runs: bool, want: u8, gpu: bool) -> Tried {
        let queue = if runs { RUN_QUEUE } else { WORK };
        let labels: Labels = gpu.then(|| ("gpu".to_owned(), "yes".to_owned())).into_iter().collect();
        let claims = [json!({ "queue": queue, "want": want, "names": null })];
        let who = Claimant { worker_id: Some(i64::from(worker)), name: "w".into(), labels: labels.clone() };
        let trip = Trip { claims: &claims, ..Trip::default() };
        let news = store::tasks::pump(&mut *self.db, &who, trip).await.map_err(refused)?;
        let here = match !runs && self.paused {
            true => Vec::new(),
            false => self.memory.claim(i64::from(worker), queue, usize::from(want), &labels),
        };
        self.lease_both(here, news)
    }

    /// Both gave the same tasks away.
    fn lease_both(&mut self, here: Vec<TaskRow>, news: Vec<News>) -> Tried {
        let mut there = BTreeMap::new();
        for item in news {
            if let News::Claimed(claimed) = item {
                there.insert((claimed.task.run_id, claimed.task.key.clone()), claimed.fence());
            }
        }
        let names: BTreeSet<_> = here.iter().map(|t| (t.run_id, t.key.clone())).collect();
        prop_assert_eq!(&names, &there.keys().cloned().collect::<BTreeSet<_>>());
        for task in here {
            let fence = task.fence().expect("it was claimed");
            self.leases.push((fence, there[&(task.run_id, task.key)]));
        }
        Ok(())
    }

    async fn renew(&mut self, n: u8) -> Tried {
        let Some((here, there)) = self.lease(n) else { return Ok(()) };
        let renewed =
            store::tasks::renew(&mut *self.db, &[there.task_id], &[there.token], &[None]).await.map_err(refused)?;
        let told = renewed.first().map(|(_, cancelled)| *cancelled);
        prop_assert_eq!(self.memory.renew(here).map(|(_, cancelled)| cancelled), told);
        Ok(())
    }

    async fn step(&mut self, lease: u8, key: u8, ok: bool) -> Tried {
        let Some((here, there)) = self.lease(lease) else { return Ok(()) };
        let key = format!("s{key}");
        // Whoever does a step has looked whether it is recorded.
        if self.memory.tasks.get(&here.task_id).is_some_and(|t| self.memory.is_recorded(t.run_id, &key)) {
            return Ok(());
        }
        let outcome = if ok { Ok(json!(1)) } else { Err(crate::Failure::permanent("t.no", "no")) };
        let recorded = store::steps::record(self.db, there, &key, &outcome).await.map_err(refused)?;
        let outcome = outcome.map_err(|failure| json!(failure));
        prop_assert_eq!(self.memory.step(here, &key, outcome), recorded.is_some());
        Ok(())
    }

    async fn fork(&mut self, run: u8, retry: bool, from: Option<u8>) -> Tried {
        let (Some(origin), new) = (self.run(run), self.id()) else { return Ok(()) };
        let from = from.filter(|_| !retry).map(|n| format!("a{n}"));
        let how = if retry { "retry" } else { "fork" };
        let told: String = sqlx::query_scalar("select workflow.fork_run($1, $2, $3, $4, null, null, null)")
            .bind(origin)
            .bind(new)
            .bind(how)
            .bind(&from)
            .fetch_one(&mut *self.db)
            .await
            .map_err(refused)?;
        prop_assert_eq!(self.memory.fork(&mut self.lineage, origin, new, retry, from.as_deref()), told.as_str());
        if told == "done" {
            self.runs.push(new);
        }
        Ok(())
    }

    /// One round trip with the writes of several leases.
    async fn pump(&mut self, batches: &[Batch]) -> Tried {
        let (mut here, mut there) = (Round::default(), Round::default());
        let mut used = BTreeSet::new();
        for batch in batches {
            let Some((fence, fence_there)) = self.lease(batch.lease) else { continue };
            // A lease has one holder, which sends one write at a time, or its last one behind it.
            if !used.insert(fence.task_id) {
                continue;
            }
            let run = self.memory.tasks.get(&fence.task_id).filter(|t| t.is_run()).cloned();
            // Of a task that is gone nobody knows what it was.
            let is_run = run.is_some() || !self.memory.tasks.contains_key(&fence.task_id);
            let seen = run.as_ref().map_or(0, |t| t.wake_seq);
            let signals: Vec<String> = run
                .iter()
                .flat_map(|t| self.memory.steps.get(&t.run_id))
                .flatten()
                .filter(|s| s.kind == Kind::Signal && !s.key.contains('#'))
                .map(|s| s.key.clone())
                .collect();
            for (round, fence) in [(&mut here, fence), (&mut there, fence_there)] {
                match is_run {
                    true => round.write(fence, batch, (seen, &signals), self.memory.now),
                    false => round.attempts.push(attempt(fence, batch.end)),
                }
            }
        }
        let who = Claimant { worker_id: Some(0), name: "w".into(), labels: Labels::new() };
        let mut plain: Vec<(Fence, &Plain)> = there.plain.iter().map(|(fence, plain)| (*fence, plain)).collect();
        plain.sort_by_key(|(fence, _)| fence.task_id);
        let (attempts, ops): (Vec<_>, Vec<_>) = (there.attempts.iter().collect(), there.ops.iter().collect());
        let trip = Trip { attempts: &attempts, ops: &ops, plain: &plain, again: true, ..Trip::default() };
        let news = store::tasks::pump(&mut *self.db, &who, trip).await.map_err(refused)?;
        let accepted: BTreeSet<Uuid> = news.iter().filter_map(News::accepts).map(|fence| fence.token).collect();
        let mut plain: Vec<(Fence, &Plain)> = here.plain.iter().map(|(fence, plain)| (*fence, plain)).collect();
        plain.sort_by_key(|(fence, _)| fence.task_id);
        let held = self.memory.pump(&here.attempts, &here.ops, &plain);
        let pairs: HashMap<Fence, Fence> = self.leases.iter().copied().collect();
        let held: BTreeSet<Uuid> = held.iter().map(|fence| pairs[fence].token).collect();
        prop_assert_eq!(held, accepted, "accepted writes");
        let fresh: Vec<Uuid> = self.memory.runs.keys().filter(|id| !self.runs.contains(id)).copied().collect();
        self.runs.extend(fresh);
        Ok(())
    }
}

/// Draws cases, each in a transaction that is rolled back.
pub(super) fn try_all<S>(
    db: PgPool,
    strategy: S,
    handle: &tokio::runtime::Handle,
    case: impl AsyncFn(&mut PgConnection, S::Value) -> Tried,
) where
    S: Strategy,
{
    let wanted = std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok());
    let config = Config {
        cases: wanted.unwrap_or(CASES),
        failure_persistence: None,
        max_shrink_iters: 4000,
        ..Config::default()
    };
    let mut runner = match wanted {
        Some(_) => TestRunner::new(config),
        None => TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha)),
    };
    let tried = runner.run(&strategy, |commands| {
        handle.block_on(async {
            let mut tx = db.begin().await.map_err(refused)?;
            let tried = case(&mut tx, commands).await;
            tx.rollback().await.map_err(refused)?;
            tried
        })
    });
    if let Err(error) = tried {
        panic!("{error}");
    }
}

/// The clock of a test stands still until it is moved.
pub(super) async fn install(db: &PgPool) -> DateTime<Utc> {
    crate::schema::install(db).await.unwrap();
    sqlx::raw_sql(
        "create or replace function workflow.now() returns timestamptz language plpgsql stable parallel safe as $$
         begin return timestamptz '2027-01-01T00:00:00Z' + (select moved_by from workflow.clock); end $$",
    )
    .execute(db)
    .await
    .unwrap();
    store::runs::now(db).await.unwrap()
}

/// Lets PostgreSQL count the ids of runs from here.
async fn count_ids(db: &PgPool) -> Uuid {
    let first: Uuid =
        sqlx::query_scalar("select workflow.first_run_id(clock_timestamp())").fetch_one(db).await.unwrap();
    let counted = format!(
        "create sequence test_ids;
         create or replace function workflow.new_run_id(p_at timestamptz) returns uuid language sql volatile parallel safe as $$
             select (left('{first}', 24) || lpad(to_hex(nextval('test_ids')), 12, '0'))::uuid $$"
    );
    sqlx::raw_sql(AssertSqlSafe(counted)).execute(db).await.unwrap();
    first
}

#[sqlx::test(migrations = false)]
async fn the_tables_in_memory_and_those_of_postgres_agree_whatever_is_asked(db: PgPool) {
    let now = install(&db).await;
    let first = count_ids(&db).await.as_u128();
    let handle = tokio::runtime::Handle::current();
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let noted = seen.clone();
    let drawing = tokio::task::spawn_blocking(move || {
        try_all(db, commands(), &handle, async |db: &mut PgConnection, commands: Vec<Command>| {
            sqlx::query("select setval('test_ids', 1, false)").execute(&mut *db).await.map_err(refused)?;
            let mut both = Both {
                db,
                memory: Memory { ids: Some(first), ..Memory::new(now, Chance::new(1)) },
                lineage: Vec::new(),
                runs: Vec::new(),
                leases: Vec::new(),
                paused: false,
                last_id: first + 1_000_000,
                seen: &noted,
            };
            for (n, command) in commands.iter().enumerate() {
                let tried = match both.obey(command).await {
                    Ok(()) => both.compare().await,
                    error => error,
                };
                tried.map_err(|error| TestCaseError::fail(format!("command {n}, {command:?}: {error}")))?;
            }
            Ok(())
        });
    });
    drawing.await.unwrap();
    // What is never reached is not tested.
    let wanted = [
        "run running",
        "run succeeded",
        "run failed",
        "run cancelled",
        "run went on",
        "error workflow.lost_too_often",
        "activity ok",
        "activity failed",
        "activity cancelled",
        "activity lost twice",
        "child ok",
        "child failed",
        "child cancelled",
        "start ok",
        "start here leased",
        "start here repeated",
        "timer ok",
        "timer cancelled",
        "cancel ok",
        "signal ok",
        "step ok",
        "step failed",
        "compensation ok",
        "attempt ok",
        "attempt failed",
        "attempt lost",
        "attempt released",
        "attempt cancelled",
        "attempt timeout",
        "parked version_mismatch",
        "lineage true",
        "lineage false",
    ];
    let seen = seen.lock().unwrap();
    let never: Vec<&str> = wanted.into_iter().filter(|what| !seen.contains(*what)).collect();
    assert!(never.is_empty(), "never reached: {never:?}");
}
