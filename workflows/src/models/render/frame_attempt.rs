//! Who tried a chunk, and what became of it: made from the engine's own attempts, in the step that follows an activity.

use super::{plan::size_class, render_job, stored_frame};
use crate::{
    contracts::render::{FrameRange, FrameRef, Pace, RenderedFrames, is_crash},
    models::{Db, Role, Scope},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// A node in the engine's attempts: `node:<name>:<incarnation>`.
const NODE: &str = "node:";
/// Attempts that a pace is told from.
const REMEMBERED: i64 = 64;

/// An activity of a chunk that has ended.
pub struct Ended<'a> {
    /// The owner of the film.
    pub tenant_id: Uuid,
    /// The film.
    pub render_id: Uuid,
    /// Its run.
    pub run_id: Uuid,
    /// The activity's key in the run.
    pub key: &'a str,
    /// Frames that were asked for, all of one chunk.
    pub frames: FrameRange,
    /// Their size in pixels.
    pub size: [u32; 2],
    /// What came of it; none when it failed.
    pub made: Option<&'a RenderedFrames>,
    /// Whether another node was faster: then what it made is counted as wasted.
    pub is_overtaken: bool,
}

/// What is known after an activity.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Noted {
    /// Nodes that had it, by name.
    pub nodes: BTreeSet<String>,
    /// Frames of its range on the shelf of the film that it did not report: kept from attempts that failed or were lost.
    pub kept: Vec<FrameRef>,
    /// Lease tokens of those attempts, frame by frame; none of what was noted before they were asked for.
    #[serde(default)]
    pub kept_by: Vec<Uuid>,
}

/// Notes the attempts at an activity with its chunk, and the renderer's warnings with the film.
/// Begins and ends in the scope of the film's tenant.
pub async fn note(db: Db<'_>, ended: &Ended<'_>) -> sqlx::Result<Noted> {
    let attempts = attempts(&mut *db, ended).await?;
    let wasted = if ended.is_overtaken { made_so_far(&mut *db, ended).await? } else { 0 };
    let nodes = nodes(&mut *db, &attempts).await?;
    Scope::tenant(Role::Render, ended.tenant_id).enter(&mut *db).await?;
    insert(&mut *db, ended, &attempts, &nodes).await?;
    if wasted > 0 {
        waste(&mut *db, ended, wasted).await?;
    }
    if let Some(made) = ended.made.filter(|m| !m.warnings.is_empty()) {
        render_job::warn(&mut *db, ended.render_id, &made.warnings).await?;
    }
    let reported: BTreeSet<u32> = ended.made.iter().flat_map(|m| &m.frames).map(|f| f.frame).collect();
    let (tenant_id, run_id) = (ended.tenant_id, ended.run_id);
    let mut kept = stored_frame::of_range(db, tenant_id, run_id, ended.render_id, ended.frames, None).await?;
    kept.retain(|stored| !reported.contains(&stored.frame.frame));
    let (kept, kept_by) = kept.into_iter().map(|stored| (stored.frame, stored.by)).unzip();
    Ok(Noted { nodes: nodes.into_keys().collect(), kept, kept_by })
}

/// An attempt as the engine has noted it.
struct Tried {
    lease_token: Uuid,
    node: String,
    outcome: &'static str,
    code: Option<String>,
    started_at: chrono::DateTime<chrono::Utc>,
    ended_at: chrono::DateTime<chrono::Utc>,
}

