//! Requests for stills that carried a key of the client's: the same key gives the same jobs.

use crate::models::Db;
use uuid::Uuid;

/// A request that was answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotRequest {
    /// Hash of what was asked.
    pub request_sha256: String,
    /// The jobs it was answered with.
    pub job_ids: Vec<Uuid>,
}

/// Takes a key for a request. False when it is taken already; a rival that has not committed is waited for.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn take(db: Db<'_>, tenant_id: Uuid, key: &str, sha256: &str, project_id: Uuid) -> sqlx::Result<bool> {
    let taken = sqlx::query!(
        "insert into render.snapshot_requests (tenant_id, idempotency_key, request_sha256, project_id, created_at)
         values ($1, $2, $3, $4, workflow.now()) on conflict do nothing",
        tenant_id,
        key,
        sha256,
        project_id,
    );
    Ok(taken.execute(db).await?.rows_affected() == 1)
}

/// Notes the jobs that a request is answered with.
pub async fn answer(db: Db<'_>, tenant_id: Uuid, key: &str, job_ids: &[Uuid]) -> sqlx::Result<()> {
    sqlx::query!(
        "update render.snapshot_requests set job_ids = $3 where tenant_id = $1 and idempotency_key = $2",
        tenant_id,
        key,
        job_ids,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// The request that has this key.
pub async fn find(db: Db<'_>, tenant_id: Uuid, key: &str) -> sqlx::Result<Option<SnapshotRequest>> {
    sqlx::query_as!(
        SnapshotRequest,
        "select request_sha256, job_ids from render.snapshot_requests where tenant_id = $1 and idempotency_key = $2",
        tenant_id,
        key,
    )
    .fetch_optional(db)
    .await
}

/// Forgets up to `limit` keys that were used a week ago or earlier; gives how many.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from render.snapshot_requests r using (
             select tenant_id, idempotency_key from render.snapshot_requests
             where created_at < workflow.now() - interval '7 days' limit $1 for update skip locked) old
         where r.tenant_id = old.tenant_id and r.idempotency_key = old.idempotency_key",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}
