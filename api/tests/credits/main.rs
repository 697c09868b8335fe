//! What is sold, spent and earned: plans, coupons, credits, subscriptions, points and gifts, over HTTP and in races.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../http/jane.rs"]
#[allow(dead_code, reason = "of all tests together")]
mod jane;
mod keeping;
mod money;
mod plans;
mod races;
mod rewards;
mod subscriptions;
mod turns;
#[path = "../http/world.rs"]
#[allow(dead_code, reason = "of all tests together")]
mod world;
