//! The months of all time series: those that were kept long enough go.
//!
//! ```text
//!   kept ──▶ detached ──archived, where the series wants that──▶ a week ──▶ dropped
//! ```

use crate::{
    contracts::upkeep::{ArchiveMonth, ArchivedMonth},
    models::{Db, Role, Scope, time_series},
};
use chrono::{DateTime, Utc};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use std::time::Duration;

/// How often a month that somebody is using is tried.
const ROUNDS: usize = 6;
/// How long to wait for whoever is using one.
const PAUSE: Duration = Duration::from_secs(300);

/// Detaches months, archives those that are to be, and drops those whose grace is over. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct RetireMonths {
    /// Instead of now, by which the months are counted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<DateTime<Utc>>,
}

impl Workflow for RetireMonths {
    const NAME: &'static str = "retire_months";
    /// What was done, a line each.
    type Output = Vec<String>;

    async fn run(self, cx: &Context) -> Result<Vec<String>, Failure> {
        let at = self.at.unwrap_or_else(|| cx.now());
        let (mut todo, mut done) = (series(cx).await?, vec![]);
        for round in 1..=ROUNDS {
            let (mut again, mut waiting) = (vec![], vec![]);
            for series in todo {
                let retired = retire(cx, at, series.clone(), round).await?;
                let (busy, settled): (Vec<_>, Vec<_>) = retired.into_iter().partition(|line| line.starts_with("busy "));
                done.extend(settled);
                if !busy.is_empty() {
                    waiting.extend(busy);
                    again.push(series);
                }
            }
            if again.is_empty() {
                break;
            }
            if round == ROUNDS {
                done.extend(waiting);
                break;
            }
            cx.sleep(&format!("wait {round}"), PAUSE).await?;
            todo = again;
        }
        for month in unarchived(cx).await? {
            done.push(archive(cx, at, month).await?);
        }
        Ok(done)
    }
}

/// What is retired by steps of its own: each series, because what a step has locked stays locked until its end. Runs that an earlier build
/// began take all at once.
async fn series(cx: &Context) -> Result<Vec<Option<String>>, Failure> {
    if !cx.patched("series by series").await {
        return Ok(vec![None]);
    }
    let names: Vec<String> = cx
        .step("series", async |db: Db<'_>| {
            let look = async |db: Db<'_>| Ok::<_, Failure>(time_series::names(db).await?);
            Scope::platform(Role::Admin).within(db, look).await
        })
        .await?;
    Ok(names.into_iter().map(Some).collect())
}

async fn retire(cx: &Context, at: DateTime<Utc>, series: Option<String>, round: usize) -> Result<Vec<String>, Failure> {
    let key = match &series {
        Some(series) => format!("retire {series} {round}"),
        None => format!("retire {round}"),
    };
    cx.step(&key, async move |db: Db<'_>| {
        let retire = async |db: Db<'_>| Ok::<_, Failure>(time_series::retire_months(db, at, series.as_deref()).await?);
        Scope::platform(Role::Admin).within(db, retire).await
    })
    .await
}

async fn unarchived(cx: &Context) -> Result<Vec<String>, Failure> {
    cx.step("unarchived", async |db: Db<'_>| {
        let look = async |db: Db<'_>| Ok::<_, Failure>(time_series::unarchived(db).await?);
        Scope::platform(Role::Admin).within(db, look).await
    })
    .await
}

/// Stores a month among the archives of the platform, which are nobody's files, and notes that it may go. One that cannot be stored stays
/// until it can.
async fn archive(cx: &Context, at: DateTime<Utc>, month: String) -> Result<String, Failure> {
    let ArchivedMonth { rows, file } = match cx.activity(&month, ArchiveMonth { month: month.clone() }).await {
        Ok(archived) => archived,
        Err(failure) if failure.is_cancelled() => return Err(failure),
        Err(failure) => return Ok(format!("not archived {month}: {failure}")),
    };
    let line = format!("archived {month}: {rows} rows, {}", file.sha256);
    cx.step(&format!("note {month}"), async move |db: Db<'_>| {
        let note = async |db: Db<'_>| {
            Ok::<_, Failure>(time_series::note_archive(db, &month, rows, file.sha256.as_str(), at).await?)
        };
        Scope::platform(Role::Admin).within(db, note).await.map(drop)
    })
    .await?;
    Ok(line)
}
