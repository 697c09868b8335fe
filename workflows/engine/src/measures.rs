//! What a process counts, through the crate [`metrics`]: install any recorder, and call [`describe`] once.
//!
//! Labels are queues, kinds of workflows, activities, states, outcomes and decisions: what is written in programs. Tenants, runs, keys
//! and workers are never labels, so the number of series does not grow with use.
//!
//! Counters and histograms are of this process. Gauges marked * are of the whole database: read every 15 s by every worker, from
//! maintained counters or from a bounded number of index entries; over several processes take the maximum, not the sum.

use std::time::Duration;

/// Name, labels, and what it says.
type Entry = (&'static str, &'static str, &'static str);

const COUNTERS: &[Entry] = &[
    (ROUND_TRIPS, "", "round trips of the writers of tasks and jobs"),
    (CLAIMS, "queue", "tasks and jobs that were leased to this process"),
    (ATTEMPTS, "outcome", "attempts at activities of runs that ended here: ok, failed, timeout, cancelled, released"),
    (JOBS, "outcome", "attempts at jobs that ended here"),
    (RETRIES, "lane", "failed attempts that are to be repeated"),
    (RUNS_STARTED, "kind", "runs that this process has asked for"),
    (RUNS_ENDED, "kind, state", "runs that ended here"),
    (LOSSES, "", "attempts that this process has taken from workers that are gone or too late"),
    (RENEWALS, "", "leases that were renewed"),
    (RENEWAL_ERRORS, "", "rounds of renewals that failed"),
    (LEASES_EXPIRED, "", "leases of this process that ended before they could be renewed"),
    (SCHEDULE_FIRES, "decision", "what was decided for nominal times of schedules"),
];

const HISTOGRAMS: &[Entry] = &[
    (ROUND_TRIP_SECONDS, "lane", "how long a round trip takes"),
    (BATCH_WRITES, "lane", "writes that share a round trip and its commit"),
    (QUEUE_SECONDS, "queue", "from ready to leased"),
    (ATTEMPT_SECONDS, "activity", "how long handlers take"),
    (STEP_SECONDS, "kind", "a transaction of a step, with its record and commit"),
    (POOL_WAIT_SECONDS, "", "how long steps wait for a connection"),
    (TIMER_LATENESS_SECONDS, "", "from the end of a timer of a run in memory to its record"),
    (SCHEDULE_LAG_SECONDS, "", "from a nominal time to the start of its run"),
];

const GAUGES: &[Entry] = &[
    (RESIDENT_RUNS, "", "runs in the memory of this process"),
    (POOL_CONNECTIONS, "state", "connections of the engine itself: busy, idle"),
    (RUNS, "kind, state", "* runs there are"),
    (
        READY_TASKS,
        "queue",
        "* work that could be claimed; 10,000 stands for at least so much, of runs and of jobs each",
    ),
    (OLDEST_READY_SECONDS, "queue", "* how long the oldest of it has waited"),
    (PARKED_RUNS, "reason", "* runs that wait for somebody to resume them"),
    (HORIZON_SECONDS, "", "* age of the oldest snapshot that keeps vacuum from its work; who holds it is in the log"),
];

pub(crate) const ROUND_TRIPS: &str = "flatrender_engine_round_trips_total";
pub(crate) const CLAIMS: &str = "flatrender_engine_claims_total";
pub(crate) const ATTEMPTS: &str = "flatrender_engine_attempts_total";
pub(crate) const JOBS: &str = "flatrender_engine_jobs_total";
pub(crate) const RETRIES: &str = "flatrender_engine_retries_total";
pub(crate) const RUNS_STARTED: &str = "flatrender_engine_runs_started_total";
pub(crate) const RUNS_ENDED: &str = "flatrender_engine_runs_ended_total";
pub(crate) const LOSSES: &str = "flatrender_engine_losses_total";
pub(crate) const RENEWALS: &str = "flatrender_engine_renewals_total";
pub(crate) const RENEWAL_ERRORS: &str = "flatrender_engine_renewal_errors_total";
pub(crate) const LEASES_EXPIRED: &str = "flatrender_engine_leases_expired_total";
pub(crate) const SCHEDULE_FIRES: &str = "flatrender_engine_schedule_fires_total";
pub(crate) const ROUND_TRIP_SECONDS: &str = "flatrender_engine_round_trip_seconds";
pub(crate) const BATCH_WRITES: &str = "flatrender_engine_batch_writes";
pub(crate) const QUEUE_SECONDS: &str = "flatrender_engine_queue_seconds";
pub(crate) const ATTEMPT_SECONDS: &str = "flatrender_engine_attempt_seconds";
pub(crate) const STEP_SECONDS: &str = "flatrender_engine_step_seconds";
pub(crate) const POOL_WAIT_SECONDS: &str = "flatrender_engine_pool_wait_seconds";
pub(crate) const TIMER_LATENESS_SECONDS: &str = "flatrender_engine_timer_lateness_seconds";
pub(crate) const SCHEDULE_LAG_SECONDS: &str = "flatrender_engine_schedule_lag_seconds";
pub(crate) const RESIDENT_RUNS: &str = "flatrender_engine_resident_runs";
pub(crate) const POOL_CONNECTIONS: &str = "flatrender_engine_pool_connections";
pub(crate) const RUNS: &str = "flatrender_engine_runs";
pub(crate) const READY_TASKS: &str = "flatrender_engine_ready_tasks";
pub(crate) const OLDEST_READY_SECONDS: &str = "flatrender_engine_oldest_ready_seconds";
pub(crate) const PARKED_RUNS: &str = "flatrender_engine_parked_runs";
pub(crate) const HORIZON_SECONDS: &str = "flatrender_engine_horizon_seconds";

/// Tells the recorder of this process what each name means.
pub fn describe() {
    COUNTERS.iter().for_each(|(name, _, text)| metrics::describe_counter!(*name, *text));
    HISTOGRAMS.iter().for_each(|(name, _, text)| metrics::describe_histogram!(*name, *text));
    GAUGES.iter().for_each(|(name, _, text)| metrics::describe_gauge!(*name, *text));
}

/// Every metric of the engine: its name, its labels, and what it says.
pub fn all() -> impl Iterator<Item = (&'static str, &'static str, &'static str)> {
    COUNTERS.iter().chain(HISTOGRAMS).chain(GAUGES).copied()
}

/// The two writers of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Writer {
    Tasks,
    Jobs,
}

impl Writer {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Tasks => "tasks",
            Self::Jobs => "jobs",
        }
    }

    /// A round trip that was answered.
    pub(crate) fn round_trip(self, took: Duration, writes: usize) {
        metrics::counter!(ROUND_TRIPS).increment(1);
        metrics::histogram!(ROUND_TRIP_SECONDS, "lane" => self.name()).record(took);
        metrics::histogram!(BATCH_WRITES, "lane" => self.name()).record(writes as f64);
    }

    /// Failed attempts of a round trip that are to be repeated.
    pub(crate) fn retries(self, count: usize) {
        if count > 0 {
            metrics::counter!(RETRIES, "lane" => self.name()).increment(count as u64);
        }
    }
}
