//! The driver and the agent against real processes and a real server, all of them ours and all of them faulty.

#[path = "../../examples/fake_aerender/picture.rs"]
mod picture;

mod agent;
mod driver;
mod endings;
mod inputs;
mod ledger;
mod restart;
mod server;
mod world;
