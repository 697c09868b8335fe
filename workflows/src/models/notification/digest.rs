//! What waits to be told together.

use super::{audience, catalogue, delivery::Which, template};
use crate::{
    contracts::notify::Channel,
    models::{
        Db,
        time_series::{self, Series},
    },
};
use chrono::{DateTime, Utc};
use flatrender_engine::Failure;
use serde::{Deserialize, Serialize};
use serde_json::json;
use uuid::Uuid;

/// Digests of one step.
pub const BATCH: i64 = 500;
/// Items that a digest names.
const NAMED: usize = 20;
/// Characters of one item.
const ITEM: usize = 60;

/// A digest that was made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Made {
    /// Whose.
    pub tenant_id: Uuid,
    /// The message that it is.
    pub notification_id: Uuid,
    /// How it goes.
    pub channel: Channel,
}

/// A message waits for the digest of `due`.
///
/// # Errors
/// Those of the database.
pub async fn gather(db: Db<'_>, which: Which, user_id: Uuid, due: DateTime<Utc>) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into notification.digest_items (tenant_id, user_id, notification_id, channel, due_at)
         values ($1, $2, $3, $4, $5) on conflict (notification_id, channel) do nothing",
        which.tenant_id,
        user_id,
        which.notification_id,
        which.channel.as_str(),
        due
    )
    .execute(db)
    .await
    .map(drop)
}

/// Makes the digests that are due, at most [`BATCH`]; what was read meanwhile is left out. As of the platform.
///
/// # Errors
/// Those of the database.
pub async fn make(db: Db<'_>) -> Result<Vec<Made>, Failure> {
    let due = sqlx::query!(
        r#"with due as (
               select tenant_id, user_id, channel from notification.digest_items
               where sent_at is null and due_at <= workflow.now() group by tenant_id, user_id, channel limit $1
           ), taken as (
               update notification.digest_items i set sent_at = workflow.now() from due
               where i.tenant_id = due.tenant_id and i.user_id = due.user_id and i.channel = due.channel
                 and i.sent_at is null and i.due_at <= workflow.now()
               returning i.tenant_id, i.user_id, i.channel, i.notification_id
           )
           select t.tenant_id, t.user_id, t.channel, u.locale, x.locale as of_tenant,
                  array_agg(t.notification_id order by n.created_at) as "ids!", array_agg(n.created_at order by n.created_at) as "told_at!",
                  coalesce(array_agg(left(n.title, $2) order by n.created_at) filter (where n.read_at is null), '{}') as "titles!: Vec<String>"
           from taken t join notification.notifications n on n.id = t.notification_id
           join identity.users u on u.id = t.user_id join identity.tenants x on x.id = t.tenant_id
           group by t.tenant_id, t.user_id, t.channel, u.locale, x.locale"#,
        BATCH,
        ITEM as i32,
    )
    .fetch_all(&mut *db)
    .await?;
    let mut made = vec![];
    for group in due {
        sqlx::query!(
            "update notification.notification_deliveries d set state = case when n.read_at is null then 'sent' else 'dropped' end, attempt_no = 1,
                 error_class = case when n.read_at is null then null else 'read' end,
                 sent_at = case when n.read_at is null then workflow.now() end, updated_at = workflow.now()
             from notification.notifications n
             where d.created_at = any ($1) and d.notification_id = any ($2) and d.channel = $3 and d.state = 'deferred' and n.id = d.notification_id",
            &group.told_at,
            &group.ids,
            group.channel,
        )
        .execute(&mut *db)
        .await?;
        if group.titles.is_empty() {
            continue;
        }
        let channel: Channel = group.channel.parse().unwrap_or(Channel::Email);
        let kind = audience::kind("digest")?;
        let text = template::text(&mut *db, group.tenant_id, kind, channel, &group.locale, &group.of_tenant).await?;
        let items = group.titles.iter().take(NAMED).cloned().collect::<Vec<_>>().join(" · ");
        let said = json!({ "count": group.titles.len(), "items": items });
        let data = kind.complete(&said, None, catalogue::spoken(&text.language));
        let said = text.say(&data)?;
        let (id, now) = (Uuid::now_v7(), time_series::now(&mut *db, Series::NotificationDeliveries).await?);
        // Put away: within the platform each of them stands by itself.
        sqlx::query!(
            "insert into notification.notifications
                 (id, tenant_id, user_id, category, template_code, title, body, data, severity, dedupe_key, created_at, archived_at)
             values ($1, $2, $3, $4, $5, $6, '', $7, $8, $9, $10, $10)",
            id,
            group.tenant_id,
            group.user_id,
            kind.category,
            kind.code,
            said.subject,
            data,
            kind.severity,
            format!("digest:{id}"),
            now
        )
        .execute(&mut *db)
        .await?;
        made.push(Made { tenant_id: group.tenant_id, notification_id: id, channel });
    }
    Ok(made)
}
