//! A scenario: a server, a database with the engine and an outside ledger, processes, and a report at the end.

use crate::{
    checker, ledger,
    postgres::{Server, Stop, signal},
    program::{Ask, Duties, ORDERS, Orders, Role},
};
use flatrender_engine::{
    Client, Workflow,
    client::{Run, RunState},
};
use rand::{Rng, RngExt as _, SeedableRng, rngs::StdRng};
use sqlx::{
    PgPool,
    postgres::{PgConnectOptions, PgPoolOptions},
};
use std::{
    fmt::Write as _,
    io::Write as _,
    path::PathBuf,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};
use uuid::Uuid;

/// Whether this is the long form, `make chaos`, or the longest, `make soak`.
pub fn long() -> bool {
    soak() || std::env::var("FLATRENDER_CHAOS").is_ok_and(|form| form == "long")
}

/// Whether this is the form that takes as long as the list of faults says, hours: `make soak`.
pub fn soak() -> bool {
    std::env::var("FLATRENDER_CHAOS").is_ok_and(|form| form == "soak")
}

/// One number for the long form, another for the longest.
pub fn soaked<T>(long_form: T, longest: T) -> T {
    if soak() { longest } else { long_form }
}

/// One number for the short form, another for the long one.
pub fn sized<T>(short: T, long_form: T) -> T {
    if long() { long_form } else { short }
}

const EXTRAS: &str = "
    create table effects (n bigint generated always as identity, run_id uuid not null, key text not null, pid int not null);
    -- What a client was told, or would have been: written in the transaction that asks for it.
    create table accepted (key text primary key, what text not null, run_id uuid, job_id bigint);
    create table transitions (n bigint generated always as identity, run_id uuid not null, was text not null, became text not null);
    create index on transitions (run_id);
    create index on effects (run_id, key);
    create function note_transition() returns trigger language plpgsql as $$
    begin
        insert into transitions (run_id, was, became) values (new.id, old.state, new.state);
        return null;
    end $$;
    create trigger note_transition after update on workflow.runs
        for each row when (old.state is distinct from new.state) execute function note_transition();";

pub struct Scenario {
    /// Of the list of faults, such as `F3`.
    fault: &'static str,
    /// What is checked besides the invariants.
    checks: &'static str,
    pub server: Server,
    pub db: PgPool,
    pub client: Client,
    pub tenant: Uuid,
    pub seed: u64,
    pub chance: StdRng,
    folder: tempfile::TempDir,
    processes: Vec<Process>,
    injected: u32,
    began: Instant,
    over: bool,
    notes: String,
}

impl Scenario {
    pub async fn new(fault: &'static str, checks: &'static str) -> Self {
        Self::with(fault, checks, &[]).await
    }

    /// A scenario whose server has these settings.
    pub async fn with(fault: &'static str, checks: &'static str, settings: &[&str]) -> Self {
        let began = Instant::now();
        let seed = std::env::var("FLATRENDER_CHAOS_SEED").ok().and_then(|seed| seed.parse().ok());
        let seed: u64 = seed.unwrap_or_else(|| sized(7, rand::rng().next_u64() % 1_000_000));
        println!("{fault}: FLATRENDER_CHAOS_SEED={seed}");
        let server = Server::start(settings);
        let db = PgPoolOptions::new().max_connections(8).acquire_timeout(Duration::from_secs(60));
        let options: PgConnectOptions = server.url().parse().unwrap();
        let db = db.connect_lazy_with(options.application_name("scenario"));
        flatrender_engine::schema::install(&db).await.unwrap();
        sqlx::raw_sql(EXTRAS).execute(&db).await.unwrap();
        let folder = tempfile::Builder::new().prefix("fr-chaos-ledger.").tempdir().unwrap();
        Self {
            fault,
            checks,
            server,
            client: Client::new(db.clone()),
            db,
            tenant: Uuid::now_v7(),
            seed,
            chance: StdRng::seed_from_u64(seed),
            folder,
            processes: Vec::new(),
            injected: 0,
            began,
            over: false,
            notes: String::new(),
        }
    }

    // ---- processes

    fn orders(&self, url: &str, name: &str, role: Role) -> Orders {
        Orders { url: url.to_owned(), ledger: self.folder.path().to_owned(), name: name.to_owned(), role }
    }

    /// A file that processes note the failpoints in that they reach.
    pub fn reached_file(&self) -> PathBuf {
        self.folder.path().join("reached")
    }

    /// Starts a worker; gives its number.
    pub fn worker(&mut self, name: &str, duties: Duties) -> usize {
        self.worker_with(name, duties, &self.server.url(), &[])
    }

    /// Starts a worker that reaches the database by `url` and has these variables.
    pub fn worker_with(&mut self, name: &str, duties: Duties, url: &str, variables: &[(&str, &str)]) -> usize {
        let orders = self.orders(url, name, Role::Worker(duties));
        self.processes.push(Process::start(orders, variables, &self.reached_file()));
        self.processes.len() - 1
    }

