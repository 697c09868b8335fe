//! A cashier, and the gateways that it asks.

use crate::fakes::{
    Movement,
    faults::{Call, Fault},
    stripe::{self, Pay, StripeFake},
    zarinpal::{self, ZarinpalFake},
};
use chrono::{TimeDelta, Utc};
use flatrender_activities::{
    egress::{Egress, Reach},
    pay::{Cashier, Places},
};
use flatrender_engine::{Activity, Attempt, Failure, Handler, LeasedTask};
use flatrender_workflows::contracts::{
    notify::Sealed,
    pay::{
        Account, By, CreatePayment, Created, Due, FetchPayment, FetchRefund, Gateway, Mode, PaymentState,
        RefundPayment, RefundSeen, Seen, VerifyPayment,
    },
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tempfile::TempDir;
use uuid::Uuid;

/// How long a gateway is waited for here.
pub const PATIENCE: Duration = Duration::from_millis(1500);

pub enum Fake {
    Stripe(StripeFake),
    Zarinpal(ZarinpalFake),
}

pub struct World {
    pub fake: Fake,
    pub cashier: Cashier,
    pub account: Account,
    _folder: TempDir,
}

/// A cashier that finds a gateway at `places`, whose settings are not sealed.
pub fn cashier(places: Places) -> Cashier {
    let opener = |sealed: &Sealed| hex::decode(&sealed.hex).ok();
    Cashier::new(Egress::new(Reach::Anywhere).with_patience(PATIENCE), places, Arc::new(opener))
}

pub fn account(gateway: Gateway, mode: Mode, settings: &Value) -> Account {
    let settings = Sealed::at("a test".into(), settings.to_string().as_bytes());
    Account { gateway_id: Uuid::from_u128(77), gateway, mode, settings }
}

/// The settings of an account that everything is allowed to.
pub fn settings(gateway: Gateway) -> Value {
    match gateway {
        Gateway::Stripe => json!({"secret_key": stripe::TEST_KEY, "webhook_secrets": [stripe::WEBHOOK_SECRET]}),
        Gateway::Zarinpal => json!({
            "merchant_id": zarinpal::MERCHANT, "access_token": zarinpal::TOKEN, "terminal_id": zarinpal::TERMINAL,
        }),
        Gateway::Manual => json!({"instructions": "To the account 1234", "merchant": "1234"}),
    }
}

/// Places that lead to one server, whatever is looked for.
pub fn places(url: &str) -> Places {
    let lists = format!("{url}/api/v4/graphql");
    Places { stripe: url.into(), zarinpal: url.into(), zarinpal_sandbox: url.into(), zarinpal_lists: lists }
}

impl World {
    pub fn stripe() -> Self {
        Self::new(Gateway::Stripe)
    }

    pub fn zarinpal() -> Self {
        Self::new(Gateway::Zarinpal)
    }

    pub fn new(gateway: Gateway) -> Self {
        let folder = TempDir::new().unwrap();
        let (fake, mode) = match gateway {
            Gateway::Stripe => (Fake::Stripe(StripeFake::start(folder.path())), Mode::Test),
            Gateway::Zarinpal => (Fake::Zarinpal(ZarinpalFake::start(folder.path())), Mode::Live),
            Gateway::Manual => unreachable!("nobody is asked"),
        };
        let cashier = cashier(places(fake.url()));
        Self { fake, cashier, account: account(gateway, mode, &settings(gateway)), _folder: folder }
    }

    pub fn as_stripe(&self) -> &StripeFake {
        match &self.fake {
            Fake::Stripe(fake) => fake,
            Fake::Zarinpal(_) => panic!("this is ZarinPal"),
        }
    }

    pub fn as_zarinpal(&self) -> &ZarinpalFake {
        match &self.fake {
            Fake::Zarinpal(fake) => fake,
            Fake::Stripe(_) => panic!("this is Stripe"),
        }
    }

    /// What somebody means to pay, which both gateways take.
    pub fn due(&self) -> Due {
        let (amount, currency) = match self.account.gateway {
            Gateway::Zarinpal => (250_000, "IRT"),
            _ => (1999, "USD"),
        };
        Due { payment_id: Uuid::new_v4(), amount, currency: currency.into() }
    }

    /// One attempt of an activity.
    pub async fn ask<A: Activity>(&self, ask: A, attempt_no: i32) -> Result<A::Output, Failure>
    where
        Cashier: Handler<A>,
    {
        attempt(&self.cashier, ask, attempt_no).await
    }

    /// As the engine does it: again until it works, or never will. How many attempts it took.
    pub async fn insist<A: Activity + Clone>(&self, ask: A) -> Result<(A::Output, i32), Failure>
    where
        Cashier: Handler<A>,
    {
        for attempt_no in 1..=6 {
            match self.ask(ask.clone(), attempt_no).await {
                Ok(output) => return Ok((output, attempt_no)),
                Err(failure) if !failure.retryable => return Err(failure),
                Err(_) => {}
            }
        }
        panic!("it never works");
    }

    pub fn create(&self, due: &Due) -> CreatePayment {
        CreatePayment {
            account: self.account.clone(),
            return_url: format!("http://127.0.0.1:1/v1/payments/{}/return", due.payment_id),
            due: due.clone(),
            description: "Plan Studio, one month".into(),
            expires_at: Utc::now() + TimeDelta::hours(23),
            email: Some("payer@example.com".into()),
            language: "en".into(),
        }
    }

    pub fn verify(&self, due: &Due, provider_ref: &str) -> VerifyPayment {
        VerifyPayment { account: self.account.clone(), due: due.clone(), provider_ref: provider_ref.into() }
    }

    pub fn fetch(&self, due: &Due, by: By) -> FetchPayment {
        FetchPayment { account: self.account.clone(), due: due.clone(), by }
    }

    pub fn refund(&self, due: &Due, paid: &Seen, amount: i64) -> RefundPayment {
        RefundPayment {
            account: self.account.clone(),
            refund_id: Uuid::new_v4(),
            due: due.clone(),
            provider_ref: paid.provider_ref.clone(),
            provider_txn: paid.provider_txn.clone().unwrap(),
            amount,
            since: Utc::now(),
        }
    }

    pub async fn find_refund(&self, refund: &RefundPayment, seen: Option<&RefundSeen>) -> Option<RefundSeen> {
        let provider_refund = seen.and_then(|seen| seen.provider_refund.clone());
        self.ask(FetchRefund { refund: refund.clone(), provider_refund }, 1).await.unwrap()
    }

    pub async fn open(&self, due: &Due) -> Created {
        self.insist(self.create(due)).await.unwrap().0
    }

    /// A payment as it was verified before.
    pub fn seen(&self, due: &Due, provider_ref: &str, provider_txn: &str) -> Seen {
        Seen {
            state: PaymentState::Paid,
            provider_ref: provider_ref.into(),
            provider_txn: Some(provider_txn.into()),
            amount: Some(due.amount),
            currency: Some(due.currency.clone()),
            merchant: None,
            payment_id: Some(due.payment_id),
            paid_at: None,
            fee: None,
            card: None,
            differences: vec![],
        }
    }

    /// A payment that is paid and verified.
    pub async fn paid(&self, due: &Due) -> Seen {
        let created = self.open(due).await;
        self.fake.pay(&created.provider_ref);
        self.insist(self.verify(due, &created.provider_ref)).await.unwrap().0
    }
}

/// One attempt of an activity by a cashier.
pub async fn attempt<A: Activity>(cashier: &Cashier, ask: A, attempt_no: i32) -> Result<A::Output, Failure>
where
    Cashier: Handler<A>,
{
    let task = LeasedTask {
        task_id: 1,
        run_id: Uuid::from_u128(1),
        tenant_id: Uuid::from_u128(2),
        key: "a step".into(),
        activity: A::NAME.into(),
        input: Value::Null,
        attempt_no,
        lease_token: Uuid::new_v4(),
        lease_seconds: 60.0,
        start_to_close_seconds: 60.0,
        traceparent: None,
    };
    let (attempt, _keeper) = Attempt::new(task);
    // As the engine does: what was asked, and what came of it, go through JSON.
    let ask: A = serde_json::from_value(serde_json::to_value(ask).unwrap()).unwrap();
    let output = cashier.handle(&attempt, ask).await?;
    Ok(serde_json::from_value(serde_json::to_value(output).unwrap()).unwrap())
}

impl Fake {
    pub fn url(&self) -> &str {
        match self {
            Self::Stripe(fake) => &fake.url,
            Self::Zarinpal(fake) => &fake.url,
        }
    }

    pub fn fail(&self, call: Call, fault: Fault) {
        match self {
            Self::Stripe(fake) => fake.fail(call, fault),
            Self::Zarinpal(fake) => fake.fail(call, fault),
        }
    }

    pub fn pay(&self, provider_ref: &str) -> String {
        match self {
            Self::Stripe(fake) => fake.pay(provider_ref),
            Self::Zarinpal(fake) => fake.pay(provider_ref),
        }
    }

    /// Somebody pays another amount, in the gateway's unit.
    pub fn pay_amount(&self, provider_ref: &str, amount: i64) {
        match self {
            Self::Stripe(fake) => fake.pay_with(provider_ref, Pay { amount: Some(amount), ..Pay::default() }),
            Self::Zarinpal(fake) => fake.pay_amount(provider_ref, amount),
        };
    }

    pub fn is_open(&self, provider_ref: &str) -> bool {
        match self {
            Self::Stripe(fake) => fake.is_open(provider_ref),
            Self::Zarinpal(fake) => fake.is_open(provider_ref),
        }
    }

    pub fn advance(&self, by: TimeDelta) {
        match self {
            Self::Stripe(fake) => fake.advance(by),
            Self::Zarinpal(fake) => fake.advance(by),
        }
    }

    pub fn mend(&self) {
        match self {
            Self::Stripe(fake) => fake.mend(),
            Self::Zarinpal(fake) => fake.mend(),
        }
    }

    pub fn captures(&self) -> Vec<Movement> {
        match self {
            Self::Stripe(fake) => fake.captures(),
            Self::Zarinpal(fake) => fake.captures(),
        }
    }

    pub fn refunds(&self) -> Vec<Movement> {
        match self {
            Self::Stripe(fake) => fake.refunds(),
            Self::Zarinpal(fake) => fake.refunds(),
        }
    }

    pub fn opened(&self) -> usize {
        match self {
            Self::Stripe(fake) => fake.opened(),
            Self::Zarinpal(fake) => fake.opened(),
        }
    }

    pub fn restart(&mut self) {
        match self {
            Self::Stripe(fake) => fake.restart(),
            Self::Zarinpal(fake) => fake.restart(),
        }
    }
}
