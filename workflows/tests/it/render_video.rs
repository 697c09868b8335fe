//! A render, through its ordeals: it completes; it survives a crash after every event; it settles when any one
//! activity fails; it stops when it is cancelled.

use crate::world::{Mischief, World, order};
use flatrender_engine::{Client, client::RunState};
use flatrender_workflows::models::{
    DEFAULT_TENANT,
    render::{export, render_job, render_job::RenderJob},
};
use sqlx::PgPool;
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

async fn job(db: &PgPool, id: Uuid) -> RenderJob {
    render_job::find(&mut db.acquire().await.unwrap(), DEFAULT_TENANT, id).await.unwrap().unwrap()
}

async fn accepted_frames(db: &PgPool, id: Uuid) -> i64 {
    let count = "select count(distinct sha256) from render.frame_manifests where render_job_id = $1";
    sqlx::query_scalar(count).bind(id).fetch_one(db).await.unwrap()
}

async fn exports(db: &PgPool, id: Uuid) -> usize {
    export::of_renders(&mut db.acquire().await.unwrap(), DEFAULT_TENANT, &[id]).await.unwrap().len()
}

async fn a_film_is_made(db: PgPool, crash_after_every_event: bool) {
    let (id, run) = order(&db).await;
    let run = World::default().finish(&db, run, crash_after_every_event).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let job = job(&db, id).await;
    assert_eq!((job.status.as_str(), job.frames_verified), ("completed", 165));
    assert_eq!((accepted_frames(&db, id).await, exports(&db, id).await), (165, 1));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_render_completes(db: PgPool) {
    a_film_is_made(db, false).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_render_survives_a_crash_after_every_event(db: PgPool) {
    a_film_is_made(db, true).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn only_bad_frames_are_rendered_again(db: PgPool) {
    let world = World::with(Mischief { bad_frames: BTreeMap::from([(7, 1), (8, 1), (100, 2)]), ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let mut renders: Vec<String> = world.asked().into_iter().filter(|a| a.starts_with("RenderFrames")).collect();
    renders.sort();
    let expected = ["0-41", "100-100", "100-100", "126-164", "42-83", "7-8", "84-125"];
    assert_eq!(renders, expected.map(|r| format!("RenderFrames {r}")));
    assert_eq!(accepted_frames(&db, id).await, 165);
}

async fn lost_frames_are_rendered_again(db: PgPool, crash_after_every_event: bool) {
    let lost_frames = BTreeMap::from([(("EncodePart", 50), 2), (("DrawContactSheet", 6), 1)]);
    let world = World::with(Mischief { lost_frames, ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, crash_after_every_event).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let asked = |what: &str| world.asked().iter().filter(|a| *a == what).count();
    assert_eq!((asked("RenderFrames 50-50"), asked("RenderFrames 6-6")), (2, 1));
    assert_eq!((accepted_frames(&db, id).await, exports(&db, id).await), (165, 1));
}

#[sqlx::test(migrations = "../migrations")]
async fn frames_lost_after_they_were_proven_are_rendered_again(db: PgPool) {
    lost_frames_are_rendered_again(db, false).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn the_repair_of_lost_frames_survives_a_crash_after_every_event(db: PgPool) {
    lost_frames_are_rendered_again(db, true).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn frames_that_are_lost_again_and_again_fail_the_render(db: PgPool) {
    let lost_frames = BTreeMap::from([(("EncodePart", 50), 99)]);
    let world = World::with(Mischief { lost_frames, ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(job(&db, id).await.error_code.as_deref(), Some("media.frame_lost"));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_frame_that_stays_bad_fails_the_render_and_is_named(db: PgPool) {
    let world = World::with(Mischief { bad_frames: BTreeMap::from([(50, 99)]), ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Failed);
    let job = job(&db, id).await;
    assert_eq!((job.status.as_str(), job.error_code.as_deref()), ("failed", Some("render.repair_exhausted")));
    assert!(job.error_detail.unwrap().contains("frame 50"));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_render_settles_when_any_one_activity_fails(db: PgPool) {
    let activities =
        ["RenderFrames", "VerifyFrames", "EncodePart", "MixAudio", "AssembleVideo", "VerifyVideo", "DrawContactSheet"];
    for activity in activities {
        let failing = BTreeMap::from([(activity, "test.refused")]);
        let world = World::with(Mischief { failing, ..Mischief::default() });
        let (id, run) = order(&db).await;
        let run = world.finish(&db, run, false).await;
        assert_eq!(run.state, RunState::Failed, "{activity}");
        let job = job(&db, id).await;
        assert_eq!((job.status.as_str(), job.error_code.as_deref()), ("failed", Some("test.refused")), "{activity}");
        assert_eq!(exports(&db, id).await, 0, "{activity}");
    }
}

#[sqlx::test(migrations = "../migrations")]
async fn what_cannot_be_tidied_does_not_spoil_the_film(db: PgPool) {
    let failing = BTreeMap::from([("ClearShelf", "test.refused")]);
    let (id, run) = order(&db).await;
    let run = World::with(Mischief { failing, ..Mischief::default() }).finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded);
    assert_eq!(job(&db, id).await.status, "completed");
}

#[sqlx::test(migrations = "../migrations")]
async fn a_cancelled_render_stops_its_activities_and_is_settled(db: PgPool) {
    let world = World::with(Mischief { hanging: Some("RenderFrames"), ..Mischief::default() });
    let (id, run) = order(&db).await;
    let stop = CancellationToken::new();
    let working = tokio::spawn(world.worker(&db, false).run(stop.clone()));
    while !world.asked().iter().any(|a| a.starts_with("RenderFrames")) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let client = Client::new(db.clone());
    let mut tx = db.begin().await.unwrap();
    let asked = render_job::ask_cancel(&mut tx, DEFAULT_TENANT, id).await.unwrap();
    assert_eq!(asked, render_job::CancelAsked::Noted { workflow_run_id: run });
    assert!(client.cancel(&mut tx, run, "the customer changed her mind").await.unwrap());
    tx.commit().await.unwrap();
    client.announce();
    let ended = client.finished(run, Duration::from_secs(30)).await.unwrap().expect("the run ends");
    stop.cancel();
    working.await.unwrap().unwrap();
    assert_eq!(ended.state, RunState::Cancelled);
    let job = job(&db, id).await;
    assert_eq!((job.status.as_str(), job.error_code.as_deref()), ("cancelled", Some("workflow.cancelled")));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_whose_run_the_engine_gave_up_is_settled(db: PgPool) {
    let (id, run) = order(&db).await;
    let give_up = r#"select workflow.end_run(id, 'failed', null,
        '{"code": "workflow.lost_too_often", "message": "given up", "retryable": false}')
        from workflow.tasks where run_id = $1"#;
    sqlx::query(give_up).bind(run).execute(&db).await.unwrap();
    let settle = async || render_job::settle_abandoned(&mut db.acquire().await.unwrap()).await.unwrap();
    assert_eq!((settle().await, settle().await), (1, 0));
    let job = job(&db, id).await;
    assert_eq!((job.status.as_str(), job.error_code.as_deref()), ("failed", Some("workflow.lost_too_often")));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_was_promised_to_be_cancelled_is_not_published(db: PgPool) {
    let (id, run) = order(&db).await;
    let asked = render_job::ask_cancel(&mut db.acquire().await.unwrap(), DEFAULT_TENANT, id).await.unwrap();
    assert_eq!(asked, render_job::CancelAsked::Noted { workflow_run_id: run });
    // The run hears nothing of it: as when its last activity ends in the moment of the cancellation.
    World::default().finish(&db, run, false).await;
    assert_eq!((job(&db, id).await.status.as_str(), exports(&db, id).await), ("cancelled", 0));
}

#[sqlx::test(migrations = "../migrations")]
async fn what_an_ended_film_left_in_storage_is_found_until_it_is_tidied(db: PgPool) {
    let (id, run) = order(&db).await;
    World::default().finish(&db, run, false).await;
    let untidied = async || render_job::untidied(&mut db.acquire().await.unwrap(), 10).await.unwrap();
    assert_eq!(untidied().await, [], "a node may still be putting a frame");
    sqlx::query("update workflow.clock set moved_by = '3 minutes'").execute(&db).await.unwrap();
    assert_eq!(untidied().await, [(DEFAULT_TENANT, id)]);
    render_job::tidied(&mut db.acquire().await.unwrap(), id).await.unwrap();
    assert_eq!(untidied().await, []);
}
