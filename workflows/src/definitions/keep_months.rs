//! The months of all time series: those ahead are made.

use crate::models::{Db, Role, Scope, time_series};
use chrono::{DateTime, Utc};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

/// Makes the months from the one before to three ahead, and looks whether each is as it should be. Repeating it is harmless.
/// A month that is not ends the run with `months.faulty`: writers that need it make it themselves, and somebody has to look.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct KeepMonths {
    /// Instead of now, by which the months are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
}

impl Workflow for KeepMonths {
    const NAME: &'static str = "keep_months";
    /// How many months were missing.
    type Output = i32;

    async fn run(self, cx: &Context) -> Result<i32, Failure> {
        let at = self.at.unwrap_or_else(|| cx.now());
        let scope = Scope::platform(Role::Admin);
        let made = cx
            .step("make", async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(time_series::ensure_months(db, at).await?)).await
            })
            .await?;
        let faults: Vec<String> = cx
            .step("look", async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(time_series::faults(db, at).await?)).await
            })
            .await?;
        if faults.is_empty() {
            return Ok(made);
        }
        Err(Failure::permanent("months.faulty", faults.join("; ")))
    }
}
