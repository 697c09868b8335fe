//! Where a user can be reached: what they proved to be theirs, and the browsers and chats that they connected.

use super::suppression::hash_of;
use crate::{
    contracts::notify::{Channel, Sealed},
    models::{DEFAULT_TENANT, Db},
};
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Browsers of a user that are told.
pub const MOST_BROWSERS: i64 = 10;

/// Where one message goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Address {
    /// A row of the addresses or of the browsers; none for what stands in the user's own.
    pub id: Option<Uuid>,
    /// What is kept of it where it must not be known.
    pub hash: Vec<u8>,
    /// How to get there.
    pub way: Way,
}

/// How to get somewhere.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// An e-mail address or a number.
    Plain(String),
    /// A chat.
    Chat(Sealed),
    /// A browser.
    Browser {
        /// Its address at its push service.
        endpoint: String,
        /// Its public key, in hexadecimal digits.
        p256dh: String,
        /// The secret it shares with us.
        auth: Sealed,
        /// The key of ours that it was told of.
        vapid_key: String,
    },
}

/// A browser that wants to be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Browser {
    /// The subscription.
    pub id: Uuid,
    /// Which push service.
    pub endpoint: String,
    /// What the browser says it is.
    pub user_agent: Option<String>,
    /// When it was told last.
    pub last_success_at: Option<DateTime<Utc>>,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// A browser that is new.
#[derive(Debug, Clone, Copy)]
pub struct NewBrowser<'a> {
    /// The subscription.
    pub id: Uuid,
    /// Its address at its push service.
    pub endpoint: &'a str,
    /// Its public key: a point, uncompressed.
    pub p256dh: &'a [u8],
    /// The secret it shares with us, sealed at [`auth_place`].
    pub auth_enc: &'a [u8],
    /// The key of ours that it was told of.
    pub vapid_key: &'a str,
    /// What the browser says it is.
    pub user_agent: Option<&'a str>,
}

/// The one place where the secret of a browser opens.
pub fn auth_place(id: Uuid) -> String {
    format!("push_subscription:{id}")
}

/// The one place where a chat of a user opens.
pub fn chat_place(user_id: Uuid) -> String {
    format!("telegram:{user_id}")
}

/// A browser wants to be told for this user, and for nobody else any more. Gives the id of the subscription, and whether it is new;
/// none when the user has as many as they may. As of the identity.
///
/// # Errors
/// Those of the database; so with all that follow.
pub async fn subscribe(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, new: &NewBrowser<'_>) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into identity.push_subscriptions as s
             (id, tenant_id, user_id, endpoint, p256dh, auth_enc, vapid_key, user_agent, created_at, updated_at)
         select $1, $2, $3, $4, $5, $6, $7, left($8, 512), workflow.now(), workflow.now()
         where (select count(*) from identity.push_subscriptions where user_id = $3 and state = 'active' and endpoint <> $4) < $9
         on conflict (endpoint_hash) do update set id = excluded.id, user_id = excluded.user_id, p256dh = excluded.p256dh,
             auth_enc = excluded.auth_enc, vapid_key = excluded.vapid_key, user_agent = excluded.user_agent, state = 'active',
             failure_count = 0, updated_at = excluded.updated_at
             where s.tenant_id = excluded.tenant_id
         returning id",
        new.id,
        tenant_id,
        user_id,
        new.endpoint,
        new.p256dh,
        new.auth_enc,
        new.vapid_key,
        new.user_agent,
        MOST_BROWSERS,
    )
    .fetch_optional(db)
    .await
}

/// The browsers of a user. As of the identity.
pub async fn browsers(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Vec<Browser>> {
    sqlx::query_as!(
        Browser,
        "select id, endpoint, user_agent, last_success_at, created_at from identity.push_subscriptions
         where tenant_id = $1 and user_id = $2 and state = 'active' order by created_at desc, id limit $3",
        tenant_id,
        user_id,
        MOST_BROWSERS
    )
    .fetch_all(db)
    .await
}

/// A browser is told no more; false when there is none. As of the identity.
pub async fn unsubscribe(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let gone = sqlx::query!(
        "delete from identity.push_subscriptions where tenant_id = $1 and user_id = $2 and id = $3",
        tenant_id,
        user_id,
        id
    );
    Ok(gone.execute(db).await?.rows_affected() > 0)
}

/// A push service says that there is no such browser any more.
pub async fn forget_browser(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from identity.push_subscriptions where tenant_id = $1 and id = $2", tenant_id, id)
        .execute(db)
        .await
        .map(drop)
}

/// A browser was told, or not.
pub async fn note_browser(db: Db<'_>, tenant_id: Uuid, id: Uuid, told: bool) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.push_subscriptions
         set failure_count = case when $3 then 0 else failure_count + 1 end,
             last_success_at = case when $3 then workflow.now() else last_success_at end, updated_at = workflow.now()
         where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        told
    )
    .execute(db)
    .await
    .map(drop)
}

