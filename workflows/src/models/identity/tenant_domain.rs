//! Host names of tenants. One selects its tenant once it is proven to be theirs.

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// Host names of a tenant.
pub const MOST_DOMAINS: i64 = 20;

/// A host name of a tenant.
#[derive(Debug, Clone, Serialize)]
pub struct Domain {
    /// Its id.
    pub id: Uuid,
    /// The name, in small letters, in ASCII.
    pub hostname: String,
    /// `pending`, `verified`, or `failed` when it was looked for in vain.
    pub state: String,
    /// What its DNS has to say.
    #[serde(skip)]
    pub dns_token: String,
    /// When it was proven.
    pub verified_at: Option<DateTime<Utc>>,
    /// When it was looked at.
    #[serde(skip)]
    pub checked_at: Option<DateTime<Utc>>,
    /// Why it is not proven.
    #[serde(skip)]
    pub last_error: Option<String>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// What became of a name that was added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is there, under this id.
    Done(Uuid),
    /// The tenant has it already.
    Again,
    /// The tenant has as many as it may.
    Full,
}

/// What stands before a host name in the name of the record that proves it.
pub const LABEL: &str = "_flatrender";

/// The name of the record that proves a host name.
pub fn record_of(hostname: &str) -> String {
    format!("{LABEL}.{hostname}")
}

/// A proven name that is to be looked for again.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Proven {
    /// Its id.
    pub id: Uuid,
    /// The name.
    pub hostname: String,
    /// What its DNS has to say.
    pub dns_token: String,
}

/// What became of a name that was looked for again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rechecked {
    /// Whose it is, or was.
    pub tenant_id: Uuid,
    /// Whether it selects nobody any more.
    pub lapsed: bool,
}

/// Up to `limit` proven names of all tenants that were last looked for a day ago or earlier, those first that waited longest.
///
/// # Errors
/// Those of the database.
pub async fn due(db: Db<'_>, limit: i64) -> sqlx::Result<Vec<Proven>> {
    sqlx::query_as!(
        Proven,
        "select id, hostname, dns_token from identity.tenant_domains
         where state = 'verified' and coalesce(checked_at, verified_at) <= workflow.now() - interval '1 day'
         order by coalesce(checked_at, verified_at), id limit $1",
        limit
    )
    .fetch_all(db)
    .await
}

/// Notes whether the record of a proven name was there, or that nobody could tell. The third time in a row that it was not, the name
/// is proven no more. None when it is not proven anyway.
///
/// # Errors
/// Those of the database.
pub async fn recheck(db: Db<'_>, id: Uuid, there: Option<bool>) -> sqlx::Result<Option<Rechecked>> {
    sqlx::query_as!(
        Rechecked,
        r#"update identity.tenant_domains d
           set checked_at = workflow.now(), updated_at = workflow.now(), misses = n.misses,
               last_error = case when n.misses > 0 then 'its TXT record was not there' end,
               state = case when n.misses >= 3 then 'failed' else 'verified' end,
               verified_at = case when n.misses >= 3 then null else verified_at end
           from (select id, case when $2 then 0 when not $2 then misses + 1 else misses end as misses
                 from identity.tenant_domains where id = $1 for no key update) n
           where d.id = n.id and d.state = 'verified'
           returning d.tenant_id, d.state = 'failed' as "lapsed!""#,
        id,
        there
    )
    .fetch_optional(db)
    .await
}

/// The tenant whose proven host name this is, in small letters.
///
/// # Errors
/// Those of the database.
pub async fn tenant_at(db: Db<'_>, hostname: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select tenant_id from identity.tenant_domains where hostname = $1 and state = 'verified'",
        hostname
    )
    .fetch_optional(db)
    .await
}

/// Whether a name is proven to be this tenant's.
///
/// # Errors
/// Those of the database.
pub async fn is_proven(db: Db<'_>, tenant_id: Uuid, hostname: &str) -> sqlx::Result<bool> {
    Ok(tenant_at(db, hostname).await? == Some(tenant_id))
}

/// Adds a name that is not proven yet.
///
/// # Errors
/// Those of the database.
pub async fn add(db: Db<'_>, tenant_id: Uuid, hostname: &str, dns_token: &str) -> sqlx::Result<Added> {
    // The lock makes two that are added at the same time take turns; by itself, so that the count sees what the other did.
    sqlx::query!("select from identity.tenants where id = $1 for no key update", tenant_id)
        .fetch_optional(&mut *db)
        .await?;
    let there = sqlx::query_scalar!(
        r#"select count(*) as "there!" from identity.tenant_domains where tenant_id = $1"#,
        tenant_id
    );
    if there.fetch_one(&mut *db).await? >= MOST_DOMAINS {
        return Ok(Added::Full);
    }
    let added = sqlx::query_scalar!(
        "insert into identity.tenant_domains (id, tenant_id, hostname, dns_token, created_at, updated_at)
         values ($1, $2, $3, $4, workflow.now(), workflow.now())
         on conflict (tenant_id, hostname) do nothing returning id",
        Uuid::now_v7(),
        tenant_id,
        hostname,
        dns_token
    );
    Ok(added.fetch_optional(db).await?.map_or(Added::Again, Added::Done))
}

/// One name of a tenant.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<Domain>> {
    sqlx::query_as!(
        Domain,
        "select id, hostname, state, dns_token, verified_at, checked_at, last_error, created_at
         from identity.tenant_domains where tenant_id = $1 and id = $2",
        tenant_id,
        id
    )
    .fetch_optional(db)
    .await
}

/// All names of a tenant, in their order.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Vec<Domain>> {
    sqlx::query_as!(
        Domain,
        "select id, hostname, state, dns_token, verified_at, checked_at, last_error, created_at
         from identity.tenant_domains where tenant_id = $1 order by hostname",
        tenant_id
    )
    .fetch_all(db)
    .await
}

/// The name is proven: it selects its tenant from now on. False when it selects another one; then the transaction is spoilt.
///
/// # Errors
/// Those of the database.
pub async fn prove(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let proven = sqlx::query!(
        "update identity.tenant_domains
         set state = 'verified', verified_at = coalesce(verified_at, workflow.now()), checked_at = workflow.now(), last_error = null,
             misses = 0, updated_at = workflow.now()
         where tenant_id = $1 and id = $2",
        tenant_id,
        id
    )
    .execute(db)
    .await;
    match proven {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(e)) if e.is_unique_violation() => Ok(false),
        Err(error) => Err(error),
    }
}

/// The name could not be proven, for a reason. One that is proven by now stays so.
///
/// # Errors
/// Those of the database.
pub async fn fail(db: Db<'_>, tenant_id: Uuid, id: Uuid, reason: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.tenant_domains
         set state = 'failed', checked_at = workflow.now(), last_error = left($3, 500), updated_at = workflow.now()
         where tenant_id = $1 and id = $2 and state <> 'verified'",
        tenant_id,
        id,
        reason
    )
    .execute(db)
    .await
    .map(drop)
}

/// Removes a name: it selects nobody any more.
///
/// # Errors
/// Those of the database.
pub async fn remove(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from identity.tenant_domains where tenant_id = $1 and id = $2", tenant_id, id)
        .execute(db)
        .await
        .map(drop)
}
