//! Layer 1: the tables in memory and those of PostgreSQL get the same commands, drawn at random; after each the rows must be the
//! same. So the reference is honest, and so is every rehearsal.
//!
//! The same commands each time; `PROPTEST_CASES=2000` draws as many others. What it finds is shrunk.

use super::{Memory, NewRun, TaskRow, TaskState, cancelled, text};
use crate::{
    activity::Labels,
    client::{RunState, StartRequest},
    record::Kind,
    store::{
        self, Fence, News,
        tasks::{Claimant, Plain, Trip},
    },
    testing::chance::Chance,
    worker::RUN_QUEUE,
};
use chrono::{DateTime, Utc};
use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgConnection, PgPool, Row};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use uuid::Uuid;

/// Cases of a normal run.
const CASES: u32 = 60;
const WORK: &str = "work";
const TENANT: Uuid = Uuid::from_u128(7);

// ---------------------------------------------------------------------------------------- what may be asked

#[derive(Debug, Clone)]
enum Command {
    Start { business: Option<u8> },
    Claim { worker: u8, runs: bool, want: u8, gpu: bool },
    Pump(Vec<Batch>),
    Step { run: u8, key: u8, ok: bool },
    Renew { task: u8 },
    Cancel { run: u8 },
    Signal { run: u8, dedupe: Option<u8> },
    Resume { run: u8 },
    Pass { seconds: u32 },
    Wake,
    Recover { gone: Option<u8> },
    RetryNow { task: u8 },
    ForceRelease { task: u8 },
    Skip { task: u8 },
    Priority { run: u8, priority: i16 },
    Fork { run: u8, retry: bool, from: Option<u8> },
    Pause { paused: bool },
}

/// What one lease, perhaps a stale one, writes in a round trip.
#[derive(Debug, Clone)]
struct Batch {
    lease: u8,
    end: Ending,
    ops: Vec<Op>,
    mark: Option<u8>,
    leave: Option<Leave>,
}

/// How an attempt at an activity ends.
#[derive(Debug, Clone, Copy)]
enum Ending {
    Ok,
    Fails,
    FailsForGood,
    Throttled,
    Cancelled,
    Released,
    TimedOut,
}

#[derive(Debug, Clone)]
enum Op {
    Request { key: u8, shielded: bool, frail: bool, slow: bool, gpu: bool },
    Child { key: u8 },
    Start { key: u8, business: Option<u8> },
    Withdraw { key: u8, child: bool },
    Timer { key: u8, reached: bool },
    Compensation { key: u8 },
}

#[derive(Debug, Clone)]
enum Leave {
    Park { behind: u8, due: Option<u32> },
    SetAside,
    Release,
    End { state: u8 },
    EndByOp { state: u8 },
    Continue { unseen: u8 },
}

