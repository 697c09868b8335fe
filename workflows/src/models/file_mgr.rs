//! Files and the content behind them.

pub mod blob;
pub mod file;
pub mod quota;
pub mod upload;
