//! Who is told, and that they are: a page of people at a time.

use super::{
    catalogue::{self, Kind},
    routing::{self, Case, Class, Route, Wish},
    template,
};
use crate::{
    contracts::notify::{Channel, Line, Said},
    models::{
        Db,
        time_series::{self, Series},
    },
};
use chrono::{DateTime, Utc};
use chrono_tz::Tz;
use flatrender_engine::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::HashMap;
use uuid::Uuid;

/// People of a page.
pub const PAGE: i64 = 1000;
/// Longest text of a message within the platform, in characters.
const BODY: usize = 4000;

/// Who is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Audience {
    /// One person.
    User(Uuid),
    /// Owners and administrators of the tenant.
    Managers,
    /// The same, and those of the tenant who see to its bills.
    Treasurers,
    /// Whoever runs the platform.
    Operators,
    /// Everybody of the tenant.
    Everyone,
}

/// What happened, for those who are told.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct News {
    /// One event tells each person once.
    pub event_id: Uuid,
    /// Of which kind.
    pub code: String,
    /// Who is told.
    pub audience: Audience,
    /// What it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<Uuid>,
    /// What there is to say.
    #[serde(default)]
    pub data: Value,
}

/// A page of people who were told.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Page {
    /// The messages that are new.
    pub told: Vec<Uuid>,
    /// Where the next page begins; none: this was the last.
    pub next: Option<Uuid>,
}

struct Reader {
    id: Uuid,
    locale: String,
    enabled: Option<bool>,
    consent: bool,
}

impl Reader {
    /// Whether it stands in their list.
    fn wants(&self, kind: &Kind, now: DateTime<Utc>) -> bool {
        let usual = routing::usual(kind.class, Channel::Inapp);
        let case = Case {
            class: kind.class,
            channel: Channel::Inapp,
            wish: Wish { enabled: self.enabled.unwrap_or(usual.enabled), ..usual },
            consent: self.consent,
            reachable: true,
            shut: None,
        };
        routing::decide(&case, now, Tz::UTC) == Route::Send
    }
}

/// Writes what a page of people is told, those after `after`, each in their language. Who was told of this event before is not told again;
/// who does not want it in their list has it put away, for other channels hang on it. Marketing is not even written for who did not agree.
/// As of the platform.
///
/// # Errors
/// `notification.unknown_kind`, `notification.unfit` for good; those of the database.
pub async fn tell(db: Db<'_>, tenant_id: Uuid, news: &News, after: Option<Uuid>) -> Result<Page, Failure> {
    let kind = kind(&news.code)?;
    let readers = readers(&mut *db, tenant_id, news.audience, kind, after).await?;
    let next = readers.last().filter(|_| readers.len() as i64 == PAGE).map(|reader| reader.id);
    let of_tenant = sqlx::query_scalar!("select locale from identity.tenants where id = $1", tenant_id)
        .fetch_optional(&mut *db)
        .await?
        .ok_or_else(|| Failure::permanent("tenant.gone", "there is no such tenant"))?;
    let mut languages: HashMap<String, (Said, Value)> = HashMap::new();
    for reader in &readers {
        if !languages.contains_key(&reader.locale) {
            let text = template::text(&mut *db, tenant_id, kind, Channel::Inapp, &reader.locale, &of_tenant).await?;
            let subject = news.subject.map(|id| id.to_string());
            let data = kind.complete(&news.data, subject.as_deref(), &text.language);
            languages.insert(reader.locale.clone(), (text.say(&data)?, data));
        }
    }
    if readers.is_empty() {
        return Ok(Page { told: vec![], next });
    }
    // The month of all deliveries of these messages is there afterwards.
    let now = time_series::now(&mut *db, Series::NotificationDeliveries).await?;
    let told = write(&mut *db, tenant_id, kind, news, &readers, &languages, now).await?;
    if news.code == "gift.earned"
        && let (Some(gift), Some(id)) = (news.subject, told.first())
    {
        sqlx::query!(
            "update identity.earned_gifts set notification_id = $3 where tenant_id = $1 and id = $2 and notification_id is null",
            tenant_id,
            gift,
            id
        )
        .execute(db)
        .await?;
    }
    Ok(Page { told, next })
}

/// The kind of this name.
///
/// # Errors
/// `notification.unknown_kind` for good.
pub fn kind(code: &str) -> Result<&'static Kind, Failure> {
    let unknown = || Failure::permanent("notification.unknown_kind", format!("nobody is told of {code:?}"));
    catalogue::find(code).ok_or_else(unknown)
}

/// What stands in the list.
fn body(said: &Said) -> String {
    let lines =
        said.lines.iter().filter_map(|line| if let Line::Words(words) = line { Some(words.as_str()) } else { None });
    lines.collect::<Vec<_>>().join("\n").chars().take(BODY).collect()
}

