//! A farm in a box: the decision of production, run against invented or replayed work, to compare policies before customers do.

pub mod chance;
pub mod check;
pub mod measures;
pub mod workload;
mod yard;

pub use check::{Check, check};
pub use measures::{Estimate, Metric, Outcome};
pub use workload::{COLUMNS, Job, Parameters, invent, replay};
pub use yard::run;

use crate::Policy;

/// A policy to compare.
#[derive(Debug, Clone, PartialEq)]
pub struct Variant {
    /// As it stands in tables.
    pub name: &'static str,
    /// How it decides.
    pub policy: Policy,
    /// Seconds of work of a chunk.
    pub chunk_seconds: f64,
}

/// What is compared: each adds one idea to the one before. The first is what the others are held against.
pub fn variants(p: &Parameters) -> Vec<Variant> {
    let of = |name, policy| Variant { name, policy, chunk_seconds: p.chunk_seconds };
    vec![
        of("FIFO", Policy::fifo()),
        Variant { chunk_seconds: f64::INFINITY, ..of("FIFO, whole films", Policy::fifo()) },
        of("priority", Policy::priority()),
        of("fair", Policy::fair()),
        of("fair, affinity", Policy::fair_with_affinity()),
        of("fair, affinity, reserve", Policy::with_reserve()),
        of("production", Policy::production()),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The farm and the work that the table of the README is of, but fewer days of it.
    #[test]
    fn against_first_come_first_served_a_still_waits_a_tenth_and_tenants_get_alike() {
        const DAYS: u64 = 6;
        let p = Parameters::default();
        assert_eq!(p.load, 0.7);
        let all = variants(&p);
        let (fifo, production) = (&all[0], &all[all.len() - 1]);
        assert_eq!((fifo.name, production.name), ("FIFO", "production"));
        let (mut logs, mut jain) = (0.0, vec![]);
        for seed in 0..DAYS {
            let jobs = invent(&p, seed);
            let [fifo, production] = [fifo, production].map(|variant| run(&p, &jobs, variant, seed));
            logs += (fifo.values[&Metric::SnapshotP95] / production.values[&Metric::SnapshotP95]).ln();
            jain.push(production.values[&Metric::Jain]);
        }
        let shorter = (logs / DAYS as f64).exp();
        assert!(shorter >= 10.0, "{shorter} times shorter");
        // On a day on which nobody had to wait for others it is none.
        let jain = Estimate::of(&jain).mean;
        assert!(jain >= 0.95, "{jain}");
    }

    /// A farm on which one chunk in twenty drags on for twenty times as long as it should.
    #[test]
    fn what_is_late_is_done_twice_and_films_are_there_sooner() {
        let quiet =
            Parameters { load: 0.2, campaign_share: 0.0, bursts: (0.0, 1.0, 1.0), hours: 4.0, ..Parameters::default() };
        let p = Parameters { slow: (0.05, 20.0), ..quiet };
        let [never, late] = [f64::INFINITY, Policy::production().late_factor].map(|late_factor| {
            let policy = Policy { late_factor, ..Policy::production() };
            Variant { name: "production", policy, chunk_seconds: p.chunk_seconds }
        });
        let (mut before, mut after) = (0.0, 0.0);
        for seed in 0..6 {
            let jobs = invent(&p, seed);
            let [never, late] = [&never, &late].map(|variant| run(&p, &jobs, variant, seed));
            let frames: u64 = jobs.iter().map(|job| u64::from(job.frames)).sum();
            assert_eq!((late.frames, late.twice, never.frames), (frames, 0, frames), "each frame counts once");
            assert!(late.values[&Metric::Wasted] > never.values[&Metric::Wasted], "what was done in vain is told");
            before += never.values[&Metric::FilmDoneP95];
            after += late.values[&Metric::FilmDoneP95];
        }
        assert!(after < 0.6 * before, "{after} s instead of {before} s");
    }
}
