//! What may be asked of a payment gateway. Amounts are ours, from the price that was frozen when somebody decided to pay: in minor units
//! of ISO 4217 (`USD` 1 = a cent, `JPY` 1 = a yen), `IRR` and `IRT` in whole rials and tomans. What a gateway counts in is its adapter's
//! concern.
//!
//! No activity moves money in our books: it says what the gateway says. Whatever is asked may have been asked before, by this task or
//! another: the gateway is asked for what came of that before money could move twice.
//!
//! ```text
//!   CreatePayment ──▶ Created ──▶ somebody pays ──▶ VerifyPayment ──▶ Seen: paid, and everything compared? ──▶ settle
//!                                                     ▲ asked for by a callback, a webhook, a timer: each of them only a hint
//! ```

mod gateway;
pub mod inbound;
pub mod settings;

pub use gateway::{Gateway, Mode};

use super::notify::Sealed;
use chrono::{DateTime, NaiveDate, Utc};
use flatrender_engine::{Activity, Failure, Policy};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// Where gateways are asked from.
pub const PAY_QUEUE: &str = "net.pay";

/// For good: the gateway does not know the account, or its settings do not open or are none.
pub const MERCHANT_CONFIG: &str = "pay.merchant_config";
/// For good: the amount is too small, too large, or none in the gateway's unit.
pub const AMOUNT_LIMITS: &str = "pay.amount_limits";
/// For good: the gateway or its account does not take this currency.
pub const CURRENCY: &str = "pay.currency";
/// For good: the gateway has no such payment or refund, for this account.
pub const NOT_FOUND: &str = "pay.not_found";
/// For good: refused for another reason.
pub const REFUSED: &str = "pay.refused";
/// For good, as the code of a payment that failed: whoever pays for the payer said no.
pub const DECLINED: &str = "pay.declined";
/// For good, as the code of a payment that failed: the payer went away.
pub const CANCELLED: &str = "pay.cancelled";
/// For good, of a refund: the gateway cannot do it, a person has to.
pub const REFUND_BY_HAND: &str = "pay.refund_by_hand";
/// It may have happened: the gateway was sent it and gave no answer that tells. The next attempt asks first; when the last one ends so,
/// nobody knows yet, and reconciliation has to find out.
pub const UNKNOWN_OUTCOME: &str = "pay.unknown_outcome";
/// Not now: the gateway said when.
pub const THROTTLED: &str = "pay.throttled";
/// Nothing happened: the gateway was not reached, or a question to it was not answered.
pub const UNREACHABLE: &str = "pay.unreachable";

/// What a failure means for whoever asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Class {
    /// It will fail again.
    Permanent,
    /// It may have happened.
    UnknownOutcome,
    /// Nothing happened, and it may work another time.
    Transient,
}

/// What a failure of an activity of this file means.
pub fn class_of(failure: &Failure) -> Class {
    match failure.code.as_str() {
        UNKNOWN_OUTCOME => Class::UnknownOutcome,
        THROTTLED | UNREACHABLE => Class::Transient,
        // A worker that was lost while it asked: who knows what it had sent.
        code if code.starts_with("workflow.") => Class::UnknownOutcome,
        _ if failure.retryable => Class::Transient,
        _ => Class::Permanent,
    }
}

/// An account of a tenant at a gateway.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// Our id of it.
    pub gateway_id: Uuid,
    /// At which gateway.
    pub gateway: Gateway,
    /// Whether money moves.
    pub mode: Mode,
    /// Its [`settings::Settings`] as JSON.
    pub settings: Sealed,
}

/// What somebody means to pay: what the gateway says is compared with this.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Due {
    /// Our payment.
    pub payment_id: Uuid,
    /// How much, in minor units.
    pub amount: i64,
    /// Of what: three capital letters.
    pub currency: String,
}

/// Opens a payment at the gateway. A repeat opens the same one, or one that nobody was sent to: the first answer counts. Fails for good
/// with [`MERCHANT_CONFIG`], [`AMOUNT_LIMITS`], [`CURRENCY`] or [`REFUSED`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CreatePayment {
    /// At whom.
    pub account: Account,
    /// What for.
    pub due: Due,
    /// What the payer reads, at most 200 characters.
    pub description: String,
    /// Where the payer comes back to: a page of ours whose path holds the id of the payment, and nothing secret.
    pub return_url: String,
    /// When it is too late to pay. Gateways have limits of their own: what they make of it is in [`Created`].
    pub expires_at: DateTime<Utc>,
    /// The payer's address, for a receipt of the gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub email: Option<String>,
    /// The payer's language, by BCP 47.
    pub language: String,
}

