//! `/v1/usage`

use crate::{
    app::App,
    auth::Viewer,
    extract::{Json, Query},
    problem::{Code, Problem, ProblemBody},
};
use axum::extract::State;
use chrono::{Days, NaiveDate, Utc};
use flatrender_workflows::models::{
    Role,
    identity::usage::{self, METRICS, Usage},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::{IntoParams, ToSchema};

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
    description = "By day, in UTC. Counted every hour, and again for three days; then a day is final; what is found out later is a correction, which counts.", params(UsageQuery),
    responses(
        (status = 200, description = "What was used", body = UsageView),
        (status = 400, description = "`query.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    Viewer(caller): Viewer,
    Query(query): Query<UsageQuery>,
) -> Result<Json<UsageView>, Problem> {
    let (from, to) = query.days()?;
    let mut tx = app.begin(&caller, Role::Identity).await?;
    let figures = usage::list(&mut tx, caller.id, from, to, query.metric.as_deref()).await?;
    let mut totals = BTreeMap::new();
    for figure in &figures {
        *totals.entry(figure.metric.clone()).or_default() += figure.quantity;
    }
    let data = figures.into_iter().map(Into::into).collect();
    Ok(Json(UsageView { object: "usage", from, to, totals, data }))
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
