//! Objects that nobody uses any more, removed from storage after the commit that said so.

use crate::{
    contracts::{
        storage::BlobHash,
        upkeep::{RemoveObjects, RemovedObjects},
    },
    models::{
        Db, Role, Scope,
        file_mgr::deletion::{self, Doomed},
    },
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use uuid::Uuid;

/// Objects a round.
const BATCH: i64 = 500;
/// Rounds of a run; the next run goes on.
const ROUNDS: usize = 20;

/// Removes what is due in the queue of deletions. What cannot be removed is tried again later, later each time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct DrainDeletions {}

/// What was removed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drained {
    /// Objects that are gone.
    pub gone: u64,
    /// Objects that are tried again.
    pub left: u64,
}

impl Workflow for DrainDeletions {
    const NAME: &'static str = "drain_deletions";
    type Output = Drained;

    async fn run(self, cx: &Context) -> Result<Drained, Failure> {
        let mut drained = Drained::default();
        for round in 1..=ROUNDS {
            let doomed: Vec<Doomed> = cx
                .step(&format!("doom {round}"), async move |db: Db<'_>| {
                    let look = async |db: Db<'_>| Ok::<_, Failure>(deletion::doom(db, BATCH).await?);
                    Scope::platform(Role::Admin).within(db, look).await
                })
                .await?;
            let count = doomed.len() as i64;
            let mut owners = BTreeMap::<Uuid, Vec<BlobHash>>::new();
            for Doomed { tenant_id, sha256 } in doomed {
                owners.entry(tenant_id).or_default().push(sha256);
            }
            for (tenant_id, hashes) in owners {
                let removed = remove(cx, round, tenant_id, hashes).await?;
                drained.gone += removed.gone.len() as u64;
                drained.left += removed.left.len() as u64;
            }
            if count < BATCH || cx.cancelled() {
                break;
            }
        }
        Ok(drained)
    }
}

/// Removes objects of a tenant, and says in the tables which are gone. What nobody could remove is free again, whatever happened.
async fn remove(cx: &Context, round: usize, tenant_id: Uuid, hashes: Vec<BlobHash>) -> Result<RemovedObjects, Failure> {
    let asked = RemoveObjects { tenant_id, hashes: hashes.clone() };
    let removed = cx.activity(&format!("remove {round} {tenant_id}"), asked).await;
    let removed = removed.unwrap_or_else(|failure| RemovedObjects {
        gone: vec![],
        left: hashes,
        error: Some(failure.to_string()),
    });
    let names = |hashes: &[BlobHash]| hashes.iter().map(ToString::to_string).collect::<Vec<_>>();
    let (gone, left) = (names(&removed.gone), names(&removed.left));
    let error = removed.error.clone().unwrap_or_default();
    cx.step(&format!("settle {round} {tenant_id}"), async move |db: Db<'_>| {
        let settle = async |db: Db<'_>| Ok::<_, Failure>(deletion::settle(db, tenant_id, &gone, &left, &error).await?);
        Scope::platform(Role::Admin).within(db, settle).await
    })
    .await?;
    Ok(removed)
}
