//! Tenants.

use crate::models::Db;
use uuid::Uuid;

/// Makes a tenant and gives its id. `slug` is 1 to 64 of `a-z 0-9 -` and not taken.
pub async fn create(db: Db<'_>, slug: &str, name: &str) -> sqlx::Result<Uuid> {
    let id = Uuid::now_v7();
    sqlx::query!("insert into identity.tenants (id, slug, name) values ($1, $2, $3)", id, slug, name)
        .execute(db)
        .await?;
    Ok(id)
}

/// A tenant as somebody sees it who comes in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entrance {
    /// Its id.
    pub id: Uuid,
    /// What it is called.
    pub name: String,
    /// Whether anybody may register: the setting `registration`, which is `open` when it is not set.
    pub registers: bool,
}

/// The tenant called `slug`, unless it is closed.
///
/// # Errors
/// Those of the database.
pub async fn entrance(db: Db<'_>, slug: &str) -> sqlx::Result<Option<Entrance>> {
    sqlx::query_as!(
        Entrance,
        r#"select id, name, coalesce(settings ->> 'registration', 'open') = 'open' as "registers!"
           from identity.tenants where lower(slug) = lower($1) and status <> 'closed'"#,
        slug
    )
    .fetch_optional(db)
    .await
}

/// Somebody owns the tenant, when nobody does yet.
///
/// # Errors
/// Those of the database.
pub async fn own(db: Db<'_>, id: Uuid, user_id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("update identity.tenants set owner_user_id = $2 where id = $1 and owner_user_id is null", id, user_id)
        .execute(db)
        .await
        .map(drop)
}
