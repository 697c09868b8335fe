//! What differs between our books and those of gateways, until two people have explained it: one says what it was, another one has looked.

use crate::models::Db;
use chrono::{DateTime, NaiveDate, Utc};
use serde::Serialize;
use uuid::Uuid;

/// A difference.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Its id.
    pub id: Uuid,
    /// `unmatched`: money that nobody took; `day`: sums of a day that are not the same.
    pub kind: String,
    /// At whom.
    pub provider: String,
    /// The account, of money that nobody took.
    pub gateway_id: Option<Uuid>,
    /// What its gateway calls it.
    pub reference: Option<String>,
    /// The payment it was for, which had ended.
    pub payment_id: Option<Uuid>,
    /// Which day.
    pub day: Option<NaiveDate>,
    /// ISO 4217.
    pub currency: String,
    /// By our books, in minor units.
    pub our_amount: i64,
    /// By theirs.
    pub their_amount: i64,
    /// What is known of it.
    pub detail: Option<String>,
    /// What somebody says that it was.
    pub explanation: Option<String>,
    /// Who.
    pub explained_by: Option<Uuid>,
    /// Who else has looked at it.
    pub confirmed_by: Option<Uuid>,
    /// When it was found.
    pub found_at: DateTime<Utc>,
    /// When it was confirmed.
    pub confirmed_at: Option<DateTime<Utc>>,
}

/// A difference of a tenant.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Difference>> {
    Ok(select(db, tenant_id, Some(id), true, None, 1).await?.pop())
}

/// Those that nobody has confirmed, or all, newest first, those before the difference `before`.
pub async fn list(
    db: Db<'_>,
    tenant_id: Uuid,
    all: bool,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Difference>> {
    select(db, tenant_id, None, all, before, limit).await
}

async fn select(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Option<Uuid>,
    all: bool,
    before: Option<Uuid>,
    limit: i64,
) -> sqlx::Result<Vec<Difference>> {
    sqlx::query_as!(
        Difference,
        r#"with d as (
               select u.id, 'unmatched' as kind, g.provider, u.gateway_id, u.provider_ref as reference, u.payment_id, null::date as day, u.currency,
                      0::bigint as our_amount, u.amount as their_amount, u.why as detail, u.explanation, u.explained_by, u.confirmed_by,
                      u.found_at, u.confirmed_at
               from identity.unmatched_payments u join identity.payment_gateways g on g.id = u.gateway_id where u.tenant_id = $1
               union all
               select id, 'day', provider, null, null, null, day, currency, our_amount, their_amount, note, explanation, explained_by,
                      confirmed_by, found_at, confirmed_at
               from identity.provider_reconciliations where tenant_id = $1 and state <> 'equal')
           select id as "id!", kind as "kind!", provider as "provider!", gateway_id, reference, payment_id, day, currency as "currency!",
                  our_amount as "our_amount!", their_amount as "their_amount!", detail, explanation, explained_by, confirmed_by,
                  found_at as "found_at!", confirmed_at
           from d
           where ($2::uuid is null or id = $2) and ($3 or confirmed_at is null)
             and ($4::uuid is null or (found_at, id) < (
                 select b.found_at, b.id from identity.unmatched_payments b where b.tenant_id = $1 and b.id = $4
                 union all
                 select b.found_at, b.id from identity.provider_reconciliations b where b.tenant_id = $1 and b.id = $4))
           order by found_at desc, id desc limit $5"#,
        tenant_id,
        id,
        all,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The sums of a difference, as somebody has seen them: what is said of it is said of these.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sums {
    /// By our books.
    pub ours: i64,
    /// By theirs.
    pub theirs: i64,
}

/// Says what a difference was, instead of whoever has said so before. False when it was confirmed, is none any more, or has other sums.
pub async fn explain(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    seen: Sums,
    explanation: &str,
    by: Uuid,
) -> sqlx::Result<bool> {
    let unmatched = sqlx::query!(
        "update identity.unmatched_payments set explanation = $3, explained_by = $4
         where tenant_id = $1 and id = $2 and confirmed_at is null and $5 = 0::bigint and amount = $6",
        tenant_id,
        id,
        explanation,
        by,
        seen.ours,
        seen.theirs,
    );
    if unmatched.execute(&mut *db).await?.rows_affected() == 1 {
        return Ok(true);
    }
    let day = sqlx::query!(
        "update identity.provider_reconciliations set explanation = $3, explained_by = $4, updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state = 'open' and our_amount = $5 and their_amount = $6",
        tenant_id,
        id,
        explanation,
        by,
        seen.ours,
        seen.theirs,
    );
    Ok(day.execute(db).await?.rows_affected() == 1)
}

/// Confirms what another person has said. False when nobody has, or in other words or of other sums, or it was they, or it is confirmed or
/// none any more.
pub async fn confirm(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    seen: Sums,
    explanation: &str,
    by: Uuid,
) -> sqlx::Result<bool> {
    let unmatched = sqlx::query!(
        "update identity.unmatched_payments set confirmed_by = $3, confirmed_at = workflow.now()
         where tenant_id = $1 and id = $2 and confirmed_at is null and explained_by <> $3 and explanation = $4 and $5 = 0::bigint and amount = $6",
        tenant_id,
        id,
        by,
        explanation,
        seen.ours,
        seen.theirs,
    );
    if unmatched.execute(&mut *db).await?.rows_affected() == 1 {
        return Ok(true);
    }
    let day = sqlx::query!(
        "update identity.provider_reconciliations set confirmed_by = $3, confirmed_at = workflow.now(), state = 'explained',
             updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state = 'open' and explained_by <> $3 and explanation = $4 and our_amount = $5 and their_amount = $6",
        tenant_id,
        id,
        by,
        explanation,
        seen.ours,
        seen.theirs,
    );
    Ok(day.execute(db).await?.rows_affected() == 1)
}
