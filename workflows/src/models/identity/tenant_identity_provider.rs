//! OpenID providers that people of a tenant sign in with. Client secrets come and go sealed: no statement ever sees one.

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde::Serialize;
use uuid::Uuid;

/// Providers of a tenant.
pub const MOST_PROVIDERS: i64 = 10;
/// What somebody new may be: roles that whoever manages a tenant may give.
pub const DEFAULT_ROLES: [&str; 4] = ["viewer", "billing", "editor", "admin"];

/// A provider, without the secret that it knows us by.
#[derive(Debug, Clone, Serialize)]
pub struct IdentityProvider {
    /// Its id.
    pub id: Uuid,
    /// What people read on the button.
    pub name: String,
    /// Its address, as its tokens name it.
    pub issuer: String,
    /// What it calls us.
    pub client_id: String,
    /// What we ask for besides `openid`.
    pub scopes: Vec<String>,
    /// Whose people are linked or added by their address; all proven host names of the tenant when empty.
    pub email_domains: Vec<String>,
    /// What somebody new is; nobody new comes in without it.
    pub default_role: Option<String>,
    /// Whether people sign in with it.
    pub enabled: bool,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was changed.
    #[serde(skip)]
    pub updated_at: DateTime<Utc>,
    /// How often it was changed.
    #[serde(skip)]
    pub rev: i32,
}

/// A provider that people choose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Its id.
    pub id: Uuid,
    /// What people read on the button.
    pub name: String,
}

/// What became of a provider that was to be made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Created {
    /// It is there.
    Done,
    /// The tenant has one with this issuer.
    Again,
    /// The tenant has as many as it may.
    Full,
}

/// Makes a provider.
///
/// # Errors
/// Those of the database.
pub async fn create(db: Db<'_>, tenant_id: Uuid, new: &IdentityProvider, sealed: &[u8]) -> sqlx::Result<Created> {
    // The lock makes two that are made at the same time take turns; by itself, so that the count sees what the other did.
    sqlx::query!("select from identity.tenants where id = $1 for no key update", tenant_id)
        .fetch_optional(&mut *db)
        .await?;
    let there = sqlx::query_scalar!(
        r#"select count(*) as "there!" from identity.tenant_identity_providers where tenant_id = $1"#,
        tenant_id
    );
    if there.fetch_one(&mut *db).await? >= MOST_PROVIDERS {
        return Ok(Created::Full);
    }
    let made = sqlx::query!(
        "insert into identity.tenant_identity_providers
             (id, tenant_id, name, issuer, client_id, client_secret_enc, scopes, email_domains, default_role, enabled, created_at, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, workflow.now(), workflow.now())
         on conflict (tenant_id, issuer) do nothing",
        new.id,
        tenant_id,
        new.name,
        new.issuer,
        new.client_id,
        sealed,
        &new.scopes,
        &new.email_domains,
        new.default_role,
        new.enabled
    );
    Ok(if made.execute(db).await?.rows_affected() > 0 { Created::Done } else { Created::Again })
}

/// One provider of a tenant.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<IdentityProvider>> {
    sqlx::query_as!(
        IdentityProvider,
        "select id, name, issuer, client_id, scopes, email_domains, default_role, enabled, created_at, updated_at, rev
         from identity.tenant_identity_providers where tenant_id = $1 and id = $2",
        tenant_id,
        id
    )
    .fetch_optional(db)
    .await
}

/// The same, held until the transaction ends, so that nobody changes it meanwhile.
///
/// # Errors
/// Those of the database.
pub async fn hold(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<IdentityProvider>> {
    sqlx::query_as!(
        IdentityProvider,
        "select id, name, issuer, client_id, scopes, email_domains, default_role, enabled, created_at, updated_at, rev
         from identity.tenant_identity_providers where tenant_id = $1 and id = $2 for no key update",
        tenant_id,
        id
    )
    .fetch_optional(db)
    .await
}

/// All providers of a tenant, by name.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Vec<IdentityProvider>> {
    sqlx::query_as!(
        IdentityProvider,
        "select id, name, issuer, client_id, scopes, email_domains, default_role, enabled, created_at, updated_at, rev
         from identity.tenant_identity_providers where tenant_id = $1 order by name, id",
        tenant_id
    )
    .fetch_all(db)
    .await
}

/// The providers that people of a tenant sign in with, by name.
///
/// # Errors
/// Those of the database.
pub async fn choices(db: Db<'_>, tenant_id: Uuid) -> sqlx::Result<Vec<Choice>> {
    sqlx::query_as!(
        Choice,
        "select id, name from identity.tenant_identity_providers where tenant_id = $1 and enabled order by name, id",
        tenant_id
    )
    .fetch_all(db)
    .await
}

/// The tenant of an enabled provider, unless it is closed.
///
/// # Errors
/// Those of the database.
pub async fn tenant_of(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select p.tenant_id from identity.tenant_identity_providers p
         join identity.tenants t on t.id = p.tenant_id and t.status <> 'closed' where p.id = $1 and p.enabled",
        id
    )
    .fetch_optional(db)
    .await
}

/// The sealed secret of a provider.
///
/// # Errors
/// Those of the database; none is there.
pub async fn secret(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Vec<u8>> {
    sqlx::query_scalar!(
        "select client_secret_enc from identity.tenant_identity_providers where tenant_id = $1 and id = $2",
        tenant_id,
        id
    )
    .fetch_one(db)
    .await
}

/// Puts `after` in the place of a provider, and another secret when there is one. False when the tenant has another provider with
/// this issuer; then the transaction is spoilt.
///
/// # Errors
/// Those of the database.
pub async fn update(
    db: Db<'_>,
    tenant_id: Uuid,
    after: &IdentityProvider,
    sealed: Option<&[u8]>,
) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update identity.tenant_identity_providers
         set name = $3, issuer = $4, client_id = $5, client_secret_enc = coalesce($6, client_secret_enc), scopes = $7, email_domains = $8,
             default_role = $9, enabled = $10, updated_at = workflow.now(), rev = rev + 1
         where tenant_id = $1 and id = $2",
        tenant_id,
        after.id,
        after.name,
        after.issuer,
        after.client_id,
        sealed,
        &after.scopes,
        &after.email_domains,
        after.default_role,
        after.enabled
    )
    .execute(db)
    .await;
    match done {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(e)) if e.is_unique_violation() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Removes a provider, and whoever is there right now. Logins by its issuer stay what they are.
///
/// # Errors
/// Those of the database.
pub async fn remove(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("delete from identity.tenant_identity_providers where tenant_id = $1 and id = $2", tenant_id, id)
        .execute(db)
        .await
        .map(drop)
}
