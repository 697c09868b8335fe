//! Whether storage has what the rows say, and nothing else.

use crate::{
    contracts::upkeep::{CompareShelf, MOST_NAMED, ShelfReport},
    models::{Db, Role, Scope, file_mgr::deletion, identity::tenant},
};
use flatrender_engine::{Context, Failure, Workflow};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Content a run that no file has ever used.
const BATCH: i64 = 10_000;

/// Hashes of each kind that the outcome names of a tenant, and tenants that it names: the step of each has more.
const SHOWN: usize = 5;
const TENANTS: usize = 150;

/// Compares storage and rows, both ways, tenant by tenant. Objects that nothing has accounted for in a week are queued for removal; content
/// that is used and not there is told, and nobody's to mend but an operator's.
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
        let mut differences = vec![];
        for tenant_id in tenants {
            let mut report = cx.activity(&format!("compare {tenant_id}"), CompareShelf { tenant_id }).await?;
            if report.orphan_count + report.missing_count == 0 {
                continue;
            }
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
        Ok(differences)
    }
}
