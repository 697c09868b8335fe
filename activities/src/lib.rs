//! What touches the world: After Effects and our own renderer, ffmpeg, storage, mail, and the render node's agent.
//!
//! No SQL and no rule of the product lives here: what happens next is decided in `workflows`.

pub mod aerender;
pub mod agent;
pub mod archive;
pub mod dns;
pub mod egress;
pub mod log;
pub mod media;
pub mod message;
pub mod notify;
pub mod pay;
mod smtp;
pub mod storage;
pub mod webhook;
