//! Logins of people at other providers: an issuer, and what it calls the person for ever.

use crate::models::Db;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// A login of a person.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Its id.
    pub id: Uuid,
    /// The issuer.
    pub provider: String,
    /// What the issuer calls the person.
    pub subject: String,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// Whose login this is.
///
/// # Errors
/// Those of the database.
pub async fn owner(db: Db<'_>, tenant_id: Uuid, issuer: &str, subject: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "select user_id from identity.user_identities where tenant_id = $1 and provider = $2 and subject = $3",
        tenant_id,
        issuer,
        subject
    )
    .fetch_optional(db)
    .await
}

/// Adds a login to a person and gives its id; none when it is somebody's already, or they have another one at this issuer.
///
/// # Errors
/// Those of the database.
pub async fn add(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    issuer: &str,
    subject: &str,
) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!(
        "insert into identity.user_identities (id, tenant_id, user_id, provider, subject, created_at)
         values ($1, $2, $3, $4, $5, workflow.now()) on conflict do nothing returning id",
        Uuid::now_v7(),
        tenant_id,
        user_id,
        issuer,
        subject
    )
    .fetch_optional(db)
    .await
}

/// The logins of a person, the oldest first.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, user_id: Uuid) -> sqlx::Result<Vec<Identity>> {
    sqlx::query_as!(
        Identity,
        "select id, provider, subject, created_at from identity.user_identities where user_id = $1 order by created_at, id",
        user_id
    )
    .fetch_all(db)
    .await
}

/// Takes a login away from a person. False when they have none with this id.
///
/// # Errors
/// Those of the database.
pub async fn remove(db: Db<'_>, user_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let gone = sqlx::query!("delete from identity.user_identities where user_id = $1 and id = $2", user_id, id);
    Ok(gone.execute(db).await?.rows_affected() > 0)
}
