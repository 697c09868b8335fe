//! The engine against a real PostgreSQL; each test has a database of its own.
#![allow(clippy::unwrap_used)] // A test that cannot go on ends.

mod activities;
mod bulk;
mod cancel;
mod chains;
mod children;
mod corpus;
mod explain;
mod faults;
mod foretold;
mod handover;
mod jobs;
mod kills;
mod kit;
mod leases;
mod limits;
mod measures;
mod operations;
mod payloads;
mod processes;
mod rehearsals;
mod remote;
mod retention;
mod runs;
mod sagas;
mod schedules;
mod select;
mod services;
mod signals;
mod steps;
mod timers;
mod traces;
mod uniqueness;
mod versions;
mod warmth;
mod world;
