//! `GET /v1/operate/audit`: what was done to runs, queues and nodes' tasks, by whom and why.

use super::{Party, operations, redact};
use crate::{
    app::App,
    extract::{Json, Query, page},
    problem::{Code, Problem},
};
use axum::extract::State;
use chrono::{DateTime, Utc};
use flatrender_engine::operations::{AuditFilter, AuditRow};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Longest text of a filter, in bytes.
const LONGEST: usize = 250;

/// Something that was done.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeedView {
    /// In the order of the deeds, with gaps.
    #[schema(example = "17")]
    pub id: String,
    /// Always `deed`.
    #[schema(example = "deed")]
    object: &'static str,
    /// When.
    at: DateTime<Utc>,
    /// Who.
    #[schema(example = "user:0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11")]
    actor: String,
    /// What.
    #[schema(example = "cancel")]
    action: String,
    /// Whose run it was about.
    tenant_id: Option<Uuid>,
    /// To what: `run:<id>`, `task:<id>`, `job:<id>`, `queue:<name>` or `bulk:<id>`.
    #[schema(example = "run:0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e12")]
    target: String,
    /// Why.
    reason: Option<String>,
    /// What it was before.
    #[schema(value_type = Option<Object>)]
    before: Option<Value>,
    /// What it is since.
    #[schema(value_type = Option<Object>)]
    after: Option<Value>,
}

impl From<AuditRow> for DeedView {
    fn from(row: AuditRow) -> Self {
        Self {
            id: row.id.to_string(),
            object: "deed",
            at: row.at,
            actor: row.actor,
            action: row.action,
            tenant_id: row.tenant_id,
            target: row.target,
            reason: row.reason,
            before: row.before.map(redact::shown),
            after: row.after.map(redact::shown),
        }
    }
}

/// A page of what was done.
#[derive(Debug, Serialize, ToSchema)]
pub struct DeedPage {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Newest first.
    data: Vec<DeedView>,
    /// Whether there may be older ones.
    has_more: bool,
    /// `starting_after` of the next page.
    next_cursor: Option<String>,
}

/// Which deeds to list; everything that is given must fit.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListDeeds {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this: `next_cursor` of the page before.
    starting_after: Option<i64>,
    /// About runs of this tenant.
    tenant_id: Option<Uuid>,
    /// By this actor.
    #[param(example = "cli")]
    actor: Option<String>,
    /// Of this kind.
    #[param(example = "cancel")]
    action: Option<String>,
    /// To this.
    #[param(example = "queue:node.render")]
    target: Option<String>,
}

/// `GET /v1/operate/audit`
#[utoipa::path(
    get, path = "/v1/operate/audit", tag = "Runs", operation_id = "list_deeds", summary = "List what was done to runs and queues",
    description = "Each operation on a run, a task, a queue or many runs: written in the transaction in which it was done, and never changed. \
                   Newest first, a page at a time. What people did besides is in `GET /v1/audit`.",
    params(ListDeeds), responses((status = 200, description = "A page", body = DeedPage))
)]
pub async fn list(
    State(app): State<App>,
    party: Party,
    Query(query): Query<ListDeeds>,
) -> Result<Json<DeedPage>, Problem> {
    let size = page::size(query.limit)?;
    let texts = [&query.actor, &query.action, &query.target];
    if texts.into_iter().flatten().any(|text| text.len() > LONGEST || text.contains('\0')) {
        return Err(Problem::new(Code::QueryInvalid, "a filter's texts have at most 250 bytes, none of them NUL"));
    }
    let tenant = party.tenant(query.tenant_id)?;
    let filter = AuditFilter { tenant, actor: query.actor, action: query.action, target: query.target };
    let (rows, next) = operations(&app).audit(&filter, query.starting_after, size as u32).await?;
    Ok(Json(DeedPage {
        object: "list",
        data: rows.into_iter().map(Into::into).collect(),
        has_more: next.is_some(),
        next_cursor: next.map(|id| id.to_string()),
    }))
}
