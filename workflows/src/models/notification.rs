//! What people are told: the rows of schema `notification`, and what is said in which language.

pub mod account;
pub mod address;
pub mod audience;
pub mod catalogue;
pub mod delivery;
pub mod digest;
pub mod message;
pub mod outcome;
pub mod preference;
pub mod quiet;
pub mod routing;
pub mod sms;
pub mod suppression;
pub mod template;
pub mod words;
