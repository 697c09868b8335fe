//! Posts of tenants' sites.

use crate::models::Db;

/// Publishes up to `limit` posts of all tenants whose time has come, those first that waited longest; gives how many.
///
/// # Errors
/// Those of the database.
pub async fn publish_due(db: Db<'_>, limit: i64) -> sqlx::Result<u64> {
    let published = sqlx::query!(
        "update content.posts set state = 'published', updated_at = workflow.now(), rev = rev + 1
         where id in (select id from content.posts
                      where state = 'scheduled' and deleted_at is null and publish_at <= workflow.now()
                      order by publish_at, id limit $1 for update)",
        limit
    );
    Ok(published.execute(db).await?.rows_affected())
}