fn commands() -> impl Strategy<Value = Vec<Command>> {
    let few = || 0u8..4;
    let op = prop_oneof![
        4 => (few(), any::<bool>(), any::<bool>(), any::<bool>(), prop::bool::weighted(0.2))
            .prop_map(|(key, shielded, frail, slow, gpu)| Op::Request { key, shielded, frail, slow, gpu }),
        2 => few().prop_map(|key| Op::Child { key }),
        1 => (few(), prop::option::of(0u8..2)).prop_map(|(key, business)| Op::Start { key, business }),
        1 => (few(), any::<bool>()).prop_map(|(key, child)| Op::Withdraw { key, child }),
        1 => (few(), any::<bool>()).prop_map(|(key, reached)| Op::Timer { key, reached }),
        1 => few().prop_map(|key| Op::Compensation { key }),
    ];
    let leave = prop_oneof![
        3 => (0u8..2, prop::option::of(0u32..100)).prop_map(|(behind, due)| Leave::Park { behind, due }),
        1 => Just(Leave::SetAside),
        1 => Just(Leave::Release),
        2 => (0u8..3).prop_map(|state| Leave::End { state }),
        1 => (0u8..3).prop_map(|state| Leave::EndByOp { state }),
        1 => (0u8..3).prop_map(|unseen| Leave::Continue { unseen }),
    ];
    let end = prop_oneof![
        3 => Just(Ending::Ok),
        2 => Just(Ending::Fails),
        1 => Just(Ending::FailsForGood),
        1 => Just(Ending::Throttled),
        1 => Just(Ending::Cancelled),
        1 => Just(Ending::Released),
        1 => Just(Ending::TimedOut),
    ];
    let batch = (
        0u8..8,
        end,
        prop::collection::vec(op, 0..4),
        prop::option::weighted(0.3, few()),
        prop::option::weighted(0.4, leave),
    )
        .prop_map(|(lease, end, ops, mark, leave)| Batch { lease, end, ops, mark, leave });
    let command = prop_oneof![
        3 => prop::option::of(0u8..2).prop_map(|business| Command::Start { business }),
        7 => (0u8..3, any::<bool>(), 1u8..4, prop::bool::weighted(0.7))
            .prop_map(|(worker, runs, want, gpu)| Command::Claim { worker, runs, want, gpu }),
        9 => prop::collection::vec(batch, 1..3).prop_map(Command::Pump),
        2 => (0u8..8, few(), any::<bool>()).prop_map(|(run, key, ok)| Command::Step { run, key, ok }),
        1 => (0u8..8).prop_map(|task| Command::Renew { task }),
        1 => few().prop_map(|run| Command::Cancel { run }),
        2 => (few(), prop::option::of(0u8..2)).prop_map(|(run, dedupe)| Command::Signal { run, dedupe }),
        1 => few().prop_map(|run| Command::Resume { run }),
        3 => prop::sample::select(vec![1, 7, 31, 700, 90_000]).prop_map(|seconds| Command::Pass { seconds }),
        2 => Just(Command::Wake),
        3 => prop::option::of(0u8..3).prop_map(|gone| Command::Recover { gone }),
        1 => (0u8..8).prop_map(|task| Command::RetryNow { task }),
        1 => (0u8..8).prop_map(|task| Command::ForceRelease { task }),
        1 => (0u8..8).prop_map(|task| Command::Skip { task }),
        1 => (few(), -1i16..2).prop_map(|(run, priority)| Command::Priority { run, priority }),
        2 => (few(), any::<bool>(), prop::option::of(few())).prop_map(|(run, retry, from)| Command::Fork { run, retry, from }),
        1 => prop::bool::weighted(0.3).prop_map(|paused| Command::Pause { paused }),
    ];
    prop::collection::vec(command, 1..60)
}

// ---------------------------------------------------------------------------------------- what only the test asks of memory

/// A run that was made out of another.
#[derive(Debug, Clone, Copy)]
struct Lineage {
    run_id: Uuid,
    root: Uuid,
    retry: bool,
}

impl Memory {
    /// `workflow.claim`.
    fn claim(&mut self, worker: i64, queue: &str, want: usize, labels: &Labels) -> Vec<TaskRow> {
        let fits = |t: &&TaskRow| {
            let has = |(name, value): (&String, &String)| labels.get(name) == Some(value);
            t.queue == queue && t.state == TaskState::Ready && t.labels.iter().all(has)
        };
        let mut ready: Vec<_> = self.tasks.values().filter(fits).map(|t| (-t.priority, t.run_at, t.id)).collect();
        ready.sort();
        ready.into_iter().take(want).filter_map(|(.., id)| self.lease(id, worker)).collect()
    }

    /// `workflow.renew`.
    fn renew(&mut self, fence: Fence) -> Option<(i64, bool)> {
        let now = self.now;
        self.held(fence)?;
        let task = self.tasks.get_mut(&fence.task_id)?;
        if let Some(lease) = &mut task.lease {
            lease.expires = now + chrono::Duration::microseconds((task.lease_seconds * 1e6) as i64);
        }
        Some((task.id, task.cancel_requested))
    }

    /// `workflow.resume`.
    fn resume(&mut self, run_id: Uuid) -> bool {
        let now = self.now;
        let Some(task) = self.task_of_mut(run_id).filter(|t| t.parked.is_some()) else { return false };
        task.rest(TaskState::Ready, Some(now));
        (task.losses, task.parked) = (0, None);
        true
    }

