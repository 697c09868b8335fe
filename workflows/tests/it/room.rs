//! The room of a film: set aside when it is ordered, taken by what is kept of it, and free again when it ends otherwise.

use crate::world::{Mischief, World, order, publish};
use flatrender_engine::{Client, client::RunState};
use flatrender_workflows::{
    contracts::media::DerivativeKind,
    definitions::render_video::derive_of_abandoned,
    models::{
        DEFAULT_TENANT, Role, Scope,
        file_mgr::quota::{self, Limits},
        invariants,
        render::{render_job, room, spec::RenderSpec},
    },
};
use sqlx::{PgPool, types::Json};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Bytes of the world's film and its contact sheet.
const FILM: i64 = 9;

/// An order with a poster, and its room; none when there is not enough.
async fn ordered(db: &PgPool) -> Option<(Uuid, Uuid)> {
    let (render_id, run_id) = order(db).await;
    let sql = "select spec from render.render_jobs where id = $1";
    let mut spec: Json<RenderSpec> = sqlx::query_scalar(sql).bind(render_id).fetch_one(db).await.unwrap();
    spec.0.derivatives = [DerivativeKind::Poster].into();
    let mut tx = Scope::tenant(Role::Render, DEFAULT_TENANT).begin(db).await.unwrap();
    if !room::hold(&mut tx, DEFAULT_TENANT, render_id, &spec.0).await.unwrap() {
        return None;
    }
    tx.commit().await.unwrap();
    assert_eq!(kept(db).await.1, room::ordered_bytes(&spec.0));
    Some((render_id, run_id))
}

/// Bytes that are kept, that are set aside, and that are above the limit.
async fn kept(db: &PgPool) -> (i64, i64, i64) {
    let sql = "select used_bytes, reserved_bytes, excess_bytes from file_mgr.quotas where owner_id is null";
    sqlx::query_as(sql).fetch_one(db).await.unwrap()
}

async fn agree(db: &PgPool, bytes: i64) {
    let mut tx = Scope::tenant(Role::File, DEFAULT_TENANT).begin(db).await.unwrap();
    quota::agree(&mut tx, DEFAULT_TENANT, None, Limits { bytes: Some(bytes), ..Limits::default() }).await.unwrap();
    tx.commit().await.unwrap();
}

/// What became of everything that was set aside.
async fn rooms(db: &PgPool) -> Vec<String> {
    let sql = "select split_part(purpose, ':', 1) || ' ' || state from file_mgr.quota_reservations order by 1";
    sqlx::query_scalar(sql).fetch_all(db).await.unwrap()
}

async fn sound(db: &PgPool) {
    assert_eq!(invariants::check(db, true).await.unwrap(), []);
}

