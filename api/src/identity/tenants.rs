//! `/v1/tenant`, one's own, and `/v1/platform/tenants`, all of them.

use super::{
    Registrar, Steward, account,
    steward::{Change, made},
};
use crate::{
    app::App,
    auth::{Operator, Viewer},
    extract::{
        Json, Path, Query,
        page::{self, Page},
    },
    problem::{Code, Problem, ProblemBody},
    revision::{IfMatch, Revised},
};
use axum::{extract::State, http::StatusCode};
use chrono::{DateTime, Utc};
use flatrender_workflows::models::{
    DEFAULT_TENANT, Db, Role, Scope,
    file_mgr::quota,
    identity::{
        quota::{QUOTAS, RENDER_WEIGHT, STORAGE_BYTES},
        tenant::{self, Limit, Tenant},
    },
};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Limits of rates; the others are quotas.
const RATES: [&str; 2] = ["requests", "caller_requests"];
/// The most parts of the render nodes that a tenant may get beside those with one.
const MOST_WEIGHT: i64 = 1000;
/// The longest window of a limit, in seconds.
const LONGEST_WINDOW: i32 = 86_400;

/// A tenant.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantView {
    /// Its id.
    id: Uuid,
    /// Always `tenant`.
    #[schema(example = "tenant")]
    object: &'static str,
    /// What addresses call it.
    #[schema(example = "acme")]
    slug: String,
    /// What people call it.
    #[schema(example = "Acme Films")]
    name: String,
    /// `platform` or `reseller`.
    #[schema(example = "reseller")]
    kind: String,
    /// `active`, `suspended` or `closed`.
    #[schema(example = "active")]
    status: String,
    /// Why it is suspended.
    suspended_reason: Option<String>,
    /// Its language.
    #[schema(example = "fa")]
    locale: String,
    /// Its time zone.
    #[schema(example = "Asia/Tehran")]
    timezone: String,
    /// Whether anybody may register.
    registration_open: bool,
    /// When it was made.
    created_at: DateTime<Utc>,
}

impl From<Tenant> for TenantView {
    fn from(t: Tenant) -> Self {
        Self {
            id: t.id,
            object: "tenant",
            slug: t.slug,
            name: t.name,
            kind: t.kind,
            status: t.status,
            suspended_reason: t.suspended_reason,
            locale: t.locale,
            timezone: t.timezone,
            registration_open: t.registers,
            created_at: t.created_at,
        }
    }
}

fn revised(tenant: Tenant) -> Revised<TenantView> {
    Revised::ok(tenant.rev, tenant.into())
}

/// A tenant with its limits.
#[derive(Debug, Serialize, ToSchema)]
pub struct TenantDetail {
    /// The tenant.
    #[serde(flatten)]
    tenant: TenantView,
    /// What was agreed; the defaults hold for the rest.
    limits: Vec<LimitView>,
}

/// A limit.
#[derive(Debug, Serialize, ToSchema)]
pub struct LimitView {
    /// `requests` of the tenant, `caller_requests` of each of its keys and people; or a quota: `renders_per_day`, `concurrent_renders`,
    /// `storage_bytes`, `seats`.
    #[schema(example = "requests")]
    name: String,
    /// Warned from here on.
    soft: Option<i64>,
    /// Refused beyond.
    #[schema(example = 6000)]
    hard: i64,
    /// Counted over so many seconds.
    #[schema(example = 60)]
    window_seconds: Option<i32>,
}

/// A tenant to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct CreateTenant {
    /// 2 to 64 of `a-z 0-9 -`.
    #[schema(example = "acme")]
    slug: String,
    /// 1 to 200 characters.
    #[schema(example = "Acme Films")]
    name: String,
    /// Its language, by BCP 47; English when absent.
    #[schema(example = "fa")]
    locale: Option<String>,
    /// Its time zone, by IANA; UTC when absent.
    #[schema(example = "Asia/Tehran")]
    timezone: Option<String>,
}

