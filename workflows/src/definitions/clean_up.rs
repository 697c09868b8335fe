//! A rule of a tenant about what is to be removed, carried out.
//!
//! ```text
//!   plan ──dry run──────────────────────────────▶ done          objects: drain_deletions, after the commit
//!     ├──beyond the guard──▶ wait ──approved──▶ batches of 500 ──▶ done
//!     └──within it─────────────────────────────▶    │
//!                           wait ──rejected, a week──┴──cancelled──▶ cancelled
//! ```

use super::events::{self, Event};
use crate::models::{
    Db, Role, Scope,
    file_mgr::{
        cleanup_run::{self, Plan},
        cleanup_schedule::{self, Rule},
    },
    identity::audit::{self, Entry},
};
use flatrender_engine::{
    Context, Failure, Workflow,
    schedules::{ScheduleError, Terms},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::time::Duration;
use uuid::Uuid;

/// How long somebody has to approve what is beyond the guard.
const PATIENCE: Duration = Duration::from_secs(7 * 86_400);
/// How long after its time a rule is carried out that nobody was there for: it may be one by the month, or the year. Several times make one run.
const CATCH_UP: Duration = Duration::from_secs(366 * 86_400);
/// The signal that decides.
pub const VERDICT: &str = "verdict";

/// What somebody else says of a plan beyond the guard.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Verdict {
    /// Whether it goes on.
    pub approved: bool,
}

/// Removes what a rule meant when the run was planned, as far as the rule means it still when its turn comes: a rule that is changed
/// meanwhile spares more, never less. Each batch is one commit: files, counts, quota, queue, place in the plan. A cancellation is heard
/// between batches.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct CleanUp {
    /// The rule.
    pub rule_id: Uuid,
    /// The run that was begun for it; none: the clock fired, and it is begun here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run_id: Option<Uuid>,
}

/// What was removed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// `done`, `cancelled`, or `gone` when the rule is.
    pub state: String,
    /// Files that were to go.
    pub planned: i64,
    /// Files that are gone.
    pub deleted: i64,
    /// Their bytes.
    pub bytes: i64,
    /// Files that stayed.
    pub skipped: i64,
}

impl CleanUp {
    /// The schedule of a rule.
    ///
    /// # Errors
    /// When the rule is none that the engine takes; its cron expression is looked at when the schedule is made.
    pub fn by(rule_id: Uuid, terms: &cleanup_schedule::Terms) -> Result<Terms, ScheduleError> {
        Ok(Terms {
            time_zone: terms.time_zone.clone(),
            enabled: terms.enabled,
            catch_up_window: CATCH_UP,
            ..Terms::of(format!("clean_up:{rule_id}"), terms.cron.clone(), &Self { rule_id, run_id: None })?
        })
    }
}

impl Workflow for CleanUp {
    const NAME: &'static str = "clean_up";
    type Output = Report;

    async fn run(self, cx: &Context) -> Result<Report, Failure> {
        let Some(plan) = self.plan(cx).await? else { return Ok(Report::nothing("gone")) };
        if plan.dry_run {
            return close(cx, &plan, "done").await;
        }
        let may = match &plan.guard {
            Some(_) => approved(cx).await,
            None => Ok(true),
        };
        let emptied = match may {
            Ok(true) => self.remove(cx, &plan).await,
            Ok(false) => Ok(false),
            Err(failure) => Err(failure),
        };
        match emptied {
            Ok(true) => close(cx, &plan, "done").await,
            Ok(false) => close(cx, &plan, "cancelled").await,
            Err(failure) => {
                close(cx, &plan, if failure.is_cancelled() { "cancelled" } else { "failed" }).await?;
                Err(failure)
            }
        }
    }
}

