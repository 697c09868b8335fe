//! Whether storage has what the rows say, and nothing else.

use crate::{
    contracts::{
        storage::BlobHash,
        upkeep::{CompareShared, CompareShelf, MOST_NAMED, Shared, ShelfReport},
    },
    models::{Db, Role, Scope, file_mgr::deletion, identity::tenant},
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use uuid::Uuid;

/// Content a run that no file has ever used.
const BATCH: i64 = 10_000;

/// Hashes of each kind that the outcome names of a tenant, and tenants that it names: the step of each has more.
const SHOWN: usize = 5;
const TENANTS: usize = 150;
/// Missing content that the failure names.
const NAMED: usize = 20;

/// Compares storage and rows, both ways, tenant by tenant, and looks for what belongs to no tenant. Objects that nothing has accounted for in a
/// week are queued for removal. Content that is used and not there is nobody's to mend but an operator's: once everything is compared, the run
/// fails with `storage.incomplete`, which counts and names it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct ScanOrphans {}

/// What a tenant's shelf looks like, when not as it should.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Difference {
    /// The tenant.
    pub tenant_id: Uuid,
    /// How they differ.
    pub report: ShelfReport,
    /// Orphans that were queued for removal.
    pub queued: u64,
}

impl Workflow for ScanOrphans {
    const NAME: &'static str = "scan_orphans";
    /// Tenants whose storage is not what the rows say, the first of them, and the first names of what differs.
    type Output = Vec<Difference>;

    async fn run(self, cx: &Context) -> Result<Vec<Difference>, Failure> {
        let scope = Scope::platform(Role::Admin);
        let tenants: Vec<Uuid> = cx
            .step("tenants", async move |db: Db<'_>| {
                scope.within(db, async |db: Db<'_>| Ok::<_, Failure>(tenant::ids(db).await?)).await
            })
            .await?;
        let (mut differences, mut missing) = (vec![], Missing::default());
        for tenant_id in tenants {
            let mut report = cx.activity(&format!("compare {tenant_id}"), CompareShelf { tenant_id }).await?;
            if report.orphan_count + report.missing_count == 0 {
                continue;
            }
            missing.add(tenant_id, &report);
            let named: Vec<String> = report.orphans.iter().take(MOST_NAMED).map(ToString::to_string).collect();
            let queued = cx
                .step(&format!("queue {tenant_id}"), async move |db: Db<'_>| {
                    let queue = async |db: Db<'_>| Ok::<_, Failure>(deletion::queue(db, tenant_id, &named).await?);
                    scope.within(db, queue).await
                })
                .await?;
            report.orphans.truncate(SHOWN);
            report.missing.truncate(SHOWN);
            if differences.len() < TENANTS {
                differences.push(Difference { tenant_id, report, queued });
            }
        }
        cx.step("never used", async move |db: Db<'_>| {
            let queue = async |db: Db<'_>| Ok::<_, Failure>(deletion::queue_never_used(db, BATCH).await?);
            scope.within(db, queue).await
        })
        .await?;
        let shared = compare_shared(cx, &mut missing).await;
        // What tenants miss is told even if nobody could look at the rest.
        missing.verdict().and(shared).map(|()| differences)
    }
}

/// Adds what is missing of what belongs to no tenant.
async fn compare_shared(cx: &Context, missing: &mut Missing) -> Result<(), Failure> {
    if !cx.patched("shelves of no tenant").await {
        return Ok(());
    }
    for shelf in Shared::ALL {
        let report = cx.activity(&format!("compare {}", shelf.name()), CompareShared { shelf }).await?;
        missing.add_shared(shelf, &report);
    }
    Ok(())
}

/// What files and templates use and storage does not have, of all tenants, and what belongs to none.
#[derive(Debug, Default)]
struct Missing {
    count: u64,
    tenants: u64,
    /// Stills and archives.
    shared: u64,
    /// The first of it.
    named: Vec<Value>,
}

impl Missing {
    fn add(&mut self, tenant_id: Uuid, report: &ShelfReport) {
        if report.missing_count == 0 {
            return;
        }
        self.count += report.missing_count;
        self.tenants += 1;
        self.name(report, |hash| json!({ "tenant_id": tenant_id, "sha256": hash }));
    }

    fn add_shared(&mut self, shelf: Shared, report: &ShelfReport) {
        self.shared += report.missing_count;
        self.name(report, |hash| json!({ "shelf": shelf.name(), "sha256": hash }));
    }

    fn name(&mut self, report: &ShelfReport, told: impl Fn(&BlobHash) -> Value) {
        let room = NAMED - self.named.len();
        self.named.extend(report.missing.iter().take(room).map(told));
    }

    fn verdict(self) -> Result<(), Failure> {
        let Self { count, tenants, shared, named } = self;
        let message = match (count, shared) {
            (0, 0) => return Ok(()),
            (_, 0) => format!("{count} objects that files of {tenants} tenants use are not in the storage"),
            _ => format!(
                "{count} objects that files of {tenants} tenants use and {shared} stills or archives are not in the storage"
            ),
        };
        let details = json!({ "missing_count": count + shared, "tenants": tenants, "missing": named });
        Err(Failure::permanent("storage.incomplete", message).with_details(details))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_failure_counts_all_that_is_missing_and_names_the_first_of_it() {
        let mut missing = Missing::default();
        for tenant in 0..4_u8 {
            // The last one misses nothing.
            let hashes = (0..u8::from(tenant < 3) * 15).map(|n| BlobHash::of(&[tenant, n]));
            let hashes: Vec<BlobHash> = hashes.collect();
            let missing_count = hashes.len() as u64 * 100;
            let report = ShelfReport { missing: hashes, missing_count, ..ShelfReport::default() };
            missing.add(Uuid::from_u128(tenant.into()), &report);
        }
        let failure = missing.verdict().unwrap_err();
        assert_eq!((failure.code.as_str(), failure.retryable), ("storage.incomplete", false));
        assert_eq!(failure.message, "4500 objects that files of 3 tenants use are not in the storage");
        let named = failure.details["missing"].as_array().unwrap();
        assert_eq!(named.len(), NAMED);
        assert_eq!(named[15]["sha256"], BlobHash::of(&[1, 0]).as_str());
        assert!(Missing::default().verdict().is_ok());
    }
}
