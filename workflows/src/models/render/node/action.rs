//! What operators do with nodes.
//!
//! ```text
//! online ⇄ draining                       drain, resume
//!   any ─▶ quarantined ─▶ as it was       quarantine; release, or a probe that is passed. Drained is drained, before and after
//! any ──▶ retired                         retire: its credential is worthless from that moment
//! ```

use super::sleep::Sleep;
use crate::{contracts::storage::BlobHash, models::Db};
use serde::{Deserialize, Serialize};
use sqlx::types::Json;
use utoipa::ToSchema;
use uuid::Uuid;

/// What is wrong with a reason that says nothing.
pub const BAD_REASON: &str = "a reason has 1 to 500 characters, and no control characters";

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
        #[schema(pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
        reason: String,
    },
    /// It is out of quarantine, and what it failed at is forgiven.
    Release {},
    /// It is no node any more: its credential is worthless.
    Retire {
        /// Why, 1 to 500 characters.
        #[serde(default)]
        #[schema(pattern = r"^[^\u0000-\u001f\u007f-\u009f]+$")]
        reason: Option<String>,
    },
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
        #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
        package: BlobHash,
    },
    /// A package may be forgotten for room again.
    LetGo {
        /// Hash of the package.
        #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
        package: BlobHash,
    },
    /// A package is to be forgotten.
    Evict {
        /// Hash of the package.
        #[schema(value_type = String, pattern = "^[0-9a-f]{64}$")]
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
            Self::Retire { .. } => "retire",
            Self::RotateCredential {} => "rotate_credential",
            Self::Sleep { .. } => "sleep",
            Self::Wake {} => "wake",
            Self::Keep { .. } => "keep",
            Self::LetGo { .. } => "let_go",
            Self::Evict { .. } => "evict",
        }
    }

    /// Why somebody wants it, as far as they said so.
    pub fn reason(&self) -> Option<&str> {
        match self {
            Self::Quarantine { reason } => Some(reason),
            Self::Retire { reason } => reason.as_deref(),
            _ => None,
        }
    }

    /// Whether its reason, if it has one, is 1 to 500 characters that say something.
    pub fn is_well_founded(&self) -> bool {
        self.reason().is_none_or(|reason| {
            (1..=500).contains(&reason.trim().chars().count()) && !reason.contains(char::is_control)
        })
    }
}

/// Does it. False when the node is not in a state for it, or does not hold the package.
pub async fn act(db: Db<'_>, id: Uuid, action: &Action) -> sqlx::Result<bool> {
    match action {
        Action::Drain { at_once } => {
            let drained = sqlx::query!(
                r#"update render.nodes set drained = true, give_back = $2, updated_at = workflow.now(),
                          status = case status when 'quarantined' then status else 'draining' end
                   where id = $1 and status <> 'retired'"#,
                id,
                at_once,
            );
            Ok(drained.execute(db).await?.rows_affected() == 1)
        }
        Action::Resume {} => {
            let resumed = sqlx::query!(
                r#"update render.nodes set drained = false, give_back = false, updated_at = workflow.now(),
                          status = case status when 'draining' then 'online' else status end
                   where id = $1 and drained and status <> 'retired'"#,
                id,
            );
            Ok(resumed.execute(db).await?.rows_affected() == 1)
        }
        Action::Quarantine { reason } => super::quarantine(db, id, reason).await,
        Action::Release {} => release(db, id).await,
        Action::Retire { .. } => {
            let retired = sqlx::query!(
                r#"update render.nodes set status = 'retired', give_back = true, quarantine_reason = null,
                          quarantine_until = null, updated_at = workflow.now()
                   where id = $1 and status <> 'retired'"#,
                id,
            );
            Ok(retired.execute(db).await?.rows_affected() == 1)
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

/// Ends a quarantine by an operator's word: everything is forgiven.
async fn release(db: Db<'_>, id: Uuid) -> sqlx::Result<bool> {
    let released = sqlx::query!(
        r#"update render.nodes set status = case when drained then 'draining' else 'online' end, quarantine_reason = null,
                  quarantine_until = null, updated_at = workflow.now()
           where id = $1 and status = 'quarantined'"#,
        id,
    );
    let released = released.execute(&mut *db).await?.rows_affected() == 1;
    if released {
        sqlx::query!("delete from render.node_blocks where node_id = $1", id).execute(&mut *db).await?;
        super::forgive(db, id).await?;
    }
    Ok(released)
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
