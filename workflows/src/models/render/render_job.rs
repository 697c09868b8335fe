//! A film: its frozen input and what became of it. Committed together with the workflow's own record.
//!
//! ```text
//!                        ┌▶ repairing ─┐
//! queued ─▶ preparing ─▶ rendering ─◀──┴▶ encoding ─▶ finalizing ─▶ completed
//!    └──────────┴────────────┴───────────┴──────────────┴─────▶ failed | cancelled
//! ```

use super::{bill, frame_job, order::RenderOrder, room, scene_cache, spec::RenderSpec, stored_frame};
use crate::{
    contracts::media::{AudioRole, DerivativeKind},
    models::{Db, Role, Scope, content::project::Template},
};
use chrono::{DateTime, Utc};
use flatrender_engine::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::types::Json;
use std::collections::BTreeSet;
use uuid::Uuid;

/// A film as its row holds it.
#[derive(Debug, Clone)]
pub struct RenderJob {
    /// Its id.
    pub id: Uuid,
    /// Slug of the template.
    pub template: String,
    /// Version of the template.
    pub template_version: i32,
    /// `preview` or `final`.
    pub kind: String,
    /// Where it stands.
    pub status: String,
    /// Width in pixels.
    pub width: i32,
    /// Height in pixels.
    pub height: i32,
    /// Frames a second.
    pub fps: i32,
    /// Length in frames.
    pub frame_count: i32,
    /// Frames rendered, verified and accepted.
    pub frames_verified: i32,
    /// The customer's own.
    pub metadata: Value,
    /// What the renderer warned of.
    pub warnings: Json<Vec<String>>,
    /// The workflow's run.
    pub workflow_run_id: Uuid,
    /// Hash of the request that made it.
    pub request_sha256: String,
    /// Stable code, once it failed or was cancelled.
    pub error_code: Option<String>,
    /// In words.
    pub error_detail: Option<String>,
    /// When cancelling was asked for.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// When it was accepted.
    pub created_at: DateTime<Utc>,
    /// When work began.
    pub started_at: Option<DateTime<Utc>>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

impl RenderJob {
    /// Whether nothing about it changes any more.
    pub fn has_ended(&self) -> bool {
        self.finished_at.is_some()
    }
}

/// A film to accept.
pub struct NewRenderJob<'a> {
    /// Its id, made by the caller.
    pub id: Uuid,
    /// Its owner.
    pub tenant_id: Uuid,
    /// The template and the version it pins.
    pub template: &'a Template,
    /// What was asked for.
    pub order: &'a RenderOrder,
    /// What was frozen of it.
    pub spec: &'a RenderSpec,
    /// SHA-256 of the request's body, hexadecimal.
    pub request_sha256: &'a str,
    /// The client's key, 1 to 255 characters.
    pub idempotency_key: Option<&'a str>,
    /// The run that was started for it in the same transaction.
    pub workflow_run_id: Uuid,
}

