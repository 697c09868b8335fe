//! What people are told: from the event to the provider, whatever providers do, and what people may say about it.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod api;
mod bench;
mod channels;
mod fakes;
#[path = "../journey/gate.rs"]
mod gate;
#[path = "../http/jane.rs"]
#[allow(dead_code, reason = "shared")]
mod jane;
mod killed;
mod outside;
mod stage;
mod tells;
#[path = "../payments/worker.rs"]
mod worker;
#[path = "../http/world.rs"]
#[allow(dead_code, reason = "shared")]
mod world;
