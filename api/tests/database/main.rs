//! The database by itself: what its files make, who may do what in it, whose rows are seen, and its months.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod catalogue;
mod check;
mod files;
mod migrate;
mod months;
mod nodes;
mod roles;
mod storage;
mod tenants;

use sqlx::{AssertSqlSafe, PgConnection, PgPool};

/// The schemas of the platform's services.
const SCHEMAS: &str = "('identity', 'content', 'studio', 'render', 'file_mgr', 'notification')";

/// The first column of a query, as text.
async fn rows(db: &PgPool, sql: &str) -> Vec<String> {
    let sql = sql.replace("$schemas", SCHEMAS);
    sqlx::query_scalar(AssertSqlSafe(sql.clone())).fetch_all(db).await.unwrap_or_else(|e| panic!("{e}: {sql}"))
}

/// Asserts that a query finds nothing; its text column names what it found.
#[track_caller]
fn assert_none(found: &[String]) {
    assert!(found.is_empty(), "{found:#?}");
}

/// Runs statements and tells how it ended: rows, or the SQLSTATE.
async fn attempt(db: &mut PgConnection, sql: &str) -> Result<u64, String> {
    match sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await {
        Ok(done) => Ok(done.rows_affected()),
        Err(sqlx::Error::Database(error)) => Err(error.code().unwrap_or_default().into_owned()),
        Err(error) => panic!("{error}: {sql}"),
    }
}

/// Runs statements that must work.
async fn run(db: &mut PgConnection, sql: &str) {
    sqlx::raw_sql(AssertSqlSafe(sql.to_owned())).execute(db).await.unwrap_or_else(|e| panic!("{e}: {sql}"));
}