    /// `workflow.retry_now`.
    fn retry_now(&mut self, task_id: i64) -> &'static str {
        let now = self.now;
        match self.tasks.get_mut(&task_id) {
            None => "not_found",
            Some(task) if task.is_run() || task.state != TaskState::Waiting => "moved",
            Some(task) => {
                task.rest(TaskState::Ready, Some(now));
                "done"
            }
        }
    }

    /// `workflow.force_release`.
    fn force_release(&mut self, task_id: i64) -> &'static str {
        let now = self.now;
        match self.tasks.get(&task_id).cloned() {
            None => "not_found",
            Some(task) if task.state != TaskState::Leased => "moved",
            Some(task) => {
                self.note(&task, "released", Some(json!({ "code": "workflow.force_released" })));
                self.tasks.entry(task_id).and_modify(|task| task.rest(TaskState::Ready, Some(now)));
                "done"
            }
        }
    }

    /// `workflow.skip_activity`.
    fn skip(&mut self, task_id: i64, output: &Value) -> &'static str {
        match self.tasks.get(&task_id).cloned() {
            None => "not_found",
            Some(task) if task.is_run() => "moved",
            Some(task) => {
                self.tasks.remove(&task_id);
                if task.state == TaskState::Leased {
                    self.note(&task, "cancelled", None);
                }
                let mut fact = self.activity_fact(&task, "ok");
                fact.step.output = Some(output.clone());
                self.record(vec![fact]);
                "done"
            }
        }
    }

    /// `workflow.set_priority`.
    fn set_priority(&mut self, run_id: Uuid, priority: i16) -> &'static str {
        let live = self.task_of(run_id).is_some();
        match self.runs.get_mut(&run_id) {
            None => "not_found",
            Some(_) if !live => "moved",
            Some(run) => {
                run.priority = priority;
                self.tasks.values_mut().filter(|t| t.run_id == run_id).for_each(|t| t.priority = priority);
                "done"
            }
        }
    }

    /// `workflow.fork_run`, without edits.
    fn fork(
        &mut self,
        lineage: &mut Vec<Lineage>,
        origin: Uuid,
        new: Uuid,
        retry: bool,
        from: Option<&str>,
    ) -> &'static str {
        let Some(run) = self.runs.get(&origin).cloned() else { return "not_found" };
        let root = lineage.iter().find(|l| l.run_id == origin).map_or(origin, |l| l.root);
        let code = |value: &Option<Value>| value.as_ref().map(|v| text(v, "code").to_owned());
        if retry {
            let stands = |l: &Lineage| {
                let state = self.runs.get(&l.run_id).map(|r| r.state);
                l.root == root && l.retry && matches!(state, Some(RunState::Running | RunState::Succeeded))
            };
            if !matches!(run.state, RunState::Failed | RunState::Cancelled) {
                return "moved";
            } else if lineage.iter().any(stands) || code(&run.error).as_deref() == Some("workflow.compensation_failed")
            {
                return "conflict";
            }
        }
        let steps = self.steps.get(&origin).cloned().unwrap_or_default();
        let place = |key: &str| steps.iter().position(|s| s.key == key);
        let undone = |key: &str| key.strip_prefix("$compensate:").is_some_and(|undo| place(undo).is_some());
        let before = match from {
            Some(key) if place(key).is_some() => place(key),
            Some(key) if self.tasks.values().any(|t| t.run_id == origin && t.key == key) => None,
            Some(_) => return "no_such_step",
            None if steps.iter().any(|s| s.kind == Kind::Compensation && undone(&s.key)) => Some(0),
            None => {
                let bad = |s: &&super::StepRow| s.outcome != "ok";
                let cause = steps.iter().filter(bad).find(|s| code(&s.failure) == code(&run.error));
                cause.or_else(|| steps.iter().find(bad)).and_then(|s| place(&s.key))
            }
        };
        let cancelled = steps.iter().position(|s| s.kind == Kind::Cancel);
        let copied = [before, cancelled].into_iter().flatten().min().unwrap_or(steps.len());
        let fork = NewRun {
            id: new,
            tenant_id: run.tenant_id,
            kind: run.kind,
            version: run.version,
            business_key: None,
            input: run.input,
            priority: run.priority,
        };
        self.start(fork);
        self.steps.insert(new, steps[..copied].to_vec());
        self.task_of_mut(new).expect("it was started").wake_seq = copied as i64;
        lineage.push(Lineage { run_id: new, root, retry });
        "done"
    }
}

// ---------------------------------------------------------------------------------------- both worlds

