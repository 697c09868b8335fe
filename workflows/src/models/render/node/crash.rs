//! Crashes of renderers on nodes: written down once an attempt, and what follows for the node.
//!
//! ```text
//! failure ─▶ node_crashes ─┬─ 2 in a row on this template in 6 h ─────▶ node_blocks, for 6 h or until it succeeds there
//!                          └─ 3 on 2 templates or more in 30 min ─────▶ quarantined, until a probe or an operator
//! ```
//! A template that fails on another node, too, speaks against itself: it counts for a quarantine only as one of four.
//! What was before the node's last passed probe is forgiven. A block sends work elsewhere, it does not stop it: a node gets what
//! failed on it while no other node may have it (`flatrender_dispatch`).

use super::policy::{self, Weight};
use crate::{contracts::storage::BlobHash, models::Db};
use chrono::{DateTime, Utc};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Longest tail of a log that is kept, in bytes.
const TAIL_BYTES: usize = 16 * 1024;

/// A crash, as an attempt's report tells it.
#[derive(Debug, Clone)]
pub struct NewCrash<'a> {
    /// The node.
    pub node_id: Uuid,
    /// The enrolment that the report came under.
    pub epoch: i64,
    /// Whose render it was.
    pub tenant_id: Uuid,
    /// The task.
    pub task_no: i64,
    /// The attempt; it has one crash.
    pub lease_token: Uuid,
    /// The failure's code; nothing is written down for what [`policy::weigh`] does not know.
    pub code: &'a str,
    /// The render.
    pub render_job_id: Option<Uuid>,
    /// The template's package.
    pub package: Option<&'a BlobHash>,
    /// The first frame that is missing.
    pub frame: Option<u32>,
    /// How the renderer ended.
    pub exit_code: Option<i32>,
    /// The same for crashes that look the same, as the driver tells.
    pub signature: &'a str,
    /// What it said last.
    pub log: &'a str,
    /// Whether the task is tried again.
    pub goes_on: bool,
}

/// What a crash led to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Consequence {
    /// It is written down, and no more.
    Noted,
    /// The node gets no more of this template for a time.
    Blocked,
    /// The node gets no work until it has proven itself.
    Quarantined,
}

/// Writes a crash down and does what the policy says. None when it is none, or was written down before: repeating is harmless.
pub async fn record(db: Db<'_>, new: &NewCrash<'_>) -> sqlx::Result<Option<Consequence>> {
    let Some((kind, weight)) = policy::weigh(new.code) else { return Ok(None) };
    if weight == Weight::Blocks && !new.goes_on {
        // No other node can do better: it is the template that lacks something.
        return Ok(None);
    }
    let package = new.package.map(BlobHash::as_str);
    let counts = weight != Weight::Noted;
    // The node's row is the lock: two crashes that come together see each other.
    let locked = sqlx::query_scalar!("select id from render.nodes where id = $1 for no key update", new.node_id);
    if locked.fetch_optional(&mut *db).await?.is_none() {
        return Ok(None);
    }
    let inserted = sqlx::query!(
        r#"insert into render.node_crashes
               (id, node_id, tenant_id, epoch, task_no, lease_token, code, render_job_id, package_sha256, template_version_id,
                frame, kind, exit_code, counts, signature, log_tail, occurred_at, recovered_at, recovery)
           select $1, $2, $3, $4, $5, $6, $7, $8, $9, (select project_version_id from render.render_jobs where id = $8),
                  $10, $11, $12, $13, $14, $15, workflow.now(), workflow.now(), $16
           on conflict (lease_token) do nothing"#,
        Uuid::now_v7(),
        new.node_id,
        new.tenant_id,
        new.epoch,
        new.task_no,
        new.lease_token,
        new.code.get(..new.code.floor_char_boundary(128)),
        new.render_job_id,
        package,
        new.frame.and_then(|frame| i32::try_from(frame).ok()),
        kind,
        new.exit_code,
        counts,
        hex::encode(Sha256::digest(format!("{}\n{}", new.code, new.signature))),
        tail(new.log),
        if new.goes_on { "requeued" } else { "gave_up" },
    )
    .execute(&mut *db)
    .await?;
    if inserted.rows_affected() == 0 {
        return Ok(None);
    }
    let tally = tally(db, new.node_id, package).await?;
    let mut consequence = Consequence::Noted;
    if let Some(package) = package
        && (weight == Weight::Blocks || counts && tally.on_package >= policy::BLOCK_AFTER)
    {
        block(db, new.node_id, package, new.code).await?;
        consequence = Consequence::Blocked;
    }
    let (failures, templates) = policy::QUARANTINE_AFTER;
    let own = tally.failures >= failures && tally.templates >= templates;
    let often = own || tally.all_templates >= policy::QUARANTINE_AFTER_TEMPLATES;
    if weight == Weight::Quarantines || counts && often {
        let reason = match weight {
            Weight::Quarantines => new.code.to_owned(),
            _ if own => format!("{} failures on {} templates, the last {}", tally.failures, tally.templates, new.code),
            _ => format!("failures on {} templates, the last {}", tally.all_templates, new.code),
        };
        super::quarantine(db, new.node_id, &reason).await?;
        sqlx::query!("update render.node_crashes set recovery = 'quarantined' where lease_token = $1", new.lease_token)
            .execute(db)
            .await?;
        consequence = Consequence::Quarantined;
    }
    Ok(Some(consequence))
}

