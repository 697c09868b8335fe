//! Storage and rows, held against each other: objects that nobody uses any more go, months that leave the database become files.

mod compare;

use super::UPKEEP;
use crate::platform::parts::CONNECTIONS;
use bytes::Bytes;
use flatrender_activities::storage;
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::{
    contracts::{
        storage::{BlobStore, Shelf, StorageError},
        upkeep::{ArchiveMonth, ArchivedMonth, RemoveObjects, RemovedObjects},
    },
    models::{Role, Scope, file_mgr::blob, time_series},
};
use futures::{StreamExt as _, stream};
use sqlx::PgPool;
use std::{sync::Arc, time::Duration};
use tokio::{sync::mpsc, time::timeout};

/// Objects removed at a time, each with a connection that waits meanwhile.
const HANDS: usize = 4;
/// All who remove leave most connections to others.
const _: () = assert!(UPKEEP * HANDS * 2 < CONNECTIONS as usize);
/// The longest that a removal may take: a session that does nothing for a minute loses what it holds.
const REMOVAL: Duration = Duration::from_secs(40);
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
    /// Hashes of a tenant that are held in memory at a time, of those that it uses; [`Upkeep::HELD`] does. One that uses more is compared
    /// in 256 parts, one after the other.
    pub held: usize,
}

impl Upkeep {
    /// Some megabytes of hashes.
    pub const HELD: usize = 50_000;
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
