//! What people did: append-only, each row of a tenant chained to the one before it by a trigger.

use crate::models::{
    Db,
    time_series::{self, Series},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use std::net::IpAddr;
use uuid::Uuid;

/// An action to be written down.
#[derive(Debug, Clone)]
pub struct Entry<'a> {
    /// Whose it is.
    pub tenant_id: Uuid,
    /// Who did it: `user:<id>`, `key:<id>`, `node:<id>`, `system` or `cli`.
    pub actor: &'a str,
    /// What was done, such as `api_key.create`.
    pub action: &'a str,
    /// To what, such as `api_key:<id>`.
    pub object: &'a str,
    /// Why, as far as somebody said.
    pub reason: Option<&'a str>,
    /// [`hash_of`] the object before.
    pub before: Option<Vec<u8>>,
    /// [`hash_of`] the object afterwards.
    pub after: Option<Vec<u8>>,
    /// From where.
    pub ip: Option<IpAddr>,
    /// In which request, as its `x-request-id` says.
    pub request_id: Option<&'a str>,
}

/// An action that was written down.
#[derive(Debug, Clone)]
pub struct Written {
    /// Its place in the tenant's chain, from 1.
    pub seq: i64,
    /// When.
    pub at: DateTime<Utc>,
    /// Who did it.
    pub actor: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub object: String,
    /// Why.
    pub reason: Option<String>,
    /// SHA-256 of the object before.
    pub before_hash: Option<Vec<u8>>,
    /// SHA-256 of the object afterwards.
    pub after_hash: Option<Vec<u8>>,
    /// From where.
    pub ip: Option<String>,
    /// In which request.
    pub request_id: Option<String>,
    /// SHA-256 of this row and of the hash of the one before it.
    pub chain_hash: Vec<u8>,
}

/// SHA-256 of an object as JSON: says whether it is the same, and not what it is.
pub fn hash_of<T: Serialize + ?Sized>(object: &T) -> Option<Vec<u8>> {
    serde_json::to_vec(object).ok().map(|json| Sha256::digest(json).to_vec())
}

/// Writes an action down, in the transaction of the action itself: neither is there without the other. Actions of one
/// tenant take turns from here to the end of their transactions: it is written last, since whoever holds the turn and waits for a row may
/// wait for one who waits for the turn. Texts longer than their columns are cut.
///
/// # Errors
/// Those of the database.
pub async fn record(db: Db<'_>, entry: &Entry<'_>) -> sqlx::Result<()> {
    let at = time_series::now(&mut *db, Series::AuditLog).await?;
    sqlx::query!(
        r#"insert into identity.audit_log
               (at, id, tenant_id, seq, actor, action, object, reason, before_hash, after_hash, ip, request_id, chain_hash)
           values ($1, $2, $3, 1, left($4, 200), left($5, 100), left($6, 200), left($7, 1000), $8, $9, $10::text::inet,
                   left($11, 64), sha256(''))"#,
        at,
        Uuid::now_v7(),
        entry.tenant_id,
        entry.actor,
        entry.action,
        entry.object,
        entry.reason,
        entry.before,
        entry.after,
        entry.ip.map(|ip| ip.to_string()) as _,
        entry.request_id,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Up to `limit` actions of a tenant, newest first: those before the number `before`, when given, and only those called
/// `action`, when given.
///
/// # Errors
/// Those of the database.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    action: Option<&str>,
    before: Option<i64>,
    limit: i64,
) -> sqlx::Result<Vec<Written>> {
    sqlx::query_as!(
        Written,
        r#"select seq, at, actor, action, object, reason, before_hash, after_hash, host(ip) as ip, request_id, chain_hash
           from identity.audit_log
           where tenant_id = $1 and ($2::text is null or action = $2) and ($3::bigint is null or seq < $3)
           order by seq desc limit $4"#,
        tenant_id,
        action,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}
