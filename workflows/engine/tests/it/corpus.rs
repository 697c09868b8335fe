//! C11, layer 5: histories that earlier builds have recorded go through the definitions of today.
//!
//! `FLATRENDER_CORPUS=add cargo nextest run -p flatrender-engine --run-ignored all keeping_histories` plays new ones and keeps those that
//! the corpus does not have; nothing that is there is written again.

use crate::world::{OneWork, Tool, Work, World};
use flatrender_engine::{
    Activity, Attempt, Client, Context, Failure, Handler, Workflow,
    client::RunState,
    testing::{Corpus, History, Mismatch, Stage, replay},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::Duration;

/// Something that is done for an order.
#[derive(Serialize, Deserialize)]
struct Errand {
    what: String,
}

impl Activity for Errand {
    const NAME: &'static str = "Errand";
    const QUEUE: &'static str = "errands";
    type Output = u32;
}

/// Another activity, which takes its place by mistake.
#[derive(Serialize, Deserialize)]
struct OtherErrand {
    what: String,
}

impl Activity for OtherErrand {
    const NAME: &'static str = "OtherErrand";
    const QUEUE: &'static str = "errands";
    type Output = u32;
}

/// Codes of the order workflow, one deploy each.
mod code {
    /// As it was first deployed.
    pub const FIRST: u8 = 0;
    /// With a gift for new orders: a patch.
    pub const TODAY: u8 = 1;
    /// Changes that do not fit orders under way.
    pub const BREAKING: std::ops::RangeInclusive<u8> = RENAMED..=SOONER;
    pub const RENAMED: u8 = 2;
    pub const DROPPED: u8 = 3;
    pub const SWAPPED: u8 = 4;
    pub const OTHER_ACTIVITY: u8 = 5;
    pub const UNPATCHED: u8 = 6;
    pub const NOT_TAKEN_BACK: u8 = 7;
    pub const SOONER: u8 = 8;
}

/// Everything that a definition can do.
#[derive(Serialize, Deserialize)]
struct Order<const CODE: u8> {
    /// What the courier does: `deliver`, `dawdle`, `cancel` or `refuse`.
    courier: String,
}

impl<const CODE: u8> Workflow for Order<CODE> {
    const NAME: &'static str = "order";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let placed = if CODE == code::RENAMED { "put down" } else { "place" };
        if CODE == code::SWAPPED {
            cx.memo("price", || async { Ok(900) }).await?;
        }
        if CODE != code::DROPPED {
            cx.step(placed, async |_| Ok(1)).await?;
        }
        if CODE != code::SWAPPED {
            cx.memo("price", || async { Ok(900) }).await?;
        }
        if CODE != code::NOT_TAKEN_BACK {
            cx.compensate("refund", Errand { what: "refund".into() }).await?;
            cx.compensate_step("unplace", |_| Box::pin(async { Ok(()) })).await?;
        }
        let what = String::from("charge");
        match CODE {
            code::OTHER_ACTIVITY => cx.activity("charge", OtherErrand { what }).await?,
            _ => cx.activity("charge", Errand { what }).await?,
        };
        if CODE == code::UNPATCHED || (CODE != code::FIRST && cx.patched("gift").await) {
            cx.activity("gift", Errand { what: "gift".into() }).await?;
        }
        if CODE != code::SOONER {
            cx.sleep("grace", Duration::from_secs(86_400)).await?;
        }
        cx.activity("send", Errand { what: self.courier }).await?;
        let arrived = cx.signal_within::<u32>("arrival", "arrived", Duration::from_secs(7 * 86_400)).await?;
        let survey = cx.child("survey", OneWork(Work::new(2))).await?;
        cx.start_detached("thanks", None, OneWork(Work::new(3))).await?;
        Ok(survey + arrived.unwrap_or_default())
    }
}

/// Does errands; its courier may speak to the run.
struct Shop(Client, PgPool);

impl Handler<Errand> for Shop {
    async fn handle(&self, cx: &Attempt, errand: Errand) -> Result<u32, Failure> {
        let run_id = cx.task().run_id;
        let mut tx = self.1.begin().await?;
        match errand.what.as_str() {
            "deliver" => drop(self.0.signal(&mut tx, run_id, "arrived", Some("door"), &40).await),
            "cancel" => drop(self.0.cancel(&mut tx, run_id, "the customer moved").await),
            "refuse" => return Err(Failure::permanent("shop.closed", "on Sundays")),
            _ => {}
        }
        tx.commit().await?;
        self.0.announce();
        Ok(1)
    }
}

/// Counts down, in a run of its own for each number.
#[derive(Serialize, Deserialize)]
struct Countdown(u32);

impl Workflow for Countdown {
    const NAME: &'static str = "countdown";
    const VERSION: i32 = 2;
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        cx.step("count", async |_| Ok(())).await?;
        match self.0 {
            0 => Ok("lift-off".to_owned()),
            n => cx.continue_as_new(Self(n - 1)),
        }
    }
}

