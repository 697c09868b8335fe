//! Definitions that change while runs are under way.

use crate::world::{Tool, Work, World, effect};
use flatrender_engine::{Context, Failure, Workflow, client::RunState};
use serde::{Deserialize, Serialize};
use sqlx::PgPool;
use uuid::Uuid;

/// One workflow of many deploys: the steps before and after an activity that holds the run up.
macro_rules! deploy {
    ($name:ident, [$($before:literal),*], $activity:literal, [$($after:literal),*]) => {
        #[derive(Serialize, Deserialize)]
        struct $name;

        impl Workflow for $name {
            const NAME: &'static str = "deployed";
            type Output = u32;

            async fn run(self, cx: &Context) -> Result<u32, Failure> {
                let run_id = cx.run_id();
                $(cx.step($before, async |db| effect(db, run_id, $before).await).await?;)*
                let done = cx.activity($activity, Work::new(4)).await?;
                $(cx.step($after, async |db| effect(db, run_id, $after).await).await?;)*
                Ok(done)
            }
        }
    };
}

deploy!(First, ["a", "b"], "work", ["c"]);
deploy!(Renamed, ["a", "b2"], "work", ["c"]);
deploy!(Removed, ["b"], "work", ["c"]);
deploy!(Reordered, ["b", "a"], "work", ["c"]);
deploy!(Inserted, ["a", "new", "b"], "work", ["c"]);
deploy!(OtherWork, ["a", "b"], "other work", ["c"]);
deploy!(LaterChange, ["a", "b"], "work", ["c2", "d"]);

/// Another version, which ends before the record does.
#[derive(Serialize, Deserialize)]
struct Shorter;

impl Workflow for Shorter {
    const NAME: &'static str = "deployed";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let run_id = cx.run_id();
        cx.step("a", async |db| effect(db, run_id, "a").await).await?;
        Ok(0)
    }
}

/// A run of [`First`] that waits for its activity, and no worker.
async fn under_way(world: &mut World) -> Uuid {
    world.worker(|w| w.workflow::<First>());
    let run_id = world.start(First).await;
    world.activity(run_id, "work").await;
    world.stop().await;
    run_id
}

async fn parks_and_goes_on_with_the_old_code<W: Workflow>(db: PgPool) {
    let mut world = World::new(db).await;
    let run_id = under_way(&mut world).await;
    world.worker(|w| w.workflow::<W>());
    // Deployed by mistake: the run is looked at, and left as it was.
    let _ = world.signal(run_id, "wake up", None, ()).await;
    let (reason, code) = world.parked(run_id).await;
    assert_eq!((reason.as_str(), code.as_str()), ("version_mismatch", "workflow.nondeterministic"));
    assert_eq!(world.count("select count(*) from effects").await, 2);
    assert_eq!(world.client.run(run_id).await.unwrap().unwrap().state, RunState::Running);
    // An operator who has changed nothing changes nothing; a new deploy does by itself.
    let tool = Tool::doubling();
    assert!(world.resume(run_id).await);
    world.parked(run_id).await;
    world.stop().await;
    world.worker(|w| w.workflow::<First>().handler::<Work>(tool));
    assert_eq!(world.end(run_id).await.output_as::<u32>(), Some(8));
    assert_eq!(world.count("select count(*) from effects").await, 3);
    assert!(!world.resume(run_id).await);
}

#[sqlx::test(migrations = false)]
async fn a_renamed_step_parks_the_run(db: PgPool) {
    parks_and_goes_on_with_the_old_code::<Renamed>(db).await;
}

#[sqlx::test(migrations = false)]
async fn a_removed_step_parks_the_run(db: PgPool) {
    parks_and_goes_on_with_the_old_code::<Removed>(db).await;
}

#[sqlx::test(migrations = false)]
async fn a_reordered_step_parks_the_run(db: PgPool) {
    parks_and_goes_on_with_the_old_code::<Reordered>(db).await;
}

#[sqlx::test(migrations = false)]
async fn an_inserted_step_parks_the_run(db: PgPool) {
    parks_and_goes_on_with_the_old_code::<Inserted>(db).await;
}

#[sqlx::test(migrations = false)]
async fn work_in_flight_that_is_no_longer_asked_for_parks_the_run(db: PgPool) {
    parks_and_goes_on_with_the_old_code::<OtherWork>(db).await;
}

#[sqlx::test(migrations = false)]
async fn a_definition_that_ends_too_early_parks_the_run(db: PgPool) {
    parks_and_goes_on_with_the_old_code::<Shorter>(db).await;
}

#[sqlx::test(migrations = false)]
async fn a_change_beyond_what_the_run_has_done_is_no_mismatch(db: PgPool) {
    let mut world = World::new(db).await;
    let run_id = under_way(&mut world).await;
    world.worker(|w| w.workflow::<LaterChange>().handler::<Work>(Tool::doubling()));
    assert_eq!(world.end(run_id).await.state, RunState::Succeeded);
    assert_eq!(world.count("select count(*) from effects where key in ('c2', 'd')").await, 2);
}

