//! A render, through its ordeals: it completes; it survives a crash after every event; it settles when any one
//! activity fails; it stops when it is cancelled.

use crate::world::{Mischief, NODE, World, begin_to_spoil, blob, order, order_of, publish, spoil, store};
use flatrender_engine::{Client, client::RunState};
use flatrender_workflows::{
    contracts::render::{FrameRange, FrameRef, RenderTiming, RenderedFrames},
    models::{
        DEFAULT_TENANT, Role, Scope,
        render::{
            export,
            frame_attempt::{self, Ended},
            frame_job::{self, Accepted},
            render_job::{self, RenderJob},
        },
    },
};
use sqlx::{PgConnection, PgPool};
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

/// Frames 0 to 29 as an attempt has left them that could say nothing more.
async fn left(db: &PgPool, id: Uuid) -> Uuid {
    let token = Uuid::new_v4();
    let frames: Vec<FrameRef> = (0..30).map(|frame| FrameRef { frame, blob: blob(&format!("odd {frame}")) }).collect();
    store(db, id, token, &frames).await;
    token
}

/// Frames of the film that are as they were left.
const LEFT: &str = "select count(*) from render.frame_manifests m where m.render_job_id = $1 and m.frame_no < 30
    and m.sha256 = encode(sha256(convert_to('odd ' || m.frame_no, 'UTF8')), 'hex')
    and not exists (select from render.frame_replacements r where r.render_job_id = m.render_job_id and r.frame_no = m.frame_no)";

/// Nobody can make the black frame again, and it is settled for; but by then it is said to be spoiled.
#[sqlx::test(migrations = "../migrations")]
async fn a_doubtful_frame_that_was_spoiled_is_not_settled_for(db: PgPool) {
    let (id, run) = order(&db).await;
    let spoils = Some(("RenderFrames 20-20", left(&db, id).await));
    let (black_frames, bad_apart) = ([20].into(), BTreeMap::from([(20, 4)]));
    let crashing = Some((41, 1));
    let world = World::with(Mischief { crashing, black_frames, bad_apart, spoils, ..Mischief::default() });
    world.store_for(&db);
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert!(world.asked().contains(&"RenderFrames 0-29".to_owned()), "{:?}", world.asked());
    assert_eq!((accepted_frames(&db, id).await, count(&db, LEFT, id).await), (165, 0));
}

async fn spoiled_frames_are_made_again(db: PgPool, crash_after_every_event: bool) {
    let (id, run) = order(&db).await;
    let spoils = Some(("AssembleVideo", left(&db, id).await));
    let world = World::with(Mischief { crashing: Some((41, 1)), spoils, ..Mischief::default() });
    world.store_for(&db);
    let run = world.finish(&db, run, crash_after_every_event).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let asked = |what: &str| world.asked().iter().filter(|a| a.starts_with(what)).count();
    assert_eq!((asked("RenderFrames 0-29"), asked("EncodePart 0"), asked("AssembleVideo")), (1, 2, 2));
    assert_eq!((count(&db, LEFT, id).await, exports(&db, id).await), (0, 1));
    let replaced = "select count(*) from render.frame_replacements where render_job_id = $1";
    assert_eq!(count(&db, replaced, id).await, 30, "what was accepted first is still told");
}

