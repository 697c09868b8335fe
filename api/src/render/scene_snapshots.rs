//! `/v1/scene-snapshots/{project_id}`: stills of a template's scenes.

pub mod enqueue;

use super::{submit, tagged::tagged};
use crate::{
    app::App,
    extract::{Json, Path},
    identity::Steward,
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{DateTime, Utc};
use enqueue::Answered;
use flatrender_workflows::models::{
    Role, Scope,
    content::{project, scene, scene::Scene},
    render::snapshot_job::{self, SnapshotJob},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// Which stills to make.
#[derive(Debug, Default, Clone, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateSnapshots {
    /// Ids of scenes; all of the template's when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) scenes: Option<Vec<Uuid>>,
    /// Render them again even if they were rendered before.
    #[serde(default)]
    pub(super) force: bool,
}

/// A scene and its newest still.
#[derive(Debug, Serialize, ToSchema)]
pub struct SceneSnapshot {
    /// The scene.
    scene_id: Uuid,
    /// Its id in the template.
    #[schema(example = "title")]
    scene_key: String,
    /// For people, by language.
    title: BTreeMap<String, String>,
    /// What the scene shows: its newest still, or else the picture that its designer gave it.
    #[schema(example = "https://films.example/snap/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")]
    url: Option<String>,
    /// The newest request for a still of it; null when there was none.
    job: Option<SnapshotJobView>,
}

/// A request for a still.
#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotJobView {
    /// Its id.
    id: Uuid,
    /// `queued`, `running`, `done` or `error`; one that waits to be tried again is `queued`.
    #[schema(example = "done")]
    status: String,
    /// The still, at most 1280 pixels wide; null while it is not done.
    image_url: Option<String>,
    /// The same, at most 480 pixels wide.
    small_url: Option<String>,
    /// `aerender`, or `mock` for a placeholder made in development.
    source: Option<String>,
    /// Attempts at rendering it; 0 when it was there already.
    attempts: i32,
    /// Why there is none.
    error: Option<SnapshotError>,
    /// When it was asked for.
    created_at: DateTime<Utc>,
    /// When it was begun.
    started_at: Option<DateTime<Utc>>,
    /// When it ended.
    finished_at: Option<DateTime<Utc>>,
}

/// Why there is no still.
#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotError {
    /// Stable.
    #[schema(example = "render.missing_font")]
    code: String,
    /// In words.
    message: String,
}

/// How many stills stand how.
#[derive(Debug, Default, Serialize, ToSchema)]
pub struct SnapshotCounts {
    queued: usize,
    running: usize,
    done: usize,
    error: usize,
}

/// The stills of a template's scenes.
#[derive(Debug, Serialize, ToSchema)]
pub struct SnapshotList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The template.
    project_id: Uuid,
    /// In the order of the scenes.
    data: Vec<SceneSnapshot>,
    /// How they stand.
    counts: SnapshotCounts,
    /// In an answer to a request: what its stills are together, as the event `snapshot_batch.completed` names it. Absent when all were
    /// there, or the request was answered before.
    #[serde(skip_serializing_if = "Option::is_none")]
    batch_id: Option<Uuid>,
    /// Always false.
    has_more: bool,
}

impl From<SnapshotJob> for SnapshotJobView {
    fn from(job: SnapshotJob) -> Self {
        let message = job.error_detail.unwrap_or_default();
        Self {
            id: job.id,
            status: job.status,
            image_url: job.image_url,
            small_url: job.small_url,
            source: job.source,
            attempts: job.attempts,
            error: job.error_code.map(|code| SnapshotError { code, message }),
            created_at: job.created_at,
            started_at: job.started_at,
            finished_at: job.finished_at,
        }
    }
}

