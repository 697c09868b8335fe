//! `/v1/platform/holds`: what nobody may remove, for whoever runs the platform.

use crate::{
    app::App,
    auth::Operator,
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    identity::{Change, Registrar, made},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    Role, Scope,
    file_mgr::hold::{self, Hold, NewHold},
    identity::tenant,
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// A legal hold.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct HoldView {
    /// Its id.
    id: Uuid,
    /// Always `hold`.
    #[schema(example = "hold")]
    object: &'static str,
    /// Whose files; all of them, unless one of the next two is said.
    tenant_id: Uuid,
    /// Those of this person.
    owner_id: Option<Uuid>,
    /// This file.
    file_id: Option<Uuid>,
    /// Why.
    #[schema(example = "court order 17/2026")]
    reason: String,
    /// Who placed it.
    placed_by: String,
    /// When.
    created_at: DateTime<Utc>,
    /// Who released it.
    released_by: Option<String>,
    /// When.
    released_at: Option<DateTime<Utc>>,
}

impl From<Hold> for HoldView {
    fn from(h: Hold) -> Self {
        Self {
            id: h.id,
            object: "hold",
            tenant_id: h.tenant_id,
            owner_id: h.owner_id,
            file_id: h.file_id,
            reason: h.reason,
            placed_by: h.placed_by,
            created_at: h.created_at,
            released_by: h.released_by,
            released_at: h.released_at,
        }
    }
}

/// A hold to be placed.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct PlaceHold {
    /// Of the files of this person alone.
    owner_id: Option<Uuid>,
    /// Or of this file alone.
    file_id: Option<Uuid>,
    /// Why, 1 to 1000 characters.
    #[schema(example = "court order 17/2026")]
    reason: String,
}

/// Which holds to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListHolds {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those before this one: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
    /// Only those that stand; all when absent.
    #[serde(default)]
    standing: bool,
}

/// `GET /v1/platform/holds`
#[utoipa::path(
    get, path = "/v1/platform/holds", tag = "Platform", operation_id = "list_holds", summary = "List legal holds",
    description = "Newest first, a page at a time.", params(ListHolds),
    responses((status = 200, description = "A page", body = Page<HoldView>))
)]
pub async fn list(
    State(app): State<App>,
    _: Operator,
    Query(query): Query<ListHolds>,
) -> Result<Json<Page<HoldView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = app.db.begin(Scope::platform(Role::File)).await?;
    let holds = hold::list(&mut tx, None, query.standing, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(holds, size, |h| h.id.to_string())))
}

/// `POST /v1/platform/tenants/{id}/holds`
#[utoipa::path(
    post, path = "/v1/platform/tenants/{id}/holds", tag = "Platform", operation_id = "place_hold", summary = "Place a legal hold",
    description = "What it covers is not removed by anything until it is released, whatever retention says: all files of the tenant, those \
                   of one person, or one.",
    params(("id" = Uuid, Path, description = "The tenant")), request_body = PlaceHold,
    responses(
        (status = 201, description = "Placed", body = HoldView),
        (status = 404, description = "`tenant.not_found`, `file.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn place(
    State(app): State<App>,
    registrar: Registrar,
    Path(tenant_id): Path<Uuid>,
    Json(body): Json<PlaceHold>,
) -> Result<(StatusCode, Json<HoldView>), Problem> {
    if !(1..=1000).contains(&body.reason.trim().chars().count()) || body.reason.contains(char::is_control) {
        return Err(Problem::fault("/reason", "hold.reason", "a reason has 1 to 1000 characters"));
    }
    if body.owner_id.is_some() && body.file_id.is_some() {
        return Err(Problem::fault("/file_id", "hold.of_one_thing", "a hold is of a person's files, or of one file"));
    }
    let steward = registrar.of(tenant_id);
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    tenant::find(&mut tx, tenant_id).await?.ok_or_else(|| Problem::not_found(Code::TenantNotFound, "tenant"))?;
    Scope::tenant(Role::File, tenant_id).enter(&mut tx).await?;
    let PlaceHold { owner_id, file_id, reason } = body;
    let new = NewHold { tenant_id, owner_id, file_id, reason: reason.trim(), placed_by: steward.name() };
    let no_file = || Problem::not_found(Code::FileNotFound, "file of the tenant");
    let id = hold::place(&mut tx, &new).await?.ok_or_else(no_file)?;
    let held: HoldView = hold::list(&mut tx, Some(id), false, None, 1).await?.pop().ok_or_else(none)?.into();
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    steward.record(&mut tx, "hold.place", &format!("hold:{id}"), made(&held)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(held)))
}

/// `POST /v1/platform/holds/{id}/release`
#[utoipa::path(
    post, path = "/v1/platform/holds/{id}/release", tag = "Platform", operation_id = "release_hold", summary = "Release a legal hold",
    description = "From here on retention and rules hold again; what is overdue goes within the hour.",
    params(("id" = Uuid, Path, description = "The hold")),
    responses(
        (status = 200, description = "Released", body = HoldView),
        (status = 404, description = "`hold.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn release(
    State(app): State<App>,
    registrar: Registrar,
    Path(id): Path<Uuid>,
) -> Result<Json<HoldView>, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::File)).await?;
    let before: HoldView = hold::list(&mut tx, Some(id), true, None, 1).await?.pop().ok_or_else(none)?.into();
    let steward = registrar.of(before.tenant_id);
    let released: HoldView = hold::release(&mut tx, id, steward.name()).await?.ok_or_else(none)?.into();
    Scope::tenant(Role::Identity, before.tenant_id).enter(&mut tx).await?;
    let change = Change { before: Some(&before), after: Some(&released) };
    steward.record(&mut tx, "hold.release", &format!("hold:{id}"), change).await?;
    tx.commit().await?;
    Ok(Json(released))
}

fn none() -> Problem {
    Problem::not_found(Code::HoldNotFound, "hold that stands")
}
