//! Files whose time is over: what was in the trash for long enough, and what was kept for a while only.

use crate::models::{
    Db, Role, Scope,
    file_mgr::purge::{self, Looked},
};
use chrono::{DateTime, Utc};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Files a step.
const BATCH: i64 = 500;
/// Rounds through the folders of a run; the next run goes on.
const ROUNDS: usize = 200;

/// Purges, for all tenants, what is past its `purge_after` and what nobody needs. Repeating it is harmless.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct PurgeFiles {}

/// What was purged.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Purged {
    /// Files that are gone.
    pub purged: u64,
    /// Files whose time is over and that somebody needs.
    pub needed: u64,
    /// Folders that are gone.
    pub folders: u64,
}

impl Workflow for PurgeFiles {
    const NAME: &'static str = "purge_files";
    type Output = Purged;

    async fn run(self, cx: &Context) -> Result<Purged, Failure> {
        let mut all = Purged::default();
        let mut after: Option<(DateTime<Utc>, Uuid)> = None;
        for batch in 1.. {
            let looked: Looked = cx
                .step(&format!("batch {batch}"), async move |db: Db<'_>| {
                    let look = async |db: Db<'_>| Ok::<_, Failure>(purge::overdue(db, after, BATCH).await?);
                    Scope::platform(Role::Admin).within(db, look).await
                })
                .await?;
            all.purged += looked.purged;
            all.needed += looked.needed;
            after = looked.last;
            if after.is_none() || cx.cancelled() {
                break;
            }
        }
        // The innermost first: a folder that has lost its last one is the next.
        for round in 1..=ROUNDS {
            let gone = cx
                .step(&format!("folders {round}"), async move |db: Db<'_>| {
                    let look = async |db: Db<'_>| Ok::<_, Failure>(purge::overdue_folders(db, BATCH).await?);
                    Scope::platform(Role::Admin).within(db, look).await
                })
                .await?;
            all.folders += gone;
            if gone == 0 || cx.cancelled() {
                break;
            }
        }
        Ok(all)
    }
}