/// A payment that waits for its payer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Created {
    /// What the gateway calls it; at [`Gateway::Manual`] the code that belongs on the transfer. At most 255 bytes.
    pub provider_ref: String,
    /// Where the payer is sent; none at [`Gateway::Manual`].
    pub redirect_url: Option<String>,
    /// What the payer is told instead: the account, and the code.
    pub instructions: Option<String>,
    /// When the gateway closes it, where it says so.
    pub expires_at: Option<DateTime<Utc>>,
}

/// How a payment is asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum By {
    /// By what the gateway calls it.
    Ref(String),
    /// By our id: it was created, if it was, after this.
    OurId(DateTime<Utc>),
}

/// Looks at a payment without moving anything: none when the gateway has no such payment. ZarinPal only says [`PaymentState::Authorized`]
/// of what was paid: [`VerifyPayment`] says the rest.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchPayment {
    /// At whom.
    pub account: Account,
    /// What is expected of it.
    pub due: Due,
    /// How it is asked for.
    pub by: By,
}

/// Has the gateway say that it was paid, and captures it where that takes a word of ours. Repeatable: the same answer each time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyPayment {
    /// At whom.
    pub account: Account,
    /// What is expected of it.
    pub due: Due,
    /// What the gateway calls it.
    pub provider_ref: String,
}

/// Closes a payment that nobody shall pay any more, where the gateway can; one that was paid meanwhile stays paid, and is seen so: verified
/// where that takes a word of ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExpirePayment {
    /// At whom.
    pub account: Account,
    /// What is expected of it.
    pub due: Due,
    /// What the gateway calls it.
    pub provider_ref: String,
}

/// What a gateway says of a payment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PaymentState {
    /// Nobody has paid yet; they may.
    Open,
    /// Paid, and the gateway waits for [`VerifyPayment`]; until then it may give the money back.
    Authorized,
    /// The bank has not said yes yet, which may take days.
    Processing,
    /// Paid.
    Paid,
    /// Whoever pays for the payer said no: [`DECLINED`].
    Declined,
    /// The payer went away: [`CANCELLED`].
    Cancelled,
    /// Nobody paid in time.
    Expired,
    /// Paid, and all of it was given back.
    Refunded,
}

impl PaymentState {
    /// Whether nothing will come of it any more.
    pub fn is_over(self) -> bool {
        matches!(self, Self::Declined | Self::Cancelled | Self::Expired | Self::Refunded)
    }
}

/// What is not as it was meant: no money of ours moves, and a person looks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Difference {
    /// How much.
    Amount,
    /// Of what.
    Currency,
    /// Who gets it.
    Merchant,
    /// What it is for: another payment of ours, or nobody's.
    Payment,
    /// Play money for a live account, or the other way round.
    Mode,
}

/// A payment as the gateway has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// What became of it.
    pub state: PaymentState,
    /// What the gateway calls it.
    pub provider_ref: String,
    /// What the gateway calls the movement of money; there when it is paid.
    pub provider_txn: Option<String>,
    /// How much was paid, in minor units of `currency`; none when the gateway only says whether ours is right.
    pub amount: Option<i64>,
    /// Of what.
    pub currency: Option<String>,
    /// Who got it, as the gateway calls the account.
    pub merchant: Option<String>,
    /// Which of our payments it is for, as the gateway was told.
    pub payment_id: Option<Uuid>,
    /// When it was paid, where the gateway says so.
    pub paid_at: Option<DateTime<Utc>>,
    /// What the gateway keeps for itself, in minor units of `currency`, where it says so.
    pub fee: Option<i64>,
    /// The card, masked, where the gateway says so: never more than the last four digits and the first six.
    pub card: Option<String>,
    /// What is not as it was meant, as far as the gateway and its adapter can tell. Empty while nothing was paid, but for what belongs
    /// to another merchant: whether that was paid is not told.
    pub differences: Vec<Difference>,
}

impl Seen {
    /// Whether it is paid, and for `due`, to the unit: only then do we deliver. It looks at everything again, and trusts no list.
    pub fn settles(&self, due: &Due) -> bool {
        self.state == PaymentState::Paid
            && self.provider_txn.is_some()
            && self.differences.is_empty()
            && self.amount == Some(due.amount)
            && self.currency.as_deref() == Some(due.currency.as_str())
            && self.payment_id == Some(due.payment_id)
    }

    /// Whether something came that is not what was meant: a person looks.
    pub fn needs_review(&self, due: &Due) -> bool {
        self.state == PaymentState::Paid && !self.settles(due) || !self.differences.is_empty()
    }

    /// The code of a payment that ended so; none when it did not fail.
    pub fn failure_code(&self) -> Option<&'static str> {
        match self.state {
            PaymentState::Declined => Some(DECLINED),
            PaymentState::Cancelled => Some(CANCELLED),
            _ => None,
        }
    }
}

