//! Who owns what and who may ask.

pub mod tenant;
pub mod tenant_api_key;
