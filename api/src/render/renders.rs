//! `/v1/renders`

use super::{
    submit::{self, Submitted},
    tagged::tagged,
    view::{self, Render},
};
use crate::{
    app::App,
    auth::{Editor, Tenant, Viewer},
    extract::{Json, Path, Query},
    problem::{Code, Problem},
};
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flatrender_workflows::models::{
    Role, Scope,
    render::{
        order::RenderOrder,
        render_job::{self, CancelAsked},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Tells a client that an earlier request of its made this render.
pub const REPLAYED: HeaderName = HeaderName::from_static("idempotent-replayed");

/// `POST /v1/renders`: freezes an order and starts its render. Answers 202 with the render.
#[utoipa::path(
    post, path = "/v1/renders", tag = "Renders", operation_id = "create_render",
    summary = "Order a film",
    description = "Checks the order against the template, freezes it and starts the render. With an \
                   `Idempotency-Key` the same order gives the same render, however often it is sent.",
    params(("Idempotency-Key" = Option<String>, Header, max_length = 255, pattern = r"^[\t -~]+$", description = "1 to 255 printable ASCII characters, yours")),
    request_body(content = RenderOrder, examples(
        ("small" = (summary = "Only what is required", value = json!({"template": "promo", "data": {"texts": {"title": "Spring sale", "tagline": "Only this week"}}}))),
        ("whole" = (summary = "Texts, a picture, a theme, scenes, sound and size", value = json!({
            "template": "promo",
            "data": {
                "texts": {"title": "Spring sale", "tagline": "Only this week"}, "images": {"logo": "0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11"}, "theme": "lapis",
                "scenes": [{"id": "title"}, {"id": "photos", "seconds": 4.5}, {"id": "logo"}]
            },
            "audio": {"music": {"volume": 0.7}, "ducking": true},
            "output": {"height": 720, "quality": "final"},
            "metadata": {"order": 4711}
        })))
    )),
    responses(
        (status = 202, description = "Accepted; watch `Location` or its events", body = Render, headers(
            ("Location" = String, description = "The render"),
            ("Idempotent-Replayed" = String, description = "`true` when an earlier request with this key made the render")
        )),
        (status = 402, description = "`credits.insufficient`", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 403, description = "`plan.limit`", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`quota.storage`", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 429, description = "`quota.renders_per_day`, `quota.concurrent_renders`", body = crate::problem::ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`, `template.unknown`, `idempotency.key_reused`", body = crate::problem::ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    Editor(tenant): Editor,
    headers: HeaderMap,
    Json(order): Json<RenderOrder>,
) -> Result<Response, Problem> {
    let key = submit::idempotency_key(&headers)?;
    let submitted = submit::submit(&app, &tenant, key, &order).await?;
    Ok(accepted(submitted))
}

fn accepted(submitted: Submitted) -> Response {
    let (render, replayed) = match submitted {
        Submitted::New(render) => (render, false),
        Submitted::Replayed(render) => (render, true),
    };
    let location = [(header::LOCATION, format!("/v1/renders/{}", render.id))];
    let mut response = (StatusCode::ACCEPTED, location, Json(render)).into_response();
    if replayed {
        response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    }
    response
}

/// Which renders to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListRenders {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those older than this render: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// A page of renders.
#[derive(Debug, Serialize, ToSchema)]
pub struct RenderList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Newest first.
    data: Vec<Render>,
    /// Whether there are older ones.
    has_more: bool,
    /// `starting_after` of the next page.
    next_cursor: Option<Uuid>,
}

/// `GET /v1/renders`: the tenant's renders, newest first.
#[utoipa::path(
    get, path = "/v1/renders", tag = "Renders", operation_id = "list_renders", summary = "List renders",
    description = "Newest first, a page at a time.", params(ListRenders),
    responses((status = 200, description = "A page", body = RenderList))
)]
pub async fn list(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Query(query): Query<ListRenders>,
) -> Result<Json<RenderList>, Problem> {
    let limit = query.page_size()?;
    let mut tx = app.begin(&tenant, Role::Render).await?;
    let mut jobs = render_job::list(&mut tx, tenant.id, query.starting_after, limit + 1).await?;
    let has_more = jobs.len() > limit as usize;
    jobs.truncate(limit as usize);
    let data = view::of_jobs(&mut tx, tenant.id, jobs).await?;
    let next_cursor = data.last().filter(|_| has_more).map(|r| r.id);
    Ok(Json(RenderList { object: "list", data, has_more, next_cursor }))
}