/// Inserts a film. False when the idempotency key is taken: then nothing was inserted.
pub async fn insert(db: Db<'_>, new: &NewRenderJob<'_>) -> sqlx::Result<bool> {
    let has = |role: AudioRole| new.spec.tracks.iter().any(|t| t.role == role);
    let spec_sha256 = new.spec.sha256();
    let done = sqlx::query!(
        r#"insert into render.render_jobs
               (id, tenant_id, project_id, project_version_id, spec, request_sha256, idempotency_key,
                width, height, fps, frame_count, has_music, has_voiceover, has_sfx, metadata, workflow_run_id,
                template, template_version, kind, priority, spec_sha256, created_at, updated_at)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, $21,
                   workflow.now(), workflow.now())
           on conflict (tenant_id, idempotency_key) do nothing"#,
        new.id,
        new.tenant_id,
        new.template.project_id,
        new.template.version_id,
        Json(new.spec) as _,
        new.request_sha256,
        new.idempotency_key,
        new.spec.size[0] as i32,
        new.spec.size[1] as i32,
        new.spec.fps as i32,
        new.spec.frames as i32,
        has(AudioRole::Music),
        has(AudioRole::VoiceOver),
        has(AudioRole::Effect),
        Json(&new.order.metadata) as _,
        new.workflow_run_id,
        new.template.manifest.slug,
        new.template.number,
        new.spec.kind.name(),
        new.spec.kind.priority(),
        spec_sha256.as_str(),
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A film of the tenant by id.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<RenderJob>> {
    Ok(select(db, tenant_id, Some(id), None, None, 1).await?.pop())
}

/// The film that an order with this key was answered with, and the hash of that order.
pub async fn find_by_key(db: Db<'_>, tenant_id: Uuid, key: &str) -> sqlx::Result<Option<(RenderJob, String)>> {
    if let Some(job) = select(&mut *db, tenant_id, None, Some(key), None, 1).await?.pop() {
        let sha256 = job.request_sha256.clone();
        return Ok(Some((job, sha256)));
    }
    let joined = sqlx::query!(
        "select render_job_id, request_sha256 from render.joined_previews where tenant_id = $1 and idempotency_key = $2",
        tenant_id,
        key,
    );
    let Some(joined) = joined.fetch_optional(&mut *db).await? else { return Ok(None) };
    Ok(find(db, tenant_id, joined.render_job_id).await?.map(|job| (job, joined.request_sha256)))
}

/// The tenant's preview of this spec that was ordered within the last ten minutes and has not failed, if there is one.
/// Whoever asks for the same at the same time waits until this transaction ends.
pub async fn find_preview(db: Db<'_>, tenant_id: Uuid, spec: &RenderSpec) -> sqlx::Result<Option<RenderJob>> {
    let sha256 = spec.sha256();
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended('preview ' || $1::uuid || $2::text, 0)) as "locked!: ()""#,
        tenant_id,
        sha256.as_str()
    )
    .fetch_one(&mut *db)
    .await?;
    let id = sqlx::query_scalar!(
        r#"select id from render.render_jobs
           where tenant_id = $1 and spec_sha256 = $2 and kind = 'preview' and status not in ('failed', 'cancelled')
             and cancel_requested_at is null and created_at > workflow.now() - interval '10 minutes'
           order by created_at desc limit 1"#,
        tenant_id,
        sha256.as_str(),
    )
    .fetch_optional(&mut *db)
    .await?;
    match id {
        Some(id) => find(db, tenant_id, id).await,
        None => Ok(None),
    }
}

/// Notes that an order with a key was answered with a preview that was there. False when the key is taken.
pub async fn join(db: Db<'_>, job: &RenderJob, tenant_id: Uuid, key: &str, sha256: &str) -> sqlx::Result<bool> {
    let joined = sqlx::query!(
        "insert into render.joined_previews (tenant_id, idempotency_key, request_sha256, render_job_id, created_at)
         values ($1, $2, $3, $4, workflow.now()) on conflict do nothing",
        tenant_id,
        key,
        sha256,
        job.id,
    );
    Ok(joined.execute(db).await?.rows_affected() == 1)
}

/// Forgets up to `limit` keys of orders that joined a preview a week ago or earlier; gives how many.
pub async fn forget_joined(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from render.joined_previews where (tenant_id, idempotency_key) in (
             select tenant_id, idempotency_key from render.joined_previews
             where created_at < workflow.now() - interval '7 days' order by created_at limit $1 for update skip locked)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}

/// Films of the tenant, newest first, older than `before`.
pub async fn list(db: Db<'_>, tenant_id: Uuid, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<RenderJob>> {
    select(db, tenant_id, None, None, before, limit).await
}

