//! `/v1/tenant/quotas` and `/v1/members/{id}/storage`, and the refusals of what goes beyond them.

use super::{Steward, members, steward::Change};
use crate::{
    app::App,
    auth::Viewer,
    extract::{Json, Path},
    problem::{Code, Problem, ProblemBody},
};
use axum::{extract::State, http::header};
use flatrender_workflows::models::{
    Db, Role, Scope,
    file_mgr::quota as storage,
    identity::{
        quota::{self, CONCURRENT_RENDERS, QUOTAS, RENDERS_PER_DAY, SEATS, STORAGE_BYTES},
        role_binding,
    },
    render::render_job::{self, Load},
};
use serde::{Deserialize, Serialize};
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

/// What a person may keep, and keeps.
#[derive(Debug, Serialize, ToSchema)]
pub struct StorageView {
    /// Always `storage_quota`.
    #[schema(example = "storage_quota")]
    object: &'static str,
    /// The most bytes; null when nothing was agreed.
    #[schema(example = 5_000_000_000_i64)]
    limit_bytes: Option<i64>,
    /// Bytes of their files, each file counted.
    used_bytes: i64,
    /// Bytes that are set aside for uploads under way. Films are the tenant's: they have room in its quota alone.
    reserved_bytes: i64,
    /// The most files; null when nothing was agreed.
    limit_files: Option<i64>,
    /// Their files.
    used_files: i64,
}

impl From<storage::Quota> for StorageView {
    fn from(q: storage::Quota) -> Self {
        Self {
            object: "storage_quota",
            limit_bytes: q.limit_bytes,
            used_bytes: q.used_bytes,
            reserved_bytes: q.reserved_bytes,
            limit_files: q.limit_files,
            used_files: q.used_files,
        }
    }
}

/// What a person may keep. What is absent is not limited, but by what the tenant may keep.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct SetStorage {
    /// The most bytes.
    #[schema(example = 5_000_000_000_i64, minimum = 0)]
    limit_bytes: Option<i64>,
    /// The most files.
    #[schema(example = 10_000, minimum = 0)]
    limit_files: Option<i64>,
}

/// `GET /v1/tenant/quotas`
#[utoipa::path(
    get, path = "/v1/tenant/quotas", tag = "Tenant", operation_id = "get_quotas", summary = "See what may be used",
    description = "What was agreed, and what is used of it right now. What goes beyond is refused with `quota.…`. Of storage, what is \
                   set aside for uploads and films under way is used, too.",
    responses((status = 200, description = "Every quota", body = QuotaList))
)]
pub async fn get(State(app): State<App>, Viewer(caller): Viewer) -> Result<Json<QuotaList>, Problem> {
    let mut tx = app.begin(&caller, Role::Identity).await?;
    let agreed = quota::agreed(&mut tx, caller.id, &QUOTAS).await?;
    let seats = role_binding::seats(&mut tx, caller.id).await?;
    Scope::tenant(Role::File, caller.id).enter(&mut tx).await?;
    let kept = storage::find(&mut tx, caller.id, None).await?;
    Scope::tenant(Role::Render, caller.id).enter(&mut tx).await?;
    let load = render_job::load(&mut tx, caller.id).await?;
    let used = [load.today, load.under_way, kept.used_bytes + kept.reserved_bytes, seats];
    let limit = |name| if name == STORAGE_BYTES { kept.limit_bytes } else { agreed.of(name) };
    let data = QUOTAS.into_iter().zip(used).map(|(name, used)| QuotaView { name, used, limit: limit(name) });
    Ok(Json(QuotaList { object: "list", data: data.collect() }))
}