async fn a_film_takes_its_room(db: PgPool, crash_after_every_event: bool) {
    let (_, run_id) = ordered(&db).await.unwrap();
    let (_, room, _) = kept(&db).await;
    agree(&db, room).await;
    let run = World::default().finish(&db, run_id, crash_after_every_event).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let (used, reserved, excess) = kept(&db).await;
    assert_eq!((used, excess), (FILM, 0));
    assert!(0 < reserved && reserved < room, "the poster is yet to be made: {reserved} of {room}");
    assert_eq!(rooms(&db).await, ["derivative held", "film used"]);
    sound(&db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_finished_film_takes_its_room_and_leaves_that_of_what_is_yet_to_be_made(db: PgPool) {
    a_film_takes_its_room(db, false).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_takes_its_room_once_whatever_crashes_after_every_event(db: PgPool) {
    a_film_takes_its_room(db, true).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_that_fails_frees_its_room_whichever_activity_it_was(db: PgPool) {
    for (activity, crash) in
        [("RenderFrames", true), ("EncodePart", false), ("AssembleVideo", true), ("DrawContactSheet", false)]
    {
        let (_, run_id) = ordered(&db).await.unwrap();
        let failing = BTreeMap::from([(activity, "test.refused")]);
        let run = World::with(Mischief { failing, ..Mischief::default() }).finish(&db, run_id, crash).await;
        assert_eq!(run.state, RunState::Failed);
        assert_eq!(kept(&db).await, (0, 0, 0), "{activity}");
    }
    assert_eq!(rooms(&db).await.len(), 8);
    sound(&db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_cancelled_film_frees_its_room(db: PgPool) {
    let (_, run_id) = ordered(&db).await.unwrap();
    let client = Client::new(db.clone());
    let mut tx = db.begin().await.unwrap();
    assert!(client.cancel(&mut tx, run_id, "changed my mind").await.unwrap());
    tx.commit().await.unwrap();
    let run = World::default().finish(&db, run_id, true).await;
    assert_eq!(run.state, RunState::Cancelled);
    assert_eq!(rooms(&db).await, ["derivative released", "film released"]);
    assert_eq!(kept(&db).await, (0, 0, 0));
    sound(&db).await;
}

/// The engine gives up a run that kills its workers: the definition has no say any more.
async fn given_up(db: &PgPool, id: Uuid, run_id: Uuid) {
    let sql = r#"select workflow.end_run(id, 'failed', null,
        '{"code": "workflow.lost_too_often", "message": "given up", "retryable": false}')
        from workflow.tasks where run_id = $1"#;
    sqlx::query(sql).bind(run_id).execute(db).await.unwrap();
    let mut tx = Scope::platform(Role::Render).begin(db).await.unwrap();
    assert_eq!(render_job::settle_abandoned(&mut tx).await.unwrap(), [id]);
    derive_of_abandoned(&Client::new(db.clone()), &mut tx, id).await.unwrap();
    tx.commit().await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_whose_run_the_engine_gave_up_frees_its_room(db: PgPool) {
    let (id, run_id) = ordered(&db).await.unwrap();
    given_up(&db, id, run_id).await;
    assert_eq!(kept(&db).await, (0, 0, 0));
    sound(&db).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn what_was_ordered_with_a_published_film_is_made_though_the_engine_gave_its_run_up(db: PgPool) {
    let (id, run_id) = ordered(&db).await.unwrap();
    let poster = r#"update render.render_jobs set spec = spec || '{"derivatives": ["poster"]}' where id = $1"#;
    sqlx::query(poster).bind(id).execute(&db).await.unwrap();
    publish(&db, id).await;
    given_up(&db, id, run_id).await;
    assert_eq!(rooms(&db).await, ["derivative held", "film used"]);
    let asked = "select r.state::text from render.derivatives d join workflow.runs r on r.business_key = d.export_id || ':poster:1'
                 where r.kind = 'derive_film' and d.state = 'queued'";
    let asked: Vec<String> = sqlx::query_scalar(asked).fetch_all(&db).await.unwrap();
    assert_eq!(asked.len(), 1, "{asked:?}");
}

#[sqlx::test(migrations = "../migrations")]
async fn what_cannot_be_made_any_more_of_a_film_that_was_given_up_has_no_room(db: PgPool) {
    let (id, run_id) = ordered(&db).await.unwrap();
    publish(&db, id).await;
    sqlx::query("update render.exports set expires_at = workflow.now()").execute(&db).await.unwrap();
    given_up(&db, id, run_id).await;
    assert_eq!(rooms(&db).await, ["derivative released", "film used"]);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_without_enough_room_has_none_of_it(db: PgPool) {
    let (_, run_id) = ordered(&db).await.unwrap();
    let (_, room, _) = kept(&db).await;
    // The film alone would fit.
    agree(&db, 2 * room - 1).await;
    assert_eq!(ordered(&db).await, None);
    assert_eq!(kept(&db).await, (0, room, 0));
    World::default().finish(&db, run_id, false).await;
    assert_eq!(kept(&db).await.0, FILM);
}

/// Ordered before there was room set aside for any, or longer than anybody expected: it is kept, and keeps everything else out.
#[sqlx::test(migrations = "../migrations")]
async fn a_film_without_room_is_kept_and_what_is_above_the_limit_is_excess(db: PgPool) {
    let (_, run_id) = order(&db).await;
    agree(&db, 1).await;
    let run = World::default().finish(&db, run_id, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(kept(&db).await, (FILM, 0, FILM - 1));
    assert_eq!(ordered(&db).await, None);
    sound(&db).await;
}
