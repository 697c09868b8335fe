//! How a render ends that does not go its way: refused, cancelled or given up it is settled, once, and what it left is tidied.

use super::{count, exports, job};
use crate::world::{Mischief, World, blob, order, publish, store};
use flatrender_engine::{Client, client::RunState};
use flatrender_workflows::{
    contracts::render::FrameRef,
    models::{DEFAULT_TENANT, render::render_job},
};
use sqlx::PgPool;
use std::{collections::BTreeMap, time::Duration};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

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

async fn give_up(db: &PgPool, run_id: Uuid) {
    let sql = r#"select workflow.end_run(id, 'failed', null,
        '{"code": "workflow.lost_too_often", "message": "given up", "retryable": false}')
        from workflow.tasks where run_id = $1"#;
    sqlx::query(sql).bind(run_id).execute(db).await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_whose_run_the_engine_gave_up_is_settled(db: PgPool) {
    let (id, run) = order(&db).await;
    store(&db, id, Uuid::new_v4(), &[FrameRef { frame: 0, blob: blob("frame 0") }]).await;
    give_up(&db, run).await;
    let settle = async || render_job::settle_abandoned(&mut db.acquire().await.unwrap()).await.unwrap();
    assert_eq!((settle().await, settle().await), (vec![id], vec![]));
    let stored = "select count(*) from render.stored_frames where render_job_id = $1";
    assert_eq!(count(&db, stored, id).await, 0);
    let job = job(&db, id).await;
    assert_eq!((job.status.as_str(), job.error_code.as_deref()), ("failed", Some("workflow.lost_too_often")));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_is_published_when_the_engine_gives_its_run_up_is_completed(db: PgPool) {
    let (id, run) = order(&db).await;
    publish(&db, id).await;
    give_up(&db, run).await;
    assert_eq!(render_job::settle_abandoned(&mut db.acquire().await.unwrap()).await.unwrap(), [id]);
    let job = job(&db, id).await;
    assert_eq!((job.status.as_str(), job.error_code, job.error_detail), ("completed", None, None));
    let ended = render_job::ended(&mut db.acquire().await.unwrap(), id).await.unwrap().unwrap();
    assert!(ended.export_id.is_some(), "who hears of it can fetch it");
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
