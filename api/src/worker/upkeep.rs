//! Storage and rows, held against each other: objects that nobody uses any more go, months that leave the database become files.

use super::UPKEEP;
use crate::platform::parts::CONNECTIONS;
use bytes::Bytes;
use flatrender_activities::storage;
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::{
    contracts::{
        storage::{BlobHash, BlobRef, BlobStore, Shelf, StorageError},
        upkeep::{ArchiveMonth, ArchivedMonth, CompareShelf, MOST_NAMED, RemoveObjects, RemovedObjects, ShelfReport},
    },
    models::{Role, Scope, file_mgr::blob, time_series},
};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use sqlx::PgPool;
use std::{collections::HashSet, sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::timeout};

/// Objects removed at a time, each with a connection that waits meanwhile.
const HANDS: usize = 4;
/// All who remove leave most connections to others.
const _: () = assert!(UPKEEP * HANDS * 2 < CONNECTIONS as usize);
/// The longest that a removal may take: a session that does nothing for a minute loses what it holds.
const REMOVAL: Duration = Duration::from_secs(40);
/// Hashes that are looked up at a time.
const PAGE: usize = 1000;
/// How old an object is that nothing accounts for: what is being stored right now is not told of yet.
const GRACE: chrono::Duration = chrono::Duration::days(7);
/// Pieces of a file that wait to be stored.
const WAITING: usize = 8;
/// The longest file of a month: 1 TiB.
const LONGEST: u64 = 1 << 40;

/// The tools of what happens by night.
#[derive(Clone)]
pub struct Upkeep {
    /// Where bytes live.
    pub storage: Arc<dyn BlobStore>,
    /// Where rows live.
    pub db: PgPool,
}

impl Handler<RemoveObjects> for Upkeep {
    async fn handle(&self, cx: &Attempt, input: RemoveObjects) -> Result<RemovedObjects, Failure> {
        let shelf = Shelf::Files { tenant_id: input.tenant_id };
        let tried = stream::iter(input.hashes).map(async |hash| {
            cx.check()?;
            // Whoever was slow finds that others have done it, and that the content may be there again: nobody says so while this goes on.
            let mut tx = Scope::tenant(Role::File, input.tenant_id).begin(&self.db).await?;
            let outcome = match blob::stays_doomed(&mut tx, input.tenant_id, &hash).await? {
                true => Some(
                    timeout(REMOVAL, self.storage.remove(&shelf, &hash))
                        .await
                        .unwrap_or_else(|late| Err(StorageError::Io(late.into()))),
                ),
                false => None,
            };
            drop(tx);
            Ok::<_, Failure>((hash, outcome))
        });
        let mut tried = tried.buffer_unordered(HANDS);
        let (mut removed, mut stopped) = (RemovedObjects::default(), None);
        while let Some(outcome) = tried.next().await {
            // Those that are under way come to their end first.
            let (hash, outcome) = match outcome {
                Ok(outcome) => outcome,
                Err(failure) => {
                    stopped.get_or_insert(failure);
                    continue;
                }
            };
            let Some(outcome) = outcome else { continue };
            match outcome {
                Ok(()) => removed.gone.push(hash),
                Err(error) => {
                    removed.error.get_or_insert_with(|| storage::failure(&error).to_string());
                    removed.left.push(hash);
                }
            }
        }
        stopped.map_or(Ok(removed), Err)
    }
}

