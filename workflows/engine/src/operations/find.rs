//! Lists of runs: by key, never by counting or scanning. A page looks at a bounded number of rows, whatever the filter, and goes on at an
//! id that who asked may see: one of its runs, or one that is nobody's.

use super::{OperationError, Operations, sql};
use crate::client::RunState;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::FromRow;
use uuid::Uuid;

/// Rows that a page looks at.
pub(super) const WINDOW: i64 = 10_000;
/// Longest page.
const PAGE: u32 = 500;
/// Bits at the end of an id that are chance, as far as a page leaves them out of where it ended: no run is known by the others.
const CHANCE: u32 = 40;

/// Which runs are meant; everything that is given must fit.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Filter {
    /// Whose.
    pub tenant: Option<Uuid>,
    /// Of one of these kinds; empty: of any.
    pub kinds: Vec<String>,
    /// In one of these states; empty: in any.
    pub states: Vec<RunState>,
    /// What they are about. Found at once when the tenant is given too.
    pub business_key: Option<String>,
    /// Attributes they have, as a JSON object: see [`Operations::set_attributes`].
    pub attributes: Option<Value>,
    /// The cause of their failure: see [`Line::fingerprint`].
    pub fingerprint: Option<String>,
    /// The code of their failure.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Those that wait for, or do, something in this queue right now.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Started no earlier.
    pub created_from: Option<DateTime<Utc>>,
    /// Started before.
    pub created_until: Option<DateTime<Utc>>,
    /// For operations on many runs: only those that have failed and of which no later try was made, as in [`Operations::dead_letters`].
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub dead: bool,
}

impl Filter {
    pub(crate) fn only_failed(&self) -> bool {
        let failed = |s: &RunState| matches!(s, RunState::Failed | RunState::Cancelled);
        self.fingerprint.is_some() || self.code.is_some() || (!self.states.is_empty() && self.states.iter().all(failed))
    }

    pub(crate) fn only_running(&self) -> bool {
        self.states == [RunState::Running] || self.queue.is_some()
    }

    /// Whether they are among the live ones, of all tenants, as there is no shorter way to them.
    pub(crate) fn of_live(&self) -> bool {
        self.only_running() && !self.only_failed()
    }

    pub(super) fn check(&self) -> Result<(), OperationError> {
        if self.attributes.as_ref().is_some_and(|a| !a.is_object()) {
            return Err(OperationError::Bad("attributes are a JSON object".to_owned()));
        }
        if self.dead && self.states.iter().any(|state| *state != RunState::Failed) {
            return Err(OperationError::Bad(
                "dead letters are runs that have failed: no other state goes with dead".to_owned(),
            ));
        }
        Ok(())
    }

    /// The same filter with what it says of states without naming them.
    pub(super) fn settled(&self) -> Self {
        let states = if self.dead { vec![RunState::Failed] } else { self.states.clone() };
        Self { states, ..self.clone() }
    }
}

/// A run in a list.
#[derive(Debug, Clone, PartialEq, Serialize, FromRow)]
pub struct Line {
    /// The run.
    pub id: Uuid,
    /// Whose it is.
    pub tenant_id: Uuid,
    /// [`crate::Workflow::NAME`].
    pub kind: String,
    /// [`crate::Workflow::VERSION`] at the start.
    pub version: i32,
    /// What it is about.
    pub business_key: Option<String>,
    /// Where it stands.
    pub state: RunState,
    /// Higher goes first.
    pub priority: i16,
    /// Why it failed.
    pub error_code: Option<String>,
    /// The same in a sentence.
    pub error_message: Option<String>,
    /// The same for all failures with this cause: the code, and a hash of the message without names and numbers.
    pub fingerprint: Option<String>,
    /// What it may be found by.
    pub attributes: Option<Value>,
    /// When somebody asked it to stop.
    pub cancel_requested_at: Option<DateTime<Utc>>,
    /// When it was started.
    pub created_at: DateTime<Utc>,
    /// When it ended.
    pub finished_at: Option<DateTime<Utc>>,
}

/// A part of a list, newest first.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Page {
    /// The runs; may be fewer than asked for, even none, although there is more.
    pub runs: Vec<Line>,
    /// Where to go on; none at the end.
    pub next: Option<Uuid>,
}

impl Operations {
    /// A run as lists show it; `None` when there is none.
    ///
    /// # Errors
    /// [`OperationError::Engine`].
    pub async fn line(&self, run_id: Uuid) -> Result<Option<Line>, OperationError> {
        let mut db = self.pool.acquire().await?;
        Ok(sql::lines(&mut db, &[run_id]).await?.pop())
    }

    /// Runs that fit `filter`, newest first, after the cursor `after` of the page before.
    ///
    /// # Errors
    /// [`OperationError::Bad`] when the filter makes no sense.
    pub async fn find(&self, filter: &Filter, after: Option<Uuid>, limit: u32) -> Result<Page, OperationError> {
        filter.check()?;
        let limit = limit.clamp(1, PAGE) as usize;
        let mut db = self.pool.acquire().await?;
        let end = sql::window_end(&mut db, filter, after, WINDOW).await?;
        let end = end.map(|end| if filter.tenant.is_some() && filter.of_live() { nobodys(end, after) } else { end });
        let runs = sql::find(&mut db, filter, after, end, limit as i64).await?;
        let next = runs.last().filter(|_| runs.len() == limit).map(|last| last.id).or(end);
        Ok(Page { runs, next })
    }
}

/// A place right above `end`, below `after`, that tells as little of `end` as it can.
fn nobodys(end: Uuid, after: Option<Uuid>) -> Uuid {
    let above = |bits: u32| Uuid::from_u128((end.as_u128() >> bits).saturating_add(1) << bits);
    (0..=CHANCE).rev().map(above).find(|place| after.is_none_or(|after| *place < after)).unwrap_or(end)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_a_page_of_others_runs_ended_is_told_by_nobodys_id() {
        let id = |text: &str| text.parse::<Uuid>().unwrap();
        let end = id("0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e11");
        let place = id("0199d5a0-7c1e-7b3f-9c53-200000000000");
        assert_eq!(nobodys(end, None), place);
        assert_eq!(nobodys(end, Some(id("0199d5a0-7c1e-7b3f-9d00-000000000000"))), place);
        // However close they are, it goes on.
        let closer = nobodys(end, Some(place));
        assert!(end < closer && closer < place, "{closer}");
        assert_eq!(nobodys(end, Some(id("0199d5a0-7c1e-7b3f-9c53-1f0c0a3f5e12"))), end);
    }
}
