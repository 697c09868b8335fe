//! Render nodes: enrolment by one-time token, credentials, when they were last seen.

pub mod action;
pub mod crash;
pub mod health;
pub mod inventory;
pub mod overview;
pub mod policy;
pub mod sleep;
mod standing;
pub mod token;

pub use standing::{Known, Standing, standing, standings};

use crate::{
    contracts::node::{Capabilities, ProbeReport},
    models::{Db, Secret},
};
use flatrender_engine::Labels;
use sqlx::types::Json;
use std::time::Duration;
use uuid::Uuid;

/// Every enrolment token begins with this.
pub const TOKEN_KIND: &str = "fr_enrol_";
/// Every credential of a node begins with this.
pub const CREDENTIAL_KIND: &str = "fr_node_";

/// How long a credential that was replaced is good for requests that were under way: the longest of them, a frame's upload over a
/// slow line, takes about as long.
const UNDER_WAY: Duration = Duration::from_secs(60);

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

/// What a token makes of the node that uses it.
#[derive(Debug, Clone, Default)]
pub struct NewToken<'a> {
    /// The group of nodes; `default` when absent.
    pub pool: Option<&'a str>,
    /// What is said of the node; wins over what it says itself.
    pub labels: Labels,
    /// Whether a node that is new has to pass the probe before it gets work.
    pub probe_first: bool,
    /// Who makes it.
    pub created_by: Option<&'a str>,
}

/// Makes a one-time enrolment token that is good for `lifetime`.
pub async fn create_token(db: Db<'_>, lifetime: Duration) -> sqlx::Result<Secret> {
    Ok(create_token_for(db, lifetime, &NewToken::default()).await?.1)
}

/// Makes a one-time enrolment token that is good for `lifetime`, for a node of some kind; gives its id as well.
pub async fn create_token_for(db: Db<'_>, lifetime: Duration, new: &NewToken<'_>) -> sqlx::Result<(Uuid, Secret)> {
    let (id, secret) = (Uuid::now_v7(), Secret::generate(TOKEN_KIND));
    sqlx::query!(
        r#"insert into render.node_tokens (id, token_hash, expires_at, created_at, pool, labels, created_by, probe_first)
           values ($1, $2, workflow.now() + make_interval(secs => $3), workflow.now(), $4, $5, left($6, 100), $7)"#,
        id,
        secret.hash(),
        lifetime.as_secs_f64(),
        new.pool.unwrap_or("default"),
        Json(&new.labels) as _,
        new.created_by,
        new.probe_first,
    )
    .execute(db)
    .await?;
    Ok((id, secret))
}

