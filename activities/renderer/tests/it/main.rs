//! The real program on small packages: what a driver and a customer would see.
#![allow(clippy::unwrap_used)] // A test that cannot build its world has failed.

mod broken;
mod command_line;
mod data;
mod frames;
mod packages;
mod scenes;
mod texts;
mod world;