/// What to change of the tenant; what is absent stays.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct UpdateTenant {
    /// 1 to 200 characters.
    #[schema(example = "Acme Films")]
    name: Option<String>,
    /// Its language, by BCP 47.
    #[schema(example = "fa")]
    locale: Option<String>,
    /// Its time zone, by IANA.
    #[schema(example = "Asia/Tehran")]
    timezone: Option<String>,
    /// Whether anybody may register.
    registration_open: Option<bool>,
}

/// Why a tenant is suspended.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SuspendTenant {
    /// 1 to 1000 characters.
    #[schema(example = "invoice unpaid since May")]
    reason: String,
}

/// What a limit is to be.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetLimit {
    /// Warned from here on.
    soft: Option<i64>,
    /// Refused beyond.
    #[schema(example = 600)]
    hard: i64,
    /// Counted over so many seconds.
    #[schema(example = 60)]
    window_seconds: Option<i32>,
}

/// Which tenants to list.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListTenants {
    /// How many at most, 1 to 100; 20 when absent.
    #[param(minimum = 1, maximum = 100)]
    limit: Option<u32>,
    /// Those made before this one: `next_cursor` of the page before.
    starting_after: Option<Uuid>,
}

/// `GET /v1/tenant`
#[utoipa::path(
    get, path = "/v1/tenant", tag = "Tenant", operation_id = "get_own_tenant", summary = "Your organisation",
    description = "The tenant that the key or the person belongs to.",
    responses((status = 200, description = "Your tenant", body = TenantView, headers(("ETag" = String, description = "Its revision"))))
)]
pub async fn own(State(app): State<App>, Viewer(caller): Viewer) -> Result<Revised<TenantView>, Problem> {
    let mut tx = app.begin(&caller, Role::Identity).await?;
    Ok(revised(found(&mut tx, caller.id).await?))
}

/// `PATCH /v1/tenant`
#[utoipa::path(
    patch, path = "/v1/tenant", tag = "Tenant", operation_id = "update_own_tenant", summary = "Change your organisation",
    description = "What is absent stays as it is.", params(("If-Match" = Option<String>, Header, description = "`ETag` of the tenant as you know it")),
    request_body = UpdateTenant,
    responses(
        (status = 200, description = "The tenant, afterwards", body = TenantView, headers(("ETag" = String, description = "Its revision"))),
        (status = 412, description = "`revision.stale`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn update(
    State(app): State<App>,
    steward: Steward,
    known: IfMatch,
    Json(body): Json<UpdateTenant>,
) -> Result<Revised<TenantView>, Problem> {
    if let Some(name) = &body.name {
        check_name(name)?;
    }
    account::check_profile(None, body.locale.as_deref(), body.timezone.as_deref())?;
    let mut tx = steward.begin(&app).await?;
    let before = tenant::hold(&mut tx, steward.tenant_id).await?.ok_or_else(missing)?;
    known.check(before.rev)?;
    let change = tenant::Change {
        name: body.name.as_deref().map(str::trim),
        locale: body.locale.as_deref(),
        timezone: body.timezone.as_deref(),
        registers: body.registration_open,
    };
    tenant::update(&mut tx, steward.tenant_id, change).await?;
    let after = changed(&mut tx, &steward, "tenant.update", &before).await?;
    tx.commit().await?;
    Ok(revised(after))
}

/// `POST /v1/platform/tenants`
#[utoipa::path(
    post, path = "/v1/platform/tenants", tag = "Platform", operation_id = "create_tenant", summary = "Make a tenant",
    description = "A reseller, without people: `flatrender admin create-owner` makes its first owner.", request_body = CreateTenant,
    responses(
        (status = 201, description = "Made", body = TenantView),
        (status = 409, description = "`tenant.slug_taken`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn create(
    State(app): State<App>,
    registrar: Registrar,
    Json(body): Json<CreateTenant>,
) -> Result<(StatusCode, Json<TenantView>), Problem> {
    let (locale, timezone) = (body.locale.as_deref().unwrap_or("en"), body.timezone.as_deref().unwrap_or("UTC"));
    check_slug(&body.slug)?;
    check_name(&body.name)?;
    account::check_profile(None, Some(locale), Some(timezone))?;
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let id = tenant::create(&mut tx, &body.slug, body.name.trim(), locale, timezone).await?;
    let id = id.ok_or_else(|| Problem::new(Code::TenantSlugTaken, "another tenant has this slug"))?;
    let tenant = found(&mut tx, id).await?;
    registrar.of(id).record(&mut tx, "tenant.create", &object(id), made(&tenant)).await?;
    tx.commit().await?;
    Ok((StatusCode::CREATED, Json(tenant.into())))
}

/// `GET /v1/platform/tenants`
#[utoipa::path(
    get, path = "/v1/platform/tenants", tag = "Platform", operation_id = "list_tenants", summary = "List tenants",
    description = "Newest first, a page at a time.", params(ListTenants),
    responses((status = 200, description = "A page", body = Page<TenantView>))
)]
pub async fn list(
    State(app): State<App>,
    _: Operator,
    Query(query): Query<ListTenants>,
) -> Result<Json<Page<TenantView>>, Problem> {
    let size = page::size(query.limit)?;
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let tenants = tenant::list(&mut tx, query.starting_after, size + 1).await?;
    Ok(Json(Page::of(tenants, size, |t| t.id.to_string())))
}

