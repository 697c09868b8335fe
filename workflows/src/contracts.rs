//! What may be asked of the world: plain structs that workers, nodes and definitions share.
//!
//! No SQL and no rule of the product lives here.

pub mod dns;
pub mod evidence;
pub mod file_name;
pub mod media;
pub mod message;
pub mod node;
pub mod notify;
pub mod pay;
pub mod render;
pub mod snapshot;
pub mod storage;
pub mod template;
pub mod upkeep;
pub mod upload;
pub mod webhook;
