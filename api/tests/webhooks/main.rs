//! Webhooks as they are told: to real receivers, over real connections, with a clock that moves when a test moves it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod api;
mod crowd;
mod foreign;
#[path = "../journey/gate.rs"]
mod gate;
mod killed;
mod kit;
mod lanes;
mod pauses;
mod tells;
#[path = "../payments/worker.rs"]
mod worker;
#[allow(dead_code, reason = "other targets use the rest of it")]
#[path = "../http/world.rs"]
mod world;
