//! What the program under test does: a workflow with every kind of step, a saga, a tree, single jobs.

use crate::ledger::{Ledger, What};
use flatrender_engine::{Activity, Attempt, Context, Failure, Handler, Policy, Progress, Workflow};
use futures::future::join;
use serde::{Deserialize, Serialize};
use sqlx::PgConnection;
use std::{
    path::{Path, PathBuf},
    process::Stdio,
    sync::Arc,
    time::Duration,
};
use uuid::Uuid;

/// The effect of a step. Its key begins with `fx`: the checker wants as many of these rows as there are records.
pub async fn effect(db: &mut PgConnection, run_id: Uuid, key: &str) -> Result<(), Failure> {
    sqlx::query("insert into effects (run_id, key, pid) values ($1, $2, $3)")
        .bind(run_id)
        .bind(key)
        .bind(std::process::id() as i32)
        .execute(db)
        .await?;
    Ok(())
}

/// How an errand goes.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub enum Manner {
    Plain,
    /// Ends its process, each time.
    Deadly,
    /// Fails so often, then succeeds.
    Fails(i32),
    /// Fails for good.
    Refuses,
    /// Does its work in a process of its own, which it takes along when it ends.
    External,
    /// Reports its progress a thousand times a second.
    Talks,
    /// Does nothing, and writes nothing down either.
    Quiet,
    /// Fails for good until the road is [`mended`].
    Closed,
}

/// The file that says that the road is mended.
pub fn mended(folder: &Path) -> PathBuf {
    folder.join("mended")
}

/// An activity for every purpose; gives twice its number.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Errand {
    pub n: u32,
    pub takes_ms: u64,
    pub lease_ms: u64,
    pub max_losses: u32,
    pub manner: Manner,
}

impl Errand {
    pub fn new(n: u32) -> Self {
        Self { n, takes_ms: 0, lease_ms: 30_000, max_losses: 1000, manner: Manner::Plain }
    }

    pub fn that(n: u32, manner: Manner) -> Self {
        Self { manner, ..Self::new(n) }
    }

    pub fn of(n: u32, takes_ms: u64, lease_ms: u64) -> Self {
        Self { takes_ms, lease_ms, ..Self::new(n) }
    }
}

impl Activity for Errand {
    const NAME: &'static str = "Errand";
    const QUEUE: &'static str = "errands";
    type Output = u32;

    fn policy(&self) -> Policy {
        Policy {
            max_failures: 10,
            max_losses: self.max_losses,
            backoff_base: Duration::from_millis(10),
            backoff_cap: Duration::from_millis(50),
            lease: Duration::from_millis(self.lease_ms),
            ..Policy::default()
        }
    }
}

/// The same from another queue: its workers stand elsewhere, or nowhere.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Faraway(pub u32);

impl Activity for Faraway {
    const NAME: &'static str = "Faraway";
    const QUEUE: &'static str = "faraway";
    type Output = u32;

    fn policy(&self) -> Policy {
        Policy { backoff_base: Duration::from_secs(3600), backoff_cap: Duration::from_secs(3600), ..Policy::default() }
    }
}

/// Runs errands and writes all of it down.
pub struct Runner(pub Arc<Ledger>);

impl Handler<Errand> for Runner {
    async fn handle(&self, cx: &Attempt, errand: Errand) -> Result<u32, Failure> {
        match errand.manner {
            Manner::Closed if !mended(self.0.folder()).exists() => {
                return Err(Failure::permanent("errand.closed", "the road is closed at km 7"));
            }
            Manner::Quiet => return Ok(errand.n * 2),
            _ => {}
        }
        self.0.note(What::Begun, cx, 0);
        let work = self.work(cx, &errand);
        let result = tokio::select! {
            result = work => result,
            told = cx.ended() => {
                self.0.note(What::Told, cx, if told.is_cancelled() { 1 } else { 2 });
                return Err(told);
            }
        };
        if let Ok(value) = result {
            self.0.note(What::Done, cx, i64::from(value));
        }
        result
    }
}

impl Runner {
    async fn work(&self, cx: &Attempt, errand: &Errand) -> Result<u32, Failure> {
        let takes = Duration::from_millis(errand.takes_ms);
        match errand.manner {
            Manner::Plain => tokio::time::sleep(takes).await,
            Manner::Deadly => {
                tokio::time::sleep(takes).await;
                std::process::abort();
            }
            Manner::Fails(times) if cx.task().attempt_no <= times => {
                return Err(Failure::transient("errand.not_yet", "later"));
            }
            Manner::Fails(_) | Manner::Quiet | Manner::Closed => {}
            Manner::Refuses => return Err(Failure::permanent("errand.refused", "never")),
            Manner::External => {
                let mut child = tokio::process::Command::new("sleep")
                    .arg(takes.as_secs_f64().to_string())
                    .stdin(Stdio::null())
                    .kill_on_drop(true)
                    .spawn()
                    .map_err(|e| Failure::transient("errand.no_process", e.to_string()))?;
                self.0.note(What::Spawned, cx, i64::from(child.id().unwrap_or_default()));
                let _ = child.wait().await;
            }
            Manner::Talks => {
                let began = std::time::Instant::now();
                for done in 0.. {
                    if began.elapsed() >= takes {
                        break;
                    }
                    cx.heartbeat(Progress { done, total: 0, ..Progress::default() })?;
                    tokio::time::sleep(Duration::from_millis(1)).await;
                }
            }
        }
        Ok(errand.n * 2)
    }
}

