//! ZarinPal, version 4 of its web service: somebody pays, and we have to verify, or the money goes back. Always asked in rials.
//!
//! Source: zarinpal.com/docs/paymentGateway (request, verify, `unVerified`, inquiry) and zarinpal.com/docs/apiDocs (sessions, refunds).

mod answers;
mod lists;

use super::{
    Places,
    adapter::Adapter,
    line::{Effect, Line},
    manual::by_hand,
    money::{self, NoAmount},
};
use crate::egress::{Egress, client::Reply};
use answers::{Answer, Code, Inquired, Requested, Unverified, Verified};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::pay::{
    AMOUNT_LIMITS, By, CURRENCY, CreatePayment, Created, Difference, Due, ExpirePayment, FetchPayment, FetchRefund,
    GatewayFacts, ListSettlements, ListUnsettled, MERCHANT_CONFIG, Mode, NOT_FOUND, PaymentState, REFUSED,
    RefundPayment, RefundSeen, Seen, Statement, UnsettledList, VerifyPayment, settings,
};
use reqwest::{
    Method, Request, Url,
    header::{CONTENT_TYPE, HeaderValue},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// The most characters of a description; the id of the payment stands behind it.
const DESCRIPTION_CHARS: usize = 200;
/// When it wants to be asked later and does not say when, in seconds.
const A_WHILE: f64 = 60.0;

pub(super) struct Zarinpal<'a> {
    line: Line<'a>,
    base: &'a str,
    /// Where lists and refunds are; not in the sandbox.
    lists: Option<&'a str>,
    settings: settings::Zarinpal,
}

impl<'a> Zarinpal<'a> {
    pub(super) fn new(egress: &'a Egress, places: &'a Places, mode: Mode, settings: settings::Zarinpal) -> Self {
        let (base, lists) = match mode {
            Mode::Live => (&places.zarinpal, Some(places.zarinpal_lists.as_str())),
            Mode::Test => (&places.zarinpal_sandbox, None),
        };
        Self { line: Line { egress, whom: "ZarinPal" }, base, lists, settings }
    }

    /// Calls a method of the web service with the merchant's id. What it refuses is a code.
    async fn call<T: DeserializeOwned>(
        &self,
        method: &str,
        mut body: Value,
        effect: Effect,
    ) -> Result<Result<T, Code>, Failure> {
        body["merchant_id"] = self.settings.merchant_id.as_str().into();
        let url = format!("{}/pg/v4/payment/{method}.json", self.base);
        let reply = self.line.call(post(&url, &body)?, effect).await?;
        self.answer(&reply, effect)
    }

    fn answer<T: DeserializeOwned>(&self, reply: &Reply, effect: Effect) -> Result<Result<T, Code>, Failure> {
        let answer: Answer = match self.line.read(reply, effect) {
            Ok(answer) => answer,
            Err(_) if !reply.status.is_success() => return Err(self.line.broken(reply.status, effect)),
            Err(failure) => return Err(failure),
        };
        match answer.refusal() {
            // Too many attempts: nothing was looked at.
            Some(Code(-12)) => Err(self.line.throttled(A_WHILE)),
            // It does not know itself what went wrong.
            Some(Code(-52)) => Err(self.line.broken(reply.status, effect)),
            Some(code) => Ok(Err(code)),
            None if reply.status.is_success() => {
                let data = serde_json::from_value(answer.data).map_err(|_| self.line.broken(reply.status, effect))?;
                Ok(Ok(data))
            }
            None => Err(self.line.broken(reply.status, effect)),
        }
    }

    /// What it says of an authority: never whether the money is ours, only what became of it.
    async fn inquire(&self, authority: &str, due: &Due) -> Result<Option<Seen>, Failure> {
        if !is_authority(authority) {
            return Ok(None);
        }
        match self.call::<Inquired>("inquiry", json!({"authority": authority}), Effect::None).await? {
            Ok(inquired) => Ok(Some(self.seen(authority, due, inquired.state()))),
            Err(code) if code.is_foreign() => Ok(Some(self.foreign(authority, due))),
            Err(code) if code.is_unknown() => Ok(None),
            Err(code) => Err(code.into_failure()),
        }
    }

    /// Nothing is said of the amount: it is only told whether ours is right, when it is verified.
    fn seen(&self, authority: &str, due: &Due, state: PaymentState) -> Seen {
        Seen {
            state,
            provider_ref: authority.to_owned(),
            provider_txn: None,
            amount: None,
            currency: None,
            merchant: Some(self.settings.merchant_id.clone()),
            payment_id: Some(due.payment_id),
            paid_at: None,
            fee: None,
            card: None,
            differences: vec![],
        }
    }