/// `GET /v1/members/{id}/storage`
#[utoipa::path(
    get, path = "/v1/members/{id}/storage", tag = "Tenant", operation_id = "get_member_storage", summary = "See what somebody may keep",
    description = "What was agreed for this person, and what their files use of it.",
    params(("id" = Uuid, Path, description = "The person")),
    responses(
        (status = 200, description = "Their quota", body = StorageView),
        (status = 404, description = "`member.not_found`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn get_storage(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
) -> Result<Json<StorageView>, Problem> {
    let mut tx = steward.begin(&app).await?;
    members::found(&mut tx, steward.tenant_id, id).await?;
    Scope::tenant(Role::File, steward.tenant_id).enter(&mut tx).await?;
    Ok(Json(storage::find(&mut tx, steward.tenant_id, Some(id)).await?.into()))
}

/// `PUT /v1/members/{id}/storage`: counts from their next upload on; what is there stays.
#[utoipa::path(
    put, path = "/v1/members/{id}/storage", tag = "Tenant", operation_id = "set_member_storage", summary = "Say what somebody may keep",
    description = "Counts from their next upload on; what is there stays. An upload has to fit into this and into what the tenant may keep.",
    params(("id" = Uuid, Path, description = "The person")), request_body = SetStorage,
    responses(
        (status = 200, description = "Their quota, afterwards", body = StorageView),
        (status = 403, description = "`member.outranked`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 404, description = "`member.not_found`", body = ProblemBody, content_type = "application/problem+json"),
        (status = 422, description = "`request.invalid`", body = ProblemBody, content_type = "application/problem+json")
    )
)]
pub async fn set_storage(
    State(app): State<App>,
    steward: Steward,
    Path(id): Path<Uuid>,
    Json(body): Json<SetStorage>,
) -> Result<Json<StorageView>, Problem> {
    for (pointer, limit) in [("/limit_bytes", body.limit_bytes), ("/limit_files", body.limit_files)] {
        if limit.is_some_and(|limit| limit < 0) {
            return Err(Problem::fault(pointer, "limit.value", "a limit is not negative"));
        }
    }
    let tenant_id = steward.tenant_id;
    let mut tx = steward.begin(&app).await?;
    members::changeable(&mut tx, &steward, id).await?;
    let limits = storage::Limits { soft_bytes: None, bytes: body.limit_bytes, files: body.limit_files };
    Scope::tenant(Role::File, tenant_id).enter(&mut tx).await?;
    let before = storage::find(&mut tx, tenant_id, Some(id)).await?;
    storage::agree(&mut tx, tenant_id, Some(id), limits).await?;
    let after = storage::find(&mut tx, tenant_id, Some(id)).await?;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut tx).await?;
    let change = Change { before: Some(before), after: Some(after) };
    steward.record(&mut tx, "member.set_storage", &members::object(id), change).await?;
    tx.commit().await?;
    Ok(Json(after.into()))
}

/// Whether the tenant may order one more film. Orders of a tenant that has agreed on a quota take turns from here to the end of the
/// transaction, which goes on in another scope than before.
///
/// # Errors
/// `quota.renders_per_day`, `quota.concurrent_renders`, `quota.storage`
pub async fn check_order(db: Db<'_>, tenant_id: Uuid) -> Result<(), Problem> {
    check_left(&mut *db, tenant_id).await?;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    let agreed = quota::hold(&mut *db, tenant_id, &[RENDERS_PER_DAY, CONCURRENT_RENDERS]).await?;
    if agreed.is_nothing() {
        return Ok(());
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

/// Whether there is any room left at all for what is yet to be made: how much it needs is asked when it is set aside. The transaction goes on as of the tenant's files.
///
/// # Errors
/// `quota.storage`
async fn check_left(db: Db<'_>, tenant_id: Uuid) -> Result<(), Problem> {
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    let room = storage::find(db, tenant_id, None).await?.room();
    if room.is_some_and(|room| room == 0) { Err(no_room()) } else { Ok(()) }
}

/// Whether all fits that `add` adds: the quotas of the tenant and of the owner refuse it by themselves. The transaction goes on as
/// of the tenant's files.
///
/// # Errors
/// `quota.storage`; then the transaction is to be given up.
pub async fn within_room<T>(
    db: Db<'_>,
    tenant_id: Uuid,
    add: impl AsyncFnOnce(Db<'_>) -> sqlx::Result<T>,
) -> Result<T, Problem> {
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    add(db).await.map_err(|error| if storage::has_refused(&error) { no_room() } else { error.into() })
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

/// There is no room for a film, of which so many bytes would be set aside.
pub fn no_room_for_film(bytes: i64) -> Problem {
    let detail = format!(
        "the film, with what else is made of it, may take up to {bytes} bytes, and what may be kept, in bytes or in files, has no room \
         for them; remove something, wait until other films are done, or ask for more"
    );
    Problem::new(Code::QuotaStorage, detail)
}

/// There is no room for an upload.
pub fn no_room() -> Problem {
    Problem::new(Code::QuotaStorage, "there is no room for this in what may be kept; remove something, or ask for more")
}
