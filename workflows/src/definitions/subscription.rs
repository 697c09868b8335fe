//! A subscription, kept for as long as it lives: one run a period, which continues as the next.
//!
//! ```text
//! ──── period ────┬─ 3 days before its end: notice
//!                 ├─ its end: cancelled, as asked ─▶ ended
//!                 ├─ D0 past due, the bill ┐
//!                 ├─ D1, D3 reminders      ├── paid ─▶ the next period
//!                 └─ D7 ─▶ expired         ┘
//! ```
//!
//! The row is the truth and the signal only a hint: whoever pays, cancels or changes a plan writes the row, and each deed here looks
//! whether it still fits it. What is due is paid through a payment for the plan, which pays the next period when it is settled; each thing
//! that is told brings one along, see [`renewal`].

mod renewal;

use super::events::{self, Event};
use crate::models::{
    Db, Role, Scope,
    identity::{
        money,
        plan::{self, Interval},
        subscription::{self, EARLY, Subscription},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_engine::{Client, Context, Failure, Workflow, signals::Delivery};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// The signal that the row has changed.
pub const CHANGED: &str = "changed";
/// Who looks after a period so much later counts from then on what follows: a week is a week.
const LATE: TimeDelta = TimeDelta::hours(1);
/// Signals that one run takes before it continues as another.
const MOST_CHANGES: u32 = 50;

/// Keeps a subscription: tells its owner what comes, and ends it when nobody pays.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeepSubscription {
    /// Its tenant.
    pub tenant_id: Uuid,
    /// The subscription.
    pub subscription_id: Uuid,
}

/// What is to be done about a period, and when, counted from its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Deed {
    Notice,
    Due,
    Remind(i64),
    Expire,
}

/// In their order.
const DEEDS: [Deed; 5] = [Deed::Notice, Deed::Due, Deed::Remind(1), Deed::Remind(3), Deed::Expire];

impl Deed {
    /// This one and those before it, by their keys.
    fn until(self) -> Vec<String> {
        let last = DEEDS.iter().position(|deed| *deed == self).unwrap_or_default();
        DEEDS.iter().take(last + 1).map(|deed| deed.key()).collect()
    }

    fn key(self) -> String {
        match self {
            Self::Notice => "notice".into(),
            Self::Due => "due".into(),
            Self::Remind(day) => format!("remind {day}"),
            Self::Expire => "expire".into(),
        }
    }

    /// When: `since` its owner knows that it is due.
    fn at(self, end: DateTime<Utc>, since: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Notice => end - EARLY,
            Self::Due => end,
            Self::Remind(day) => since + TimeDelta::days(day),
            Self::Expire => since + TimeDelta::days(7),
        }
    }

    /// Whether it only tells something, which nobody needs to hear once the next thing is due.
    fn tells(self) -> bool {
        matches!(self, Self::Notice | Self::Remind(_))
    }
}

impl Workflow for KeepSubscription {
    const NAME: &'static str = "subscription";
    /// The state it ended in; `gone` when there is none.
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        let Some(first) = self.look(cx, "begin").await? else { return Ok("gone".into()) };
        if !first.is_live() {
            return Ok(first.state);
        }
        let (end, mut since, mut changes) = (first.current_period_end, first.current_period_end, 0);
        for (n, deed) in DEEDS.into_iter().enumerate() {
            let key = deed.key();
            // Whoever changes something wakes the run, which looks what it is now.
            loop {
                let left = (deed.at(end, since) - cx.now()).to_std().unwrap_or(Duration::ZERO);
                if left.is_zero() {
                    break;
                }
                let woken = cx.signal_within::<serde_json::Value>(&format!("{key} {changes}"), CHANGED, left).await?;
                if woken.is_none() {
                    break;
                }
                changes += 1;
                let now = self.look(cx, &format!("look {changes}")).await?;
                match now {
                    Some(now) if !now.is_live() => return Ok(now.state),
                    Some(now)
                        if now.period_no == first.period_no
                            && now.current_period_end == end
                            && changes < MOST_CHANGES => {}
                    _ => return cx.continue_as_new(self),
                }
            }
            if deed.tells() && DEEDS.get(n + 1).is_some_and(|next| next.at(end, since) <= cx.now()) {
                continue;
            }
            match self.act(cx, deed, first.period_no).await? {
                Acted::Waits => {}
                Acted::Due(at) => since = if at > end + LATE { at } else { end },
                Acted::Paid => return cx.continue_as_new(self),
                Acted::Ended(state) => return Ok(state),
            }
        }
        // The last deed ends it, unless it was paid.
        cx.continue_as_new(self)
    }
}

