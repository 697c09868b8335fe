//! Ordering a film again that failed: the same order in a row of its own, at most once for each that failed.

use super::spec::RenderSpec;
use crate::models::{Db, Role, Scope, file_mgr::blob};
use sqlx::types::Json;
use uuid::Uuid;

/// A film that failed.
#[derive(Debug, Clone)]
pub struct FailedFilm {
    /// The film.
    pub id: Uuid,
    /// Who ordered it, when it was a person.
    pub user_id: Option<Uuid>,
    /// The version of its template.
    pub project_version_id: Uuid,
    /// What was frozen of the order.
    pub spec: Json<RenderSpec>,
    /// Whether it was ordered again already.
    pub is_ordered_again: bool,
}

/// The film that a run should have made and that failed; none when it has not, or is not there. As the tenant's renders.
pub async fn find(db: Db<'_>, tenant_id: Uuid, run_id: Uuid) -> sqlx::Result<Option<FailedFilm>> {
    sqlx::query_as!(
        FailedFilm,
        r#"select id, user_id, project_version_id, spec as "spec: Json<RenderSpec>",
                  exists (select from render.render_jobs a
                          where a.tenant_id = j.tenant_id and a.idempotency_key = 'again:' || j.workflow_run_id) as "is_ordered_again!"
           from render.render_jobs j where tenant_id = $1 and workflow_run_id = $2 and status = 'failed'"#,
        tenant_id,
        run_id,
    )
    .fetch_optional(db)
    .await
}

/// Why a film is not ordered again as it was. Goes on as the platform's files.
pub async fn refuses(db: Db<'_>, tenant_id: Uuid, spec: &RenderSpec) -> sqlx::Result<Option<&'static str>> {
    if spec.is_preview() {
        return Ok(Some("a preview is asked for again by whoever looks at it"));
    }
    Scope::platform(Role::File).enter(&mut *db).await?;
    let assets = spec.assets.iter().map(|asset| (tenant_id, &asset.blob.sha256));
    // What is inside a package is there as long as the version of the template.
    let alone = spec.tracks.iter().filter(|track| track.member.is_none());
    let tracks = alone.map(|track| (track.owner, &track.blob.sha256));
    for (owner, content) in assets.chain(tracks) {
        if !blob::is_used(&mut *db, owner, content).await? {
            return Ok(Some("what it is made from has been removed since: order it anew"));
        }
    }
    Ok(None)
}

/// Inserts the film that is made by `run_id` as the one that `failed_run_id` failed to make was ordered. False when that was done
/// already: then nothing was inserted. As the tenant's renders.
pub async fn insert(db: Db<'_>, tenant_id: Uuid, failed_run_id: Uuid, id: Uuid, run_id: Uuid) -> sqlx::Result<bool> {
    let key = format!("again:{failed_run_id}");
    let done = sqlx::query!(
        r#"insert into render.render_jobs
               (id, tenant_id, project_id, project_version_id, spec, request_sha256, idempotency_key,
                width, height, fps, frame_count, has_music, has_voiceover, has_sfx, metadata, workflow_run_id,
                template, template_version, kind, priority, spec_sha256, created_at, updated_at)
           select $1::uuid, tenant_id, project_id, project_version_id, spec, request_sha256, $2::text,
                  width, height, fps, frame_count, has_music, has_voiceover, has_sfx, metadata, $3::uuid,
                  template, template_version, kind, priority, spec_sha256, workflow.now(), workflow.now()
           from render.render_jobs where tenant_id = $4 and workflow_run_id = $5 and status = 'failed'
           on conflict (tenant_id, idempotency_key) do nothing"#,
        id,
        key.as_str(),
        run_id,
        tenant_id,
        failed_run_id,
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}
