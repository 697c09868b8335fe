//! The months of all time series: those ahead are made, those that were kept long enough go.

use crate::models::{Db, Role, Scope, time_series};
use chrono::{DateTime, Utc};
use flatrender_engine::{
    Context, Failure, Workflow,
    schedules::{ScheduleError, Terms},
};
use serde::{Deserialize, Serialize};

/// Makes months and retires months. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeepMonths {
    /// Instead of now, by which the months are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
}

impl KeepMonths {
    /// Every night, a quarter past three UTC; a night that was missed is made up for.
    ///
    /// # Errors
    /// Never for these terms.
    pub fn nightly() -> Result<Terms, ScheduleError> {
        Terms::of("keep_months", "15 3 * * *", &Self { at: None })
    }
}

impl Workflow for KeepMonths {
    const NAME: &'static str = "keep_months";
    /// What was done, a line each.
    type Output = Vec<String>;

    async fn run(self, cx: &Context) -> Result<Vec<String>, Failure> {
        let at = self.at.unwrap_or_else(|| cx.now());
        let scope = Scope::platform(Role::Admin);
        cx.step("make", async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(time_series::ensure_months(db, at).await?)).await
        })
        .await?;
        cx.step("retire", async move |db: Db<'_>| {
            scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(time_series::retire_months(db, at).await?)).await
        })
        .await
    }
}
