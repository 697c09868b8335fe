//! Faults of every kind on real processes, with an outside ledger and a checker of invariants after each. The short form runs
//! with all tests; `make chaos` is the long one: see scripts/chaos.sh.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // A test that cannot go on ends; a scenario tells its seed.

mod checker;
mod clocks;
mod database;
mod deaths;
mod every_point;
mod fairness;
mod ledger;
mod many;
mod people;
mod postgres;
mod pressure;
mod program;
mod proxy;
mod remote;
mod retention;
mod scenario;
mod versions;
mod work;
