//! Chunks of a film, the frames accepted for them, and repairs.
//!
//! ```text
//! queued ⇄ leased ─▶ rendered ─▶ verified
//! ```
//! A chunk is leased while a node has its task: the database writes that, in the transaction in which the engine changes the task.
use super::{plan::Chunk, stored_frame};
use crate::{
    contracts::{
        render::{FaultReason, FrameFault, FrameRef},
        storage::BlobRef,
    },
    models::{Db, Role, Scope, content::project::blob_ref},
};
use flatrender_engine::Failure;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// Plans the chunks of a film and opens its rendering. The tables refuse chunks that overlap or leave a frame out.
pub async fn plan(db: Db<'_>, tenant_id: Uuid, render_id: Uuid, chunks: &[Chunk]) -> sqlx::Result<()> {
    let no: Vec<i32> = chunks.iter().map(|c| c.no as i32).collect();
    let first: Vec<i32> = chunks.iter().map(|c| c.frames.first as i32).collect();
    let last: Vec<i32> = chunks.iter().map(|c| c.frames.last as i32).collect();
    sqlx::query!(
        r#"insert into render.frame_jobs (tenant_id, render_job_id, chunk_no, first_frame, last_frame, created_at, updated_at)
           select $1, $2, no, first_frame, last_frame, workflow.now(), workflow.now()
           from unnest($3::int[], $4::int[], $5::int[]) c(no, first_frame, last_frame)"#,
        tenant_id,
        render_id,
        &no,
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

/// Verified frames of a whole chunk.
pub struct Accepted<'a> {
    /// The owner of the film.
    pub tenant_id: Uuid,
    /// The film.
    pub render_id: Uuid,
    /// Its run.
    pub run_id: Uuid,
    /// The chunk's number.
    pub chunk_no: u32,
    /// Its frames.
    pub frames: &'a [FrameRef],
    /// Numbers of those of them that no attempt has reported, and who left them: attempts that failed or were lost.
    pub kept: &'a BTreeMap<u32, Uuid>,
    /// Their size in pixels.
    pub size: [u32; 2],
    /// What is to be said of some: `black`, `duplicate`, `repaired`.
    pub flags: &'a BTreeMap<u32, BTreeSet<String>>,
}

/// Accepts the verified frames of a whole chunk. A frame has one owner: the primary key refuses a second.
/// The film goes on to encoding with its last chunk. Begins and ends in the scope of the film's tenant.
///
/// Accepts nothing, and gives their numbers, when kept frames do not count any more: their attempt has said since what shows in them.
///
/// # Errors
/// `render.chunk_incomplete` when the frames are not exactly those of the chunk.
pub async fn accept(db: Db<'_>, new: &Accepted<'_>) -> Result<Option<Vec<u32>>, Failure> {
    let worthless = worthless(&mut *db, new).await?;
    if !worthless.is_empty() {
        return Ok(Some(worthless));
    }
    insert_manifests(&mut *db, new).await?;
    let chunk = sqlx::query!(
        r#"update render.frame_jobs f
           set status = 'verified', updated_at = workflow.now(), frames_ok = m.frames,
               accepted_attempt = a.attempt_no, output_prefix = a.output_prefix, node_id = coalesce(a.node_id, f.node_id)
           from render.frame_jobs c
           cross join lateral (select count(*)::int as frames from render.frame_manifests m
                               where m.render_job_id = c.render_job_id and m.frame_no between c.first_frame and c.last_frame) m
           left join lateral (select a.attempt_no, a.output_prefix, a.node_id from render.frame_job_attempts a
                              where a.frame_job_id = c.id and a.outcome = 'ok' order by a.attempt_no desc limit 1) a on true
           where c.render_job_id = $1 and c.chunk_no = $2 and f.id = c.id and m.frames = c.last_frame - c.first_frame + 1"#,
        new.render_id,
        new.chunk_no as i32,
    )
    .execute(&mut *db)
    .await?;
    if chunk.rows_affected() != 1 {
        let message = format!("chunk {} of render {} is not complete", new.chunk_no, new.render_id);
        return Err(Failure::permanent("render.chunk_incomplete", message));
    }
    end_repairs(&mut *db, new.render_id, Some(new.chunk_no), true).await?;
    sqlx::query!(
        r#"update render.render_jobs
           set frames_verified = frames_verified + $2, updated_at = workflow.now(),
               status = case when frames_verified + $2 = frame_count then 'encoding' else 'rendering' end
           where id = $1"#,
        new.render_id,
        new.frames.len() as i32,
    )
    .execute(db)
    .await?;
    Ok(None)
}

/// Kept frames of attempts that have said since what shows in them. What another attempt has stored over a frame, or said of that, does not
/// concern it.
async fn worthless(db: Db<'_>, new: &Accepted<'_>) -> sqlx::Result<Vec<u32>> {
    if new.kept.is_empty() {
        return Ok(vec![]);
    }
    let spoiled = stored_frame::spoiled(db, new.tenant_id, new.run_id).await?;
    Ok(new.kept.iter().filter(|(_, by)| spoiled.contains(by)).map(|(frame, _)| *frame).collect())
}

async fn insert_manifests(db: Db<'_>, new: &Accepted<'_>) -> sqlx::Result<()> {
    let (number, hash, bytes) = columns(new.frames);
    let flags = |f: &FrameRef| new.flags.get(&f.frame).map(|s| s.iter().cloned().collect::<Vec<_>>().join(","));
    let flags: Vec<Option<String>> = new.frames.iter().map(flags).collect();
    let kept_by: Vec<Option<Uuid>> = new.frames.iter().map(|f| new.kept.get(&f.frame).copied()).collect();
    sqlx::query!(
        r#"insert into render.frame_manifests
               (tenant_id, render_job_id, frame_no, sha256, size_bytes, width, height, attempt_id, flags, verified_at)
           select $1, $2, f.n, f.h, f.b, $7, $8, a.id, string_to_array(f.flags, ','), workflow.now()
           from unnest($3::int[], $4::text[], $5::bigint[], $6::text[], $9::uuid[]) f(n, h, b, flags, kept_by)
           left join render.stored_frames s on s.render_job_id = $2 and s.frame_no = f.n and s.sha256 = f.h
           left join render.frame_job_attempts a on a.lease_token = coalesce(f.kept_by, s.lease_token)"#,
        new.tenant_id,
        new.render_id,
        &number,
        &hash,
        &bytes,
        &flags as &[Option<String>],
        new.size[0] as i32,
        new.size[1] as i32,
        &kept_by as &[Option<Uuid>],
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Accepted frames whose attempt has said since what shows in them, in order. Ends in the scope of the film's tenant.
pub async fn spoiled(db: Db<'_>, tenant_id: Uuid, run_id: Uuid, render_id: Uuid) -> sqlx::Result<Vec<u32>> {
    let spoiled = stored_frame::spoiled(&mut *db, tenant_id, run_id).await?;
    if spoiled.is_empty() {
        return Ok(vec![]);
    }
    // An attempt that was overtaken may not have ended when its frames were accepted: then only the shelf tells whose they are.
    let frames = sqlx::query_scalar!(
        r#"select m.frame_no as "frame_no!" from render.frame_manifests m
           left join lateral (select r.sha256, r.attempt_id from render.frame_replacements r
                              where r.render_job_id = m.render_job_id and r.frame_no = m.frame_no order by r.no desc limit 1) r on true
           left join render.frame_job_attempts a on a.id = case when r.sha256 is null then m.attempt_id else r.attempt_id end
           left join render.stored_frames s on s.render_job_id = m.render_job_id and s.frame_no = m.frame_no
                                           and s.sha256 = coalesce(r.sha256, m.sha256)
           where m.render_job_id = $1 and coalesce(a.lease_token, s.lease_token) = any ($2) order by m.frame_no"#,
        render_id,
        &spoiled,
    )
    .fetch_all(db)
    .await?;
    Ok(frames.into_iter().map(|frame| frame as u32).collect())
}

/// As [`spoiled`], for whoever is about to record that the film is published: who is saying so at the moment is heard out, and who comes later
/// waits until the transaction has ended.
pub async fn spoiled_at_last(db: Db<'_>, tenant_id: Uuid, run_id: Uuid, render_id: Uuid) -> sqlx::Result<Vec<u32>> {
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    // Whoever says so holds it, in time or late: an attempt that ends, and a signal.
    sqlx::query!("select from workflow.tasks where run_id = $1 and kind = 'run' for update", run_id)
        .execute(&mut *db)
        .await?;
    spoiled(db, tenant_id, run_id, render_id).await
}

/// Notes that accepted frames are in the film as they were rendered again, because what was accepted was lost, or spoiled. `kept` as with
/// [`Accepted::kept`].
pub async fn replace(
    db: Db<'_>,
    tenant_id: Uuid,
    render_id: Uuid,
    frames: &[FrameRef],
    kept: &BTreeMap<u32, Uuid>,
) -> sqlx::Result<()> {
    let (number, hash, bytes) = columns(frames);
    let kept_by: Vec<Option<Uuid>> = frames.iter().map(|f| kept.get(&f.frame).copied()).collect();
    sqlx::query!(
        r#"insert into render.frame_replacements (tenant_id, render_job_id, frame_no, no, sha256, size_bytes, attempt_id, verified_at)
           select $1, $2, f.n, 1 + (select count(*)::int from render.frame_replacements r where r.render_job_id = $2 and r.frame_no = f.n),
                  f.h, f.b, a.id, workflow.now()
           from unnest($3::int[], $4::text[], $5::bigint[], $6::uuid[]) f(n, h, b, kept_by)
           left join render.stored_frames s on s.render_job_id = $2 and s.frame_no = f.n and s.sha256 = f.h
           left join render.frame_job_attempts a on a.lease_token = coalesce(f.kept_by, s.lease_token)"#,
        tenant_id,
        render_id,
        &number,
        &hash,
        &bytes,
        &kept_by as &[Option<Uuid>],
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Frames of a chunk that are to be rendered again.
pub struct Repair<'a> {
    /// The owner of the film.
    pub tenant_id: Uuid,
    /// The film.
    pub render_id: Uuid,
    /// The round of the chunk, from 1.
    pub round: u32,
    /// What is wrong with which; all of one chunk.
    pub faults: &'a [FrameFault],
    /// Nodes that had them, by name.
    pub avoid: &'a BTreeSet<String>,
}

/// Notes that frames are rendered again, and forgets what is stored of them. Those of one chunk, round and reason are one row as long as it is
/// open. A chunk that was accepted has ended its rows: what is lost of it afterwards goes on counting rounds from there. Begins and ends in
/// the scope of the film's tenant.
pub async fn repair(db: Db<'_>, new: &Repair<'_>) -> sqlx::Result<()> {
    let numbers: Vec<u32> = new.faults.iter().map(|f| f.frame).collect();
    stored_frame::forget(&mut *db, new.render_id, &numbers).await?;
    let names: Vec<String> = new.avoid.iter().cloned().collect();
    // Nodes serve many tenants and are nobody's rows.
    Scope::platform(Role::Render).enter(&mut *db).await?;
    let nodes = sqlx::query_scalar!("select id from render.nodes where name = any($1) limit 100", &names);
    let nodes = nodes.fetch_all(&mut *db).await?;
    Scope::tenant(Role::Render, new.tenant_id).enter(&mut *db).await?;
    let reasons: Vec<String> = new.faults.iter().map(|f| reason(f.reason).to_owned()).collect();
    let frames: Vec<i32> = numbers.iter().map(|f| *f as i32).collect();
    sqlx::query!(
        r#"insert into render.frame_repair_jobs
               (tenant_id, render_job_id, chunk_no, round, frames, reason, status, excluded_nodes, created_at)
           select $1, $2, c.chunk_no,
                  $3::int + coalesce((select max(e.round) from render.frame_repair_jobs e
                                      where e.render_job_id = $2 and e.chunk_no = c.chunk_no and e.reason = f.reason
                                        and e.finished_at is not null), 0),
                  range_agg(int4range(f.n, f.n, '[]')), f.reason, 'running', $6, workflow.now()
           from unnest($4::int[], $5::text[]) f(n, reason)
           join render.frame_jobs c on c.render_job_id = $2 and f.n between c.first_frame and c.last_frame and c.status <> 'superseded'
           group by c.chunk_no, f.reason
           on conflict (render_job_id, chunk_no, round, reason) do update set frames = frame_repair_jobs.frames + excluded.frames"#,
        new.tenant_id,
        new.render_id,
        new.round as i32,
        &frames,
        &reasons,
        &nodes,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        r#"update render.render_jobs set status = 'repairing', updated_at = workflow.now()
           where id = $1 and status in ('rendering', 'verifying')"#,
        new.render_id,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends repairs that are under way: of a chunk, or of a whole film.
pub async fn end_repairs(db: Db<'_>, render_id: Uuid, chunk_no: Option<u32>, done: bool) -> sqlx::Result<()> {
    sqlx::query!(
        r#"update render.frame_repair_jobs set status = case when $3 then 'done' else 'failed' end, finished_at = workflow.now()
           where render_job_id = $1 and ($2::int is null or chunk_no = $2) and finished_at is null"#,
        render_id,
        chunk_no.map(|n| n as i32),
        done,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// As the table of repairs says it.
fn reason(reason: FaultReason) -> &'static str {
    match reason {
        FaultReason::Missing => "missing",
        FaultReason::Corrupt | FaultReason::WrongHash => "corrupt",
        FaultReason::WrongSize => "dimension",
        FaultReason::Black => "black",
        FaultReason::Duplicate => "duplicate",
    }
}

/// Numbers, hashes and lengths of frames, as columns.
pub(super) fn columns(frames: &[FrameRef]) -> (Vec<i32>, Vec<String>, Vec<i64>) {
    (
        frames.iter().map(|f| f.frame as i32).collect(),
        frames.iter().map(|f| f.blob.sha256.to_string()).collect(),
        frames.iter().map(|f| f.blob.size_bytes as i64).collect(),
    )
}

/// Frames from their columns.
pub(super) fn refs(rows: impl IntoIterator<Item = (i32, String, i64)>) -> sqlx::Result<Vec<FrameRef>> {
    let frame = |(n, sha256, size): (i32, String, i64)| {
        let blob: BlobRef = blob_ref(sha256, size)?;
        Ok(FrameRef { frame: n as u32, blob })
    };
    rows.into_iter().map(frame).collect()
}
