//! Nodes as operators see them.

use super::sleep::Sleep;
use crate::{contracts::node::ProbeReport, models::Db};
use chrono::{DateTime, Utc};
use flatrender_engine::Labels;
use sqlx::types::Json;
use uuid::Uuid;

/// A node, and how it fares.
#[derive(Debug, Clone)]
pub struct Overview {
    /// Its id, by the time of its first enrolment.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its group.
    pub pool: String,
    /// `registering`, `online`, `draining`, `offline`, `quarantined` or `retired`.
    pub status: String,
    /// Only this tenant's work, when set.
    pub tenant_id: Option<Uuid>,
    /// Why it is in quarantine.
    pub quarantine_reason: Option<String>,
    /// When it sleeps.
    pub sleep: Option<Json<Sleep>>,
    /// What its token says of it.
    pub labels: Json<Labels>,
    /// What it offers, but fonts and plug-ins.
    pub offers: Json<Labels>,
    /// Version of the agent.
    pub agent_version: Option<String>,
    /// Main number of its After Effects.
    pub ae_version: Option<String>,
    /// Operating system and architecture.
    pub os: Option<String>,
    /// Processors.
    pub cpu: Option<i32>,
    /// MiB of memory.
    pub ram_mb: Option<i64>,
    /// Name of its graphics processor.
    pub gpu: Option<String>,
    /// Tasks it takes at a time.
    pub slots: i32,
    /// Fonts it has.
    pub fonts_count: Option<i32>,
    /// Equal for equal sets of fonts.
    pub fonts_hash: Option<String>,
    /// MiB that are free where it works.
    pub disk_free_mb: Option<i64>,
    /// Bytes of its cache.
    pub cache_bytes: i64,
    /// Bytes its cache may have.
    pub cache_limit: Option<i64>,
    /// Failures in the last day that speak against it.
    pub crashes: i64,
    /// Templates that it is kept from now.
    pub blocks: i64,
    /// When it was heard of.
    pub last_seen_at: DateTime<Utc>,
    /// When it was enrolled first.
    pub created_at: DateTime<Utc>,
}

/// Nodes, newest first: those enrolled before `before`, when given; one of them, when `id` is given.
pub async fn list(db: Db<'_>, id: Option<Uuid>, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Overview>> {
    sqlx::query_as!(
        Overview,
        r#"select id, name, pool, status, tenant_id, quarantine_reason, sleep as "sleep: Json<Sleep>",
                  labels as "labels: Json<Labels>",
                  (select coalesce(jsonb_object_agg(key, value), '{}') from jsonb_each(offers)
                   where key not like 'font:%' and key not like 'plugin:%') as "offers!: Json<Labels>",
                  agent_version, ae_version, os, cpu, ram_mb, gpu, slots, fonts_count, fonts_hash, disk_free_mb, cache_bytes,
                  cache_limit, last_seen_at, created_at,
                  (select count(*) from render.node_crashes c where c.node_id = n.id and counts
                   and occurred_at > workflow.now() - interval '1 day') as "crashes!",
                  (select count(*) from render.node_blocks b where b.node_id = n.id and blocked_until > workflow.now())
                      as "blocks!"
           from render.nodes n
           where ($1::uuid is null or id = $1) and ($2::uuid is null or id < $2)
           order by id desc limit $3"#,
        id,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The id of a node that is called so.
pub async fn called(db: Db<'_>, name: &str) -> sqlx::Result<Option<Uuid>> {
    sqlx::query_scalar!("select id from render.nodes where name = $1", name).fetch_optional(db).await
}

/// What a node found out about itself.
#[derive(Debug, Clone)]
pub struct Probed {
    /// When it said so.
    pub at: DateTime<Utc>,
    /// Each thing that was looked at.
    pub report: Json<ProbeReport>,
}

/// What the last probe of a node found; none when it has rendered none.
pub async fn probed(db: Db<'_>, id: Uuid) -> sqlx::Result<Option<Probed>> {
    sqlx::query_as!(
        Probed,
        r#"select probed_at as "at!", probe as "report!: Json<ProbeReport>" from render.nodes
           where id = $1 and probed_at is not null and probe is not null"#,
        id,
    )
    .fetch_optional(db)
    .await
}

/// A package that a node holds, as it said last.
#[derive(Debug, Clone)]
pub struct Held {
    /// Its hash.
    pub package: String,
    /// Bytes it takes.
    pub bytes: i64,
    /// `fetching`, `ready` or `evicting`.
    pub state: String,
    /// Whether an operator wants it to stay.
    pub keep: bool,
    /// How often it was found there.
    pub hits: i64,
    /// When it was used last.
    pub last_used_at: DateTime<Utc>,
}

/// What a node holds, at most `limit` packages, those that were used last first.
pub async fn held(db: Db<'_>, id: Uuid, limit: i64) -> sqlx::Result<Vec<Held>> {
    sqlx::query_as!(
        Held,
        r#"select package_sha256 as package, bytes, state, keep, hits, last_used_at from render.node_template_cache
           where node_id = $1 order by last_used_at desc, package_sha256 limit $2"#,
        id,
        limit,
    )
    .fetch_all(db)
    .await
}
