//! What may be kept, by a tenant and by each person in it, and the room that is set aside for what is on its way.
//!
//! What is used and reserved is counted by the database itself, in the transaction that adds, removes or reserves: nobody here
//! adds to a quota. Content counts once for a tenant, however many files use it; for a person each of their files counts.
//!
//! ```text
//! reserve ──▶ held ──▶ used      the file is there, and counts as what it is
//!                 └──▶ released  nothing came of it, or its time is over
//! ```

use crate::models::Db;
use chrono::TimeDelta;
use serde::Serialize;
use uuid::Uuid;

/// A quota and what is used of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Quota {
    /// Warned from here on.
    pub soft_bytes: Option<i64>,
    /// The most that may be kept and reserved; none when nothing was agreed.
    pub limit_bytes: Option<i64>,
    /// What is kept.
    pub used_bytes: i64,
    /// What is set aside for uploads and films under way.
    pub reserved_bytes: i64,
    /// The most files there may be.
    pub limit_files: Option<i64>,
    /// How many there are.
    pub used_files: i64,
}

/// What is agreed on.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Warned from here on; not more than the limit.
    pub soft_bytes: Option<i64>,
    /// The most bytes.
    pub bytes: Option<i64>,
    /// The most files.
    pub files: Option<i64>,
}

impl Quota {
    /// How many bytes more fit in; none when there is no limit.
    pub fn room(&self) -> Option<i64> {
        self.limit_bytes.map(|limit| (limit - self.used_bytes - self.reserved_bytes).max(0))
    }
}

/// The quota of a tenant, or of a person in it.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, tenant_id: Uuid, owner_id: Option<Uuid>) -> sqlx::Result<Quota> {
    let found = sqlx::query_as!(
        Quota,
        "select soft_bytes, limit_bytes, used_bytes, reserved_bytes, limit_files, used_files
         from file_mgr.quotas where tenant_id = $1 and owner_id is not distinct from $2",
        tenant_id,
        owner_id,
    );
    Ok(found.fetch_optional(db).await?.unwrap_or_default())
}

