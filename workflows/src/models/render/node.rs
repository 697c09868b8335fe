//! Render nodes: enrolment by one-time token, credentials, when they were last seen.

pub mod sleep;
mod standing;

pub use standing::{Standing, standing};

use crate::{
    contracts::node::Capabilities,
    models::{Db, Secret},
};
use sqlx::types::Json;
use std::time::Duration;
use uuid::Uuid;

/// Every enrolment token begins with this.
pub const TOKEN_KIND: &str = "fr_enrol_";
/// Every credential of a node begins with this.
pub const CREDENTIAL_KIND: &str = "fr_node_";

/// A node that proved who it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Node {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Only this tenant's work, when set.
    pub tenant_id: Option<Uuid>,
    /// `online`, `draining`, `quarantined` or `retired`.
    pub status: String,
    /// Raised at each enrolment.
    pub epoch: i64,
}

/// Makes a one-time enrolment token that is good for `lifetime`.
pub async fn create_token(db: Db<'_>, lifetime: Duration) -> sqlx::Result<Secret> {
    let secret = Secret::generate(TOKEN_KIND);
    sqlx::query!(
        r#"insert into render.node_tokens (id, token_hash, expires_at, created_at)
           values ($1, $2, workflow.now() + make_interval(secs => $3), workflow.now())"#,
        Uuid::now_v7(),
        secret.hash(),
        lifetime.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(secret)
}

/// Enrols a node, new or known by name, and uses up the token. An earlier process of that name loses its credential.
/// None when the token is unknown, used or expired.
pub async fn enrol(
    db: Db<'_>,
    token: &str,
    name: &str,
    capabilities: &Capabilities,
) -> sqlx::Result<Option<(Uuid, Secret)>> {
    let token_id = sqlx::query_scalar!(
        r#"select id from render.node_tokens
           where token_hash = $1 and used_at is null and expires_at > workflow.now() for update"#,
        Secret::hash_of(token),
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(token_id) = token_id else { return Ok(None) };
    let credential = Secret::generate(CREDENTIAL_KIND);
    let node_id = sqlx::query_scalar!(
        r#"insert into render.nodes as n (id, name, capabilities, offers, credential_hash, last_seen_at)
           values ($1, $2, $3, $4, $5, workflow.now())
           on conflict (name) do update
           set epoch = n.epoch + 1, capabilities = excluded.capabilities, offers = excluded.offers,
               -- Whoever is set aside stays so under a new credential.
               status = case when n.status in ('draining', 'quarantined') then n.status else 'online' end,
               credential_hash = excluded.credential_hash, last_seen_at = excluded.last_seen_at,
               updated_at = workflow.now()
           returning id"#,
        Uuid::now_v7(),
        name,
        Json(capabilities) as _,
        Json(&capabilities.labels) as _,
        credential.hash(),
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query!(
        "update render.node_tokens set used_at = workflow.now(), used_by = $2 where id = $1",
        token_id,
        node_id
    )
    .execute(db)
    .await?;
    Ok(Some((node_id, credential)))
}

/// The node that a credential belongs to.
pub async fn authenticate(db: Db<'_>, credential: &str) -> sqlx::Result<Option<Node>> {
    sqlx::query_as!(
        Node,
        "select id, name, tenant_id, status, epoch from render.nodes where credential_hash = $1 and status <> 'retired'",
        Secret::hash_of(credential),
    )
    .fetch_optional(db)
    .await
}

/// Notes that a node was heard of; at most once every five seconds.
pub async fn seen(db: Db<'_>, id: Uuid, incarnation: Uuid) -> sqlx::Result<()> {
    sqlx::query!(
        r#"update render.nodes set last_seen_at = workflow.now(), incarnation = $2
           where id = $1 and (last_seen_at < workflow.now() - interval '5 seconds' or incarnation is distinct from $2)"#,
        id,
        incarnation,
    )
    .execute(db)
    .await?;
    Ok(())
}