/// Gives money back. A repeat, also by another task and another day, asks for the same refund: money goes back once. Where the gateway
/// knows no keys ([`Gateway::knows_keys`]) that holds once it shows what it was told: after [`UNKNOWN_OUTCOME`] it is only looked for, by
/// [`FetchRefund`]. Fails for good with [`MERCHANT_CONFIG`] or [`NOT_FOUND`]; a refusal is an outcome, not a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundPayment {
    /// At whom.
    pub account: Account,
    /// Our refund.
    pub refund_id: Uuid,
    /// What was paid.
    pub due: Due,
    /// What the gateway calls the payment.
    pub provider_ref: String,
    /// What the gateway calls the movement of money.
    pub provider_txn: String,
    /// How much goes back, in minor units of what was paid.
    pub amount: i64,
    /// When we decided so: it is looked for from then on.
    pub since: DateTime<Utc>,
}

/// Looks at a refund: none when the gateway has no such refund.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FetchRefund {
    /// What was asked for.
    pub refund: RefundPayment,
    /// What the gateway calls it, where it has said so.
    pub provider_refund: Option<String>,
}

/// What became of a refund.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundState {
    /// The money is on its way to the payer, and stays so.
    Done,
    /// The gateway has taken it on, and may still fail: ask again later.
    Pending,
    /// It will not happen: `refusal` says why. A person has to decide.
    Refused,
}

/// A refund as the gateway has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RefundSeen {
    /// What became of it.
    pub state: RefundState,
    /// What the gateway calls it.
    pub provider_refund: Option<String>,
    /// How much goes back, in minor units; none when it was refused before it was anything.
    pub amount: Option<i64>,
    /// Why it was refused: [`REFUND_BY_HAND`] or [`REFUSED`].
    pub refusal: Option<String>,
    /// The gateway's own word for it, for the person who has to decide; at most 200 characters.
    pub detail: Option<String>,
}

/// Lists what was paid since, and may have been missed: at Stripe everything that was paid, at ZarinPal what was paid and never verified.
/// Whoever asks knows what is settled already.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListUnsettled {
    /// At whom.
    pub account: Account,
    /// Since when; at most thirty days ago. ZarinPal tells of the last hundred, whenever they were.
    pub since: DateTime<Utc>,
}

/// Something that was paid.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unsettled {
    /// What the gateway calls it.
    pub provider_ref: String,
    /// Which of our payments it is for, as the gateway was told; none when it is nobody's, such as of another system at this account.
    pub payment_id: Option<Uuid>,
    /// How much, in minor units.
    pub amount: i64,
    /// Of what; `IRR` at ZarinPal, whatever the price was in.
    pub currency: String,
    /// When, where the gateway says so.
    pub at: Option<DateTime<Utc>>,
}

/// What was paid and may have been missed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnsettledList {
    /// At most 1000.
    pub payments: Vec<Unsettled>,
    /// Whether these are all: a gateway may tell of the last hundred only.
    pub complete: bool,
}

/// Lists the movements of money of one day, for the comparison with ours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListSettlements {
    /// At whom.
    pub account: Account,
    /// From midnight to midnight, UTC.
    pub day: NaiveDate,
}

/// A movement of money.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Settlement {
    /// Whether it came or went.
    pub kind: SettlementKind,
    /// What the gateway calls it: the `provider_txn` of a payment, the `provider_refund` of a refund. At ZarinPal it is the number of
    /// the session for both: match by `payment_id`.
    pub provider_txn: String,
    /// Which of our payments it is for, as the gateway was told.
    pub payment_id: Option<Uuid>,
    /// How much, in minor units, never negative.
    pub amount: i64,
    /// Of what; `IRR` at ZarinPal.
    pub currency: String,
    /// When.
    pub at: DateTime<Utc>,
}

/// Which way money moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum SettlementKind {
    /// To us.
    Payment,
    /// Back to a payer.
    Refund,
}

/// The movements of a day.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Statement {
    /// Whether the gateway tells at all; not at [`Gateway::Manual`], and at ZarinPal only to an account with a token.
    pub told: bool,
    /// The movements, at most 10 000.
    pub lines: Vec<Settlement>,
    /// Whether these are all.
    pub complete: bool,
}

/// Looks whether an account can take money. Fails for good with [`MERCHANT_CONFIG`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckGateway {
    /// Which.
    pub account: Account,
}

/// An account as its gateway has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatewayFacts {
    /// What the gateway calls it.
    pub merchant: String,
    /// Whether it can give money back by itself.
    pub refunds: bool,
    /// Whether it tells of the movements of a day.
    pub statements: bool,
}

/// One attempt may ask first and send then, and look up whose the account is: three calls of fifteen seconds.
const ATTEMPT: Duration = Duration::from_secs(50);

