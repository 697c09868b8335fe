//! The simulator against what mathematics says, and against itself.

use super::{
    Variant, invent,
    measures::{Outcome, mean, quantile},
    run, variants,
    workload::{Job, Parameters},
};
use crate::{Class, Policy, simulate::chance::Chance};

/// One thing that was checked.
#[derive(Debug, Clone, PartialEq)]
pub struct Check {
    /// What.
    pub name: String,
    /// What was to be expected.
    pub expected: f64,
    /// What came out.
    pub found: f64,
    /// How far from it that may be, as a share of it.
    pub tolerance: f64,
}

impl Check {
    /// Whether it is as it should be.
    pub fn holds(&self) -> bool {
        (self.found - self.expected).abs() <= self.tolerance * self.expected.abs()
    }
}

/// Probability that somebody has to wait with `servers` and this offered load (Erlang's C formula).
pub fn erlang_c(servers: u32, offered: f64) -> f64 {
    // By way of Erlang's B, which does not overflow.
    let blocked = (1..=servers).fold(1.0, |b, n| offered * b / (f64::from(n) + offered * b));
    let busy = offered / f64::from(servers);
    blocked / (1.0 - busy + busy * blocked)
}

/// A farm with servers and nothing else: no fetching, no starting, no failing.
fn servers(n: u32) -> Parameters {
    Parameters {
        nodes: n,
        hours: 0.0,
        start_seconds: (0.0, 0.0),
        open_seconds: 0.0,
        task_failure: 0.0,
        crash: 0.0,
        node_mtbf: 0.0,
        ..Parameters::default()
    }
}

/// Customers who come one after the other, and stay as long as `stay` says.
fn customers(n: usize, pause: f64, seed: u64, mut stay: impl FnMut(&mut Chance) -> f64) -> Vec<Job> {
    let (mut chance, mut at) = (Chance::of(&[seed, 9]), 0.0);
    let jobs = (0..n).map(|_| {
        at += chance.exponential(pause);
        Job {
            at,
            tenant: 0,
            class: Class::Final,
            template: 0,
            frames: 1,
            frame_seconds: stay(&mut chance),
            expected_frame_seconds: 1.0,
            package_bytes: 0,
            campaign: None,
        }
    });
    jobs.collect()
}

fn fifo() -> Variant {
    Variant { name: "FIFO", policy: Policy::fifo(), chunk_seconds: f64::INFINITY }
}

fn wait_in(p: &Parameters, jobs: &[Job]) -> Outcome {
    run(p, jobs, &fifo(), 1)
}

/// Checks with `customers` in each queue; a million gives 2 % with room to spare. `told` hears of each check as it is done.
pub fn check(n: usize, mut told: impl FnMut(&Check)) -> Vec<Check> {
    let mut checks = Vec::new();
    let mut note = |name: String, expected: f64, found: f64, tolerance: f64| {
        let check = Check { name, expected, found, tolerance };
        told(&check);
        checks.push(check);
    };
    for (c, busy) in [(1, 0.6), (4, 0.7), (8, 0.7)] {
        let offered = f64::from(c) * busy;
        let jobs = customers(n, 1.0 / offered, 11, |chance| chance.exponential(1.0));
        let outcome = wait_in(&servers(c), &jobs);
        let waits = erlang_c(c, offered);
        let free = f64::from(c) - offered;
        let kept = outcome.waits.iter().filter(|wait| **wait > 1e-9).count() as f64 / n as f64;
        note(format!("M/M/{c} at {busy}: share that waits (Erlang C)"), waits, kept, 0.02);
        note(format!("M/M/{c} at {busy}: mean wait"), waits / free, mean(&outcome.waits), 0.02);
        let p95 = (waits / 0.05).ln() / free;
        if p95 > 0.0 {
            note(format!("M/M/{c} at {busy}: p95 of the wait"), p95, quantile(&outcome.waits, 0.95), 0.02);
        }
        let work: f64 = jobs.iter().map(|job| job.frame_seconds).sum();
        note(format!("M/M/{c}: seconds of work done"), work, outcome.busy, 1e-6);
        note(format!("M/M/{c}: moments idle with work waiting"), 0.0, outcome.idle_with_work as f64, 0.0);
    }
    let jobs = customers(n, 1.0 / 0.6, 12, |_| 1.0);
    let exact = 0.6 / (2.0 * (1.0 - 0.6));
    note(
        "M/D/1 at 0.6: mean wait (Pollaczek, Khinchine)".into(),
        exact,
        mean(&wait_in(&servers(1), &jobs).waits),
        0.02,
    );
    let p = Parameters { hours: 4.0, ..Parameters::default() };
    let jobs = invent(&p, 3);
    let frames: u64 = jobs.iter().map(|job| u64::from(job.frames)).sum();
    for variant in variants(&p) {
        let outcome = run(&p, &jobs, &variant, 3);
        note(format!("{}: frames that come out", variant.name), frames as f64, outcome.frames as f64, 0.0);
        note(format!("{}: tasks done twice", variant.name), 0.0, outcome.twice as f64, 0.0);
        note(format!("{}: moments idle with work waiting", variant.name), 0.0, outcome.idle_with_work as f64, 0.0);
    }
    checks
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn erlang_c_is_that_of_the_tables() {
        // Two servers, one and a half erlang: 0.6429; one server: its load.
        assert!((erlang_c(2, 1.5) - 0.642_857).abs() < 1e-6);
        assert!((erlang_c(1, 0.3) - 0.3).abs() < 1e-12);
    }

    /// With as few customers as a build without optimisation can do in a second or two, chance alone may be 8 % off.
    #[test]
    fn the_simulator_agrees_with_mathematics_and_loses_nothing() {
        let checks = check(100_000, |_| {});
        let near = |c: &Check| Check { tolerance: if c.tolerance == 0.02 { 0.08 } else { c.tolerance }, ..c.clone() };
        let wrong: Vec<_> = checks.iter().filter(|check| !near(check).holds()).collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
        assert!(checks.len() > 30);
    }
}
