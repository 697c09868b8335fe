//! What gateways tell us by themselves: signed webhooks. Each is only a hint that something happened: what did is asked.

use super::Gateway;
use chrono::{DateTime, Utc};
use uuid::Uuid;

/// How far the clock of a gateway may be from ours, in seconds; an older webhook may be a replayed one.
pub const TOLERANCE_SECONDS: i64 = 300;
/// Longest webhook, in bytes.
pub const BODY_BYTES: usize = 256 << 10;

/// A webhook as it came.
#[derive(Debug, Clone, Copy)]
pub struct Inbound<'a> {
    /// The body, to the byte: its signature is of these bytes.
    pub body: &'a [u8],
    /// The header that holds the signature ([`signature_header`]), each time it was sent.
    pub signatures: &'a [&'a [u8]],
    /// What may have signed it: of the account that the address belongs to, and of no other.
    pub secrets: &'a [String],
    /// When it came.
    pub at: DateTime<Utc>,
}

/// The name of the header that holds the signature; none where a gateway sends no webhooks.
pub fn signature_header(gateway: Gateway) -> Option<&'static str> {
    match gateway {
        Gateway::Stripe => Some("stripe-signature"),
        Gateway::Zarinpal | Gateway::Manual => None,
    }
}

/// What it is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum EventKind {
    /// A payment changed: verify it.
    Payment,
    /// A refund changed: fetch it.
    Refund,
    /// The payer, or whoever pays for them, wants the money back: a person looks.
    Dispute,
    /// Nothing of ours: keep it, and do nothing.
    Other,
}

impl EventKind {
    /// As it is stored.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Payment => "payment",
            Self::Refund => "refund",
            Self::Dispute => "dispute",
            Self::Other => "other",
        }
    }
}

/// What a webhook that was signed well says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The event; the same each time it is sent. 1 to 255 bytes.
    pub event_id: String,
    /// What happened, in the gateway's words, at most 255 bytes.
    pub event_type: String,
    /// What it is about.
    pub kind: EventKind,
    /// What the gateway calls the payment, when it says so: the `provider_ref` of [`super::Created`].
    pub provider_ref: Option<String>,
    /// What the gateway calls the movement of money, when it says so: the `provider_txn` of [`super::Seen`].
    pub provider_txn: Option<String>,
    /// What the gateway calls the refund, when it is about one.
    pub provider_refund: Option<String>,
    /// Which of our payments it is about, as the gateway was told.
    pub payment_id: Option<Uuid>,
    /// Which of our refunds it is about, as the gateway was told.
    pub refund_id: Option<Uuid>,
    /// Whether money moves.
    pub is_live: bool,
    /// When it happened.
    pub at: Option<DateTime<Utc>>,
}

/// Why a webhook is not taken. Nothing is told of what stands in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Rejected {
    /// This gateway sends none.
    #[error("this gateway sends no webhooks")]
    NotASender,
    /// There is no signature, or none of a scheme that counts.
    #[error("the webhook is not signed")]
    Unsigned,
    /// It was signed too long ago, or in the future.
    #[error("the signature of the webhook is too old")]
    Stale,
    /// None of the secrets has signed it.
    #[error("the signature of the webhook is not good")]
    Forged,
    /// It was signed well and is no event.
    #[error("the webhook is signed and cannot be read")]
    Unreadable,
}

impl Rejected {
    /// What is answered: 401 to whoever is not the gateway, 400 to what is no event, 404 where nobody sends any.
    pub fn status(self) -> u16 {
        match self {
            Self::NotASender => 404,
            Self::Unsigned | Self::Stale | Self::Forged => 401,
            Self::Unreadable => 400,
        }
    }
}

/// Reads a webhook of one gateway. Pure: it looks at nothing else, and never panics. The activities crate has it as `pay::read_webhook`,
/// which takes the gateway first.
pub type ReadWebhook = for<'a> fn(Gateway, &Inbound<'a>) -> Result<Event, Rejected>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_is_not_the_gateway_is_told_so_and_nothing_else() {
        for rejected in [Rejected::Unsigned, Rejected::Stale, Rejected::Forged] {
            assert_eq!(rejected.status(), 401);
        }
        assert_eq!((Rejected::Unreadable.status(), Rejected::NotASender.status()), (400, 404));
        for gateway in Gateway::ALL {
            assert_eq!(gateway.has_webhooks(), signature_header(gateway).is_some());
        }
    }
}
