//! The adapters of payment gateways against servers that speak their protocols, and fail as they do.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod contract;
#[allow(dead_code, reason = "shared")]
mod fakes;
mod library;
mod manual;
mod mix;
mod real;
mod secrets;
mod stripe;
mod world;
mod zarinpal;
