//! Chunks of a film and the frames accepted for them.

use crate::{
    contracts::render::{FrameRange, FrameRef},
    models::Db,
};
use flatrender_engine::Failure;
use uuid::Uuid;

/// Plans the chunks of a film and opens its rendering. The table refuses chunks that overlap.
pub async fn plan(db: Db<'_>, tenant_id: Uuid, render_id: Uuid, chunks: &[FrameRange]) -> sqlx::Result<()> {
    let first: Vec<i32> = chunks.iter().map(|c| c.first as i32).collect();
    let last: Vec<i32> = chunks.iter().map(|c| c.last as i32).collect();
    sqlx::query!(
        r#"insert into render.frame_jobs (tenant_id, render_job_id, chunk_no, first_frame, last_frame)
           select $1, $2, (n - 1)::int, first_frame, last_frame
           from unnest($3::int[], $4::int[]) with ordinality c(first_frame, last_frame, n)"#,
        tenant_id,
        render_id,
        &first,
        &last,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "update render.render_jobs set status = 'rendering', updated_at = workflow.now() where id = $1",
        render_id,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Accepts the verified frames of a whole chunk. A frame has one owner: the primary key refuses a second.
/// The film goes on to encoding with its last chunk.
///
/// # Errors
/// `render.chunk_incomplete` when `frames` are not exactly those of the chunk.
pub async fn accept(
    db: Db<'_>,
    tenant_id: Uuid,
    render_id: Uuid,
    chunk_no: i32,
    frames: &[FrameRef],
) -> Result<(), Failure> {
    let number: Vec<i32> = frames.iter().map(|f| f.frame as i32).collect();
    let hash: Vec<String> = frames.iter().map(|f| f.blob.sha256.to_string()).collect();
    let bytes: Vec<i64> = frames.iter().map(|f| f.blob.size_bytes as i64).collect();
    sqlx::query!(
        r#"insert into render.frame_manifests (tenant_id, render_job_id, frame_no, sha256, size_bytes, verified_at)
           select $1, $2, n, h, b, workflow.now() from unnest($3::int[], $4::text[], $5::bigint[]) f(n, h, b)"#,
        tenant_id,
        render_id,
        &number,
        &hash,
        &bytes,
    )
    .execute(&mut *db)
    .await?;
    let chunk = sqlx::query!(
        r#"update render.frame_jobs f
           set status = 'verified', updated_at = workflow.now(), frames_ok =
               (select count(*)::int from render.frame_manifests m
                where m.render_job_id = f.render_job_id and m.frame_no between f.first_frame and f.last_frame)
           where render_job_id = $1 and chunk_no = $2
             and (select count(*) from render.frame_manifests m where m.render_job_id = f.render_job_id
                  and m.frame_no between f.first_frame and f.last_frame) = f.last_frame - f.first_frame + 1"#,
        render_id,
        chunk_no,
    )
    .execute(&mut *db)
    .await?;
    if chunk.rows_affected() != 1 {
        let message = format!("chunk {chunk_no} of render {render_id} is not complete");
        return Err(Failure::permanent("render.chunk_incomplete", message));
    }
    sqlx::query!(
        r#"update render.render_jobs
           set frames_verified = frames_verified + $2, updated_at = workflow.now(),
               status = case when frames_verified + $2 = frame_count then 'encoding' else status end
           where id = $1"#,
        render_id,
        frames.len() as i32,
    )
    .execute(db)
    .await?;
    Ok(())
}