/// What a deed has met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum Acted {
    /// The period is the same.
    Waits,
    /// The same, and it is to be paid since then.
    Due(DateTime<Utc>),
    /// The next one is paid.
    Paid,
    /// It is over.
    Ended(String),
}

impl KeepSubscription {
    fn scope(&self) -> Scope {
        Scope::tenant(Role::Identity, self.tenant_id)
    }

    async fn look(&self, cx: &Context, key: &str) -> Result<Option<Subscription>, Failure> {
        let (scope, tenant_id, id, run_id) = (self.scope(), self.tenant_id, self.subscription_id, cx.run_id());
        let look = async move |db: Db<'_>| {
            let look = async |db: Db<'_>| {
                let Some(found) = subscription::keep(&mut *db, tenant_id, id, run_id).await? else { return Ok(None) };
                // Told once, however often somebody looks: an event is known by its time.
                if let Some(at) = subscription::renewed_at(&mut *db, id, found.period_no).await? {
                    announce(&cx.client()?, &mut *db, &found, "subscription.renewed", None, at).await?;
                    let told = Deed::Expire.until();
                    renewal::close(&cx.client()?, db, (tenant_id, id), found.period_no, &told).await?;
                }
                Ok::<_, Failure>(Some(found))
            };
            scope.within(db, look).await
        };
        cx.step(key, look).await
    }

    async fn act(&self, cx: &Context, deed: Deed, period_no: i32) -> Result<Acted, Failure> {
        let (scope, tenant_id, id) = (self.scope(), self.tenant_id, self.subscription_id);
        let act = async move |db: Db<'_>| {
            let act = async |db: Db<'_>| act(&cx.client()?, db, (tenant_id, id), deed, period_no).await;
            scope.within(db, act).await
        };
        cx.step(&deed.key(), act).await
    }
}

/// Has a subscription looked at again, or kept by a run: the one before is over, or there was none. Begins and ends as the tenant's identity
/// service.
///
/// # Errors
/// Those of the database.
pub async fn wake(workflows: &Client, db: Db<'_>, now: &Subscription) -> Result<(), Failure> {
    let (tenant_id, id) = (now.tenant_id, now.id);
    let heard = match now.workflow_run_id {
        None => false,
        Some(run_id) => {
            Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
            let sent = workflows.signal(&mut *db, run_id, CHANGED, None, &serde_json::Value::Null).await?;
            Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
            matches!(sent, Delivery::Accepted | Delivery::Repeated)
        }
    };
    if heard || !now.is_live() {
        return Ok(());
    }
    keep(workflows, db, tenant_id, id, now.workflow_run_id).await
}

/// Starts the run that keeps a subscription, after the one that `was`. Begins and ends as the tenant's identity service.
///
/// # Errors
/// Those of the database.
pub async fn keep(workflows: &Client, db: Db<'_>, tenant_id: Uuid, id: Uuid, was: Option<Uuid>) -> Result<(), Failure> {
    // A key has one run for ever: whoever follows a run that is over is known by that one too.
    let key = was.map_or_else(|| id.to_string(), |run| format!("{id} after {run}"));
    let keeper = KeepSubscription { tenant_id, subscription_id: id };
    Scope::tenant(Role::Workflow, tenant_id).enter(&mut *db).await?;
    let run_id = workflows.start(&mut *db, tenant_id, Some(&key), keeper).await?.run_id;
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
    subscription::keep(db, tenant_id, id, run_id).await?;
    Ok(())
}

