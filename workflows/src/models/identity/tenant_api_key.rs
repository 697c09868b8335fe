//! API keys of tenants: made, shown once, rotated, revoked. How one is written is in [`text`].

pub mod text;

pub use text::Mode;

use super::rate_bucket::{self, Budget, OF_A_CALLER, OF_A_TENANT, Rate};
use crate::models::{Db, Secret};
use chrono::{DateTime, Utc};
use serde::Serialize;
use std::{net::IpAddr, time::Duration};
use uuid::Uuid;

/// What a key may be allowed to do.
pub const SCOPES: [&str; 8] =
    ["render", "files", "templates", "studio", "notifications", "billing", "webhooks", "admin"];
/// What it may do when nobody says.
pub const DEFAULT_SCOPES: [&str; 3] = ["render", "files", "templates"];
/// Keys of a tenant that are not revoked.
pub const MOST_KEYS: i64 = 100;

/// Who a valid key speaks for.
#[derive(Debug, Clone, PartialEq)]
pub struct KeyHolder {
    /// The tenant.
    pub tenant_id: Uuid,
    /// The key.
    pub key_id: Uuid,
    /// What the key may do.
    pub scopes: Vec<String>,
    /// Whether the tenant may only look.
    pub suspended: bool,
    /// Whether it came from an address that the key is good for. From elsewhere it took no token.
    pub at_home: bool,
    /// Whether it came to a host name that is another tenant's.
    pub elsewhere: bool,
    /// What the request took: nothing when it came from elsewhere.
    pub budgets: Vec<Budget>,
}

/// A key as it is listed.
#[derive(Debug, Clone, Serialize)]
pub struct ApiKey {
    /// Its id.
    pub id: Uuid,
    /// What its owner calls it.
    pub name: String,
    /// `live` or `test`.
    pub mode: String,
    /// How it begins.
    pub prefix: String,
    /// How it ends.
    pub last4: String,
    /// What it may do.
    pub scopes: Vec<String>,
    /// Networks it is good for; all when none.
    pub allowed_cidrs: Option<Vec<String>>,
    /// Who made it, when a person did.
    pub created_by: Option<Uuid>,
    /// The key it took over from.
    pub rotated_from: Option<Uuid>,
    /// From when on it is no longer good.
    pub expires_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// When it was used, to the minute.
    #[serde(skip)]
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// A key to be made.
#[derive(Debug, Clone)]
pub struct NewKey<'a> {
    /// 1 to 200 characters.
    pub name: &'a str,
    /// What it is for.
    pub mode: Mode,
    /// Some of [`SCOPES`].
    pub scopes: &'a [String],
    /// Networks in CIDR notation; all when none.
    pub allowed_cidrs: Option<&'a [String]>,
    /// Who makes it.
    pub created_by: Option<Uuid>,
    /// From when on it is no longer good.
    pub expires_at: Option<DateTime<Utc>>,
}

/// What became of a rotation.
pub enum Rotation {
    /// The new key's id and text.
    Done(Uuid, Secret),
    /// There is no such key.
    Unknown,
    /// It is revoked or expired.
    Ended,
    /// It has a successor.
    Again,
}

/// Makes a key for `tenant_id` that may do what keys usually may, and gives its text, which cannot be had again.
///
/// # Errors
/// Those of the database.
pub async fn create(db: Db<'_>, tenant_id: Uuid, name: &str) -> sqlx::Result<Secret> {
    let scopes = DEFAULT_SCOPES.map(str::to_owned);
    let key =
        NewKey { name, mode: Mode::Live, scopes: &scopes, allowed_cidrs: None, created_by: None, expires_at: None };
    insert(db, tenant_id, &key, None).await.map(|(_, secret)| secret)
}

/// Makes a key and gives its id and its text, which cannot be had again. None when the tenant has as many as it may.
///
/// # Errors
/// Those of the database.
pub async fn create_as(db: Db<'_>, tenant_id: Uuid, key: &NewKey<'_>) -> sqlx::Result<Option<(Uuid, Secret)>> {
    // The lock makes two that are made at the same time take turns; by itself, so that the count sees what the other did.
    sqlx::query!("select from identity.tenants where id = $1 for no key update", tenant_id)
        .fetch_optional(&mut *db)
        .await?;
    let live = sqlx::query_scalar!(
        r#"select count(*) as "live!" from identity.tenant_api_keys
           where tenant_id = $1 and revoked_at is null and (expires_at is null or expires_at > workflow.now())"#,
        tenant_id
    )
    .fetch_one(&mut *db)
    .await?;
    if live >= MOST_KEYS {
        return Ok(None);
    }
    insert(db, tenant_id, key, None).await.map(Some)
}

