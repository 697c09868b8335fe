//! Webhooks of Stripe. Source: docs.stripe.com/webhooks, "Verify webhook signatures manually".

use super::{
    PAYMENT_KEY, REFUND_KEY, is_id,
    objects::{Data, id_in, time},
};
use chrono::{DateTime, Utc};
use flatrender_workflows::contracts::pay::inbound::{
    BODY_BYTES, Event, EventKind, Inbound, Rejected, TOLERANCE_SECONDS,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Deserialize;
use serde_json::Value;
use sha2::Sha256;
use std::collections::HashMap;

/// Most signatures that are looked at.
const SIGNATURES: usize = 16;

/// Reads a webhook whose signature is good.
pub(in crate::pay) fn read(inbound: &Inbound<'_>) -> Result<Event, Rejected> {
    let header = signature(inbound)?;
    if !is_signed(inbound, &header) {
        return Err(Rejected::Forged);
    }
    // A good signature of long ago may be sent again by somebody who saw it.
    if (inbound.at.timestamp() - header.at).abs() > TOLERANCE_SECONDS {
        return Err(Rejected::Stale);
    }
    let event: Sent = serde_json::from_slice(inbound.body).map_err(|_| Rejected::Unreadable)?;
    event.read().ok_or(Rejected::Unreadable)
}

/// The header of a webhook that Stripe would send: `t=…,v1=…`. For tests, and for whoever forwards events by hand.
pub fn sign(secret: &str, at: DateTime<Utc>, body: &[u8]) -> String {
    let at = at.timestamp();
    let signature = mac(secret, &at.to_string(), body).map(|mac| hex::encode(mac.finalize().into_bytes()));
    format!("t={at},v1={}", signature.unwrap_or_default())
}

struct Header<'a> {
    at: i64,
    /// As it stands there: it is signed so.
    text: &'a str,
    signatures: Vec<Vec<u8>>,
}

/// The parts of the header. One that stands there twice is none: it would be read one way here and another way elsewhere.
fn signature<'a>(inbound: &Inbound<'a>) -> Result<Header<'a>, Rejected> {
    let [header] = inbound.signatures else { return Err(Rejected::Unsigned) };
    if inbound.body.len() > BODY_BYTES || header.len() > 4096 {
        return Err(Rejected::Unsigned);
    }
    let header = std::str::from_utf8(header).map_err(|_| Rejected::Unsigned)?;
    let (mut text, mut signatures) = (None, vec![]);
    for part in header.split(',') {
        match part.trim().split_once('=') {
            Some(("t", at)) if text.replace(at).is_some() => return Err(Rejected::Unsigned),
            Some(("v1", signature)) if signatures.len() < SIGNATURES => {
                signatures.extend(hex::decode(signature).ok().filter(|bytes| bytes.len() == 32));
            }
            // `v0` is no scheme that counts: whoever may choose one would choose the weakest.
            _ => {}
        }
    }
    let text = text.filter(|text| (1..=12).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()));
    let at = text.and_then(|text| text.parse().ok());
    match (text, at) {
        (Some(text), Some(at)) if !signatures.is_empty() => Ok(Header { at, text, signatures }),
        _ => Err(Rejected::Unsigned),
    }
}

/// Whether one of the secrets has signed it. Every pair is compared, each in constant time.
fn is_signed(inbound: &Inbound<'_>, header: &Header<'_>) -> bool {
    let mut good = false;
    for secret in inbound.secrets.iter().filter(|secret| !secret.is_empty()) {
        for signature in &header.signatures {
            good |= mac(secret, header.text, inbound.body).is_some_and(|mac| mac.verify_slice(signature).is_ok());
        }
    }
    good
}

fn mac(secret: &str, at: &str, body: &[u8]) -> Option<Hmac<Sha256>> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).ok()?;
    mac.update(at.as_bytes());
    mac.update(b".");
    mac.update(body);
    Some(mac)
}

#[derive(Deserialize)]
struct Sent {
    id: String,
    #[serde(rename = "type")]
    kind: String,
    created: Option<i64>,
    #[serde(default)]
    livemode: bool,
    /// Of an account that is connected to ours: none of our business.
    account: Option<String>,
    data: Data<Thing>,
}

/// Whatever it is about, as far as it says whose it is.
#[derive(Deserialize)]
struct Thing {
    object: Option<String>,
    id: Option<String>,
    client_reference_id: Option<String>,
    /// An object, or only its id.
    payment_intent: Option<Value>,
    #[serde(default, deserialize_with = "lenient")]
    metadata: Option<HashMap<String, String>>,
}

fn lenient<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<HashMap<String, String>>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

impl Sent {
    fn read(self) -> Option<Event> {
        let thing = self.data.object;
        let what = thing.object.as_deref().unwrap_or_default();
        let kind = if self.account.is_some() { EventKind::Other } else { kind_of(&self.kind) };
        let is = |name: &str| (what == name).then(|| thing.id.clone()).flatten();
        let intent = match &thing.payment_intent {
            Some(Value::String(id)) => Some(id.clone()),
            Some(Value::Object(intent)) => intent.get("id").and_then(Value::as_str).map(str::to_owned),
            _ => is("payment_intent"),
        };
        let opened = thing.client_reference_id.as_deref().and_then(|id| id.parse().ok());
        let fits = |text: &str| (1..=255).contains(&text.len());
        (fits(&self.id) && fits(&self.kind)).then(|| Event {
            event_id: self.id,
            event_type: self.kind,
            kind,
            provider_ref: is("checkout.session").filter(|id| is_id(id, "cs_")),
            provider_txn: intent.filter(|id| is_id(id, "pi_")),
            provider_refund: is("refund").filter(|id| is_id(id, "")),
            payment_id: id_in(&thing.metadata, PAYMENT_KEY).or(opened),
            refund_id: id_in(&thing.metadata, REFUND_KEY),
            is_live: self.livemode,
            at: self.created.and_then(time),
        })
    }
}

fn kind_of(kind: &str) -> EventKind {
    match kind {
        "checkout.session.completed"
        | "checkout.session.async_payment_succeeded"
        | "checkout.session.async_payment_failed"
        | "checkout.session.expired"
        | "payment_intent.succeeded"
        | "payment_intent.payment_failed"
        | "payment_intent.canceled" => EventKind::Payment,
        "charge.refunded" | "charge.refund.updated" | "refund.created" | "refund.updated" | "refund.failed" => {
            EventKind::Refund
        }
        kind if kind.starts_with("charge.dispute.") => EventKind::Dispute,
        _ => EventKind::Other,
    }
}

#[cfg(test)]
mod tests;
