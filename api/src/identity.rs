//! `/v1/api-keys`, `/v1/audit` and what else a tenant manages of itself.

pub mod api_keys;
pub mod audit;
mod steward;

pub use steward::Steward;
