//! Who may ask, and how the answer looks: the HTTP API and the `flatrender` program.

pub mod platform;
