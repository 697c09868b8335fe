//! What every gateway can be asked, and which of them is.

use super::{
    Places,
    manual::Transfer,
    stripe::{Owners, Stripe},
    zarinpal::Zarinpal,
};
use crate::egress::Egress;
use flatrender_engine::Failure;
use flatrender_workflows::contracts::pay::{
    Account, CreatePayment, Created, ExpirePayment, FetchPayment, FetchRefund, GatewayFacts, ListSettlements,
    ListUnsettled, RefundPayment, RefundSeen, Seen, Statement, UnsettledList, VerifyPayment, settings::Settings,
};

/// One account at one gateway. Whatever it is asked, it may have been asked before: it looks first where a repeat could do harm.
pub(super) trait Adapter {
    async fn create(&self, ask: &CreatePayment) -> Result<Created, Failure>;
    async fn fetch(&self, ask: &FetchPayment) -> Result<Option<Seen>, Failure>;
    async fn verify(&self, ask: &VerifyPayment) -> Result<Seen, Failure>;
    async fn expire(&self, ask: &ExpirePayment) -> Result<Seen, Failure>;
    async fn refund(&self, ask: &RefundPayment) -> Result<RefundSeen, Failure>;
    async fn fetch_refund(&self, ask: &FetchRefund) -> Result<Option<RefundSeen>, Failure>;
    async fn list_unsettled(&self, ask: &ListUnsettled) -> Result<UnsettledList, Failure>;
    async fn list_settlements(&self, ask: &ListSettlements) -> Result<Statement, Failure>;
    async fn check(&self) -> Result<GatewayFacts, Failure>;
}

/// Whoever speaks to the gateway of an account.
pub(super) enum Counter<'a> {
    Stripe(Stripe<'a>),
    Zarinpal(Zarinpal<'a>),
    Manual(Transfer),
}

impl<'a> Counter<'a> {
    pub(super) fn new(
        egress: &'a Egress,
        places: &'a Places,
        owners: &'a Owners,
        account: &Account,
        settings: Settings,
    ) -> Self {
        let (id, mode) = (account.gateway_id, account.mode);
        match settings {
            Settings::Stripe(settings) => Self::Stripe(Stripe::new(egress, &places.stripe, owners, id, mode, settings)),
            Settings::Zarinpal(settings) => Self::Zarinpal(Zarinpal::new(egress, places, mode, settings)),
            Settings::Manual(settings) => Self::Manual(Transfer::new(settings)),
        }
    }
}

macro_rules! each {
    ($self:ident, $adapter:ident => $call:expr) => {
        match $self {
            Counter::Stripe($adapter) => $call.await,
            Counter::Zarinpal($adapter) => $call.await,
            Counter::Manual($adapter) => $call.await,
        }
    };
}

impl Adapter for Counter<'_> {
    async fn create(&self, ask: &CreatePayment) -> Result<Created, Failure> {
        each!(self, adapter => adapter.create(ask))
    }

    async fn fetch(&self, ask: &FetchPayment) -> Result<Option<Seen>, Failure> {
        each!(self, adapter => adapter.fetch(ask))
    }

    async fn verify(&self, ask: &VerifyPayment) -> Result<Seen, Failure> {
        each!(self, adapter => adapter.verify(ask))
    }

    async fn expire(&self, ask: &ExpirePayment) -> Result<Seen, Failure> {
        each!(self, adapter => adapter.expire(ask))
    }

    async fn refund(&self, ask: &RefundPayment) -> Result<RefundSeen, Failure> {
        each!(self, adapter => adapter.refund(ask))
    }

    async fn fetch_refund(&self, ask: &FetchRefund) -> Result<Option<RefundSeen>, Failure> {
        each!(self, adapter => adapter.fetch_refund(ask))
    }

    async fn list_unsettled(&self, ask: &ListUnsettled) -> Result<UnsettledList, Failure> {
        each!(self, adapter => adapter.list_unsettled(ask))
    }

    async fn list_settlements(&self, ask: &ListSettlements) -> Result<Statement, Failure> {
        each!(self, adapter => adapter.list_settlements(ask))
    }

    async fn check(&self) -> Result<GatewayFacts, Failure> {
        each!(self, adapter => adapter.check())
    }
}
