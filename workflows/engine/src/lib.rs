#![cfg_attr(feature = "store", doc = include_str!("../README.md"))]
//!
//! # The crate
//!
//! A workflow is an `async fn` whose steps, activities and sleeps are recorded under explicit keys; after a
//! crash it is run again from the top and takes every recorded outcome from the record. This crate knows
//! nothing of video. It has three faces: [`workflow`] towards a definition (with [`compensation`] and [`signals`]),
//! [`activity`] towards a handler, [`client`] towards whoever starts and watches runs. Beside them stand [`worker`], which
//! does the work, [`schedules`], [`operations`] for operators, [`schema`] and [`testing`], and with the feature `http` `webhooks`. Everything but [`activity`],
//! [`failure`], [`trace`] and the worker's side of [`remote`] needs the feature `store`.

pub mod activity;
pub mod failure;
pub mod remote;
pub mod trace;

pub use activity::{Activity, Attempt, AttemptKeeper, Handler, Labels, LeasedTask, Policy, Progress, Standing};
pub use failure::Failure;
pub use trace::TraceContext;

#[cfg(feature = "store")]
pub mod automaton;
#[cfg(feature = "store")]
mod backend;
#[cfg(feature = "store")]
mod bell;
#[cfg(feature = "store")]
mod children;
#[cfg(feature = "store")]
pub mod client;
#[cfg(feature = "store")]
pub mod compensation;
#[cfg(feature = "store")]
mod executor;
#[cfg(all(feature = "store", not(feature = "failpoints")))]
mod failpoint;
#[cfg(feature = "failpoints")]
pub mod failpoint;
#[cfg(feature = "store")]
mod handover;
#[cfg(feature = "store")]
mod jobs;
#[cfg(feature = "store")]
mod leases;
#[cfg(feature = "store")]
mod ledger;
#[cfg(feature = "store")]
pub mod measures;
#[cfg(feature = "store")]
pub mod operations;
#[cfg(feature = "store")]
pub mod payload;
#[cfg(feature = "store")]
mod pump;
#[cfg(feature = "store")]
mod record;
#[cfg(feature = "store")]
mod residents;
#[cfg(feature = "store")]
mod retry;
#[cfg(feature = "store")]
pub mod schedules;
#[cfg(feature = "store")]
pub mod schema;
#[cfg(feature = "store")]
mod services;
#[cfg(feature = "store")]
pub mod signals;
#[cfg(feature = "store")]
mod slots;
#[cfg(feature = "store")]
mod store;
#[cfg(feature = "store")]
mod sweeper;
#[cfg(feature = "store")]
pub mod testing;
#[cfg(feature = "store")]
mod wakeup;
#[cfg(feature = "http")]
pub mod webhooks;
#[cfg(feature = "store")]
pub mod worker;
#[cfg(feature = "store")]
pub mod workflow;

#[cfg(feature = "store")]
pub use {
    client::{Client, Debounce, Enqueued, Excess, JobOptions, Launched, Scope, Started, Throttle, Unique, Until},
    payload::Payloads,
    signals::Delivery,
    slots::Warm,
    worker::Worker,
    workflow::{Context, Workflow},
};
