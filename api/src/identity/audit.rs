//! `/v1/audit`

use super::Steward;
use crate::{
    app::App,
    extract::{
        Json, Query,
        page::{self, Page},
    },
    problem::Problem,
};
use axum::extract::State;
use chrono::{DateTime, Utc};
use flatrender_workflows::models::identity::audit::{self, Written};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

/// Something that somebody did.
#[derive(Debug, Serialize, ToSchema)]
pub struct AuditEntry {
    /// Its place in the tenant's chain, from 1.
    seq: i64,
    /// Always `audit_entry`.
    #[schema(example = "audit_entry")]
    object: &'static str,
    /// When.
    at: DateTime<Utc>,
    /// Who did it.
    #[schema(example = "key:0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11")]
    actor: String,
    /// What was done.
    #[schema(example = "api_key.revoke")]
    action: String,
    /// To what.
    #[schema(example = "api_key:0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e12")]
    target: String,
    /// Why, as far as somebody said.
    reason: Option<String>,
    /// From which address.
    ip: Option<String>,
    /// In which request.
    request_id: Option<String>,
    /// SHA-256 of the object before, hexadecimal.
    before_hash: Option<String>,
    /// SHA-256 of the object afterwards, hexadecimal.
    after_hash: Option<String>,
    /// SHA-256 over this entry and the hash of the one before it, hexadecimal: one that is changed or missing shows.
    chain_hash: String,
}

impl From<Written> for AuditEntry {
    fn from(written: Written) -> Self {
        Self {
            seq: written.seq,
            object: "audit_entry",
            at: written.at,
            actor: written.actor,
            action: written.action,
            target: written.object,
            reason: written.reason,
            ip: written.ip,
            request_id: written.request_id,
            before_hash: written.before_hash.map(hex::encode),
            after_hash: written.after_hash.map(hex::encode),
            chain_hash: hex::encode(written.chain_hash),
        }
    }
}

/// Which entries to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListAudit {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this `seq`: `next_cursor` of the page before.
    starting_after: Option<i64>,
    /// Only this action.
    #[param(example = "api_key.revoke")]
    action: Option<String>,
}

/// `GET /v1/audit`: what people did in the tenant, newest first.
#[utoipa::path(
    get, path = "/v1/audit", tag = "Tenant", operation_id = "list_audit", summary = "List what was done",
    description = "Every privileged action in the tenant, newest first, a page at a time. Nobody can change or remove an entry: \
                   each holds the hash of the one before it.",
    params(ListAudit), responses((status = 200, description = "A page", body = Page<AuditEntry>))
)]
pub async fn list(
    State(app): State<App>,
    steward: Steward,
    Query(query): Query<ListAudit>,
) -> Result<Json<Page<AuditEntry>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = steward.begin(&app).await?;
    let written =
        audit::list(&mut tx, steward.tenant_id, query.action.as_deref(), query.starting_after, size + 1).await?;
    Ok(Json(Page::of(written, size, |w| w.seq.to_string())))
}
