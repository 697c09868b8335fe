//! One message by one channel: what is to be done about it now, and that it is about to be done.

use super::{
    account, address,
    address::{Address, Own, Way},
    audience,
    catalogue::{self, Kind},
    digest,
    preference::Preference,
    quiet,
    routing::{self, Case, Class, Digest, Route, Shut, Wish},
    sms, suppression, template,
};
use crate::{
    contracts::notify::{Channel, Envelope, SendEmail, SendPush, SendSms, SendTelegram, Sender},
    models::{DEFAULT_TENANT, Db, Role, Scope},
};
use chrono::{DateTime, TimeDelta, Utc};
use flatrender_engine::Failure;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use uuid::{Builder, Uuid};

/// For how long a message is worth sending.
const LIFE: TimeDelta = TimeDelta::hours(72);

/// Which message, by which channel.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Which {
    /// Whose.
    pub tenant_id: Uuid,
    /// The message.
    pub notification_id: Uuid,
    /// How it goes.
    pub channel: Channel,
    /// The run that sees to it.
    pub run_id: Uuid,
}

/// One call to be made.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Parcel {
    /// An e-mail.
    Email(SendEmail),
    /// To a browser.
    Push(SendPush),
    /// A text message.
    Sms(SendSms),
    /// To a chat.
    Telegram(SendTelegram),
}

/// A call to be made, and where its outcome belongs.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Sending {
    /// The delivery: made of the message, the channel and the address.
    pub delivery_id: Uuid,
    /// A row of the addresses or the browsers.
    pub address_id: Option<Uuid>,
    /// What is kept of the address.
    pub address_hash: String,
    /// What to ask for.
    pub parcel: Parcel,
}

/// What is to be done about a message by a channel.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Next {
    /// Calls. Their deliveries are `sending`.
    Send {
        /// When the message was told.
        told_at: DateTime<Utc>,
        /// Whether it is critical.
        critical: bool,
        /// Until when trying makes sense.
        until: DateTime<Utc>,
        /// The calls.
        calls: Vec<Sending>,
    },
    /// Nothing before then.
    Wait(DateTime<Utc>),
    /// It goes with a digest.
    Gathered,
    /// It was accepted everywhere.
    Sent,
    /// Nothing: why.
    Nothing(String),
}

/// The id of a delivery: the same for the same message, channel and address.
pub fn id_of(notification_id: Uuid, channel: Channel, address_id: Option<Uuid>) -> Uuid {
    let mut hash = Sha256::new();
    hash.update(notification_id.as_bytes());
    hash.update(channel.as_str());
    hash.update(address_id.unwrap_or_default().as_bytes());
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&hash.finalize()[..16]);
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// A message with all that decides what becomes of it.
struct Facts {
    user_id: Uuid,
    category: String,
    code: String,
    data: Value,
    read: bool,
    told_at: DateTime<Utc>,
    now: DateTime<Utc>,
    email: Option<String>,
    phone: Option<String>,
    locale: String,
    timezone: String,
    of_tenant: String,
    sender: Sender,
    wish: Option<Preference>,
    consent: bool,
}

impl Facts {
    /// What the reader wants. Of digests they want each that there is: what they do not want was never in it.
    fn wish(&self, kind: &Kind, channel: Channel) -> Wish {
        let chosen = self.wish.as_ref().filter(|_| kind.category != catalogue::DIGEST);
        let always = Wish { enabled: true, quiet: None, digest: Digest::Off };
        let usual = if kind.category == catalogue::DIGEST { always } else { routing::usual(kind.class, channel) };
        chosen.map_or(usual, |chosen| chosen.wish(&self.timezone))
    }
}

