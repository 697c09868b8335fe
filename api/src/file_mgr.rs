//! Uploaded files.

pub mod files;
pub mod probe;
pub mod upload;
