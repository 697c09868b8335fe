//! Stripe's objects, as far as they are looked at. What is not there is not read as something else.

use super::{PAYMENT_KEY, REFUND_KEY, calls::Listed};
use chrono::{DateTime, Utc};
use serde::Deserialize;
use std::collections::HashMap;
use uuid::Uuid;

type Metadata = Option<HashMap<String, String>>;

/// A page of a list.
#[derive(Deserialize)]
pub(super) struct Page<T> {
    pub(super) data: Vec<T>,
    pub(super) has_more: bool,
}

/// An object, or only its id.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Expandable<T> {
    Id(String),
    Object(Box<T>),
}

impl<T> Expandable<T> {
    pub(super) fn object(&self) -> Option<&T> {
        match self {
            Self::Object(object) => Some(object),
            Self::Id(_) => None,
        }
    }
}

impl Expandable<Intent> {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Object(intent) => &intent.id,
            Self::Id(id) => id,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Account {
    pub(super) id: String,
}

#[derive(Deserialize)]
pub(super) struct Session {
    pub(super) id: String,
    pub(super) url: Option<String>,
    pub(super) status: Option<String>,
    pub(super) payment_status: Option<String>,
    pub(super) amount_total: Option<i64>,
    pub(super) currency: Option<String>,
    pub(super) client_reference_id: Option<String>,
    pub(super) expires_at: Option<i64>,
    #[serde(default)]
    pub(super) livemode: bool,
    pub(super) payment_intent: Option<Expandable<Intent>>,
    pub(super) metadata: Metadata,
}

impl Session {
    /// Which of our payments it is for: what it was opened with and what is written on it have to agree.
    pub(super) fn payment_id(&self) -> Option<Uuid> {
        let opened: Uuid = self.client_reference_id.as_deref()?.parse().ok()?;
        (id_in(&self.metadata, PAYMENT_KEY) == Some(opened)).then_some(opened)
    }
}

#[derive(Deserialize)]
pub(super) struct Intent {
    pub(super) id: String,
    pub(super) status: Option<String>,
    pub(super) amount_received: Option<i64>,
    pub(super) currency: Option<String>,
    on_behalf_of: Option<String>,
    transfer_data: Option<TransferData>,
    pub(super) latest_charge: Option<Expandable<Charge>>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct TransferData {
    destination: Option<String>,
}

impl Intent {
    pub(super) fn payment_id(&self) -> Option<Uuid> {
        id_in(&self.metadata, PAYMENT_KEY)
    }

    /// The account that gets the money, when it is not the one that took it.
    pub(super) fn destination(&self) -> Option<&str> {
        let transfer = self.transfer_data.as_ref().and_then(|data| data.destination.as_deref());
        transfer.or(self.on_behalf_of.as_deref())
    }
}

#[derive(Deserialize)]
pub(super) struct Charge {
    id: String,
    pub(super) created: i64,
    #[serde(default)]
    pub(super) refunded: bool,
    pub(super) status: Option<String>,
    pub(super) amount_captured: Option<i64>,
    pub(super) currency: Option<String>,
    pub(super) payment_intent: Option<String>,
    payment_method_details: Option<Method>,
    metadata: Metadata,
}

#[derive(Deserialize)]
struct Method {
    card: Option<Card>,
}

#[derive(Deserialize)]
struct Card {
    brand: Option<String>,
    last4: Option<String>,
}

impl Charge {
    pub(super) fn payment_id(&self) -> Option<Uuid> {
        id_in(&self.metadata, PAYMENT_KEY)
    }

    /// The card, masked.
    pub(super) fn card(&self) -> Option<String> {
        let card = self.payment_method_details.as_ref()?.card.as_ref()?;
        let last: String = card.last4.as_deref()?.chars().filter(char::is_ascii_digit).take(4).collect();
        Some(format!("{} •••• {last}", crate::pay::line::plain(card.brand.as_deref().unwrap_or("card"))))
    }
}

#[derive(Deserialize)]
pub(super) struct Refund {
    pub(super) id: String,
    pub(super) status: Option<String>,
    pub(super) amount: Option<i64>,
    pub(super) currency: Option<String>,
    pub(super) created: Option<i64>,
    pub(super) failure_reason: Option<String>,
    metadata: Metadata,
}

impl Refund {
    pub(super) fn refund_id(&self) -> Option<Uuid> {
        id_in(&self.metadata, REFUND_KEY)
    }

    pub(super) fn payment_id(&self) -> Option<Uuid> {
        id_in(&self.metadata, PAYMENT_KEY)
    }
}

/// An event of a session.
#[derive(Deserialize)]
pub(super) struct Happened {
    id: String,
    pub(super) created: i64,
    pub(super) data: Data<Session>,
}

#[derive(Deserialize)]
pub(super) struct Data<T> {
    pub(super) object: T,
}

macro_rules! listed {
    ($($object:ident)*) => {$(
        impl Listed for $object {
            fn id(&self) -> &str {
                &self.id
            }
        }
    )*};
}

listed! { Session Charge Refund Happened }

/// An id of ours that is written on an object.
pub(super) fn id_in(metadata: &Metadata, key: &str) -> Option<Uuid> {
    metadata.as_ref()?.get(key)?.parse().ok()
}

/// A time of Stripe's.
pub(super) fn time(seconds: i64) -> Option<DateTime<Utc>> {
    DateTime::from_timestamp(seconds, 0)
}
