//! Stories of the whole platform: real processes, a real PostgreSQL, the built-in renderer, HTTP from outside.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod bucket;
mod cancel;
mod crons;
mod gate;
mod kills;
mod late;
mod netns;
mod platform;
mod scenes;
#[path = "../../../activities/tests/storage/server.rs"]
mod server;
mod spoiled;
mod stills;
mod storm;
mod upkeep;
mod uploads;
mod wire;
