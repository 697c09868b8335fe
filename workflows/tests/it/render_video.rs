//! A render, through its ordeals: it completes; it survives a crash after every event; it settles when any one
//! activity fails; it stops when it is cancelled.

mod endings;
mod kept_scenes;
mod lost;
mod spoiled;

use crate::world::{Mischief, NODE, World, blob, order, store};
use flatrender_engine::client::RunState;
use flatrender_workflows::{
    contracts::render::{FrameRange, FrameRef, RenderTiming, RenderedFrames},
    models::{
        DEFAULT_TENANT, Role, Scope,
        render::{
            export,
            frame_attempt::{self, Ended},
            render_job::{self, RenderJob},
        },
    },
};
use sqlx::PgPool;
use std::collections::BTreeMap;
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

/// A broken graphics card, say: only what another node makes alike is believed.
#[sqlx::test(migrations = "../migrations")]
async fn bad_frames_are_rendered_again_by_other_nodes_first(db: PgPool) {
    enrol(&db).await;
    let world = World::with(Mischief { bad_frames: BTreeMap::from([(7, 1), (8, 1)]), ..Mischief::default() });
    let (id, run) = order(&db).await;
    world.finish(&db, run, false).await;
    assert!(world.asked().contains(&"RenderFrames 7-8 not on one".to_owned()), "{:?}", world.asked());
    let excluded = "select count(*) from render.frame_repair_jobs r join render.nodes n on n.id = any(r.excluded_nodes)
                    where r.render_job_id = $1 and n.name = 'one'";
    assert_eq!(count(&db, excluded, id).await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_storage_that_is_away_for_some_tries_ends_no_film(db: PgPool) {
    let world = World::with(Mischief { faltering: [("AssembleVideo", 3)].into(), ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(exports(&db, id).await, 1);
}

#[derive(Debug, PartialEq, sqlx::FromRow)]
struct ChunkRow {
    status: String,
    attempts: i32,
    crash_count: i32,
    accepted_attempt: Option<i32>,
    frames_ok: i32,
}

async fn chunk(db: &PgPool, id: Uuid, no: i32) -> ChunkRow {
    let sql = "select status, attempts, crash_count, accepted_attempt, frames_ok from render.frame_jobs where render_job_id = $1 and chunk_no = $2";
    sqlx::query_as(sql).bind(id).bind(no).fetch_one(db).await.unwrap()
}

async fn count(db: &PgPool, sql: &'static str, id: Uuid) -> i64 {
    sqlx::query_scalar(sql).bind(id).fetch_one(db).await.unwrap()
}

/// The world's hands become those of a node.
async fn enrol(db: &PgPool) {
    let node = "insert into render.nodes (name, capabilities, credential_hash, last_seen_at, epoch)
                values ('one', '{}', sha256('one'), now(), 3)";
    sqlx::query(node).execute(db).await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn who_tried_which_chunk_is_told_with_every_frame(db: PgPool) {
    enrol(&db).await;
    let (id, run) = order(&db).await;
    let bad_frames = BTreeMap::from([(7, 1), (8, 1)]);
    let world = World::with(Mischief { bad_frames, ..Mischief::default() });
    world.finish(&db, run, false).await;
    let (status, accepted_attempt) = ("verified".to_owned(), Some(2));
    let repaired = ChunkRow { status, attempts: 2, crash_count: 0, accepted_attempt, frames_ok: 42 };
    assert_eq!(chunk(&db, id, 0).await, repaired);
    let attempts = "select count(*) from render.frame_job_attempts a join render.frame_jobs f on f.id = a.frame_job_id
                    join render.render_jobs j on j.id = f.render_job_id
                    join workflow.attempts e on e.run_id = j.workflow_run_id and e.lease_token = a.lease_token
                    where j.id = $1 and a.outcome = 'ok' and a.epoch = 3 and a.render_ms = 2000 and e.step_key like 'render:%'";
    assert_eq!(count(&db, attempts, id).await, 5);
    let repairs =
        "select count(*) from render.frame_repair_jobs where render_job_id = $1 and chunk_no = 0 and round = 2
                   and reason = 'corrupt' and frames = '{[7,9)}' and status = 'done' and finished_at is not null";
    assert_eq!(count(&db, repairs, id).await, 1);
    let flagged = "select count(*) from render.frame_manifests where render_job_id = $1 and flags = '{repaired}' and frame_no in (7, 8)
                   and width = 1920 and height = 1080";
    assert_eq!(count(&db, flagged, id).await, 2);
}

/// Each row of a plan is `first-last`.
async fn planned(db: &PgPool, id: Uuid, chunks: &[(i32, i32)]) -> Result<(), String> {
    let (first, last): (Vec<i32>, Vec<i32>) = chunks.iter().copied().unzip();
    let sql = "insert into render.frame_jobs (tenant_id, render_job_id, chunk_no, first_frame, last_frame)
               select tenant_id, $1, n, f, l from render.render_jobs, unnest($2::int[], $3::int[]) with ordinality c(f, l, n) where id = $1";
    let planned = sqlx::query(sql).bind(id).bind(first).bind(last).execute(db).await;
    planned.map(drop).map_err(|e| e.as_database_error().unwrap().constraint().unwrap_or_default().to_owned())
}

/// The world's hands become those of a node whose renderer has a version.
async fn enrol_renderer(db: &PgPool, version: &str) {
    let node = "insert into render.nodes (name, capabilities, credential_hash, last_seen_at)
                values ('one', jsonb_build_object('renderers', jsonb_build_object('lottie', $1::text)), sha256('one'), workflow.now())
                on conflict (name) do update set capabilities = excluded.capabilities";
    sqlx::query(node).bind(version).execute(db).await.unwrap();
}

#[sqlx::test(migrations = "../migrations")]
async fn a_copy_of_a_films_run_settles_nothing(db: PgPool) {
    let (id, run) = order(&db).await;
    let mut tx = db.begin().await.unwrap();
    let outcome = Err(&flatrender_engine::Failure::permanent("test.refused", "as told"));
    assert!(!render_job::settle(&mut tx, id, Uuid::now_v7(), outcome).await.unwrap());
    tx.commit().await.unwrap();
    assert_eq!(job(&db, id).await.status, "queued");
    World::default().finish(&db, run, false).await;
    assert_eq!(job(&db, id).await.status, "completed");
}

/// A node that was cut off and came back holds the lease that it lost: one attempt, which ended twice.
#[sqlx::test(migrations = "../migrations")]
async fn an_attempt_that_was_given_up_and_taken_up_again_is_one_and_good(db: PgPool) {
    enrol(&db).await;
    let (id, run) = order(&db).await;
    planned(&db, id, &[(0, 164)]).await.unwrap();
    let (token, key) = (Uuid::new_v4(), "render:0:0:0");
    let ended = "insert into workflow.attempts (task_id, attempt_no, run_id, tenant_id, step_key, lease_token, worker, started_at, ended_at, outcome)
                 select 1, n, $1, $2, $3, $4, $5, now(), now(), case n when 1 then 'lost' else 'ok' end::workflow.attempt_outcome
                 from generate_series(1, 2) n";
    sqlx::query(ended).bind(run).bind(DEFAULT_TENANT).bind(key).bind(token).bind(NODE).execute(&db).await.unwrap();
    let frames: Vec<FrameRef> = (0..165).map(|frame| FrameRef { frame, blob: blob("frame") }).collect();
    let timing = RenderTiming { render_ms: 2000, ..RenderTiming::default() };
    let made = RenderedFrames { frames, faults: vec![], cause: None, warnings: vec![], timing };
    let frames = FrameRange { first: 0, last: 164 };
    let (tenant_id, size, made) = (DEFAULT_TENANT, [1920, 1080], Some(&made));
    let ended = Ended { tenant_id, render_id: id, run_id: run, key, frames, size, made, is_overtaken: false };
    let mut tx = db.begin().await.unwrap();
    Scope::tenant(Role::Render, DEFAULT_TENANT).enter(&mut tx).await.unwrap();
    frame_attempt::note(&mut tx, &ended).await.unwrap();
    tx.commit().await.unwrap();
    let good = "select count(*) from render.frame_job_attempts a join render.frame_jobs f on f.id = a.frame_job_id
                where f.render_job_id = $1 and a.outcome = 'ok' and a.render_ms = 2000 and f.attempts = 1 and f.crash_count = 0";
    assert_eq!(count(&db, good, id).await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_plan_with_a_hole_or_an_overlap_is_refused_by_the_database(db: PgPool) {
    let (id, _) = order(&db).await;
    let hole = Err("the_chunks_cover_every_frame".to_owned());
    assert_eq!(planned(&db, id, &[(0, 99), (101, 164)]).await, hole);
    assert_eq!(planned(&db, id, &[(0, 99), (100, 163)]).await, hole);
    assert_eq!(planned(&db, id, &[(1, 165)]).await, hole, "as many frames, but beyond the end");
    assert_eq!(planned(&db, id, &[(0, 100), (100, 164)]).await, Err("no_frame_is_in_two_chunks".to_owned()));
    assert_eq!(planned(&db, id, &[(0, 99), (100, 164)]).await, Ok(()));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_second_film_is_planned_by_the_pace_of_the_first(db: PgPool) {
    enrol(&db).await;
    let chunks = async |id| {
        let sql = "select count(*) from render.frame_jobs where render_job_id = $1";
        count(&db, sql, id).await
    };
    let (first, run) = order(&db).await;
    World::default().finish(&db, run, false).await;
    // 2 s for 42 frames: a chunk of ten seconds is longer than the film, a share of it is two seconds.
    let (second, run) = order(&db).await;
    let world = World::default();
    world.finish(&db, run, false).await;
    assert_eq!((chunks(first).await, chunks(second).await), (4, 4));
    sqlx::query("alter table render.frame_job_attempts disable trigger all").execute(&db).await.unwrap();
    sqlx::query("update render.frame_job_attempts set render_ms = frames * 900").execute(&db).await.unwrap();
    let (third, run) = order(&db).await;
    World::default().finish(&db, run, false).await;
    assert_eq!(chunks(third).await, 15, "eleven frames of 900 ms each are ten seconds");
    assert_eq!(accepted_frames(&db, third).await, 165);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_frame_that_crashes_every_renderer_is_found_and_named(db: PgPool) {
    enrol(&db).await;
    let world = World::with(Mischief { crashing: Some((50, 99)), ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, false).await;
    let failure = run.error.unwrap();
    assert_eq!((run.state, failure.code.as_str()), (RunState::Failed, "render.poison_frame"));
    assert_eq!((&failure.details["frame"], &failure.details["class"]), (&50.into(), &"render.crashed".into()));
    let job = job(&db, id).await;
    assert_eq!(job.error_code.as_deref(), Some("render.poison_frame"));
    assert!(job.error_detail.unwrap().contains("frame 50"));
    let crashes = chunk(&db, id, 1).await.crash_count;
    assert!(crashes <= 3 + 6, "{crashes} crashes to find one of 42 frames");
    assert!(world.asked().iter().any(|a| a == "RenderFrames 50-50 not on one"), "{:?}", world.asked());
}

#[sqlx::test(migrations = "../migrations")]
async fn a_renderer_that_crashes_twice_and_no_more_spoils_nothing(db: PgPool) {
    enrol(&db).await;
    let world = World::with(Mischief { crashing: Some((50, 2)), ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, true).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!((accepted_frames(&db, id).await, chunk(&db, id, 1).await.crash_count), (165, 2));
}

#[sqlx::test(migrations = "../migrations")]
async fn a_frame_that_looks_wrong_twice_is_kept_and_said(db: PgPool) {
    let world = World::with(Mischief { black_frames: [50].into(), ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(world.asked().iter().filter(|a| *a == "RenderFrames 50-50").count(), 1);
    assert_eq!(job(&db, id).await.warnings.0, ["frame 50 is black, even when it is rendered again"]);
    let flagged =
        "select count(*) from render.frame_manifests where render_job_id = $1 and frame_no = 50 and flags @> '{black}'";
    assert_eq!(count(&db, flagged, id).await, 1);
}

#[sqlx::test(migrations = "../migrations")]
async fn frames_of_an_attempt_that_failed_are_kept(db: PgPool) {
    let world = World::with(Mischief { crashing: Some((41, 1)), ..Mischief::default() });
    let (id, run) = order(&db).await;
    let frames: Vec<FrameRef> =
        (0..30).map(|frame| FrameRef { frame, blob: blob(&format!("frame {frame}")) }).collect();
    store(&db, id, Uuid::new_v4(), &frames).await;
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let asked: Vec<String> = world.asked().into_iter().filter(|a| a.starts_with("RenderFrames 0-41")).collect();
    assert_eq!(asked.len(), 1, "no frame before 30 is asked for again");
    assert!(world.asked().contains(&"RenderFrames 30-41".to_owned()), "{:?}", world.asked());
    assert_eq!(accepted_frames(&db, id).await, 165);
    assert_eq!(
        count(&db, "select count(*) from render.stored_frames where render_job_id = $1", id).await,
        0,
        "it has ended"
    );
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
async fn a_frame_that_nobody_asked_for_is_in_no_chunk(db: PgPool) {
    let world = World::with(Mischief { beyond: true, ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(accepted_frames(&db, id).await, 165);
}
