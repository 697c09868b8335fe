//! Stripe: Checkout Sessions, whose truth is the object that is fetched. Source: docs.stripe.com/api, version [`VERSION`].

mod calls;
mod lists;
mod objects;
pub(super) mod webhook;

use super::{
    adapter::Adapter,
    line::{Effect, Line},
    money::{self, NoAmount},
};
use crate::egress::Egress;
use calls::Trouble;
use chrono::{TimeDelta, Utc};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::pay::{
    AMOUNT_LIMITS, By, CURRENCY, CreatePayment, Created, Difference, Due, ExpirePayment, FetchPayment, FetchRefund,
    GatewayFacts, ListSettlements, ListUnsettled, MERCHANT_CONFIG, Mode, NOT_FOUND, PaymentState, REFUSED,
    RefundPayment, RefundSeen, RefundState, Seen, Statement, UNKNOWN_OUTCOME, UnsettledList, VerifyPayment, settings,
};
use objects::{Account, Intent, Refund, Session, time};
use serde::de::DeserializeOwned;
use std::{collections::HashMap, sync::Mutex};
use uuid::Uuid;

/// The version of the API that answers are read as.
const VERSION: &str = "2025-04-30.basil";
/// Under which our payment, and our refund, are written on Stripe's objects.
const PAYMENT_KEY: &str = "flatrender_payment";
const REFUND_KEY: &str = "flatrender_refund";
/// What is fetched with a session.
const WITH_MONEY: &str = "expand[]=payment_intent.latest_charge";
/// A key under which Stripe has kept a failure of its own is given up for another one, so many times.
const SPARE_KEYS: u32 = 3;
/// A session is open for 24 hours at most; this much less keeps clocks that differ out of it.
const SLACK: TimeDelta = TimeDelta::minutes(5);
/// A session is open for 30 minutes at least.
const SHORTEST: TimeDelta = TimeDelta::minutes(31);
const LONGEST: TimeDelta = TimeDelta::hours(24);
/// Languages of the payment page. Source: the parameter `locale` of a Checkout Session.
const LANGUAGES: [&str; 35] = [
    "bg", "cs", "da", "de", "el", "en", "es", "et", "fi", "fil", "fr", "hr", "hu", "id", "it", "ja", "ko", "lt", "lv",
    "ms", "mt", "nb", "nl", "pl", "pt", "ro", "ru", "sk", "sl", "sv", "th", "tr", "vi", "zh", "zh-TW",
];

/// Whose the keys are, as Stripe calls the accounts: asked once.
pub(super) type Owners = Mutex<HashMap<(Uuid, [u8; 32]), String>>;

pub(super) struct Stripe<'a> {
    line: Line<'a>,
    base: &'a str,
    owners: &'a Owners,
    gateway_id: Uuid,
    mode: Mode,
    settings: settings::Stripe,
}

impl<'a> Stripe<'a> {
    pub(super) fn new(
        egress: &'a Egress,
        base: &'a str,
        owners: &'a Owners,
        gateway_id: Uuid,
        mode: Mode,
        settings: settings::Stripe,
    ) -> Self {
        Self { line: Line { egress, whom: "Stripe" }, base, owners, gateway_id, mode, settings }
    }

    async fn session(&self, id: &str) -> Result<Option<Session>, Failure> {
        if !is_id(id, "cs_") {
            return Ok(None);
        }
        self.find(&format!("/v1/checkout/sessions/{id}?{WITH_MONEY}")).await
    }

