//! `GET /v1/operate/runs/{id}/steps`: what a run has done, a page at a time.

use super::{
    Party, redact,
    run::{self, RunError},
};
use crate::{
    app::App,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    problem::{Problem, ProblemBody},
};
use axum::extract::State;
use chrono::{DateTime, Utc};
use flatrender_engine::client::Event;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Something that a run has done.
#[derive(Debug, Serialize, ToSchema)]
pub struct RunStep {
    /// From 1.
    seq: i64,
    /// Its key.
    key: String,
    /// `step`, `activity`, `timer`, `cancel`, `signal`, `child`, `start`, `patch` or `compensation`.
    #[schema(example = "activity")]
    kind: String,
    /// The activity, the kind of the run, the name of the signal.
    name: Option<String>,
    /// `ok`, `failed` or `cancelled`.
    #[schema(example = "ok")]
    outcome: String,
    /// What it gave, without secrets.
    #[schema(value_type = Value)]
    output: Option<Value>,
    /// Why it failed.
    error: Option<RunError>,
    /// The attempt that wrote it.
    attempt_no: i32,
    /// When.
    recorded_at: DateTime<Utc>,
}

impl From<Event> for RunStep {
    fn from(e: Event) -> Self {
        Self {
            seq: e.seq,
            key: e.key,
            kind: e.kind,
            name: e.name,
            outcome: e.outcome,
            output: e.output.map(redact::shown),
            error: e.failure.map(Into::into),
            attempt_no: e.attempt_no,
            recorded_at: e.recorded_at,
        }
    }
}

/// Which steps of a run to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListSteps {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this number: `next_cursor` of the page before.
    starting_after: Option<i64>,
}

/// `GET /v1/operate/runs/{id}/steps`
#[utoipa::path(
    get, path = "/v1/operate/runs/{id}/steps", tag = "Runs", operation_id = "list_run_steps", summary = "List what a run has done",
    description = "Its steps with what each gave, newest first, a page at a time. Secrets are hidden.",
    params(("id" = Uuid, Path, description = "The run"), ListSteps),
    responses(
        (status = 200, description = "A page", body = Page<RunStep>),
        (status = 404, description = "`run.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn list(
    State(app): State<App>,
    party: Party,
    Path(id): Path<Uuid>,
    Query(query): Query<ListSteps>,
) -> Result<Json<Page<RunStep>>, Problem> {
    let size = page::size(query.limit)?;
    run::found(&app, &party, id).await?;
    let steps = app.workflows.newest_of(id, query.starting_after, size as u32 + 1).await?;
    Ok(Json(Page::of(steps, size, |step| step.seq.to_string())))
}
