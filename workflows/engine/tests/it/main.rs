//! The engine against a real PostgreSQL; each test has a database of its own.
#![allow(clippy::unwrap_used)] // A test that cannot go on ends.

mod activities;
mod cancel;
mod faults;
mod jobs;
mod kills;
mod leases;
mod runs;
mod schedules;
mod signals;
mod steps;
mod timers;
mod versions;
mod world;
