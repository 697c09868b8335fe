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
