//! Scenes that were rendered before: whoever orders them again does not wait for them, and nothing goes wrong where they are gone.

use super::{accepted_frames, count, enrol_renderer, exports};
use crate::world::{Mischief, World, order_of};
use flatrender_engine::client::RunState;
use sqlx::PgPool;
use std::collections::BTreeMap;
use uuid::Uuid;

/// How many frames were rendered for a film with these words.
async fn frames_rendered(db: &PgPool, world: &World, texts: &[(&str, &str)]) -> (Uuid, u32) {
    let before = world.asked().len();
    let (id, run) = order_of(db, texts).await;
    let run = world.finish(db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!((accepted_frames(db, id).await, exports(db, id).await), (165, 1));
    let asked = world.asked();
    let ranges = asked[before..].iter().filter_map(|a| a.strip_prefix("RenderFrames ")?.split_once('-'));
    let number = |n: &str| n.parse::<u32>().unwrap();
    (id, ranges.map(|(first, last)| number(last) - number(first) + 1).sum())
}

const REUSED: &str = "select count(*) from render.frame_manifests where render_job_id = $1 and flags = '{reused}'";

#[sqlx::test(migrations = "../migrations")]
async fn a_scene_that_was_rendered_before_is_not_rendered_again(db: PgPool) {
    enrol_renderer(&db, "lottie 1").await;
    let world = World::default();
    world.store_for(&db);
    assert_eq!(frames_rendered(&db, &world, &[]).await.1, 165);
    let (again, rendered) = frames_rendered(&db, &world, &[]).await;
    assert_eq!((count(&db, REUSED, again).await, rendered), (165, 0));
    let (changed, rendered) = frames_rendered(&db, &world, &[("one", "new")]).await;
    assert_eq!((count(&db, REUSED, changed).await, rendered), (75, 90), "scene b alone is as it was");
    enrol_renderer(&db, "lottie 2").await;
    assert_eq!(frames_rendered(&db, &world, &[]).await.1, 165, "another renderer draws other frames");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_kept_scene_that_is_gone_is_rendered(db: PgPool) {
    enrol_renderer(&db, "lottie 1").await;
    let world = World::with(Mischief { scenes_are_gone: true, ..Mischief::default() });
    world.store_for(&db);
    assert_eq!(frames_rendered(&db, &world, &[]).await.1, 165);
    let (again, rendered) = frames_rendered(&db, &world, &[]).await;
    assert_eq!((count(&db, REUSED, again).await, rendered), (0, 165));
    assert!(world.asked().contains(&"TakeScenes 3".to_owned()));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_shelf_of_kept_scenes_that_cannot_be_read_costs_only_time(db: PgPool) {
    enrol_renderer(&db, "lottie 1").await;
    let world = World::default();
    world.store_for(&db);
    assert_eq!(frames_rendered(&db, &world, &[]).await.1, 165);
    let world =
        World::with(Mischief { failing: BTreeMap::from([("TakeScenes", "storage.failed")]), ..Mischief::default() });
    world.store_for(&db);
    assert_eq!(frames_rendered(&db, &world, &[]).await.1, 165);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_kept_scene_that_is_lost_before_it_is_joined_is_taken_again(db: PgPool) {
    enrol_renderer(&db, "lottie 1").await;
    let world = World::default();
    world.store_for(&db);
    assert_eq!(frames_rendered(&db, &world, &[]).await.1, 165);
    let world = World::with(Mischief { lost_parts: 1, ..Mischief::default() });
    world.store_for(&db);
    assert_eq!(frames_rendered(&db, &world, &[]).await.1, 0);
    assert_eq!(world.asked().iter().filter(|a| *a == "TakeScenes 3").count(), 2, "{:?}", world.asked());
}
