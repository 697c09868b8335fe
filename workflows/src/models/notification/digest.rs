//! What waits to be told together.

use super::{audience, catalogue, delivery::Which, routing::Class, template};
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

/// Makes the digests that are due, at most [`BATCH`]. What was read meanwhile is left out, what nobody wants any more, and what came by
/// another channel of its way. As of the platform.
///
/// # Errors
/// Those of the database.
pub async fn make(db: Db<'_>) -> Result<Vec<Made>, Failure> {
    let marketing: Vec<String> =
        catalogue::kinds().iter().filter(|k| k.class == Class::Marketing).map(|k| k.code.to_owned()).collect();
    let (codes, channels, others) = of_one_way();
    let due = sqlx::query!(
        r#"with due as (
               select tenant_id, user_id, channel from notification.digest_items
               where sent_at is null and due_at <= workflow.now() group by tenant_id, user_id, channel limit $1
           ), taken as (
               update notification.digest_items i set sent_at = workflow.now() from due
               where i.tenant_id = due.tenant_id and i.user_id = due.user_id and i.channel = due.channel
                 and i.sent_at is null and i.due_at <= workflow.now()
               returning i.tenant_id, i.user_id, i.channel, i.notification_id
           ), items as (
               select t.tenant_id, t.user_id, t.channel, n.id, n.title, n.created_at, case
                   when n.read_at is not null then 'read'
                   when exists (select from notification.notification_deliveries d
                       join unnest($4::text[], $5::text[], $6::text[]) w (code, channel, other)
                           on w.code = n.template_code and w.channel = t.channel and w.other = d.channel
                       where d.created_at = n.created_at and d.notification_id = n.id and d.state in ('sent', 'delivered')) then 'elsewhere'
                   when not coalesce(p.enabled, t.channel <> 'sms') then 'unwanted'
                   when n.template_code = any ($3) and not coalesce(c.given, false) then 'unwanted' end as why
               from taken t join notification.notifications n on n.id = t.notification_id
               left join lateral (
                   select p.enabled from notification.notification_preferences p
                   where p.tenant_id = t.tenant_id and (p.user_id = t.user_id or p.user_id is null) and p.category = n.category
                     and p.channel = t.channel
                   order by p.user_id nulls last limit 1) p on true
               left join lateral (
                   select c.given from identity.consents c where c.user_id = t.user_id and c.purpose = 'marketing'
                   order by c.created_at desc limit 1) c on true
           )
           select t.tenant_id, t.user_id, t.channel, u.locale, x.locale as of_tenant,
                  array_agg(t.id order by t.created_at) as "ids!", array_agg(t.created_at order by t.created_at) as "told_at!",
                  array_agg(coalesce(t.why, '') order by t.created_at) as "whys!: Vec<String>",
                  coalesce(array_agg(left(t.title, $2) order by t.created_at) filter (where t.why is null), '{}') as "titles!: Vec<String>"
           from items t join identity.users u on u.id = t.user_id join identity.tenants x on x.id = t.tenant_id
           group by t.tenant_id, t.user_id, t.channel, u.locale, x.locale"#,
        BATCH,
        ITEM as i32,
        &marketing,
        &codes,
        &channels,
        &others,
    )
    .fetch_all(&mut *db)
    .await?;
    let mut made = vec![];
    for group in due {
        sqlx::query!(
            "update notification.notification_deliveries d set state = case when i.why = '' then 'sent' else 'dropped' end, attempt_no = 1,
                 error_class = nullif(i.why, ''), sent_at = case when i.why = '' then workflow.now() end, updated_at = workflow.now()
             from unnest($1::timestamptz[], $2::uuid[], $3::text[]) i (told_at, id, why)
             where d.created_at = i.told_at and d.notification_id = i.id and d.channel = $4 and d.state = 'deferred'",
            &group.told_at,
            &group.ids,
            &group.whys,
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
        // Words of one tenant that do not fit keep nobody else from theirs.
        let said = match text.say(&data) {
            Ok(said) => said,
            Err(_) => template::of_ours(kind, catalogue::spoken(&text.language)).say(&data)?,
        };
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

/// By kind, the channels of a way, each with every other one of it: who has a message by one of them needs it by none of the others.
fn of_one_way() -> (Vec<String>, Vec<String>, Vec<String>) {
    let (mut codes, mut channels, mut others) = (vec![], vec![], vec![]);
    for kind in catalogue::kinds() {
        for way in kind.ways {
            for channel in *way {
                for other in way.iter().filter(|other| *other != channel) {
                    codes.push(kind.code.to_owned());
                    channels.push(channel.to_string());
                    others.push(other.to_string());
                }
            }
        }
    }
    (codes, channels, others)
}