/// Decides what is to be done, and writes it down before it is: deliveries to be sent are `sending` afterwards. `short` when it was too
/// long before; `beside` are channels that it goes by at the same time: who has it by one of those needs it no more. As of the platform.
///
/// # Errors
/// `notification.unfit` for good; those of the database.
pub async fn begin(db: Db<'_>, which: Which, short: bool, beside: &[Channel]) -> Result<Next, Failure> {
    let Some(facts) = facts(&mut *db, which).await? else { return nothing("gone") };
    if !beside.is_empty() && is_elsewhere(&mut *db, which, facts.told_at, beside).await? {
        return nothing("elsewhere");
    }
    let kind = audience::kind(&facts.code)?;
    if facts.now - facts.told_at > LIFE {
        return nothing("too_late");
    }
    if facts.read && kind.class != Class::Critical {
        return nothing("read");
    }
    let own = Own { email: facts.email.as_deref(), phone: facts.phone.as_deref() };
    let found = address::find(&mut *db, which.tenant_id, facts.user_id, which.channel, own).await?;
    let case = Case {
        class: kind.class,
        channel: which.channel,
        wish: facts.wish(kind, which.channel),
        consent: facts.consent,
        reachable: !found.is_empty(),
        shut: None,
    };
    let (mut open, mut shut) = (vec![], false);
    for address in found {
        let why = suppression::reason(&mut *db, which.tenant_id, which.channel, &address.hash).await?;
        let why = why.map(|why| if why == "unsubscribe" { Shut::Asked } else { Shut::Broken });
        match routing::decide(&Case { shut: why, ..case }, facts.now, quiet::zone(&facts.timezone)) {
            Route::Suppressed => shut = true,
            Route::Send => open.push(address),
            Route::Wait(until) if until > facts.told_at + LIFE => return nothing("too_late"),
            Route::Wait(until) => {
                // Of browsers and chats each has a delivery of its own, which begins when it is sent.
                if matches!(which.channel, Channel::Email | Channel::Sms) {
                    note(db, which, &facts, "deferred", Some(until)).await?;
                }
                return Ok(Next::Wait(until));
            }
            Route::Gather(due) => {
                note(&mut *db, which, &facts, "deferred", Some(due)).await?;
                digest::gather(db, which, facts.user_id, due).await?;
                return Ok(Next::Gathered);
            }
            Route::Unwanted => return end(db, which, &facts, "dropped", "unwanted").await,
            Route::Unreachable => {}
        }
    }
    match (open.is_empty(), shut) {
        (true, true) => return end(db, which, &facts, "suppressed", "suppressed").await,
        (true, false) => return nothing("unreachable"),
        _ => {}
    }
    send(db, which, &facts, kind.class, open, short).await
}

/// Whether somebody has the message by one of these channels; then what is left of it by this one is dropped.
async fn is_elsewhere(db: Db<'_>, which: Which, told_at: DateTime<Utc>, beside: &[Channel]) -> sqlx::Result<bool> {
    let beside: Vec<String> = beside.iter().map(Channel::to_string).collect();
    sqlx::query_scalar!(
        r#"with elsewhere as (
               select exists (select from notification.notification_deliveries
                   where created_at = $1 and notification_id = $2 and channel = any ($4) and state in ('sent', 'delivered')) as it
           ), dropped as (
               update notification.notification_deliveries d
               set state = 'dropped', error_class = 'elsewhere', not_before = null, updated_at = workflow.now()
               from elsewhere where elsewhere.it and d.created_at = $1 and d.notification_id = $2 and d.channel = $3
                 and d.state in ('pending', 'deferred', 'sending')
           )
           select it as "it!" from elsewhere"#,
        told_at,
        which.notification_id,
        which.channel.as_str(),
        &beside,
    )
    .fetch_one(db)
    .await
}

fn nothing(why: &str) -> Result<Next, Failure> {
    Ok(Next::Nothing(why.to_owned()))
}

