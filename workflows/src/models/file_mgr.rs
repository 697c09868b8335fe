//! Files and the content behind them.

pub mod blob;
pub mod file;
