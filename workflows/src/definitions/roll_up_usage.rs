//! What tenants used, day by day.

use crate::models::{Db, Role, Scope, identity::usage};
use chrono::{DateTime, Days, NaiveDate, Utc};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};

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
            changed += do_it(cx, &format!("count {day}"), async move |db: Db<'_>| usage::count(db, day).await).await?;
        }
        do_it(cx, "close", async move |db: Db<'_>| usage::close(db, open).await).await?;
        do_it(cx, "warn", async |db: Db<'_>| usage::warn(db).await).await?;
        Ok(changed)
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
