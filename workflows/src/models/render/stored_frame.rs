//! Frames that are on the shelf of a render under way, whatever becomes of the attempts that stored them.
//!
//! An attempt may be lost or fail, and its frames count: they are proven like any others. But one that ended with what shows in
//! its frames ([`SPOILING`]) has none that count, from the commit on that ends it, whenever they were noted. One that was lost before it
//! could say so has none from the commit on in which it does: its run has that as a signal ([`Spoiled`]).

use super::{
    film_frames,
    frame_job::{columns, refs},
    scene_cache,
};
use crate::{
    contracts::{
        evidence::SPOILING,
        render::{FrameRange, FrameRef, Spoiled},
    },
    models::{Db, Role, Scope},
};
use sqlx::types::chrono::{DateTime, Utc};
use uuid::Uuid;

/// Notes frames that the attempt with this lease has stored. The newest of a number counts.
pub async fn note(
    db: Db<'_>,
    tenant_id: Uuid,
    render_id: Uuid,
    lease_token: Uuid,
    frames: &[FrameRef],
) -> sqlx::Result<()> {
    let (number, hash, bytes) = columns(frames);
    sqlx::query!(
        r#"insert into render.stored_frames (tenant_id, render_job_id, frame_no, sha256, size_bytes, lease_token, stored_at)
           select $1, $2, n, h, b, $3, workflow.now() from unnest($4::int[], $5::text[], $6::bigint[]) f(n, h, b)
           where exists (select from render.render_jobs j where j.id = $2 and j.finished_at is null)
           order by n
           on conflict (render_job_id, frame_no) do update
           set sha256 = excluded.sha256, size_bytes = excluded.size_bytes, lease_token = excluded.lease_token,
               stored_at = excluded.stored_at"#,
        tenant_id,
        render_id,
        lease_token,
        &number,
        &hash,
        &bytes,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A frame on the shelf, and the lease token of the attempt that stored it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stored {
    /// The frame.
    pub frame: FrameRef,
    /// Whose it is.
    pub by: Uuid,
}

/// Those of a range that count, in order; without those of an attempt when it asks for itself. Ends in the scope of the film's
/// tenant.
pub async fn of_range(
    db: Db<'_>,
    tenant_id: Uuid,
    run_id: Uuid,
    render_id: Uuid,
    frames: FrameRange,
    but: Option<Uuid>,
) -> sqlx::Result<Vec<Stored>> {
    let mut worthless = spoiled(&mut *db, tenant_id, run_id).await?;
    worthless.extend(but);
    let rows = sqlx::query!(
        r#"select frame_no, sha256, size_bytes, lease_token from render.stored_frames
           where render_job_id = $1 and frame_no between $2 and $3 and lease_token <> all ($4) order by frame_no"#,
        render_id,
        frames.first as i32,
        frames.last as i32,
        &worthless,
    )
    .fetch_all(db)
    .await?;
    let by: Vec<Uuid> = rows.iter().map(|r| r.lease_token).collect();
    let frames = refs(rows.into_iter().map(|r| (r.frame_no, r.sha256, r.size_bytes)))?;
    Ok(frames.into_iter().zip(by).map(|(frame, by)| Stored { frame, by }).collect())
}

/// Lease tokens of a run's attempts that have said what shows in their frames: when they ended, or later. Ends in the scope of the film's
/// tenant.
pub async fn spoiled(db: Db<'_>, tenant_id: Uuid, run_id: Uuid) -> sqlx::Result<Vec<Uuid>> {
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    let tokens = sqlx::query_scalar!(
        r#"select lease_token::text as "token!" from workflow.attempts where run_id = $1 and failure ->> 'code' = any ($2)
           union all
           select split_part(key, ':', 3) from workflow.steps where run_id = $1 and kind = 'signal' and name = $3"#,
        run_id,
        &SPOILING.map(str::to_owned),
        Spoiled::SIGNAL,
    )
    .fetch_all(&mut *db)
    .await?;
    Scope::tenant(Role::Render, tenant_id).enter(db).await?;
    // What somebody else has sent under this name is of no attempt.
    Ok(tokens.iter().filter_map(|token| token.parse().ok()).collect())
}

/// The one that was stored last, and when.
pub async fn newest(db: Db<'_>, render_id: Uuid) -> sqlx::Result<Option<(FrameRef, DateTime<Utc>)>> {
    let row = sqlx::query!(
        r#"select frame_no, sha256, size_bytes, stored_at from render.stored_frames
           where render_job_id = $1 order by stored_at desc, frame_no desc limit 1"#,
        render_id,
    )
    .fetch_optional(db)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let frame = refs([(row.frame_no, row.sha256, row.size_bytes)])?.pop();
    Ok(frame.map(|f| (f, row.stored_at)))
}

/// An attempt that has ended says only now what shows in its frames. Gives the run of the film that has to hear of it; none when it was
/// no film's, or has said so when it ended. Scenes that were kept of the film are let go of. Begins in any scope; ends in that of the film's
/// tenant for its runs when there is a film.
pub async fn disown(db: Db<'_>, task_id: i64, lease_token: Uuid) -> sqlx::Result<Option<Uuid>> {
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let attempt = sqlx::query!(
        r#"select run_id, tenant_id from workflow.attempts where task_id = $1 and lease_token = $2
           and not exists (select from workflow.attempts a
                           where a.task_id = $1 and a.lease_token = $2 and a.failure ->> 'code' = any ($3)) limit 1"#,
        task_id,
        lease_token,
        &SPOILING.map(str::to_owned),
    );
    let Some(attempt) = attempt.fetch_optional(&mut *db).await? else { return Ok(None) };
    let (run_id, tenant_id) = (attempt.run_id, attempt.tenant_id);
    if !let_scenes_go(&mut *db, tenant_id, run_id).await? {
        return Ok(None);
    }
    Scope::tenant(Role::Workflow, tenant_id).enter(db).await?;
    Ok(Some(run_id))
}

/// An attempt says in time what shows in its frames. Once its task is withdrawn they may be in scenes that were kept of the film: those are let
/// go of. Before that nobody has used any. Begins in any scope.
pub async fn disown_withdrawn(db: Db<'_>, task_id: i64, lease_token: Uuid) -> sqlx::Result<()> {
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let task = sqlx::query!(
        "select run_id, tenant_id from workflow.tasks where id = $1 and lease_token = $2 and cancel_requested",
        task_id,
        lease_token,
    );
    if let Some(task) = task.fetch_optional(&mut *db).await? {
        let_scenes_go(db, task.tenant_id, task.run_id).await?;
    }
    Ok(())
}

/// Lets go of scenes that were kept of a run's film; false when it is no film's. Ends in the scope of the film's tenant.
async fn let_scenes_go(db: Db<'_>, tenant_id: Uuid, run_id: Uuid) -> sqlx::Result<bool> {
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    let Some(render_id) = film_frames::film_of(&mut *db, tenant_id, run_id).await? else { return Ok(false) };
    scene_cache::let_go(db, tenant_id, render_id).await?;
    Ok(true)
}

/// Forgets some: they are to be rendered again.
pub async fn forget(db: Db<'_>, render_id: Uuid, frames: &[u32]) -> sqlx::Result<()> {
    let number: Vec<i32> = frames.iter().map(|f| *f as i32).collect();
    sqlx::query!(
        "delete from render.stored_frames where render_job_id = $1 and frame_no = any($2)",
        render_id,
        &number
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Forgets all: the render has ended.
pub async fn forget_all(db: Db<'_>, render_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from render.stored_frames where render_job_id = $1", render_id).execute(db).await?;
    Ok(())
}
