//! What people say of money that no gateway can tell of: one with evidence, and another one who has looked at it.

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// A decision.
#[derive(Debug, Clone, Serialize)]
pub struct Decision {
    /// Its id.
    pub id: Uuid,
    /// About which payment.
    pub payment_id: Uuid,
    /// About which refund of it.
    pub refund_id: Option<Uuid>,
    /// `paid`, `refund`: the money came and goes back, `failed`: none came; of a refund `refunded` or `given_up`.
    pub outcome: String,
    /// What the bank calls the movement of money.
    pub provider_txn: Option<String>,
    /// How much came, in minor units.
    pub amount: Option<i64>,
    /// Of what.
    pub currency: Option<String>,
    /// How they know.
    pub evidence: String,
    /// `proposed`, `confirmed` or `refused`.
    pub state: String,
    /// Who says so.
    pub proposed_by: Uuid,
    /// Who has looked at it.
    pub decided_by: Option<Uuid>,
    /// When it was proposed.
    pub created_at: DateTime<Utc>,
    /// When it was decided.
    pub decided_at: Option<DateTime<Utc>>,
}

/// A decision to be proposed.
#[derive(Debug, Clone)]
pub struct NewDecision<'a> {
    /// About which payment.
    pub payment_id: Uuid,
    /// About which refund of it.
    pub refund_id: Option<Uuid>,
    /// See [`Decision::outcome`].
    pub outcome: &'a str,
    /// What the bank calls the movement of money.
    pub provider_txn: Option<&'a str>,
    /// How much came, with its currency.
    pub amount: Option<(i64, &'a str)>,
    /// How they know, 1 to 4000 characters.
    pub evidence: &'a str,
    /// Who says so.
    pub proposed_by: Uuid,
}

/// Proposes a decision. None when another one about the same payment waits.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn propose(db: Db<'_>, tenant_id: Uuid, new: &NewDecision<'_>) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into identity.payment_decisions (tenant_id, payment_id, refund_id, outcome, provider_txn, amount, currency, evidence, proposed_by, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, workflow.now())
         on conflict (payment_id) where state = 'proposed' do nothing returning id",
        tenant_id,
        new.payment_id,
        new.refund_id,
        new.outcome,
        new.provider_txn,
        new.amount.map(|(amount, _)| amount),
        new.amount.map(|(_, currency)| currency),
        new.evidence,
        new.proposed_by,
    )
    .fetch_optional(db)
    .await
}

/// Confirms or refuses it. False when it is decided already, or whoever confirms is who proposed it.
pub async fn decide(db: Db<'_>, tenant_id: Uuid, id: Uuid, by: Uuid, confirm: bool) -> sqlx::Result<bool> {
    let decided = sqlx::query!(
        "update identity.payment_decisions set state = case when $4 then 'confirmed' else 'refused' end, decided_by = $3, decided_at = workflow.now()
         where tenant_id = $1 and id = $2 and state = 'proposed' and (not $4 or proposed_by <> $3)",
        tenant_id,
        id,
        by,
        confirm,
    );
    Ok(decided.execute(db).await?.rows_affected() == 1)
}

/// A decision of a tenant.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Decision>> {
    Ok(select(db, tenant_id, Some(id), None).await?.pop())
}

/// Those about a payment, newest first; at most 100.
pub async fn list(db: Db<'_>, tenant_id: Uuid, payment_id: Uuid) -> sqlx::Result<Vec<Decision>> {
    select(db, tenant_id, None, Some(payment_id)).await
}

async fn select(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Option<Uuid>,
    payment_id: Option<Uuid>,
) -> sqlx::Result<Vec<Decision>> {
    sqlx::query_as!(
        Decision,
        "select id, payment_id, refund_id, outcome, provider_txn, amount, currency, evidence, state, proposed_by, decided_by, created_at, decided_at
         from identity.payment_decisions
         where tenant_id = $1 and ($2::uuid is null or id = $2) and ($3::uuid is null or payment_id = $3)
         order by created_at desc, id desc limit 100",
        tenant_id,
        id,
        payment_id,
    )
    .fetch_all(db)
    .await
}
