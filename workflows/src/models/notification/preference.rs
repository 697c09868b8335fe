//! Who wants what how: rows of users over rows of their tenant over what is usual.

use super::{
    quiet::{self, Quiet},
    routing::{Digest, Wish},
};
use crate::models::Db;
use chrono::NaiveTime;
use uuid::Uuid;

/// A choice for a category and a channel.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preference {
    /// Whose; none: of all of a tenant who chose nothing.
    pub user_id: Option<Uuid>,
    /// What about.
    pub category: String,
    /// By which way.
    pub channel: String,
    /// Whether to be told.
    pub enabled: bool,
    /// Hours of rest begin.
    pub quiet_start: Option<NaiveTime>,
    /// They end.
    pub quiet_end: Option<NaiveTime>,
    /// On whose wall, by IANA; the user's own when nothing is said.
    pub timezone: Option<String>,
    /// `off`, `hourly` or `daily`.
    pub digest: String,
}

impl Preference {
    /// What is wanted, for somebody whose own zone is `zone`.
    pub fn wish(&self, zone: &str) -> Wish {
        let zone = quiet::zone(self.timezone.as_deref().unwrap_or(zone));
        let quiet = self.quiet_start.zip(self.quiet_end).map(|(start, end)| Quiet { start, end, zone });
        Wish { enabled: self.enabled, quiet, digest: Digest::read(&self.digest) }
    }
}

/// The choices of a user and of their tenant; of the tenant alone when nobody is named.
///
/// # Errors
/// Those of the database; so with all that follow.
pub async fn list(db: Db<'_>, tenant_id: Uuid, user_id: Option<Uuid>) -> sqlx::Result<Vec<Preference>> {
    sqlx::query_as!(
        Preference,
        "select user_id, category, channel, enabled, quiet_start, quiet_end, timezone, digest from notification.notification_preferences
         where tenant_id = $1 and (user_id is null or user_id = $2) order by category, channel, user_id nulls first",
        tenant_id,
        user_id
    )
    .fetch_all(db)
    .await
}

/// Chooses. A choice that was made before is another one from now on.
pub async fn set(db: Db<'_>, tenant_id: Uuid, choice: &Preference) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into notification.notification_preferences as p
             (tenant_id, user_id, category, channel, enabled, quiet_start, quiet_end, timezone, digest, updated_at)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, workflow.now())
         on conflict on constraint one_choice do update set enabled = excluded.enabled, quiet_start = excluded.quiet_start,
             quiet_end = excluded.quiet_end, timezone = excluded.timezone, digest = excluded.digest,
             updated_at = excluded.updated_at, rev = p.rev + 1",
        tenant_id,
        choice.user_id,
        choice.category,
        choice.channel,
        choice.enabled,
        choice.quiet_start,
        choice.quiet_end,
        choice.timezone,
        choice.digest,
    )
    .execute(db)
    .await
    .map(drop)
}

/// A user wants no more of a category by a channel. What else they chose for it stays.
pub async fn opt_out(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, category: &str, channel: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into notification.notification_preferences as p (tenant_id, user_id, category, channel, enabled, updated_at)
         values ($1, $2, $3, $4, false, workflow.now())
         on conflict on constraint one_choice do update set enabled = false, updated_at = excluded.updated_at, rev = p.rev + 1",
        tenant_id,
        user_id,
        category,
        channel,
    )
    .execute(db)
    .await
    .map(drop)
}

/// A user wants no more digests by a channel: nothing more of all that is gathered for them there.
pub async fn opt_out_of_digests(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, channel: &str) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into notification.notification_preferences as p (tenant_id, user_id, category, channel, enabled, updated_at)
         select $1, $2, c.category, $3, false, workflow.now() from (
             select distinct on (category) category, digest from notification.notification_preferences
             where tenant_id = $1 and (user_id = $2 or user_id is null) and channel = $3 order by category, user_id nulls last) c
         where c.digest <> 'off'
         on conflict on constraint one_choice do update set enabled = false, updated_at = excluded.updated_at, rev = p.rev + 1",
        tenant_id,
        user_id,
        channel,
    )
    .execute(db)
    .await
    .map(drop)
}

/// Takes a choice back; false when there was none.
pub async fn remove(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Option<Uuid>,
    category: &str,
    channel: &str,
) -> sqlx::Result<bool> {
    let removed = sqlx::query!(
        "delete from notification.notification_preferences
         where tenant_id = $1 and user_id is not distinct from $2 and category = $3 and channel = $4",
        tenant_id,
        user_id,
        category,
        channel
    );
    Ok(removed.execute(db).await?.rows_affected() > 0)
}

/// What a user last said to marketing; none when they never did. As of the identity.
pub async fn consent(db: Db<'_>, tenant_id: Uuid, user_id: Uuid) -> sqlx::Result<Option<bool>> {
    sqlx::query_scalar!(
        "select given from identity.consents where tenant_id = $1 and user_id = $2 and purpose = 'marketing' order by created_at desc limit 1",
        tenant_id,
        user_id
    )
    .fetch_optional(db)
    .await
}

/// A user says yes or no to marketing, to a text with this hash. As of the identity.
pub async fn give_consent(
    db: Db<'_>,
    tenant_id: Uuid,
    user_id: Uuid,
    given: bool,
    text_hash: &[u8],
    source: &str,
) -> sqlx::Result<()> {
    sqlx::query!(
        "insert into identity.consents (tenant_id, user_id, purpose, given, text_hash, source, created_at)
         values ($1, $2, 'marketing', $3, $4, $5, workflow.now())",
        tenant_id,
        user_id,
        given,
        text_hash,
        source
    )
    .execute(db)
    .await
    .map(drop)
}
