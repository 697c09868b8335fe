//! A bank transfer: the payer is told an account and a code, and people look whether it has come. Nobody is asked.

use super::adapter::Adapter;
use flatrender_engine::Failure;
use flatrender_workflows::contracts::pay::{
    By, CreatePayment, Created, ExpirePayment, FetchPayment, FetchRefund, GatewayFacts, ListSettlements, ListUnsettled,
    PaymentState, REFUND_BY_HAND, RefundPayment, RefundSeen, RefundState, Seen, Statement, UnsettledList,
    VerifyPayment, settings::Manual,
};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// The digits of Crockford's base 32: none looks like another.
const DIGITS: &[u8; 32] = b"0123456789ABCDEFGHJKMNPQRSTVWXYZ";
/// Sixty bits: a million payments have the same code twice once in two million installations.
const LETTERS: usize = 12;

pub(super) struct Transfer {
    settings: Manual,
}

impl Transfer {
    pub(super) fn new(settings: Manual) -> Self {
        Self { settings }
    }

    /// Nobody says what was paid: a person does, elsewhere.
    fn seen(&self, payment_id: Uuid, provider_ref: &str) -> Seen {
        Seen {
            state: PaymentState::Open,
            provider_ref: provider_ref.to_owned(),
            provider_txn: None,
            amount: None,
            currency: None,
            merchant: Some(self.settings.merchant.clone()),
            payment_id: Some(payment_id),
            paid_at: None,
            fee: None,
            card: None,
            differences: vec![],
        }
    }
}

/// The code that belongs on the transfer for a payment: always the same, and told by nothing else.
fn code(payment_id: Uuid) -> String {
    let hash = Sha256::digest(payment_id.as_bytes());
    let bits = hash.iter().take(8).fold(0_u64, |bits, byte| (bits << 8) | u64::from(*byte));
    let letters: Vec<u8> = (0..LETTERS).map(|n| DIGITS[((bits >> (n * 5)) & 31) as usize]).collect();
    let parts: Vec<String> = letters.chunks(4).map(|part| String::from_utf8_lossy(part).into_owned()).collect();
    format!("FR-{}", parts.join("-"))
}

impl Adapter for Transfer {
    async fn create(&self, ask: &CreatePayment) -> Result<Created, Failure> {
        let code = code(ask.due.payment_id);
        let instructions = Some(format!("{}\n{code}", self.settings.instructions));
        Ok(Created { provider_ref: code, redirect_url: None, instructions, expires_at: Some(ask.expires_at) })
    }

    async fn fetch(&self, ask: &FetchPayment) -> Result<Option<Seen>, Failure> {
        let code = code(ask.due.payment_id);
        let known = match &ask.by {
            By::Ref(provider_ref) => *provider_ref == code,
            By::OurId(_) => true,
        };
        Ok(known.then(|| self.seen(ask.due.payment_id, &code)))
    }

    async fn verify(&self, ask: &VerifyPayment) -> Result<Seen, Failure> {
        Ok(self.seen(ask.due.payment_id, &ask.provider_ref))
    }

    async fn expire(&self, ask: &ExpirePayment) -> Result<Seen, Failure> {
        Ok(Seen { state: PaymentState::Expired, ..self.seen(ask.due.payment_id, &ask.provider_ref) })
    }

    async fn refund(&self, _: &RefundPayment) -> Result<RefundSeen, Failure> {
        Ok(by_hand(None))
    }

    async fn fetch_refund(&self, _: &FetchRefund) -> Result<Option<RefundSeen>, Failure> {
        Ok(Some(by_hand(None)))
    }

    async fn list_unsettled(&self, _: &ListUnsettled) -> Result<UnsettledList, Failure> {
        Ok(UnsettledList { payments: vec![], complete: true })
    }

    async fn list_settlements(&self, _: &ListSettlements) -> Result<Statement, Failure> {
        Ok(Statement { told: false, lines: vec![], complete: true })
    }

    async fn check(&self) -> Result<GatewayFacts, Failure> {
        Ok(GatewayFacts { merchant: self.settings.merchant.clone(), refunds: false, statements: false })
    }
}

/// A refund that a person has to make.
pub(super) fn by_hand(why: Option<String>) -> RefundSeen {
    RefundSeen {
        state: RefundState::Refused,
        provider_refund: None,
        amount: None,
        refusal: Some(REFUND_BY_HAND.to_owned()),
        detail: why,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn a_payment_has_one_code_and_no_other_has_it() {
        assert_eq!(code(Uuid::nil()), code(Uuid::nil()));
        let codes: HashSet<String> = (0..20_000).map(|n| code(Uuid::from_u128(n))).collect();
        assert_eq!(codes.len(), 20_000);
        let fits = |code: &String| {
            code.len() == 17 && code.starts_with("FR-") && code.bytes().all(|b| b == b'-' || DIGITS.contains(&b))
        };
        assert!(codes.iter().all(fits), "{:?}", codes.iter().next());
    }
}