    /// The authority was given to another merchant.
    fn foreign(&self, authority: &str, due: &Due) -> Seen {
        let seen = self.seen(authority, due, PaymentState::Open);
        Seen { merchant: None, payment_id: None, differences: vec![Difference::Merchant], ..seen }
    }

    fn verified(&self, authority: &str, due: &Due, verified: &Verified) -> Result<Seen, Failure> {
        // Without the number of the transaction it would be no payment that could be found again.
        let number = verified.ref_id.text().filter(|number| number != "0");
        let number = number.ok_or_else(|| {
            Failure::transient(
                flatrender_workflows::contracts::pay::UNREACHABLE,
                "ZarinPal verified a payment without its number",
            )
        })?;
        let fee = verified.fee.filter(|fee| *fee >= 0).and_then(|fee| money::from_rials(fee, &due.currency));
        Ok(Seen {
            provider_txn: Some(number),
            // It was asked with this amount of rials, and refuses any other.
            amount: Some(due.amount),
            currency: Some(due.currency.clone()),
            fee,
            card: verified.card_pan.as_deref().and_then(masked),
            ..self.seen(authority, due, PaymentState::Paid)
        })
    }

    async fn unverified(&self) -> Result<Unverified, Failure> {
        self.call::<Unverified>("unVerified", json!({}), Effect::None).await?.map_err(Code::into_failure)
    }
}

impl Adapter for Zarinpal<'_> {
    /// An authority that nobody was sent to expires: asking once more does no harm.
    async fn create(&self, ask: &CreatePayment) -> Result<Created, Failure> {
        let rials = money::to_rials(ask.due.amount, &ask.due.currency).map_err(|why| no_amount(why, &ask.due))?;
        let description: String = ask.description.chars().take(DESCRIPTION_CHARS).collect();
        let mut metadata = json!({"order_id": ask.due.payment_id});
        if let Some(email) = &ask.email {
            metadata["email"] = email.as_str().into();
        }
        let body = json!({
            "amount": rials,
            "currency": "IRR",
            "description": format!("{description} {}", ask.due.payment_id),
            "callback_url": ask.return_url,
            "metadata": metadata,
        });
        let requested = self.call::<Requested>("request", body, Effect::Some).await?.map_err(Code::into_failure)?;
        if !is_authority(&requested.authority) {
            return Err(self.line.silent(Effect::Some));
        }
        let page = format!("{}/pg/StartPay/{}", self.base, requested.authority);
        let redirect_url = Some(page);
        Ok(Created { provider_ref: requested.authority, redirect_url, instructions: None, expires_at: None })
    }

    async fn fetch(&self, ask: &FetchPayment) -> Result<Option<Seen>, Failure> {
        match &ask.by {
            By::Ref(authority) => self.inquire(authority, &ask.due).await,
            // What was not paid cannot be found by our id, and need not be.
            By::OurId(_) => {
                let paid = self.unverified().await?;
                let found = paid.authorities.iter().find(|paid| paid.payment_id() == Some(ask.due.payment_id));
                Ok(found.map(|paid| self.seen(&paid.authority, &ask.due, PaymentState::Authorized)))
            }
        }
    }

    async fn verify(&self, ask: &VerifyPayment) -> Result<Seen, Failure> {
        let (authority, due) = (ask.provider_ref.as_str(), &ask.due);
        let rials = money::to_rials(due.amount, &due.currency).map_err(|why| no_amount(why, due))?;
        if !is_authority(authority) {
            return Err(not_found());
        }
        let body = json!({"authority": authority, "amount": rials});
        // Asking again is answered with 101 instead of 100: nothing is lost when the answer is.
        match self.call::<Verified>("verify", body, Effect::Some).await? {
            Ok(verified) if verified.is_paid() => self.verified(authority, due, &verified),
            Ok(_) => Err(self.line.silent(Effect::Some)),
            // Not paid, or not this amount: which of them, and since when, is asked.
            Err(code @ Code(-50 | -51)) => {
                let seen = self.inquire(authority, due).await?.ok_or_else(not_found)?;
                let was_paid = seen.state == PaymentState::Authorized;
                Ok(match (code.0, was_paid) {
                    (-50, true) => {
                        let (state, differences) = (PaymentState::Paid, vec![Difference::Amount]);
                        Seen { state, differences, ..seen }
                    }
                    _ => seen,
                })
            }
            Err(code) if code.is_foreign() => Ok(self.foreign(authority, due)),
            Err(code) if code.is_unknown() => Err(not_found()),
            Err(code) => Err(code.into_failure()),
        }
    }

    /// It closes payments by itself, after some minutes. What was paid before that is ours only once it is verified.
    async fn expire(&self, ask: &ExpirePayment) -> Result<Seen, Failure> {
        let seen = self.inquire(&ask.provider_ref, &ask.due).await?.ok_or_else(not_found)?;
        if seen.state != PaymentState::Authorized {
            return Ok(seen);
        }
        let ExpirePayment { account, due, provider_ref } = ask.clone();
        self.verify(&VerifyPayment { account, due, provider_ref }).await
    }

    async fn refund(&self, ask: &RefundPayment) -> Result<RefundSeen, Failure> {
        match self.ledger() {
            Some(ledger) => ledger.refund(ask).await,
            None => Ok(by_hand(None)),
        }
    }

    async fn fetch_refund(&self, ask: &FetchRefund) -> Result<Option<RefundSeen>, Failure> {
        match self.ledger() {
            Some(ledger) => ledger.fetch_refund(ask).await,
            None => Ok(Some(by_hand(None))),
        }
    }

    async fn list_unsettled(&self, _: &ListUnsettled) -> Result<UnsettledList, Failure> {
        Ok(self.unverified().await?.into_list())
    }

    async fn list_settlements(&self, ask: &ListSettlements) -> Result<Statement, Failure> {
        match self.ledger() {
            Some(ledger) => ledger.statement(ask.day).await,
            None => Ok(Statement { told: false, lines: vec![], complete: true }),
        }
    }

    async fn check(&self) -> Result<GatewayFacts, Failure> {
        self.unverified().await?;
        let has_lists = match self.ledger() {
            Some(ledger) => {
                ledger.check().await?;
                true
            }
            None => false,
        };
        Ok(GatewayFacts { merchant: self.settings.merchant_id.clone(), refunds: has_lists, statements: has_lists })
    }
}

