//! Frames that are said to be spoiled after they were accepted: they are in no film, and in no scene that is kept.

use super::{accepted_frames, count, enrol_renderer, exports, planned};
use crate::world::{Mischief, World, begin_to_spoil, blob, order, spoil, store};
use flatrender_engine::client::RunState;
use flatrender_workflows::{
    contracts::render::FrameRef,
    models::{
        DEFAULT_TENANT, Role, Scope,
        render::{
            frame_job::{self, Accepted},
            render_job,
        },
    },
};
use sqlx::{PgConnection, PgPool};
use std::collections::BTreeMap;
use uuid::Uuid;

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
