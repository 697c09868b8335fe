//! Uploaded files, folders and what leads to them.

pub mod cleanup;
pub mod content;
pub mod files;
pub mod folders;
pub mod probe;
pub mod public_file;
pub mod share;
pub mod share_links;
pub mod trash;
mod tree;
pub mod upload;
pub mod uploads;
