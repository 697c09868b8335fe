//! Enrolment tokens as operators see them: never the token itself, of which only the hash is kept.

use crate::models::Db;
use chrono::{DateTime, Utc};
use flatrender_engine::Labels;
use sqlx::types::Json;
use uuid::Uuid;

/// A one-time token that was made.
#[derive(Debug, Clone)]
pub struct Token {
    /// Its id, by the time at which it was made.
    pub id: Uuid,
    /// `open`, `used`, `revoked` or `expired`.
    pub state: String,
    /// The group of nodes that it is for.
    pub pool: String,
    /// What it says of the node.
    pub labels: Json<Labels>,
    /// Whether a node that is new has to pass the probe before it gets work.
    pub probe_first: bool,
    /// Who made it, when that is known.
    pub created_by: Option<String>,
    /// The node that used it.
    pub used_by: Option<Uuid>,
    /// What that node is called.
    pub node: Option<String>,
    /// When it was used.
    pub used_at: Option<DateTime<Utc>>,
    /// When it was revoked.
    pub revoked_at: Option<DateTime<Utc>>,
    /// Until when it is good.
    pub expires_at: DateTime<Utc>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
}

/// Tokens, newest first: those made before `before`, when given.
pub async fn list(db: Db<'_>, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Token>> {
    sqlx::query_as!(
        Token,
        r#"select id, pool, labels as "labels: Json<Labels>", probe_first, created_by, used_by, used_at, revoked_at, expires_at,
                  created_at, (select n.name from render.nodes n where n.id = t.used_by) as node,
                  case when used_at is not null then 'used' when revoked_at is not null then 'revoked'
                       when expires_at <= workflow.now() then 'expired' else 'open' end as "state!"
           from render.node_tokens t where $1::uuid is null or id < $1 order by id desc limit $2"#,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// Makes a token worthless. False when there is none of this id that is still open: a node that has used it keeps its credential.
pub async fn revoke(db: Db<'_>, id: Uuid) -> sqlx::Result<bool> {
    let revoked = sqlx::query!(
        r#"update render.node_tokens set revoked_at = workflow.now()
           where id = $1 and used_at is null and revoked_at is null and expires_at > workflow.now()"#,
        id,
    );
    Ok(revoked.execute(db).await?.rows_affected() == 1)
}
