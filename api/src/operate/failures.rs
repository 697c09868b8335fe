//! `/v1/operate/failures`: failures, grouped by their cause.

use super::{Party, operations};
use crate::{
    app::App,
    extract::{Json, Path, Query},
    problem::{Code, Problem, ProblemBody},
};
use axum::extract::State;
use chrono::{DateTime, Utc};
use flatrender_engine::operations::{Cause, Culprit};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Failures with one cause.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureGroup {
    /// The same for all of them.
    #[schema(example = "render.missing_font:0d2f11c0a1b2")]
    pub(super) fingerprint: String,
    /// Always `failure_group`.
    #[schema(example = "failure_group")]
    object: &'static str,
    /// Their code.
    #[schema(example = "render.missing_font")]
    pub(super) code: String,
    /// The message of the newest.
    pub(super) message: Option<String>,
    /// What the runs do, with their versions.
    #[schema(example = json!(["notify.v1"]))]
    versions: Vec<String>,
    /// How many runs, among the newest 10 000 failures.
    pub(super) runs: i64,
    /// Of how many tenants.
    pub(super) tenants: i64,
    /// The oldest of them.
    first_at: DateTime<Utc>,
    /// The newest of them.
    pub(super) last_at: DateTime<Utc>,
}

impl From<Cause> for FailureGroup {
    fn from(c: Cause) -> Self {
        let Cause { fingerprint, code, message, versions, runs, tenants, first_at, last_at } = c;
        let message = message.map(|text| super::redact::sentence(&text));
        Self { fingerprint, object: "failure_group", code, message, versions, runs, tenants, first_at, last_at }
    }
}

/// Failures by cause.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureGroups {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// The most frequent first; at most 500.
    data: Vec<FailureGroup>,
}

/// Failures with one cause, and where they came from.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureGroupDetail {
    #[serde(flatten)]
    group: FailureGroup,
    /// Who made the attempts that failed, of the newest 200 runs: one node that stands out is the cause.
    workers: Vec<FailureSource>,
}

/// Who made attempts that failed.
#[derive(Debug, Serialize, ToSchema)]
pub struct FailureSource {
    /// The worker or node.
    #[schema(example = "node:render-03")]
    worker: String,
    /// The step; empty for the run itself.
    key: String,
    /// Attempts.
    attempts: i64,
}

impl From<Culprit> for FailureSource {
    fn from(c: Culprit) -> Self {
        Self { worker: c.worker, key: c.key, attempts: c.attempts }
    }
}

/// Whose failures to group.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListFailures {
    /// Of this tenant.
    tenant_id: Option<Uuid>,
}

/// `GET /v1/operate/failures`
#[utoipa::path(
    get, path = "/v1/operate/failures", tag = "Runs", operation_id = "list_failures", summary = "Group failures by cause",
    description = "The newest 10 000 failures, grouped by their code and by what their message says apart from names, paths and numbers. \
                   To do something with all of a group, make a bulk operation of its `fingerprint`.",
    params(ListFailures), responses((status = 200, description = "The groups", body = FailureGroups))
)]
pub async fn list(
    State(app): State<App>,
    party: Party,
    Query(query): Query<ListFailures>,
) -> Result<Json<FailureGroups>, Problem> {
    let causes = operations(&app).causes(party.tenant(query.tenant_id)?).await?;
    Ok(Json(FailureGroups { object: "list", data: causes.into_iter().map(Into::into).collect() }))
}

/// `GET /v1/operate/failures/{fingerprint}`
#[utoipa::path(
    get, path = "/v1/operate/failures/{fingerprint}", tag = "Runs", operation_id = "get_failure_group", summary = "Look at a cause",
    description = "A group of failures, with the workers and nodes that made the attempts which failed.",
    params(("fingerprint" = String, Path, description = "The group"), ListFailures),
    responses(
        (status = 200, description = "The group", body = FailureGroupDetail),
        (status = 404, description = "`run.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    party: Party,
    Path(fingerprint): Path<String>,
    Query(query): Query<ListFailures>,
) -> Result<Json<FailureGroupDetail>, Problem> {
    let (operations, tenant) = (operations(&app), party.tenant(query.tenant_id)?);
    let group = operations.causes(tenant).await?.into_iter().find(|cause| cause.fingerprint == fingerprint);
    let group = group.ok_or_else(|| Problem::not_found(Code::RunNotFound, "group of failures"))?;
    let workers = operations.culprits(tenant, &fingerprint).await?;
    Ok(Json(FailureGroupDetail { group: group.into(), workers: workers.into_iter().map(Into::into).collect() }))
}
