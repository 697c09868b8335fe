//! Requests for stills of scenes; at most one of a scene lives.
//!
//! ```text
//! queued ⇄ running ─▶ done        a claimed task is running, one that waits to be tried again is queued:
//!    └────────┴─────▶ error       written by the database in the engine's own transaction
//! ```

use super::{
    snapshot::{self, NewSnapshot, Snapshot},
    snapshot_batch::{self, Finished},
    still_key::StillKey,
};
use crate::{
    contracts::snapshot::MadeStill,
    models::{Db, Role, Scope, content::scene::Scene},
};
use chrono::{DateTime, Utc};
use flatrender_engine::Failure;
use std::collections::HashMap;
use uuid::Uuid;

/// A request for a still.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotJob {
    /// Its id.
    pub id: Uuid,
    /// The project.
    pub project_id: Uuid,
    /// The scene.
    pub scene_id: Uuid,
    /// The scene's id in the template.
    pub scene_key: String,
    /// `queued`, `running`, `done` or `error`.
    pub status: String,
    /// Where the still is once it is done.
    pub image_url: Option<String>,
    /// Where a small one is.
    pub small_url: Option<String>,
    /// `aerender`, or `mock` for a placeholder of the development mock; none while it is not done.
    pub source: Option<String>,
    /// Attempts at rendering it.
    pub attempts: i32,
    /// Why it ended in an error; stable.
    pub error_code: Option<String>,
    /// The same in words.
    pub error_detail: Option<String>,
    /// When it was asked for.
    pub created_at: DateTime<Utc>,
    /// When it was begun.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A scene whose still is wanted.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The scene.
    pub scene: &'a Scene,
    /// What decides how it looks.
    pub key: &'a StillKey,
}

/// Who asks for stills, and of what.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whose project it is.
    pub tenant_id: Uuid,
    /// The project.
    pub project_id: Uuid,
    /// Its version.
    pub version_id: Uuid,
    /// Who asks.
    pub requested_by: &'a str,
}

/// Live jobs by scene.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn live(db: Db<'_>, scene_ids: &[Uuid]) -> sqlx::Result<HashMap<Uuid, Uuid>> {
    let rows = sqlx::query!(
        "select scene_id, id from render.snapshot_jobs where scene_id = any($1) and status in ('queued', 'running')",
        scene_ids,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.scene_id, r.id)).collect())
}

/// The newest jobs of these scenes when each is done with the still that is wanted, its scene shows it and no other is on its way:
/// then there is nothing to write. None otherwise, and when it is time to note again that a still is used.
pub async fn shown(db: Db<'_>, tenant_id: Uuid, wanted: &[Wanted<'_>]) -> sqlx::Result<Option<Vec<SnapshotJob>>> {
    let scene_ids: Vec<Uuid> = wanted.iter().map(|w| w.scene.id).collect();
    let keys: Vec<String> = wanted.iter().map(|w| w.key.digest().to_string()).collect();
    let jobs = sqlx::query_as!(
        SnapshotJob,
        r#"select j.id, j.project_id, j.scene_id, j.scene_key, j.status, j.image_url, s.small_url, s.source as "source?", j.attempts,
                  j.error_code, j.error_detail, j.created_at, j.started_at, j.finished_at
           from unnest($2::uuid[], $3::text[]) of(scene_id, key)
           cross join lateral (select * from render.snapshot_jobs n where n.tenant_id = $1 and n.scene_id = of.scene_id
                               order by n.created_at desc, n.id desc limit 1) j
           join render.snapshots s on s.id = j.snapshot_id
           where j.status = 'done' and j.cache_key = decode(of.key, 'hex') and s.cache_key = j.cache_key and s.source = 'aerender'
             and s.public_url = j.image_url and s.last_used_at >= workflow.now() - interval '1 hour'
             and not exists (select from render.snapshot_jobs l where l.scene_id = j.scene_id and l.status in ('queued', 'running'))"#,
        tenant_id,
        &scene_ids,
        &keys,
    )
    .fetch_all(db)
    .await?;
    let shows = |scene: &Scene| jobs.iter().any(|j| j.scene_id == scene.id && j.image_url == scene.snapshot_url);
    Ok(wanted.iter().all(|w| shows(w.scene)).then_some(jobs))
}

