//! Money over HTTP: paid, given back, billed, and decided about by people.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod bills;
mod by_hand;
#[path = "../../../activities/tests/pay/fakes/mod.rs"]
#[allow(dead_code, reason = "of all tests together")]
mod fakes;
#[path = "../journey/gate.rs"]
mod gate;
mod gateways;
#[path = "../http/jane.rs"]
#[allow(dead_code, reason = "of all tests together")]
mod jane;
mod killed;
mod killed_plans;
mod kills;
mod late;
mod races;
mod renewals;
mod shop;
#[path = "../credits/turns.rs"]
mod turns;
mod worker;
#[path = "../http/world.rs"]
#[allow(dead_code, reason = "of all tests together")]
mod world;