struct Both<'a> {
    db: &'a mut PgConnection,
    memory: Memory,
    lineage: Vec<Lineage>,
    /// Runs in the order of their starts.
    runs: Vec<Uuid>,
    /// Every lease there ever was: in memory, and in PostgreSQL.
    leases: Vec<(Fence, Fence)>,
    ids: HashMap<i64, i64>,
    paused: bool,
    last_id: u128,
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

    fn task(&self, n: u8) -> Option<(i64, i64)> {
        let id = *self.memory.tasks.keys().nth(usize::from(n) % self.memory.tasks.len().max(1))?;
        Some((id, self.ids[&id]))
    }

    async fn obey(&mut self, command: &Command) -> Tried {
        match command {
            Command::Start { business } => self.start(*business).await,
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
                let Some((here, there)) = self.task(*task) else { return Ok(()) };
                let told = store::operations::retry_now(self.db, there).await.map_err(refused)?;
                prop_assert_eq!(self.memory.retry_now(here), told);
                Ok(())
            }
            Command::ForceRelease { task } => {
                let Some((here, there)) = self.task(*task) else { return Ok(()) };
                let told = store::operations::force_release(self.db, there, "test").await.map_err(refused)?;
                prop_assert_eq!(self.memory.force_release(here), told);
                Ok(())
            }
            Command::Skip { task } => {
                let Some((here, there)) = self.task(*task) else { return Ok(()) };
                let told = store::operations::skip(self.db, there, &json!(5)).await.map_err(refused)?;
                prop_assert_eq!(self.memory.skip(here, &json!(5)), told);
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
        let (id, business_key) = (self.id(), business.map(|n| n.to_string()));
        let request = StartRequest {
            id,
            tenant_id: TENANT,
            kind: "a",
            version: 1,
            business_key: business_key.as_deref(),
            input: json!(1),
            priority: 0,
        };
        let started = store::runs::insert(self.db, &request).await.map_err(refused)?;
        let new =
            NewRun { id, tenant_id: TENANT, kind: "a".into(), version: 1, business_key, input: json!(1), priority: 0 };
        prop_assert_eq!(self.memory.start(new), started);
        self.runs.extend(started);
        Ok(())
    }

    async fn claim(&mut self, worker: u8, runs: bool, want: u8, gpu: bool) -> Tried {
        let queue = if runs { RUN_QUEUE } else { WORK };
        let labels: Labels = gpu.then(|| ("gpu".to_owned(), "yes".to_owned())).into_iter().collect();
        let claims = [json!({ "queue": queue, "want": want, "names": null })];
        let who = Claimant { worker_id: Some(i64::from(worker)), name: "w".into(), labels: labels.clone() };
        let trip = Trip { claims: &claims, ..Trip::default() };
        let news = store::tasks::pump(&mut *self.db, &who, trip).await.map_err(refused)?;
        let mut there = BTreeMap::new();
        for item in news {
            if let News::Claimed(claimed) = item {
                there.insert((claimed.task.run_id, claimed.task.key.clone()), claimed.fence());
            }
        }
        let here = match !runs && self.paused {
            true => Vec::new(),
            false => self.memory.claim(i64::from(worker), queue, usize::from(want), &labels),
        };
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
            let ids: Vec<Uuid> = (0..=batch.ops.len()).map(|_| self.id()).collect();
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
                    true => round.write(fence, batch, &ids, (seen, &signals), self.memory.now),
                    false => round.attempts.push(attempt(fence, batch.end)),
                }
            }
            if self.memory.held(fence).is_some() {
                self.runs.extend(ids);
            }
        }
        let who = Claimant { worker_id: Some(0), name: "w".into(), labels: Labels::new() };
        let plain: Vec<(Fence, &Plain)> = there.plain.iter().map(|(fence, plain)| (*fence, plain)).collect();
        let trip = Trip { attempts: &there.attempts, ops: &there.ops, plain: &plain, claims: &[] };
        let news = store::tasks::pump(&mut *self.db, &who, trip).await.map_err(refused)?;
        let accepted: BTreeSet<Uuid> = news.iter().filter_map(News::accepts).map(|fence| fence.token).collect();
        let plain: Vec<(Fence, &Plain)> = here.plain.iter().map(|(fence, plain)| (*fence, plain)).collect();
        let held = self.memory.pump(&here.attempts, &here.ops, &plain);
        let pairs: HashMap<Fence, Fence> = self.leases.iter().copied().collect();
        let held: BTreeSet<Uuid> = held.iter().map(|fence| pairs[fence].token).collect();
        prop_assert_eq!(held, accepted, "accepted writes");
        self.runs.retain(|id| self.memory.runs.contains_key(id));
        Ok(())
    }

    // ---- comparing

    async fn compare(&mut self) -> Tried {
        let rows = sqlx::query(
            "select id, run_id, step_key, (extract(epoch from run_at) * 1e6)::bigint as at from workflow.tasks where run_at < 'infinity'
             union all select id, run_id, step_key, null from workflow.tasks where run_at = 'infinity'",
        )
        .fetch_all(&mut *self.db)
        .await
        .map_err(refused)?;
        let there: HashMap<(Uuid, String), (i64, Option<i64>)> =
            rows.iter().map(|row| ((row.get(1), row.get(2)), (row.get(0), row.get(3)))).collect();
        // What was drawn there is taken over, if it could have been drawn.
        for task in self.memory.tasks.values_mut() {
            let Some((id, at)) = there.get(&(task.run_id, task.key.clone())) else { continue };
            self.ids.insert(task.id, *id);
            if let (Some((least, most)), Some(at)) =
                (task.drawn.take(), at.and_then(DateTime::<Utc>::from_timestamp_micros))
            {
                prop_assert!(least <= at && at <= most, "{least} <= {at} <= {most}");
                task.run_at = Some(at);
            }
        }
        let there: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(ROWS)).fetch_all(&mut *self.db).await.map_err(refused)?;
        let (mut here, mut there) = (self.rows(), there);
        here.sort();
        there.sort();
        let only = |a: &[String], b: &[String]| {
            a.iter().filter(|row| !b.contains(row)).cloned().collect::<Vec<_>>().join("\n")
        };
        prop_assert!(
            here == there,
            "only in memory:\n{}\nonly in PostgreSQL:\n{}",
            only(&here, &there),
            only(&there, &here)
        );
        Ok(())
    }

    /// The rows in memory, as [`ROWS`] writes those of PostgreSQL.
    fn rows(&self) -> Vec<String> {
        let m = &self.memory;
        let word = |value: Option<&Value>| value.map_or("-".to_owned(), Value::to_string);
        let code = |value: Option<&Value>| value.map_or("-".to_owned(), |v| text(v, "code").to_owned());
        let time = |at: Option<DateTime<Utc>>| at.map_or("-".to_owned(), |at| at.timestamp_micros().to_string());
        let runs = m.runs.values().map(|r| {
            let next = r.continued_as.map_or("-".to_owned(), |id| id.to_string());
            let parent = r.parent.as_ref().map_or("-".to_owned(), |(id, key)| format!("{id}/{key}"));
            let root = r.root.map_or("-".to_owned(), |id| id.to_string());
            format!(
                "run {} {} {} {} {} {next} {parent} {root} {} {} {}",
                r.id,
                r.state.as_str(),
                r.cancel_requested,
                word(r.output.as_ref()),
                code(r.error.as_ref()),
                r.detached,
                r.priority,
                r.business_key.as_deref().unwrap_or("-")
            )
        });
        let steps = m.steps.iter().flat_map(|(run_id, steps)| {
            steps.iter().enumerate().map(move |(at, s)| {
                let key = s.key.split_once(":#").map_or(s.key.as_str(), |(key, _)| key);
                format!(
                    "step {run_id} {} {key} {} {} {} {} {} {} {}",
                    at + 1,
                    s.kind.name(),
                    s.name.as_deref().unwrap_or("-"),
                    s.outcome,
                    word(s.output.as_ref()),
                    code(s.failure.as_ref()),
                    s.attempt_no,
                    time(Some(s.at))
                )
            })
        });
        let tasks = m.tasks.values().map(|t| {
            let state = match t.state {
                TaskState::Ready => "ready",
                TaskState::Waiting => "waiting",
                TaskState::Leased => "leased",
            };
            format!(
                "task {} {} {state} {} {} {} {} {} {} {} {} {} {} {}",
                t.run_id,
                t.key,
                t.attempt_no,
                t.failures,
                t.losses,
                t.cancel_requested,
                t.shielded,
                t.parked.as_deref().unwrap_or("-"),
                t.wake_seq,
                t.priority,
                time(t.run_at),
                t.lease.as_ref().map_or("-".to_owned(), |l| l.worker.to_string()),
                time(t.lease.as_ref().map(|l| l.expires))
            )
        });
        let attempts = m.attempts.iter().map(|a| {
            format!("attempt {} {} {} {} {}", a.run_id, a.key, a.attempt_no, a.outcome, code(a.failure.as_ref()))
        });
        let mut counts = BTreeMap::<(&str, &str), i64>::new();
        m.runs.values().for_each(|r| *counts.entry((&r.kind, r.state.as_str())).or_default() += 1);
        let counts = counts.into_iter().map(|((kind, state), n)| format!("count {kind} {state} {n}"));
        let lineage = self
            .lineage
            .iter()
            .map(|l| format!("lineage {} {} {}", l.run_id, l.root, if l.retry { "retry" } else { "fork" }));
        runs.chain(steps).chain(tasks).chain(attempts).chain(counts).chain(lineage).collect()
    }
}