/// A node has done all that was asked of it with a package: its crashes there are overcome, and it is blocked no more.
pub async fn overcome(db: Db<'_>, node_id: Uuid, package: &BlobHash) -> sqlx::Result<()> {
    sqlx::query!(
        "with lifted as (delete from render.node_blocks where node_id = $1 and package_sha256 = $2)
         update render.node_crashes set overcome_at = workflow.now()
         where node_id = $1 and package_sha256 = $2 and counts and overcome_at is null",
        node_id,
        package.as_str(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// Whether a failure's code stands for a crash.
pub fn is_crash(code: &str) -> bool {
    policy::weigh(code).is_some()
}

struct Tally {
    on_package: i64,
    /// Of late, on templates that failed on no other node.
    failures: i64,
    templates: i64,
    /// Of late, wherever else they failed.
    all_templates: i64,
}

async fn tally(db: Db<'_>, node_id: Uuid, package: Option<&str>) -> sqlx::Result<Tally> {
    sqlx::query_as!(
        Tally,
        r#"select count(*) filter (where package_sha256 = $2 and overcome_at is null) as "on_package!",
                  count(*) filter (where recent and not shared) as "failures!",
                  count(distinct package_sha256) filter (where recent and not shared) as "templates!",
                  count(distinct package_sha256) filter (where recent) as "all_templates!"
           from (
               select c.package_sha256, c.overcome_at, c.occurred_at > workflow.now() - make_interval(secs => $4) as recent,
                      exists (select from render.node_crashes o
                              where o.package_sha256 = c.package_sha256 and o.node_id <> c.node_id and o.counts
                                and o.overcome_at is null and o.occurred_at > workflow.now() - make_interval(secs => $4)) as shared
               from render.node_crashes c
               where c.node_id = $1 and c.counts and c.occurred_at > workflow.now() - make_interval(secs => $3)
                 and c.occurred_at > coalesce((select forgiven_at from render.nodes where id = $1), '-infinity')
           ) own"#,
        node_id,
        package,
        policy::BLOCKED_FOR.as_secs_f64(),
        policy::QUARANTINE_WITHIN.as_secs_f64(),
    )
    .fetch_one(db)
    .await
}

async fn block(db: Db<'_>, node_id: Uuid, package: &str, code: &str) -> sqlx::Result<()> {
    sqlx::query!(
        r#"insert into render.node_blocks (node_id, package_sha256, code, blocked_at, blocked_until)
           values ($1, $2, $3, workflow.now(), workflow.now() + make_interval(secs => $4))
           on conflict (node_id, package_sha256) do update
           set code = excluded.code, blocked_at = excluded.blocked_at, blocked_until = excluded.blocked_until"#,
        node_id,
        package,
        code,
        policy::BLOCKED_FOR.as_secs_f64(),
    )
    .execute(db)
    .await?;
    Ok(())
}

/// A crash that was written down.
#[derive(Debug, Clone)]
pub struct Crash {
    /// Its id, by time.
    pub id: Uuid,
    /// Code of the failure.
    pub code: String,
    /// What kind of crash it is.
    pub kind: String,
    /// Whether it speaks against the node.
    pub counts: bool,
    /// Equal for equal crashes.
    pub signature: String,
    /// How often this signature was seen on all nodes in the last 30 days.
    pub seen: i64,
    /// Whose render it was.
    pub tenant_id: Option<Uuid>,
    /// The render.
    pub render_job_id: Option<Uuid>,
    /// The template's package.
    pub package_sha256: Option<String>,
    /// First frame that was missing.
    pub frame: Option<i32>,
    /// How the renderer ended.
    pub exit_code: Option<i32>,
    /// What it said last.
    pub log_tail: String,
    /// When.
    pub occurred_at: DateTime<Utc>,
    /// What was done about it.
    pub recovery: Option<String>,
}

/// Crashes of a node, newest first, those before `before`.
pub async fn list(db: Db<'_>, node_id: Uuid, before: Option<Uuid>, limit: i64) -> sqlx::Result<Vec<Crash>> {
    sqlx::query_as!(
        Crash,
        r#"select id, code, kind, counts, signature, tenant_id, render_job_id, package_sha256, frame, exit_code, log_tail,
                  occurred_at, recovery,
                  (select count(*) from render.node_crashes o where o.signature = c.signature
                   and o.occurred_at > workflow.now() - interval '30 days') as "seen!"
           from render.node_crashes c
           where node_id = $1 and ($2::uuid is null or id < $2)
           order by id desc limit $3"#,
        node_id,
        before,
        limit,
    )
    .fetch_all(db)
    .await
}

/// The end of a log, without what no column takes.
fn tail(log: &str) -> String {
    let log = log.replace('\0', "");
    log[log.ceil_char_boundary(log.len().saturating_sub(TAIL_BYTES))..].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_end_of_a_long_log_is_kept_and_no_nul() {
        let log = format!("first\0{}", "ش".repeat(20_000));
        let kept = tail(&log);
        assert!(kept.len() <= TAIL_BYTES && kept.chars().all(|c| c == 'ش'), "{}", kept.len());
    }
}
