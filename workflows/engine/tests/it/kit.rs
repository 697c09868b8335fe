//! The kit for tests of definitions, used as its users would.

use crate::{
    sagas::{Bank, Ending, Journey, Refund},
    world::{OneWork, Tool, Work, World, effect},
};
use flatrender_engine::{
    Context, Failure, Workflow,
    client::RunState,
    testing::{Failed, History, Stage, replay},
};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use std::time::{Duration, Instant};

/// Everything that a definition can do, and a year of sleep.
#[derive(Serialize, Deserialize)]
struct Year;

impl Workflow for Year {
    const NAME: &'static str = "year";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let run_id = cx.run_id();
        cx.step("begin", async |db| effect(db, run_id, "begin").await).await?;
        let mut sum = 0;
        for month in 0..12 {
            cx.sleep(&format!("month {month}"), Duration::from_secs(30 * 86_400)).await?;
            sum += cx.activity(&format!("work {month}"), Work::new(month)).await?;
        }
        if cx.patched("child").await {
            sum += cx.child("child", OneWork(Work::new(1))).await?;
        }
        cx.signal_within::<()>("word", "word", Duration::from_secs(86_400)).await?;
        Ok(sum)
    }
}

/// The same, after a careless change.
#[derive(Serialize, Deserialize)]
struct CarelessYear;

impl Workflow for CarelessYear {
    const NAME: &'static str = "year";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        cx.step("start", async |_| Ok(0)).await
    }
}

async fn stage(db: PgPool) -> Stage {
    World::new(db.clone()).await;
    let tool = Tool::doubling();
    Stage::new(db, move |w| w.workflow::<Year>().workflow::<OneWork>().handler::<Work>(tool.clone()))
}

#[sqlx::test(migrations = false)]
async fn a_year_takes_seconds(db: PgPool) {
    let stage = stage(db).await;
    let began = Instant::now();
    let run = stage.finish(Year).await.unwrap();
    assert_eq!(run.output_as::<u32>(), Some(134));
    assert!((run.finished_at.unwrap() - run.created_at).num_days() >= 361);
    // Thirteen waits; each is noticed at the next look around.
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

#[sqlx::test(migrations = false)]
async fn a_definition_passes_its_ordeals(db: PgPool) {
    let stage = stage(db).await;
    assert_eq!(stage.survives_a_crash_after_every_event(Year).await.unwrap().output_as::<u32>(), Some(134));
    let runs = stage.settles_whatever_fails(|| Year).await.unwrap();
    assert_eq!(runs.len(), 13);
    assert!(runs[1..].iter().all(|(_, run)| run.error.as_ref().is_some_and(|e| e.code == "test.injected")));
}

#[sqlx::test(migrations = false)]
async fn a_stored_history_is_replayed_without_a_database(db: PgPool) {
    let stage = stage(db).await;
    let run = stage.finish(Year).await.unwrap();
    let history = stage.history(run.id).await.unwrap().unwrap();
    // As a file, and back.
    let file = serde_json::to_string_pretty(&history).unwrap();
    let history: History = serde_json::from_str(&file).unwrap();
    replay::<Year>(&history).unwrap();
    let why = replay::<CarelessYear>(&history).unwrap_err().to_string();
    assert!(why.contains("\"begin\""), "{why}");
    // Any beginning of it is a history too.
    for length in 0..history.events.len() {
        let events = history.events[..length].to_vec();
        replay::<Year>(&History { state: RunState::Running, events, ..history.clone() }).unwrap();
    }
    let mut ended = history.clone();
    ended.events.pop();
    assert!(replay::<Year>(&ended).unwrap_err().why.contains("asks for more"));
    assert!(replay::<OneWork>(&history).is_err());
    let first: Vec<_> = history.lines().lines().take(3).map(str::to_owned).collect();
    insta::assert_snapshot!(first.join("\n"), @r"
    step         begin                                     ok
    timer        month 0                                   ok
    activity     work 0               Work                 ok
    ");
}

#[sqlx::test(migrations = false)]
async fn sagas_and_failures_are_replayed_to_their_end(db: PgPool) {
    World::new(db.clone()).await;
    let bank = db.clone();
    let stage = Stage::new(db, move |w| w.workflow::<Journey>().handler::<Refund>(Bank(bank.clone())));
    for ending in [Ending::Fails, Ending::Succeeds, Ending::Panics, Ending::Waits] {
        let run = stage.survives_a_crash_after_every_event(Journey::that(ending)).await.unwrap();
        let history = stage.history(run.id).await.unwrap().unwrap();
        replay::<Journey>(&history).unwrap();
    }
    let run = stage.finish(Journey { fails: 9, ..Journey::that(Ending::Fails) }).await.unwrap();
    replay::<Journey>(&stage.history(run.id).await.unwrap().unwrap()).unwrap();
}

/// Does something else each time.
#[derive(Serialize, Deserialize)]
struct Moody;

impl Workflow for Moody {
    const NAME: &'static str = "moody";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.step(&format!("{}", uuid::Uuid::new_v4()), async |_| Ok(())).await?;
        cx.sleep("nap", Duration::from_secs(60)).await
    }
}

#[sqlx::test(migrations = false)]
async fn a_definition_that_does_not_repeat_itself_is_found_out(db: PgPool) {
    World::new(db.clone()).await;
    let stage = Stage::new(db, |w| w.workflow::<Moody>()).patience(Duration::from_secs(2));
    let Err(Failed::NotOver(progress)) = stage.survives_a_crash_after_every_event(Moody).await else {
        panic!("it has an end")
    };
    assert_eq!(progress.run.unwrap().parked_reason.as_deref(), Some("version_mismatch"));
}
