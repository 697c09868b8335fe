//! Sessions: what stays of a sign-in. Two opaque tokens of 238 random bits, kept as SHA-256: a short one for requests, and one
//! that is good once, for the next pair. Nothing is in a token, so nothing in it can be forged; every request asks here.

use crate::models::{Db, Secret};
use chrono::{DateTime, Utc};
use std::{net::IpAddr, time::Duration};
use uuid::Uuid;

/// Access tokens begin with this.
pub const ACCESS_KIND: &str = "fr_at_";
/// Refresh tokens begin with this.
pub const REFRESH_KIND: &str = "fr_rt_";
/// How long an access token is good.
pub const ACCESS: Duration = Duration::from_secs(600);
/// How long a session lasts that nobody uses.
pub const IDLE: Duration = Duration::from_secs(14 * 86_400);
/// How long one lasts at most.
pub const ABSOLUTE: Duration = Duration::from_secs(90 * 86_400);

/// The tokens of a session. Shown once.
pub struct Tokens {
    /// The session.
    pub session_id: Uuid,
    /// For requests.
    pub access: Secret,
    /// For the next pair.
    pub refresh: Secret,
}

/// Where somebody signs in from, and how.
#[derive(Debug, Clone)]
pub struct NewSession<'a> {
    /// Their address.
    pub ip: Option<IpAddr>,
    /// Their program.
    pub user_agent: Option<&'a str>,
    /// Whether they showed a second factor.
    pub second_factor: bool,
}

/// Somebody with a session.
#[derive(Debug, Clone, PartialEq)]
pub struct Person {
    /// Their tenant.
    pub tenant_id: Uuid,
    /// Who they are.
    pub user_id: Uuid,
    /// Their session.
    pub session_id: Uuid,
    /// When they last proved again that it is them.
    pub mfa_at: Option<DateTime<Utc>>,
    /// Since when the session lasts.
    pub created_at: DateTime<Utc>,
    /// The time of this look.
    pub now: DateTime<Utc>,
    /// What their roles let them do; see `identity.roles`.
    pub rights: Vec<String>,
    /// Whether their tenant is suspended.
    pub suspended: bool,
    /// Whether they came to a host name that is another tenant's.
    pub elsewhere: bool,
    /// Whether they have a second factor.
    pub has_factor: bool,
    /// Whether the use was noted: then there is something to commit.
    pub noted: bool,
}

/// A session as its owner sees it.
#[derive(Debug, Clone)]
pub struct Session {
    /// Its id.
    pub id: Uuid,
    /// Where it began.
    pub ip: Option<String>,
    /// With which program.
    pub user_agent: Option<String>,
    /// Since when.
    pub created_at: DateTime<Utc>,
    /// When it was used last, to the minute.
    pub last_seen_at: DateTime<Utc>,
    /// When it ends at the latest.
    pub expires_at: DateTime<Utc>,
}

/// What became of a refresh.
pub enum Refreshed {
    /// The next pair.
    Next(Tokens),
    /// The token was used before: whoever has it now, the session is over.
    Reused,
    /// The token is unknown, or its session is over.
    Unknown,
}

/// Begins a session.
///
/// # Errors
/// Those of the database.
pub async fn begin(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, new: &NewSession<'_>) -> sqlx::Result<Tokens> {
    let tokens = fresh(Uuid::now_v7());
    let agent = new.user_agent.map(|a| a.chars().take(512).collect::<String>());
    sqlx::query!(
        "insert into identity.user_sessions (id, tenant_id, user_id, token_family, access_hash, access_expires_at, ip, user_agent,
                                             auth_level, mfa_at, created_at, last_seen_at, idle_expires_at, absolute_expires_at)
         select $1, $2, $3, gen_random_uuid(), $4, now + make_interval(secs => $5), $6::text::inet, $7,
                case when $8 then 2 else 1 end, case when $8 then now end, now, now,
                now + make_interval(secs => $9), now + make_interval(secs => $10)
         from workflow.now() now",
        tokens.session_id,
        tenant_id,
        user_id,
        tokens.access.hash(),
        ACCESS.as_secs_f64(),
        new.ip.map(|ip| ip.to_string()) as _,
        agent,
        new.second_factor,
        IDLE.as_secs_f64(),
        ABSOLUTE.as_secs_f64(),
    )
    .execute(&mut *db)
    .await?;
    add_refresh(&mut *db, tenant_id, &tokens, None).await?;
    sqlx::query!("update identity.users set last_login_at = workflow.now() where id = $1", user_id).execute(db).await?;
    Ok(tokens)
}