/// Enrols a node, new or known by name, and uses up the token. An earlier process of that name loses its credential.
/// None when the token is unknown, used or expired.
pub async fn enrol(
    db: Db<'_>,
    token: &str,
    name: &str,
    capabilities: &Capabilities,
) -> sqlx::Result<Option<(Uuid, Secret)>> {
    let token = sqlx::query!(
        r#"select id, pool, labels, probe_first from render.node_tokens
           where token_hash = $1 and used_at is null and revoked_at is null and expires_at > workflow.now() for update"#,
        Secret::hash_of(token),
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(token) = token else { return Ok(None) };
    let credential = Secret::generate(CREDENTIAL_KIND);
    let node_id = sqlx::query_scalar!(
        r#"insert into render.nodes as n
               (id, name, capabilities, offers, credential_hash, credential_at, last_seen_at, pool, labels,
                status, quarantine_reason, quarantine_until)
           values ($1, $2, $3, $4, $5, workflow.now(), workflow.now(), $6, $7,
                   case when $8 then 'quarantined' else 'online' end,
                   case when $8 then 'it is new, and has not passed the probe' end, case when $8 then workflow.now() end)
           on conflict (name) do update
           set epoch = n.epoch + 1, capabilities = excluded.capabilities, offers = excluded.offers,
               pool = excluded.pool, labels = excluded.labels, next_credential_hash = null, rotate_asked_at = null,
               last_credential_hash = null, last_credential_until = null,
               credential_at = excluded.credential_at,
               -- Whoever is set aside stays so under a new credential.
               status = case when n.status in ('draining', 'quarantined') then n.status when n.drained then 'draining' else 'online' end,
               credential_hash = excluded.credential_hash, last_seen_at = excluded.last_seen_at,
               updated_at = workflow.now()
           returning id"#,
        Uuid::now_v7(),
        name,
        Json(capabilities) as _,
        Json(&capabilities.labels) as _,
        credential.hash(),
        token.pool,
        token.labels,
        token.probe_first,
    )
    .fetch_one(&mut *db)
    .await?;
    sqlx::query!(
        "update render.node_tokens set used_at = workflow.now(), used_by = $2 where id = $1",
        token.id,
        node_id
    )
    .execute(db)
    .await?;
    Ok(Some((node_id, credential)))
}

/// The node that a credential belongs to. The first use of a new one ends the old one, but for requests that were under way: then the
/// caller has something to commit.
pub async fn authenticate(db: Db<'_>, credential: &str) -> sqlx::Result<Option<Node>> {
    let hash = Secret::hash_of(credential);
    let found = sqlx::query!(
        r#"select id, name, tenant_id, status, epoch, coalesce(next_credential_hash = $1, false) as "is_next!" from render.nodes
           where (credential_hash = $1 or next_credential_hash = $1
                  or last_credential_hash = $1 and last_credential_until > workflow.now()) and status <> 'retired'"#,
        hash,
    )
    .fetch_optional(&mut *db)
    .await?;
    let Some(found) = found else { return Ok(None) };
    if found.is_next {
        sqlx::query!(
            r#"update render.nodes set credential_hash = next_credential_hash, next_credential_hash = null,
                      last_credential_hash = credential_hash,
                      last_credential_until = workflow.now() + make_interval(secs => $3),
                      credential_at = workflow.now(), rotate_asked_at = null
               where id = $1 and next_credential_hash = $2"#,
            found.id,
            hash,
            UNDER_WAY.as_secs_f64(),
        )
        .execute(db)
        .await?;
    }
    let (id, name, tenant_id) = (found.id, found.name, found.tenant_id);
    Ok(Some(Node { id, name, tenant_id, status: found.status, epoch: found.epoch }))
}

/// Gives a node another credential. The old one is good until this one is used; an earlier one that never was is worthless.
pub async fn rotate(db: Db<'_>, id: Uuid) -> sqlx::Result<Secret> {
    let credential = Secret::generate(CREDENTIAL_KIND);
    sqlx::query!("update render.nodes set next_credential_hash = $2 where id = $1", id, credential.hash())
        .execute(db)
        .await?;
    Ok(credential)
}

/// Notes that nodes were heard of, each with its incarnation; a node at most once every five seconds. One that somebody else notes at
/// this moment is left to them.
pub async fn seen(db: Db<'_>, nodes: &[(Uuid, Uuid)]) -> sqlx::Result<()> {
    let (ids, incarnations): (Vec<Uuid>, Vec<Uuid>) = nodes.iter().copied().unzip();
    sqlx::query!(
        r#"update render.nodes n set last_seen_at = workflow.now(), incarnation = s.incarnation
           from unnest($1::uuid[], $2::uuid[]) s (id, incarnation)
           where n.id = s.id
             and n.id = any (array (select l.id from render.nodes l where l.id = any ($1) order by l.id for update skip locked))
             and (n.last_seen_at < workflow.now() - interval '5 seconds' or n.incarnation is distinct from s.incarnation)"#,
        &ids,
        &incarnations,
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Takes a node out of work until it passes a probe, not before the pause that [`policy::pause`] gives it, or an operator lets it
/// back. Whether it is drained stays as it is.
pub async fn quarantine(db: Db<'_>, id: Uuid, reason: &str) -> sqlx::Result<bool> {
    let reason: String = reason.chars().take(1000).collect();
    let before = sqlx::query_scalar!(
        r#"select count(*) as "times!" from render.node_crashes
           where node_id = $1 and recovery = 'quarantined' and occurred_at > workflow.now() - interval '1 day'"#,
        id,
    );
    let pause = policy::pause(before.fetch_one(&mut *db).await?);
    let done = sqlx::query!(
        r#"update render.nodes set status = 'quarantined', quarantine_reason = $2,
                  quarantine_until = greatest(quarantine_until, workflow.now() + make_interval(secs => $3)),
                  updated_at = workflow.now()
           where id = $1 and status <> 'retired'"#,
        id,
        reason,
        pause.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// How a node that asks for work is to be told that it gets none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Quarantine {
    /// It is not in quarantine.
    None,
    /// It is to be probed now.
    Probe,
    /// It may be probed in so many seconds.
    Wait(u32),
}

/// Whether a node is in quarantine, and when it may prove itself.
pub async fn quarantine_of(db: Db<'_>, id: Uuid) -> sqlx::Result<Quarantine> {
    let wait = sqlx::query_scalar!(
        r#"select greatest(0, ceil(extract(epoch from quarantine_until - workflow.now())))::int as "wait!"
           from render.nodes where id = $1 and status = 'quarantined'"#,
        id,
    );
    Ok(match wait.fetch_optional(db).await? {
        None => Quarantine::None,
        Some(0) => Quarantine::Probe,
        Some(seconds) => Quarantine::Wait(seconds.unsigned_abs()),
    })
}

/// Keeps what a probe found. A node in quarantine that has passed is out of it, and what it failed at before is forgiven, but for
/// templates that a probe says nothing of; one that has not is probed again after a pause. True when it is out.
pub async fn probed(db: Db<'_>, id: Uuid, report: &ProbeReport) -> sqlx::Result<bool> {
    let passed = report.passed();
    let was = sqlx::query_scalar!("select status from render.nodes where id = $1 for no key update", id);
    let quarantined = was.fetch_optional(&mut *db).await?.is_some_and(|status| status == "quarantined");
    sqlx::query!(
        r#"update render.nodes set probed_at = workflow.now(), probe = $2, updated_at = workflow.now(),
                  status = case when $3 and status = 'quarantined' then case when drained then 'draining' else 'online' end
                                else status end,
                  quarantine_reason = case when $3 then null else quarantine_reason end,
                  quarantine_until = case when $3 then null
                      when status = 'quarantined' then workflow.now() + make_interval(secs => $4) end
           where id = $1"#,
        id,
        Json(report) as _,
        passed,
        policy::PROBE_AGAIN_AFTER.as_secs_f64(),
    )
    .execute(&mut *db)
    .await?;
    if passed {
        let shown = policy::PROBED.map(str::to_owned);
        sqlx::query!("delete from render.node_blocks where node_id = $1 and code = any ($2)", id, &shown)
            .execute(&mut *db)
            .await?;
        forgive(db, id).await?;
    }
    Ok(passed && quarantined)
}

/// What a node failed at before counts no more.
async fn forgive(db: Db<'_>, id: Uuid) -> sqlx::Result<()> {
    sqlx::query!("update render.nodes set forgiven_at = workflow.now() where id = $1", id).execute(db).await?;
    Ok(())
}