    /// The object at a path; none when there is none.
    async fn find<T: DeserializeOwned>(&self, path: &str) -> Result<Option<T>, Failure> {
        match self.get(path).await {
            Ok(found) => Ok(Some(found)),
            Err(failure) if failure.code == NOT_FOUND => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The session of a payment, by our id: the one that was paid, or the newest.
    async fn session_of(&self, payment_id: Uuid, since: chrono::DateTime<Utc>) -> Result<Option<Session>, Failure> {
        let query = format!("/v1/checkout/sessions?created[gte]={}", since.timestamp());
        let found = self.pages::<Session>(&query, |session| session.payment_id() == Some(payment_id)).await?;
        let best = found.items.iter().position(|session| session.status.as_deref() == Some("complete"));
        let Some(found) = found.items.into_iter().nth(best.unwrap_or(0)) else { return Ok(None) };
        self.session(&found.id).await
    }

    /// Where the payer goes: to the page, or back to ours when there is none any more, which looks what became of it.
    fn created(&self, session: Session, ask: &CreatePayment) -> Created {
        let good = |url: &String| url.starts_with("https://") || self.base.starts_with("http://");
        let page = session.url.filter(good).unwrap_or_else(|| ask.return_url.clone());
        let expires_at = session.expires_at.and_then(time);
        Created { provider_ref: session.id, redirect_url: Some(page), instructions: None, expires_at }
    }

    /// A session that was opened for this payment before: for the same money, or it is none of it.
    fn found(&self, session: Session, ask: &CreatePayment, amount: i64) -> Result<Created, Failure> {
        let currency = session.currency.as_deref().unwrap_or_default();
        if session.amount_total != Some(amount) || !currency.eq_ignore_ascii_case(&ask.due.currency) {
            return Err(Failure::permanent(REFUSED, "Stripe has a session of this payment for other money"));
        }
        Ok(self.created(session, ask))
    }

    /// What the page asks for. The same however often it is asked: Stripe compares.
    fn form(ask: &CreatePayment, amount: i64) -> Vec<(&'static str, String)> {
        let payment = ask.due.payment_id.to_string();
        let mut form = vec![
            ("mode", "payment".to_owned()),
            ("client_reference_id", payment.clone()),
            ("success_url", ask.return_url.clone()),
            ("cancel_url", ask.return_url.clone()),
            ("locale", language(&ask.language).to_owned()),
            ("line_items[0][quantity]", "1".to_owned()),
            ("line_items[0][price_data][currency]", ask.due.currency.to_ascii_lowercase()),
            ("line_items[0][price_data][unit_amount]", amount.to_string()),
            ("line_items[0][price_data][product_data][name]", ask.description.chars().take(200).collect()),
            // The payer pays what we said, in what we said.
            ("adaptive_pricing[enabled]", "false".to_owned()),
            ("metadata[flatrender_payment]", payment.clone()),
            ("payment_intent_data[metadata][flatrender_payment]", payment),
        ];
        let left = ask.expires_at - Utc::now();
        if SHORTEST < left - SLACK && left - SLACK < LONGEST {
            form.push(("expires_at", (ask.expires_at - SLACK).timestamp().to_string()));
        }
        if let Some(email) = &ask.email {
            form.push(("customer_email", email.clone()));
        }
        form
    }

    async fn seen(&self, session: Session, due: &Due) -> Result<Seen, Failure> {
        let merchant = self.owner().await?;
        Ok(seen(session, due, merchant, self.mode))
    }

    /// Whose the key is; none when it may not be asked.
    async fn owner(&self) -> Result<Option<String>, Failure> {
        if let Some(account) = &self.settings.account {
            return Ok(Some(account.clone()));
        }
        let key = (self.gateway_id, self.fingerprint());
        let known = held(self.owners).get(&key).cloned();
        if known.is_some() {
            return Ok(known);
        }
        match self.get::<Account>("/v1/account").await {
            Ok(account) => {
                held(self.owners).insert(key, account.id.clone());
                Ok(Some(account.id))
            }
            Err(failure) if failure.code == MERCHANT_CONFIG => Ok(None),
            Err(failure) => Err(failure),
        }
    }

    /// The refund of ours among those of a payment.
    async fn refund_of(&self, ask: &RefundPayment) -> Result<Option<Refund>, Failure> {
        if !is_id(&ask.provider_txn, "pi_") {
            return Ok(None);
        }
        let query = format!("/v1/refunds?payment_intent={}", ask.provider_txn);
        let found = self.pages::<Refund>(&query, |refund| refund.refund_id() == Some(ask.refund_id)).await?;
        Ok(found.items.into_iter().next())
    }
}

impl Adapter for Stripe<'_> {
    async fn create(&self, ask: &CreatePayment) -> Result<Created, Failure> {
        let amount = money::to_stripe(ask.due.amount, &ask.due.currency).map_err(|why| no_amount(why, &ask.due))?;
        let (form, since) = (Self::form(ask, amount), Utc::now() - LONGEST - LONGEST);
        for turn in 0..=SPARE_KEYS {
            let key = calls::key("create", ask.due.payment_id, turn);
            match self.post::<Session>("/v1/checkout/sessions", &form, Some(&key)).await {
                Ok(session) => return Ok(self.created(session, ask)),
                Err(Trouble::Failed(failure)) => return Err(failure),
                // It happened, or not: the session is there, or not.
                Err(Trouble::Broken { kept, failure }) => match self.session_of(ask.due.payment_id, since).await? {
                    Some(session) => return self.found(session, ask, amount),
                    None if kept => {}
                    None => return Err(failure),
                },
                // What was asked under this key before, such as for another time, has left something or it has not.
                Err(Trouble::Differs) => {
                    if let Some(session) = self.session_of(ask.due.payment_id, since).await? {
                        return self.found(session, ask, amount);
                    }
                }
            }
        }
        Err(self.line.silent(Effect::Some))
    }

    async fn fetch(&self, ask: &FetchPayment) -> Result<Option<Seen>, Failure> {
        let session = match &ask.by {
            By::Ref(id) => self.session(id).await?,
            By::OurId(since) => self.session_of(ask.due.payment_id, *since).await?,
        };
        match session {
            Some(session) => Ok(Some(self.seen(session, &ask.due).await?)),
            None => Ok(None),
        }
    }

    async fn verify(&self, ask: &VerifyPayment) -> Result<Seen, Failure> {
        let session = self.session(&ask.provider_ref).await?.ok_or_else(not_found)?;
        self.seen(session, &ask.due).await
    }

    async fn expire(&self, ask: &ExpirePayment) -> Result<Seen, Failure> {
        let session = self.session(&ask.provider_ref).await?.ok_or_else(not_found)?;
        if session.status.as_deref() == Some("open") {
            let path = format!("/v1/checkout/sessions/{}/expire", session.id);
            match self.post::<Session>(&path, &[], None).await {
                // Somebody may have paid meanwhile: Stripe refuses then. What it is now is looked at below.
                Ok(_) | Err(Trouble::Differs) => {}
                Err(Trouble::Failed(failure)) if failure.code == REFUSED => {}
                Err(Trouble::Failed(failure) | Trouble::Broken { failure, .. }) => return Err(failure),
            }
        }
        let session = self.session(&ask.provider_ref).await?.ok_or_else(not_found)?;
        self.seen(session, &ask.due).await
    }

    async fn refund(&self, ask: &RefundPayment) -> Result<RefundSeen, Failure> {
        let amount = money::to_stripe(ask.amount, &ask.due.currency).map_err(|why| no_amount(why, &ask.due))?;
        // Stripe forgets keys after a day, and we may have tried for longer.
        if let Some(refund) = self.refund_of(ask).await? {
            return Ok(refunded(&refund));
        }
        let form = vec![
            ("payment_intent", ask.provider_txn.clone()),
            ("amount", amount.to_string()),
            ("reason", "requested_by_customer".to_owned()),
            ("metadata[flatrender_refund]", ask.refund_id.to_string()),
            ("metadata[flatrender_payment]", ask.due.payment_id.to_string()),
        ];
        for turn in 0..=SPARE_KEYS {
            let key = calls::key("refund", ask.refund_id, turn);
            match self.post::<Refund>("/v1/refunds", &form, Some(&key)).await {
                Ok(refund) => return Ok(refunded(&refund)),
                Err(Trouble::Broken { kept, failure }) => match self.refund_of(ask).await? {
                    Some(refund) => return Ok(refunded(&refund)),
                    None if kept => {}
                    None => return Err(failure),
                },
                Err(Trouble::Differs) => {
                    return self.refund_of(ask).await?.map(|refund| refunded(&refund)).ok_or_else(differs);
                }
                Err(Trouble::Failed(failure)) if failure.code == REFUSED || failure.code == AMOUNT_LIMITS => {
                    return Ok(refused(&failure));
                }
                Err(Trouble::Failed(failure)) => return Err(failure),
            }
        }
        Err(self.line.silent(Effect::Some))
    }

    async fn fetch_refund(&self, ask: &FetchRefund) -> Result<Option<RefundSeen>, Failure> {
        let refund = match &ask.provider_refund {
            Some(id) if is_id(id, "re_") || is_id(id, "pyr_") => {
                self.find::<Refund>(&format!("/v1/refunds/{id}")).await?
            }
            Some(_) => None,
            None => self.refund_of(&ask.refund).await?,
        };
        Ok(refund.map(|refund| refunded(&refund)))
    }

    async fn list_unsettled(&self, ask: &ListUnsettled) -> Result<UnsettledList, Failure> {
        self.unsettled(ask.since).await
    }

    async fn list_settlements(&self, ask: &ListSettlements) -> Result<Statement, Failure> {
        self.statement(ask.day).await
    }

    async fn check(&self) -> Result<GatewayFacts, Failure> {
        let merchant = match &self.settings.account {
            Some(account) => {
                // A restricted key may not ask whose it is; it has to be able to ask for sessions.
                self.get::<objects::Page<Session>>("/v1/checkout/sessions?limit=1").await?;
                account.clone()
            }
            None => self.get::<Account>("/v1/account").await?.id,
        };
        Ok(GatewayFacts { merchant, refunds: true, statements: true })
    }
}

/// What a session and its money say of a payment of ours.
fn seen(session: Session, due: &Due, owner: Option<String>, mode: Mode) -> Seen {
    let intent = session.payment_intent.as_ref().and_then(objects::Expandable::object);
    let charge = intent.and_then(|intent| intent.latest_charge.as_ref()?.object());
    let state = state_of(&session, intent);
    let currency = intent.map_or(session.currency.as_deref(), |intent| intent.currency.as_deref());
    let currency = currency.map(str::to_ascii_uppercase);
    let received = intent.map_or(session.amount_total, |intent| intent.amount_received);
    let amount = received.zip(currency.as_deref()).and_then(|(amount, of)| money::from_stripe(amount, of));
    let elsewhere = intent.and_then(Intent::destination);
    let payment_id = session.payment_id();
    let mut differences = vec![];
    if state == PaymentState::Paid {
        let of_intent = intent.map(Intent::payment_id);
        let is_live = mode == Mode::Live;
        for (differs, difference) in [
            (amount != Some(due.amount), Difference::Amount),
            (currency.as_deref() != Some(&due.currency), Difference::Currency),
            (elsewhere.is_some() && elsewhere != owner.as_deref(), Difference::Merchant),
            (payment_id != Some(due.payment_id) || of_intent != Some(payment_id), Difference::Payment),
            (session.livemode != is_live, Difference::Mode),
        ] {
            if differs {
                differences.push(difference);
            }
        }
    }
    Seen {
        state,
        provider_txn: session.payment_intent.as_ref().map(|intent| intent.id().to_owned()),
        amount: matches!(state, PaymentState::Paid | PaymentState::Refunded).then_some(amount).flatten(),
        currency,
        merchant: elsewhere.map(str::to_owned).or(owner),
        payment_id,
        paid_at: charge.and_then(|charge| time(charge.created)),
        fee: None,
        card: charge.and_then(|charge| charge.card()),
        differences,
        provider_ref: session.id,
    }
}

fn state_of(session: &Session, intent: Option<&Intent>) -> PaymentState {
    let refunded = intent.and_then(|intent| intent.latest_charge.as_ref()?.object()).is_some_and(|c| c.refunded);
    match (session.status.as_deref(), session.payment_status.as_deref()) {
        (Some("expired"), _) => PaymentState::Expired,
        (Some("complete"), Some("paid" | "no_payment_required")) if refunded => PaymentState::Refunded,
        (Some("complete"), Some("paid" | "no_payment_required")) => PaymentState::Paid,
        (Some("complete"), _) => match intent.and_then(|intent| intent.status.as_deref()) {
            Some("requires_payment_method") => PaymentState::Declined,
            Some("canceled") => PaymentState::Cancelled,
            Some("requires_capture") => PaymentState::Authorized,
            _ => PaymentState::Processing,
        },
        _ => PaymentState::Open,
    }
}

fn refunded(refund: &Refund) -> RefundSeen {
    let currency = refund.currency.as_deref().unwrap_or_default().to_ascii_uppercase();
    let state = match refund.status.as_deref() {
        Some("succeeded") => RefundState::Done,
        Some("failed" | "canceled") => RefundState::Refused,
        // `pending`, `requires_action`, and what there may be one day: not done yet.
        _ => RefundState::Pending,
    };
    let is_refused = state == RefundState::Refused;
    RefundSeen {
        state,
        provider_refund: Some(refund.id.clone()),
        amount: refund.amount.and_then(|amount| money::from_stripe(amount, &currency)),
        refusal: is_refused.then(|| REFUSED.to_owned()),
        detail: refund.failure_reason.as_deref().filter(|_| is_refused).map(super::line::plain),
    }
}

fn refused(failure: &Failure) -> RefundSeen {
    RefundSeen {
        state: RefundState::Refused,
        provider_refund: None,
        amount: None,
        refusal: Some(REFUSED.to_owned()),
        detail: Some(failure.message.chars().take(200).collect()),
    }
}

fn no_amount(why: NoAmount, due: &Due) -> Failure {
    match why {
        NoAmount::Currency => Failure::permanent(CURRENCY, format!("Stripe does not take {}", due.currency)),
        NoAmount::Amount => {
            Failure::permanent(AMOUNT_LIMITS, format!("Stripe does not take {} of {}", due.amount, due.currency))
        }
    }
}

fn not_found() -> Failure {
    Failure::permanent(NOT_FOUND, "Stripe has no such session in this account")
}

fn differs() -> Failure {
    Failure::transient(UNKNOWN_OUTCOME, "Stripe was asked for something else under the same key, and has nothing of it")
}

/// Whether a text may be the id of an object, so that it can stand in a path.
fn is_id(text: &str, kind: &str) -> bool {
    text.len() <= 255 && text.starts_with(kind) && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// The language of the page for a reader's: the browser's where Stripe has none.
fn language(tag: &str) -> &'static str {
    let known = |wanted: &str| LANGUAGES.into_iter().find(|known| *known == wanted);
    known(tag).or_else(|| known(tag.split('-').next().unwrap_or_default())).unwrap_or("auto")
}

fn held<T>(lock: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    lock.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