fn post(url: &str, body: &Value) -> Result<Request, Failure> {
    let url =
        Url::parse(url).map_err(|_| Failure::permanent(MERCHANT_CONFIG, "the address of ZarinPal cannot be used"))?;
    let mut request = Request::new(Method::POST, url);
    request.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    request.headers_mut().insert("accept", HeaderValue::from_static("application/json"));
    *request.body_mut() = Some(body.to_string().into());
    Ok(request)
}

/// Whether it can be an authority: 36 characters since version 4, of letters and digits; it stands in paths.
fn is_authority(text: &str) -> bool {
    (10..=64).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_alphanumeric())
}

/// A card as it was masked: six digits, stars, four digits. Anything else is not kept.
fn masked(pan: &str) -> Option<String> {
    let digits = pan.bytes().filter(u8::is_ascii_digit).count();
    let good = pan.len() == 16 && digits <= 10 && pan.bytes().all(|b| b.is_ascii_digit() || b == b'*');
    good.then(|| pan.to_owned())
}

fn not_found() -> Failure {
    Failure::permanent(NOT_FOUND, "ZarinPal has no such authority")
}

fn no_amount(why: NoAmount, due: &Due) -> Failure {
    match why {
        NoAmount::Currency => {
            Failure::permanent(CURRENCY, format!("ZarinPal takes IRR and IRT, and not {}", due.currency))
        }
        NoAmount::Amount => {
            Failure::permanent(AMOUNT_LIMITS, format!("ZarinPal does not take {} of {}", due.amount, due.currency))
        }
    }
}

impl Code {
    /// What a refusal means that is none of a single payment.
    fn into_failure(self) -> Failure {
        let code = match self.0 {
            // The merchant, its address, its state, its level, its site.
            -10 | -11 | -15 | -16 | -17 | -18 | -19 => MERCHANT_CONFIG,
            -13 | -41 => AMOUNT_LIMITS,
            // What was sent is not good: of that only the amount can be out of range.
            -9 => AMOUNT_LIMITS,
            _ => REFUSED,
        };
        Failure::permanent(code, format!("ZarinPal refused: {}", self.0))
    }

    /// Whether it is about an authority of somebody else's.
    fn is_foreign(self) -> bool {
        self.0 == -53
    }

    /// Whether there is no such authority.
    fn is_unknown(self) -> bool {
        matches!(self.0, -54 | -55)
    }
}

#[cfg(test)]
mod tests;
