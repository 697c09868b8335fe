//! `/v1/usage`, and that of any tenant for whoever runs the platform.

use super::{Registrar, made};
use crate::{
    app::App,
    auth::{Operator, Viewer},
    extract::{Json, Path, Query},
    problem::{Code, Problem, ProblemBody},
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use chrono::{Days, NaiveDate, Utc};
use flatrender_workflows::models::{
    Role, Scope,
    identity::{
        tenant,
        usage::{self, METRICS, Usage},
    },
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, fmt::Write as _};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Days when nobody says from when on.
const USUAL_DAYS: u64 = 30;
/// Most days at once.
const MOST_DAYS: i64 = 366;

/// What a tenant used.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageView {
    /// Always `usage`.
    #[schema(example = "usage")]
    object: &'static str,
    /// The first day, by UTC.
    from: NaiveDate,
    /// The last day.
    to: NaiveDate,
    /// By metric, over all these days.
    #[schema(example = json!({"frames": 945}))]
    totals: BTreeMap<String, i64>,
    /// By day and metric. What is not there was not used.
    data: Vec<UsageFigure>,
}

/// What was used of something on a day.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageFigure {
    /// The day, by UTC.
    day: NaiveDate,
    /// `api_calls`, `egress_bytes` (of answers of the API), `exports`, `frames` (of exported films), `render_seconds` (of nodes),
    /// `snapshots`, `storage_byte_hours`, or `notifications_` and a channel.
    #[schema(example = "frames")]
    metric: String,
    /// How much, with what was corrected afterwards.
    #[schema(example = 315)]
    quantity: i64,
    /// Whether it stays as it is: after three days.
    #[serde(rename = "final")]
    is_final: bool,
}

impl From<Usage> for UsageFigure {
    fn from(u: Usage) -> Self {
        Self { day: u.day, metric: u.metric, quantity: u.quantity, is_final: u.is_final }
    }
}

/// Of which days.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// The first day, by UTC; 30 days before the last when absent.
    #[param(example = "2026-11-01")]
    from: Option<NaiveDate>,
    /// The last day; today when absent. At most 366 days at once.
    #[param(example = "2026-11-30")]
    to: Option<NaiveDate>,
    /// Only this metric.
    #[param(example = "frames")]
    metric: Option<String>,
}

/// `GET /v1/usage`: what the tenant used, day by day.
#[utoipa::path(
    get, path = "/v1/usage", tag = "Tenant", operation_id = "get_usage", summary = "See what was used",
    description = "By day, in UTC. Counted every hour, and again for three days; then a day is final; what is found out later is a correction, which counts. \
                   With `Accept: text/csv` a table with the columns day, metric, quantity, final.", params(UsageQuery),
    responses(
        (status = 200, description = "What was used", content((UsageView = "application/json"), (String = "text/csv"))),
        (status = 400, description = "`query.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    Viewer(caller): Viewer,
    Query(query): Query<UsageQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (from, to) = query.days()?;
    let mut tx = app.begin(&caller, Role::Identity).await?;
    let figures = usage::list(&mut tx, caller.id, from, to, query.metric.as_deref()).await?;
    told(&headers, from, to, figures)
}

/// `GET /v1/platform/tenants/{id}/usage`: the same of any tenant.
#[utoipa::path(
    get, path = "/v1/platform/tenants/{id}/usage", tag = "Platform", operation_id = "get_tenant_usage", summary = "See what a tenant used",
    description = "As `GET /v1/usage` tells the tenant itself, with corrections, and as a table with `Accept: text/csv`.",
    params(("id" = Uuid, Path, description = "The tenant"), UsageQuery),
    responses(
        (status = 200, description = "What was used", content((UsageView = "application/json"), (String = "text/csv"))),
        (status = 400, description = "`query.invalid`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`tenant.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn of_tenant(
    State(app): State<App>,
    _: Operator,
    Path(tenant_id): Path<Uuid>,
    Query(query): Query<UsageQuery>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let (from, to) = query.days()?;
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    tenant::find(&mut tx, tenant_id).await?.ok_or_else(missing)?;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    let figures = usage::list(&mut tx, tenant_id, from, to, query.metric.as_deref()).await?;
    told(&headers, from, to, figures)
}

/// What was used, as it is asked for.
fn told(headers: &HeaderMap, from: NaiveDate, to: NaiveDate, figures: Vec<Usage>) -> Result<Response, Problem> {
    if wants_csv(headers) {
        return table(from, to, &figures);
    }
    let mut totals = BTreeMap::new();
    for figure in &figures {
        *totals.entry(figure.metric.clone()).or_default() += figure.quantity;
    }
    let data = figures.into_iter().map(Into::into).collect();
    Ok(Json(UsageView { object: "usage", from, to, totals, data }).into_response())
}

/// Whether a client asks for a table and not for JSON.
fn wants_csv(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let mut kinds = accepted.flat_map(|value| value.split(',')).map(|kind| kind.split(';').next().unwrap_or_default());
    kinds.find_map(|kind| match kind.trim().to_ascii_lowercase().as_str() {
        "text/csv" => Some(true),
        "application/json" => Some(false),
        _ => None,
    }) == Some(true)
}

/// As RFC 4180 has it; no field needs quotes.
fn table(from: NaiveDate, to: NaiveDate, figures: &[Usage]) -> Result<Response, Problem> {
    let mut csv = String::from("day,metric,quantity,final\r\n");
    for Usage { day, metric, quantity, is_final } in figures {
        write!(csv, "{day},{metric},{quantity},{is_final}\r\n").map_err(|e| Problem::internal(&e))?;
    }
    let name = HeaderValue::from_str(&format!("attachment; filename=\"usage-{from}-{to}.csv\""));
    let told = [
        (header::CONTENT_TYPE, HeaderValue::from_static("text/csv; charset=utf-8; header=present")),
        (header::CONTENT_DISPOSITION, name.map_err(|e| Problem::internal(&e))?),
        (header::VARY, HeaderValue::from_static("accept")),
    ];
    Ok((told, csv).into_response())
}

/// What was found out about a day that is final.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CorrectUsage {
    /// The day, by UTC.
    #[schema(example = "2026-11-03")]
    day: NaiveDate,
    /// Of what, as `GET /v1/usage` names it.
    #[schema(example = "frames")]
    metric: String,
    /// How much more; less when negative. Never 0.
    #[schema(example = -12)]
    delta: i64,
    /// Why, 1 to 500 characters.
    #[schema(example = "frames of a template that was broken")]
    reason: String,
}

/// A correction that was made.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageCorrection {
    /// Always `usage_correction`.
    #[schema(example = "usage_correction")]
    object: &'static str,
    /// Whose day.
    tenant_id: Uuid,
    /// The day.
    day: NaiveDate,
    /// Of what.
    metric: String,
    /// How much more, or less.
    delta: i64,
    /// Why.
    reason: String,
}

