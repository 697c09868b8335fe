//! Second factors: one-time codes by time (RFC 6238), passkeys (WebAuthn), and recovery codes.

use crate::models::{Db, Secret};
use chrono::{DateTime, Utc};
use serde_json::Value;
use uuid::Uuid;

/// A second factor.
#[derive(Debug, Clone, PartialEq)]
pub struct Factor {
    /// Its id.
    pub id: Uuid,
    /// `totp` or `webauthn`.
    pub kind: String,
    /// What its owner calls it.
    pub label: String,
    /// The sealed secret of one that makes codes.
    pub secret: Option<Vec<u8>>,
    /// A passkey, as the library that checks it writes it down.
    pub passkey: Option<Value>,
    /// The model of a passkey's authenticator, as far as it tells.
    pub aaguid: Option<Uuid>,
    /// Since when it counts.
    pub confirmed_at: Option<DateTime<Utc>>,
    /// When it was shown last.
    pub last_used_at: Option<DateTime<Utc>>,
    /// When it was added.
    pub created_at: DateTime<Utc>,
}

/// A passkey that has signed its first challenge.
#[derive(Debug, Clone)]
pub struct NewPasskey<'a> {
    /// The id of the factor.
    pub id: Uuid,
    /// What its owner calls it.
    pub label: &'a str,
    /// The id that its authenticator gave it.
    pub credential: &'a [u8],
    /// All of it, as the library that checks it writes it down.
    pub passkey: Value,
    /// How often it has signed; 0 for those that do not count.
    pub sign_count: u32,
    /// The model of its authenticator, as far as it tells.
    pub aaguid: Option<Uuid>,
}

/// What became of a passkey that somebody adds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It counts from now on.
    Done,
    /// The person has as many factors as they may.
    Full,
    /// It is, or was, a factor already: of this person or another.
    Known,
}

/// What became of the use of a passkey.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Used {
    /// It is noted.
    Done,
    /// The factor was removed.
    Removed,
    /// It has signed no more often than it had before: there is a copy of it.
    Cloned,
}

/// Most factors of a person.
pub const MOST: i64 = 10;
/// Recovery codes at a time.
pub const RECOVERY_CODES: usize = 10;

/// Adds a factor that makes codes; it counts once it is confirmed. False when the person has as many as they may.
///
/// # Errors
/// Those of the database.
pub async fn add_totp(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    id: Uuid,
    label: &str,
    secret: &[u8],
) -> sqlx::Result<bool> {
    if !has_room(&mut *db, user_id).await? {
        return Ok(false);
    }
    sqlx::query!(
        "insert into identity.mfa_factors (id, tenant_id, user_id, kind, label, secret_enc, created_at)
         values ($1, $2, $3, 'totp', $4, $5, workflow.now())",
        id,
        tenant_id,
        user_id,
        label,
        secret,
    )
    .execute(db)
    .await?;
    Ok(true)
}

/// Adds a passkey, which counts at once.
///
/// # Errors
/// Those of the database.
pub async fn add_passkey(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, new: &NewPasskey<'_>) -> sqlx::Result<Added> {
    if !has_room(&mut *db, user_id).await? {
        return Ok(Added::Full);
    }
    let added = sqlx::query!(
        "insert into identity.mfa_factors (id, tenant_id, user_id, kind, label, webauthn_credential, passkey, sign_count, aaguid,
                                           confirmed_at, created_at)
         select $1, $2, $3, 'webauthn', $4, $5, $6, $7, $8, now, now from workflow.now() now
         on conflict (webauthn_credential) do nothing",
        new.id,
        tenant_id,
        user_id,
        new.label,
        new.credential,
        new.passkey,
        i64::from(new.sign_count),
        new.aaguid,
    )
    .execute(db)
    .await?;
    Ok(if added.rows_affected() > 0 { Added::Done } else { Added::Known })
}

/// Whether the person may have another factor. Whoever asks for the same person waits until this transaction is over.
async fn has_room(db: Db<'_>, user_id: Uuid) -> sqlx::Result<bool> {
    sqlx::query!("select from identity.users where id = $1 for no key update", user_id)
        .fetch_optional(&mut *db)
        .await?;
    let held = sqlx::query_scalar!(
        r#"select count(*) as "held!" from identity.mfa_factors where user_id = $1 and disabled_at is null"#,
        user_id
    );
    Ok(held.fetch_one(db).await? < MOST)
}

/// The factors of a person that were not removed, oldest first.
///
/// # Errors
/// Those of the database.
pub async fn list(db: Db<'_>, user_id: Uuid) -> sqlx::Result<Vec<Factor>> {
    sqlx::query_as!(
        Factor,
        "select id, kind, label, secret_enc as secret, passkey, aaguid, confirmed_at, last_used_at, created_at
         from identity.mfa_factors where user_id = $1 and disabled_at is null order by created_at, id",
        user_id
    )
    .fetch_all(db)
    .await
}