async fn attempts(db: Db<'_>, ended: &Ended<'_>) -> sqlx::Result<Vec<Tried>> {
    Scope::tenant(Role::Workflow, ended.tenant_id).enter(&mut *db).await?;
    let rows = sqlx::query!(
        // A lease that was lost and taken up again is noted each time it ended: the last one counts.
        r#"select lease_token, worker, outcome::text as "outcome!", failure ->> 'code' as code, started_at, ended_at
           from (select distinct on (lease_token) * from workflow.attempts where run_id = $1 and step_key = $2
                 order by lease_token, attempt_no desc) last
           order by attempt_no limit 1000"#,
        ended.run_id,
        ended.key,
    )
    .fetch_all(db)
    .await?;
    let tried = rows.into_iter().map(|r| Tried {
        lease_token: r.lease_token,
        node: node_name(&r.worker).to_owned(),
        outcome: match r.outcome.as_str() {
            "ok" => "ok",
            "lost" => "lost",
            "timeout" => "timeout",
            "cancelled" | "released" => "cancelled",
            _ => "failed",
        },
        code: r.code,
        started_at: r.started_at,
        ended_at: r.ended_at,
    });
    Ok(tried.collect())
}

/// Frames that an activity under way is said to have made. In the scope of the engine.
async fn made_so_far(db: Db<'_>, ended: &Ended<'_>) -> sqlx::Result<i32> {
    let made = sqlx::query_scalar!(
        r#"select least(coalesce((progress ->> 'done')::bigint, 0), $3)::int as "made!" from workflow.tasks
           where run_id = $1 and kind = 'activity' and step_key = $2"#,
        ended.run_id,
        ended.key,
        i64::from(ended.frames.count()),
    );
    Ok(made.fetch_optional(db).await?.unwrap_or(0))
}