    /// Starts a process that is neither a worker with a database nor a client.
    pub fn start_process(&mut self, name: &str, role: Role) -> usize {
        let orders = self.orders(&self.server.url(), name, role);
        self.processes.push(Process::start(orders, &[], &self.reached_file()));
        self.processes.len() - 1
    }

    /// A worker that falls into a trap.
    pub fn doomed(&mut self, name: &str, duties: Duties, trap: &str) -> usize {
        self.worker_with(name, duties, &self.server.url(), &[("FLATRENDER_FAILPOINTS", trap)])
    }

    pub fn process(&mut self, number: usize) -> &mut Process {
        &mut self.processes[number]
    }

    /// Lets a client do these things; true when it has done all of them, false when it fell into the trap.
    pub async fn ask(&mut self, asks: &[Ask], trap: Option<&str>) -> bool {
        let role = Role::Client { tenant: self.tenant, errands: asks.to_vec() };
        let orders = self.orders(&self.server.url(), "client", role);
        let variables: Vec<_> = trap.iter().map(|trap| ("FLATRENDER_FAILPOINTS", *trap)).collect();
        let mut process = Process::start(orders, &variables, &self.reached_file());
        process.ended(Duration::from_secs(60)).await.expect("a client does not come to an end") == Some(0)
    }

    /// Starts again every worker that has died, as whatever runs them in earnest would.
    pub fn revive(&mut self) -> u32 {
        let file = self.reached_file();
        let mut revived = 0;
        for process in &mut self.processes {
            if process.is_over() && !process.dismissed {
                *process = Process::start(process.orders.clone(), &[], &file);
                revived += 1;
            }
        }
        revived
    }

    /// Ends all workers.
    pub async fn stop_workers(&mut self) {
        for process in &mut self.processes {
            process.dismissed = true;
            process.signal("TERM");
        }
        for process in &mut self.processes {
            process.ended(Duration::from_secs(30)).await;
        }
        self.processes.clear();
    }

    // ---- runs

    pub async fn start<W: Workflow>(&self, key: &str, workflow: W) -> Uuid {
        let mut tx = self.db.begin().await.unwrap();
        let started = self.client.start(&mut tx, self.tenant, Some(key), workflow).await.unwrap();
        sqlx::query("insert into accepted (key, what, run_id) values ($1, $2, $3)")
            .bind(key)
            .bind(W::NAME)
            .bind(started.run_id)
            .execute(&mut *tx)
            .await
            .unwrap();
        tx.commit().await.unwrap();
        self.client.announce();
        started.run_id
    }

    pub async fn signal(&self, run_id: Uuid, key: Option<&str>, n: u32) -> flatrender_engine::Delivery {
        let mut tx = self.db.begin().await.unwrap();
        let delivery = self.client.signal(&mut tx, run_id, "go", key, &n).await.unwrap();
        tx.commit().await.unwrap();
        self.client.announce();
        delivery
    }

    pub async fn cancel(&self, run_id: Uuid) -> bool {
        let mut tx = self.db.begin().await.unwrap();
        let asked = self.client.cancel(&mut tx, run_id, "no longer wanted").await.unwrap();
        tx.commit().await.unwrap();
        self.client.announce();
        asked
    }

    pub async fn end(&self, run_id: Uuid, patience: Duration) -> Run {
        match self.client.finished(run_id, patience).await.unwrap() {
            Some(run) => run,
            None => panic!("not over: {:#?}", self.client.progress(run_id).await.unwrap()),
        }
    }

    pub async fn succeeded(&self, run_id: Uuid, output: i64) {
        let run = self.end(run_id, Duration::from_secs(60)).await;
        assert_eq!((run.state, run.output_as::<i64>()), (RunState::Succeeded, Some(output)), "{:?}", run.error);
    }