impl SnapshotList {
    /// Scenes with a job of theirs each, if there is one.
    fn of(project_id: Uuid, scenes: Vec<Scene>, jobs: Vec<SnapshotJob>) -> Self {
        let mut jobs: BTreeMap<Uuid, SnapshotJob> = jobs.into_iter().map(|job| (job.scene_id, job)).collect();
        let mut counts = SnapshotCounts::default();
        let data = scenes.into_iter().map(|scene| {
            let job = jobs.remove(&scene.id).map(SnapshotJobView::from);
            match job.as_ref().map(|job| job.status.as_str()) {
                Some("queued") => counts.queued += 1,
                Some("running") => counts.running += 1,
                Some("done") => counts.done += 1,
                Some(_) => counts.error += 1,
                None => {}
            }
            SceneSnapshot {
                scene_id: scene.id,
                scene_key: scene.key,
                title: scene.title.0,
                url: scene.snapshot_url.or(scene.image),
                job,
            }
        });
        let data = data.collect();
        Self { object: "list", project_id, data, counts, batch_id: None, has_more: false }
    }
}

/// `POST /v1/scene-snapshots/{project_id}`: asks for stills. Answers 202 with a job for each scene.
#[utoipa::path(
    post, path = "/v1/scene-snapshots/{project_id}", tag = "Templates", operation_id = "create_scene_snapshots",
    summary = "Ask for stills of scenes",
    description = "A job for each scene of one of your templates. A still that was rendered before is `done` at once; one that is being \
                   rendered is not rendered twice, however often it is asked for. With an `Idempotency-Key` the same request gives the same jobs.",
    params(
        ("project_id" = Uuid, Path, description = "The template: `project_id` in `GET /v1/templates`"),
        ("Idempotency-Key" = Option<String>, Header, max_length = 255, pattern = r"^[\t -~]+$", description = "1 to 255 printable ASCII characters, yours")
    ),
    request_body(content = CreateSnapshots, example = json!({"force": false})),
    responses(
        (status = 202, description = "Accepted; ask again with GET", body = SnapshotList),
        (status = 404, description = "`project.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`, `idempotency.key_reused`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    steward: Steward,
    Path(project_id): Path<Uuid>,
    headers: HeaderMap,
    Json(asked): Json<CreateSnapshots>,
) -> Result<Response, Problem> {
    let key = submit::idempotency_key(&headers)?;
    let Answered { scenes, jobs, replayed, batch } = enqueue::enqueue(&app, &steward, project_id, key, &asked).await?;
    let list = SnapshotList { batch_id: batch, ..SnapshotList::of(project_id, scenes, jobs) };
    let mut response = (StatusCode::ACCEPTED, Json(list)).into_response();
    let location = HeaderValue::try_from(format!("/v1/scene-snapshots/{project_id}"));
    response.headers_mut().extend(location.ok().map(|at| (header::LOCATION, at)));
    if replayed {
        response.headers_mut().insert(super::renders::REPLAYED, HeaderValue::from_static("true"));
    }
    Ok(response)
}

/// `GET /v1/scene-snapshots/{project_id}`: every scene with its newest still.
#[utoipa::path(
    get, path = "/v1/scene-snapshots/{project_id}", tag = "Templates", operation_id = "list_scene_snapshots",
    summary = "List stills of scenes",
    description = "Every scene of one of your templates with its newest still. Ask every two seconds with `If-None-Match` while there are \
                   `queued` or `running` ones: nothing new is a 304.",
    params(
        ("project_id" = Uuid, Path, description = "The template"),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of the answer before")
    ),
    responses(
        (status = 200, description = "The scenes", body = SnapshotList, headers(("ETag" = String, description = "Of this answer"))),
        (status = 304, description = "Nothing has changed"),
        (status = 404, description = "`project.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Path(project_id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let tenant_id = steward.tenant_id;
    // A scene and its job never say two things of one still.
    let mut tx = app.db.look(Scope::tenant(Role::Content, tenant_id)).await?;
    let template = project::own(&mut tx, tenant_id, project_id).await?.ok_or_else(no_project)?;
    let scenes = scene::list(&mut tx, template.version_id).await?;
    Scope::tenant(Role::Render, tenant_id).enter(&mut tx).await?;
    let ids: Vec<Uuid> = scenes.iter().map(|s| s.id).collect();
    let jobs = snapshot_job::newest(&mut tx, tenant_id, &ids).await?;
    tagged(&headers, &SnapshotList::of(project_id, scenes, jobs))
}

fn no_project() -> Problem {
    Problem::not_found(Code::ProjectNotFound, "template of yours")
}
