//! The engine against a real PostgreSQL; each test has a database of its own.

mod activities;
mod cancel;
mod faults;
mod kills;
mod leases;
mod runs;
mod steps;
mod timers;
mod world;
