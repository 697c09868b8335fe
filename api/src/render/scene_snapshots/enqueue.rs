//! From a request for stills to a job for each scene, in one transaction: those that were rendered before are done at once, those
//! that are being rendered are joined, and for the others a run begins. When every scene shows already what is asked for, nothing is
//! written: the jobs that brought it are the answer.

use super::{CreateSnapshots, no_project};
use crate::{
    app::App,
    identity::Steward,
    problem::{Code, Problem},
};
use flatrender_engine::Client;
use flatrender_workflows::{
    contracts::{node::needs, snapshot::RenderStills, storage::BlobHash},
    definitions::{
        limit::Limits,
        scene_snapshot::{self, SceneSnapshot},
    },
    models::{
        DEFAULT_TENANT, Database, Db, Role, Scope,
        content::{
            project::{self, Template},
            scene::{self, Scene},
        },
        render::{
            freeze::Fault,
            snapshot, snapshot_batch,
            snapshot_job::{self, Request, SnapshotJob, Wanted},
            snapshot_request,
            still_key::{self, StillKey},
        },
    },
};
use std::collections::HashMap;
use uuid::Uuid;

/// A job that lived a moment ago may have ended: then the still is there. Each round settles at least the scenes of one rival.
const ROUNDS: usize = 20;

/// What a request is answered with.
pub struct Answered {
    /// The scenes asked for, in order.
    pub scenes: Vec<Scene>,
    /// A job for each.
    pub jobs: Vec<SnapshotJob>,
    /// Whether an earlier request with this key made them.
    pub replayed: bool,
    /// What they are together; none when there was nothing to do.
    pub batch: Option<Uuid>,
}

/// Makes or finds the jobs.
///
/// # Errors
/// `project.not_found`, `request.invalid` with `scene.unknown`; `idempotency.key_reused` when the key belongs to another request.
pub async fn enqueue(
    app: &App,
    steward: &Steward,
    project_id: Uuid,
    key: Option<&str>,
    asked: &CreateSnapshots,
) -> Result<Answered, Problem> {
    let (tenant_id, fingerprint) = (steward.tenant_id, fingerprint(project_id, asked));
    let (render, content) = (Scope::tenant(Role::Render, tenant_id), Scope::tenant(Role::Content, tenant_id));
    let mut tx = app.db.begin(content).await?;
    let template = project::own(&mut tx, tenant_id, project_id).await?.ok_or_else(no_project)?;
    let scenes = scene::list(&mut tx, template.version_id).await?;
    render.enter(&mut tx).await?;
    // What was answered once is answered alike, whatever scenes the template has by now.
    if let Some(key) = key
        && let Some(jobs) = replay(&mut tx, tenant_id, key, &fingerprint).await?
    {
        return answered_before(&mut tx, tenant_id, jobs).await;
    }
    let scenes = chosen(scenes, asked.scenes.as_deref())?;
    let of = Request { tenant_id, project_id, version_id: template.version_id, requested_by: steward.name() };
    let (workflows, base_url) = (&app.workflows, app.public_url.as_str());
    let placing = Placing { workflows, limits: app.limits, base_url, of: &of, template: &template, force: asked.force };
    let keys: Vec<StillKey> = scenes.iter().map(|scene| placing.key(scene)).collect();
    let wanted: Vec<Wanted<'_>> = scenes.iter().zip(&keys).map(|(scene, key)| Wanted { scene, key }).collect();
    if key.is_none()
        && !asked.force
        && let Some(jobs) = snapshot_job::shown(&mut tx, tenant_id, &wanted).await?
    {
        return Ok(Answered { scenes, jobs, replayed: false, batch: None });
    }
    if let Some(key) = key
        && !snapshot_request::take(&mut tx, tenant_id, key, &fingerprint, project_id).await?
    {
        // Another request with this key has committed in between.
        let jobs = replay(&mut tx, tenant_id, key, &fingerprint).await?;
        let jobs = jobs.ok_or_else(|| Problem::internal(&sqlx::Error::RowNotFound))?;
        return answered_before(&mut tx, tenant_id, jobs).await;
    }
    let ids = placing.place(&mut tx, &wanted).await?;
    if let Some(key) = key {
        snapshot_request::answer(&mut tx, tenant_id, key, &ids).await?;
    }
    let batch = begin_batch(&app.workflows, &mut tx, &of, steward.user_id, &ids).await?;
    let jobs = snapshot_job::list(&mut tx, tenant_id, &ids).await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok(Answered { scenes: showing(scenes, &jobs), jobs, replayed: false, batch })
}

