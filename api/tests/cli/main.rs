//! The program as people meet it: its command line, and the private PostgreSQL behind it.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on panics")]

mod compose;
mod fake;
mod lines;
mod operations;
mod postgres;
mod up;
