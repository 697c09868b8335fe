//! Every row of the platform and every statement about it: a folder per schema, a file per noun.

pub mod content;
pub mod file_mgr;
pub mod identity;
pub mod invariants;
pub mod notification;
pub mod render;
pub mod scope;
pub(crate) mod secret;
pub mod time_series;

pub use scope::{Database, Role, Scope};
pub use secret::Secret;

/// A connection inside the caller's transaction.
pub type Db<'c> = &'c mut sqlx::PgConnection;

/// The tenant that every installation has.
pub const DEFAULT_TENANT: uuid::Uuid = uuid::Uuid::from_u128(1);

/// Whether the tables are there. Says nothing of rows.
pub async fn is_migrated(db: Db<'_>) -> sqlx::Result<bool> {
    sqlx::query_scalar!(
        r#"select to_regclass('workflow.tasks') is not null and to_regclass('render.exports') is not null
                  and to_regclass('file_mgr.files') is not null as "it!""#
    )
    .fetch_one(db)
    .await
}
