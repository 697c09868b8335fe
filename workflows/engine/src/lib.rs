//! Durable workflows on PostgreSQL.
//!
//! A workflow is an `async fn` whose steps, activities and sleeps are recorded under explicit keys; after a
//! crash it is run again from the top and takes every recorded outcome from the record. This crate knows
//! nothing of video. It has three faces: [`workflow`] towards a definition, [`activity`] towards a handler,
//! [`client`] towards whoever starts and watches runs. Everything but [`activity`] and [`failure`] needs the
//! feature `store`.

pub mod activity;
pub mod failure;

pub use activity::{Activity, Attempt, AttemptKeeper, Handler, Labels, LeasedTask, Policy, Progress, Standing};
pub use failure::Failure;
