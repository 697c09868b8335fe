//! Who carries messages. What a provider wants to know comes and goes sealed: no statement ever sees it.

use crate::{
    contracts::notify::{Carrier, Channel, Sealed},
    models::{DEFAULT_TENANT, Db},
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// Accounts of a tenant.
pub const MOST_ACCOUNTS: i64 = 20;
/// Accounts that one message may go by.
const MOST_CARRIERS: i64 = 4;
/// Keys that a browser may have been told of: those of its tenant and those of the platform. It listens to the one alone.
const MOST_KEYS: i64 = 2 * MOST_ACCOUNTS;

/// An account, without what is sealed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Account {
    /// Its id.
    pub id: Uuid,
    /// What it carries.
    pub channel: String,
    /// What it is called.
    pub name: String,
    /// `smtp`, `vapid`, `twilio`, `kavenegar` or `telegram`.
    pub provider: String,
    /// Messages a second.
    pub per_second: f32,
    /// The lower goes first.
    pub position: i32,
    /// `active`, `paused` or `broken`.
    pub state: String,
    /// Since when.
    pub created_at: DateTime<Utc>,
}

/// An account that is new.
#[derive(Debug, Clone)]
pub struct NewAccount<'a> {
    /// Its id.
    pub id: Uuid,
    /// What it carries.
    pub channel: Channel,
    /// What it is called.
    pub name: &'a str,
    /// Of whom.
    pub provider: &'a str,
    /// What it wants to know, sealed at [`place`].
    pub sealed: &'a [u8],
    /// Messages a second.
    pub per_second: f32,
    /// The lower goes first.
    pub position: i32,
}

/// The one place where what an account wants to know opens.
pub fn place(id: Uuid) -> String {
    format!("provider_account:{id}")
}

/// Adds an account; false when the tenant has one of this name, or as many as it may.
///
/// # Errors
/// Those of the database; so with all that follow.
pub async fn create(db: Db<'_>, tenant_id: Uuid, new: &NewAccount<'_>) -> sqlx::Result<bool> {
    let created = sqlx::query!(
        "insert into notification.provider_accounts (id, tenant_id, channel, name, provider, config_enc, per_second, position, created_at, updated_at)
         select $1, $2, $3, $4, $5, $6, $7, $8, workflow.now(), workflow.now()
         where (select count(*) from notification.provider_accounts where tenant_id = $2) < $9
         on conflict (tenant_id, channel, name) do nothing",
        new.id,
        tenant_id,
        new.channel.as_str(),
        new.name,
        new.provider,
        new.sealed,
        new.per_second,
        new.position,
        MOST_ACCOUNTS,
    );
    Ok(created.execute(db).await?.rows_affected() > 0)
}

/// The accounts of a tenant, in the order in which they are used.
pub async fn list(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Vec<Account>> {
    sqlx::query_as!(
        Account,
        "select id, channel, name, provider, per_second, position, state, created_at from notification.provider_accounts
         where tenant_id = $1 order by channel, position, id",
        tenant_id
    )
    .fetch_all(db)
    .await
}

/// An account with what is sealed, whoever's it is: for those who come with a mark that names it. As of the platform.
pub async fn open(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<(Uuid, Carrier)>> {
    let found = sqlx::query!(
        "select tenant_id, provider, config_enc, per_second from notification.provider_accounts where id = $1 and state <> 'paused'",
        id
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(|a| {
        let config = Sealed::at(place(id), &a.config_enc);
        (a.tenant_id, Carrier { account_id: id, provider: a.provider, config, per_second: a.per_second })
    }))
}

/// Pauses an account or lets it go on, also one that was broken; false when there is none.
pub async fn set_active(db: Db<'_>, tenant_id: Uuid, id: Uuid, active: bool) -> sqlx::Result<bool> {
    let set = sqlx::query!(
        "update notification.provider_accounts set state = case when $3 then 'active' else 'paused' end, updated_at = workflow.now()
         where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        active
    );
    Ok(set.execute(db).await?.rows_affected() > 0)
}

/// Removes an account; false when there is none.
pub async fn remove(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let removed =
        sqlx::query!("delete from notification.provider_accounts where tenant_id = $1 and id = $2", tenant_id, id);
    Ok(removed.execute(db).await?.rows_affected() > 0)
}

/// Who carries what a tenant says by a channel, the first one first: its own, or those of the platform if it has none.
/// Browsers were told of one key, which may be either's. As of the platform.
pub async fn carriers(db: Db<'_>, tenant_id: Uuid, channel: Channel) -> sqlx::Result<Vec<Carrier>> {
    let found = sqlx::query!(
        "select id, provider, config_enc, per_second from notification.provider_accounts a
         where channel = $2 and state = 'active' and (tenant_id = $1 or tenant_id = $3 and ($2 = 'push' or not exists (
             select from notification.provider_accounts o where o.tenant_id = $1 and o.channel = $2 and o.state = 'active')))
         order by tenant_id <> $1, position, id limit $4",
        tenant_id,
        channel.as_str(),
        DEFAULT_TENANT,
        if channel == Channel::Push { MOST_KEYS } else { MOST_CARRIERS },
    )
    .fetch_all(db)
    .await?;
    let carriers = found.into_iter().map(|a| Carrier {
        account_id: a.id,
        provider: a.provider,
        config: Sealed::at(place(a.id), &a.config_enc),
        per_second: a.per_second,
    });
    Ok(carriers.collect())
}
