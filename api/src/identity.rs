//! Who people are and what tenants manage of themselves: `/v1/auth`, `/v1/me`, `/v1/api-keys`, `/v1/audit`, `/v1/branding`, `/v1/domains`,
//! `/v1/identity-providers`, `/v1/request-logs`, `/v1/usage`, `/v1/webhooks`; what they buy and earn: `billing`, `rewards`.

pub mod account;
mod address;
pub mod api_keys;
pub mod audit;
pub mod billing;
pub mod branding;
mod deed;
pub mod domains;
pub(crate) mod door;
pub mod factors;
pub mod identities;
pub mod identity_providers;
mod letters;
pub mod members;
pub mod openid;
pub mod passwords;
pub mod quotas;
pub mod request_logs;
pub mod rewards;
pub mod sessions;
pub mod sign_in;
mod steward;
pub mod tenants;
mod throttle;
pub mod usage;
pub mod webauthn;
pub mod webhooks;

pub use address::address;
pub use steward::{Change, Registrar, Steward, Trustee, made};
pub use webauthn::RelyingParty;
