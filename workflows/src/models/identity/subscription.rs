//! Who has which plan, until when, and what becomes of it.
//!
//! ```text
//! trialing ─┐          ┌──paid: the next period──┐
//!           ├─paid─▶ active ─period over─▶ past_due ──not paid for a week──▶ expired
//!  (new) ───┘          └──asked to end: period over──▶ cancelled
//! ```
//!
//! A payment for a plan does one of three things ([`activate`]): it begins a subscription, pays the next period of the one there is, or
//! changes its plan at once. Periods are counted from an anchor, so that the 31st stays the 31st where a month has one, and follow each
//! other without a gap: who pays late has no free days, and who pays early loses none.

mod keeping;
mod minutes;
mod periods;
mod prospect;
mod revocation;

pub use keeping::{Unkept, keep, lapse, paid_by, renewed_at, unkept};
pub use periods::{Quote, quote_now};
pub use prospect::{Prospect, prospect, prospect_now};
pub use revocation::revoke;

use periods::next_end;

use super::plan::{self, Entitlements, Interval};
use crate::models::{Db, Role, Scope, file_mgr::quota};
use chrono::{DateTime, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// States of a subscription that counts.
const LIVE: [&str; 4] = ["trialing", "active", "past_due", "paused"];
/// How long before the end of a period a payment for what comes next is one for the next period, not a change at once.
pub const EARLY: TimeDelta = TimeDelta::days(3);

/// A subscription.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Subscription {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub tenant_id: Uuid,
    /// Whose it is.
    pub user_id: Uuid,
    /// The version of the plan.
    pub plan_id: Uuid,
    /// What a period costs, in minor units: as when it was bought.
    pub amount: i64,
    /// ISO 4217.
    pub currency: String,
    /// `month` or `year`.
    pub interval: String,
    /// When periods are counted from.
    pub anchored_at: DateTime<Utc>,
    /// Which period it is; 0 is a trial.
    pub period_no: i32,
    /// What it becomes when the period ends.
    pub next_plan_id: Option<Uuid>,
    /// `trialing`, `active`, `past_due`, `paused`, `cancelled` or `expired`.
    pub state: String,
    /// When the period began.
    pub current_period_start: DateTime<Utc>,
    /// Until when it is paid for.
    pub current_period_end: DateTime<Utc>,
    /// When it ends, as somebody asked.
    pub cancel_at: Option<DateTime<Utc>>,
    /// Since when it waits to be paid.
    #[serde(default)]
    pub past_due_since: Option<DateTime<Utc>>,
    /// The run that keeps it.
    pub workflow_run_id: Option<Uuid>,
}

impl Subscription {
    /// Whether it counts.
    pub fn is_live(&self) -> bool {
        LIVE.contains(&self.state.as_str())
    }

    /// The plan of the period after this one.
    pub fn coming_plan(&self) -> Uuid {
        self.next_plan_id.unwrap_or(self.plan_id)
    }
}

/// A payment for a plan.
#[derive(Debug, Clone)]
pub struct Activation<'a> {
    /// The tenant.
    pub tenant_id: Uuid,
    /// Who has the plan from now on.
    pub user_id: Uuid,
    /// What was paid.
    pub payment_id: Uuid,
    /// The version of the plan.
    pub plan_id: Uuid,
    /// ISO 4217.
    pub currency: &'a str,
    /// Over how long.
    pub interval: Interval,
}

/// What a payment for a plan did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Did {
    /// Began a subscription.
    Begun,
    /// Paid the next period.
    Renewed,
    /// Changed the plan, within the period.
    Changed,
}

/// The subscription after a payment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Activated {
    /// What happened.
    pub did: Did,
    /// The subscription, afterwards.
    pub subscription: Subscription,
}

/// The time of the database.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn now(db: Db<'_>) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select workflow.now() as "now!""#).fetch_one(db).await
}

/// A subscription of a tenant.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Subscription>> {
    Ok(select(db, tenant_id, Some(id), None, false).await?.pop())
}