async fn readers(
    db: Db<'_>,
    tenant_id: Uuid,
    audience: Audience,
    kind: &Kind,
    after: Option<Uuid>,
) -> sqlx::Result<Vec<Reader>> {
    let (who, user_id) = match audience {
        Audience::User(id) => ("user", Some(id)),
        Audience::Managers => ("managers", None),
        Audience::Treasurers => ("treasurers", None),
        Audience::Operators => ("operators", None),
        Audience::Everyone => ("everyone", None),
    };
    sqlx::query_as!(
        Reader,
        r#"select u.id, u.locale, p.enabled as "enabled?", coalesce(c.given, false) as "consent!"
           from identity.users u
           left join lateral (
               select p.enabled from notification.notification_preferences p
               where p.tenant_id = $1 and (p.user_id = u.id or p.user_id is null) and p.category = $6 and p.channel = 'inapp'
               order by p.user_id nulls last limit 1) p on true
           left join lateral (
               select c.given from identity.consents c where $7 and c.user_id = u.id and c.purpose = 'marketing'
               order by c.created_at desc limit 1) c on true
           where u.tenant_id = $1 and u.status in ('active', 'locked') and ($2::uuid is null or u.id > $2)
             and case $3::text
                 when 'user' then u.id = $4
                 when 'managers' then exists (select from identity.role_bindings b
                     where b.tenant_id = $1 and b.user_id = u.id and b.role in ('owner', 'admin'))
                 when 'treasurers' then exists (select from identity.role_bindings b
                     where b.tenant_id = $1 and b.user_id = u.id and b.role in ('owner', 'admin', 'billing'))
                 when 'operators' then u.is_platform_staff
                 else true end
             and (not $7 or c.given)
           order by u.id limit $5"#,
        tenant_id,
        after,
        who,
        user_id,
        PAGE,
        kind.category,
        kind.class == Class::Marketing,
    )
    .fetch_all(db)
    .await
}

async fn write(
    db: Db<'_>,
    tenant_id: Uuid,
    kind: &Kind,
    news: &News,
    readers: &[Reader],
    languages: &HashMap<String, (Said, Value)>,
    now: DateTime<Utc>,
) -> sqlx::Result<Vec<Uuid>> {
    // Every reader's language is among them.
    let said = |reader: &Reader| languages.get(&reader.locale).cloned().unwrap_or_default();
    let (mut ids, mut users, mut titles, mut bodies, mut data) = (vec![], vec![], vec![], vec![], vec![]);
    let wanted: Vec<bool> = readers.iter().map(|reader| reader.wants(kind, now)).collect();
    for reader in readers {
        let (words, values) = said(reader);
        ids.push(Uuid::now_v7());
        users.push(reader.id);
        titles.push(words.subject.clone());
        bodies.push(body(&words));
        data.push(values);
    }
    let grave = ["info", "success", "warning", "critical"].into_iter().find(|grave| news.data["severity"] == *grave);
    let told = sqlx::query!(
        r#"insert into notification.notifications
               (id, tenant_id, user_id, category, template_code, title, body, data, severity, dedupe_key, source_event_id, created_at, archived_at)
           select n.id, $1, n.user_id, $2, $3, n.title, n.body, n.data, $4, $5, $6, $7::timestamptz, case when not n.wanted then $7::timestamptz end
           from unnest($8::uuid[], $9::uuid[], $10::text[], $11::text[], $12::jsonb[], $13::bool[]) n (id, user_id, title, body, data, wanted)
           on conflict (tenant_id, user_id, dedupe_key) do nothing returning id, archived_at is null as "wanted!""#,
        tenant_id,
        kind.category,
        kind.code,
        grave.unwrap_or(kind.severity),
        format!("{}:{}", news.event_id, kind.code),
        news.event_id,
        now,
        &ids,
        &users,
        &titles,
        &bodies,
        &data,
        &wanted,
    )
    .fetch_all(&mut *db)
    .await?;
    let (told, wanted): (Vec<Uuid>, Vec<bool>) = told.into_iter().map(|row| (row.id, row.wanted)).unzip();
    sqlx::query!(
        "insert into notification.notification_deliveries
             (created_at, id, tenant_id, notification_id, channel, state, attempt_no, sent_at, error_class, idempotency_key, updated_at)
         select $1::timestamptz, n.id, $2, n.id, 'inapp', case when n.wanted then 'delivered' else 'dropped' end, case when n.wanted then 1 else 0 end,
                case when n.wanted then $1::timestamptz end, case when not n.wanted then 'unwanted' end, n.id || ':inapp', $1::timestamptz
         from unnest($3::uuid[], $4::bool[]) n (id, wanted)",
        now,
        tenant_id,
        &told,
        &wanted,
    )
    .execute(db)
    .await?;
    Ok(told)
}
