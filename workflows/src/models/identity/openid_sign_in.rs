//! People who are at an OpenID provider right now. Each row is good for one return, within ten minutes.

use crate::models::Db;
use std::time::Duration;
use uuid::Uuid;

/// How long somebody may stay at a provider.
pub const LASTS: Duration = Duration::from_secs(600);

/// Somebody who went to a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignIn {
    /// What state, nonce and verifier are made of.
    pub id: Uuid,
    /// The tenant of the provider.
    pub tenant_id: Uuid,
    /// The provider.
    pub provider_id: Uuid,
    /// Who adds the login to their account; none when somebody signs in.
    pub user_id: Option<Uuid>,
    /// Where the provider sends them back to.
    pub redirect_uri: String,
}

/// Notes that somebody goes to a provider; whoever shows the text behind `token_hash` comes back from there.
///
/// # Errors
/// Those of the database.
pub async fn begin(db: Db<'_>, sign_in: &SignIn, token_hash: &[u8]) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into identity.openid_sign_ins (id, tenant_id, provider_id, user_id, token_hash, redirect_uri, created_at, expires_at)
         select $1, $2, $3, $4, $5, $6, now, now + make_interval(secs => $7) from workflow.now() now",
        sign_in.id,
        sign_in.tenant_id,
        sign_in.provider_id,
        sign_in.user_id,
        token_hash,
        sign_in.redirect_uri,
        LASTS.as_secs_f64(),
    )
    .execute(db)
    .await
    .map(drop)
}

/// Whoever comes back, once: of any number at the same time one; none when it is unknown, old or was used. `user_id` has to be who
/// began it.
///
/// # Errors
/// Those of the database.
pub async fn end(db: Db<'_>, token_hash: &[u8], user_id: Option<Uuid>) -> sqlx::Result<Option<SignIn>> {
    sqlx::query_as!(
        SignIn,
        "update identity.openid_sign_ins set consumed_at = workflow.now()
         where token_hash = $1 and user_id is not distinct from $2 and consumed_at is null and expires_at > workflow.now()
         returning id, tenant_id, provider_id, user_id, redirect_uri",
        token_hash,
        user_id
    )
    .fetch_optional(db)
    .await
}

/// Drops up to ten thousand that were over a day ago; gives how many.
///
/// # Errors
/// Those of the database.
pub async fn forget_old(db: Db<'_>) -> sqlx::Result<u64> {
    let gone = sqlx::query!(
        "delete from identity.openid_sign_ins where id in (
             select id from identity.openid_sign_ins where expires_at < workflow.now() - interval '1 day'
             order by expires_at limit 10000 for update skip locked)"
    );
    Ok(gone.execute(db).await?.rows_affected())
}