/// The one that a person has.
pub async fn find_live(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Option<Subscription>> {
    Ok(select(db, tenant_id, None, Some(user_id), true).await?.pop())
}

/// All that a person has or had, newest first.
pub async fn list(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Vec<Subscription>> {
    select(db, tenant_id, None, Some(user_id), false).await
}

async fn select(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Option<Uuid>,
    user_id: Option<Uuid>,
    live: bool,
) -> sqlx::Result<Vec<Subscription>> {
    sqlx::query_as!(
        Subscription,
        "select id, tenant_id, user_id, plan_id, amount, currency, interval, anchored_at, period_no, next_plan_id, state,
                current_period_start, current_period_end, cancel_at, past_due_since, workflow_run_id
         from identity.subscriptions
         where tenant_id = $1 and ($2::uuid is null or id = $2) and ($3::uuid is null or user_id = $3)
           and (not $4 or state in ('trialing', 'active', 'past_due', 'paused'))
         order by current_period_end desc limit 100",
        tenant_id,
        id,
        user_id,
        live,
    )
    .fetch_all(db)
    .await
}

/// Those of a tenant, newest first, those before the subscription `before`.
pub async fn page(db: Db<'_>, tenant_id: Uuid, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Subscription>> {
    sqlx::query_as!(
        Subscription,
        "select id, tenant_id, user_id, plan_id, amount, currency, interval, anchored_at, period_no, next_plan_id, state,
                current_period_start, current_period_end, cancel_at, past_due_since, workflow_run_id
         from identity.subscriptions s
         where tenant_id = $1 and ($2::uuid is null or (created_at, id) < (select b.created_at, b.id from identity.subscriptions b
                                                                          where b.tenant_id = $1 and b.id = $2))
         order by created_at desc, id desc limit $3",
        tenant_id,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Whoever changes what a person has waits until this transaction ends.
async fn take_turn(db: Db<'_>, user_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended('subscription ' || $1::uuid, 0)) as "locked!: ()""#,
        user_id
    )
    .fetch_one(db)
    .await
    .map(drop)
}

/// What a person pays for a plan at the moment: the price they bought it at for the next period of what they have, the difference for
/// another plan at once, and the list price without a subscription. None when it is not sold to them like this.
pub async fn price(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    plan_id: Uuid,
    currency: &str,
    interval: Interval,
) -> sqlx::Result<Option<i64>> {
    if interval.months().is_none() {
        return Ok(None);
    }
    let sold = plan::price(&mut *db, plan_id, currency, interval).await?;
    let Some(current) = find_live(&mut *db, tenant_id, user_id).await? else { return Ok(sold) };
    if current.currency != currency {
        return Ok(None);
    }
    if current.plan_id == plan_id && current.interval == interval.name() {
        return Ok(Some(current.amount));
    }
    let (Some(sold), now) = (sold, now(&mut *db).await?) else { return Ok(None) };
    if current.next_plan_id == Some(plan_id) && now >= current.current_period_end - EARLY {
        return Ok(Some(sold));
    }
    let quote = quote_now(db, &current, sold, current.interval == interval.name()).await?;
    Ok(Some(quote.due).filter(|due| *due > 0))
}

/// What a paid payment for a plan does, in the transaction that says it is paid. A payment does it once. Begins and ends as the
/// tenant's identity service.
pub async fn activate(db: Db<'_>, new: &Activation<'_>) -> sqlx::Result<Activated> {
    take_turn(&mut *db, new.user_id).await?;
    let now = now(&mut *db).await?;
    let amount = plan::list_price(&mut *db, new.plan_id, new.currency, new.interval).await?;
    let amount = amount.ok_or(sqlx::Error::RowNotFound)?;
    let current = find_live(&mut *db, new.tenant_id, new.user_id).await?;
    let (did, id) = match current {
        None => (Did::Begun, begin(&mut *db, new, amount, now).await?),
        Some(current) if is_next(&current, new.plan_id, now) => {
            renew(&mut *db, new, &current, amount, now).await?;
            (Did::Renewed, current.id)
        }
        Some(current) => {
            change(&mut *db, new, &current, amount).await?;
            (Did::Changed, current.id)
        }
    };
    let subscription = find(&mut *db, new.tenant_id, id).await?.ok_or(sqlx::Error::RowNotFound)?;
    // What a plan includes is given once a period; a change within one has given what it has more.
    let key = (did != Did::Changed).then(|| minutes::of_period(id, subscription.period_no));
    entitle(db, new.tenant_id, new.user_id, Some(new.plan_id), key.as_deref()).await?;
    Ok(Activated { did, subscription })
}

/// Whether a payment for this plan pays the period that comes.
fn is_next(current: &Subscription, plan_id: Uuid, now: DateTime<Utc>) -> bool {
    let soon = now >= current.current_period_end - EARLY;
    current.plan_id == plan_id || current.next_plan_id == Some(plan_id) && soon || current.state == "past_due"
}

async fn begin(db: Db<'_>, new: &Activation<'_>, amount: i64, now: DateTime<Utc>) -> sqlx::Result<Uuid> {
    let months = new.interval.months().ok_or(sqlx::Error::RowNotFound)?;
    let end = next_end(now, now, months).ok_or(sqlx::Error::RowNotFound)?;
    let id = sqlx::query_scalar!(
        "insert into identity.subscriptions (tenant_id, user_id, plan_id, amount, currency, interval, anchored_at, period_no, state,
             current_period_start, current_period_end, activated_by_payment_id, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, 1, 'active', $7, $8, $9, $7, $7) returning id",
        new.tenant_id,
        new.user_id,
        new.plan_id,
        amount,
        new.currency,
        new.interval.name(),
        now,
        end,
        new.payment_id,
    )
    .fetch_one(&mut *db)
    .await?;
    note(db, id, Some(new.payment_id), now, end).await?;
    Ok(id)
}

async fn renew(
    db: Db<'_>,
    new: &Activation<'_>,
    current: &Subscription,
    amount: i64,
    now: DateTime<Utc>,
) -> sqlx::Result<()> {
    let months = new.interval.months().ok_or(sqlx::Error::RowNotFound)?;
    let from = current.current_period_end;
    // Another interval, and the first period after a trial, are counted from here on.
    let anchor =
        if current.period_no == 0 || current.interval != new.interval.name() { from } else { current.anchored_at };
    let end = next_end(anchor, from, months).ok_or(sqlx::Error::RowNotFound)?;
    let same =
        current.plan_id == new.plan_id && current.interval == new.interval.name() && current.currency == new.currency;
    let start = if now < from { current.current_period_start } else { from };
    sqlx::query!(
        "update identity.subscriptions
         set plan_id = $2, amount = $3, currency = $9, interval = $4, anchored_at = $5, period_no = period_no + 1, state = 'active', next_plan_id = null,
             current_period_start = $6, current_period_end = $7, cancel_at = null, past_due_since = null,
             updated_at = workflow.now(), activated_by_payment_id = coalesce(activated_by_payment_id, $8)
         where id = $1",
        current.id,
        new.plan_id,
        if same { current.amount } else { amount },
        new.interval.name(),
        anchor,
        start,
        end,
        new.payment_id,
        new.currency,
    )
    .execute(&mut *db)
    .await?;
    note(db, current.id, Some(new.payment_id), from, end).await
}

/// Has another plan at once, with the minutes that it has more in all that is paid for.
async fn change(db: Db<'_>, new: &Activation<'_>, before: &Subscription, amount: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.subscriptions set plan_id = $2, amount = $3, next_plan_id = null, updated_at = workflow.now() where id = $1",
        before.id,
        new.plan_id,
        amount,
    )
    .execute(&mut *db)
    .await?;
    note_change(&mut *db, new, before, amount).await?;
    minutes::give_more(db, new, before).await
}

/// Writes down which plan a payment has changed.
async fn note_change(db: Db<'_>, new: &Activation<'_>, before: &Subscription, amount: i64) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into identity.subscription_changes (payment_id, tenant_id, subscription_id, period_no, from_plan_id, from_amount, to_plan_id,
             to_amount, created_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, workflow.now())",
        new.payment_id,
        new.tenant_id,
        before.id,
        before.period_no,
        before.plan_id,
        before.amount,
        new.plan_id,
        amount,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Writes down which time is paid for.
async fn note(
    db: Db<'_>,
    id: Uuid,
    payment_id: Option<Uuid>,
    from: DateTime<Utc>,
    to: DateTime<Utc>,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into identity.subscription_periods (tenant_id, subscription_id, period_no, user_id, plan_id, starts_at, ends_at, payment_id, created_at)
         select tenant_id, id, period_no, user_id, plan_id, $3, $4, $2, workflow.now() from identity.subscriptions where id = $1",
        id,
        payment_id,
        from,
        to,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Begins the trial of a plan that has one. None when the person has a plan, or had a trial of this one in any of its versions.
pub async fn begin_trial(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    plan: &plan::Plan,
    currency: &str,
    interval: Interval,
) -> sqlx::Result<Option<Subscription>> {
    take_turn(&mut *db, user_id).await?;
    let had = sqlx::query_scalar!(
        r#"select exists (select from identity.subscription_periods s join identity.plans p on p.id = s.plan_id
                          where s.user_id = $1 and s.period_no = 0 and p.code = $2)
               or exists (select from identity.subscriptions where user_id = $1 and state in ('trialing', 'active', 'past_due', 'paused')) as "had!""#,
        user_id,
        plan.code,
    );
    if plan.trial_days == 0 || had.fetch_one(&mut *db).await? {
        return Ok(None);
    }
    let Some(amount) = plan::price(&mut *db, plan.id, currency, interval).await? else { return Ok(None) };
    let now = now(&mut *db).await?;
    let end = now + TimeDelta::days(plan.trial_days.into());
    let id = sqlx::query_scalar!(
        "insert into identity.subscriptions (tenant_id, user_id, plan_id, amount, currency, interval, anchored_at, period_no, state,
             current_period_start, current_period_end, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $8, 0, 'trialing', $7, $8, $7, $7) returning id",
        tenant_id,
        user_id,
        plan.id,
        amount,
        currency,
        interval.name(),
        now,
        end,
    )
    .fetch_one(&mut *db)
    .await?;
    note(&mut *db, id, None, now, end).await?;
    entitle(&mut *db, tenant_id, user_id, Some(plan.id), Some(&minutes::of_period(id, 0))).await?;
    find(db, tenant_id, id).await
}

