//! What tenants used, day by day.

use crate::models::{Db, Role, Scope, identity::usage};
use chrono::{DateTime, Days, Utc};
use flatrender_engine::{
    Context, Failure, Workflow,
    schedules::{ScheduleError, Terms},
};
use serde::{Deserialize, Serialize};

/// Counts today and the days that are still open, and closes the day before them. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RollUpUsage {
    /// Instead of now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
}

impl RollUpUsage {
    /// Five minutes past every hour.
    ///
    /// # Errors
    /// Never for these terms.
    pub fn hourly() -> Result<Terms, ScheduleError> {
        Terms::of("roll_up_usage", "5 * * * *", &Self { at: None })
    }
}

impl Workflow for RollUpUsage {
    const NAME: &'static str = "roll_up_usage";
    /// How many figures changed.
    type Output = u64;

    async fn run(self, cx: &Context) -> Result<u64, Failure> {
        let today = self.at.unwrap_or_else(|| cx.now()).date_naive();
        let first = today.checked_sub_days(Days::new(usage::DAYS_OPEN)).unwrap_or(today);
        let scope = Scope::platform(Role::Admin);
        let mut changed = 0;
        for day in first.iter_days().take_while(|day| *day <= today) {
            changed += cx
                .step(&format!("count {day}"), async move |db: Db<'_>| {
                    scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(usage::count(db, day).await?)).await
                })
                .await?;
        }
        cx.step("close", async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(usage::close(db, first).await?)).await
        })
        .await?;
        Ok(changed)
    }
}