/// Asks for stills of the scenes of a template of ours that have none, as it is brought in. Repeating it is harmless.
///
/// # Errors
/// `project.not_found` when there is no such template.
pub async fn at_import(
    db: &Database,
    workflows: &Client,
    limits: Limits,
    base_url: &str,
    slug: &str,
) -> Result<(), Problem> {
    let tenant_id = DEFAULT_TENANT;
    let mut tx = db.begin(Scope::tenant(Role::Content, tenant_id)).await?;
    let template = project::find(&mut tx, tenant_id, tenant_id, slug, None).await?.ok_or_else(no_project)?;
    let mut scenes = scene::list(&mut tx, template.version_id).await?;
    scenes.retain(|scene| scene.snapshot_url.is_none());
    Scope::tenant(Role::Render, tenant_id).enter(&mut tx).await?;
    let (project_id, version_id) = (template.project_id, template.version_id);
    let of = Request { tenant_id, project_id, version_id, requested_by: "import" };
    let placing = Placing { workflows, limits, base_url, of: &of, template: &template, force: false };
    let keys: Vec<StillKey> = scenes.iter().map(|scene| placing.key(scene)).collect();
    let wanted: Vec<Wanted<'_>> = scenes.iter().zip(&keys).map(|(scene, key)| Wanted { scene, key }).collect();
    let ids = placing.place(&mut tx, &wanted).await?;
    begin_batch(workflows, &mut tx, &of, None, &ids).await?;
    tx.commit().await?;
    workflows.announce();
    Ok(())
}

/// Jobs that were asked for together are a batch; none of nothing.
async fn begin_batch(
    workflows: &Client,
    db: Db<'_>,
    of: &Request<'_>,
    asked_by: Option<Uuid>,
    ids: &[Uuid],
) -> Result<Option<Uuid>, Problem> {
    if ids.is_empty() {
        return Ok(None);
    }
    let (batch, ended) = snapshot_batch::begin(&mut *db, of.tenant_id, of.project_id, asked_by, ids).await?;
    scene_snapshot::tell(workflows, db, ended.into_iter().collect()).await?;
    Ok(Some(batch))
}

/// The answer of before. Its scenes may be of an older version.
async fn answered_before(db: Db<'_>, tenant_id: Uuid, jobs: Vec<SnapshotJob>) -> Result<Answered, Problem> {
    Scope::tenant(Role::Content, tenant_id).enter(&mut *db).await?;
    let ids: Vec<Uuid> = jobs.iter().map(|job| job.scene_id).collect();
    let scenes = scene::of(db, &ids).await?;
    Ok(Answered { scenes, jobs, replayed: true, batch: None })
}

/// What makes two requests the same.
fn fingerprint(project_id: Uuid, asked: &CreateSnapshots) -> String {
    let scenes = asked.scenes.as_ref().map(|scenes| {
        let mut scenes = scenes.clone();
        scenes.sort();
        scenes.dedup();
        scenes
    });
    BlobHash::of(serde_json::json!([project_id, scenes, asked.force]).to_string().as_bytes()).to_string()
}

/// The scenes that are asked for, in the order of the film.
fn chosen(scenes: Vec<Scene>, asked: Option<&[Uuid]>) -> Result<Vec<Scene>, Problem> {
    let Some(asked) = asked else { return Ok(scenes) };
    let unknown = asked.iter().enumerate().filter(|(_, id)| scenes.iter().all(|s| s.id != **id));
    let faults: Vec<Fault> = unknown
        .map(|(n, id)| Fault {
            pointer: format!("/scenes/{n}"),
            code: "scene.unknown".into(),
            detail: format!("the template has no scene {id}"),
        })
        .collect();
    if !faults.is_empty() {
        return Err(Problem::faulty(Code::RequestInvalid, faults));
    }
    Ok(scenes.into_iter().filter(|s| asked.contains(&s.id)).collect())
}

/// What was done at once is shown by its scene by now.
fn showing(mut scenes: Vec<Scene>, jobs: &[SnapshotJob]) -> Vec<Scene> {
    for scene in &mut scenes {
        let shown = jobs.iter().find(|job| job.scene_id == scene.id).and_then(|job| job.image_url.clone());
        scene.snapshot_url = shown.or(scene.snapshot_url.take());
    }
    scenes
}

/// What an earlier request with this key was answered with.
async fn replay(
    db: Db<'_>,
    tenant_id: Uuid,
    key: &str,
    fingerprint: &str,
) -> Result<Option<Vec<SnapshotJob>>, Problem> {
    let Some(known) = snapshot_request::find(&mut *db, tenant_id, key).await? else { return Ok(None) };
    if known.request_sha256 != fingerprint {
        return Err(Problem::new(Code::IdempotencyKeyReused, "this idempotency key was used for another request"));
    }
    Ok(Some(snapshot_job::list(db, tenant_id, &known.job_ids).await?))
}

