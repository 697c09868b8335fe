//! `/v1/request-logs`

use super::Steward;
use crate::{
    app::App,
    extract::{
        Json, Query,
        page::{self, Page},
    },
    problem::{Code, Problem},
};
use axum::extract::State;
use chrono::{DateTime, Utc};
use flatrender_workflows::models::identity::request_log::{self, Entry, Filter};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A request that somebody of the tenant made.
#[derive(Debug, Serialize, ToSchema)]
pub struct RequestLogEntry {
    /// Its id.
    id: Uuid,
    /// Always `request`.
    #[schema(example = "request")]
    object: &'static str,
    /// When it came.
    at: DateTime<Utc>,
    /// The key that asked.
    api_key_id: Option<Uuid>,
    /// The person who asked.
    user_id: Option<Uuid>,
    /// The method.
    #[schema(example = "POST")]
    method: String,
    /// The route, with names in place of ids.
    #[schema(example = "/v1/renders/{id}")]
    route: String,
    /// HTTP status.
    #[schema(example = 202)]
    status: i16,
    /// Microseconds until the answer began.
    #[schema(example = 5200)]
    latency_us: i64,
    /// Bytes of the request's body that were read.
    bytes_in: i64,
    /// Bytes of the answer's body that were sent.
    bytes_out: i64,
    /// Where it came from.
    #[schema(example = "192.0.2.7")]
    ip: Option<String>,
    /// The `x-request-id` of the answer.
    request_id: String,
    /// The code of the problem that was answered.
    #[schema(example = "request.invalid")]
    error_code: Option<String>,
}

impl From<Entry> for RequestLogEntry {
    fn from(e: Entry) -> Self {
        Self {
            id: e.id,
            object: "request",
            at: e.at,
            api_key_id: e.api_key_id,
            user_id: e.user_id,
            method: e.method,
            route: e.route,
            status: e.status,
            latency_us: e.latency_us,
            bytes_in: e.bytes_in,
            bytes_out: e.bytes_out,
            ip: e.ip.map(|ip| ip.to_string()),
            request_id: e.request_id,
            error_code: e.error_type,
        }
    }
}

/// Which requests to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListRequestLogs {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this one: `next_cursor` of the page before.
    starting_after: Option<String>,
    /// Only those of this key.
    api_key_id: Option<Uuid>,
    /// Only those answered with this status or a higher one; 400 gives the failures.
    #[param(example = 400, minimum = 100, maximum = 599)]
    min_status: Option<i16>,
}

/// `GET /v1/request-logs`: what the tenant's keys and people asked, newest first.
#[utoipa::path(
    get, path = "/v1/request-logs", tag = "Tenant", operation_id = "list_request_logs", summary = "List requests",
    description = "What the tenant's keys and people asked of the API, newest first, a page at a time: routes and outcomes, never bodies. \
                   A request is there a second or two after its answer, and for 13 months.",
    params(ListRequestLogs), responses((status = 200, description = "A page", body = Page<RequestLogEntry>))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListRequestLogs>,
) -> Result<Json<Page<RequestLogEntry>>, Problem> {
    let size = page::size(query.limit)?;
    let before = query.starting_after.as_deref().map(position).transpose()?;
    let filter = Filter { api_key_id: query.api_key_id, min_status: query.min_status, before };
    let mut tx = steward.begin(&app).await?;
    let entries = request_log::list(&mut tx, steward.tenant_id, filter, size + 1).await?;
    Ok(Json(Page::of(entries, size, |e| format!("{}_{}", e.at.timestamp_micros(), e.id))))
}

/// What a cursor names.
fn position(cursor: &str) -> Result<(DateTime<Utc>, Uuid), Problem> {
    let parts = cursor.split_once('_').and_then(|(micros, id)| Some((micros.parse().ok()?, id.parse().ok()?)));
    parts
        .and_then(|(micros, id)| Some((DateTime::from_timestamp_micros(micros)?, id)))
        .filter(|(at, _)| (2020..2100).contains(&chrono::Datelike::year(at)))
        .ok_or_else(|| Problem::new(Code::QueryInvalid, "starting_after is no cursor of this list"))
}
