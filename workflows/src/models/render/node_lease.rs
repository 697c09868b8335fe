//! Leases that render nodes hold, by the fence they show.

use crate::models::Db;
use serde_json::Value;
use uuid::Uuid;

/// A task that a node has leased.
#[derive(Debug, Clone)]
pub struct NodeLease {
    /// The tenant it works for.
    pub tenant_id: Uuid,
    /// The contract's input.
    pub input: Value,
    /// The lease ends this long after a renewal.
    pub lease_seconds: f64,
    /// Whether it has not run out, by the clock of the database.
    pub in_time: bool,
}

/// Who a node is among workers: a lease belongs to one run of its process.
pub fn holder(node: &str, incarnation: Uuid) -> String {
    format!("node:{node}:{incarnation}")
}

/// The task, while its newest lease is that of `token` and was given to the node.
pub async fn find(db: Db<'_>, node: &str, task_id: i64, token: Uuid) -> sqlx::Result<Option<NodeLease>> {
    sqlx::query_as!(
        NodeLease,
        r#"select tenant_id, input as "input!", lease_seconds, lease_expires_at > workflow.now() as "in_time!"
           from workflow.tasks
           where id = $1 and lease_token = $2 and state = 'leased' and kind = 'activity'
             and starts_with(leased_by, 'node:' || $3 || ':')"#,
        task_id,
        token,
        node,
    )
    .fetch_optional(db)
    .await
}

/// Whether an attempt of the node under `token` has ended: its report may be a repetition.
pub async fn has_ended(db: Db<'_>, node: &str, task_id: i64, token: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from workflow.attempts
                          where task_id = $1 and lease_token = $2 and starts_with(worker, 'node:' || $3 || ':')) as "it!""#,
        task_id,
        token,
        node,
    )
    .fetch_one(db)
    .await
}
