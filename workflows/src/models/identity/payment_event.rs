//! What gateways tell us by themselves, as it came; each counts once an account. Two accounts of ours may be one at the gateway, which
//! then tells both: the one that was retired, and the one that knows what it is about.

use crate::models::Db;
use uuid::Uuid;

/// What the body of an event is sealed for.
pub fn place(gateway_id: Uuid, event_id: &str) -> String {
    format!("payment_event:{gateway_id}:{event_id}")
}

/// An event that was signed well.
#[derive(Debug, Clone)]
pub struct NewEvent<'a> {
    /// The account that was told.
    pub gateway_id: Uuid,
    /// Who tells.
    pub provider: &'a str,
    /// What they call it.
    pub event_id: &'a str,
    /// Whose account it came for.
    pub tenant_id: Uuid,
    /// Which of the tenant's payments it is about.
    pub payment_id: Option<Uuid>,
    /// What happened, in the gateway's words.
    pub kind: &'a str,
    /// The hash of the body.
    pub sha256: &'a [u8],
    /// The body, sealed.
    pub sealed: &'a [u8],
    /// Whether it changed anything: it woke a run.
    pub applied: bool,
}

/// Keeps an event. False when it was told before: then it counts no more.
///
/// # Errors
/// Those of the database.
pub async fn keep(db: Db<'_>, new: &NewEvent<'_>) -> sqlx::Result<bool> {
    let kept = sqlx::query!(
        "insert into identity.payment_events (provider, event_id, tenant_id, payment_id, type, signature_ok, raw_sha256, payload_enc, received_at,
             processed_at, outcome, gateway_id)
         values ($1, $2, $3, $4, left($5, 100), true, $6, $7, workflow.now(), workflow.now(), case when $8 then 'applied' else 'ignored' end, $9)
         on conflict (gateway_id, event_id) do nothing",
        new.provider,
        new.event_id,
        new.tenant_id,
        new.payment_id,
        new.kind,
        new.sha256,
        new.sealed,
        new.applied,
        new.gateway_id,
    );
    Ok(kept.execute(db).await?.rows_affected() == 1)
}

/// Forgets up to `limit` events that were dealt with three months ago; gives how many. One that is told again later than that wakes whoever
/// it concerns, who asks the gateway.
///
/// # Errors
/// Those of the database.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from identity.payment_events where (gateway_id, event_id) in (
             select gateway_id, event_id from identity.payment_events
             where processed_at < workflow.now() - interval '90 days' order by processed_at limit $1)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}
