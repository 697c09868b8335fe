//! What people are told of their plans and gifts: a message each, once.

use crate::models::Db;
use serde_json::Value;
use uuid::Uuid;

/// Something to tell a person.
#[derive(Debug, Clone)]
pub struct Notice<'a> {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// What preferences are about: `billing` or `gifts`.
    pub category: &'a str,
    /// Which message it is.
    pub template_code: &'a str,
    /// In English, 1 to 300 characters; the template says it in other languages.
    pub title: &'a str,
    /// What the message is about.
    pub data: Value,
    /// `info`, `success`, `warning` or `critical`.
    pub severity: &'a str,
    /// Counts once a person.
    pub dedupe_key: &'a str,
}

/// Tells it, as the tenant's notification service; gives its id, or none when it was told before.
///
/// # Errors
/// Those of the database.
pub async fn tell(db: Db<'_>, notice: &Notice<'_>) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into notification.notifications (tenant_id, user_id, category, template_code, title, data, severity, dedupe_key, created_at)
         values ($1, $2, $3, $4, left($5, 300), $6, $7, $8, workflow.now()) on conflict (tenant_id, user_id, dedupe_key) do nothing returning id",
        notice.tenant_id,
        notice.user_id,
        notice.category,
        notice.template_code,
        notice.title,
        notice.data,
        notice.severity,
        notice.dedupe_key,
    )
    .fetch_optional(db)
    .await
}