async fn waste(db: Db<'_>, ended: &Ended<'_>, frames: i32) -> sqlx::Result<()> {
    sqlx::query!(
        "update render.frame_jobs set frames_wasted = frames_wasted + $3
         where render_job_id = $1 and $2 between first_frame and last_frame and status <> 'superseded'",
        ended.render_id,
        ended.frames.first as i32,
        frames,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The name of a node, which has no colon; of a worker that is no node whatever it is called.
fn node_name(worker: &str) -> &str {
    let named = worker.strip_prefix(NODE).unwrap_or(worker);
    named.split_once(':').map_or(named, |(name, _)| name)
}

/// Id and epoch of each node that tried, by name. A worker that is no node has none: its attempts stay the engine's alone.
async fn nodes(db: Db<'_>, attempts: &[Tried]) -> sqlx::Result<BTreeMap<String, (Uuid, i64)>> {
    let names: Vec<String> = attempts.iter().map(|a| a.node.clone()).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    // Nodes serve many tenants and are nobody's rows.
    Scope::platform(Role::Render).enter(&mut *db).await?;
    let rows = sqlx::query!("select name, id, epoch from render.nodes where name = any($1)", &names);
    Ok(rows.fetch_all(db).await?.into_iter().map(|r| (r.name, (r.id, r.epoch))).collect())
}

async fn insert(
    db: Db<'_>,
    ended: &Ended<'_>,
    attempts: &[Tried],
    nodes: &BTreeMap<String, (Uuid, i64)>,
) -> sqlx::Result<()> {
    let by_node: Vec<(&Tried, (Uuid, i64))> = attempts.iter().filter_map(|a| Some((a, *nodes.get(&a.node)?))).collect();
    let ok = |a: &Tried| ended.made.filter(|_| a.outcome == "ok");
    let crashed = |a: &Tried| matches!(a.outcome, "lost" | "timeout") || a.code.as_deref().is_some_and(is_crash);
    let cut_short = ended.made.and_then(|m| m.cause.as_ref()).is_some_and(|f| is_crash(&f.code));
    let crashes = by_node.iter().filter(|(a, _)| crashed(a)).count() + usize::from(cut_short);
    sqlx::query!(
        r#"with chunk as (
               update render.frame_jobs
               set attempts = attempts + $4, crash_count = crash_count + least($5, $4),
                   node_id = coalesce($6, node_id), updated_at = workflow.now(),
                   status = case when status not in ('queued', 'leased') then status when $7 then 'rendered' else 'queued' end
               where render_job_id = $1 and $2 between first_frame and last_frame and status <> 'superseded'
               returning id, attempts - $4 as before
           )
           insert into render.frame_job_attempts
               (tenant_id, frame_job_id, attempt_no, node_id, epoch, lease_token, output_prefix, outcome, error_code, frames,
                render_ms, project_version_id, size_class, started_at, ended_at)
           select $3, chunk.id, chunk.before + a.n::int, a.node_id, a.epoch, a.token, 'attempts/' || a.token, a.outcome, left(a.code, 128),
                  case a.outcome when 'ok' then $15::int end, case a.outcome when 'ok' then $16::bigint end,
                  j.project_version_id, $17, a.started_at, a.ended_at
           from chunk
           join render.render_jobs j on j.id = $1
           cross join unnest($8::uuid[], $9::bigint[], $10::uuid[], $11::text[], $12::text[], $13::timestamptz[], $14::timestamptz[])
                with ordinality a(node_id, epoch, token, outcome, code, started_at, ended_at, n)
           on conflict (lease_token) do nothing"#,
        ended.render_id,
        ended.frames.first as i32,
        ended.tenant_id,
        by_node.len() as i32,
        crashes as i32,
        by_node.last().map(|(_, (id, _))| *id),
        ended.made.is_some(),
        &by_node.iter().map(|(_, (id, _))| *id).collect::<Vec<_>>(),
        &by_node.iter().map(|(_, (_, epoch))| *epoch).collect::<Vec<_>>(),
        &by_node.iter().map(|(a, _)| a.lease_token).collect::<Vec<_>>(),
        &by_node.iter().map(|(a, _)| a.outcome.to_owned()).collect::<Vec<_>>(),
        &by_node.iter().map(|(a, _)| a.code.clone()).collect::<Vec<_>>() as &[Option<String>],
        &by_node.iter().map(|(a, _)| a.started_at).collect::<Vec<_>>(),
        &by_node.iter().map(|(a, _)| a.ended_at).collect::<Vec<_>>(),
        by_node.iter().find_map(|(a, _)| ok(a)).map_or(0, |m| m.frames.len() as i32),
        by_node.iter().find_map(|(a, _)| ok(a)).map_or(0, |m| i64::try_from(m.timing.render_ms).unwrap_or(i64::MAX)),
        size_class(ended.size),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// How well nodes have done within the last hour: of each, attempts that came out well over all that say something of it, as if two
/// more had come out well, so that one failure says little. Nodes that made none are missing.
///
/// # Errors
/// Those of the database.
pub async fn health(db: Db<'_>) -> sqlx::Result<Vec<(Uuid, f64)>> {
    let rows = sqlx::query!(
        r#"select n.id, (a.good + 2)::float8 / (a.all_of_them + 2) as "health!"
           from render.nodes n
           cross join lateral (
               select count(*) filter (where outcome = 'ok') as good, count(*) as all_of_them from render.frame_job_attempts
               where node_id = n.id and ended_at > workflow.now() - interval '1 hour' and outcome in ('ok', 'failed', 'lost', 'timeout')) a
           where n.status <> 'retired' and a.all_of_them > 0"#
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|r| (r.id, r.health)).collect())
}

/// How fast frames of a template's version come at a size, by the last attempts at it of whatever tenant; none when there
/// is no telling. Attempts at a few frames tell how fast a renderer starts, and are left out.
pub async fn pace(db: Db<'_>, project_version_id: Uuid, size: [u32; 2]) -> sqlx::Result<Option<Pace>> {
    let row = sqlx::query!(
        r#"select percentile_cont(0.5) within group (order by ms) as p50, percentile_cont(0.99) within group (order by ms) as p99
           from (select render_ms::float8 / frames as ms from render.frame_job_attempts
                 where project_version_id = $1 and size_class = $2 and frames >= 10
                 order by ended_at desc limit $3) last"#,
        project_version_id,
        size_class(size),
        REMEMBERED,
    )
    .fetch_one(db)
    .await?;
    let whole = |ms: f64| ms.ceil().max(1.0) as u64;
    Ok(row.p50.zip(row.p99).map(|(p50, p99)| Pace { p50_ms: whole(p50), p99_ms: whole(p99) }))
}