impl CleanUp {
    async fn plan(&self, cx: &Context) -> Result<Option<Plan>, Failure> {
        let (tenant_id, workflow_run_id, Self { rule_id, run_id }) = (cx.tenant_id(), cx.run_id(), self.clone());
        cx.step("plan", async move |db: Db<'_>| {
            admin(tenant_id, db, async |db: Db<'_>| {
                let Some(rule) = cleanup_schedule::find(&mut *db, tenant_id, rule_id).await? else { return Ok(None) };
                let run_id = match run_id {
                    Some(id) => id,
                    None => cleanup_run::open(&mut *db, &rule, rule.terms.dry_run, None).await?,
                };
                cleanup_run::note_workflow(&mut *db, run_id, workflow_run_id).await?;
                let plan = cleanup_run::plan(&mut *db, &rule, run_id, cleanup_run::MOST).await?;
                if plan.guard.is_some() && !plan.dry_run {
                    ask(cx, db, &rule, &plan).await?;
                }
                Ok(Some(plan))
            })
            .await
        })
        .await
    }

    /// Removes all that was planned; false when somebody cancelled it in between.
    async fn remove(&self, cx: &Context, plan: &Plan) -> Result<bool, Failure> {
        let (tenant_id, rule_id, run_id) = (cx.tenant_id(), self.rule_id, plan.run_id);
        for batch in 1.. {
            if cx.cancelled() {
                return Ok(false);
            }
            let dealt = cx
                .step(&format!("batch {batch}"), async move |db: Db<'_>| {
                    admin(tenant_id, db, async |db: Db<'_>| {
                        match cleanup_schedule::find(&mut *db, tenant_id, rule_id).await? {
                            Some(rule) if rule.terms.dry_run => Ok(None),
                            Some(rule) => Ok(Some(cleanup_run::remove_batch(db, &rule, run_id).await?)),
                            None => Ok(Some(0)),
                        }
                    })
                    .await
                })
                .await?;
            match dealt {
                // Its rule only lists by now.
                None => return Ok(false),
                Some(dealt) if dealt < cleanup_run::BATCH as u64 => break,
                Some(_) => {}
            }
        }
        Ok(true)
    }
}

/// Tells who manages the tenant that a plan beyond the guard waits for them.
async fn ask(cx: &Context, db: Db<'_>, rule: &Rule, plan: &Plan) -> Result<(), Failure> {
    let data = json!({"object": "cleanup_run", "rule": rule.terms.name, "files": plan.count, "bytes": plan.bytes, "reason": plan.guard});
    let (tenant_id, kind, subject, occurred_at) = (cx.tenant_id(), "cleanup.waiting", plan.run_id, cx.now());
    events::happened(&cx.client()?, db, Event { tenant_id, kind, subject, user_id: None, data, occurred_at }).await?;
    Ok(())
}

/// Waits for somebody else's word; no word within a week is a no.
async fn approved(cx: &Context) -> Result<bool, Failure> {
    let verdict: Option<Verdict> = cx.signal_within("approval", VERDICT, PATIENCE).await?;
    Ok(verdict.is_some_and(|verdict| verdict.approved))
}

async fn close(cx: &Context, plan: &Plan, state: &'static str) -> Result<Report, Failure> {
    let (tenant_id, run_id) = (cx.tenant_id(), plan.run_id);
    cx.step("report", async move |db: Db<'_>| {
        admin(tenant_id, db, async |db: Db<'_>| {
            let Some(run) = cleanup_run::close(&mut *db, tenant_id, run_id, state).await? else {
                return Ok(Report::nothing("gone"));
            };
            if !run.dry_run {
                let reason =
                    format!("{} files, {} bytes; {} stayed", run.deleted_count, run.deleted_bytes, run.skipped_count);
                let entry = Entry {
                    tenant_id,
                    actor: "system",
                    action: "cleanup.run",
                    object: &format!("cleanup_run:{run_id}"),
                    reason: Some(&reason),
                    before: None,
                    after: None,
                    ip: None,
                    request_id: None,
                };
                Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await?;
                audit::record(db, &entry).await?;
            }
            Ok(Report {
                state: run.state,
                planned: run.planned_count,
                deleted: run.deleted_count,
                bytes: run.deleted_bytes,
                skipped: run.skipped_count,
            })
        })
        .await
    })
    .await
}

/// What is looked at belongs to several services.
async fn admin<T>(
    tenant_id: Uuid,
    db: Db<'_>,
    work: impl AsyncFnOnce(Db<'_>) -> Result<T, Failure>,
) -> Result<T, Failure> {
    Scope::tenant(Role::Admin, tenant_id).within(db, work).await
}

impl Report {
    fn nothing(state: &str) -> Self {
        Self { state: state.to_owned(), planned: 0, deleted: 0, bytes: 0, skipped: 0 }
    }
}
