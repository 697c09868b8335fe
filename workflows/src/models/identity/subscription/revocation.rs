//! What was bought is taken back with the money.

use super::{Subscription, end, entitle, find, minutes, take_turn};
use crate::models::Db;
use uuid::Uuid;

/// Takes back the period that a payment paid, with the credits that came with it as far as they are left: it ends now, or never begins.
/// Of a change within a period the plan before it is had again, and what it brought of credits goes, also after the end. Gives the
/// subscription and whether it is over. None when a later period is paid or a later change rests on it, or the payment paid neither: then
/// nothing changes.
/// Begins and ends as the tenant's identity service.
///
/// # Errors
/// Those of the database.
pub async fn revoke(db: Db<'_>, tenant_id: Uuid, payment_id: Uuid) -> sqlx::Result<Option<(Subscription, bool)>> {
    let change = sqlx::query_scalar!(
        "select s.user_id from identity.subscription_changes c join identity.subscriptions s on s.id = c.subscription_id
         where c.tenant_id = $1 and c.payment_id = $2 and c.undone_at is null",
        tenant_id,
        payment_id,
    );
    if let Some(user_id) = change.fetch_optional(&mut *db).await? {
        take_turn(&mut *db, user_id).await?;
        return Ok(undo(db, tenant_id, payment_id).await?.map(|now| (now, false)));
    }
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
    let key = minutes::of_period(period.subscription_id, period.period_no);
    minutes::take_back(&mut *db, tenant_id, period.user_id, &key).await?;
    let over = end(&mut *db, tenant_id, period.subscription_id, period.period_no, "cancelled").await?;
    Ok(find(db, tenant_id, period.subscription_id).await?.map(|now| (now, over)))
}

/// Takes a change of plan back, with the minutes that it brought.
async fn undo(db: Db<'_>, tenant_id: Uuid, payment_id: Uuid) -> sqlx::Result<Option<Subscription>> {
    let undone = sqlx::query!(
        "update identity.subscription_changes set undone_at = workflow.now() where payment_id = $1 and undone_at is null
         returning subscription_id, period_no, created_at",
        payment_id,
    );
    let Some(undone) = undone.fetch_optional(&mut *db).await? else { return Ok(None) };
    let Some(found) = find(&mut *db, tenant_id, undone.subscription_id).await? else { return Ok(None) };
    let changes = sqlx::query!(
        "select payment_id, from_plan_id, from_amount, to_plan_id, to_amount, created_at, undone_at is not null as \"undone!\",
                minutes_settled_at is not null as \"settled!\"
         from identity.subscription_changes where subscription_id = $1 and period_no = $2 order by created_at",
        undone.subscription_id,
        undone.period_no,
    )
    .fetch_all(&mut *db)
    .await?;
    let rests = changes.iter().any(|c| !c.undone && c.created_at > undone.created_at);
    if found.is_live() && (found.period_no != undone.period_no || rests) {
        return Ok(None);
    }
    // And those of the changes before it whose money went back first. Where nobody has the plans any more, nothing rests on any of them. Of
    // what was looked at before nothing is taken: what is free now was given or bought since.
    let gone = changes.iter().rev().take_while(|c| c.undone || !found.is_live()).filter(|c| c.undone && !c.settled);
    let gone: Vec<Uuid> = gone.map(|c| c.payment_id).collect();
    for payment_id in &gone {
        let key = minutes::of_change(found.id, *payment_id);
        minutes::take_back(&mut *db, tenant_id, found.user_id, &key).await?;
    }
    sqlx::query!(
        "update identity.subscription_changes set minutes_settled_at = workflow.now() where payment_id = any ($1)",
        &gone,
    )
    .execute(&mut *db)
    .await?;
    if !found.is_live() {
        return Ok(None);
    }
    let last = changes.iter().rev().find(|c| !c.undone).map(|c| (c.to_plan_id, c.to_amount));
    let before = last.or_else(|| changes.first().map(|c| (c.from_plan_id, c.from_amount)));
    let Some((plan_id, amount)) = before else { return Ok(None) };
    sqlx::query!(
        "update identity.subscriptions set plan_id = $2, amount = $3, next_plan_id = nullif(next_plan_id, $2), updated_at = workflow.now()
         where id = $1",
        found.id,
        plan_id,
        amount,
    )
    .execute(&mut *db)
    .await?;
    entitle(&mut *db, tenant_id, found.user_id, Some(plan_id), None).await?;
    find(db, tenant_id, found.id).await
}