async fn insert(
    db: Db<'_>,
    tenant_id: Uuid,
    key: &NewKey<'_>,
    rotated_from: Option<Uuid>,
) -> sqlx::Result<(Uuid, Secret)> {
    let (id, secret) = (Uuid::now_v7(), text::generate(key.mode));
    let text = secret.reveal();
    sqlx::query!(
        r#"insert into identity.tenant_api_keys
               (id, tenant_id, name, mode, prefix, last4, key_hash, scopes, allowed_cidrs, created_by, rotated_from, expires_at, created_at)
           values ($1, $2, $3, $4, $5, $6, $7, $8, $9::text[]::cidr[], $10, $11, $12, workflow.now())"#,
        id,
        tenant_id,
        key.name,
        key.mode.name(),
        secret.prefix(),
        &text[text.len() - 4..],
        secret.hash(),
        key.scopes as _,
        key.allowed_cidrs as _,
        key.created_by,
        rotated_from,
        key.expires_at,
    )
    .execute(db)
    .await?;
    Ok((id, secret))
}

/// The keys of a tenant, newest first: up to `limit` of those older than `before`, when given.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, tenant_id: Uuid, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<ApiKey>> {
    sqlx::query_as!(
        ApiKey,
        r#"select id, name, mode, prefix, last4, scopes, allowed_cidrs::text[] as "allowed_cidrs: Vec<String>", created_by, rotated_from,
                  expires_at, revoked_at, last_used_at, created_at
           from identity.tenant_api_keys
           where tenant_id = $1 and ($2::uuid is null or (created_at, id) <
                 (select created_at, id from identity.tenant_api_keys where tenant_id = $1 and id = $2))
           order by created_at desc, id desc limit $3"#,
        tenant_id,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// A key of a tenant.
///
/// # Errors
/// Those of the database.
pub async fn find(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<Option<ApiKey>> {
    sqlx::query_as!(
        ApiKey,
        r#"select id, name, mode, prefix, last4, scopes, allowed_cidrs::text[] as "allowed_cidrs: Vec<String>", created_by, rotated_from,
                  expires_at, revoked_at, last_used_at, created_at
           from identity.tenant_api_keys where tenant_id = $1 and id = $2"#,
        tenant_id,
        id,
    )
    .fetch_optional(db)
    .await
}

/// Revokes a key of a tenant, for good. False when there is none that is not revoked already.
///
/// # Errors
/// Those of the database.
pub async fn revoke(db: Db<'_>, tenant_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let revoked = sqlx::query!(
        "update identity.tenant_api_keys set revoked_at = workflow.now() where tenant_id = $1 and id = $2 and revoked_at is null",
        tenant_id,
        id,
    );
    Ok(revoked.execute(db).await?.rows_affected() == 1)
}

/// Makes a successor of a key, which may do the same; the old one stays good for `grace`, or until it would have ended.
///
/// # Errors
/// Those of the database.
pub async fn rotate(
    db: Db<'_>,
    tenant_id: Uuid,
    id: Uuid,
    grace: Duration,
    by: Option<Uuid>,
) -> sqlx::Result<Rotation> {
    let old = sqlx::query!(
        r#"select name, mode, scopes, allowed_cidrs::text[] as "allowed_cidrs: Vec<String>", expires_at,
                  revoked_at is not null or coalesce(expires_at <= workflow.now(), false) as "ended!",
                  exists (select from identity.tenant_api_keys n where n.rotated_from = k.id) as "again!"
           from identity.tenant_api_keys k where tenant_id = $1 and id = $2 for no key update"#,
        tenant_id,
        id,
    )
    .fetch_optional(&mut *db)
    .await?;
    let old = match old {
        None => return Ok(Rotation::Unknown),
        Some(old) if old.again => return Ok(Rotation::Again),
        Some(old) if old.ended => return Ok(Rotation::Ended),
        Some(old) => old,
    };
    sqlx::query!(
        "update identity.tenant_api_keys set expires_at = least(expires_at, workflow.now() + make_interval(secs => $3))
         where tenant_id = $1 and id = $2",
        tenant_id,
        id,
        grace.as_secs_f64(),
    )
    .execute(&mut *db)
    .await?;
    let key = NewKey {
        name: &old.name,
        mode: if old.mode == "test" { Mode::Test } else { Mode::Live },
        scopes: &old.scopes,
        allowed_cidrs: old.allowed_cidrs.as_deref(),
        created_by: by,
        expires_at: old.expires_at,
    };
    let (id, secret) = insert(db, tenant_id, &key, Some(id)).await?;
    Ok(Rotation::Done(id, secret))
}

/// The holder of the key `text`, which came `from` an address to a host name; none when it is unknown, expired, revoked or its tenant is closed. A text that is not
/// written as keys are is not looked for. In the same round trip takes a token of the key's and one of the tenant's, and
/// notes the use, at most once a minute: there is something to commit.
///
/// # Errors
/// Those of the database.
pub async fn authenticate(
    db: Db<'_>,
    text: &str,
    from: Option<IpAddr>,
    host: Option<&str>,
) -> sqlx::Result<Option<KeyHolder>> {
    if text::mode_of(text).is_none() {
        return Ok(None);
    }
    let found = sqlx::query!(
        r#"with found as (
               select k.tenant_id, k.id, k.scopes, t.status = 'suspended' as suspended, n.now,
                      k.allowed_cidrs is null or coalesce($2::text::inet <<= any (k.allowed_cidrs), false) as at_home,
                      k.last_used_at is null or k.last_used_at < n.now - interval '1 minute' as stale
               from identity.tenant_api_keys k join identity.tenants t on t.id = k.tenant_id cross join (select workflow.now() as now) n
               where k.key_hash = $1 and k.revoked_at is null and (k.expires_at is null or k.expires_at > n.now) and t.status <> 'closed'
           ), used as (
               update identity.tenant_api_keys k set last_used_at = f.now from found f
               where k.id = f.id and f.stale and f.at_home and (k.last_used_at is null or k.last_used_at < f.now - interval '1 minute')
           )
           select f.tenant_id, f.id, f.scopes, f.suspended as "suspended!", f.at_home as "at_home!",
                  identity.is_elsewhere(f.tenant_id, $7) as "elsewhere!",
                  l.of_caller as "of_caller!", l.of_caller_in as "of_caller_in!", l.of_tenant as "of_tenant!", l.of_tenant_in as "of_tenant_in!",
                  c.granted as "caller_granted?", c.tokens as "caller_tokens?", t.granted as "tenant_granted?", t.tokens as "tenant_tokens?"
           from found f
           cross join lateral identity.request_limits(f.tenant_id, $3, $4, $5, $6) l
           left join lateral identity.take_token(f.at_home, f.tenant_id, 'key:' || f.id, l.of_caller, l.of_caller_in, f.now) c on true
           left join lateral identity.take_token(coalesce(c.granted, false), f.tenant_id, 'tenant', l.of_tenant, l.of_tenant_in, f.now) t on true"#,
        Secret::hash_of(text),
        from.map(|ip| ip.to_string()) as _,
        OF_A_TENANT.limit,
        OF_A_TENANT.window_seconds,
        OF_A_CALLER.limit,
        OF_A_CALLER.window_seconds,
        host,
    )
    .fetch_optional(db)
    .await?;
    Ok(found.map(|f| {
        let caller = Rate { limit: f.of_caller, window_seconds: f.of_caller_in };
        let tenant = Rate { limit: f.of_tenant, window_seconds: f.of_tenant_in };
        let budgets = match (f.caller_granted, f.caller_tokens) {
            (Some(granted), Some(tokens)) => {
                rate_bucket::budgets((caller, granted, tokens), (tenant, f.tenant_granted, f.tenant_tokens))
            }
            _ => vec![],
        };
        KeyHolder {
            tenant_id: f.tenant_id,
            key_id: f.id,
            scopes: f.scopes,
            suspended: f.suspended,
            at_home: f.at_home,
            elsewhere: f.elsewhere,
            budgets,
        }
    }))
}
