//! Templates.

pub mod project;