/// Does what is due about a period, if it is still the one, in one transaction with what its owner is told.
async fn act(
    workflows: &Client,
    db: Db<'_>,
    (tenant_id, id): (Uuid, Uuid),
    deed: Deed,
    period_no: i32,
) -> Result<Acted, Failure> {
    let Some(now) = subscription::find(&mut *db, tenant_id, id).await? else { return Ok(Acted::Ended("gone".into())) };
    if !now.is_live() {
        return Ok(Acted::Ended(now.state));
    }
    if now.period_no != period_no {
        return Ok(Acted::Paid);
    }
    let ends = match deed {
        Deed::Due if now.cancel_at.is_some() => Some("cancelled"),
        Deed::Expire => Some("expired"),
        _ => None,
    };
    if let Some(state) = ends {
        // Whoever pays at the same moment has come first or too late: both look at the period.
        if !subscription::end(&mut *db, tenant_id, id, period_no, state).await? {
            return Ok(Acted::Paid);
        }
        let at = subscription::now(&mut *db).await?;
        let kind = if state == "cancelled" { "subscription.cancelled" } else { "subscription.expired" };
        renewal::close(workflows, &mut *db, (tenant_id, id), period_no + 1, &Deed::Expire.until()).await?;
        announce(workflows, db, &Subscription { state: state.into(), ..now }, kind, None, at).await?;
        return Ok(Acted::Ended(state.into()));
    }
    match deed {
        Deed::Notice if now.cancel_at.is_none() => {
            let payment = renewal::open(workflows, &mut *db, &now, &deed.until()).await?;
            remind(workflows, db, &now, deed, payment).await?;
        }
        Deed::Due if subscription::lapse(&mut *db, tenant_id, id, period_no).await? => {
            let at = subscription::now(&mut *db).await?;
            let now = Subscription { state: "past_due".into(), past_due_since: Some(at), ..now };
            let payment = renewal::open(workflows, &mut *db, &now, &deed.until()).await?;
            announce(workflows, db, &now, "subscription.past_due", payment, at).await?;
            return Ok(Acted::Due(at));
        }
        // It was past due before, or somebody has paid at this moment.
        Deed::Due => {
            let after = subscription::find(&mut *db, tenant_id, id).await?;
            let same = after.filter(|s| s.period_no == period_no);
            return Ok(same.map_or(Acted::Paid, |s| Acted::Due(s.past_due_since.unwrap_or(s.current_period_end))));
        }
        Deed::Remind(_) => {
            let payment = renewal::open(workflows, &mut *db, &now, &deed.until()).await?;
            remind(workflows, db, &now, deed, payment).await?;
        }
        Deed::Notice | Deed::Expire => {}
    }
    Ok(Acted::Waits)
}

/// Tells whoever listens what became of a subscription.
async fn announce(
    workflows: &Client,
    db: Db<'_>,
    now: &Subscription,
    kind: &'static str,
    payment_id: Option<Uuid>,
    occurred_at: DateTime<Utc>,
) -> Result<(), Failure> {
    let mut data = json!({
        "object": "subscription", "state": now.state, "user_id": now.user_id, "plan_id": now.plan_id, "amount": now.amount,
        "currency": now.currency, "interval": now.interval, "current_period_end": now.current_period_end,
    });
    if let Some(payment_id) = payment_id {
        data["payment_id"] = json!(payment_id);
    }
    let (tenant_id, user_id) = (now.tenant_id, Some(now.user_id));
    Ok(events::happened(workflows, db, Event { tenant_id, kind, subject: now.id, user_id, data, occurred_at }).await?)
}

/// Tells the owner what is to be paid, once a period: whoever is told can pay from there.
async fn remind(
    workflows: &Client,
    db: Db<'_>,
    now: &Subscription,
    deed: Deed,
    payment_id: Option<Uuid>,
) -> Result<(), Failure> {
    let amount = match (now.next_plan_id, Interval::parse(&now.interval)) {
        (Some(next), Some(interval)) => plan::list_price(&mut *db, next, &now.currency, interval).await?,
        _ => Some(now.amount),
    };
    let kind = match deed {
        Deed::Remind(1) => "subscription.reminder_1",
        Deed::Remind(_) => "subscription.reminder_3",
        _ => "subscription.renewal_soon",
    };
    let mut data = json!({
        "object": "subscription", "state": now.state, "user_id": now.user_id, "plan_id": now.coming_plan(),
        "amount": amount.map(|amount| money::text(amount, &now.currency)), "amount_minor": amount, "currency": now.currency,
        "interval": now.interval, "period_end": now.current_period_end, "due": now.current_period_end.date_naive(),
        "payment_id": payment_id,
    });
    if let Some(payment_id) = payment_id {
        data["action_url"] = json!(format!("/billing/payments/{payment_id}"));
    }
    // Not when it is told: whoever does it a second time in the same period tells the same.
    let end = now.current_period_end;
    let occurred_at = deed.at(end, now.past_due_since.unwrap_or(end));
    let (tenant_id, user_id) = (now.tenant_id, Some(now.user_id));
    Ok(events::happened(workflows, db, Event { tenant_id, kind, subject: now.id, user_id, data, occurred_at }).await?)
}
