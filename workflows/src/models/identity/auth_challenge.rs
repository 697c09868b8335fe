//! Links and codes that were sent: each is good once, for a while. The text of a link is made from the id of its row by a key that
//! only servers and workers have, so that it stands nowhere: not in the database, not in the input of the run that mails it.

use crate::models::Db;
use chrono::{DateTime, Utc};
use serde_json::Value;
use std::time::Duration;
use uuid::Uuid;

/// What a link or a code is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Proves an address.
    VerifyEmail,
    /// Sets a password.
    Reset,
    /// Sets the first password of somebody who was invited: as [`Kind::Reset`], good for longer.
    Invitation,
    /// The second step of a sign-in.
    SecondFactor,
    /// What an authenticator has to sign for somebody who is signed in.
    Webauthn,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::VerifyEmail => "verify_email",
            Self::Reset | Self::Invitation => "reset",
            Self::SecondFactor => "mfa",
            Self::Webauthn => "webauthn",
        }
    }

    /// How long it is good.
    pub fn lasts(self) -> Duration {
        match self {
            Self::VerifyEmail => Duration::from_secs(2 * 86_400),
            Self::Reset => Duration::from_secs(3600),
            Self::Invitation => Duration::from_secs(3 * 86_400),
            Self::SecondFactor | Self::Webauthn => Duration::from_secs(300),
        }
    }
}

/// Whom a link was sent to.
#[derive(Debug, Clone, PartialEq)]
pub struct Challenge {
    /// Its id.
    pub id: Uuid,
    /// The tenant.
    pub tenant_id: Uuid,
    /// The person.
    pub user_id: Uuid,
    /// The address that it proves.
    pub email: Option<String>,
    /// The session that it is for.
    pub session_id: Option<Uuid>,
    /// What was asked of an authenticator.
    pub state: Option<Value>,
}

impl Challenge {
    /// One of a person, of nothing more.
    pub fn of(tenant_id: Uuid, user_id: Uuid) -> Self {
        Self { id: Uuid::now_v7(), tenant_id, user_id, email: None, session_id: None, state: None }
    }
}

/// Makes a link for a person, by the SHA-256 of its text; earlier links of the kind are no longer good.
///
/// # Errors
/// Those of the database.
pub async fn issue(db: Db<'_>, kind: Kind, challenge: &Challenge, token_hash: &[u8]) -> sqlx::Result<()> {
    if !matches!(kind, Kind::SecondFactor | Kind::Webauthn) {
        withdraw(&mut *db, kind, challenge.user_id).await?;
    }
    sqlx::query!(
        "insert into identity.auth_challenges (id, tenant_id, user_id, kind, email, token_hash, session_id, state, created_at, expires_at)
         select $1, $2, $3, $4, $5, $6, $7, $8, now, now + make_interval(secs => $9) from workflow.now() now",
        challenge.id,
        challenge.tenant_id,
        challenge.user_id,
        kind.name(),
        challenge.email,
        token_hash,
        challenge.session_id,
        challenge.state,
        kind.lasts().as_secs_f64(),
    )
    .execute(db)
    .await
    .map(drop)
}

/// The links of a kind that a person has are no longer good.
///
/// # Errors
/// Those of the database.
pub async fn withdraw(db: Db<'_>, kind: Kind, user_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        "update identity.auth_challenges set consumed_at = workflow.now()
         where user_id = $1 and kind = $2 and consumed_at is null",
        user_id,
        kind.name()
    )
    .execute(db)
    .await
    .map(drop)
}

/// Every link and every half sign-in of a person is no longer good.
///
/// # Errors
/// Those of the database.
pub async fn withdraw_all(db: Db<'_>, user_id: Uuid) -> sqlx::Result<()> {
    let all = sqlx::query!(
        "update identity.auth_challenges set consumed_at = workflow.now() where user_id = $1 and consumed_at is null",
        user_id
    );
    all.execute(db).await.map(drop)
}

/// Counts a try at a challenge and gives it; none when it is used up, old, or was tried five times. Two tries take turns.
///
/// # Errors
/// Those of the database.
pub async fn attempt(db: Db<'_>, kind: Kind, token_hash: &[u8]) -> sqlx::Result<Option<Challenge>> {
    sqlx::query_as!(
        Challenge,
        "update identity.auth_challenges set attempts = attempts + 1
         where token_hash = $1 and kind = $2 and consumed_at is null and expires_at > workflow.now() and attempts < 5
         returning id, tenant_id, user_id, email, session_id, state",
        token_hash,
        kind.name()
    )
    .fetch_optional(db)
    .await
}

/// Uses up what an authenticator had to sign in a session, and gives what was asked of it; none when that was for another session, is
/// old or used up.
///
/// # Errors
/// Those of the database.
pub async fn take(db: Db<'_>, session_id: Uuid, token_hash: &[u8]) -> sqlx::Result<Option<Value>> {
    let state = sqlx::query_scalar!(
        "update identity.auth_challenges set consumed_at = workflow.now()
         where token_hash = $1 and kind = 'webauthn' and session_id = $2 and consumed_at is null and expires_at > workflow.now()
         returning state",
        token_hash,
        session_id
    );
    Ok(state.fetch_optional(db).await?.flatten())
}

/// Uses a challenge up that was tried with success.
///
/// # Errors
/// Those of the database.
pub async fn finish(db: Db<'_>, id: Uuid) -> sqlx::Result<bool> {
    let done = sqlx::query!(
        "update identity.auth_challenges set consumed_at = workflow.now() where id = $1 and consumed_at is null",
        id
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Drops up to ten thousand links and codes that were no longer good a week ago; gives how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_old(db: Db<'_>) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from identity.auth_challenges where id in (
             select id from identity.auth_challenges where expires_at < workflow.now() - interval '7 days'
             order by expires_at limit 10000 for update skip locked)"
    );
    Ok(gone.execute(db).await?.rows_affected())
}

/// The time that codes are counted by.
///
/// # Errors
/// Those of the database.
pub async fn now(db: Db<'_>) -> sqlx::Result<DateTime<Utc>> {
    sqlx::query_scalar!(r#"select workflow.now() as "now!""#).fetch_one(db).await
}