/// R-short: somebody waits.
fn short() -> Policy {
    Policy {
        max_failures: 8,
        max_losses: 10,
        backoff_base: Duration::from_secs(1),
        backoff_cap: Duration::from_secs(60),
        start_to_close: ATTEMPT,
        ..Policy::default()
    }
}

/// R-pay: it matters more that it works than when.
fn patient() -> Policy {
    Policy { max_failures: 12, backoff_base: Duration::from_secs(5), backoff_cap: Duration::from_secs(7200), ..short() }
}

/// What may not be sent twice is tried once; whoever asked decides what then.
fn once() -> Policy {
    Policy { max_failures: 1, max_losses: 1, ..short() }
}

macro_rules! asked_of_a_gateway {
    ($($activity:ident => $output:ty, $policy:expr;)*) => {$(
        impl Activity for $activity {
            const NAME: &'static str = stringify!($activity);
            const QUEUE: &'static str = PAY_QUEUE;
            type Output = $output;

            fn policy(&self) -> Policy {
                let policy: fn(&Self) -> Policy = $policy;
                policy(self)
            }

            fn limit_key(&self) -> Option<String> {
                Some(self.account().gateway_id.to_string())
            }
        }
    )*};
}

macro_rules! with_an_account {
    ($($activity:ident)*) => {$(
        impl $activity {
            /// At whom.
            pub fn account(&self) -> &Account {
                &self.account
            }
        }
    )*};
}

with_an_account! { CreatePayment FetchPayment VerifyPayment ExpirePayment RefundPayment ListUnsettled ListSettlements CheckGateway }

impl FetchRefund {
    /// At whom.
    pub fn account(&self) -> &Account {
        &self.refund.account
    }
}

asked_of_a_gateway! {
    CreatePayment => Created, |_| short();
    FetchPayment => Option<Seen>, |_| short();
    VerifyPayment => Seen, |_| patient();
    ExpirePayment => Seen, |_| short();
    RefundPayment => RefundSeen, |ask| if ask.account.gateway.knows_keys() { patient() } else { once() };
    FetchRefund => Option<RefundSeen>, |_| short();
    ListUnsettled => UnsettledList, |_| short();
    ListSettlements => Statement, |_| short();
    CheckGateway => GatewayFacts, |_| short();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due() -> Due {
        Due { payment_id: Uuid::from_u128(7), amount: 1999, currency: "USD".into() }
    }

    fn paid() -> Seen {
        Seen {
            state: PaymentState::Paid,
            provider_ref: "cs_1".into(),
            provider_txn: Some("pi_1".into()),
            amount: Some(1999),
            currency: Some("USD".into()),
            merchant: Some("acct_1".into()),
            payment_id: Some(Uuid::from_u128(7)),
            paid_at: None,
            fee: None,
            card: None,
            differences: vec![],
        }
    }

    #[test]
    fn only_what_is_right_to_the_unit_settles_and_other_money_is_looked_at() {
        assert!(paid().settles(&due()) && !paid().needs_review(&due()));
        let changed = |change: fn(&mut Seen)| {
            let mut seen = paid();
            change(&mut seen);
            seen
        };
        for wrong in [
            changed(|seen| seen.amount = Some(1998)),
            changed(|seen| seen.amount = None),
            changed(|seen| seen.currency = Some("usd".into())),
            changed(|seen| seen.currency = None),
            changed(|seen| seen.payment_id = None),
            changed(|seen| seen.payment_id = Some(Uuid::nil())),
            changed(|seen| seen.provider_txn = None),
            changed(|seen| seen.differences = vec![Difference::Merchant]),
        ] {
            assert!(!wrong.settles(&due()) && wrong.needs_review(&due()), "{wrong:?}");
        }
        for state in [PaymentState::Open, PaymentState::Authorized, PaymentState::Processing, PaymentState::Refunded] {
            let seen = Seen { state, ..paid() };
            assert!(!seen.settles(&due()) && !seen.needs_review(&due()), "{state:?}");
        }
    }

    #[test]
    fn a_lost_worker_may_have_sent_it_and_a_throttled_one_has_not() {
        let class = |code: &str, retryable| class_of(&Failure { retryable, ..Failure::permanent(code, "") });
        assert_eq!(class(UNKNOWN_OUTCOME, true), Class::UnknownOutcome);
        assert_eq!(class("workflow.poison", false), Class::UnknownOutcome);
        assert_eq!(class(THROTTLED, true), Class::Transient);
        assert_eq!(class(UNREACHABLE, true), Class::Transient);
        for code in [MERCHANT_CONFIG, AMOUNT_LIMITS, CURRENCY, NOT_FOUND, REFUSED, DECLINED, CANCELLED] {
            assert_eq!(class(code, false), Class::Permanent, "{code}");
        }
    }
}