    /// Waits until `sql` counts `wanted`.
    pub async fn until(&self, wanted: i64, sql: &'static str, patience: Duration) {
        let began = Instant::now();
        loop {
            let n: i64 = sqlx::query_scalar(sql).fetch_one(&self.db).await.unwrap();
            if n == wanted {
                return;
            }
            if began.elapsed() >= patience {
                panic!("{n}, never {wanted}: {sql}; {:#?}", self.left().await);
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// What waits, and what for.
    async fn left(&self) -> Vec<String> {
        let sql = "select concat_ws(' ', t.kind, t.activity, t.step_key, r.business_key, t.state, 'in', case when isfinite(t.run_at) then t.run_at - workflow.now() end,
                       t.leased_by, t.lease_expires_at - workflow.now(), t.parked_reason, 'losses', t.losses, 'newest', t.wake_seq, t.parked_failure)
                   from workflow.tasks t join workflow.runs r on r.id = t.run_id
                   union all
                   (select concat_ws(' ', 'record of', r.business_key, s.seq, s.kind, s.key, s.outcome, s.failure)
                    from workflow.steps s join workflow.runs r on r.id = s.run_id
                    where s.run_id in (select run_id from workflow.tasks) order by s.run_id, s.seq)
                   union all
                   (select concat_ws(' ', 'attempt', a.run_id, a.step_key, a.attempt_no, a.outcome, a.worker)
                    from workflow.attempts a where a.run_id in (select run_id from workflow.tasks) order by a.ended_at)
                   union all
                   select concat_ws(' ', 'job', j.id, 'in', j.run_at - workflow.now(), j.worker_id) from workflow.jobs j
                   limit 100";
        sqlx::query_scalar(sql).fetch_all(&self.db).await.unwrap()
    }

    pub async fn count(&self, sql: &'static str) -> i64 {
        sqlx::query_scalar(sql).fetch_one(&self.db).await.unwrap()
    }

    // ---- the ledger

    pub fn folder(&self) -> &std::path::Path {
        self.folder.path()
    }

    pub fn ledger(&self) -> Vec<ledger::Entry> {
        ledger::read(self.folder.path())
    }

    /// Waits for an entry.
    pub async fn noted(&self, fits: impl Fn(&ledger::Entry) -> bool, patience: Duration) -> ledger::Entry {
        let began = Instant::now();
        loop {
            if let Some(entry) = self.ledger().into_iter().find(&fits) {
                return entry;
            }
            assert!(began.elapsed() < patience, "the ledger never says so: {:#?}", self.ledger().last());
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    // ---- faults

    pub fn injected(&mut self, times: u32) {
        self.injected += times;
    }

    /// Says something about what was measured.
    pub fn note(&mut self, text: impl AsRef<str>) {
        let _ = write!(self.notes, "{}{}", if self.notes.is_empty() { "" } else { "; " }, text.as_ref());
    }

    pub async fn crash_database(&mut self, away: Duration) {
        self.server.stop(Stop::Immediate);
        tokio::time::sleep(away).await;
        self.server.restart();
        self.injected(1);
    }

    pub fn random(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.chance.random_range(range)
    }

    // ---- the end

    /// What must hold at every moment.
    pub async fn check_safety(&self) {
        let broken = checker::safety(&self.db, self.folder.path()).await;
        assert!(broken.is_empty(), "{}, seed {}: {broken:#?}", self.fault, self.seed);
    }

    /// Waits until nothing is left to do, and checks everything.
    pub async fn finish(mut self, patience: Duration) {
        checker::quiet(&self.db, patience).await;
        self.check_all().await;
        self.close().await;
    }

    pub async fn check_all(&self) {
        let mut broken = checker::safety(&self.db, self.folder.path()).await;
        broken.extend(checker::complete(&self.db, self.folder.path()).await);
        if !broken.is_empty() {
            panic!("{}, seed {}: {broken:#?}; {:#?}", self.fault, self.seed, self.left().await);
        }
    }

    /// The scenario is over and nothing was wrong.
    pub async fn close(&mut self) {
        self.stop_workers().await;
        self.over = true;
    }
}

impl Drop for Scenario {
    /// Tells how it went, also when it went wrong.
    fn drop(&mut self) {
        let result = if self.over && !std::thread::panicking() { "ok" } else { "FAILED" };
        let seconds = self.began.elapsed().as_secs_f64();
        let line = format!(
            "{}\t{}\t{}\t{result}\t{}\t{seconds:.1}\t{}",
            self.fault, self.injected, self.checks, self.seed, self.notes
        );
        println!("{line}");
        if let Some(path) = std::env::var_os("FLATRENDER_CHAOS_REPORT") {
            let file = std::fs::File::options().create(true).append(true).open(path);
            let _ = file.and_then(|mut file| writeln!(file, "{line}"));
        }
        self.processes.clear();
    }
}

/// A process of the program, which does not outlive its scenario.
pub struct Process {
    child: Child,
    pub orders: Orders,
    /// Nobody is to start it again.
    pub dismissed: bool,
}

impl Process {
    fn start(orders: Orders, variables: &[(&str, &str)], reached: &std::path::Path) -> Self {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "program::program", "--ignored", "--nocapture"]);
        command.env(ORDERS, serde_json::to_string(&orders).unwrap());
        command.env("FLATRENDER_FAILPOINTS_REACHED", reached);
        command.envs(variables.iter().copied()).stdin(Stdio::null()).stdout(Stdio::null());
        match std::env::var("FLATRENDER_CHAOS_LOG") {
            Ok(path) => command.stderr(std::fs::File::options().create(true).append(true).open(path).unwrap()),
            Err(_) => command.stderr(Stdio::null()),
        };
        Self { child: command.spawn().unwrap(), orders, dismissed: false }
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&mut self, name: &str) {
        if !self.is_over() {
            signal(self.child.id(), name);
        }
    }

    pub fn kill(&mut self) {
        self.dismissed = true;
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    pub fn is_over(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Waits for its end: the exit code, `Some(None)` when a signal ended it; none when the time is up.
    pub async fn ended(&mut self, patience: Duration) -> Option<Option<i32>> {
        let began = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Some(status.code());
            }
            if began.elapsed() >= patience {
                return None;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