impl Handler<CompareShelf> for Upkeep {
    async fn handle(&self, cx: &Attempt, input: CompareShelf) -> Result<ShelfReport, Failure> {
        let (shelf, mut report) = (Shelf::Files { tenant_id: input.tenant_id }, ShelfReport::default());
        // What files use is read first: what is stored meanwhile is there when the shelf is read.
        let mut used = self.used(&input).await?;
        let young = self.now().await? - GRACE;
        let mut page = Vec::with_capacity(PAGE);
        let mut stored = self.storage.list(&shelf);
        while let Some(object) = stored.try_next().await.map_err(|e| storage::failure(&e))? {
            cx.check()?;
            report.objects += 1;
            report.bytes += object.blob.size_bytes;
            if !used.remove(&object.blob.sha256) && object.modified_at < young {
                page.push(object.blob);
            }
            if page.len() == PAGE {
                self.account(&input, &mut page, &mut report).await?;
            }
        }
        self.account(&input, &mut page, &mut report).await?;
        // What has been purged since it was read is no loss.
        let gone: Vec<BlobHash> = used.into_iter().collect();
        for hash in gone {
            if self.storage.stat(&shelf, &hash).await.map_err(|e| storage::failure(&e))?.is_none()
                && self.is_used(&input, &hash).await?
            {
                report.missing_count += 1;
                if report.missing.len() < MOST_NAMED {
                    report.missing.push(hash);
                }
            }
        }
        if report.orphan_count + report.missing_count > 0 {
            let (orphans, missing) = (report.orphan_count, report.missing_count);
            tracing::error!(tenant.id = %input.tenant_id, orphans, missing, "storage is not what the rows say");
        }
        Ok(report)
    }
}

impl Upkeep {
    async fn now(&self) -> Result<chrono::DateTime<chrono::Utc>, Failure> {
        let mut tx = Scope::platform(Role::Admin).begin(&self.db).await?;
        Ok(time_series::moment(&mut tx).await?)
    }

    /// Every hash that files of the tenant use.
    async fn used(&self, input: &CompareShelf) -> Result<HashSet<BlobHash>, Failure> {
        let (mut used, mut last) = (HashSet::new(), None);
        loop {
            let mut tx = Scope::platform(Role::Admin).begin(&self.db).await?;
            let page = blob::used(&mut tx, input.tenant_id, last.as_ref(), PAGE as i64).await?;
            drop(tx);
            let count = page.len();
            for hash in page {
                last = hash.parse().ok();
                used.extend(last.clone());
            }
            if count < PAGE {
                return Ok(used);
            }
        }
    }

    async fn is_used(&self, input: &CompareShelf, hash: &BlobHash) -> Result<bool, Failure> {
        let mut tx = Scope::platform(Role::Admin).begin(&self.db).await?;
        Ok(blob::is_used(&mut tx, input.tenant_id, hash).await?)
    }

    /// Counts those of a page that nothing accounts for.
    async fn account(
        &self,
        input: &CompareShelf,
        page: &mut Vec<BlobRef>,
        report: &mut ShelfReport,
    ) -> Result<(), Failure> {
        let hashes: Vec<String> = page.iter().map(|blob| blob.sha256.to_string()).collect();
        let mut tx = Scope::platform(Role::Admin).begin(&self.db).await?;
        let orphans: HashSet<String> =
            blob::unaccounted(&mut tx, input.tenant_id, &hashes).await?.into_iter().collect();
        for blob in page.drain(..).filter(|blob| orphans.contains(blob.sha256.as_str())) {
            report.orphan_count += 1;
            report.orphan_bytes += blob.size_bytes;
            if report.orphans.len() < MOST_NAMED {
                report.orphans.push(blob.sha256);
            }
        }
        Ok(())
    }
}

impl Handler<ArchiveMonth> for Upkeep {
    async fn handle(&self, cx: &Attempt, input: ArchiveMonth) -> Result<ArchivedMonth, Failure> {
        let (pieces, waiting) = mpsc::channel::<std::io::Result<Bytes>>(WAITING);
        let body = stream::unfold(waiting, async |mut waiting| waiting.recv().await.map(|piece| (piece, waiting)));
        let mut db = self.db.acquire().await?;
        let (rows, mut out) = time_series::read_out(&mut db, &input.month).await?;
        let written = async move {
            while let Some(piece) = out.next().await {
                if let Err(stopped) = cx.check() {
                    let _ = pieces.send(Err(std::io::Error::other("stopped"))).await;
                    return Err(stopped);
                }
                // What ends early is never taken for a whole file.
                if pieces.send(piece.map_err(std::io::Error::other)).await.is_err() {
                    break;
                }
            }
            Ok::<(), Failure>(())
        };
        let stored = self.storage.put(&Shelf::Archives, None, body.boxed(), LONGEST);
        let (written, file) = tokio::join!(written, stored);
        written?;
        Ok(ArchivedMonth { rows, file: file.map_err(|e| storage::failure(&e))? })
    }
}
