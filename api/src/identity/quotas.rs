//! `/v1/tenant/quotas`, and the refusals of what goes beyond them.

use crate::{
    app::App,
    auth::Viewer,
    extract::Json,
    problem::{Code, Problem},
};
use axum::{extract::State, http::header};
use flatrender_workflows::models::{
    Db, Role, Scope,
    file_mgr::blob,
    identity::{
        quota::{self, CONCURRENT_RENDERS, QUOTAS, RENDERS_PER_DAY, SEATS, STORAGE_BYTES},
        role_binding,
    },
    render::render_job::{self, Load},
};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// When to ask again for a film while others are under way: nobody knows when one ends.
const SOON_SECONDS: u64 = 30;

/// What a tenant may use, and uses.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuotaList {
    /// Always `list`.
    #[schema(example = "list")]
    object: &'static str,
    /// Every quota.
    data: Vec<QuotaView>,
}

/// A quota.
#[derive(Debug, Serialize, ToSchema)]
pub struct QuotaView {
    /// `renders_per_day` (by UTC), `concurrent_renders`, `storage_bytes` or `seats`.
    #[schema(example = "renders_per_day")]
    name: &'static str,
    /// How much is used now.
    #[schema(example = 12)]
    used: i64,
    /// The most there may be; null when nothing was agreed.
    #[schema(example = 100)]
    limit: Option<i64>,
}

/// `GET /v1/tenant/quotas`
#[utoipa::path(
    get, path = "/v1/tenant/quotas", tag = "Tenant", operation_id = "get_quotas", summary = "See what may be used",
    description = "What was agreed, and what is used of it right now. What goes beyond is refused with `quota.…`.",
    responses((status = 200, description = "Every quota", body = QuotaList))
)]
pub async fn get(State(app): State<App>, Viewer(caller): Viewer) -> Result<Json<QuotaList>, Problem> {
    let mut tx = app.begin(&caller, Role::Identity).await?;
    let agreed = quota::agreed(&mut tx, caller.id, &QUOTAS).await?;
    let seats = role_binding::seats(&mut tx, caller.id).await?;
    Scope::tenant(Role::File, caller.id).enter(&mut tx).await?;
    let bytes = blob::kept_bytes(&mut tx, caller.id).await?;
    Scope::tenant(Role::Render, caller.id).enter(&mut tx).await?;
    let load = render_job::load(&mut tx, caller.id).await?;
    let used = [load.today, load.under_way, bytes, seats];
    let data = QUOTAS.into_iter().zip(used).map(|(name, used)| QuotaView { name, used, limit: agreed.of(name) });
    Ok(Json(QuotaList { object: "list", data: data.collect() }))
}

/// Whether the tenant may order one more film. Orders of a tenant that has agreed on a quota take turns from here to the end of the
/// transaction, which goes on in another scope than before.
///
/// # Errors
/// `quota.renders_per_day`, `quota.concurrent_renders`, `quota.storage`
pub async fn check_order(db: Db<'_>, tenant_id: Uuid) -> Result<(), Problem> {
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    let agreed = quota::hold(&mut *db, tenant_id, &[RENDERS_PER_DAY, CONCURRENT_RENDERS, STORAGE_BYTES]).await?;
    if agreed.is_nothing() {
        return Ok(());
    }
    if let Some(most) = agreed.of(STORAGE_BYTES) {
        Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
        if blob::kept_bytes(&mut *db, tenant_id).await? >= most {
            return Err(no_room(most));
        }
    }
    Scope::tenant(Role::Render, tenant_id).enter(&mut *db).await?;
    let Load { today, under_way, day_ends_in_seconds } = render_job::load(db, tenant_id).await?;
    if let Some(most) = agreed.of(RENDERS_PER_DAY).filter(|most| today >= *most) {
        let detail = format!("{most} films a day are agreed; the next day begins in {day_ends_in_seconds} s");
        let wait = u64::try_from(day_ends_in_seconds).unwrap_or_default().max(1);
        return Err(Problem::new(Code::QuotaRendersPerDay, detail).with_header(header::RETRY_AFTER, wait.into()));
    }
    if let Some(most) = agreed.of(CONCURRENT_RENDERS).filter(|most| under_way >= *most) {
        let detail = format!("{most} films at a time are agreed; wait until one has ended, or cancel one");
        let problem = Problem::new(Code::QuotaConcurrentRenders, detail);
        return Err(problem.with_header(header::RETRY_AFTER, SOON_SECONDS.into()));
    }
    Ok(())
}

/// Whether there is room for an upload of so many bytes as far as can be told before it is kept.
///
/// # Errors
/// `quota.storage`
pub async fn check_room(app: &App, tenant_id: Uuid, adding: u64) -> Result<(), Problem> {
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, tenant_id)).await?;
    let Some(most) = quota::agreed(&mut tx, tenant_id, &[STORAGE_BYTES]).await?.of(STORAGE_BYTES) else {
        return Ok(());
    };
    Scope::tenant(Role::File, tenant_id).enter(&mut tx).await?;
    let kept = blob::kept_bytes(&mut tx, tenant_id).await?;
    match u64::try_from(most - kept).is_ok_and(|left| adding <= left) {
        true => Ok(()),
        false => Err(no_room(most)),
    }
}

/// Whether all fits that `add` adds. Uploads of a tenant that has agreed on its storage take turns from here to the end of the
/// transaction, which goes on as of its files.
///
/// # Errors
/// `quota.storage`; then the transaction is to be given up.
pub async fn within_room<T>(
    db: Db<'_>,
    tenant_id: Uuid,
    add: impl AsyncFnOnce(Db<'_>) -> sqlx::Result<T>,
) -> Result<T, Problem> {
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    let agreed = quota::hold(&mut *db, tenant_id, &[STORAGE_BYTES]).await?;
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    let added = add(&mut *db).await?;
    match agreed.of(STORAGE_BYTES) {
        Some(most) if blob::kept_bytes(db, tenant_id).await? > most => Err(no_room(most)),
        _ => Ok(added),
    }
}

/// Whether everybody has a seat who has a role by now.
///
/// # Errors
/// `quota.seats`; then the transaction is to be given up.
pub async fn check_seats(db: Db<'_>, tenant_id: Uuid) -> Result<(), Problem> {
    let agreed = quota::hold(&mut *db, tenant_id, &[SEATS]).await?;
    match agreed.of(SEATS) {
        Some(most) if role_binding::seats(db, tenant_id).await? > most => {
            Err(Problem::new(Code::QuotaSeats, format!("{most} people are agreed; remove one first")))
        }
        _ => Ok(()),
    }
}

fn no_room(most: i64) -> Problem {
    Problem::new(Code::QuotaStorage, format!("{most} bytes of storage are agreed, and there is no room for this"))
}