struct Placing<'a> {
    workflows: &'a Client,
    limits: Limits,
    base_url: &'a str,
    of: &'a Request<'a>,
    template: &'a Template,
    force: bool,
}

impl Placing<'_> {
    /// A job for each scene. In the scope of renders, before and after.
    async fn place(&self, db: Db<'_>, wanted: &[Wanted<'_>]) -> Result<Vec<Uuid>, Problem> {
        let mut jobs: HashMap<Uuid, Uuid> = HashMap::new();
        for _ in 0..ROUNDS {
            let open: Vec<Wanted<'_>> = wanted.iter().filter(|w| !jobs.contains_key(&w.scene.id)).copied().collect();
            if open.is_empty() {
                break;
            }
            jobs.extend(self.round(db, &open).await?);
        }
        // Rivals that begin and end faster than we can look: the client is to ask again.
        let job = |wanted: &Wanted<'_>| {
            jobs.get(&wanted.scene.id).copied().ok_or_else(|| Problem::internal(&sqlx::Error::RowNotFound))
        };
        wanted.iter().map(job).collect()
    }

    fn key(&self, scene: &Scene) -> StillKey {
        let manifest = &self.template.manifest;
        StillKey::of(manifest, &self.template.package, scene, &still_key::defaults(manifest, &scene.key))
    }

    /// Jobs that live, jobs that are done at once, and jobs that begin. A scene that a rival has taken meanwhile has none yet.
    async fn round(&self, db: Db<'_>, open: &[Wanted<'_>]) -> Result<HashMap<Uuid, Uuid>, Problem> {
        let scene_ids: Vec<Uuid> = open.iter().map(|w| w.scene.id).collect();
        let mut jobs = snapshot_job::live(&mut *db, &scene_ids).await?;
        let digests: Vec<BlobHash> = open.iter().map(|w| w.key.digest()).collect();
        let known = match self.force {
            true => HashMap::new(),
            false => snapshot::find(&mut *db, self.of.tenant_id, &digests).await?,
        };
        let idle = open.iter().zip(&digests).filter(|(w, _)| !jobs.contains_key(&w.scene.id));
        let (hits, misses): (Vec<_>, Vec<_>) =
            idle.map(|(w, digest)| (*w, known.get(digest))).partition(|(_, hit)| hit.is_some());
        let hits: Vec<_> = hits.into_iter().filter_map(|(w, hit)| Some((w, hit?))).collect();
        let misses: Vec<_> = misses.into_iter().map(|(w, _)| w).collect();
        jobs.extend(snapshot_job::satisfy(&mut *db, self.of, &hits).await?);
        let begun = snapshot_job::enqueue(&mut *db, self.of, &misses).await?;
        self.begin(db, &misses, &begun).await?;
        jobs.extend(begun);
        Ok(jobs)
    }

    /// Starts a run for each new job.
    async fn begin(&self, db: Db<'_>, wanted: &[Wanted<'_>], jobs: &HashMap<Uuid, Uuid>) -> Result<(), Problem> {
        let new: Vec<(Uuid, &Wanted<'_>)> = wanted.iter().filter_map(|w| Some((*jobs.get(&w.scene.id)?, w))).collect();
        if new.is_empty() {
            return Ok(());
        }
        let tenant_id = self.of.tenant_id;
        Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
        let runs = new.iter().map(|(job_id, wanted)| self.workflow(*job_id, wanted));
        let runs = self.workflows.start_all(&mut *db, tenant_id, runs).await?;
        Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
        let ids: Vec<Uuid> = new.iter().map(|(id, _)| *id).collect();
        Ok(snapshot_job::started(db, &ids, &runs).await?)
    }

    fn workflow(&self, job_id: Uuid, wanted: &Wanted<'_>) -> SceneSnapshot {
        let (template, scene) = (self.template, wanted.scene);
        let manifest = &template.manifest;
        let work = RenderStills {
            job_id,
            engine: manifest.kind,
            package: template.package.clone(),
            package_owner: template.tenant_id,
            scene: scene.key.clone(),
            composition: scene.composition.clone(),
            frame: scene.still_frame.unsigned_abs(),
            data: still_key::defaults(manifest, &scene.key),
            size: [manifest.width, manifest.height],
            fps: manifest.fps,
            needs: needs(manifest),
        };
        let (base_url, limit_seconds) = (self.base_url.to_owned(), Some(self.limits.still.as_secs()));
        SceneSnapshot { job_id, key: wanted.key.clone(), work, base_url, limit_seconds }
    }
}
