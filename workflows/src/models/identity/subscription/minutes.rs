//! The seconds of rendering that come with a plan: with each of its periods, and with a change to it; and how they go back with the money.

use super::{
    Activation, Subscription, periods,
    plan::{self, Entitlements},
};
use crate::models::{
    Db,
    identity::credit::{self, Reason},
};
use uuid::Uuid;

/// What those of a period are entered as: once.
pub(super) fn of_period(id: Uuid, period_no: i32) -> String {
    format!("subscription:{id}:{period_no}")
}

/// And those of a change to a plan that has more of them.
pub(super) fn of_change(id: Uuid, payment_id: Uuid) -> String {
    format!("subscription:{id}:change:{payment_id}")
}

/// Gives seconds under a key, once; of those that an account cannot hold, what it can.
///
/// # Errors
/// Those of the database; so with every call below.
pub(super) async fn give(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, key: &str, seconds: i64) -> sqlx::Result<()> {
    if seconds <= 0 {
        return Ok(());
    }
    let account = credit::open_locked(&mut *db, tenant_id, Some(user_id)).await?;
    let fitting = seconds.min(credit::MOST - account.balance);
    // Refused where nothing fits.
    let _ = credit::grant(db, account.id, key, fitting, Reason::Grant).await?;
    Ok(())
}

/// Gives what the plan that a payment has changed to has more than the one before it, for all that was paid for and left when the payment
/// was opened: what the payment has counted.
pub(super) async fn give_more(db: Db<'_>, new: &Activation<'_>, before: &Subscription) -> sqlx::Result<()> {
    let had = a_period(&mut *db, new.tenant_id, before.plan_id).await?;
    let more = a_period(&mut *db, new.tenant_id, new.plan_id).await? - had;
    let opened_at = sqlx::query_scalar!(
        "select created_at from identity.payments where tenant_id = $1 and id = $2",
        new.tenant_id,
        new.payment_id,
    );
    let opened_at = opened_at.fetch_one(&mut *db).await?;
    let seconds = periods::share(&mut *db, before, more.max(0), opened_at).await?;
    give(db, new.tenant_id, new.user_id, &of_change(before.id, new.payment_id), seconds).await
}

/// Seconds that come with each period of a plan.
async fn a_period(db: Db<'_>, tenant_id: Uuid, plan_id: Uuid) -> sqlx::Result<i64> {
    let plan = plan::find(db, tenant_id, plan_id).await?;
    Ok(plan.map_or(0, |plan| of(&plan.entitlements.0)))
}

/// Seconds that come with each period, by what a plan allows.
pub(super) fn of(allowed: &Entitlements) -> i64 {
    allowed.get("render_minutes").map_or(0, |minutes| minutes.saturating_mul(60))
}

/// Takes back what came under a key, as far as it is left: what was bought, or given otherwise, stays. Where nothing came, nobody gets an
/// account by it: who has one pays for their films with it. What was taken is taken once; where nothing was left, the caller remembers that
/// it has asked.
pub(super) async fn take_back(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, key: &str) -> sqlx::Result<()> {
    let came = sqlx::query_scalar!(
        "select delta from identity.credit_ledger where tenant_id = $1 and entry_key = $2",
        tenant_id,
        key,
    );
    if came.fetch_optional(&mut *db).await?.is_none() {
        return Ok(());
    }
    let account = credit::open_locked(&mut *db, tenant_id, Some(user_id)).await?;
    if let back @ 1.. = credit::left_of(&mut *db, &account, key).await? {
        let _ = credit::grant(db, account.id, &format!("{key}:back"), -back, Reason::Refund).await?;
    }
    Ok(())
}