async fn send(
    db: Db<'_>,
    which: Which,
    facts: &Facts,
    class: Class,
    open: Vec<Address>,
    short: bool,
) -> Result<Next, Failure> {
    let all: Vec<Uuid> = open.iter().map(|a| id_of(which.notification_id, which.channel, a.id)).collect();
    // One look each: what was told to thousands at once has one time, and is not to be read whole for each of them.
    let before = sqlx::query!(
        r#"select d.id as "id!", d.state as "state!", d.outcome_unknown as "outcome_unknown!" from unnest($2::uuid[]) as n (id)
         cross join lateral (select id, state, outcome_unknown from notification.notification_deliveries
                             where created_at = $1 and id = n.id offset 0) d"#,
        facts.told_at,
        &all
    )
    .fetch_all(&mut *db)
    .await?;
    let over = |id: &Uuid| {
        before.iter().any(|d| d.id == *id && !matches!(d.state.as_str(), "pending" | "deferred" | "sending"))
    };
    let doubtful = |id: &Uuid| before.iter().any(|d| d.id == *id && d.outcome_unknown);
    let todo: Vec<(Uuid, Address)> = all.into_iter().zip(open).filter(|(id, _)| !over(id)).collect();
    if todo.is_empty() {
        let sent = before.iter().any(|d| matches!(d.state.as_str(), "sent" | "delivered"));
        return if sent { Ok(Next::Sent) } else { nothing("over") };
    }
    let kind = audience::kind(&facts.code)?;
    let text = template::text(&mut *db, which.tenant_id, kind, which.channel, &facts.locale, &facts.of_tenant).await?;
    let mut said = text.say(&kind.complete(&facts.data, None, &text.language))?;
    if short {
        said.lines.truncate(0);
    }
    let carriers = account::carriers(&mut *db, which.tenant_id, which.channel).await?;
    let until = facts.told_at + LIFE;
    let envelope = |delivery_id: Uuid| Envelope {
        delivery_id,
        tenant_id: which.tenant_id,
        user_id: facts.user_id,
        category: facts.category.clone(),
        carriers: carriers.clone(),
        language: text.language.clone(),
        said: said.clone(),
        sender: facts.sender.clone(),
        may_unsubscribe: class != Class::Critical,
        doubtful: doubtful(&delivery_id),
        ttl_seconds: u32::try_from((until - facts.now).num_seconds()).unwrap_or(0),
    };
    let mut calls = vec![];
    for (delivery_id, address) in todo {
        if let (Channel::Sms, Way::Plain(number)) = (which.channel, &address.way)
            && !sms::count(&mut *db, which.tenant_id, number, &address.hash).await?
        {
            return end(db, which, facts, "dropped", "sms_limit").await;
        }
        let envelope = envelope(delivery_id);
        let parcel = match address.way {
            Way::Plain(to) if which.channel == Channel::Sms => Parcel::Sms(SendSms { envelope, to }),
            Way::Plain(to) => Parcel::Email(SendEmail { envelope, to }),
            Way::Chat(chat) => Parcel::Telegram(SendTelegram { envelope, chat }),
            Way::Browser { endpoint, p256dh, auth, vapid_key } => {
                Parcel::Push(SendPush { envelope, endpoint, p256dh, auth, vapid_key, short })
            }
        };
        calls.push(Sending { delivery_id, address_id: address.id, address_hash: hex::encode(address.hash), parcel });
    }
    intend(db, which, facts.told_at, &calls).await?;
    Ok(Next::Send { told_at: facts.told_at, critical: class == Class::Critical, until, calls })
}

