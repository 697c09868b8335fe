//! What is told to webhooks: written once, however many hear of it.

use super::tenant_webhook::EVERY_EVENT;
use crate::models::Db;
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

/// A webhook that is to hear of something.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listener {
    /// The webhook.
    pub webhook_id: Uuid,
    /// False while it is paused: then it misses what happens, and what it missed is remembered.
    pub active: bool,
}

/// Something to be told.
#[derive(Debug, Clone, Copy)]
pub struct NewEvent<'a> {
    /// Whose it is.
    pub tenant_id: Uuid,
    /// What happened, such as `render.completed`.
    pub kind: &'a str,
    /// What is told of it: ids and states, at most 20 KB.
    pub data: &'a Value,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// What makes it this one: told twice it is there once.
    pub source: Uuid,
}

/// The webhooks of a tenant that hear of `kind`, but for `except`. None of them is removed before the transaction ends.
///
/// # Errors
/// Those of the database.
pub async fn listening(db: Db<'_>, tenant_id: Uuid, kind: &str, except: Uuid) -> sqlx::Result<Vec<Listener>> {
    sqlx::query_as!(
        Listener,
        r#"select id as webhook_id, state = 'active' as "active!" from identity.tenant_webhooks
           where tenant_id = $1 and state <> 'disabled' and id <> $3 and ($2 = any (event_types) or $4 = any (event_types))
           order by id for key share"#,
        tenant_id,
        kind,
        except,
        EVERY_EVENT
    )
    .fetch_all(db)
    .await
}

/// Writes an event and gives its id, the `webhook-id` of all of its deliveries. None when it was told before.
///
/// # Errors
/// Those of the database.
pub async fn insert(db: Db<'_>, new: NewEvent<'_>) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into identity.tenant_webhook_events (id, tenant_id, type, data, occurred_at, source_event_id, created_at)
         values ($1, $2, $3, $4, $5, $6, workflow.now()) on conflict (tenant_id, source_event_id) do nothing returning id",
        Uuid::now_v7(),
        new.tenant_id,
        new.kind,
        new.data,
        new.occurred_at,
        new.source
    )
    .fetch_optional(db)
    .await
}

/// Forgets up to `limit` events that are older than the months in which their deliveries lay, and of which none is left; gives how many.
/// As an administrator.
///
/// # Errors
/// Those of the database.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query_scalar!(r#"select identity.forget_webhook_events($1) as "gone!""#, limit as i32);
    Ok(gone.fetch_one(db).await?.unsigned_abs().into())
}
