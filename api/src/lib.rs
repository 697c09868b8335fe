//! Who may ask, and how the answer looks: the HTTP API and the `flatrender` program.

pub mod admission;
pub mod app;
pub mod auth;
pub mod cli;
pub mod content;
pub mod docs;
pub mod extract;
pub mod file_mgr;
pub mod health;
pub mod identity;
pub mod limits;
pub mod metrics;
pub mod nodes;
pub mod openapi;
pub mod peer;
pub mod platform;
pub mod problem;
pub mod render;
pub mod request_id;
pub mod request_log;
pub mod router;
pub mod schedules;
pub mod serve;
pub mod signed;
pub mod vault;
pub mod worker;