fn fresh(session_id: Uuid) -> Tokens {
    Tokens { session_id, access: Secret::generate(ACCESS_KIND), refresh: Secret::generate(REFRESH_KIND) }
}

async fn add_refresh(db: Db<'_>, tenant_id: Uuid, tokens: &Tokens, parent: Option<&[u8]>) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into identity.refresh_tokens (token_hash, tenant_id, session_id, parent_hash, expires_at, created_at)
         select $1, $2, $3, $4, now + make_interval(secs => $5), now from workflow.now() now",
        tokens.refresh.hash(),
        tenant_id,
        tokens.session_id,
        parent,
        IDLE.as_secs_f64(),
    )
    .execute(db)
    .await
    .map(drop)
}

/// Who holds the access token `text`, which came to a host name; none when it is unknown, old, revoked, or its holder may no longer sign in. Their roles
/// are read anew each time. Notes the use at most once a minute.
///
/// # Errors
/// Those of the database.
pub async fn authenticate(db: Db<'_>, text: &str, host: Option<&str>) -> sqlx::Result<Option<Person>> {
    let person = sqlx::query_as!(
        Person,
        r#"select s.tenant_id, s.user_id, s.id as session_id, s.mfa_at, s.created_at, now as "now!",
                  array(select distinct unnest(r.rights) from identity.role_bindings b join identity.roles r on r.name = b.role
                        where b.tenant_id = s.tenant_id and b.user_id = s.user_id and (not r.platform or u.is_platform_staff)) as "rights!",
                  t.status = 'suspended' as "suspended!", identity.is_elsewhere(s.tenant_id, $2) as "elsewhere!",
                  exists (select from identity.mfa_factors f
                          where f.user_id = s.user_id and f.confirmed_at is not null and f.disabled_at is null) as "has_factor!",
                  s.last_seen_at < now - interval '1 minute' as "noted!"
           from workflow.now() now
           join identity.user_sessions s on s.access_hash = $1 and s.access_expires_at > now
           join identity.users u on u.id = s.user_id and u.status = 'active'
           join identity.tenants t on t.id = s.tenant_id and t.status <> 'closed'
           where s.revoked_at is null and s.idle_expires_at > now and s.absolute_expires_at > now"#,
        Secret::hash_of(text),
        host,
    )
    .fetch_optional(&mut *db)
    .await?;
    if let Some(person) = person.as_ref().filter(|p| p.noted) {
        sqlx::query!(
            "update identity.user_sessions
             set last_seen_at = workflow.now(), idle_expires_at = least(absolute_expires_at, workflow.now() + make_interval(secs => $2))
             where id = $1 and last_seen_at < workflow.now() - interval '1 minute'",
            person.session_id,
            IDLE.as_secs_f64(),
        )
        .execute(db)
        .await?;
    }
    Ok(person)
}

