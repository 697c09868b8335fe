//! Files and the content behind them.

pub mod blob;
pub mod blob_claim;
pub mod cleanup_run;
pub mod cleanup_schedule;
pub mod deletion;
pub mod file;
pub mod folder;
pub mod hold;
pub mod purge;
pub mod quota;
pub mod share_link;
pub mod trash;
pub mod tree;
pub mod upload;