async fn select(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Option<Uuid>,
    key: Option<&str>,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<RenderJob>> {
    sqlx::query_as!(
        RenderJob,
        r#"select j.id, j.template, j.template_version, j.kind, j.status, j.width, j.height, j.fps,
                  j.frame_count, j.frames_verified, j.metadata, j.warnings as "warnings: Json<Vec<String>>",
                  j.workflow_run_id, j.request_sha256, j.error_code, j.error_detail, j.cancel_requested_at,
                  j.created_at, j.started_at, j.finished_at
           from render.render_jobs j
           where j.tenant_id = $1 and ($2::uuid is null or j.id = $2) and ($3::text is null or j.idempotency_key = $3)
             and ($4::uuid is null or j.id < $4)
           order by j.id desc limit $5"#,
        tenant_id,
        id,
        key,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// How many films a tenant has ordered and has under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Load {
    /// Those ordered today, by UTC, whatever became of them.
    pub today: i64,
    /// Those that have not ended.
    pub under_way: i64,
    /// When the day is over.
    pub day_ends_in_seconds: i64,
}

/// The load of a tenant right now.
///
/// # Errors
/// Those of the database.
pub async fn load(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Load> {
    sqlx::query_as!(
        Load,
        r#"select count(*) filter (where j.created_at >= day.began) as "today!",
                  count(*) filter (where j.id is not null and j.finished_at is null) as "under_way!",
                  ceil(extract(epoch from day.began + interval '1 day' - workflow.now()))::bigint as "day_ends_in_seconds!"
           from (select date_trunc('day', workflow.now(), 'UTC') as began) day
           left join render.render_jobs j on j.tenant_id = $1 and (j.created_at >= day.began or j.finished_at is null)
           group by day.began"#,
        tenant_id
    )
    .fetch_one(db)
    .await
}

/// What a run needs of its film.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// The owner.
    pub tenant_id: Uuid,
    /// The version of the template.
    pub project_version_id: Uuid,
    /// The frozen input.
    pub spec: RenderSpec,
}

/// Begins work on a film.
///
/// # Errors
/// `render.gone` when there is no such film.
pub async fn begin(db: Db<'_>, id: Uuid) -> Result<Begun, Failure> {
    let row = sqlx::query!(
        r#"update render.render_jobs
           set status = 'preparing', started_at = coalesce(started_at, workflow.now()), updated_at = workflow.now()
           where id = $1 and finished_at is null
           returning tenant_id, project_version_id, spec as "spec: Json<RenderSpec>""#,
        id,
    )
    .fetch_optional(db)
    .await?;
    let row = row.ok_or_else(|| Failure::permanent("render.gone", format!("render {id} is not there or has ended")))?;
    let (tenant_id, project_version_id, spec) = (row.tenant_id, row.project_version_id, row.spec.0);
    Ok(Begun { tenant_id, project_version_id, spec })
}

/// What else is to be made of a finished film.
pub async fn derivatives(db: Db<'_>, id: Uuid) -> sqlx::Result<BTreeSet<DerivativeKind>> {
    let spec =
        sqlx::query_scalar!(r#"select spec as "it: Json<RenderSpec>" from render.render_jobs where id = $1"#, id);
    Ok(spec.fetch_one(db).await?.0.derivatives)
}

/// Keeps what the renderer warned of.
pub async fn warn(db: Db<'_>, id: Uuid, warnings: &[String]) -> sqlx::Result<()> {
    sqlx::query!(
        r#"update render.render_jobs
           set warnings = (select coalesce(jsonb_agg(distinct w), '[]') from
                             (select w from jsonb_array_elements_text(warnings) w
                              union select w from unnest($2::text[]) w limit 100) all_of_them),
               updated_at = workflow.now()
           where id = $1"#,
        id,
        warnings,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Ends a film, and with it its bill and the room that is set aside for it. One that has ended stays as it ended, and so does one that another
/// run makes: then nothing happens, and the answer is false.
pub async fn settle(db: Db<'_>, id: Uuid, run_id: Uuid, outcome: Result<(), &Failure>) -> sqlx::Result<bool> {
    let ours = sqlx::query!(
        "select tenant_id from render.render_jobs where id = $1 and workflow_run_id = $2 for no key update",
        id,
        run_id
    );
    let Some(ours) = ours.fetch_optional(&mut *db).await? else { return Ok(false) };
    let status = match outcome {
        Ok(()) => "completed",
        Err(failure) if failure.is_cancelled() => "cancelled",
        Err(_) => "failed",
    };
    let failure = outcome.err();
    if failure.is_some() {
        let_spoiled_go(&mut *db, ours.tenant_id, run_id, id).await?;
    }
    frame_job::end_repairs(&mut *db, id, None, outcome.is_ok()).await?;
    stored_frame::forget_all(&mut *db, id).await?;
    sqlx::query!(
        r#"update render.render_jobs
           set status = $2, error_code = left($3, 128), error_detail = left($4, 4000), finished_at = workflow.now(),
               updated_at = workflow.now()
           where id = $1 and finished_at is null"#,
        id,
        status,
        failure.map(|f| f.code.as_str()),
        failure.map(|f| f.message.as_str()),
    )
    .execute(&mut *db)
    .await?;
    let rewarded = bill::settle(&mut *db, ours.tenant_id, id).await?;
    room::free(&mut *db, ours.tenant_id, id, outcome.is_ok()).await?;
    if let Some(user_id) = rewarded {
        bill::give_reward(db, ours.tenant_id, user_id, id).await?;
    }
    Ok(true)
}

/// Lets go of what was kept of a film when frames of it are spoiled: what was said while a scene was being kept is looked for when the film is
/// published, and here when it never is. Before its stored frames are forgotten; ends in the scope of the film's tenant.
async fn let_spoiled_go(db: Db<'_>, tenant_id: Uuid, run_id: Uuid, id: Uuid) -> sqlx::Result<()> {
    if !frame_job::spoiled(&mut *db, tenant_id, run_id, id).await?.is_empty() {
        scene_cache::let_go(db, tenant_id, id).await?;
    }
    Ok(())
}

/// A film that has ended.
#[derive(Debug, Clone)]
pub struct Ended {
    /// Its owner.
    pub tenant_id: Uuid,
    /// Who ordered it, when it was a person.
    pub user_id: Option<Uuid>,
    /// `completed`, `failed` or `cancelled`.
    pub status: String,
    /// Slug of the template.
    pub template: String,
    /// Version of the template.
    pub template_version: i32,
    /// `preview` or `final`.
    pub kind: String,
    /// The film.
    pub export_id: Option<Uuid>,
    /// Stable code, unless it was completed.
    pub error_code: Option<String>,
    /// When.
    pub finished_at: DateTime<Utc>,
}

/// How a film has ended; none while it has not.
pub async fn ended(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<Ended>> {
    sqlx::query_as!(
        Ended,
        r#"select tenant_id, user_id, status, template, template_version, kind, error_code, finished_at as "finished_at!",
                  (select e.id from render.exports e where e.render_job_id = j.id limit 1) as export_id
           from render.render_jobs j where id = $1 and finished_at is not null"#,
        id
    )
    .fetch_optional(db)
    .await
}

/// Settles films whose run the engine ended by itself, as one that killed its workers too often: the definition had no
/// say any more. One that was published by then is completed, and costs what it costs; what was ordered with it keeps its room only while
/// there is a film to make it of. Gives which they were. Looks at the films, then at their runs: each service at its own table.
pub async fn settle_abandoned(db: Db<'_>) -> sqlx::Result<Vec<Uuid>> {
    Scope::platform(Role::Render).enter(&mut *db).await?;
    let runs = sqlx::query_scalar!("select workflow_run_id from render.render_jobs where finished_at is null")
        .fetch_all(&mut *db)
        .await?;
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let ended = sqlx::query!(
        r#"select id, state, coalesce(error ->> 'code', 'workflow.failed') as "code!", coalesce(error ->> 'message', '') as "message!"
           from workflow.runs where id = any($1) and state in ('failed', 'cancelled')"#,
        &runs,
    )
    .fetch_all(&mut *db)
    .await?;
    Scope::platform(Role::Render).enter(&mut *db).await?;
    let mut films = vec![];
    for run in ended {
        let done = sqlx::query!(
            r#"with run as (select j.id, exists (select from render.exports e where e.render_job_id = j.id) as published,
                                  exists (select from render.exports e where e.render_job_id = j.id and e.state = 'ready'
                                          and (e.expires_at is null or e.expires_at > workflow.now())) as there
                           from render.render_jobs j where j.workflow_run_id = $1 and j.finished_at is null)
               update render.render_jobs j
               set status = case when run.published then 'completed' else $2 end,
                   error_code = case when not run.published then left($3, 128) end,
                   error_detail = case when not run.published then left($4, 4000) end,
                   finished_at = workflow.now(), updated_at = workflow.now()
               from run where j.id = run.id and j.finished_at is null returning j.id, j.tenant_id,
                   run.published as "published!", run.there as "there!""#,
            run.id,
            run.state,
            run.code,
            run.message,
        );
        if let Some(film) = done.fetch_optional(&mut *db).await? {
            if !film.published {
                let_spoiled_go(&mut *db, film.tenant_id, run.id, film.id).await?;
            }
            frame_job::end_repairs(&mut *db, film.id, None, film.published).await?;
            stored_frame::forget_all(&mut *db, film.id).await?;
            let rewarded = bill::settle(&mut *db, film.tenant_id, film.id).await?;
            Scope::platform(Role::Render).enter(&mut *db).await?;
            films.push((film.tenant_id, film.id, film.there, rewarded));
        }
    }
    // Tenant by tenant, as whoever else takes the turns of several does it, and when no film is waited for any more.
    films.sort_unstable();
    for (tenant_id, id, there, _) in &films {
        room::free(&mut *db, *tenant_id, *id, *there).await?;
    }
    for (tenant_id, id, _, rewarded) in &films {
        if let Some(user_id) = rewarded {
            bill::give_reward(&mut *db, *tenant_id, *user_id, *id).await?;
        }
    }
    Scope::platform(Role::Render).enter(db).await?;
    Ok(films.into_iter().map(|(_, id, ..)| id).collect())
}

/// Finished films whose run the engine ended by itself after it had settled them, and before it asked for what was ordered with them: there is
/// room set aside for that, and nothing that takes it. Each service at its own table; begins and ends on behalf of the platform.
pub async fn underived(db: Db<'_>) -> sqlx::Result<Vec<Uuid>> {
    Scope::platform(Role::File).enter(&mut *db).await?;
    let held = sqlx::query_scalar!(
        r#"select distinct split_part(purpose, ':', 2)::uuid as "id!" from file_mgr.quota_reservations
           where state = 'held' and purpose like 'derivative:%'"#
    )
    .fetch_all(&mut *db)
    .await?;
    Scope::platform(Role::Render).enter(&mut *db).await?;
    let films = sqlx::query!(
        r#"select id, workflow_run_id from render.render_jobs j where id = any ($1) and status = 'completed'
           and not exists (select from render.exports e join render.derivatives d on d.export_id = e.id where e.render_job_id = j.id)"#,
        &held,
    )
    .fetch_all(&mut *db)
    .await?;
    let runs: Vec<Uuid> = films.iter().map(|film| film.workflow_run_id).collect();
    Scope::platform(Role::Workflow).enter(&mut *db).await?;
    let ended = sqlx::query_scalar!(
        "select id from workflow.runs where id = any ($1) and state in ('failed', 'cancelled')",
        &runs
    )
    .fetch_all(&mut *db)
    .await?;
    Scope::platform(Role::Render).enter(db).await?;
    Ok(films.into_iter().filter(|film| ended.contains(&film.workflow_run_id)).map(|film| film.id).collect())
}

/// Ended films whose frames and parts may still be in storage, with their tenants. Those that ended within the last two
/// minutes are left alone: a node may still be putting a frame.
pub async fn untidied(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<(Uuid, Uuid)>> {
    let rows = sqlx::query!(
        r#"select tenant_id, id from render.render_jobs
           where tidied_at is null and finished_at < workflow.now() - interval '2 minutes'
           order by finished_at limit $1"#,
        limit,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(|r| (r.tenant_id, r.id)).collect())
}

/// Notes that nothing of a film's making is left in storage.
pub async fn tidied(db: Db<'_>, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("update render.render_jobs set tidied_at = workflow.now() where id = $1", id).execute(db).await?;
    Ok(())
}

/// What a request to cancel met.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CancelAsked {
    /// It is noted; the caller cancels this run in the same transaction.
    Noted {
        /// The run to cancel.
        workflow_run_id: Uuid,
    },
    /// The film is being published.
    TooLate,
    /// The film has ended.
    Ended,
    /// There is no such film.
    Unknown,
}

/// Notes that the tenant wants a film cancelled. Asking twice is harmless.
pub async fn ask_cancel(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<CancelAsked> {
    let row = sqlx::query!(
        "select status, workflow_run_id from render.render_jobs where tenant_id = $1 and id = $2 for update",
        tenant_id,
        id,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(row) = row else { return Ok(CancelAsked::Unknown) };
    match row.status.as_str() {
        "completed" | "failed" | "cancelled" => return Ok(CancelAsked::Ended),
        "finalizing" => return Ok(CancelAsked::TooLate),
        _ => {}
    }
    sqlx::query!(
        r#"update render.render_jobs
           set cancel_requested_at = coalesce(cancel_requested_at, workflow.now()), updated_at = workflow.now()
           where id = $1"#,
        id,
    )
    .execute(db)
    .await?;
    Ok(CancelAsked::Noted { workflow_run_id: row.workflow_run_id })
}
