//! Content that a tenant keeps.

use crate::{contracts::storage::BlobRef, models::Db};
use uuid::Uuid;

/// Records stored content once a tenant and gives its id; a known content keeps its id.
pub async fn record(db: Db<'_>, tenant_id: Uuid, blob: &BlobRef) -> sqlx::Result<Uuid> {
    sqlx::query_scalar!(
        r#"insert into file_mgr.blobs (id, tenant_id, sha256, size_bytes) values ($1, $2, $3, $4)
           on conflict (tenant_id, sha256) do update set size_bytes = excluded.size_bytes
           returning id"#,
        Uuid::now_v7(),
        tenant_id,
        blob.sha256.as_str(),
        blob.size_bytes as i64,
    )
    .fetch_one(db)
    .await
}
