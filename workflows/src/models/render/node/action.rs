//! What operators do with nodes.
//!
//! ```text
//! online ⇄ draining          drain, resume
//!    └──▶ quarantined ──▶ online          quarantine; release, or a probe that is passed
//! any ──▶ retired                         retire: its credential is worthless from that moment
//! ```

use super::sleep::Sleep;
use crate::{contracts::storage::BlobHash, models::Db};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

/// Something to be done with a node.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(tag = "action", rename_all = "snake_case", deny_unknown_fields)]
pub enum Action {
    /// It gets no more work.
    Drain {
        /// What it has is given back at once; else it finishes that.
        #[serde(default)]
        at_once: bool,
    },
    /// It gets work again after it was drained.
    Resume {},
    /// It gets no work until it passes the probe or is released.
    Quarantine {
        /// Why, 1 to 500 characters.
        reason: String,
    },
    /// It is out of quarantine, and what it failed at is forgiven.
    Release {},
    /// It is no node any more: its credential is worthless.
    Retire {},
    /// It is to ask for another credential.
    RotateCredential {},
    /// It sleeps by a schedule.
    Sleep {
        /// When.
        schedule: Sleep,
    },
    /// It sleeps no more.
    Wake {},
    /// A package that it holds stays in its cache.
    Keep {
        /// Hash of the package.
        #[schema(value_type = String)]
        package: BlobHash,
    },
    /// A package may be forgotten for room again.
    LetGo {
        /// Hash of the package.
        #[schema(value_type = String)]
        package: BlobHash,
    },
    /// A package is to be forgotten.
    Evict {
        /// Hash of the package.
        #[schema(value_type = String)]
        package: BlobHash,
    },
}

impl Action {
    /// As it stands in the audit, after `node.`.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Drain { .. } => "drain",
            Self::Resume {} => "resume",
            Self::Quarantine { .. } => "quarantine",
            Self::Release {} => "release",
            Self::Retire {} => "retire",
            Self::RotateCredential {} => "rotate_credential",
            Self::Sleep { .. } => "sleep",
            Self::Wake {} => "wake",
            Self::Keep { .. } => "keep",
            Self::LetGo { .. } => "let_go",
            Self::Evict { .. } => "evict",
        }
    }
}

/// Does it. False when the node is not in a state for it, or does not hold the package.
pub async fn act(db: Db<'_>, id: Uuid, action: &Action) -> sqlx::Result<bool> {
    match action {
        Action::Drain { at_once } => {
            change(db, id, &["online", "offline", "registering", "draining"], "draining", *at_once).await
        }
        Action::Resume {} => change(db, id, &["draining"], "online", false).await,
        Action::Quarantine { reason } => super::quarantine(db, id, reason).await,
        Action::Release {} => {
            let released = change(&mut *db, id, &["quarantined"], "online", false).await?;
            if released {
                super::forgive(db, id).await?;
            }
            Ok(released)
        }
        Action::Retire {} => {
            let any = ["registering", "online", "draining", "offline", "quarantined"];
            change(db, id, &any, "retired", true).await
        }
        Action::RotateCredential {} => {
            let asked = sqlx::query!(
                "update render.nodes set rotate_asked_at = workflow.now() where id = $1 and status <> 'retired'",
                id
            );
            Ok(asked.execute(db).await?.rows_affected() == 1)
        }
        Action::Sleep { schedule } => sleeps(db, id, Some(schedule)).await,
        Action::Wake {} => sleeps(db, id, None).await,
        Action::Keep { package } => cached(db, id, package, Some(true), "ready").await,
        Action::LetGo { package } => cached(db, id, package, Some(false), "ready").await,
        Action::Evict { package } => cached(db, id, package, Some(false), "evicting").await,
    }
}

async fn change(db: Db<'_>, id: Uuid, from: &[&str], to: &str, give_back: bool) -> sqlx::Result<bool> {
    let from: Vec<String> = from.iter().map(ToString::to_string).collect();
    let changed = sqlx::query!(
        r#"update render.nodes set status = $3, give_back = $4, quarantine_reason = null, quarantine_until = null,
                  updated_at = workflow.now()
           where id = $1 and status = any ($2)"#,
        id,
        &from,
        to,
        give_back,
    );
    Ok(changed.execute(db).await?.rows_affected() == 1)
}

async fn sleeps(db: Db<'_>, id: Uuid, schedule: Option<&Sleep>) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        "update render.nodes set sleep = $2, updated_at = workflow.now() where id = $1 and status <> 'retired'",
        id,
        schedule.map(Json) as _,
    );
    Ok(changed.execute(db).await?.rows_affected() == 1)
}

async fn cached(db: Db<'_>, id: Uuid, package: &BlobHash, keep: Option<bool>, state: &str) -> sqlx::Result<bool> {
    let changed = sqlx::query!(
        r#"update render.node_template_cache set keep = coalesce($3, keep), state = $4
           where node_id = $1 and package_sha256 = $2"#,
        id,
        package.as_str(),
        keep,
        state,
    );
    Ok(changed.execute(db).await?.rows_affected() == 1)
}