/// `GET /v1/platform/tenants/{id}`
#[utoipa::path(
    get, path = "/v1/platform/tenants/{id}", tag = "Platform", operation_id = "get_tenant", summary = "Look at a tenant",
    description = "With the limits that were agreed.", params(("id" = Uuid, Path, description = "The tenant")),
    responses(
        (status = 200, description = "The tenant", body = TenantDetail),
        (status = 404, description = "`tenant.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get(State(app): State<App>, _: Operator, Path(id): Path<Uuid>) -> Result<Json<TenantDetail>, Problem> {
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    Ok(Json(detail(&mut tx, id).await?))
}

/// `POST /v1/platform/tenants/{id}/suspend`: from the next request on it can read, and nothing else.
#[utoipa::path(
    post, path = "/v1/platform/tenants/{id}/suspend", tag = "Platform", operation_id = "suspend_tenant", summary = "Suspend a tenant",
    description = "From the next request on it can read, and nothing else. What runs goes on. The platform's own tenant cannot be suspended.",
    params(("id" = Uuid, Path, description = "The tenant")), request_body = SuspendTenant,
    responses(
        (status = 200, description = "The tenant, afterwards", body = TenantView),
        (status = 404, description = "`tenant.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`tenant.closed`, `tenant.platform`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn suspend(
    State(app): State<App>,
    registrar: Registrar,
    Path(id): Path<Uuid>,
    Json(body): Json<SuspendTenant>,
) -> Result<Json<TenantView>, Problem> {
    let reason = body.reason.trim();
    if !(1..=1000).contains(&reason.chars().count()) || reason.contains('\0') {
        return Err(Problem::fault("/reason", "tenant.reason", "a reason has 1 to 1000 characters"));
    }
    if id == DEFAULT_TENANT {
        let why = "the platform's own tenant is not suspended: nobody could let it go on";
        return Err(Problem::new(Code::TenantPlatform, why));
    }
    stand(&app, registrar.of(id), "tenant.suspend", Some(reason)).await
}

/// `POST /v1/platform/tenants/{id}/resume`
#[utoipa::path(
    post, path = "/v1/platform/tenants/{id}/resume", tag = "Platform", operation_id = "resume_tenant", summary = "Let a tenant go on",
    description = "The end of a suspension.", params(("id" = Uuid, Path, description = "The tenant")),
    responses(
        (status = 200, description = "The tenant, afterwards", body = TenantView),
        (status = 404, description = "`tenant.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`tenant.closed`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn resume(
    State(app): State<App>,
    registrar: Registrar,
    Path(id): Path<Uuid>,
) -> Result<Json<TenantView>, Problem> {
    stand(&app, registrar.of(id), "tenant.resume", None).await
}

async fn stand(app: &App, steward: Steward, action: &str, reason: Option<&str>) -> Result<Json<TenantView>, Problem> {
    let mut tx = steward.begin(app).await?;
    let before = found(&mut tx, steward.tenant_id).await?;
    if !tenant::suspend(&mut tx, steward.tenant_id, reason).await? {
        return Err(closed());
    }
    let after = changed(&mut tx, &steward, action, &before).await?;
    tx.commit().await?;
    Ok(Json(after.into()))
}

/// `POST /v1/platform/tenants/{id}/close`: for good.
#[utoipa::path(
    post, path = "/v1/platform/tenants/{id}/close", tag = "Platform", operation_id = "close_tenant", summary = "Close a tenant",
    description = "For good: none of its keys and people comes in any more. The platform's own tenant cannot be closed.",
    params(("id" = Uuid, Path, description = "The tenant")),
    responses(
        (status = 200, description = "The tenant, afterwards", body = TenantView),
        (status = 404, description = "`tenant.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 409, description = "`tenant.closed`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn close(
    State(app): State<App>,
    registrar: Registrar,
    Path(id): Path<Uuid>,
) -> Result<Json<TenantView>, Problem> {
    let steward = registrar.of(id);
    let mut tx = steward.begin(&app).await?;
    let before = found(&mut tx, id).await?;
    if id == DEFAULT_TENANT || !tenant::close(&mut tx, id).await? {
        return Err(closed());
    }
    let after = changed(&mut tx, &steward, "tenant.close", &before).await?;
    tx.commit().await?;
    Ok(Json(after.into()))
}

/// `PUT /v1/platform/tenants/{id}/limits/{name}`
#[utoipa::path(
    put, path = "/v1/platform/tenants/{id}/limits/{name}", tag = "Platform", operation_id = "set_tenant_limit", summary = "Agree on a limit",
    description = "`requests` of the tenant and `caller_requests` of each of its keys and people, within a window; `renders_per_day`, \
                   `concurrent_renders`, `storage_bytes` and `seats` without one. Counts from the next request on; what is there stays. \
                   `render_weight` (1 to 1000) limits nothing: while several tenants wait for nodes, one with 3 gets three times as much \
                   as one with 1, and those without it have 1.",
    params(("id" = Uuid, Path, description = "The tenant"), ("name" = String, Path, description = "The limit")), request_body = SetLimit,
    responses(
        (status = 200, description = "The tenant, afterwards", body = TenantDetail),
        (status = 404, description = "`tenant.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn set_limit(
    State(app): State<App>,
    registrar: Registrar,
    Path((id, name)): Path<(Uuid, String)>,
    Json(body): Json<SetLimit>,
) -> Result<Json<TenantDetail>, Problem> {
    let limit = body.check(name)?;
    let steward = registrar.of(id);
    let mut tx = steward.begin(&app).await?;
    found(&mut tx, id).await?;
    let before = limits(&mut tx, id).await?.into_iter().find(|l| l.name == limit.name);
    match limit.name.as_str() {
        STORAGE_BYTES => agree_on_storage(&mut tx, id, &limit).await?,
        _ => tenant::set_limit(&mut tx, id, &limit).await?,
    }
    let change = Change { before, after: Some(&limit) };
    steward.record(&mut tx, "tenant.set_limit", &object(id), change).await?;
    let tenant = detail(&mut tx, id).await?;
    tx.commit().await?;
    Ok(Json(tenant))
}

impl SetLimit {
    fn check(self, name: String) -> Result<Limit, Problem> {
        let is_rate = RATES.contains(&name.as_str());
        let is_weight = name == RENDER_WEIGHT;
        if !is_rate && !is_weight && !QUOTAS.contains(&name.as_str()) {
            let known = [&RATES[..], &QUOTAS, &[RENDER_WEIGHT]].concat().join(", ");
            return Err(Problem::fault(
                "/name",
                "limit.name",
                format!("there is no limit {name:?}; there are {known}"),
            ));
        }
        if is_weight && !(1..=MOST_WEIGHT).contains(&self.hard) {
            return Err(Problem::fault("/hard", "limit.value", format!("a weight is 1 to {MOST_WEIGHT}")));
        }
        if !is_rate && self.window_seconds.is_some() {
            return Err(Problem::fault("/window_seconds", "limit.value", "only a rate has a window"));
        }
        let Self { soft, hard, window_seconds } = self;
        let fits = hard >= 0 && soft.is_none_or(|s| (0..=hard).contains(&s));
        if !fits || window_seconds.is_some_and(|w| !(1..=LONGEST_WINDOW).contains(&w)) {
            let detail =
                "a limit is not negative, its soft value not above the hard one, its window 1 to 86400 seconds";
            return Err(Problem::fault("/hard", "limit.value", detail));
        }
        Ok(Limit { name, soft, hard, window_seconds })
    }
}

async fn changed(db: Db<'_>, steward: &Steward, action: &str, before: &Tenant) -> Result<Tenant, Problem> {
    let after = found(&mut *db, before.id).await?;
    let change = Change { before: Some(before), after: Some(&after) };
    steward.record(db, action, &object(before.id), change).await?;
    Ok(after)
}

async fn found(db: Db<'_>, id: Uuid) -> Result<Tenant, Problem> {
    tenant::find(db, id).await?.ok_or_else(missing)
}

fn missing() -> Problem {
    Problem::not_found(Code::TenantNotFound, "tenant")
}

async fn detail(db: Db<'_>, id: Uuid) -> Result<TenantDetail, Problem> {
    let tenant = found(&mut *db, id).await?.into();
    let limits = limits(db, id).await?;
    let view = |l: Limit| LimitView { name: l.name, soft: l.soft, hard: l.hard, window_seconds: l.window_seconds };
    Ok(TenantDetail { tenant, limits: limits.into_iter().map(view).collect() })
}

/// Every limit of a tenant: what it may keep stands with its files.
async fn limits(db: Db<'_>, id: Uuid) -> Result<Vec<Limit>, Problem> {
    let mut limits = tenant::limits(&mut *db, id).await?;
    Scope::tenant(Role::File, id).enter(&mut *db).await?;
    let kept = quota::find(&mut *db, id, None).await?;
    Scope::tenant(Role::Identity, id).enter(db).await?;
    let limit = |hard| Limit { name: STORAGE_BYTES.to_owned(), soft: kept.soft_bytes, hard, window_seconds: None };
    limits.extend(kept.limit_bytes.map(limit));
    limits.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(limits)
}

async fn agree_on_storage(db: Db<'_>, id: Uuid, limit: &Limit) -> Result<(), Problem> {
    Scope::tenant(Role::File, id).enter(&mut *db).await?;
    let files = quota::find(&mut *db, id, None).await?.limit_files;
    let limits = quota::Limits { soft_bytes: limit.soft, bytes: Some(limit.hard), files };
    quota::agree(&mut *db, id, None, limits).await?;
    Ok(Scope::tenant(Role::Identity, id).enter(db).await?)
}

fn check_slug(slug: &str) -> Result<(), Problem> {
    let edge = |c: Option<char>| c.is_some_and(|c| c != '-');
    let fine = (2..=64).contains(&slug.len())
        && slug.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
        && edge(slug.chars().next())
        && edge(slug.chars().last());
    let detail = "a slug is 2 to 64 of a-z 0-9 -, with a letter or digit at both ends";
    fine.then_some(()).ok_or_else(|| Problem::fault("/slug", "tenant.slug", detail))
}

fn check_name(name: &str) -> Result<(), Problem> {
    let fine = (1..=200).contains(&name.trim().chars().count()) && !name.chars().any(char::is_control);
    let detail = "a tenant's name has 1 to 200 characters, and no control characters";
    fine.then_some(()).ok_or_else(|| Problem::fault("/name", "tenant.name", detail))
}

fn closed() -> Problem {
    Problem::new(Code::TenantClosed, "the tenant is closed for good, or is the platform's own, which cannot be")
}

fn object(id: Uuid) -> String {
    format!("tenant:{id}")
}
