//! Stripe and ZarinPal of one's own for a test: real servers that speak their protocols, keep books of their own in a file, and fail
//! when they are told to. Other tests take them by `#[path]`.

pub mod faults;
pub mod server;
pub mod store;
pub mod stripe;
mod stripe_api;
mod stripe_objects;
pub mod zarinpal;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// A movement of money in the books of a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Movement {
    /// What the gateway calls the payment.
    pub provider_ref: String,
    /// What it calls the movement.
    pub id: String,
    /// Which payment of ours it was told of.
    pub payment_id: Option<Uuid>,
    /// In the gateway's unit.
    pub amount: i64,
    /// Three capital letters.
    pub currency: String,
}

/// The sum of all movements.
pub fn sum(movements: &[Movement]) -> i64 {
    movements.iter().map(|movement| movement.amount).sum()
}
