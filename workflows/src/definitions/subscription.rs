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
//! whether it still fits it. What is due is paid through a payment for the plan, which pays the next period when it is settled.

use super::events::{self, Event};
use crate::models::{
    Db, Role, Scope,
    identity::{
        notice::{self, Notice},
        plan::{self, Interval},
        subscription::{self, EARLY, Subscription},
    },
};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_engine::{Client, Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// The signal that the row has changed.
pub const CHANGED: &str = "changed";
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
    fn key(self) -> String {
        match self {
            Self::Notice => "notice".into(),
            Self::Due => "due".into(),
            Self::Remind(day) => format!("remind {day}"),
            Self::Expire => "expire".into(),
        }
    }

    fn at(self, end: DateTime<Utc>) -> DateTime<Utc> {
        match self {
            Self::Notice => end - EARLY,
            Self::Due => end,
            Self::Remind(day) => end + TimeDelta::days(day),
            Self::Expire => end + TimeDelta::days(7),
        }
    }
}

impl Workflow for KeepSubscription {
    const NAME: &'static str = "subscription";
    /// The state it ended in; `gone` when there is none.
    type Output = String;

    async fn run(self, cx: &Context) -> Result<String, Failure> {
        let Some(first) = self.look(cx, "begin").await? else { return Ok("gone".into()) };
        let mut changes = 0;
        for deed in DEEDS {
            let key = deed.key();
            // Whoever changes something wakes the run, which looks what it is now.
            loop {
                let left = (deed.at(first.current_period_end) - cx.now()).to_std().unwrap_or(Duration::ZERO);
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
                            && now.current_period_end == first.current_period_end
                            && changes < MOST_CHANGES => {}
                    _ => return cx.continue_as_new(self),
                }
            }
            match self.act(cx, deed, first.period_no).await? {
                Acted::Waits => {}
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
                    announce(&cx.client()?, db, &found, "subscription.renewed", at).await?;
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
        announce(workflows, db, &Subscription { state: state.into(), ..now }, kind, at).await?;
        return Ok(Acted::Ended(state.into()));
    }
    match deed {
        Deed::Notice if now.cancel_at.is_none() => tell(db, &now, "renewal_soon", "info").await?,
        Deed::Due if subscription::lapse(&mut *db, tenant_id, id, period_no).await? => {
            let at = subscription::now(&mut *db).await?;
            announce(workflows, db, &Subscription { state: "past_due".into(), ..now }, "subscription.past_due", at)
                .await?;
        }
        // It was past due before, or somebody has paid at this moment.
        Deed::Due => {
            let after = subscription::find(&mut *db, tenant_id, id).await?;
            return Ok(if after.is_some_and(|s| s.period_no == period_no) { Acted::Waits } else { Acted::Paid });
        }
        Deed::Remind(day) => tell(db, &now, &format!("reminder_{day}"), "warning").await?,
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
    occurred_at: DateTime<Utc>,
) -> Result<(), Failure> {
    let data = json!({
        "object": "subscription", "state": now.state, "user_id": now.user_id, "plan_id": now.plan_id, "amount": now.amount,
        "currency": now.currency, "interval": now.interval, "current_period_end": now.current_period_end,
    });
    let (tenant_id, user_id) = (now.tenant_id, Some(now.user_id));
    Ok(events::happened(workflows, db, Event { tenant_id, kind, subject: now.id, user_id, data, occurred_at }).await?)
}

/// Tells the owner of what is no event, once a period: what is due is in it, so that it can be paid from there.
async fn tell(db: Db<'_>, now: &Subscription, what: &str, severity: &str) -> Result<(), Failure> {
    let amount = match (now.next_plan_id, Interval::parse(&now.interval)) {
        (Some(next), Some(interval)) => plan::list_price(&mut *db, next, &now.currency, interval).await?,
        _ => Some(now.amount),
    };
    let title = match what {
        "renewal_soon" => "Your plan is about to be renewed",
        _ => "Your plan is to be paid",
    };
    let notice = Notice {
        tenant_id: now.tenant_id,
        user_id: now.user_id,
        category: "billing",
        template_code: &format!("subscription.{what}"),
        title,
        data: json!({
            "subscription_id": now.id, "plan_id": now.coming_plan(), "amount": amount, "currency": now.currency,
            "interval": now.interval, "period_end": now.current_period_end,
        }),
        severity,
        dedupe_key: &format!("subscription.{}.{}.{what}", now.id, now.period_no),
    };
    Scope::tenant(Role::Notification, now.tenant_id).enter(&mut *db).await?;
    notice::tell(&mut *db, &notice).await?;
    Scope::tenant(Role::Identity, now.tenant_id).enter(db).await?;
    Ok(())
}
