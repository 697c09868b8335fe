//! The whole platform on one machine: a private PostgreSQL, the server, its worker and a render node.
//!
//! `flatrender up` is made of these parts. Nothing here knows what a render is.

pub mod account;
pub mod data_dir;
pub mod postgres;
pub mod process;
