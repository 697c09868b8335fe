//! What storage has of a tenant, or of nobody in particular, held against what rows say that is used: all at once, or by the first two digits
//! of hashes where that is much.

use super::Upkeep;
use chrono::{DateTime, Utc};
use flatrender_activities::storage;
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::{
    contracts::{
        storage::{BlobHash, BlobRef, Shelf},
        upkeep::{CompareShared, CompareShelf, MOST_NAMED, Shared, ShelfReport},
    },
    models::{Db, Role, Scope, file_mgr::blob, render::snapshot, time_series},
};
use futures::TryStreamExt as _;
use std::collections::HashSet;
use uuid::Uuid;

/// Hashes that are looked up at a time.
const PAGE: usize = 1000;
/// How old an object is that nothing accounts for: what is being stored right now is not told of yet.
const GRACE: chrono::Duration = chrono::Duration::days(7);

impl Handler<CompareShelf> for Upkeep {
    async fn handle(&self, cx: &Attempt, input: CompareShelf) -> Result<ShelfReport, Failure> {
        self.compare(cx, Whose::Tenant(input.tenant_id)).await
    }
}

impl Handler<CompareShared> for Upkeep {
    async fn handle(&self, cx: &Attempt, input: CompareShared) -> Result<ShelfReport, Failure> {
        self.compare(cx, Whose::Nobody(input.shelf)).await
    }
}

impl Upkeep {
    async fn compare(&self, cx: &Attempt, whose: Whose) -> Result<ShelfReport, Failure> {
        let young = self.now().await? - GRACE;
        let report = ShelfReport::default();
        let mut comparison = Comparison { tools: self, cx, whose, young, report };
        match comparison.used(None, self.held).await? {
            Some(used) => comparison.compare(None, used).await?,
            None => comparison.compare_parts().await?,
        }
        let report = comparison.report;
        if report.orphan_count + report.missing_count > 0 {
            let (orphans, missing) = (report.orphan_count, report.missing_count);
            tracing::error!(?whose, orphans, missing, "storage is not what the rows say");
        }
        Ok(report)
    }

    async fn now(&self) -> Result<DateTime<Utc>, Failure> {
        let mut tx = Scope::platform(Role::Admin).begin(&self.db).await?;
        Ok(time_series::moment(&mut tx).await?)
    }
}

/// Whose shelf it is.
#[derive(Debug, Clone, Copy)]
enum Whose {
    Tenant(Uuid),
    Nobody(Shared),
}

/// A comparison under way.
struct Comparison<'a> {
    tools: &'a Upkeep,
    cx: &'a Attempt,
    whose: Whose,
    /// Objects that were written later may still be accounted for.
    young: DateTime<Utc>,
    /// What was found until now.
    report: ShelfReport,
}