/// A user has proven that a chat is theirs; it is their only one from now on. `sealed` at [`chat_place`].
pub async fn connect_chat(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, chat: &str, sealed: &[u8]) -> sqlx::Result<()> {
    let hash = hash_of(chat);
    sqlx::query!(
        "delete from notification.channel_addresses where tenant_id = $1 and channel = 'telegram' and (user_id = $2 or address_hash = $3)
             and not (user_id = $2 and address_hash = $3)",
        tenant_id,
        user_id,
        &hash
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "insert into notification.channel_addresses (id, tenant_id, user_id, channel, address_enc, address_hash, verified_at, created_at, updated_at)
         values ($1, $2, $3, 'telegram', $4, $5, workflow.now(), workflow.now(), workflow.now())
         on conflict (user_id, channel, address_hash) do update set state = 'active', address_enc = excluded.address_enc,
             failure_count = 0, refused_at = null, verified_at = excluded.verified_at, updated_at = excluded.updated_at",
        Uuid::now_v7(),
        tenant_id,
        user_id,
        sealed,
        &hash,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Whether a user has a chat that is written to.
pub async fn has_chat(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from notification.channel_addresses
             where tenant_id = $1 and user_id = $2 and channel = 'telegram' and state = 'active') as "has!""#,
        tenant_id,
        user_id
    )
    .fetch_one(db)
    .await
}

/// No chat is a user's any more. False when there was none.
pub async fn disconnect_chat(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<bool> {
    let gone = sqlx::query!(
        "delete from notification.channel_addresses where tenant_id = $1 and channel = 'telegram' and user_id = $2",
        tenant_id,
        user_id,
    );
    Ok(gone.execute(db).await?.rows_affected() > 0)
}

/// A chat wants to be left alone by a bot of this tenant's: it is nobody's any more to whom that bot writes. The platform's writes for every
/// tenant that has none of its own. As of the platform.
pub async fn hush_chat(db: Db<'_>, tenant_id: Uuid, chat: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "delete from notification.channel_addresses a where a.channel = 'telegram' and a.address_hash = $2
             and (a.tenant_id = $1 or $1 = $3 and not exists (select from notification.provider_accounts o
                 where o.tenant_id = a.tenant_id and o.channel = 'telegram' and o.state = 'active'))",
        tenant_id,
        hash_of(chat),
        DEFAULT_TENANT,
    )
    .execute(db)
    .await
    .map(drop)
}

/// A chat was written to.
pub async fn note_chat(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update notification.channel_addresses set failure_count = 0, refused_at = null, updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and (failure_count > 0 or refused_at is not null)",
        tenant_id,
        id
    )
    .execute(db)
    .await
    .map(drop)
}

/// A chat has shut us out, or so it is said: it is blocked when that was said an hour ago, too.
pub async fn refuse_chat(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update notification.channel_addresses
         set state = case when refused_at <= workflow.now() - interval '1 hour' then 'blocked' else state end,
             refused_at = coalesce(refused_at, workflow.now()), failure_count = failure_count + 1, updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state = 'active'",
        tenant_id,
        id
    )
    .execute(db)
    .await
    .map(drop)
}

/// A chat is not there.
pub async fn lose_chat(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update notification.channel_addresses set state = 'gone', updated_at = workflow.now() where tenant_id = $1 and id = $2",
        tenant_id,
        id
    )
    .execute(db)
    .await
    .map(drop)
}

/// Whether a user is at these addresses: their own, each only once they have proven it.
#[derive(Debug, Clone, Copy)]
pub struct Own<'a> {
    /// Proven.
    pub email: Option<&'a str>,
    /// Proven.
    pub phone: Option<&'a str>,
}

/// Where a user is reached by a channel. As of the platform.
pub async fn find(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    channel: Channel,
    own: Own<'_>,
) -> sqlx::Result<Vec<Address>> {
    let plain = |address: Option<&str>| {
        let made = address.map(|a| Address { id: None, hash: hash_of(a), way: Way::Plain(a.to_owned()) });
        made.into_iter().collect()
    };
    match channel {
        Channel::Inapp => Ok(vec![]),
        Channel::Email => Ok(plain(own.email)),
        Channel::Sms => Ok(plain(own.phone)),
        Channel::Telegram => {
            let chat = sqlx::query!(
                "select id, address_enc, address_hash from notification.channel_addresses
                 where tenant_id = $1 and user_id = $2 and channel = 'telegram' and state = 'active' limit 1",
                tenant_id,
                user_id
            )
            .fetch_optional(db)
            .await?;
            let chat = chat.map(|c| Address {
                id: Some(c.id),
                hash: c.address_hash,
                way: Way::Chat(Sealed::at(chat_place(user_id), &c.address_enc)),
            });
            Ok(chat.into_iter().collect())
        }
        Channel::Push => {
            let found = sqlx::query!(
                r#"select id, endpoint, endpoint_hash as "endpoint_hash!", p256dh, auth_enc, vapid_key
                   from identity.push_subscriptions where tenant_id = $1 and user_id = $2 and state = 'active' order by created_at desc, id limit $3"#,
                tenant_id,
                user_id,
                MOST_BROWSERS
            )
            .fetch_all(db)
            .await?;
            let browsers = found.into_iter().map(|b| Address {
                id: Some(b.id),
                hash: b.endpoint_hash,
                way: Way::Browser {
                    endpoint: b.endpoint,
                    p256dh: hex::encode(b.p256dh),
                    auth: Sealed::at(auth_place(b.id), &b.auth_enc),
                    vapid_key: b.vapid_key,
                },
            });
            Ok(browsers.collect())
        }
    }
}
