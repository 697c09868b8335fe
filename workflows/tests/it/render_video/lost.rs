//! Frames and parts that the storage loses after they were proven: they are made again, a few times.

use super::{accepted_frames, count, enrol, exports, job};
use crate::world::{Mischief, World, blob, order};
use flatrender_engine::client::RunState;
use sqlx::PgPool;
use std::collections::BTreeMap;
use uuid::Uuid;

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
