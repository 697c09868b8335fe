//! The driver and the agent against real processes and a real server, all of them ours and all of them faulty.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

#[path = "../../examples/fake_aerender/afterfx.rs"]
mod afterfx;
#[path = "../../examples/fake_aerender/picture.rs"]
mod picture;

mod agent;
mod built_in;
mod by_hand;
mod cache;
mod classes;
mod driver;
mod endings;
mod inputs;
mod ledger;
mod prepare;
mod prepare_text;
mod probe;
mod pulse;
mod reel;
mod restart;
mod server;
mod stand_in;
mod transcripts;
mod verdicts;
mod world;
