//! Addresses that are not written to.

use crate::{contracts::notify::Channel, models::Db};
use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Soft bounces within [`SOFT_DAYS`] after which an address gets a rest of as many days.
pub const SOFT_BOUNCES: i64 = 3;
/// Days.
pub const SOFT_DAYS: i32 = 7;

/// An address that is not written to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Suppression {
    /// What is kept of the address.
    pub address_hash: Vec<u8>,
    /// By which way.
    pub channel: String,
    /// Why.
    pub reason: String,
    /// Until when; for good when nothing is said.
    pub until: Option<DateTime<Utc>>,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// What is kept of an address: e-mail knows no case here.
pub fn hash_of(address: &str) -> Vec<u8> {
    Sha256::digest(address.trim().to_lowercase().as_bytes()).to_vec()
}

/// An address is not written to from now on. A reason that is there for good stays.
///
/// # Errors
/// Those of the database; so with all that follow.
pub async fn add(
    db: Db<'_>,
    tenant_id: Uuid,
    channel: Channel,
    address_hash: &[u8],
    reason: &str,
    days: Option<i32>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into notification.suppressions as s (tenant_id, address_hash, channel, reason, until, created_at)
         values ($1, $2, $3, $4, workflow.now() + make_interval(days => $5), workflow.now())
         on conflict (tenant_id, address_hash, channel) do update set reason = excluded.reason, until = excluded.until
             where s.until is not null",
        tenant_id,
        address_hash,
        channel.as_str(),
        reason,
        days,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Why an address is not written to; none when it is.
pub async fn reason(
    db: Db<'_>,
    tenant_id: Uuid,
    channel: Channel,
    address_hash: &[u8],
) -> sqlx::Result<Option<String>> {
    sqlx::query_scalar!(
        "select reason from notification.suppressions
         where tenant_id = $1 and address_hash = $2 and channel = $3 and (until is null or until > workflow.now())",
        tenant_id,
        address_hash,
        channel.as_str(),
    )
    .fetch_optional(db)
    .await
}

/// Up to `limit` addresses of a tenant that are not written to, those after `after`.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    after: Option<(&[u8], &str)>,
    limit: i64,
) -> sqlx::Result<Vec<Suppression>> {
    let (hash, channel) = after.unzip();
    sqlx::query_as!(
        Suppression,
        "select address_hash, channel, reason, until, created_at from notification.suppressions
         where tenant_id = $1 and ($2::bytea is null or (address_hash, channel) > ($2, $3::text))
         order by address_hash, channel limit $4",
        tenant_id,
        hash,
        channel,
        limit
    )
    .fetch_all(db)
    .await
}

/// An address is written to again; false when it was.
pub async fn lift(db: Db<'_>, tenant_id: Uuid, channel: Channel, address_hash: &[u8]) -> sqlx::Result<bool> {
    let lifted = sqlx::query!(
        "delete from notification.suppressions where tenant_id = $1 and address_hash = $2 and channel = $3",
        tenant_id,
        address_hash,
        channel.as_str(),
    );
    Ok(lifted.execute(db).await?.rows_affected() > 0)
}

/// Whose a user is; none when there is no such user. As of the identity of the platform.
pub async fn tenant_of(db: Db<'_>, user_id: Uuid) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!("select tenant_id from identity.users where id = $1 and deleted_at is null", user_id)
        .fetch_optional(db)
        .await
}