/// Three steps with an effect each, three errands, a memo, a child with a step and an errand, a nap, perhaps a signal.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Trip {
    pub n: u32,
    /// How long each errand takes.
    pub takes_ms: u64,
    pub lease_ms: u64,
    /// Whether it waits for the signal `go`.
    pub waits: bool,
}

impl Trip {
    pub fn new(n: u32) -> Self {
        Self { n, takes_ms: 5, lease_ms: 30_000, waits: false }
    }

    /// What it gives if the signal, should there be one, is `go`.
    pub fn answer(&self, go: u32) -> i64 {
        i64::from(self.n * 2 * 2 * 2 + self.n * 2 + if self.waits { go } else { 0 })
    }
}

impl Workflow for Trip {
    const NAME: &'static str = "trip";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let run_id = cx.run_id();
        let errand = |n| Errand::of(n, self.takes_ms, self.lease_ms);
        cx.step("fx pack", async |db| effect(db, run_id, "fx pack").await).await?;
        let far = cx.activity("ride", errand(self.n)).await?;
        let far = cx.memo("note", || async move { Ok(far) }).await?;
        let (sea, land) = join(cx.activity("sea", errand(far)), cx.child("detour", Detour(self.n))).await;
        let sum = cx.activity("last", errand(sea?)).await? + land?;
        cx.sleep("nap", Duration::from_millis(20)).await?;
        let go = if self.waits { cx.signal::<u32>("go", "go").await? } else { 0 };
        cx.step("fx arrive", async |db| effect(db, run_id, "fx arrive").await).await?;
        Ok(sum + go)
    }
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Detour(pub u32);

impl Workflow for Detour {
    const NAME: &'static str = "detour";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let run_id = cx.run_id();
        cx.step("fx detour", async |db| effect(db, run_id, "fx detour").await).await?;
        cx.activity("ask", Errand::new(self.0)).await
    }
}

/// Books three things and, if it is to fail, takes them back; the second refuses a few times.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Booking {
    pub fails: bool,
    pub refusals: i32,
}

impl Workflow for Booking {
    const NAME: &'static str = "booking";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let run_id = cx.run_id();
        cx.step("fx flight", async |db| effect(db, run_id, "fx flight").await).await?;
        cx.compensate("undo flight", Errand::new(1)).await?;
        cx.step("fx hotel", async |db| effect(db, run_id, "fx hotel").await).await?;
        cx.compensate("undo hotel", Errand::that(2, Manner::Fails(self.refusals))).await?;
        cx.step("fx car", async |db| effect(db, run_id, "fx car").await).await?;
        cx.compensate_step("fx undo car", move |db| Box::pin(effect(db, run_id, "fx undo car"))).await?;
        match self.fails {
            true => cx.step("pay", async |_| Err(Failure::permanent("booking.no_money", "none"))).await,
            false => Ok(()),
        }
    }
}

/// A tree of runs; its leaves run an external process for as long as they may.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tree {
    /// Children of each level below this one.
    pub widths: Vec<u32>,
    pub leaf_ms: u64,
}

impl Workflow for Tree {
    const NAME: &'static str = "tree";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let Some((width, below)) = self.widths.split_first() else {
            let leaf = Errand { manner: Manner::External, ..Errand::of(0, self.leaf_ms, 30_000) };
            return cx.activity("leaf", leaf).await.map(drop);
        };
        let child = |n| {
            let tree = Tree { widths: below.to_vec(), leaf_ms: self.leaf_ms };
            async move { cx.child(&format!("child {n}"), tree).await }
        };
        futures::future::join_all((0..*width).map(child)).await.into_iter().collect()
    }
}

/// One errand, nothing else.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Single(pub Errand);

impl Workflow for Single {
    const NAME: &'static str = "single";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.activity("errand", self.0).await
    }
}

/// Books something, with an errand and a child before it succeeds; takes it back otherwise.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Race(pub u32);

impl Workflow for Race {
    const NAME: &'static str = "race";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let run_id = cx.run_id();
        cx.step("fx book", async |db| effect(db, run_id, "fx book").await).await?;
        cx.compensate_step("fx unbook", move |db| Box::pin(effect(db, run_id, "fx unbook"))).await?;
        let ran = cx.activity("run", Errand::of(self.0, u64::from(self.0 % 20), 30_000)).await?;
        Ok(ran + cx.child("detour", Detour(self.0)).await?)
    }
}

/// Large, and gives its size.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Blob {
    pub text: String,
}

impl Blob {
    /// Bytes of JSON around the text, as PostgreSQL writes it.
    pub const AROUND: usize = r#"{"text": ""}"#.len();
}

impl Workflow for Blob {
    const NAME: &'static str = "blob";
    type Output = usize;

    async fn run(self, cx: &Context) -> Result<usize, Failure> {
        cx.memo("size", || async { Ok(self.text.len()) }).await
    }
}

/// Sleeps for a moment.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Nap;

impl Workflow for Nap {
    const NAME: &'static str = "nap";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.sleep("nap", Duration::from_millis(5)).await
    }
}

/// Waits for somebody far away.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Abroad(pub u32);

impl Workflow for Abroad {
    const NAME: &'static str = "abroad";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.activity("far", Faraway(self.0)).await
    }
}

/// What a schedule starts.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Tick;

impl Workflow for Tick {
    const NAME: &'static str = "tick";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let run_id = cx.run_id();
        cx.step("fx tick", async |db| effect(db, run_id, "fx tick").await).await
    }
}