/// `POST /v1/platform/tenants/{id}/usage-corrections`
#[utoipa::path(
    post, path = "/v1/platform/tenants/{id}/usage-corrections", tag = "Platform", operation_id = "correct_usage", summary = "Correct a day's usage",
    description = "Of a day that is final: the day stays as it was counted, and the correction counts with it from here on.",
    params(("id" = Uuid, Path, description = "The tenant")), request_body = CorrectUsage,
    responses(
        (status = 201, description = "Corrected", body = UsageCorrection),
        (status = 404, description = "`tenant.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`usage.not_correctable`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn correct(
    State(app): State<App>,
    registrar: Registrar,
    Path(tenant_id): Path<Uuid>,
    Json(body): Json<CorrectUsage>,
) -> Result<(StatusCode, Json<UsageCorrection>), Problem> {
    body.check()?;
    let steward = registrar.of(tenant_id);
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    tenant::find(&mut tx, tenant_id).await?.ok_or_else(missing)?;
    Scope::tenant(Role::Admin, tenant_id).enter(&mut tx).await?;
    let CorrectUsage { day, metric, delta, reason } = body;
    let correction =
        usage::Correction { tenant_id, day, metric: &metric, delta, reason: &reason, made_by: steward.name() };
    if !usage::correct(&mut tx, &correction).await? {
        let detail = "that day is not final yet, nothing of this was counted on it, or less than nothing would be left";
        return Err(Problem::new(Code::UsageNotCorrectable, detail));
    }
    let corrected = UsageCorrection { object: "usage_correction", tenant_id, day, metric, delta, reason };
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    steward.record(&mut tx, "usage.correct", &format!("usage:{day}"), made(&corrected)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(corrected)))
}

fn missing() -> Problem {
    Problem::not_found(Code::TenantNotFound, "tenant")
}

impl CorrectUsage {
    fn check(&self) -> Result<(), Problem> {
        if !METRICS.contains(&self.metric.as_str()) {
            let detail = format!("a metric is one of {}", METRICS.join(", "));
            return Err(Problem::fault("/metric", "usage.metric", detail));
        }
        // What is counted fits into 64 bits with all its corrections.
        if self.delta == 0 || self.delta.unsigned_abs() > 1 << 53 {
            return Err(Problem::fault("/delta", "usage.delta", "a correction is not 0, and at most 2^53 either way"));
        }
        if !(1..=500).contains(&self.reason.trim().chars().count()) || self.reason.contains(char::is_control) {
            return Err(Problem::fault("/reason", "usage.reason", "a reason has 1 to 500 characters"));
        }
        Ok(())
    }
}

impl UsageQuery {
    fn days(&self) -> Result<(NaiveDate, NaiveDate), Problem> {
        if self.metric.as_ref().is_some_and(|metric| !METRICS.contains(&metric.as_str())) {
            return Err(Problem::new(Code::QueryInvalid, format!("a metric is one of {}", METRICS.join(", "))));
        }
        let to = self.to.unwrap_or_else(|| Utc::now().date_naive());
        let from = self.from.or_else(|| to.checked_sub_days(Days::new(USUAL_DAYS))).unwrap_or(to);
        let years = [from, to].iter().all(|day| (1970..=9999).contains(&chrono::Datelike::year(day)));
        match years && (0..MOST_DAYS).contains(&(to - from).num_days()) {
            true => Ok((from, to)),
            false => Err(Problem::new(Code::QueryInvalid, "from comes before to, and both are within 366 days")),
        }
    }
}
