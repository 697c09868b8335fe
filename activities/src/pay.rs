//! Asking payment gateways. One adapter a gateway says what it says, in our units and words; what follows from it is decided elsewhere.
//!
//! Everything goes out through the [`Egress`]. Where a gateway is, only whoever runs the platform says ([`Places`]); no tenant can.

mod adapter;
mod line;
mod manual;
pub mod money;
mod stripe;
mod zarinpal;

pub use stripe::webhook::sign as sign_stripe_webhook;

use crate::egress::Egress;
use adapter::{Adapter, Counter};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::{
    notify::Sealed,
    pay::{
        Account, CheckGateway, CreatePayment, Created, ExpirePayment, FetchPayment, FetchRefund, Gateway, GatewayFacts,
        ListSettlements, ListUnsettled, MERCHANT_CONFIG, RefundPayment, RefundSeen, Seen, Statement, UnsettledList,
        VerifyPayment,
        inbound::{Event, Inbound, Rejected},
        settings::Settings,
    },
};
use std::{fmt, sync::Arc, time::Duration};

/// How long one call to a gateway may take, from the name to the last byte.
pub const CALL: Duration = Duration::from_secs(15);

/// Opens what was sealed for a place; none when it does not open.
pub type Opener = Arc<dyn Fn(&Sealed) -> Option<Vec<u8>> + Send + Sync>;

/// Where the gateways are, without a slash at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Places {
    /// Stripe, live or not.
    pub stripe: String,
    /// ZarinPal's web service and its pages.
    pub zarinpal: String,
    /// The same where no money moves.
    pub zarinpal_sandbox: String,
    /// ZarinPal's lists and refunds (GraphQL); there is no sandbox of it.
    pub zarinpal_lists: String,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            stripe: "https://api.stripe.com".into(),
            zarinpal: "https://payment.zarinpal.com".into(),
            zarinpal_sandbox: "https://sandbox.zarinpal.com".into(),
            zarinpal_lists: "https://next.zarinpal.com/api/v4/graphql".into(),
        }
    }
}

impl Places {
    /// As the environment says: `FLATRENDER_STRIPE_URL`, `FLATRENDER_ZARINPAL_URL`, `FLATRENDER_ZARINPAL_SANDBOX_URL` and
    /// `FLATRENDER_ZARINPAL_LISTS_URL`; what it does not say is where everybody finds it. For tests, and for a relay of one's own.
    pub fn from_env() -> Self {
        let said = |name: &str, otherwise: String| match std::env::var(name) {
            Ok(url) if !url.trim().is_empty() => url.trim().trim_end_matches('/').to_owned(),
            _ => otherwise,
        };
        let usual = Self::default();
        Self {
            stripe: said("FLATRENDER_STRIPE_URL", usual.stripe),
            zarinpal: said("FLATRENDER_ZARINPAL_URL", usual.zarinpal),
            zarinpal_sandbox: said("FLATRENDER_ZARINPAL_SANDBOX_URL", usual.zarinpal_sandbox),
            zarinpal_lists: said("FLATRENDER_ZARINPAL_LISTS_URL", usual.zarinpal_lists),
        }
    }
}

/// Asks gateways. Cheap to clone.
#[derive(Clone)]
pub struct Cashier(Arc<Inner>, Arc<str>);

struct Inner {
    egress: Egress,
    places: Places,
    opener: Opener,
    owners: stripe::Owners,
}

impl fmt::Debug for Cashier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cashier").field("places", &self.0.places).finish_non_exhaustive()
    }
}

impl Cashier {
    /// One that goes out through `egress`, which should have the patience of [`CALL`], to `places`, and opens settings with `opener`.
    pub fn new(egress: Egress, places: Places, opener: Opener) -> Self {
        Self(Arc::new(Inner { egress, places, opener, owners: stripe::Owners::default() }), Arc::default())
    }

    /// The same, which sends payers back to `public_url` where a payment names only the page.
    #[must_use]
    pub fn reached_at(self, public_url: &str) -> Self {
        Self(self.0, public_url.trim_end_matches('/').into())
    }

    /// Whoever speaks to the gateway of an account.
    fn counter(&self, account: &Account) -> Result<Counter<'_>, Failure> {
        let unopened = |why: &str| {
            tracing::error!(gateway.id = %account.gateway_id, gateway = %account.gateway, why, "a payment gateway cannot be asked");
            Failure::permanent(MERCHANT_CONFIG, format!("gateway {} cannot be asked: {why}", account.gateway_id))
        };
        let json = (self.0.opener)(&account.settings).ok_or_else(|| unopened("its settings do not open"))?;
        let settings = Settings::read(account.gateway, account.mode, &json).map_err(|why| unopened(&why))?;
        Ok(Counter::new(&self.0.egress, &self.0.places, &self.0.owners, account, settings))
    }
}

/// Reads a webhook that a gateway sent to one of its accounts. Pure: it looks at nothing but what it is given.
///
/// # Errors
/// [`Rejected`]
pub fn read_webhook(gateway: Gateway, inbound: &Inbound<'_>) -> Result<Event, Rejected> {
    match gateway {
        Gateway::Stripe => stripe::webhook::read(inbound),
        Gateway::Zarinpal | Gateway::Manual => Err(Rejected::NotASender),
    }
}

macro_rules! asked {
    ($($activity:ident => $output:ty, |$counter:ident, $ask:ident| $call:expr;)*) => {$(
        impl Handler<$activity> for Cashier {
            async fn handle(&self, _: &Attempt, $ask: $activity) -> Result<$output, Failure> {
                let $counter = self.counter($ask.account())?;
                $call.await
            }
        }
    )*};
}

impl Handler<CreatePayment> for Cashier {
    async fn handle(&self, _: &Attempt, mut ask: CreatePayment) -> Result<Created, Failure> {
        if ask.return_url.starts_with('/') {
            ask.return_url.insert_str(0, &self.1);
        }
        self.counter(ask.account())?.create(&ask).await
    }
}

asked! {
    FetchPayment => Option<Seen>, |counter, ask| counter.fetch(&ask);
    VerifyPayment => Seen, |counter, ask| counter.verify(&ask);
    ExpirePayment => Seen, |counter, ask| counter.expire(&ask);
    RefundPayment => RefundSeen, |counter, ask| counter.refund(&ask);
    FetchRefund => Option<RefundSeen>, |counter, ask| counter.fetch_refund(&ask);
    ListUnsettled => UnsettledList, |counter, ask| counter.list_unsettled(&ask);
    ListSettlements => Statement, |counter, ask| counter.list_settlements(&ask);
    CheckGateway => GatewayFacts, |counter, ask| counter.check();
}