impl Comparison<'_> {
    async fn compare_parts(&mut self) -> Result<(), Failure> {
        for first in 0..=u8::MAX {
            if let Some(used) = self.used(Some(first), usize::MAX).await? {
                self.compare(Some(first), used).await?;
            }
        }
        Ok(())
    }

    /// Hashes that are used, of those that begin with `first` where that is said; none when there are more than `most`.
    async fn used(&self, first: Option<u8>, most: usize) -> Result<Option<HashSet<BlobHash>>, Failure> {
        let digits = first.map(|first| hex::encode([first])).unwrap_or_default();
        let (mut used, mut last) = (HashSet::new(), first.and_then(last_before));
        loop {
            self.cx.check()?;
            let mut tx = Scope::platform(Role::Admin).begin(&self.tools.db).await?;
            let page = self.page(&mut tx, last.as_ref()).await?;
            drop(tx);
            let count = page.len();
            for hash in page.iter().take_while(|hash| hash.starts_with(&digits)) {
                last = hash.parse().ok();
                used.extend(last.clone());
            }
            if used.len() > most {
                return Ok(None);
            }
            // What follows a hash with other digits has other digits, too.
            if count < PAGE || page.last().is_some_and(|hash| !hash.starts_with(&digits)) {
                return Ok(Some(used));
            }
        }
    }

    /// The first hashes after this one.
    async fn page(&self, db: Db<'_>, after: Option<&BlobHash>) -> sqlx::Result<Vec<String>> {
        match self.whose {
            Whose::Tenant(id) => blob::used(db, id, after, PAGE as i64).await,
            Whose::Nobody(Shared::Stills) => snapshot::used(db, after, PAGE as i64).await,
            Whose::Nobody(Shared::Archives) => time_series::archives(db, after, PAGE as i64).await,
        }
    }

    /// Compares what lies on the shelf, or a part of it, with what files use. That was read before: what is stored meanwhile is there when
    /// the shelf is read.
    async fn compare(&mut self, first: Option<u8>, mut used: HashSet<BlobHash>) -> Result<(), Failure> {
        let mut page = Vec::with_capacity(PAGE);
        let mut stored = self.tools.storage.list(&self.shelf(), first);
        while let Some(object) = stored.try_next().await.map_err(|e| storage::failure(&e))? {
            self.cx.check()?;
            self.report.objects += 1;
            self.report.bytes += object.blob.size_bytes;
            if !used.remove(&object.blob.sha256) && object.modified_at < self.young {
                page.push(object.blob);
            }
            if page.len() == PAGE {
                self.account(&mut page).await?;
            }
        }
        self.account(&mut page).await?;
        for hash in used {
            self.miss(hash).await?;
        }
        Ok(())
    }

    fn shelf(&self) -> Shelf {
        match self.whose {
            Whose::Tenant(tenant_id) => Shelf::Files { tenant_id },
            Whose::Nobody(Shared::Stills) => Shelf::Public,
            Whose::Nobody(Shared::Archives) => Shelf::Archives,
        }
    }

    /// Counts those of a page that nothing accounts for.
    async fn account(&mut self, page: &mut Vec<BlobRef>) -> Result<(), Failure> {
        let Whose::Tenant(tenant_id) = self.whose else {
            // What everybody may see stays for ever, whoever knows of it.
            page.clear();
            return Ok(());
        };
        let hashes: Vec<String> = page.iter().map(|blob| blob.sha256.to_string()).collect();
        let mut tx = Scope::platform(Role::Admin).begin(&self.tools.db).await?;
        let orphans: HashSet<String> = blob::unaccounted(&mut tx, tenant_id, &hashes).await?.into_iter().collect();
        drop(tx);
        for blob in page.drain(..).filter(|blob| orphans.contains(blob.sha256.as_str())) {
            self.report.orphan_count += 1;
            self.report.orphan_bytes += blob.size_bytes;
            if self.report.orphans.len() < MOST_NAMED {
                self.report.orphans.push(blob.sha256);
            }
        }
        Ok(())
    }

    /// Counts content that was used and not on the shelf. What has been purged since it was read is no loss.
    async fn miss(&mut self, hash: BlobHash) -> Result<(), Failure> {
        self.cx.check()?;
        let stored = self.tools.storage.stat(&self.shelf(), &hash).await.map_err(|e| storage::failure(&e))?;
        if stored.is_none() && self.is_used(&hash).await? {
            self.report.missing_count += 1;
            if self.report.missing.len() < MOST_NAMED {
                self.report.missing.push(hash);
            }
        }
        Ok(())
    }

    async fn is_used(&self, hash: &BlobHash) -> Result<bool, Failure> {
        // What belongs to nobody is never let go of.
        let Whose::Tenant(tenant_id) = self.whose else { return Ok(true) };
        let mut tx = Scope::platform(Role::Admin).begin(&self.tools.db).await?;
        Ok(blob::is_used(&mut tx, tenant_id, hash).await?)
    }
}

/// The last hash before those that begin with `first`.
fn last_before(first: u8) -> Option<BlobHash> {
    let mut digest = [u8::MAX; 32];
    digest[0] = first.checked_sub(1)?;
    Some(BlobHash::from_digest(digest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_begins_behind_the_last_hash_of_the_one_before() {
        assert_eq!(last_before(0), None);
        assert_eq!(last_before(0xa0).unwrap().as_str(), format!("9f{}", "f".repeat(62)));
    }
}
