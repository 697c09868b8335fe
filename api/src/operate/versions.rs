//! `GET /v1/operate/versions`: versions of definitions that are under way, and who works.

use super::operations;
use crate::{app::App, auth::Operator, extract::Json, problem::Problem};
use axum::extract::State;
use chrono::{DateTime, Utc};
use flatrender_engine::operations::{OfferNow, VersionNow};
use serde::Serialize;
use utoipa::ToSchema;

/// A version of a definition.
#[derive(Debug, Serialize, ToSchema)]
pub struct VersionView {
    /// Kind and version.
    #[schema(example = "notify.v1")]
    name: String,
    /// Runs under way, among the 10 000 oldest and the 10 000 newest of all.
    live: i64,
    /// Those of them that are parked.
    parked: i64,
    /// When the oldest of them was started.
    oldest_at: Option<DateTime<Utc>>,
    /// Live workers that know it.
    workers: i64,
    /// `in_use`; `nobody_knows`: runs of it wait for a worker that knows it; `safe_to_remove`: workers know it and no run needs it.
    #[schema(example = "in_use")]
    standing: &'static str,
}

impl From<VersionNow> for VersionView {
    fn from(v: VersionNow) -> Self {
        let standing = match (v.live, v.workers) {
            (0, _) => "safe_to_remove",
            (_, 0) => "nobody_knows",
            _ => "in_use",
        };
        Self { name: v.name, live: v.live, parked: v.parked, oldest_at: v.oldest_at, workers: v.workers, standing }
    }
}

/// What a worker does from one queue.
#[derive(Debug, Serialize, ToSchema)]
pub struct WorkerView {
    /// Its name.
    #[schema(example = "worker-1")]
    worker: String,
    /// Since when it lives.
    started_at: DateTime<Utc>,
    /// The queue.
    #[schema(example = "media")]
    queue: String,
    /// How many activities, or versions of definitions, it knows there.
    knows: usize,
    /// Tasks it takes at a time.
    slots: i32,
    /// Tasks it holds.
    busy: i64,
}

impl From<OfferNow> for WorkerView {
    fn from(o: OfferNow) -> Self {
        let (worker, knows) = (o.worker, o.names.len());
        Self { worker, started_at: o.started_at, queue: o.queue, knows, slots: o.slots, busy: o.busy }
    }
}

/// Versions and workers.
#[derive(Debug, Serialize, ToSchema)]
pub struct Versions {
    /// Always `versions`.
    #[schema(example = "versions")]
    object: &'static str,
    /// By name.
    versions: Vec<VersionView>,
    /// By queue and name.
    workers: Vec<WorkerView>,
}

/// `GET /v1/operate/versions`
#[utoipa::path(
    get, path = "/v1/operate/versions", tag = "Platform", operation_id = "get_versions", summary = "Look at versions and workers",
    description = "Versions of workflow definitions with the runs under way of each, and which may be removed; and the workers that live. Of \
                   the platform.",
    responses((status = 200, description = "Versions and workers", body = Versions))
)]
pub async fn get(State(app): State<App>, _: Operator) -> Result<Json<Versions>, Problem> {
    let operations = operations(&app);
    let (versions, workers) = (operations.versions().await?, operations.offers_now().await?);
    Ok(Json(Versions {
        object: "versions",
        versions: versions.into_iter().map(Into::into).collect(),
        workers: workers.into_iter().map(Into::into).collect(),
    }))
}
