//! API keys of tenants.

use crate::models::{Db, Secret};
use uuid::Uuid;

/// Every key begins with this.
pub const KIND: &str = "fr_live_";

/// Who a valid key speaks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyHolder {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The key.
    pub key_id: Uuid,
    /// Whether the use was noted: then there is something to commit.
    pub noted: bool,
}

/// Makes a key for `tenant_id` and gives its text, which cannot be had again.
pub async fn create(db: Db<'_>, tenant_id: Uuid, name: &str) -> sqlx::Result<Secret> {
    let secret = Secret::generate(KIND);
    sqlx::query!(
        "insert into identity.tenant_api_keys (id, tenant_id, name, prefix, key_hash) values ($1, $2, $3, $4, $5)",
        Uuid::now_v7(),
        tenant_id,
        name,
        secret.prefix(),
        secret.hash(),
    )
    .execute(db)
    .await?;
    Ok(secret)
}

/// The holder of the key `text`; none when it is unknown, expired, revoked or its tenant is not active.
/// Notes the use at most once a minute.
pub async fn authenticate(db: Db<'_>, text: &str) -> sqlx::Result<Option<KeyHolder>> {
    let holder = sqlx::query_as!(
        KeyHolder,
        r#"select k.tenant_id, k.id as key_id,
                  k.last_used_at is null or k.last_used_at < workflow.now() - interval '1 minute' as "noted!"
           from identity.tenant_api_keys k join identity.tenants t on t.id = k.tenant_id
           where k.key_hash = $1 and k.revoked_at is null and (k.expires_at is null or k.expires_at > workflow.now())
             and t.status = 'active'"#,
        Secret::hash_of(text),
    )
    .fetch_optional(&mut *db)
    .await?;
    if let Some(holder) = holder.filter(|h| h.noted) {
        sqlx::query!(
            "update identity.tenant_api_keys set last_used_at = workflow.now()
             where id = $1 and (last_used_at is null or last_used_at < workflow.now() - interval '1 minute')",
            holder.key_id,
        )
        .execute(db)
        .await?;
    }
    Ok(holder)
}