/// Has a subscription end when its period does, or go on after all. False when it has ended, or waits for money: then it ends by itself.
pub async fn set_cancel(db: Db<'_>, tenant_id: Uuid, id: Uuid, cancel: bool) -> sqlx::Result<bool> {
    let set = sqlx::query!(
        "update identity.subscriptions set cancel_at = case when $3 then current_period_end end,
             next_plan_id = case when $3 then null else next_plan_id end, updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state in ('trialing', 'active')",
        tenant_id,
        id,
        cancel,
    );
    Ok(set.execute(db).await?.rows_affected() == 1)
}

/// Says which plan follows when the period ends, if any.
pub async fn set_next(db: Db<'_>, tenant_id: Uuid, id: Uuid, plan_id: Option<Uuid>) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.subscriptions set next_plan_id = $3, updated_at = workflow.now() where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        plan_id,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Ends a subscription whose period `period_no` is over, and with it what its plan allows. False when it goes on: it was paid
/// meanwhile, or has ended before. Begins and ends as the tenant's identity service.
pub async fn end(db: Db<'_>, tenant_id: Uuid, id: Uuid, period_no: i32, state: &str) -> sqlx::Result<bool> {
    let ended = sqlx::query_scalar!(
        "update identity.subscriptions set state = $4, next_plan_id = null, updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and period_no = $3 and state in ('trialing', 'active', 'past_due', 'paused')
           and current_period_end <= workflow.now()
         returning user_id",
        tenant_id,
        id,
        period_no,
        state,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(user_id) = ended else { return Ok(false) };
    let free = plan::find_active(&mut *db, tenant_id, plan::FREE).await?.map(|free| free.id);
    entitle(db, tenant_id, user_id, free, None).await?;
    Ok(true)
}

/// What a person may use by their plan, by name of [`plan::ENTITLEMENTS`]: by the plan they have, else by the one called
/// [`plan::FREE`]. What is not named is not limited by plans.
pub async fn rights(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Entitlements> {
    let rows = sqlx::query!(
        "select e.key, e.value from identity.plan_entitlements e
         where e.tenant_id = $1 and e.plan_id = coalesce(
             (select plan_id from identity.subscriptions where tenant_id = $1 and user_id = $2 and state in ('trialing', 'active', 'past_due', 'paused')),
             (select id from identity.plans where tenant_id = $1 and code = $3 and state = 'active'))",
        tenant_id,
        user_id,
        plan::FREE,
    );
    Ok(rows.fetch_all(db).await?.into_iter().map(|row| (row.key, row.value)).collect())
}

/// Puts into force what a plan allows and has to be kept elsewhere: how much the person may keep stands with the files, and seconds of
/// rendering are given under `key`, once. Everything else is read where it counts, see [`rights`].
async fn entitle(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    plan_id: Option<Uuid>,
    key: Option<&str>,
) -> sqlx::Result<()> {
    let plan = match plan_id {
        Some(id) => plan::find(&mut *db, tenant_id, id).await?,
        None => None,
    };
    if let (Some(plan), Some(key)) = (&plan, key) {
        minutes::give(&mut *db, tenant_id, user_id, key, minutes::of(&plan.entitlements.0)).await?;
    }
    Scope::tenant(Role::File, tenant_id).enter(&mut *db).await?;
    let kept = quota::find(&mut *db, tenant_id, Some(user_id)).await?;
    let bytes = plan.as_ref().and_then(|plan| plan.entitlements.0.get("storage_bytes").copied());
    if kept.limit_bytes != bytes {
        let limits = quota::Limits { soft_bytes: None, bytes, files: kept.limit_files };
        quota::agree(&mut *db, tenant_id, Some(user_id), limits).await?;
    }
    Scope::tenant(Role::Identity, tenant_id).enter(db).await
}