/// As [`First`], with an addition that runs under way do not get.
#[derive(Serialize, Deserialize)]
struct Patched;

impl Workflow for Patched {
    const NAME: &'static str = "deployed";
    type Output = u32;

    async fn run(self, cx: &Context) -> Result<u32, Failure> {
        let run_id = cx.run_id();
        cx.step("a", async |db| effect(db, run_id, "a").await).await?;
        if cx.patched("check in between").await {
            cx.step("check", async |db| effect(db, run_id, "check").await).await?;
        }
        cx.step("b", async |db| effect(db, run_id, "b").await).await?;
        let done = cx.activity("work", Work::new(4)).await?;
        let again = cx.patched("check in between").await;
        cx.step("c", async |db| effect(db, run_id, if again { "new c" } else { "old c" }).await).await?;
        Ok(done)
    }
}

#[sqlx::test(migrations = false)]
async fn a_patch_is_taken_by_new_runs_and_not_by_those_that_came_by_before(db: PgPool) {
    let mut world = World::new(db).await;
    let old = under_way(&mut world).await;
    world.worker(|w| w.workflow::<Patched>().handler::<Work>(Tool::doubling()).crash_after_every_event());
    let new = world.finish(Patched).await;
    assert_eq!(new.state, RunState::Succeeded, "{:?}", new.error);
    insta::assert_snapshot!(world.history(new.id).await, @r"
    step      a        ok
    patch     $patch:check in between ok
    step      check    ok
    step      b        ok
    activity  work     ok
    step      c        ok
    ");
    assert_eq!(world.end(old).await.state, RunState::Succeeded);
    insta::assert_snapshot!(world.history(old).await, @r"
    step      a        ok
    step      b        ok
    activity  work     ok
    step      c        ok
    ");
    assert_eq!(world.count("select count(*) from effects where key in ('new c', 'old c')").await, 2);
}

/// Asks for its activity before the patch only.
#[derive(Serialize, Deserialize)]
struct WorkFirst;
#[derive(Serialize, Deserialize)]
struct WorkFirstPatched;

impl Workflow for WorkFirst {
    const NAME: &'static str = "work_first";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        cx.activity("work", Work::new(4)).await.map(drop)
    }
}

impl Workflow for WorkFirstPatched {
    const NAME: &'static str = "work_first";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        if cx.patched("prepare").await {
            cx.step("prepare", async |_| Ok(())).await?;
        }
        cx.activity("work", Work::new(4)).await.map(drop)
    }
}

#[sqlx::test(migrations = false)]
async fn work_in_flight_beyond_a_patch_keeps_the_run_on_the_old_way(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<WorkFirst>());
    let run_id = world.start(WorkFirst).await;
    world.activity(run_id, "work").await;
    world.stop().await;
    world.worker(|w| w.workflow::<WorkFirstPatched>().handler::<Work>(Tool::doubling()));
    assert_eq!(world.end(run_id).await.state, RunState::Succeeded);
    assert_eq!(world.history(run_id).await, "activity  work     ok");
    // An early signal is no reason to take the old way.
    world.stop().await;
    let run_id = world.start(WorkFirstPatched).await;
    let _ = world.signal(run_id, "anything", None, 1).await;
    world.worker(|w| w.workflow::<WorkFirstPatched>().handler::<Work>(Tool::doubling()));
    assert_eq!(world.end(run_id).await.state, RunState::Succeeded);
    assert_eq!(world.count("select count(*) from workflow.steps where key = 'prepare'").await, 1);
}

/// The type of a recorded output has changed.
#[derive(Serialize, Deserialize)]
struct Counted;
#[derive(Serialize, Deserialize)]
struct Listed;

impl Workflow for Counted {
    const NAME: &'static str = "typed";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let _: u32 = cx.step("count", async |_| Ok(3)).await?;
        cx.activity("work", Work::new(1)).await.map(drop)
    }
}

impl Workflow for Listed {
    const NAME: &'static str = "typed";
    type Output = ();

    async fn run(self, cx: &Context) -> Result<(), Failure> {
        let _: Vec<u32> = cx.step("count", async |_| Ok(vec![3])).await?;
        cx.activity("work", Work::new(1)).await.map(drop)
    }
}

#[sqlx::test(migrations = false)]
async fn an_output_of_another_type_parks_the_run(db: PgPool) {
    let mut world = World::new(db).await;
    world.worker(|w| w.workflow::<Counted>());
    let run_id = world.start(Counted).await;
    world.activity(run_id, "work").await;
    world.stop().await;
    world.worker(|w| w.workflow::<Listed>());
    let _ = world.signal(run_id, "wake up", None, ()).await;
    let (reason, code) = world.parked(run_id).await;
    assert_eq!((reason.as_str(), code.as_str()), ("version_mismatch", "workflow.undecodable"));
    world.stop().await;
    world.worker(|w| w.workflow::<Counted>().handler::<Work>(Tool::doubling()));
    assert_eq!(world.end(run_id).await.state, RunState::Succeeded);
}
