//! Whether a node may be given work, and of which templates: the one question whoever places tasks asks about a node.

use super::sleep::Sleep;
use crate::{contracts::storage::BlobHash, models::Db};
use chrono::{DateTime, Utc};
use flatrender_engine::Labels;
use sqlx::types::Json;
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// What a node may be given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Whether it may be given work now.
    pub may_work: bool,
    /// Why not, for people; none when it may.
    pub why_not: Option<String>,
    /// Only this tenant's work, when set.
    pub tenant_id: Option<Uuid>,
    /// The group of nodes it belongs to.
    pub pool: String,
    /// Every label it offers: renderer, versions, fonts, plug-ins, and what its token says of it.
    pub labels: Labels,
    /// Packages whose tasks had better go elsewhere: they failed on it. A package is a version of a template.
    pub blocked_packages: BTreeSet<BlobHash>,
    /// Packages it holds, with their bytes.
    pub held_packages: BTreeMap<BlobHash, u64>,
    /// The package it used last, within the last hour.
    pub warm: Option<BlobHash>,
}

/// What is said of a node. None when there is no such node.
pub async fn standing(db: Db<'_>, node_id: Uuid) -> sqlx::Result<Option<Standing>> {
    Ok(standings(db, Some(node_id)).await?.pop().map(|known| known.standing))
}

/// A node that was heard of within the last day, as [`standings`] tells of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Known {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Tasks it does at a time.
    pub slots: u32,
    /// Whether it was heard of within the last minute.
    pub present: bool,
    /// What it may be given.
    pub standing: Standing,
}

/// What is said of every node that was heard of within the last day and is not retired, or of the one that is named.
pub async fn standings(db: Db<'_>, node_id: Option<Uuid>) -> sqlx::Result<Vec<Known>> {
    let rows = sqlx::query_as!(
        Row,
        r#"select id, name, greatest(slots, case when jsonb_typeof(capabilities -> 'slots') = 'number'
                                                then least((capabilities ->> 'slots')::numeric, 256)::int end) as "slots!",
                  status, is_full, tenant_id, pool, quarantine_reason, sleep as "sleep: Json<Sleep>",
                  (offers || labels) as "labels!: Json<Labels>", workflow.now() as "now!",
                  last_seen_at > workflow.now() - interval '1 minute' as "present!",
                  array (select package_sha256 from render.node_blocks b
                         where b.node_id = n.id and blocked_until > workflow.now()) as "blocked!",
                  array (select package_sha256 from render.node_template_cache c
                         where c.node_id = n.id and state = 'ready' order by last_used_at desc) as "held!",
                  array (select bytes from render.node_template_cache c
                         where c.node_id = n.id and state = 'ready' order by last_used_at desc) as "bytes!",
                  (select max(last_used_at) from render.node_template_cache c
                   where c.node_id = n.id and state = 'ready') as used_at
           from render.nodes n
           where id = $1
              or $1::uuid is null and status <> 'retired' and last_seen_at > workflow.now() - interval '1 day'"#,
        node_id,
    )
    .fetch_all(db)
    .await?;
    Ok(rows.into_iter().map(Row::known).collect())
}

struct Row {
    id: Uuid,
    name: String,
    slots: i32,
    status: String,
    is_full: bool,
    tenant_id: Option<Uuid>,
    pool: String,
    quarantine_reason: Option<String>,
    sleep: Option<Json<Sleep>>,
    labels: Json<Labels>,
    now: DateTime<Utc>,
    present: bool,
    blocked: Vec<String>,
    held: Vec<String>,
    bytes: Vec<i64>,
    used_at: Option<DateTime<Utc>>,
}

impl Row {
    fn known(self) -> Known {
        let (id, name, slots, present) = (self.id, self.name.clone(), self.slots.unsigned_abs(), self.present);
        Known { id, name, slots, present, standing: self.judged() }
    }

    fn judged(self) -> Standing {
        let why_not = self.why_not();
        // The table takes nothing else than hashes.
        let hash = |text: &String| text.parse::<BlobHash>().ok();
        let recently = self.used_at.is_some_and(|at| self.now - at < chrono::TimeDelta::hours(1));
        Standing {
            may_work: why_not.is_none(),
            why_not,
            tenant_id: self.tenant_id,
            pool: self.pool,
            labels: self.labels.0,
            blocked_packages: self.blocked.iter().filter_map(hash).collect(),
            warm: self.held.first().filter(|_| recently).and_then(hash),
            held_packages: self
                .held
                .iter()
                .zip(self.bytes)
                .filter_map(|(text, bytes)| Some((hash(text)?, bytes.unsigned_abs())))
                .collect(),
        }
    }

    fn why_not(&self) -> Option<String> {
        match self.status.as_str() {
            // Whoever asks for work is heard of.
            "online" | "offline" | "registering" => {
                let asleep = self.sleep.as_ref().and_then(|sleep| sleep.0.asleep_at(self.now));
                let asleep = asleep
                    .map(|until| format!("it sleeps by its schedule until {}", until.format("%Y-%m-%d %H:%M UTC")));
                asleep.or_else(|| self.is_full.then(|| "its disk is too full for more work".to_owned()))
            }
            "draining" => Some("an operator has it drained".to_owned()),
            "quarantined" => {
                let reason = self.quarantine_reason.as_deref().unwrap_or("no reason was given");
                Some(format!("it is in quarantine: {reason}"))
            }
            _ => Some("it is retired".to_owned()),
        }
    }
}
