//! What people have to hear of because nobody waits for it: a schedule that fails, a deadline that comes near.

use super::events::{self, Event};
use crate::models::{DEFAULT_TENANT, Db, Role, Scope, identity::privacy_request, time_series};
use chrono::{DateTime, DurationRound as _, TimeDelta, Utc};
use flatrender_engine::{Context, Failure, Workflow, schedules::Schedules};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// Alarms a run: whoever gets so many knows enough.
const MOST: i64 = 500;

/// What may be alarming.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum About {
    /// Schedules whose last run that is over has failed.
    Schedules,
    /// Requests of people about their data that are due within a week, or were.
    PrivacyRequests,
}

/// Tells operators, of each thing once a day while it lasts. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RaiseAlarms {
    /// What is looked at.
    pub about: About,
}

impl Workflow for RaiseAlarms {
    const NAME: &'static str = "raise_alarms";
    /// How many things are alarming.
    type Output = usize;

    async fn run(self, cx: &Context) -> Result<usize, Failure> {
        let about = self.about;
        cx.step("look", async move |db: Db<'_>| {
            let client = cx.client()?;
            Scope::platform(Role::Admin)
                .within(db, async |db: Db<'_>| {
                    let alarms = match about {
                        About::Schedules => failing_schedules(&mut *db).await?,
                        About::PrivacyRequests => due_requests(&mut *db).await?,
                    };
                    let count = alarms.len();
                    for alarm in alarms {
                        events::happened(&client, &mut *db, alarm).await?;
                    }
                    Ok(count)
                })
                .await
        })
        .await
    }
}

async fn failing_schedules(db: Db<'_>) -> Result<Vec<Event>, Failure> {
    let now = time_series::moment(&mut *db).await?;
    let day = now.duration_trunc(TimeDelta::days(1)).unwrap_or(now);
    let failing = Schedules::failing(db, MOST).await?;
    let alarms = failing.into_iter().map(|schedule| {
        let data = json!({"object": "schedule", "schedule": schedule.name, "tenant_id": schedule.tenant_id,
            "run_id": schedule.run_id, "nominal_at": schedule.nominal_at, "reason": schedule.code});
        alarm("schedule.failed", schedule.id, data, day)
    });
    Ok(alarms.collect())
}

async fn due_requests(db: Db<'_>) -> Result<Vec<Event>, Failure> {
    let due = privacy_request::due(db, MOST).await?;
    let alarms = due.into_iter().map(|request| {
        let day = request.due_at.format("%Y-%m-%d").to_string();
        let data = json!({"object": "privacy_request", "kind": request.kind, "tenant_id": request.tenant_id,
            "due_at": request.due_at, "due": day});
        alarm("privacy_request.due", request.id, data, request.today)
    });
    Ok(alarms.collect())
}

/// For operators; the same of a thing and a day is told once.
fn alarm(kind: &'static str, subject: Uuid, data: Value, occurred_at: DateTime<Utc>) -> Event {
    Event { tenant_id: DEFAULT_TENANT, kind, subject, user_id: None, data, occurred_at }
}
