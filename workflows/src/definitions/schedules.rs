//! What the platform does by itself, and when: every schedule it brings along. Those of tenants are rows of theirs.
//!
//! What needs no row of its own: a node is watched by whoever serves it, every few seconds; the history of runs that are over is let go of by
//! the engine, a day or a month of it at a time; a notification to come, a subscription's next period and the end of a preview are sleeps of
//! runs of their own. Nothing is published by the hour: a template is published by whoever says so.

use super::{
    check_invariants::CheckInvariants,
    drain_deletions::DrainDeletions,
    expire_exports::ExpireExports,
    expire_uploads::ExpireUploads,
    forget_old::{ForgetOld, Old},
    keep_months::KeepMonths,
    look_after_credits::LookAfterCredits,
    publish_posts::PublishPosts,
    purge_files::PurgeFiles,
    raise_alarms::{About, RaiseAlarms},
    recheck_domains::RecheckDomains,
    reconcile::{CompareSettlements, ReconcilePayments},
    retire_months::RetireMonths,
    roll_up_usage::RollUpUsage,
    scan_orphans::ScanOrphans,
    send_digests::SendDigests,
};
use flatrender_engine::{
    Workflow,
    schedules::{CatchUp, Overlap, ScheduleError, Terms},
};

/// Every schedule of the platform, by UTC. `production`: whether what only development may have is to be found by the nightly check.
///
/// # Errors
/// Never for these.
pub fn all(production: bool) -> Result<Vec<Terms>, ScheduleError> {
    Ok(vec![
        one("ensure_partitions", "10 0 * * *", &KeepMonths { at: None })?,
        one("retire_partitions", "10 2 * * *", &RetireMonths { at: None })?,
        one("file_purge", "20 * * * *", &PurgeFiles {})?,
        one("upload_expiry", "*/15 * * * *", &ExpireUploads {})?,
        one("export_expiry", "25 * * * *", &ExpireExports {})?,
        Terms { catch_up: CatchUp::Skip, ..one("deletion_drain", "* * * * *", &DrainDeletions {})? },
        one("orphan_scan", "0 3 * * *", &ScanOrphans {})?,
        every("usage_hourly", "5 * * * *", &RollUpUsage { at: None })?,
        every("usage_daily", "30 0 * * *", &RollUpUsage { at: None })?,
        one("auth_purge", "35 * * * *", &ForgetOld { what: Old::Auth })?,
        one("idempotency_purge", "45 * * * *", &ForgetOld { what: Old::Requests })?,
        one("message_purge", "50 * * * *", &ForgetOld { what: Old::Messages })?,
        one("credit_upkeep", "*/10 * * * *", &LookAfterCredits {})?,
        Terms { catch_up: CatchUp::Skip, ..one("payment_reconciliation", "*/5 * * * *", &ReconcilePayments {})? },
        one("settlement_comparison", "0 6 * * *", &CompareSettlements::default())?,
        one("domain_recheck", "40 * * * *", &RecheckDomains {})?,
        Terms { catch_up: CatchUp::Skip, ..one("digests", "*/15 * * * *", &SendDigests {})? },
        one("cms_publish", "* * * * *", &PublishPosts {})?,
        one("privacy_due", "15 6 * * *", &RaiseAlarms { about: About::PrivacyRequests })?,
        one("schedule_watch", "*/10 * * * *", &RaiseAlarms { about: About::Schedules })?,
        one("fr_check", "0 5 * * *", &CheckInvariants { production })?,
    ])
}

/// One run for whatever was missed, none beside another.
fn one<W: Workflow>(name: &str, cron: &str, workflow: &W) -> Result<Terms, ScheduleError> {
    Terms::of(name, cron, workflow)
}

/// A run for each time, also for those that were missed.
fn every<W: Workflow>(name: &str, cron: &str, workflow: &W) -> Result<Terms, ScheduleError> {
    Ok(Terms { catch_up: CatchUp::All, overlap: Overlap::Allow, ..Terms::of(name, cron, workflow)? })
}

#[cfg(test)]
mod tests {
    use super::*;
    use flatrender_engine::schedules::Schedules;
    use std::collections::BTreeSet;

    #[test]
    fn every_schedule_has_a_name_of_its_own_and_times_to_come() {
        let all = all(true).unwrap();
        let names: BTreeSet<_> = all.iter().map(|terms| terms.name.as_str()).collect();
        assert_eq!(names.len(), all.len());
        let at = "2026-11-26T12:00:00Z".parse().unwrap();
        for terms in &all {
            assert_eq!(Schedules::preview(&terms.cron, &terms.time_zone, at, 5).unwrap().len(), 5, "{}", terms.name);
        }
    }
}
