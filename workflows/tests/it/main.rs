//! The definitions against a real PostgreSQL, with the world played by handlers that do what a test tells them.

#![allow(clippy::unwrap_used, reason = "a test ends where it cannot go on")]

mod corpus;
mod credits;
mod events;
mod keep_months;
mod money;
mod payments;
mod reconcile;
mod render_video;
mod room;
mod scene_snapshot;
mod world;