/// Makes jobs for scenes that have none that lives: those that were made, by scene. Each needs a run, see [`started`]. A rival that
/// has not committed is waited for; its job is then the scene's, and there is none of ours.
pub async fn enqueue(db: Db<'_>, of: &Request<'_>, wanted: &[Wanted<'_>]) -> sqlx::Result<HashMap<Uuid, Uuid>> {
    if wanted.is_empty() {
        return Ok(HashMap::new());
    }
    let columns = Columns::of(wanted);
    let rows = sqlx::query!(
        r#"insert into render.snapshot_jobs (id, tenant_id, project_id, project_version_id, scene_id, scene_key, cache_key, requested_by,
               workflow_run_id, created_at)
           select id, $1, $2, $3, scene_id, scene_key, decode(key, 'hex'), $4, id, workflow.now()
           from unnest($5::uuid[], $6::uuid[], $7::text[], $8::text[]) with ordinality w(id, scene_id, scene_key, key, n) order by n
           on conflict (scene_id) where status in ('queued', 'running') do nothing
           returning id, scene_id"#,
        of.tenant_id,
        of.project_id,
        of.version_id,
        of.requested_by,
        &columns.ids,
        &columns.scene_ids,
        &columns.scene_keys,
        &columns.keys,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.scene_id, r.id)).collect())
}

/// Says which run sees to each of these jobs.
pub async fn started(db: Db<'_>, job_ids: &[Uuid], run_ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "update render.snapshot_jobs j set workflow_run_id = s.run_id
         from unnest($1::uuid[], $2::uuid[]) s(id, run_id) where j.id = s.id",
        job_ids,
        run_ids,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Makes jobs that are done at once, with stills that were rendered before, and shows these in their scenes. Gives the jobs by scene.
pub async fn satisfy(
    db: Db<'_>,
    of: &Request<'_>,
    hits: &[(Wanted<'_>, &Snapshot)],
) -> sqlx::Result<HashMap<Uuid, Uuid>> {
    if hits.is_empty() {
        return Ok(HashMap::new());
    }
    let columns = Columns::of(&hits.iter().map(|(wanted, _)| *wanted).collect::<Vec<_>>());
    let urls: Vec<String> = hits.iter().map(|(_, s)| s.url.clone()).collect();
    let snapshots: Vec<Uuid> = hits.iter().map(|(_, s)| s.id).collect();
    let rows = sqlx::query!(
        r#"with made as (
               insert into render.snapshot_jobs (id, tenant_id, project_id, project_version_id, scene_id, scene_key, cache_key,
                   requested_by, status, image_url, snapshot_id, created_at, finished_at, tidied_at)
               select id, $1, $2, $3, scene_id, scene_key, decode(key, 'hex'), $4, 'done', url, snapshot_id, workflow.now(), workflow.now(), workflow.now()
               from unnest($5::uuid[], $6::uuid[], $7::text[], $8::text[], $9::text[], $10::uuid[])
                    w(id, scene_id, scene_key, key, url, snapshot_id)
               returning id, scene_id, image_url, encode(cache_key, 'hex') as key, created_at
           )
           select id, scene_id, content.set_scene_snapshot($1, scene_id, image_url, key, created_at) as shown from made order by scene_id"#,
        of.tenant_id,
        of.project_id,
        of.version_id,
        of.requested_by,
        &columns.ids,
        &columns.scene_ids,
        &columns.scene_keys,
        &columns.keys,
        &urls,
        &snapshots,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.scene_id, r.id)).collect())
}

struct Columns {
    ids: Vec<Uuid>,
    scene_ids: Vec<Uuid>,
    scene_keys: Vec<String>,
    keys: Vec<String>,
}

