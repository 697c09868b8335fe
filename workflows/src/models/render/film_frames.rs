//! How each frame of a film stands, for people to look at.

use crate::models::Db;
use uuid::Uuid;

/// Frames one after the other that stand alike.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stretch {
    /// The first.
    pub first: i32,
    /// The last.
    pub last: i32,
    /// `waiting`, `rendering`: nobody has stored it; `stored`: it is to be proven; `accepted`; `reused`: of a scene that was rendered before;
    /// `repairing`, `repaired`: rendered again, alone; `black`, `duplicate`, `transparent`: accepted, and it looks odd; `failed`.
    pub state: String,
}

/// The film that a run makes, if it makes one.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn film_of(db: Db<'_>, tenant_id: Uuid, run_id: Uuid) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select id from render.render_jobs where tenant_id = $1 and workflow_run_id = $2",
        tenant_id,
        run_id
    )
    .fetch_optional(db)
    .await
}

/// All frames of a film, in their order; at most `limit` stretches.
pub async fn stretches(db: Db<'_>, tenant_id: Uuid, render_id: Uuid, limit: i64) -> sqlx::Result<Vec<Stretch>> {
    sqlx::query_as!(
        Stretch,
        r#"with frame as (
               select n, case
                          when m.frame_no is not null then case
                              when 'black' = any (m.flags) then 'black' when 'transparent' = any (m.flags) then 'transparent'
                              when 'duplicate' = any (m.flags) then 'duplicate' when 'repaired' = any (m.flags) then 'repaired'
                              when 'reused' = any (m.flags) then 'reused' else 'accepted' end
                          when exists (select from render.frame_repair_jobs r where r.render_job_id = j.id and r.status in ('queued', 'running')
                                         and r.frames @> n) then 'repairing'
                          when s.frame_no is not null then 'stored'
                          when c.status = 'failed' then 'failed'
                          when c.status in ('leased', 'rendered') then 'rendering'
                          else 'waiting' end as state
               from render.render_jobs j
               cross join generate_series(0, j.frame_count - 1) n
               left join render.frame_manifests m on m.render_job_id = j.id and m.frame_no = n
               left join render.stored_frames s on s.render_job_id = j.id and s.frame_no = n
               left join (select generate_series(first_frame, last_frame) as frame_no, status from render.frame_jobs
                          where render_job_id = $2 and status <> 'superseded') c on c.frame_no = n
               where j.tenant_id = $1 and j.id = $2)
           select min(n) as "first!", max(n) as "last!", state as "state!"
           from (select n, state, n - row_number() over (partition by state order by n) as island from frame) f
           group by state, island order by min(n) limit $3"#,
        tenant_id,
        render_id,
        limit,
    )
    .fetch_all(db)
    .await
}
