//! Storage as its contract promises it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod bucket;
mod contract;
mod folder;
mod server;
mod world;
