//! What people are rewarded for, in the transaction of what they did: points, what these achieve, the gifts of the levels they reach,
//! and the points of whoever brought them.

use super::{
    achievement, gift,
    points::{self, Source},
    referral,
};
use crate::models::Db;
use uuid::Uuid;

/// Rewards a person for something, once: `id` says for which film, payment or referral. Begins and ends as the tenant's identity
/// service.
///
/// # Errors
/// Those of the database.
pub async fn reward(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, source: Source, id: Uuid) -> sqlx::Result<()> {
    give(&mut *db, tenant_id, user_id, source, id).await?;
    if matches!(source, Source::Render | Source::Payment)
        && let Some((referral, referrer)) = referral::reward(&mut *db, tenant_id, user_id).await?
    {
        give(db, tenant_id, referrer, Source::Referral, referral).await?;
    }
    Ok(())
}

async fn give(db: Db<'_>, tenant_id: Uuid, user_id: Uuid, source: Source, id: Uuid) -> sqlx::Result<()> {
    let before = points::progress(&mut *db, tenant_id, user_id).await?.level;
    if points::enter(&mut *db, tenant_id, user_id, source, id, source.points()).await?.is_none() {
        return Ok(());
    }
    achievement::look(&mut *db, tenant_id, user_id, source).await?;
    let after = points::progress(&mut *db, tenant_id, user_id).await?.level;
    for level in before + 1..=after {
        let gift = gift::find_by_code(&mut *db, tenant_id, &format!("level_{level}")).await?;
        if let Some(gift) = gift.filter(|gift| gift.active) {
            gift::earn(&mut *db, tenant_id, user_id, &gift, "level", &format!("level {level}"), None).await?;
        }
    }
    Ok(())
}
