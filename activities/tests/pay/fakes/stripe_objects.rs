//! What Stripe's books hold, and how it looks to whoever asks.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::collections::BTreeMap;

pub type Metadata = BTreeMap<String, String>;

#[derive(Clone, Serialize, Deserialize)]
pub struct Session {
    pub id: String,
    pub created: i64,
    pub live: bool,
    pub reference: Option<String>,
    pub amount: i64,
    pub currency: String,
    pub status: String,
    pub payment_status: String,
    pub expires_at: i64,
    pub success_url: String,
    pub metadata: Metadata,
    pub intent_metadata: Metadata,
    pub intent: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Intent {
    pub id: String,
    pub session: String,
    pub status: String,
    pub received: i64,
    pub currency: String,
    pub destination: Option<String>,
    pub metadata: Metadata,
    pub charge: Option<String>,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Charge {
    pub id: String,
    pub intent: String,
    pub created: i64,
    pub amount: i64,
    pub currency: String,
    pub status: String,
    pub refunded: i64,
    pub metadata: Metadata,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Refund {
    pub id: String,
    pub intent: String,
    pub created: i64,
    pub amount: i64,
    pub currency: String,
    pub status: String,
    pub failure_reason: Option<String>,
    pub metadata: Metadata,
}

#[derive(Clone, Serialize, Deserialize)]
pub struct Event {
    pub id: String,
    pub kind: String,
    pub created: i64,
    pub live: bool,
    pub object: Value,
}

/// What was answered under a key.
#[derive(Clone, Serialize, Deserialize)]
pub struct Kept {
    pub path: String,
    pub form: BTreeMap<String, String>,
    pub status: u16,
    pub body: Value,
}

impl Session {
    pub fn to_json(&self, url: &str) -> Value {
        let is_open = self.status == "open";
        json!({
            "id": self.id, "object": "checkout.session", "created": self.created, "livemode": self.live, "mode": "payment",
            "url": is_open.then(|| format!("{url}/c/pay/{}", self.id)), "status": self.status,
            "payment_status": self.payment_status, "amount_subtotal": self.amount, "amount_total": self.amount,
            "currency": self.currency, "client_reference_id": self.reference, "expires_at": self.expires_at,
            "payment_intent": self.intent, "metadata": self.metadata, "success_url": self.success_url,
            "cancel_url": self.success_url, "customer": null, "customer_details": {"email": "payer@example.com"},
        })
    }
}

impl Intent {
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id, "object": "payment_intent", "status": self.status, "amount": self.received,
            "amount_received": self.received, "currency": self.currency, "latest_charge": self.charge,
            "on_behalf_of": null, "metadata": self.metadata, "capture_method": "automatic",
            "transfer_data": self.destination.as_ref().map(|id| json!({"destination": id})),
        })
    }
}

impl Charge {
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id, "object": "charge", "created": self.created, "amount": self.amount, "paid": true,
            "amount_captured": if self.status == "succeeded" { self.amount } else { 0 }, "captured": true,
            "amount_refunded": self.refunded, "refunded": self.refunded >= self.amount, "currency": self.currency,
            "status": self.status, "payment_intent": self.intent, "metadata": self.metadata,
            "payment_method_details": {"type": "card", "card": {"brand": "visa", "last4": "4242"}},
        })
    }
}

impl Refund {
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id, "object": "refund", "created": self.created, "amount": self.amount, "currency": self.currency,
            "status": self.status, "payment_intent": self.intent, "failure_reason": self.failure_reason,
            "metadata": self.metadata, "reason": "requested_by_customer",
        })
    }
}

impl Event {
    pub fn to_json(&self) -> Value {
        json!({
            "id": self.id, "object": "event", "api_version": "2025-04-30.basil", "created": self.created,
            "livemode": self.live, "pending_webhooks": 1, "type": self.kind, "data": {"object": self.object},
            "request": {"id": null, "idempotency_key": null},
        })
    }
}
