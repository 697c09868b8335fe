//! Accounts of tenants at those who take money for them. What such an account opens with is sealed, and never shown.

use crate::{
    contracts::{
        notify::Sealed,
        pay::{Account, Gateway as Provider, Mode},
    },
    models::Db,
};
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// What the settings of an account are sealed for.
pub fn place(id: Uuid) -> String {
    format!("payment_gateway:{id}")
}

/// An account, without its settings.
#[derive(Debug, Clone, Serialize)]
pub struct Gateway {
    /// Its id.
    pub id: Uuid,
    /// Whose.
    pub tenant_id: Uuid,
    /// `stripe`, `zarinpal` or `manual`.
    pub provider: String,
    /// `live` or `test`.
    pub mode: String,
    /// `active`, or `retired`: it sees to what was begun with it.
    pub state: String,
    /// What the provider calls it, where that is known.
    pub merchant: Option<String>,
    /// Minor units: what goes back of a payment beyond, in all, takes a second person.
    pub refund_limit: i64,
    /// Of which currency; payments in others have no limit that one person may use.
    pub refund_limit_currency: Option<String>,
    /// Who said so.
    pub refund_limit_by: Option<Uuid>,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// When the provider was asked whether it opens.
    pub checked_at: Option<DateTime<Utc>>,
    /// Code of why it does not.
    pub check_error: Option<String>,
    /// Its settings.
    #[serde(skip)]
    pub settings_enc: Vec<u8>,
}

impl Gateway {
    /// Whether one person may give back so much of a payment in all: up to the limit, in its currency, and not whoever has set it.
    pub fn is_within_limit(&self, all: i64, currency: &str, by: Uuid) -> bool {
        all <= self.refund_limit
            && self.refund_limit_currency.as_deref() == Some(currency)
            && self.refund_limit_by != Some(by)
    }

    /// As whoever asks the provider needs it. None when it is none that is known.
    pub fn account(&self) -> Option<Account> {
        let gateway: Provider = self.provider.parse().ok()?;
        let mode: Mode = self.mode.parse().ok()?;
        Some(Account { gateway_id: self.id, gateway, mode, settings: Sealed::at(place(self.id), &self.settings_enc) })
    }
}

/// An account to be added.
#[derive(Debug, Clone)]
pub struct NewGateway<'a> {
    /// Its id, which its settings were sealed for.
    pub id: Uuid,
    /// At whom.
    pub provider: Provider,
    /// Whether money moves.
    pub mode: Mode,
    /// Its settings, sealed.
    pub settings: &'a [u8],
    /// What the provider calls it.
    pub merchant: Option<&'a str>,
    /// What goes back beyond takes a second person.
    pub limit: Option<RefundLimit<'a>>,
}

/// What one person may give back of a payment, in all, unless it is they who say so.
#[derive(Debug, Clone, Copy)]
pub struct RefundLimit<'a> {
    /// In minor units, from 1.
    pub amount: i64,
    /// ISO 4217.
    pub currency: &'a str,
    /// Who says so.
    pub by: Uuid,
}

/// Adds an account, which takes the place of the one before at the same provider.
///
/// # Errors
/// Those of the database; so with every call below.
pub async fn put(db: Db<'_>, tenant_id: Uuid, new: &NewGateway<'_>) -> sqlx::Result<()> {
    take_turn(&mut *db, tenant_id).await?;
    retire(&mut *db, tenant_id, new.provider).await?;
    sqlx::query!(
        "insert into identity.payment_gateways (id, tenant_id, provider, mode, settings_enc, merchant, refund_limit, refund_limit_currency,
             refund_limit_by, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, workflow.now(), workflow.now())",
        new.id,
        tenant_id,
        new.provider.as_str(),
        new.mode.as_str(),
        new.settings,
        new.merchant,
        new.limit.map_or(0, |limit| limit.amount),
        new.limit.map(|limit| limit.currency),
        new.limit.map(|limit| limit.by),
    )
    .execute(db)
    .await
    .map(drop)
}

/// Gives an account other secrets, in place.
pub async fn rotate(db: Db<'_>, tenant_id: Uuid, id: Uuid, settings: &[u8]) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.payment_gateways
         set settings_enc = $3, merchant = null, checked_at = null, check_error = null, updated_at = workflow.now()
         where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        settings,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Notes what a provider says of an account: what it calls it, or the code of why it does not open. False when the account is gone, or opens
/// with something else by now.
pub async fn note_check(db: Db<'_>, account: &Account, seen: Result<&str, &String>) -> sqlx::Result<bool> {
    let Ok(settings) = hex::decode(&account.settings.hex) else { return Ok(false) };
    let noted = sqlx::query!(
        "update identity.payment_gateways
         set checked_at = workflow.now(), check_error = left($3, 128), merchant = coalesce(nullif(left($4, 255), ''), merchant)
         where id = $1 and settings_enc = $2",
        account.gateway_id,
        settings,
        seen.err(),
        seen.ok(),
    );
    Ok(noted.execute(db).await?.rows_affected() == 1)
}

/// Opens no more payments with the account at a provider. False when there is none.
pub async fn retire(db: Db<'_>, tenant_id: Uuid, provider: Provider) -> sqlx::Result<bool> {
    let retired = sqlx::query!(
        "update identity.payment_gateways set state = 'retired', updated_at = workflow.now()
         where tenant_id = $1 and provider = $2 and state = 'active'",
        tenant_id,
        provider.as_str(),
    );
    Ok(retired.execute(db).await?.rows_affected() > 0)
}

/// The account that takes money for a tenant at a provider.
pub async fn find_active(db: Db<'_>, tenant_id: Uuid, provider: Provider) -> sqlx::Result<Option<Gateway>> {
    let all = list(db, tenant_id).await?;
    Ok(all.into_iter().find(|gateway| gateway.provider == provider.as_str()))
}

/// Those that take money for a tenant.
pub async fn list(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Vec<Gateway>> {
    select(db, Some(tenant_id), None, true).await
}

/// An account, whoever's and however old: for whoever calls us, and for payments under way.
pub async fn find(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<Gateway>> {
    Ok(select(db, None, Some(id), false).await?.pop())
}

/// All accounts of everybody that payments may still come by: those that are active, and those that were retired within a week.
pub async fn all(db: Db<'_>) -> sqlx::Result<Vec<Gateway>> {
    select(db, None, None, false).await
}

async fn select(db: Db<'_>, tenant_id: Option<Uuid>, id: Option<Uuid>, active: bool) -> sqlx::Result<Vec<Gateway>> {
    sqlx::query_as!(
        Gateway,
        "select id, tenant_id, provider, mode, state, merchant, refund_limit, refund_limit_currency, refund_limit_by,
                created_at, checked_at, check_error, settings_enc from identity.payment_gateways
         where ($1::uuid is null or tenant_id = $1) and ($2::uuid is null or id = $2) and (not $3 or state = 'active')
           and ($2 is not null or state = 'active' or updated_at > workflow.now() - interval '7 days')
         order by provider, created_at limit 10000",
        tenant_id,
        id,
        active,
    )
    .fetch_all(db)
    .await
}

async fn take_turn(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        r#"select pg_advisory_xact_lock(hashtextextended('payment gateways ' || $1::uuid, 0)) as "locked!: ()""#,
        tenant_id
    )
    .fetch_one(db)
    .await
    .map(drop)
}
