//! Stripe: Checkout Sessions, refunds, events and charges, by its documentation.

use super::{
    Movement,
    faults::{Call, Fault, Faults},
    server::{Server, post},
    store::Store,
    stripe_api::router,
    stripe_objects::{Charge, Event, Intent, Metadata, Refund, Session},
};
use chrono::{TimeDelta, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde_json::Value;
use sha2::Sha256;
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// The keys it knows.
pub const TEST_KEY: &str = "sk_test_flatrenderSECRETOFTESTS";
pub const LIVE_KEY: &str = "sk_live_flatrenderSECRETOFTESTS";
/// What signs its webhooks.
pub const WEBHOOK_SECRET: &str = "whsec_flatrenderSECRETOFTESTS";
/// Whose the keys are.
pub const ACCOUNT: &str = "acct_flatrender";

/// How somebody pays.
#[derive(Debug, Clone, Default)]
pub struct Pay {
    /// Another amount than was asked for.
    pub amount: Option<i64>,
    /// Another currency, in small letters.
    pub currency: Option<&'static str>,
    /// To another account.
    pub destination: Option<&'static str>,
    /// For another payment.
    pub payment: Option<String>,
}

pub(super) struct Inner {
    pub(super) store: Store,
    now: TimeDelta,
    pub(super) refunds_become: String,
    /// Of which payment, and where it is told of.
    pub(super) early: Option<(Option<String>, String)>,
}

pub(super) struct Books {
    pub(super) inner: Mutex<Inner>,
    pub(super) faults: Faults,
    pub(super) url: Mutex<String>,
}

/// A webhook as it is sent.
#[derive(Debug, Clone)]
pub struct Webhook {
    pub event_id: String,
    pub body: Vec<u8>,
    pub signature: String,
}

pub struct StripeFake {
    pub url: String,
    folder: PathBuf,
    books: Arc<Books>,
    server: Server,
}

impl StripeFake {
    /// Opens its books in a folder, and serves them.
    pub fn start(folder: &Path) -> Self {
        Self::serve(folder, 0)
    }

    fn serve(folder: &Path, port: u16) -> Self {
        let inner = Inner {
            store: Store::open(&folder.join("stripe.jsonl")),
            now: TimeDelta::zero(),
            refunds_become: "succeeded".into(),
            early: None,
        };
        let books = Arc::new(Books { inner: Mutex::new(inner), faults: Faults::default(), url: Mutex::default() });
        let server = Server::start(router(books.clone()), port);
        books.url.lock().unwrap().clone_from(&server.url);
        Self { url: server.url.clone(), folder: folder.to_owned(), books, server }
    }

    /// Cuts everybody off, and comes back with what it had written down.
    pub fn restart(&mut self) {
        self.server.stop();
        *self = Self::serve(&self.folder.clone(), self.server.port());
    }

    /// The next call of this kind goes wrong.
    pub fn fail(&self, call: Call, fault: Fault) {
        self.books.faults.add(call, fault);
    }

    /// The next call of this kind about a payment of ours does.
    pub fn fail_for(&self, payment: &str, call: Call, fault: Fault) {
        self.books.faults.add_for(payment.parse().unwrap(), call, fault);
    }

    pub fn mend(&self) {
        self.books.faults.clear();
    }

    /// Its clock goes this much further.
    pub fn advance(&self, by: TimeDelta) {
        self.books.inner.lock().unwrap().now += by;
    }

    /// The next payment is paid, and told of at this address, before its creation is answered.
    pub fn early(&self, url: &str) {
        self.books.inner.lock().unwrap().early = Some((None, url.to_owned()));
    }

    /// The same of a payment of ours, whenever it is opened.
    pub fn early_for(&self, payment: &str, url: &str) {
        self.books.inner.lock().unwrap().early = Some((Some(payment.to_owned()), url.to_owned()));
    }

    /// What becomes of refunds from now on: `succeeded`, `pending`, `failed`.
    pub fn refunds_become(&self, status: &str) {
        self.books.inner.lock().unwrap().refunds_become = status.to_owned();
    }

    /// Somebody pays; where their browser goes then.
    pub fn pay(&self, session: &str) -> String {
        self.pay_with(session, Pay::default())
    }

    pub fn pay_with(&self, session: &str, pay: Pay) -> String {
        self.books.inner.lock().unwrap().pay(session, pay, "succeeded")
    }

    /// Somebody pays by a way that takes days.
    pub fn pay_slowly(&self, session: &str) -> String {
        self.books.inner.lock().unwrap().pay(session, Pay::default(), "processing")
    }

    /// The bank has decided about what somebody paid slowly.
    pub fn decide(&self, session: &str, paid: bool) {
        self.books.inner.lock().unwrap().decide(session, paid);
    }

    /// Nobody paid in time.
    pub fn run_out(&self, session: &str) {
        self.books.inner.lock().unwrap().expire(session);
    }

    /// The bank says no, and the page says so: its payer may try another card.
    pub fn refuse(&self, session: &str) {
        self.books.inner.lock().unwrap().refuse(session);
    }

    /// A refund ends so; also one that was done, which its bank sends back.
    pub fn finish_refund(&self, refund: &str, status: &str) {
        let mut books = self.books.inner.lock().unwrap();
        let mut refund: Refund = books.store.get("refund", refund).unwrap();
        refund.status = status.to_owned();
        refund.failure_reason = (status == "failed").then(|| "expired_or_canceled_card".to_owned());
        books.keep_refund(&refund, "refund.updated");
        if status == "failed" {
            books.keep_refund(&refund, "refund.failed");
        }
    }

    /// The events, the oldest first.
    pub fn events(&self) -> Vec<(String, String)> {
        let events: Vec<Event> = self.books.inner.lock().unwrap().store.all("event");
        events.into_iter().map(|event| (event.id, event.kind)).collect()
    }

    /// An event as it is sent, signed now.
    pub fn webhook(&self, event_id: &str) -> Webhook {
        self.books.inner.lock().unwrap().webhook(event_id)
    }

    /// Sends an event; the status of the answer.
    pub fn send(&self, event_id: &str, url: &str) -> u16 {
        let webhook = self.webhook(event_id);
        post(url, ("stripe-signature", &webhook.signature), &webhook.body)
    }

    /// Every payment that was taken.
    pub fn captures(&self) -> Vec<Movement> {
        let books = self.books.inner.lock().unwrap();
        let charges: Vec<Charge> = books.store.all("charge");
        let taken = charges.into_iter().filter(|charge| charge.status == "succeeded");
        taken
            .map(|charge| {
                let intent: Intent = books.store.get("intent", &charge.intent).unwrap();
                movement(intent.session, charge.intent, &charge.metadata, charge.amount, &charge.currency)
            })
            .collect()
    }

    /// Every refund that was given, or is on its way.
    pub fn refunds(&self) -> Vec<Movement> {
        let books = self.books.inner.lock().unwrap();
        let refunds: Vec<Refund> = books.store.all("refund");
        let given = refunds.into_iter().filter(|refund| refund.status != "failed");
        given
            .map(|refund| {
                let intent: Intent = books.store.get("intent", &refund.intent).unwrap();
                movement(intent.session, refund.id, &refund.metadata, refund.amount, &refund.currency)
            })
            .collect()
    }

    /// A day has gone by: what was answered under a key is known no more.
    pub fn forget_keys(&self) {
        self.books.inner.lock().unwrap().store.forget("key");
    }

    /// Whether somebody may still pay.
    pub fn is_open(&self, session: &str) -> bool {
        self.books.inner.lock().unwrap().session(session).status == "open"
    }

    /// How many payments were ever opened.
    pub fn opened(&self) -> usize {
        self.books.inner.lock().unwrap().store.all::<Session>("session").len()
    }
}

/// Which payment of ours something is about.
pub(super) fn payment_of(metadata: &Metadata) -> Option<Uuid> {
    metadata.get("flatrender_payment")?.parse().ok()
}

fn movement(provider_ref: String, id: String, metadata: &Metadata, amount: i64, currency: &str) -> Movement {
    Movement { provider_ref, id, payment_id: payment_of(metadata), amount, currency: currency.to_ascii_uppercase() }
}

impl Inner {
    pub(super) fn now(&self) -> i64 {
        (Utc::now() + self.now).timestamp()
    }

    pub(super) fn id(&self, kind: &str) -> String {
        format!("{kind}_{:08}{}", self.store.number(), "fake")
    }

    pub(super) fn session(&self, id: &str) -> Session {
        self.store.get("session", id).unwrap()
    }

    fn tell(&mut self, kind: &str, live: bool, object: Value) -> String {
        let event = Event { id: self.id("evt"), kind: kind.into(), created: self.now(), live, object };
        self.store.put("event", &event.id, &event);
        event.id
    }

    pub(super) fn webhook(&self, event_id: &str) -> Webhook {
        let event: Event = self.store.get("event", event_id).unwrap();
        // As Stripe sends it: indented.
        let body = serde_json::to_vec_pretty(&event.to_json()).unwrap();
        let at = self.now();
        let mut mac = Hmac::<Sha256>::new_from_slice(WEBHOOK_SECRET.as_bytes()).unwrap();
        mac.update(format!("{at}.").as_bytes());
        mac.update(&body);
        let signature =
            format!("t={at},v1={},v0=6ffbb59b2300aae63f272406069a9788", hex::encode(mac.finalize().into_bytes()));
        Webhook { event_id: event.id, body, signature }
    }

    pub(super) fn pay(&mut self, id: &str, pay: Pay, status: &str) -> String {
        let mut session = self.session(id);
        if session.status != "open" {
            return session.success_url;
        }
        let metadata = match pay.payment {
            Some(payment) => [("flatrender_payment".to_owned(), payment)].into(),
            None => session.intent_metadata.clone(),
        };
        let is_paid = status == "succeeded";
        let currency = pay.currency.map_or(session.currency.clone(), str::to_owned);
        let amount = pay.amount.unwrap_or(session.amount);
        let (intent_id, charge_id) = (session.intent.clone().unwrap_or_else(|| self.id("pi")), self.id("ch"));
        let charge = Charge {
            id: charge_id.clone(),
            intent: intent_id.clone(),
            created: self.now(),
            amount,
            currency: currency.clone(),
            status: if is_paid { "succeeded" } else { "pending" }.into(),
            refunded: 0,
            metadata: metadata.clone(),
        };
        let intent = Intent {
            id: intent_id.clone(),
            session: id.to_owned(),
            status: status.to_owned(),
            received: if is_paid { amount } else { 0 },
            currency,
            destination: pay.destination.map(str::to_owned),
            metadata,
            charge: Some(charge_id),
        };
        session.status = "complete".into();
        session.payment_status = if is_paid { "paid" } else { "unpaid" }.into();
        session.intent = Some(intent_id);
        self.store.put("charge", &charge.id, &charge);
        self.store.put("intent", &intent.id, &intent);
        self.store.put("session", id, &session);
        if is_paid {
            self.tell("payment_intent.succeeded", session.live, intent.to_json());
        }
        self.tell("checkout.session.completed", session.live, session.to_json(""));
        session.success_url
    }

    fn refuse(&mut self, id: &str) {
        let mut session = self.session(id);
        let (intent_id, charge_id) = (session.intent.clone().unwrap_or_else(|| self.id("pi")), self.id("ch"));
        let (currency, metadata) = (session.currency.clone(), session.intent_metadata.clone());
        let charge = Charge {
            id: charge_id.clone(),
            intent: intent_id.clone(),
            created: self.now(),
            amount: session.amount,
            currency: currency.clone(),
            status: "failed".into(),
            refunded: 0,
            metadata: metadata.clone(),
        };
        let intent = Intent {
            id: intent_id.clone(),
            session: id.to_owned(),
            status: "requires_payment_method".into(),
            received: 0,
            currency,
            destination: None,
            metadata,
            charge: Some(charge_id),
        };
        session.intent = Some(intent_id);
        self.store.put("charge", &charge.id, &charge);
        self.store.put("intent", &intent.id, &intent);
        self.store.put("session", id, &session);
        self.tell("payment_intent.payment_failed", session.live, intent.to_json());
    }

    fn decide(&mut self, id: &str, paid: bool) {
        let mut session = self.session(id);
        let mut intent: Intent = self.store.get("intent", session.intent.as_deref().unwrap()).unwrap();
        let mut charge: Charge = self.store.get("charge", intent.charge.as_deref().unwrap()).unwrap();
        if paid {
            (intent.status, intent.received) = ("succeeded".into(), charge.amount);
            (charge.status, session.payment_status) = ("succeeded".into(), "paid".into());
        } else {
            (intent.status, charge.status) = ("requires_payment_method".into(), "failed".into());
        }
        self.store.put("charge", &charge.id, &charge);
        self.store.put("intent", &intent.id, &intent);
        self.store.put("session", id, &session);
        let kind = if paid { "succeeded" } else { "failed" };
        self.tell(&format!("checkout.session.async_payment_{kind}"), session.live, session.to_json(""));
    }

    pub(super) fn expire(&mut self, id: &str) {
        let mut session = self.session(id);
        session.status = "expired".into();
        self.store.put("session", id, &session);
        self.tell("checkout.session.expired", session.live, session.to_json(""));
    }

    pub(super) fn keep_refund(&mut self, refund: &Refund, kind: &str) {
        self.store.put("refund", &refund.id, refund);
        let mut intent: Intent = self.store.get("intent", &refund.intent).unwrap();
        let mut charge: Charge = self.store.get("charge", intent.charge.as_deref().unwrap()).unwrap();
        let all: Vec<Refund> = self.store.all("refund");
        let given = all.iter().filter(|other| other.intent == refund.intent && other.status != "failed");
        charge.refunded = given.map(|other| other.amount).sum();
        self.store.put("charge", &charge.id, &charge);
        intent.charge = Some(charge.id);
        let live = self.session(&intent.session).live;
        self.tell(kind, live, refund.to_json());
    }
}