#[sqlx::test(migrations = "../migrations")]
async fn frames_that_are_said_to_be_spoiled_after_they_were_accepted_are_in_no_film(db: PgPool) {
    spoiled_frames_are_made_again(db, false).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn spoiled_frames_are_made_again_whatever_crashes_after_every_event(db: PgPool) {
    spoiled_frames_are_made_again(db, true).await;
}

/// Waits until somebody waits for what this session has locked.
async fn until_waited_for(db: &PgPool, holder: &mut PgConnection) {
    let pid: i32 = sqlx::query_scalar("select pg_backend_pid()").fetch_one(holder).await.unwrap();
    let waits = "select count(*) from pg_stat_activity
                 where datname = current_database() and $1 = any (pg_blocking_pids(pid))";
    while sqlx::query_scalar::<_, i64>(waits).bind(pid).fetch_one(db).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
}

/// While the film is published its frames are said to be spoiled, or, `lingering`, are still being said to be when all but the record is written.
async fn spoiled_while_it_is_published(db: PgPool, lingering: bool) {
    let (id, run) = order(&db).await;
    let token = left(&db, id).await;
    let world = World::with(Mischief { crashing: Some((41, 1)), ..Mischief::default() });
    world.store_for(&db);
    let mut slow = db.begin().await.unwrap();
    sqlx::raw_sql("lock table render.exports in share mode").execute(&mut *slow).await.unwrap();
    let elsewhere = async {
        until_waited_for(&db, &mut slow).await;
        let (mut word, client) = begin_to_spoil(&db, token).await;
        if lingering {
            slow.rollback().await.unwrap();
            until_waited_for(&db, &mut word).await;
            word.commit().await.unwrap();
        } else {
            word.commit().await.unwrap();
            slow.rollback().await.unwrap();
        }
        client.announce();
    };
    let (run, ()) = tokio::join!(world.finish(&db, run, false), elsewhere);
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!((count(&db, LEFT, id).await, exports(&db, id).await), (0, 1));
    assert_eq!(world.asked().iter().filter(|a| a.starts_with("AssembleVideo")).count(), 2);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_whose_frames_are_said_to_be_spoiled_while_it_is_published_is_not(db: PgPool) {
    spoiled_while_it_is_published(db, false).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn a_film_is_not_published_before_somebody_has_said_that_its_frames_are_spoiled(db: PgPool) {
    spoiled_while_it_is_published(db, true).await;
}

/// What was stored of a scene before its frames were said to be spoiled has a row by which it is found and removed.
#[sqlx::test(migrations = "../migrations")]
async fn the_content_of_a_scene_that_is_not_to_be_kept_is_removed(db: PgPool) {
    enrol_renderer(&db, "lottie 1").await;
    let (id, run) = order(&db).await;
    let spoils = Some(("EncodePart 0", left(&db, id).await));
    let world = World::with(Mischief { crashing: Some((37, 1)), spoils, ..Mischief::default() });
    world.store_for(&db);
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let to_remove = "select count(*) from render.kept_scenes where render_job_id = $1 and evicted_at is not null";
    assert_eq!(count(&db, to_remove, id).await, 3);
}

const STILL_KEPT: &str = "select count(*) from render.kept_scenes where render_job_id = $1 and evicted_at is null";

#[sqlx::test(migrations = "../migrations")]
async fn scenes_of_a_film_that_fails_with_spoiled_frames_are_kept_no_more(db: PgPool) {
    enrol_renderer(&db, "lottie 1").await;
    let (id, run) = order(&db).await;
    let (spoils, failing) = (Some(("AssembleVideo", left(&db, id).await)), [("AssembleVideo", "media.failed")].into());
    let world = World::with(Mischief { crashing: Some((37, 1)), spoils, failing, ..Mischief::default() });
    world.store_for(&db);
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Failed);
    assert_eq!(count(&db, STILL_KEPT, id).await, 0);
}

#[sqlx::test(migrations = "../migrations")]
async fn scenes_of_a_film_that_was_given_up_with_spoiled_frames_are_kept_no_more(db: PgPool) {
    let (id, run) = order(&db).await;
    let token = left(&db, id).await;
    let accept = "insert into render.frame_manifests (tenant_id, render_job_id, frame_no, sha256, size_bytes)
                  select tenant_id, render_job_id, frame_no, sha256, size_bytes from render.stored_frames where render_job_id = $1";
    let keep =
        "insert into render.kept_scenes (tenant_id, key, sha256, size_bytes, frame_sha256, frame_bytes, render_job_id)
                select tenant_id, sha256, sha256, 1, array[sha256], array[size_bytes], render_job_id
                from render.stored_frames where render_job_id = $1 and frame_no = 0";
    for sql in [accept, keep] {
        sqlx::query(sql).bind(id).execute(&db).await.unwrap();
    }
    spoil(&db, token).await;
    let give_up = r#"select workflow.end_run(id, 'failed', null,
        '{"code": "workflow.lost_too_often", "message": "given up", "retryable": false}') from workflow.tasks where run_id = $1"#;
    sqlx::query(give_up).bind(run).execute(&db).await.unwrap();
    let mut tx = Scope::platform(Role::Render).begin(&db).await.unwrap();
    assert_eq!(render_job::settle_abandoned(&mut tx).await.unwrap(), [id]);
    tx.commit().await.unwrap();
    assert_eq!(count(&db, STILL_KEPT, id).await, 0);
}

/// A second that was withdrawn still stores what it has, and says then that it was spoiled.
#[sqlx::test(migrations = "../migrations")]
async fn a_frame_is_not_worthless_because_a_spoiled_attempt_wrote_over_it(db: PgPool) {
    let (id, run_id) = order(&db).await;
    planned(&db, id, &[(0, 164)]).await.unwrap();
    let (sound, second) = (left(&db, id).await, Uuid::new_v4());
    let frames: Vec<FrameRef> = (0..165).map(|frame| FrameRef { frame, blob: blob(&format!("odd {frame}")) }).collect();
    store(&db, id, second, &[FrameRef { frame: 3, blob: blob("spoiled") }]).await;
    spoil(&db, second).await;
    let accept = async || {
        let (kept, flags) = (BTreeMap::from([(2, sound), (3, sound)]), BTreeMap::new());
        let (tenant_id, size) = (DEFAULT_TENANT, [1920, 1080]);
        let new = Accepted {
            tenant_id,
            render_id: id,
            run_id,
            chunk_no: 1,
            frames: &frames,
            kept: &kept,
            size,
            flags: &flags,
        };
        let mut tx = Scope::tenant(Role::Render, DEFAULT_TENANT).begin(&db).await.unwrap();
        frame_job::accept(&mut tx, &new).await.unwrap()
    };
    assert_eq!(accept().await, None);
    spoil(&db, sound).await;
    assert_eq!(accept().await, Some(vec![2, 3]));
}

async fn lost_frames_are_rendered_again(db: PgPool, crash_after_every_event: bool) {
    let lost_frames = BTreeMap::from([(("EncodePart", 50), 2), (("EncodePart", 6), 1)]);
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
async fn a_repair_that_has_ended_gets_no_more_frames(db: PgPool) {
    let (bad_frames, lost_frames) = (BTreeMap::from([(7, 1)]), BTreeMap::from([(("EncodePart", 6), 2)]));
    let world = World::with(Mischief { bad_frames, lost_frames, ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let told = "select round, frames::text, finished_at > created_at from render.frame_repair_jobs
                where render_job_id = $1 and chunk_no = 0 and reason = 'corrupt' and status = 'done' order by round";
    let told: Vec<(i32, String, bool)> = sqlx::query_as(told).bind(id).fetch_all(&db).await.unwrap();
    let row = |round, frames: &str| (round, frames.to_owned(), true);
    assert_eq!(told, [row(2, "{[7,8)}"), row(3, "{[6,7)}"), row(4, "{[6,7)}")]);
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

async fn lost_parts_are_made_again(db: PgPool, crash_after_every_event: bool) {
    let world = World::with(Mischief { lost_parts: 1, ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, crash_after_every_event).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    let asked = |what: &str| world.asked().iter().filter(|a| a.starts_with(what)).count();
    assert_eq!((asked("AssembleVideo"), asked("EncodePart 0"), asked("MixAudio"), asked("RenderFrames")), (2, 2, 2, 4));
    assert_eq!((accepted_frames(&db, id).await, exports(&db, id).await), (165, 1));
}

#[sqlx::test(migrations = "../migrations")]
async fn parts_that_are_lost_before_they_are_joined_are_made_again(db: PgPool) {
    lost_parts_are_made_again(db, false).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn parts_are_made_again_whatever_crashes_after_every_event(db: PgPool) {
    lost_parts_are_made_again(db, true).await;
}

#[sqlx::test(migrations = "../migrations")]
async fn parts_that_are_lost_again_fail_the_render(db: PgPool) {
    let world = World::with(Mischief { lost_parts: 99, ..Mischief::default() });
    let (id, run) = order(&db).await;
    assert_eq!(world.finish(&db, run, false).await.state, RunState::Failed);
    assert_eq!(job(&db, id).await.error_code.as_deref(), Some("media.part_lost"));
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

#[sqlx::test(migrations = "../migrations")]
async fn a_frame_that_nobody_asked_for_is_in_no_chunk(db: PgPool) {
    let world = World::with(Mischief { beyond: true, ..Mischief::default() });
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    assert_eq!(accepted_frames(&db, id).await, 165);
}

#[sqlx::test(migrations = "../migrations")]
async fn a_frame_that_was_lost_after_it_was_accepted_is_in_the_record_as_it_is_in_the_film(db: PgPool) {
    enrol(&db).await;
    let lost_frames = BTreeMap::from([(("EncodePart", 50), 1), (("EncodePart", 51), 1)]);
    let world = World::with(Mischief { lost_frames, never_alike: true, ..Mischief::default() });
    world.store_for(&db);
    let (id, run) = order(&db).await;
    let run = world.finish(&db, run, false).await;
    assert_eq!(run.state, RunState::Succeeded, "{:?}", run.error);
    // Who made a frame last, by what the fake writes into its picture.
    let sql = "select r.frame_no, r.sha256, a.lease_token from render.frame_replacements r
               join render.frame_job_attempts a on a.id = r.attempt_id where r.render_job_id = $1 order by 1";
    let replaced: Vec<(i32, String, Uuid)> = sqlx::query_as(sql).bind(id).fetch_all(&db).await.unwrap();
    assert_eq!(replaced.iter().map(|(frame, ..)| *frame).collect::<Vec<_>>(), [50, 51]);
    for (frame, sha256, token) in replaced {
        assert_eq!(sha256, blob(&format!("frame {frame}{token}")).sha256.to_string());
    }
    let changed =
        "select count(*) from render.frame_replacements r join render.frame_manifests m using (render_job_id, frame_no)
                   where r.render_job_id = $1 and r.sha256 <> m.sha256";
    assert_eq!(count(&db, changed, id).await, 2, "what was accepted first is still told");
}