fn corpus() -> Corpus {
    Corpus::at(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/corpus"))
}

type Replay = fn(&History) -> Result<(), Mismatch>;

/// The definition that today continues runs like this one.
fn today(history: &History) -> Result<(), Mismatch> {
    match (history.kind.as_str(), history.version) {
        ("order", 1) => replay::<Order<{ code::TODAY }>>(history),
        ("countdown", 2) => replay::<Countdown>(history),
        other => panic!("nobody can continue runs of {other:?}"),
    }
}

#[test]
fn every_stored_history_fits_the_definitions_of_today() {
    let all = corpus().all().unwrap();
    let names: Vec<&str> = all.iter().map(|(name, _)| name.as_str()).collect();
    assert!(names.len() >= 9, "{names:?}");
    for (name, history) in &all {
        today(history).unwrap_or_else(|why| panic!("{name}: {why}"));
        // A deploy finds runs wherever they are.
        for length in 0..history.events.len() {
            let (events, in_flight) = (history.events[..length].to_vec(), Vec::new());
            let running = History { state: RunState::Running, error_code: None, events, in_flight, ..history.clone() };
            today(&running).unwrap_or_else(|why| panic!("{name}, the first {length} events: {why}"));
        }
    }
}

#[test]
fn a_breaking_change_fails_on_the_stored_histories_and_a_patched_one_does_not() {
    let orders: Vec<_> = corpus().all().unwrap().into_iter().filter(|(_, history)| history.kind == "order").collect();
    let broken = |replay: Replay| {
        orders.iter().filter_map(|(name, history)| replay(history).err().map(|why| (name, why.why))).collect::<Vec<_>>()
    };
    let changes: [Replay; 7] = [
        replay::<Order<{ code::RENAMED }>>,
        replay::<Order<{ code::DROPPED }>>,
        replay::<Order<{ code::SWAPPED }>>,
        replay::<Order<{ code::OTHER_ACTIVITY }>>,
        replay::<Order<{ code::UNPATCHED }>>,
        replay::<Order<{ code::NOT_TAKEN_BACK }>>,
        replay::<Order<{ code::SOONER }>>,
    ];
    assert_eq!(changes.len(), code::BREAKING.count());
    for (n, change) in changes.into_iter().enumerate() {
        assert!(!broken(change).is_empty(), "change {} goes unnoticed", n + 2);
    }
    assert_eq!(broken(replay::<Order<{ code::TODAY }>>), [], "with a patch");
    // Without it, only orders from before the gift show that it breaks them.
    let unpatched = broken(replay::<Order<{ code::UNPATCHED }>>);
    assert!(unpatched.iter().any(|(name, _)| name.contains("first")), "{unpatched:?}");
}

async fn stage(db: &PgPool) -> Stage {
    World::new(db.clone()).await;
    let pool = db.clone();
    Stage::new(db.clone(), move |w| {
        let shop = Shop(Client::new(pool.clone()), pool.clone());
        w.workflow::<Countdown>().workflow::<OneWork>().handler::<Work>(Tool::doubling()).handler::<Errand>(shop)
    })
}

/// Plays an order with each courier, and offers its history to the corpus.
async fn play<const CODE: u8>(db: &PgPool, deploy: &str, missing: &mut Vec<String>) {
    let pool = db.clone();
    let stage = Stage::new(db.clone(), move |w| {
        let shop = Shop(Client::new(pool.clone()), pool.clone());
        w.workflow::<Order<CODE>>().workflow::<OneWork>().handler::<Work>(Tool::doubling()).handler::<Errand>(shop)
    });
    let ends = [
        ("deliver", RunState::Succeeded),
        ("dawdle", RunState::Succeeded),
        ("cancel", RunState::Cancelled),
        ("refuse", RunState::Failed),
    ];
    for (courier, state) in ends {
        let run = stage.finish(Order::<CODE> { courier: courier.to_owned() }).await.unwrap();
        assert_eq!(run.state, state, "{courier}: {:?}", run.error);
        offer(&stage, run.id, &format!("{deploy}_{courier}"), missing).await;
    }
}

async fn offer(stage: &Stage, run_id: uuid::Uuid, what: &str, missing: &mut Vec<String>) {
    let history = stage.history(run_id).await.unwrap().unwrap();
    if !corpus().offer(what, &history).unwrap() {
        missing.push(format!("{}.v{}.{what}", history.kind, history.version));
    }
}

#[sqlx::test(migrations = false)]
#[ignore = "it plays what is to be kept"]
async fn keeping_histories_of_each_ending(db: PgPool) {
    let (stage, mut missing) = (stage(&db).await, Vec::new());
    play::<{ code::FIRST }>(&db, "first", &mut missing).await;
    play::<{ code::TODAY }>(&db, "gift", &mut missing).await;
    let last = stage.finish(Countdown(1)).await.unwrap();
    offer(&stage, last.continued_from.unwrap(), "went_on", &mut missing).await;
    offer(&stage, last.id, "lift_off", &mut missing).await;
    assert!(missing.is_empty(), "FLATRENDER_CORPUS=add keeps {missing:?}");
}

#[test]
fn a_history_is_added_once_and_on_purpose() {
    let folder = tempfile::tempdir().unwrap();
    let (idle, adding) = (Corpus::at(folder.path()), Corpus::at(folder.path()).adding());
    let (_, history) = corpus().all().unwrap().remove(0);
    if std::env::var("FLATRENDER_CORPUS").is_err() {
        assert!(!idle.offer("kept", &history).unwrap());
    }
    assert!(adding.offer("kept", &history).unwrap() && idle.offer("kept", &history).unwrap());
    let other = History { events: Vec::new(), ..history.clone() };
    assert!(adding.offer("kept", &other).unwrap());
    let all = idle.all().unwrap();
    assert_eq!((all.len(), all[0].1.fingerprint()), (1, history.fingerprint()), "what is there stays");
    std::fs::rename(folder.path().join(&all[0].0), folder.path().join("order.v9.kept.json")).unwrap();
    assert!(idle.all().unwrap_err().to_string().contains("does not begin with"));
}
