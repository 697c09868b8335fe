//! Who owns what and who may ask.

pub mod audit;
pub mod auth_challenge;
pub mod auth_throttle;
pub mod mfa_factor;
pub mod openid_sign_in;
pub mod quota;
pub mod rate_bucket;
pub mod request_log;
pub mod role_binding;
pub mod tenant;
pub mod tenant_api_key;
pub mod tenant_branding;
pub mod tenant_domain;
pub mod tenant_identity_provider;
pub mod tenant_webhook;
pub mod tenant_webhook_delivery;
pub mod tenant_webhook_event;
pub mod usage;
pub mod user;
pub mod user_identity;
pub mod user_session;