/// Uses the code of a time step: false when that step or a later one was used. The first use confirms the factor when `confirm` says so.
///
/// # Errors
/// Those of the database.
pub async fn use_step(db: Db<'_>, id: Uuid, step: i64, confirm: bool) -> sqlx::Result<bool> {
    let used = sqlx::query!(
        "update identity.mfa_factors
         set last_totp_step = $2, last_used_at = workflow.now(),
             confirmed_at = case when $3 then coalesce(confirmed_at, workflow.now()) else confirmed_at end
         where id = $1 and disabled_at is null and (last_totp_step is null or last_totp_step < $2)",
        id,
        step,
        confirm
    )
    .execute(db)
    .await?;
    Ok(used.rows_affected() > 0)
}

/// Uses a passkey that has signed `sign_count` times, and keeps what it is afterwards. Two uses at once take turns.
///
/// # Errors
/// Those of the database.
pub async fn use_passkey(db: Db<'_>, id: Uuid, sign_count: u32, passkey: Value) -> sqlx::Result<Used> {
    let kept = sqlx::query_scalar!(
        "select sign_count from identity.mfa_factors where id = $1 and disabled_at is null for no key update",
        id
    );
    let Some(before) = kept.fetch_optional(&mut *db).await? else { return Ok(Used::Removed) };
    let now = i64::from(sign_count);
    // Those that do not count stay at 0 (WebAuthn, 6.1.1).
    if now <= before && (now, before) != (0, 0) {
        return Ok(Used::Cloned);
    }
    sqlx::query!(
        "update identity.mfa_factors set sign_count = $2, passkey = $3, last_used_at = workflow.now() where id = $1",
        id,
        now,
        passkey
    )
    .execute(db)
    .await?;
    Ok(Used::Done)
}

/// Calls a factor of a person something else, and gives it; none when there is none such.
///
/// # Errors
/// Those of the database.
pub async fn rename(db: Db<'_>, user_id: Uuid, id: Uuid, label: &str) -> sqlx::Result<Option<Factor>> {
    sqlx::query_as!(
        Factor,
        "update identity.mfa_factors set label = $3 where id = $1 and user_id = $2 and disabled_at is null
         returning id, kind, label, secret_enc as secret, passkey, aaguid, confirmed_at, last_used_at, created_at",
        id,
        user_id,
        label
    )
    .fetch_optional(db)
    .await
}

/// Removes a factor of a person, and the recovery codes with the last one. False when there is none such.
///
/// # Errors
/// Those of the database.
pub async fn remove(db: Db<'_>, user_id: Uuid, id: Uuid) -> sqlx::Result<bool> {
    let removed = sqlx::query!(
        "update identity.mfa_factors set disabled_at = workflow.now()
         where id = $1 and user_id = $2 and disabled_at is null",
        id,
        user_id
    )
    .execute(&mut *db)
    .await?;
    sqlx::query!(
        "delete from identity.mfa_recovery_codes c where user_id = $1
         and not exists (select from identity.mfa_factors f where f.user_id = c.user_id and f.disabled_at is null and f.confirmed_at is not null)",
        user_id
    )
    .execute(db)
    .await?;
    Ok(removed.rows_affected() > 0)
}

/// Gives a person new recovery codes in place of the old ones. Shown once.
///
/// # Errors
/// Those of the database.
pub async fn new_recovery_codes(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Vec<Secret>> {
    let codes: Vec<Secret> = (0..RECOVERY_CODES).map(|_| Secret::generate("fr_rc_")).collect();
    sqlx::query!("delete from identity.mfa_recovery_codes where user_id = $1", user_id).execute(&mut *db).await?;
    for code in &codes {
        sqlx::query!(
            "insert into identity.mfa_recovery_codes (tenant_id, user_id, code_hash) values ($1, $2, $3)",
            tenant_id,
            user_id,
            code.hash()
        )
        .execute(&mut *db)
        .await?;
    }
    Ok(codes)
}

/// Uses a recovery code up; false when it is none of the person's, or used.
///
/// # Errors
/// Those of the database.
pub async fn use_recovery_code(db: Db<'_>, user_id: Uuid, text: &str) -> sqlx::Result<bool> {
    let used = sqlx::query!(
        "update identity.mfa_recovery_codes set used_at = workflow.now()
         where user_id = $1 and code_hash = $2 and used_at is null",
        user_id,
        Secret::hash_of(text)
    )
    .execute(db)
    .await?;
    Ok(used.rows_affected() > 0)
}
