//! What was bought is taken back with the money.

use super::{Subscription, credit, end, find, take_turn};
use crate::models::{Db, identity::credit::Reason};
use uuid::Uuid;

/// Takes back the period that a payment paid, with the credits that came with it as far as they are free: it ends now, or never begins.
/// Gives the subscription and whether it is over. None when a later period is paid, or the payment paid none: then nothing changes.
/// Begins and ends as the tenant's identity service.
///
/// # Errors
/// Those of the database.
pub async fn revoke(db: Db<'_>, tenant_id: Uuid, payment_id: Uuid) -> sqlx::Result<Option<(Subscription, bool)>> {
    let period = sqlx::query!(
        "select p.subscription_id, p.period_no, p.user_id from identity.subscription_periods p
         join identity.subscriptions s on s.id = p.subscription_id and s.period_no = p.period_no
         where p.tenant_id = $1 and p.payment_id = $2",
        tenant_id,
        payment_id,
    );
    let Some(period) = period.fetch_optional(&mut *db).await? else { return Ok(None) };
    take_turn(&mut *db, period.user_id).await?;
    let ends_at = sqlx::query_scalar!(
        "update identity.subscription_periods p set ends_at = greatest(workflow.now(), starts_at + interval '1 microsecond')
         from identity.subscriptions s
         where p.subscription_id = $1 and p.period_no = $2 and p.ends_at > workflow.now() and s.id = p.subscription_id and s.period_no = p.period_no
           and s.state in ('trialing', 'active', 'past_due', 'paused')
         returning p.ends_at",
        period.subscription_id,
        period.period_no,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(ends_at) = ends_at else { return Ok(None) };
    sqlx::query!(
        "update identity.subscriptions set current_period_end = $2, cancel_at = $2, next_plan_id = null, updated_at = workflow.now() where id = $1",
        period.subscription_id,
        ends_at,
    )
    .execute(&mut *db)
    .await?;
    let key = format!("subscription:{}:{}", period.subscription_id, period.period_no);
    let account = credit::open_locked(&mut *db, tenant_id, Some(period.user_id)).await?;
    let came = sqlx::query_scalar!(
        "select delta from identity.credit_ledger where tenant_id = $1 and entry_key = $2 and account_id = $3",
        tenant_id,
        key,
        account.id,
    );
    if let Some(came) = came.fetch_optional(&mut *db).await?
        && let back @ 1.. = came.min(account.free())
    {
        let _ = credit::grant(&mut *db, account.id, &format!("{key}:back"), -back, Reason::Refund).await?;
    }
    let over = end(&mut *db, tenant_id, period.subscription_id, period.period_no, "cancelled").await?;
    Ok(find(db, tenant_id, period.subscription_id).await?.map(|now| (now, over)))
}