const ROWS: &str = "
    select format('run %s %s %s %s %s %s %s %s %s %s %s', id, state, case when cancel_requested_at is null then 'false' else 'true' end,
        coalesce(output::text, '-'), coalesce(error ->> 'code', '-'), coalesce(continued_as::text, '-'),
        coalesce(parent_run_id || '/' || parent_key, '-'), coalesce(root_run_id::text, '-'),
        case when detached then 'true' else 'false' end, priority, coalesce(business_key, '-'))
    from workflow.runs
    union all
    select format('step %s %s %s %s %s %s %s %s %s %s', run_id, seq, split_part(key, ':#', 1), kind, coalesce(name, '-'), outcome,
        coalesce(output::text, '-'), coalesce(failure ->> 'code', '-'), attempt_no, (extract(epoch from recorded_at) * 1e6)::bigint)
    from workflow.steps
    union all
    select format('task %s %s %s %s %s %s %s %s %s %s %s %s %s %s', run_id, step_key, state, attempt_no, failures, losses,
        case when cancel_requested then 'true' else 'false' end, case when shielded then 'true' else 'false' end,
        coalesce(parked_reason, '-'), wake_seq, priority,
        case when run_at = 'infinity' then '-' else (extract(epoch from run_at) * 1e6)::bigint::text end,
        coalesce(worker_id::text, '-'), coalesce((extract(epoch from lease_expires_at) * 1e6)::bigint::text, '-'))
    from workflow.tasks
    union all
    select format('attempt %s %s %s %s %s', run_id, step_key, attempt_no, outcome, coalesce(failure ->> 'code', '-')) from workflow.attempts
    union all
    select format('count %s %s %s', kind, state, n) from workflow.run_totals
    union all
    select format('lineage %s %s %s', run_id, root_run_id, how) from workflow.run_lineage
    union all
    select format('errand %s %s', run_id, what) from workflow.errands";

