//! What ZarinPal answers. It is loose with types: numbers may be texts, and what is empty may be a list.

use chrono::{DateTime, FixedOffset, NaiveDateTime, Utc};
use flatrender_workflows::contracts::pay::{PaymentState, Unsettled, UnsettledList};
use serde::Deserialize;
use serde_json::Value;
use uuid::Uuid;

/// As many as `unVerified` tells of. Source: zarinpal.com/docs, "unVerified".
const MOST_UNVERIFIED: usize = 100;
/// Its clock stands 3½ hours before UTC, the whole year since 2022.
const TEHRAN_SECONDS: i32 = 12_600;

/// A code that says why not.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Code(pub(super) i64);

/// An answer: data, or errors.
#[derive(Deserialize)]
pub(super) struct Answer {
    #[serde(default)]
    pub(super) data: Value,
    #[serde(default)]
    errors: Value,
}

impl Answer {
    /// Why not; none when it went well.
    pub(super) fn refusal(&self) -> Option<Code> {
        let code = self.errors.get("code").or_else(|| self.errors.get(0)?.get("code"));
        code.and_then(number).map(Code)
    }
}

/// A number, or a text that is one.
pub(super) fn number(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// A number or a text, as it is kept.
#[derive(Deserialize, Default)]
#[serde(transparent)]
pub(super) struct Loose(Value);

impl Loose {
    /// As a text that can stand in a path or a list: digits and letters, at most 64.
    pub(super) fn text(&self) -> Option<String> {
        let text = self.0.as_str().map(str::to_owned).or_else(|| self.0.as_i64().map(|n| n.to_string()))?;
        ((1..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())).then_some(text)
    }

    pub(super) fn number(&self) -> Option<i64> {
        number(&self.0)
    }
}

#[derive(Deserialize)]
pub(super) struct Requested {
    pub(super) authority: String,
}

#[derive(Deserialize)]
pub(super) struct Verified {
    #[serde(default)]
    code: Loose,
    #[serde(default)]
    pub(super) ref_id: Loose,
    pub(super) card_pan: Option<String>,
    #[serde(default, deserialize_with = "loose_number")]
    pub(super) fee: Option<i64>,
}

impl Verified {
    /// Verified now, or before: both are paid, once.
    pub(super) fn is_paid(&self) -> bool {
        matches!(self.code.number(), Some(100 | 101))
    }
}

fn loose_number<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<i64>, D::Error> {
    Ok(number(&Value::deserialize(deserializer)?))
}

#[derive(Deserialize)]
pub(super) struct Inquired {
    status: Option<String>,
}

impl Inquired {
    pub(super) fn state(&self) -> PaymentState {
        match self.status.as_deref() {
            Some("PAID" | "VERIFIED") => PaymentState::Authorized,
            Some("FAILED") => PaymentState::Declined,
            Some("REVERSED") => PaymentState::Refunded,
            // `IN_BANK`: the payer is there. What else there may be one day is not over.
            _ => PaymentState::Open,
        }
    }
}

#[derive(Deserialize)]
pub(super) struct Unverified {
    #[serde(default)]
    pub(super) authorities: Vec<Paid>,
}

/// Something that was paid and not verified.
#[derive(Deserialize)]
pub(super) struct Paid {
    pub(super) authority: String,
    #[serde(default)]
    amount: Loose,
    callback_url: Option<String>,
    date: Option<String>,
}

impl Paid {
    /// Which of our payments it is for: the last id that stands in the path where its payer comes back to.
    pub(super) fn payment_id(&self) -> Option<Uuid> {
        let path = self.callback_url.as_deref()?.split(['?', '#']).next()?;
        path.rsplit('/').find_map(|part| part.parse().ok())
    }

    fn into_unsettled(self) -> Option<Unsettled> {
        let (payment_id, at) = (self.payment_id(), self.date.as_deref().and_then(tehran));
        let amount = self.amount.number().filter(|amount| *amount >= 0)?;
        Some(Unsettled { provider_ref: self.authority, payment_id, amount, currency: "IRR".into(), at })
    }
}

impl Unverified {
    pub(super) fn into_list(self) -> UnsettledList {
        let told = self.authorities.len();
        let payments: Vec<_> = self.authorities.into_iter().filter_map(Paid::into_unsettled).collect();
        UnsettledList { complete: told < MOST_UNVERIFIED && payments.len() == told, payments }
    }
}

/// A time of its clock: `2020-07-01 17:33:25`.
fn tehran(text: &str) -> Option<DateTime<Utc>> {
    let local = NaiveDateTime::parse_from_str(text, "%Y-%m-%d %H:%M:%S").ok()?;
    let zone = FixedOffset::east_opt(TEHRAN_SECONDS)?;
    Some(local.and_local_timezone(zone).single()?.to_utc())
}