/// Writes down that calls are about to be made: whoever finds it so and no outcome knows that nobody knows.
async fn intend(db: Db<'_>, which: Which, told_at: DateTime<Utc>, calls: &[Sending]) -> sqlx::Result<()> {
    let ids: Vec<Uuid> = calls.iter().map(|call| call.delivery_id).collect();
    // Of the addresses alone: browsers are the identity's.
    let of_chat = |call: &Sending| call.address_id.filter(|_| which.channel == Channel::Telegram);
    let addresses: Vec<Option<Uuid>> = calls.iter().map(of_chat).collect();
    let hashes: Vec<Vec<u8>> = calls.iter().map(|call| hex::decode(&call.address_hash).unwrap_or_default()).collect();
    sqlx::query!(
        "insert into notification.notification_deliveries as d
             (created_at, id, tenant_id, notification_id, channel, address_id, address_hash, state, attempt_no, idempotency_key, workflow_run_id,
              updated_at)
         select $1, c.id, $2, $3, $4, c.address_id, c.address_hash, 'sending', 1, c.id || ':' || $4, $5, workflow.now()
         from unnest($6::uuid[], $7::uuid[], $8::bytea[]) c (id, address_id, address_hash)
         on conflict (created_at, id) do update set state = 'sending', attempt_no = d.attempt_no + 1, not_before = null,
             address_hash = excluded.address_hash, updated_at = excluded.updated_at",
        told_at,
        which.tenant_id,
        which.notification_id,
        which.channel.as_str(),
        which.run_id,
        &ids,
        &addresses as &[Option<Uuid>],
        &hashes,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Writes down that a message does not go by this channel, and why.
async fn end(db: Db<'_>, which: Which, facts: &Facts, state: &str, why: &str) -> Result<Next, Failure> {
    record(db, which, facts, state, None, Some(why)).await?;
    nothing(why)
}

/// Writes down that a message waits.
async fn note(
    db: Db<'_>,
    which: Which,
    facts: &Facts,
    state: &str,
    not_before: Option<DateTime<Utc>>,
) -> Result<(), Failure> {
    Ok(record(db, which, facts, state, not_before, None).await?)
}

async fn record(
    db: Db<'_>,
    which: Which,
    facts: &Facts,
    state: &str,
    not_before: Option<DateTime<Utc>>,
    why: Option<&str>,
) -> sqlx::Result<()> {
    let id = id_of(which.notification_id, which.channel, None);
    sqlx::query!(
        "insert into notification.notification_deliveries as d
             (created_at, id, tenant_id, notification_id, channel, state, not_before, error_class, idempotency_key, workflow_run_id, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $10, $9, workflow.now())
         on conflict (created_at, id) do update set state = excluded.state, not_before = excluded.not_before,
             error_class = excluded.error_class, updated_at = excluded.updated_at
             where d.state in ('pending', 'deferred', 'sending')",
        facts.told_at,
        id,
        which.tenant_id,
        which.notification_id,
        which.channel.as_str(),
        state,
        not_before,
        why,
        which.run_id,
        format!("{id}:{}", which.channel),
    )
    .execute(db)
    .await
    .map(drop)
}

async fn facts(db: Db<'_>, which: Which) -> sqlx::Result<Option<Facts>> {
    let row = sqlx::query!(
        r#"select n.user_id, n.category, n.template_code, n.data, n.read_at is not null as "read!", n.created_at, workflow.now() as "now!",
                  case when u.email_verified_at is not null then u.email end as "email?",
                  case when u.phone_verified_at is not null then u.phone end as "phone?", u.locale, u.timezone,
                  t.locale as of_tenant, t.slug, coalesce(b.product_name, case t.id when $4 then 'FlatRender' else left(t.name, 100) end) as "product!",
                  b.primary_color as "color?", b.logo_file_id as "logo?", b.support_email as "support_email?", b.legal_footer as "footer?",
                  p.enabled as "enabled?", p.quiet_start as "quiet_start?", p.quiet_end as "quiet_end?", p.timezone as "quiet_zone?",
                  p.digest as "digest?", coalesce(c.given, false) as "consent!"
           from notification.notifications n
           join identity.users u on u.tenant_id = n.tenant_id and u.id = n.user_id and u.status in ('active', 'locked')
           join identity.tenants t on t.id = n.tenant_id
           left join identity.tenant_branding b on b.tenant_id = n.tenant_id
           left join lateral (
               select * from notification.notification_preferences p
               where p.tenant_id = n.tenant_id and (p.user_id = n.user_id or p.user_id is null) and p.category = n.category and p.channel = $3
               order by p.user_id nulls last limit 1) p on true
           left join lateral (
               select c.given from identity.consents c where c.user_id = n.user_id and c.purpose = 'marketing'
               order by c.created_at desc limit 1) c on true
           where n.tenant_id = $1 and n.id = $2"#,
        which.tenant_id,
        which.notification_id,
        which.channel.as_str(),
        DEFAULT_TENANT,
    )
    .fetch_optional(db)
    .await?;
    Ok(row.map(|row| Facts {
        user_id: row.user_id,
        category: row.category,
        code: row.template_code,
        data: row.data,
        read: row.read,
        told_at: row.created_at,
        now: row.now,
        email: row.email,
        phone: row.phone,
        locale: row.locale,
        timezone: row.timezone,
        of_tenant: row.of_tenant,
        sender: Sender {
            product: row.product,
            color: row.color,
            logo: row.logo.map(|id| format!("/v1/branding/{}/logo?v={}", row.slug, id.simple())),
            support_email: row.support_email,
            footer: row.footer,
        },
        wish: row.enabled.map(|enabled| Preference {
            user_id: None,
            category: String::new(),
            channel: String::new(),
            enabled,
            quiet_start: row.quiet_start,
            quiet_end: row.quiet_end,
            timezone: row.quiet_zone,
            digest: row.digest.unwrap_or_default(),
        }),
        consent: row.consent,
    }))
}

/// The scope in which messages are sent on their way: what is looked at belongs to several services.
pub const SCOPE: Scope = Scope::platform(Role::Admin);