/// The messages of a round trip.
#[derive(Default)]
struct Round {
    attempts: Vec<Value>,
    ops: Vec<Value>,
    plain: Vec<(Fence, Plain)>,
}

impl Round {
    /// What the executor of a run sends.
    fn write(
        &mut self,
        fence: Fence,
        batch: &Batch,
        ids: &[Uuid],
        (seen, signals): (i64, &[String]),
        now: DateTime<Utc>,
    ) {
        let mut keys = BTreeSet::new();
        for (op, id) in batch.ops.iter().zip(ids) {
            let op = op.to_json(fence, *id);
            if keys.insert(format!("{}{}", text(&op, "op") == "withdraw", text(&op, "key"))) {
                self.ops.push(op);
            }
        }
        if let Some(key) = batch.mark {
            let plain = Plain { what: "step", key: Some(format!("m{key}")), name: None, body: Some(json!(key)) };
            self.plain.push((fence, plain));
        }
        let lasting = |state: u8| match state {
            0 => ("succeeded", json!(9)),
            1 => ("failed", json!({ "code": "t.failed", "message": "no", "retryable": false })),
            _ => ("cancelled", cancelled()),
        };
        let mut op = |op: Value| {
            let mut op = op;
            (op["task_id"], op["token"]) = (json!(fence.task_id), json!(fence.token));
            self.ops.push(op);
        };
        // Its last write comes alone, after everything else of it is written.
        match batch.leave.as_ref().filter(|_| batch.mark.is_none()) {
            Some(Leave::Park { behind, due }) => {
                let due = due.map(|seconds| now + chrono::Duration::seconds(i64::from(seconds)));
                op(json!({ "op": "park", "seq": seen - i64::from(*behind), "due": due }));
            }
            Some(Leave::SetAside) => op(json!({ "op": "park", "reason": "version_mismatch", "failure": cancelled() })),
            Some(Leave::Release) => op(json!({ "op": "release" })),
            Some(Leave::EndByOp { state }) => {
                let (state, body) = lasting(*state);
                let field = if state == "succeeded" { "output" } else { "error" };
                op(json!({ "op": "end", "state": state, field: body }));
            }
            Some(Leave::Continue { unseen }) => {
                let next = json!({ "id": ids.last(), "version": 1, "activity": "a.v1", "priority": 0, "input": 2,
                    "seq": seen - i64::from(*unseen), "signals": signals });
                op(json!({ "op": "end", "state": "succeeded", "next": next }));
            }
            Some(Leave::End { state }) => {
                let (what, body) = lasting(*state);
                self.plain.push((fence, Plain { what, key: None, name: None, body: Some(body) }));
            }
            None => {}
        }
    }
}