impl ListRenders {
    fn page_size(&self) -> Result<i64, Problem> {
        let limit = self.limit.unwrap_or(20);
        let fits = (1..=100).contains(&limit);
        fits.then_some(limit.into()).ok_or_else(|| Problem::new(Code::QueryInvalid, "limit is 1 to 100"))
    }
}

/// `GET /v1/renders/{id}`: one render.
#[utoipa::path(
    get, path = "/v1/renders/{id}", tag = "Renders", operation_id = "get_render", summary = "Get a render",
    description = "Where it stands right now. To follow it, use its events; or ask with `If-None-Match`: nothing new is a 304.",
    params(
        ("id" = Uuid, Path, description = "The render"),
        ("If-None-Match" = Option<String>, Header, description = "`ETag` of the answer before")
    ),
    responses(
        (status = 200, description = "The render", body = Render, headers(("ETag" = String, description = "Of this answer"))),
        (status = 304, description = "Nothing has changed"),
        (status = 404, description = "`render.not_found`", body = crate::problem::ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(
    State(app): State<App>,
    Viewer(tenant): Viewer,
    Path(id): Path<Uuid>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let mut tx = app.begin(&tenant, Role::Render).await?;
    let job = render_job::find(&mut tx, tenant.id, id).await?;
    let job = job.ok_or_else(|| Problem::not_found(Code::RenderNotFound, "render"))?;
    let (run_id, is_live) = (job.workflow_run_id, !job.has_ended());
    let mut render = view::of_job(&mut tx, tenant.id, job).await?;
    drop(tx);
    if is_live {
        render.waiting_because = app.placement.why_waiting(&app, tenant.id, run_id).await?;
    }
    tagged(&headers, &render)
}

/// A render of the tenant.
///
/// # Errors
/// `render.not_found`
pub async fn find(app: &App, tenant: &Tenant, id: Uuid) -> Result<Render, Problem> {
    let mut tx = app.begin(tenant, Role::Render).await?;
    let job = render_job::find(&mut tx, tenant.id, id).await?;
    let job = job.ok_or_else(|| Problem::not_found(Code::RenderNotFound, "render"))?;
    Ok(view::of_job(&mut tx, tenant.id, job).await?)
}

/// `POST /v1/renders/{id}/cancel`: stops a render soon. Answers 202 with the render; asking twice is harmless.
#[utoipa::path(
    post, path = "/v1/renders/{id}/cancel", tag = "Renders", operation_id = "cancel_render", summary = "Cancel a render",
    description = "The renderer is stopped within seconds; the render then ends as `cancelled`. Asking twice is harmless.",
    params(("id" = Uuid, Path, description = "The render")),
    responses(
        (status = 202, description = "Noted", body = Render),
        (status = 409, description = "`render.finished`, `render.too_late`", body = crate::problem::ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn cancel(
    State(app): State<App>,
    Editor(tenant): Editor,
    Path(id): Path<Uuid>,
) -> Result<(StatusCode, Json<Render>), Problem> {
    let mut tx = app.begin(&tenant, Role::Render).await?;
    let job = render_job::find(&mut tx, tenant.id, id).await?;
    let job = job.ok_or_else(|| Problem::not_found(Code::RenderNotFound, "render"))?;
    // The job first: a step writes the job and then its record in the run, and so must we.
    may_cancel(render_job::ask_cancel(&mut tx, tenant.id, id).await?)?;
    Scope::tenant(Role::Workflow, tenant.id).enter(&mut tx).await?;
    app.workflows.cancel(&mut tx, job.workflow_run_id, "asked for by the customer").await?;
    tx.commit().await?;
    app.workflows.announce();
    Ok((StatusCode::ACCEPTED, Json(find(&app, &tenant, id).await?)))
}

/// What was asked for is undone with the transaction when the answer is no.
fn may_cancel(asked: CancelAsked) -> Result<(), Problem> {
    match asked {
        CancelAsked::Noted { .. } => Ok(()),
        CancelAsked::TooLate => Err(Problem::new(Code::RenderTooLate, "the film is being published already")),
        CancelAsked::Ended => Err(Problem::new(Code::RenderFinished, "the render has ended already")),
        CancelAsked::Unknown => Err(Problem::not_found(Code::RenderNotFound, "render")),
    }
}
