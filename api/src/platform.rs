//! The whole platform on one machine: a private PostgreSQL, the server, its worker and a render node.
//!
//! `flatrender up` is made of these parts. Nothing here knows what a render is.

pub mod account;
pub mod data_dir;
pub mod import;
pub mod migrate;
pub mod node_process;
pub mod owner;
pub mod parts;
pub mod postgres;
pub mod process;
pub mod samples;
pub mod stop;
pub mod up;
