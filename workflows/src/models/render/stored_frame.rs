//! Frames that are on the shelf of a render under way, whatever becomes of the attempts that stored them.
//!
//! An attempt may be lost or fail, and its frames count: they are proven like any others. But one that ended with what shows in
//! its frames ([`SPOILING`]) has none that count, from the commit on that ends it, whenever they were noted. One that was lost before it
//! could say so has them taken away when it does ([`disown`]).

use super::frame_job::{columns, refs};
use crate::{
    contracts::{
        evidence::SPOILING,
        render::{FrameRange, FrameRef},
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

/// Those of a range that count, in order; without those of an attempt when it asks for itself. Ends in the scope of the film's
/// tenant.
pub async fn of_range(
    db: Db<'_>,
    tenant_id: Uuid,
    run_id: Uuid,
    render_id: Uuid,
    frames: FrameRange,
    but: Option<Uuid>,
) -> sqlx::Result<Vec<FrameRef>> {
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    let mut worthless = sqlx::query_scalar!(
        "select lease_token from workflow.attempts where run_id = $1 and failure ->> 'code' = any ($2)",
        run_id,
        &SPOILING.map(str::to_owned),
    )
    .fetch_all(&mut *db)
    .await?;
    worthless.extend(but);
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    let rows = sqlx::query!(
        r#"select frame_no, sha256, size_bytes from render.stored_frames
           where render_job_id = $1 and frame_no between $2 and $3 and lease_token <> all ($4) order by frame_no"#,
        render_id,
        frames.first as i32,
        frames.last as i32,
        &worthless,
    )
    .fetch_all(db)
    .await?;
    refs(rows.into_iter().map(|r| (r.frame_no, r.sha256, r.size_bytes)))
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

/// Forgets what an attempt has stored that has ended: only afterwards it came to be known what shows in it. How many that were; accepted
/// frames stand. Begins in any scope and ends in one of the film's tenant.
pub async fn disown(db: Db<'_>, task_id: i64, lease_token: Uuid) -> sqlx::Result<u64> {
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let attempt = sqlx::query!(
        "select run_id, tenant_id from workflow.attempts where task_id = $1 and lease_token = $2 limit 1",
        task_id,
        lease_token,
    );
    let Some(attempt) = attempt.fetch_optional(&mut *db).await? else { return Ok(0) };
    Scope::tenant(Role::Render, attempt.tenant_id).enter(&mut *db).await?;
    let forgotten = sqlx::query!(
        "delete from render.stored_frames
         where render_job_id = (select id from render.render_jobs where workflow_run_id = $1) and lease_token = $2",
        attempt.run_id,
        lease_token,
    );
    Ok(forgotten.execute(db).await?.rows_affected())
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
