//! What tenants used, day by day.

use super::events::{self, Event};
use crate::models::{
    Db, Role, Scope,
    identity::usage::{self, Threshold},
};
use chrono::{DateTime, Days, NaiveDate, Utc};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use uuid::Builder;

/// Counts today and the days that are still open, closes the day before them, and tells who uses most of what was agreed. Days that
/// nobody was there for are counted before they are closed. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RollUpUsage {
    /// Instead of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
}

impl Workflow for RollUpUsage {
    const NAME: &'static str = "roll_up_usage";
    /// How many figures changed.
    type Output = u64;

    async fn run(self, cx: &Context) -> Result<u64, Failure> {
        let today = self.at.unwrap_or_else(|| cx.now()).date_naive();
        let open = today.checked_sub_days(Days::new(usage::DAYS_OPEN)).unwrap_or(today);
        do_it(cx, "sample", async |db: Db<'_>| usage::sample(db).await).await?;
        let first: NaiveDate = do_it(cx, "first", async move |db: Db<'_>| usage::first_open(db, today).await).await?;
        let mut changed = 0;
        for day in first.iter_days().take_while(|day| *day <= today) {
            // A day is closed with what was counted last.
            let count = async move |db: Db<'_>| {
                let changed = usage::count(&mut *db, day).await?;
                if day < open {
                    usage::close(db, day + Days::new(1)).await?;
                }
                Ok(changed)
            };
            changed += do_it(cx, &format!("count {day}"), count).await?;
        }
        do_it(cx, "close", async move |db: Db<'_>| usage::close(db, open).await).await?;
        let told = do_it(cx, "thresholds", async |db: Db<'_>| usage::thresholds(db).await).await?;
        for (n, threshold) in told.iter().enumerate() {
            cx.step(&format!("tell {n}"), async move |db: Db<'_>| {
                let workflows = cx.client()?;
                Ok(events::happened(&workflows, db, event(threshold)).await?)
            })
            .await?;
        }
        Ok(changed)
    }
}

/// That so much is used, as it is told: the same thing each time that it is in its period.
fn event(threshold: &Threshold) -> Event {
    let Threshold { tenant_id, quota, percent, began_at, used, limit } = threshold.clone();
    let name = format!("{tenant_id} {quota} {percent}");
    let mut subject = [0; 16];
    subject.copy_from_slice(&Sha256::digest(name.as_bytes())[..16]);
    Event {
        tenant_id,
        kind: "usage.threshold",
        subject: Builder::from_custom_bytes(subject).into_uuid(),
        user_id: None,
        data: json!({"quota": quota.replace('_', " "), "percent": percent, "used": used, "limit": limit,
                     "period": began_at.date_naive(), "severity": if percent < 100 { "warning" } else { "critical" }}),
        occurred_at: began_at,
    }
}

/// A step with an administrator's rights: it looks into several services.
async fn do_it<T>(
    cx: &Context,
    key: &str,
    body: impl Clone + AsyncFnOnce(Db<'_>) -> sqlx::Result<T>,
) -> Result<T, Failure>
where
    T: Serialize + serde::de::DeserializeOwned,
{
    cx.step(key, async move |db: Db<'_>| {
        Scope::platform(Role::Admin).within(db, async |db: Db<'_>| Ok::<_, Failure>(body(db).await?)).await
    })
    .await
}
