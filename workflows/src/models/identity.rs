//! Who owns what and who may ask.

pub mod audit;
pub mod rate_bucket;
pub mod tenant;
pub mod tenant_api_key;