/// Takes a refresh token for the next pair. Of any number who show the same token at once one gets it; the others end the session.
///
/// # Errors
/// Those of the database.
pub async fn refresh(db: Db<'_>, text: &str) -> sqlx::Result<Refreshed> {
    let hash = Secret::hash_of(text);
    let used = sqlx::query!(
        "update identity.refresh_tokens set used_at = workflow.now()
         where token_hash = $1 and used_at is null and expires_at > workflow.now()
         returning tenant_id, session_id",
        hash
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(used) = used else {
        let reused = sqlx::query_scalar!(
            "select session_id from identity.refresh_tokens where token_hash = $1 and used_at is not null",
            hash
        )
        .fetch_optional(&mut *db)
        .await?;
        let Some(session_id) = reused else { return Ok(Refreshed::Unknown) };
        revoke(db, session_id, "a refresh token was used twice").await?;
        return Ok(Refreshed::Reused);
    };
    let tokens = fresh(used.session_id);
    let renewed = sqlx::query!(
        "update identity.user_sessions s
         set access_hash = $2, access_expires_at = now + make_interval(secs => $3), last_seen_at = now,
             idle_expires_at = least(s.absolute_expires_at, now + make_interval(secs => $4))
         from workflow.now() now, identity.users u, identity.tenants t
         where s.id = $1 and s.revoked_at is null and s.idle_expires_at > now and s.absolute_expires_at > now
           and u.id = s.user_id and u.status = 'active' and t.id = s.tenant_id and t.status <> 'closed'",
        used.session_id,
        tokens.access.hash(),
        ACCESS.as_secs_f64(),
        IDLE.as_secs_f64(),
    )
    .execute(&mut *db)
    .await?;
    if renewed.rows_affected() == 0 {
        return Ok(Refreshed::Unknown);
    }
    add_refresh(db, used.tenant_id, &tokens, Some(&hash)).await?;
    Ok(Refreshed::Next(tokens))
}

/// Ends a session. False when it was over.
///
/// # Errors
/// Those of the database.
pub async fn revoke(db: Db<'_>, session_id: Uuid, reason: &str) -> sqlx::Result<bool> {
    let ended = sqlx::query!(
        "update identity.user_sessions set revoked_at = workflow.now(), revoke_reason = $2
         where id = $1 and revoked_at is null",
        session_id,
        reason
    )
    .execute(db)
    .await?;
    Ok(ended.rows_affected() > 0)
}

/// Ends the sessions of a person, but one.
///
/// # Errors
/// Those of the database.
pub async fn revoke_all(db: Db<'_>, user_id: Uuid, but: Option<Uuid>, reason: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.user_sessions set revoked_at = workflow.now(), revoke_reason = $3
         where user_id = $1 and revoked_at is null and id is distinct from $2",
        user_id,
        but,
        reason
    )
    .execute(db)
    .await
    .map(drop)
}

/// The live sessions of a person, the latest first.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, user_id: Uuid) -> sqlx::Result<Vec<Session>> {
    sqlx::query_as!(
        Session,
        r#"select id, host(ip) as ip, user_agent, created_at, last_seen_at, idle_expires_at as expires_at
           from identity.user_sessions
           where user_id = $1 and revoked_at is null and idle_expires_at > workflow.now() and absolute_expires_at > workflow.now()
           order by last_seen_at desc, id limit 200"#,
        user_id
    )
    .fetch_all(db)
    .await
}

/// Whether a session belongs to a person.
///
/// # Errors
/// Those of the database.
pub async fn is_of(db: Db<'_>, session_id: Uuid, user_id: Uuid) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from identity.user_sessions where id = $1 and user_id = $2 and revoked_at is null) as "it!""#,
        session_id,
        user_id
    )
    .fetch_one(db)
    .await
}

/// Whether a person has had a session from this address: then somebody who guesses elsewhere does not stand in their way.
///
/// # Errors
/// Those of the database.
pub async fn known_from(db: Db<'_>, user_id: Uuid, ip: IpAddr) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select exists (select from identity.user_sessions
                          where user_id = $1 and ip = $2::text::inet and created_at > workflow.now() - interval '90 days') as "it!""#,
        user_id,
        ip.to_string() as _,
    )
    .fetch_one(db)
    .await
}

/// Somebody just proved again that it is them: by a second factor, or by their password.
///
/// # Errors
/// Those of the database.
pub async fn note_proof(db: Db<'_>, session_id: Uuid, second_factor: bool) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.user_sessions
         set mfa_at = workflow.now(), auth_level = case when $2 then greatest(auth_level, 2::smallint) else auth_level end
         where id = $1",
        session_id,
        second_factor
    )
    .execute(db)
    .await
    .map(drop)
}

/// Drops up to `limit` sessions that could not go on a month ago, with their tokens; gives how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_old(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from identity.user_sessions where id in (
             select id from identity.user_sessions
             where least(absolute_expires_at, coalesce(revoked_at, absolute_expires_at)) < workflow.now() - interval '30 days'
             limit $1 for update skip locked)",
        limit
    );
    Ok(gone.execute(db).await?.rows_affected())
}
