//! Content that is stored and will be recorded: it is kept from being removed in between.
//!
//! Storing and recording are two acts, perhaps hours apart: a film is checked before it is published. What is stored is claimed before the
//! storage looks whether it has it, and for as long as a claim stands nothing dooms the content. A claim ends when a file is made of the
//! content, or after two days: a file that comes later still is refused ([`super::blob::is_gone`]) rather than of nothing.

use crate::{
    contracts::storage::{BlobHash, Claims, StorageError},
    models::{Db, Role, Scope},
};
use futures::future::BoxFuture;
use sqlx::PgPool;
use std::time::Duration;
use uuid::Uuid;

/// How often somebody asks who meets content that is being removed, and how long there is in between.
const TRIES: u32 = 10;
const PAUSE: Duration = Duration::from_millis(100);

/// Claims in the database. Cheap to clone.
#[derive(Debug, Clone)]
pub struct BlobClaims(PgPool);

impl BlobClaims {
    /// Claims in this database.
    pub fn new(db: PgPool) -> Self {
        Self(db)
    }

    /// Claims content for two days, unless it is being removed. It gets a row when it has none; its size is not known yet.
    async fn try_claim(&self, tenant_id: Uuid, hash: &BlobHash) -> sqlx::Result<bool> {
        let mut tx = Scope::tenant(Role::File, tenant_id).begin(&self.0).await?;
        let claimed = sqlx::query!(
            "insert into file_mgr.blobs as b (id, tenant_id, sha256, size_bytes, wanted_until)
             values ($1, $2, $3, 1, workflow.now() + interval '2 days')
             on conflict (tenant_id, sha256) do update set wanted_until = excluded.wanted_until, removed_at = null
             where b.doomed_at is null",
            Uuid::now_v7(),
            tenant_id,
            hash.as_str(),
        )
        .execute(&mut *tx)
        .await?;
        tx.commit().await?;
        Ok(claimed.rows_affected() > 0)
    }
}

/// Lets go of content that was stored and of which nothing came, unless a file uses it: it is removed in an hour. Whoever has stored the same
/// meanwhile has that long to record it, or stores it again ([`super::blob::is_gone`]).
///
/// # Errors
/// Those of the database.
pub async fn let_go(db: Db<'_>, tenant_id: Uuid, hash: &BlobHash) -> sqlx::Result<()> {
    let unused = sqlx::query!(
        "update file_mgr.blobs set wanted_until = least(wanted_until, workflow.now() + interval '1 hour')
         where tenant_id = $1 and sha256 = $2 and refcount = 0 and wanted_until is not null",
        tenant_id,
        hash.as_str(),
    );
    if unused.execute(&mut *db).await?.rows_affected() > 0 {
        sqlx::query!(
            "insert into file_mgr.deletion_queue (tenant_id, sha256, not_before)
             values ($1, $2, workflow.now() + interval '1 hour') on conflict do nothing",
            tenant_id,
            hash.as_str(),
        )
        .execute(db)
        .await?;
    }
    Ok(())
}

impl Claims for BlobClaims {
    fn claim<'a>(&'a self, tenant_id: Uuid, hash: &'a BlobHash) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            for tried in 0..TRIES {
                if tried > 0 {
                    tokio::time::sleep(PAUSE).await;
                }
                if self.try_claim(tenant_id, hash).await.map_err(|error| StorageError::Io(Box::new(error)))? {
                    return Ok(());
                }
            }
            Err(StorageError::BeingRemoved(hash.clone()))
        })
    }
}