impl Columns {
    fn of(wanted: &[Wanted<'_>]) -> Self {
        Self {
            ids: wanted.iter().map(|_| Uuid::now_v7()).collect(),
            scene_ids: wanted.iter().map(|w| w.scene.id).collect(),
            scene_keys: wanted.iter().map(|w| w.scene.key.clone()).collect(),
            keys: wanted.iter().map(|w| w.key.digest().to_string()).collect(),
        }
    }
}

/// The newest job of each of these scenes.
pub async fn newest(db: Db<'_>, tenant_id: Uuid, scene_ids: &[Uuid]) -> sqlx::Result<Vec<SnapshotJob>> {
    sqlx::query_as!(
        SnapshotJob,
        r#"select j.id as "id!", j.project_id as "project_id!", j.scene_id as "scene_id!", j.scene_key as "scene_key!", j.status as "status!",
                  j.image_url, s.small_url as "small_url?", s.source as "source?", j.attempts as "attempts!", j.error_code, j.error_detail,
                  j.created_at as "created_at!", j.started_at, j.finished_at
           from unnest($2::uuid[]) of(scene_id)
           cross join lateral (select * from render.snapshot_jobs n where n.tenant_id = $1 and n.scene_id = of.scene_id
                               order by n.created_at desc, n.id desc limit 1) j
           left join render.snapshots s on s.id = j.snapshot_id"#,
        tenant_id,
        scene_ids,
    )
    .fetch_all(db)
    .await
}

/// These jobs.
pub async fn list(db: Db<'_>, tenant_id: Uuid, ids: &[Uuid]) -> sqlx::Result<Vec<SnapshotJob>> {
    sqlx::query_as!(
        SnapshotJob,
        r#"select j.id, j.project_id, j.scene_id, j.scene_key, j.status, j.image_url, s.small_url as "small_url?", s.source as "source?",
                  j.attempts, j.error_code, j.error_detail, j.created_at, j.started_at, j.finished_at
           from render.snapshot_jobs j left join render.snapshots s on s.id = j.snapshot_id
           where j.tenant_id = $1 and j.id = any($2)"#,
        tenant_id,
        ids,
    )
    .fetch_all(db)
    .await
}

/// The run that sees to a job.
pub async fn run_of(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<Uuid>> {
    let run = sqlx::query_scalar!("select workflow_run_id from render.snapshot_jobs where id = $1", id);
    Ok(run.fetch_optional(db).await?.flatten())
}

/// What a job was made for.
pub(super) struct Claimant {
    pub(super) tenant_id: Uuid,
    pub(super) project_version_id: Uuid,
    pub(super) scene_id: Uuid,
    /// Who rendered its frame, when it was a node.
    node_id: Option<Uuid>,
    created_at: DateTime<Utc>,
}

/// Ends a job with its pictures: keeps them under their key, and shows the large one in the scene unless a newer one is there.
/// When the node that rendered it has another renderer than the key says, they are kept under a key that says so, and whoever asks for
/// the same again is not answered with them. One transaction with the record of the step, in the scope of the tenant's renders, before and
/// after. A job that has ended stays as it is.
pub async fn publish(db: Db<'_>, id: Uuid, key: &StillKey, still: &MadeStill, base_url: &str) -> sqlx::Result<()> {
    end_with(db, id, key, &NewSnapshot::made(still, base_url)).await
}

/// The same with a placeholder of the mock, which never replaces a real picture.
pub async fn publish_placeholder(db: Db<'_>, id: Uuid, key: &StillKey, data_url: &str) -> sqlx::Result<()> {
    end_with(db, id, key, &NewSnapshot::placeholder(data_url, key.size)).await
}

async fn end_with(db: Db<'_>, id: Uuid, key: &StillKey, new: &NewSnapshot<'_>) -> sqlx::Result<()> {
    let job = sqlx::query_as!(
        Claimant,
        "select tenant_id, project_version_id, scene_id, node_id, created_at from render.snapshot_jobs
         where id = $1 and status in ('queued', 'running') for update",
        id,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(job) = job else { return Ok(()) };
    let key = key_of_made(&mut *db, &job, key).await?;
    let kept = snapshot::keep(&mut *db, &job, &key, new).await?;
    sqlx::query!(
        "update render.snapshot_jobs set status = 'done', image_url = $2, snapshot_id = $3, lease_token = null,
             finished_at = workflow.now(), updated_at = workflow.now() where id = $1",
        id,
        kept.url,
        kept.id,
    )
    .execute(&mut *db)
    .await?;
    let digest = key.digest();
    sqlx::query_scalar!(
        "select content.set_scene_snapshot($1, $2, $3, $4, $5)",
        job.tenant_id,
        job.scene_id,
        kept.url,
        digest.as_str(),
        job.created_at,
    )
    .fetch_one(db)
    .await?;
    Ok(())
}

/// The key of what was made for a job that asked for this one. Ends as the tenant's renders.
async fn key_of_made(db: Db<'_>, job: &Claimant, asked: &StillKey) -> sqlx::Result<StillKey> {
    let Some(node_id) = job.node_id else { return Ok(asked.clone()) };
    // Nodes serve many tenants and are nobody's rows.
    Scope::platform(Role::Render).enter(&mut *db).await?;
    let version = sqlx::query_scalar!(
        "select capabilities -> 'renderers' ->> $2 as version from render.nodes where id = $1",
        node_id,
        asked.engine(),
    );
    let version = version.fetch_optional(&mut *db).await?.flatten();
    Scope::tenant(Role::Render, job.tenant_id).enter(db).await?;
    Ok(version.map_or_else(|| asked.clone(), |version| asked.made_by(&version)))
}

/// Ends a job with an error, `cancelled` when its run was. A job that has ended stays as it is.
pub async fn fail(db: Db<'_>, id: Uuid, failure: &Failure) -> sqlx::Result<()> {
    let code = if failure.is_cancelled() { CANCELLED } else { failure.code.as_str() };
    sqlx::query!(
        "update render.snapshot_jobs
         set status = 'error', error_code = left($2, 128), error_detail = left($3, 4000), lease_token = null,
             finished_at = workflow.now(), updated_at = workflow.now()
         where id = $1 and status in ('queued', 'running')",
        id,
        code,
        failure.message,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The code of a job whose run was cancelled.
pub const CANCELLED: &str = "cancelled";

/// Ends jobs whose run the engine ended by itself, as one that killed its workers too often: the definition had no say any more.
/// Gives how many there were, and the requests that have ended with them. Looks at the jobs, then at their runs: each service at its own table.
pub async fn settle_abandoned(db: Db<'_>) -> sqlx::Result<(u64, Vec<Finished>)> {
    let (mut settled, mut batches) = (0, Vec::new());
    let mut after: Option<(DateTime<Utc>, Uuid)> = None;
    loop {
        Scope::platform(Role::Render).enter(&mut *db).await?;
        let jobs = sqlx::query!(
            r#"select created_at, id, workflow_run_id as "run_id!" from render.snapshot_jobs
               where status in ('queued', 'running') and ($1::timestamptz is null or (created_at, id) > ($1, $2::uuid))
               order by created_at, id limit 1000"#,
            after.map(|(created_at, _)| created_at),
            after.map(|(_, id)| id),
        )
        .fetch_all(&mut *db)
        .await?;
        let Some(last) = jobs.last() else { return Ok((settled, batches)) };
        after = Some((last.created_at, last.id));
        let runs: Vec<Uuid> = jobs.iter().map(|job| job.run_id).collect();
        for (tenant_id, id) in end_given_up(&mut *db, &runs).await? {
            batches.extend(snapshot_batch::settle(&mut *db, tenant_id, id).await?);
            settled += 1;
        }
    }
}

/// Ends the jobs of those of these runs that the engine ended; gives them, with their tenants. Ends as the platform's renders.
async fn end_given_up(db: Db<'_>, runs: &[Uuid]) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let ended = sqlx::query!(
        r#"select id, case state when 'cancelled' then 'cancelled' else coalesce(error ->> 'code', 'workflow.failed') end as "code!",
                  coalesce(error ->> 'message', '') as "message!"
           from workflow.runs where id = any($1) and state in ('failed', 'cancelled')"#,
        runs,
    )
    .fetch_all(&mut *db)
    .await?;
    Scope::platform(Role::Render).enter(&mut *db).await?;
    let mut jobs = Vec::new();
    for run in ended {
        let done = sqlx::query!(
            "update render.snapshot_jobs
             set status = 'error', error_code = left($2, 128), error_detail = left($3, 4000), lease_token = null,
                 finished_at = workflow.now(), updated_at = workflow.now()
             where workflow_run_id = $1 and status in ('queued', 'running') returning tenant_id, id",
            run.id,
            run.code,
            run.message,
        );
        jobs.extend(done.fetch_all(&mut *db).await?.into_iter().map(|job| (job.tenant_id, job.id)));
    }
    Ok(jobs)
}

/// Ended jobs whose frames may still be in storage, with their tenants. Those that ended within the last two minutes are left alone: a
/// node may still be putting a frame.
pub async fn untidied(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
    let rows = sqlx::query!(
        "select tenant_id, id from render.snapshot_jobs
         where tidied_at is null and finished_at < workflow.now() - interval '2 minutes' order by finished_at limit $1",
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.tenant_id, r.id)).collect())
}

/// Forgets up to `limit` jobs that ended three months ago or earlier and are not the newest of their scene; gives how many.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from render.snapshot_jobs where id in (
             select o.id from render.snapshot_jobs o
             where o.finished_at < workflow.now() - interval '90 days' and o.tidied_at is not null
               and exists (select from render.snapshot_jobs n where n.tenant_id = o.tenant_id and n.scene_id = o.scene_id
                           and (n.created_at, n.id) > (o.created_at, o.id) and n.status = 'done')
             order by o.finished_at limit $1 for update skip locked)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}

/// Notes that the frames of these jobs are gone.
pub async fn tidied(db: Db<'_>, ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!("update render.snapshot_jobs set tidied_at = workflow.now() where id = any($1)", ids)
        .execute(db)
        .await?;
    Ok(())
}
