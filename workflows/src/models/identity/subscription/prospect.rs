//! What a payment for a plan will do, agreed when it is opened and looked at again when it is paid.

use super::{Did, Interval, Subscription, find_live, is_next, now, price, take_turn};
use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// What a payment for a plan will do, as things stand when it is opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Prospect {
    /// What.
    pub did: Did,
    /// To which subscription; none when it begins one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subscription_id: Option<Uuid>,
    /// In which of its periods it was opened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub period_no: Option<i32>,
    /// From which plan, when it changes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from_plan_id: Option<Uuid>,
}

impl Prospect {
    /// What a payment for a plan does to what somebody has.
    fn of(current: Option<&Subscription>, plan_id: Uuid, now: DateTime<Utc>) -> Self {
        let did = match current {
            None => Did::Begun,
            Some(current) if is_next(current, plan_id, now) => Did::Renewed,
            Some(_) => Did::Changed,
        };
        let from_plan_id = current.filter(|_| did == Did::Changed).map(|s| s.plan_id);
        Self { did, subscription_id: current.map(|s| s.id), period_no: current.map(|s| s.period_no), from_plan_id }
    }

    /// Whether a payment that was opened for this may still do what it does `now`: a change was counted by the days of its period and from
    /// the plan of then, which earlier builds did not write down, and a beginning is for who has nothing.
    pub fn holds(&self, now: &Self) -> bool {
        self.did == now.did
            && self.subscription_id == now.subscription_id
            && (self.did == Did::Renewed || self.period_no == now.period_no)
            && (self.from_plan_id.is_none() || self.from_plan_id == now.from_plan_id)
    }
}

/// What a payment for a plan would do now. Whoever else changes what the person has waits until this transaction ends.
///
/// # Errors
/// Those of the database; so with the call below.
pub async fn prospect_now(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, plan_id: Uuid) -> sqlx::Result<Prospect> {
    take_turn(&mut *db, user_id).await?;
    let now = now(&mut *db).await?;
    let current = find_live(db, tenant_id, user_id).await?;
    Ok(Prospect::of(current.as_ref(), plan_id, now))
}

/// What a payment for a plan would do, and what it costs. None when it is not sold to them like this.
pub async fn prospect(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    plan_id: Uuid,
    currency: &str,
    interval: Interval,
) -> sqlx::Result<Option<(Prospect, i64)>> {
    let amount = price(&mut *db, tenant_id, user_id, plan_id, currency, interval).await?;
    let Some(amount) = amount else { return Ok(None) };
    let (now, current) = (now(&mut *db).await?, find_live(db, tenant_id, user_id).await?);
    Ok(Some((Prospect::of(current.as_ref(), plan_id, now), amount)))
}