impl Op {
    fn to_json(&self, fence: Fence, id: Uuid) -> Value {
        let mut op = match self {
            Self::Request { key, shielded, frail, slow, gpu } => json!({
                "op": "request", "key": format!("a{key}"), "queue": WORK, "activity": "Work", "input": key,
                "labels": if *gpu { json!({ "gpu": "yes" }) } else { json!({}) }, "shielded": shielded,
                "max_failures": if *frail { 1 } else { 3 }, "max_losses": if *frail { 1 } else { 3 },
                "backoff_base": if *slow { 2.0 } else { 0.0 }, "backoff_cap": 60.0, "lease": 30.0, "start_to_close": 600.0,
            }),
            Self::Child { key } => json!({
                "op": "child", "key": format!("c{key}"), "id": id, "kind": "a", "version": 1, "activity": "a.v1", "queue": RUN_QUEUE,
                "priority": 0, "max_losses": 10, "input": 1, "business_key": null,
            }),
            Self::Start { key, business } => json!({
                "op": "start", "key": format!("d{key}"), "id": id, "kind": "a", "version": 1, "activity": "a.v1", "queue": RUN_QUEUE,
                "priority": 0, "max_losses": 10, "input": 1, "business_key": business.map(|n| n.to_string()),
            }),
            Self::Withdraw { key, child } => {
                json!({ "op": "withdraw", "key": format!("{}{key}", if *child { 'c' } else { 'a' }) })
            }
            Self::Timer { key, reached } => {
                json!({ "op": "timer", "key": format!("t{key}"), "outcome": if *reached { "ok" } else { "cancelled" } })
            }
            Self::Compensation { key } => json!({
                "op": "mark", "key": format!("$compensate:a{key}"), "kind": "compensation", "name": "Work", "output": 1,
            }),
        };
        (op["task_id"], op["token"]) = (json!(fence.task_id), json!(fence.token));
        op
    }
}

fn attempt(fence: Fence, end: Ending) -> Value {
    let failure = |retryable: bool| json!({ "code": "t.failed", "message": "no", "retryable": retryable });
    let (outcome, output, failure) = match end {
        Ending::Ok => ("ok", json!(3), Value::Null),
        Ending::Fails => ("failed", Value::Null, failure(true)),
        Ending::FailsForGood => ("failed", Value::Null, failure(false)),
        Ending::Throttled => {
            let mut busy = failure(true);
            busy["retry_after_seconds"] = json!(40.0);
            ("failed", Value::Null, busy)
        }
        Ending::Cancelled => ("cancelled", Value::Null, cancelled()),
        Ending::Released => ("released", Value::Null, Value::Null),
        Ending::TimedOut => ("timeout", Value::Null, failure(true)),
    };
    json!({ "task_id": fence.task_id, "token": fence.token, "outcome": outcome, "output": output, "failure": failure })
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

#[sqlx::test(migrations = false)]
async fn the_tables_in_memory_and_those_of_postgres_agree_whatever_is_asked(db: PgPool) {
    let now = install(&db).await;
    let handle = tokio::runtime::Handle::current();
    let drawing = tokio::task::spawn_blocking(move || {
        try_all(db, commands(), &handle, async |db: &mut PgConnection, commands: Vec<Command>| {
            let mut both = Both {
                db,
                memory: Memory::new(now, Chance::new(1)),
                lineage: Vec::new(),
                runs: Vec::new(),
                leases: Vec::new(),
                ids: HashMap::new(),
                paused: false,
                last_id: 1000,
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
}