/// Agrees on a quota of a tenant, or of a person in it. What is there stays; what comes has to fit in.
///
/// # Errors
/// Those of the database.
pub async fn agree(db: Db<'_>, tenant_id: Uuid, owner_id: Option<Uuid>, limits: Limits) -> sqlx::Result<()> {
    sqlx::query!(r#"select file_mgr.take_turn($1, $2)::text as "turn""#, tenant_id, owner_id)
        .fetch_one(&mut *db)
        .await?;
    sqlx::query!(
        "update file_mgr.quotas set soft_bytes = $3, limit_bytes = $4, limit_files = $5, updated_at = workflow.now()
         where tenant_id = $1 and owner_id is not distinct from $2",
        tenant_id,
        owner_id,
        limits.soft_bytes,
        limits.bytes,
        limits.files,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Sets `bytes` aside, of the tenant's quota and of the owner's, for so long; false when either has no room, and nothing is set aside.
/// `purpose` names what for, such as `upload:<id>` or `film:<id>`.
///
/// # Errors
/// Those of the database; a purpose that reserved before is refused.
pub async fn reserve(
    db: Db<'_>,
    tenant_id: Uuid,
    owner_id: Option<Uuid>,
    bytes: i64,
    purpose: &str,
    lifetime: TimeDelta,
) -> sqlx::Result<bool> {
    let reserved = sqlx::query_scalar!(
        "select file_mgr.reserve($1, $2, $3, $4, workflow.now() + make_interval(secs => $5))",
        tenant_id,
        owner_id,
        bytes,
        purpose,
        lifetime.as_seconds_f64(),
    );
    Ok(reserved.fetch_one(db).await?.is_some())
}

/// What becomes of room that was set aside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// What it was for takes it, in this transaction.
    Used,
    /// It is free again.
    Released,
}

/// Gives room back that was set aside, whether something takes it or not. False when nothing is set aside for this purpose.
///
/// # Errors
/// Those of the database.
pub async fn settle(db: Db<'_>, tenant_id: Uuid, purpose: &str, outcome: Outcome) -> sqlx::Result<bool> {
    Ok(settle_all(db, tenant_id, &[purpose.to_owned()], outcome).await? > 0)
}

/// The same for several purposes; gives for how many of them there was something set aside.
///
/// # Errors
/// Those of the database.
pub async fn settle_all(db: Db<'_>, tenant_id: Uuid, purposes: &[String], outcome: Outcome) -> sqlx::Result<u64> {
    let state = match outcome {
        Outcome::Used => "used",
        Outcome::Released => "released",
    };
    // Its time is over: whatever it was for, its row is forgotten so long after this.
    let settled = sqlx::query!(
        "update file_mgr.quota_reservations set state = $3, expires_at = least(expires_at, workflow.now())
         where tenant_id = $1 and purpose = any($2) and state = 'held'",
        tenant_id,
        purposes,
        state,
    );
    Ok(settled.execute(db).await?.rows_affected())
}

/// Keeps what is set aside for these purposes no longer than so, from now on.
///
/// # Errors
/// Those of the database.
pub async fn shorten(db: Db<'_>, tenant_id: Uuid, purposes: &[String], lifetime: TimeDelta) -> sqlx::Result<()> {
    sqlx::query!(
        "update file_mgr.quota_reservations set expires_at = least(expires_at, workflow.now() + make_interval(secs => $3))
         where tenant_id = $1 and purpose = any($2) and state = 'held'",
        tenant_id,
        purposes,
        lifetime.as_seconds_f64(),
    )
    .execute(db)
    .await
    .map(drop)
}

/// Forgets what was set aside for a purpose and is not any more: it may reserve again.
///
/// # Errors
/// Those of the database.
pub async fn forget(db: Db<'_>, tenant_id: Uuid, purpose: &str) -> sqlx::Result<()> {
    let ended = sqlx::query!(
        "delete from file_mgr.quota_reservations where tenant_id = $1 and purpose = $2 and state <> 'held'",
        tenant_id,
        purpose,
    );
    ended.execute(db).await.map(drop)
}

/// Whether something is set aside for this purpose.
///
/// # Errors
/// Those of the database.
pub async fn is_held(db: Db<'_>, tenant_id: Uuid, purpose: &str) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from file_mgr.quota_reservations where tenant_id = $1 and purpose = $2 and state = 'held') as "it!""#,
        tenant_id,
        purpose,
    )
    .fetch_one(db)
    .await
}

/// Releases room whose time is over; gives how often.
///
/// # Errors
/// Those of the database.
pub async fn release_expired(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let released = sqlx::query!(
        "update file_mgr.quota_reservations set state = 'released'
         where id in (select id from file_mgr.quota_reservations where state = 'held' and expires_at <= workflow.now()
                      order by tenant_id, id limit $1 for update skip locked)",
        limit,
    );
    Ok(released.execute(db).await?.rows_affected())
}

/// Forgets up to `limit` reservations that have ended and whose time was over three months ago; gives how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from file_mgr.quota_reservations where id in (
             select id from file_mgr.quota_reservations
             where state <> 'held' and expires_at < workflow.now() - interval '90 days' order by expires_at limit $1)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}

/// Whether a quota has refused a file: there is no room for it.
pub fn has_refused(error: &sqlx::Error) -> bool {
    let constraint = error.as_database_error().and_then(|e| e.constraint());
    matches!(constraint, Some("no_more_bytes_than_allowed" | "no_more_files_than_allowed"))
}

/// Takes the tenant's turn until the transaction ends: who changes what it keeps, or what of it may go, does so one after the other.
pub(super) async fn take_turn(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<()> {
    take_turns(db, &[tenant_id]).await
}

/// The same for several tenants, in the order of their ids: two that do so never wait for each other.
pub(in crate::models) async fn take_turns(db: Db<'_>, tenants: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "select file_mgr.take_turn(t, null) from (select distinct t from unnest($1::uuid[]) t order by t) s",
        tenants
    )
    .execute(db)
    .await
    .map(drop)
}
