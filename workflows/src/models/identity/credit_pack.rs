//! Credits that are sold together.

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// A pack.
#[derive(Debug, Clone, Serialize)]
pub struct CreditPack {
    /// Its id.
    pub id: Uuid,
    /// What it is called.
    pub code: String,
    /// Seconds of rendering.
    pub credits: i64,
    /// What they cost, in minor units.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// `active` or `retired`.
    pub state: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// Sells a pack, instead of the one of this code and currency that was sold before.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn create(
    db: Db<'_>,
    tenant_id: Uuid,
    code: &str,
    credits: i64,
    amount: i64,
    currency: &str,
) -> sqlx::Result<Uuid> {
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended('pack ' || $1::uuid || $2::text || $3::text, 0)) as "locked!: ()""#,
        tenant_id,
        code,
        currency,
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query!(
        "update identity.credit_packs set state = 'retired', updated_at = workflow.now()
         where tenant_id = $1 and code = $2 and currency = $3 and state = 'active'",
        tenant_id,
        code,
        currency,
    )
    .execute(&mut *db)
    .await?;
    sqlx::query_scalar!(
        "insert into identity.credit_packs (tenant_id, code, credits, amount, currency, created_at, updated_at)
         values ($1, $2, $3, $4, $5, workflow.now(), workflow.now()) returning id",
        tenant_id,
        code,
        credits,
        amount,
        currency,
    )
    .fetch_one(db)
    .await
}

/// Sells a pack no longer. False when there is none.
pub async fn retire(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let retired = sqlx::query!(
        "update identity.credit_packs set state = 'retired', updated_at = workflow.now() where tenant_id = $1 and id = $2",
        tenant_id,
        id
    );
    Ok(retired.execute(db).await?.rows_affected() == 1)
}

/// A pack of a tenant, sold or not.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<CreditPack>> {
    sqlx::query_as!(
        CreditPack,
        "select id, code, credits, amount, currency, state, created_at from identity.credit_packs where tenant_id = $1 and id = $2",
        tenant_id,
        id
    )
    .fetch_optional(db)
    .await
}

/// Those that are sold, at most 100.
pub async fn list(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Vec<CreditPack>> {
    sqlx::query_as!(
        CreditPack,
        "select id, code, credits, amount, currency, state, created_at from identity.credit_packs
         where tenant_id = $1 and state = 'active' order by code, currency limit 100",
        tenant_id
    )
    .fetch_all(db)
    .await
}
