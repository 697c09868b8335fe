//! ZarinPal: the web service of version 4, its payment page, and the lists and refunds (GraphQL) of an account with a token.

use super::{
    Movement,
    faults::{Call, Fault, Faults},
    server::Server,
    store::Store,
};
use axum::{
    Json, Router,
    extract::{Path as At, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post},
};
use chrono::{DateTime, FixedOffset, TimeDelta, Utc};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::{
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};
use uuid::Uuid;

/// The merchant that we are.
pub const MERCHANT: &str = "1344b5d4-0048-11e8-94db-005056a205be";
/// Another one.
pub const OTHER_MERCHANT: &str = "9d0ec2fc-6a5b-11e8-bb16-005056a205be";
pub const TOKEN: &str = "eyJ.SECRETOFTESTS";
pub const TERMINAL: &str = "1915487";
const TEHRAN_SECONDS: i32 = 12_600;

#[derive(Clone, Serialize, Deserialize)]
struct Session {
    authority: String,
    number: u64,
    merchant: String,
    /// In rials.
    amount: i64,
    callback_url: String,
    description: String,
    status: String,
    paid: i64,
    reference: u64,
    created: DateTime<Utc>,
    given: Vec<Given>,
}

#[derive(Clone, Serialize, Deserialize)]
struct Given {
    amount: i64,
    at: DateTime<Utc>,
    status: String,
}

struct Inner {
    store: Store,
    now: TimeDelta,
    refunds_become: String,
    /// How long a refund is not on the lists yet.
    hidden: TimeDelta,
}

pub struct Books {
    inner: Mutex<Inner>,
    faults: Faults,
}

pub struct ZarinpalFake {
    pub url: String,
    folder: PathBuf,
    books: Arc<Books>,
    server: Server,
}

impl ZarinpalFake {
    /// Opens its books in a folder, and serves them.
    pub fn start(folder: &Path) -> Self {
        Self::serve(folder, 0)
    }

    fn serve(folder: &Path, port: u16) -> Self {
        let store = Store::open(&folder.join("zarinpal.jsonl"));
        let inner =
            Inner { store, now: TimeDelta::zero(), refunds_become: "PENDING".into(), hidden: TimeDelta::zero() };
        let books = Arc::new(Books { inner: Mutex::new(inner), faults: Faults::default() });
        let server = Server::start(router(books.clone()), port);
        Self { url: server.url.clone(), folder: folder.to_owned(), books, server }
    }

    /// Where its lists are.
    pub fn lists_url(&self) -> String {
        format!("{}/api/v4/graphql", self.url)
    }

    /// Cuts everybody off, and comes back with what it had written down.
    pub fn restart(&mut self) {
        self.server.stop();
        *self = Self::serve(&self.folder.clone(), self.server.port());
    }

    pub fn fail(&self, call: Call, fault: Fault) {
        self.books.faults.add(call, fault);
    }

    /// The next call of this kind about a payment of ours goes wrong.
    pub fn fail_for(&self, payment: &str, call: Call, fault: Fault) {
        self.books.faults.add_for(payment.parse().unwrap(), call, fault);
    }

    pub fn mend(&self) {
        self.books.faults.clear();
    }

    pub fn advance(&self, by: TimeDelta) {
        self.books.inner.lock().unwrap().now += by;
    }

    /// What becomes of refunds from now on: `PENDING`, `DONE`, `FAILED`.
    pub fn refunds_become(&self, status: &str) {
        self.books.inner.lock().unwrap().refunds_become = status.to_owned();
    }

    /// How long refunds are not on the lists yet, from now on.
    pub fn hide_refunds(&self, time: TimeDelta) {
        self.books.inner.lock().unwrap().hidden = time;
    }

    /// Somebody pays; where their browser goes then.
    pub fn pay(&self, authority: &str) -> String {
        self.end(authority, "PAID", None)
    }

    /// Another amount is paid than was asked for, in rials.
    pub fn pay_amount(&self, authority: &str, rials: i64) -> String {
        self.end(authority, "PAID", Some(rials))
    }

    /// The payer goes away, or the bank says no.
    pub fn decline(&self, authority: &str) -> String {
        self.end(authority, "FAILED", None)
    }

    /// It gave the money back by itself: nobody verified the payment in time.
    pub fn reverse(&self, authority: &str) {
        self.books.inner.lock().unwrap().change(authority, |session| session.status = "REVERSED".into());
    }

    /// The authority belongs to another merchant.
    pub fn give_away(&self, authority: &str) {
        self.books.inner.lock().unwrap().change(authority, |session| session.merchant = OTHER_MERCHANT.into());
    }

    /// The refund of a payment ends so.
    pub fn finish_refund(&self, authority: &str, status: &str) {
        let end = |session: &mut Session| session.given.last_mut().unwrap().status = status.to_owned();
        self.books.inner.lock().unwrap().change(authority, end);
    }

    fn end(&self, authority: &str, status: &str, rials: Option<i64>) -> String {
        self.books.inner.lock().unwrap().end(authority, status, rials)
    }

    /// Every payment whose money stays with the merchant: those that were verified.
    pub fn captures(&self) -> Vec<Movement> {
        let sessions: Vec<Session> = self.books.inner.lock().unwrap().store.all("session");
        let taken = sessions.into_iter().filter(|session| session.status == "VERIFIED");
        taken.map(|session| session.movement(session.reference.to_string(), session.paid)).collect()
    }

    /// Every refund that was given, or is on its way.
    pub fn refunds(&self) -> Vec<Movement> {
        let sessions: Vec<Session> = self.books.inner.lock().unwrap().store.all("session");
        let mut all = vec![];
        for session in sessions {
            for given in session.given.iter().filter(|given| given.status != "FAILED") {
                all.push(session.movement(format!("{}-{}", session.number, given.at.timestamp()), given.amount));
            }
        }
        all
    }

    /// Whether somebody may still pay.
    pub fn is_open(&self, authority: &str) -> bool {
        let session: Session = self.books.inner.lock().unwrap().store.get("session", authority).unwrap();
        session.status == "IN_BANK"
    }

    /// How many payments were ever opened.
    pub fn opened(&self) -> usize {
        self.books.inner.lock().unwrap().store.all::<Session>("session").len()
    }
}

impl Session {
    fn movement(&self, id: String, amount: i64) -> Movement {
        let payment_id = payment_of(&self.description);
        Movement { provider_ref: self.authority.clone(), id, payment_id, amount, currency: "IRR".into() }
    }

    /// The refund that its lists show at a time.
    fn shown(&self, at: DateTime<Utc>) -> Option<&Given> {
        self.given.iter().rev().find(|given| given.at <= at)
    }

    fn to_json(&self, shown: Option<&Given>) -> Value {
        let timeline = shown.map(|given| {
            json!({"refund_amount": given.amount, "refund_time": tehran(given.at).to_rfc3339(), "refund_status": given.status})
        });
        json!({
            "id": self.number.to_string(), "status": self.status, "amount": self.paid, "description": self.description,
            "created_at": tehran(self.created).to_rfc3339(), "terminal_id": TERMINAL, "timeline": timeline,
        })
    }
}

/// Which payment of ours something is about.
fn payment_of(description: &str) -> Option<Uuid> {
    description.rsplit(' ').next()?.parse().ok()
}

fn tehran(at: DateTime<Utc>) -> DateTime<FixedOffset> {
    at.with_timezone(&FixedOffset::east_opt(TEHRAN_SECONDS).unwrap())
}

impl Inner {
    fn now(&self) -> DateTime<Utc> {
        Utc::now() + self.now
    }

    fn end(&mut self, authority: &str, status: &str, rials: Option<i64>) -> String {
        let session = self.change(authority, |session| {
            if session.status == "IN_BANK" {
                session.status = status.to_owned();
                session.paid = if status == "PAID" { rials.unwrap_or(session.amount) } else { 0 };
            }
        });
        let ok = if session.status == "PAID" { "OK" } else { "NOK" };
        let mut url = reqwest::Url::parse(&session.callback_url).unwrap();
        url.query_pairs_mut().append_pair("Authority", authority).append_pair("Status", ok);
        url.into()
    }

    fn change(&mut self, authority: &str, change: impl FnOnce(&mut Session)) -> Session {
        let mut session: Session = self.store.get("session", authority).unwrap();
        change(&mut session);
        self.store.put("session", authority, &session);
        session
    }
}

fn refused(code: i64) -> (u16, Value) {
    let validations = if code == -9 { json!([{"amount": "The amount must be at least 1000."}]) } else { json!([]) };
    let errors = json!({"message": format!("no, {MERCHANT}"), "code": code, "validations": validations});
    (if code == -9 { 422 } else { 200 }, json!({"data": [], "errors": errors}))
}

fn good(data: Value) -> (u16, Value) {
    (200, json!({"data": data, "errors": []}))
}

fn request(inner: &mut Inner, ask: &Value) -> (u16, Value) {
    let amount = ask["amount"].as_i64().unwrap_or_default();
    let rials = if ask["currency"] == "IRT" { amount * 10 } else { amount };
    let callback_url = ask["callback_url"].as_str().unwrap_or_default();
    if rials < 1000 || callback_url.is_empty() || ask["description"].as_str().is_none_or(|text| text.len() > 500) {
        return refused(-9);
    }
    let number = 580_000_000 + inner.store.number();
    let session = Session {
        authority: format!("A{number:035}"),
        number,
        merchant: ask["merchant_id"].as_str().unwrap_or_default().to_owned(),
        amount: rials,
        callback_url: callback_url.to_owned(),
        description: ask["description"].as_str().unwrap_or_default().to_owned(),
        status: "IN_BANK".into(),
        paid: 0,
        reference: 201_000_000 + inner.store.number(),
        created: inner.now(),
        given: vec![],
    };
    inner.store.put("session", &session.authority, &session);
    let authority = &session.authority;
    good(json!({"code": 100, "message": "Success", "authority": authority, "fee_type": "Merchant", "fee": 350}))
}

fn of_merchant(inner: &Inner, ask: &Value) -> Result<Session, (u16, Value)> {
    let authority = ask["authority"].as_str().unwrap_or_default();
    let session: Session = inner.store.get("session", authority).ok_or_else(|| refused(-54))?;
    if ask["merchant_id"] == session.merchant.as_str() { Ok(session) } else { Err(refused(-53)) }
}

fn verify(inner: &mut Inner, ask: &Value) -> (u16, Value) {
    let session = match of_merchant(inner, ask) {
        Ok(session) => session,
        Err(refused) => return refused,
    };
    let code = match session.status.as_str() {
        "PAID" => 100,
        "VERIFIED" => 101,
        _ => return refused(-51),
    };
    if ask["amount"].as_i64() != Some(session.paid) {
        return refused(-50);
    }
    let session = inner.change(&session.authority, |session| session.status = "VERIFIED".into());
    let message = if code == 100 { "Paid" } else { "Verified" };
    good(json!({
        "code": code, "message": message, "card_hash": "1EBE3EBEBE35C7EC0F8D6EE4F2F859107A87822CA179BC9528767EA7B5489B69",
        "card_pan": "502229******5995", "ref_id": session.reference, "fee_type": "Merchant", "fee": 350,
    }))
}

fn inquiry(inner: &mut Inner, ask: &Value) -> (u16, Value) {
    match of_merchant(inner, ask) {
        Ok(session) => good(json!({"status": session.status, "code": 100, "message": "Success"})),
        Err(refused) => refused,
    }
}

fn unverified(inner: &mut Inner, ask: &Value) -> (u16, Value) {
    let sessions: Vec<Session> = inner.store.all("session");
    let ours = |session: &&Session| session.status == "PAID" && ask["merchant_id"] == session.merchant.as_str();
    let told = sessions.iter().rev().filter(ours).take(100).map(|session| {
        let date = tehran(session.created).format("%Y-%m-%d %H:%M:%S").to_string();
        json!({"authority": session.authority, "amount": session.paid, "callback_url": session.callback_url,
            "referer": "/", "date": date})
    });
    good(json!({"code": "100", "message": "Success", "authorities": told.collect::<Vec<_>>()}))
}

fn graph(inner: &mut Inner, ask: &Value) -> (u16, Value) {
    let (query, given) = (ask["query"].as_str().unwrap_or_default(), &ask["variables"]);
    let sessions: Vec<Session> = inner.store.all("session");
    let failed = |message: &str| (200, json!({"errors": [{"message": message}], "data": null}));
    if query.contains("AddRefund") {
        let wanted = |session: &&Session| given["session_id"] == session.number.to_string().as_str();
        let Some(session) = sessions.iter().find(wanted) else { return failed("Session not found") };
        let amount = given["amount"].as_i64().unwrap_or_default();
        let left = session.paid - session.given.iter().map(|given| given.amount).sum::<i64>();
        if session.status != "VERIFIED" || amount > left || amount < 20_000 {
            return failed("Refund is not possible");
        }
        let refund = Given { amount, at: inner.now(), status: inner.refunds_become.clone() };
        let session = inner.change(&session.authority, |session| session.given.push(refund));
        return (200, json!({"data": {"resource": session.to_json(session.given.last())}}));
    }
    if given["terminal_id"] != TERMINAL {
        return failed("Terminal not found");
    }
    let seen = inner.now() - inner.hidden;
    let fits = |session: &&Session| {
        let reference = given["reference_id"].as_str();
        let filter = match given["filter"].as_str() {
            Some("REFUNDED") => session.shown(seen).is_some(),
            Some(filter) => session.status == filter && session.shown(seen).is_none(),
            None => true,
        };
        filter && session.merchant == MERCHANT && reference.is_none_or(|number| number == session.reference.to_string())
    };
    let number = |name: &str, usual: u64| given[name].as_u64().unwrap_or(usual) as usize;
    let rows = sessions.iter().rev().filter(fits).skip(number("offset", 0)).take(number("limit", 25));
    (200, json!({"data": {"Session": rows.map(|session| session.to_json(session.shown(seen))).collect::<Vec<_>>()}}))
}

impl Books {
    /// Which payment of ours a call is about: it is opened, verified or looked at, or its money goes back.
    fn about(&self, ask: &Value) -> Option<Uuid> {
        let inner = self.inner.lock().unwrap();
        if let Some(description) = ask["description"].as_str() {
            return payment_of(description);
        }
        let (authority, number) = (ask["authority"].as_str(), ask["variables"]["session_id"].as_str());
        let sessions: Vec<Session> = inner.store.all("session");
        let ours = |s: &Session| authority == Some(&*s.authority) || number == Some(&*s.number.to_string());
        sessions.into_iter().find(ours).and_then(|session| payment_of(&session.description))
    }

    async fn ask(&self, call: Call, ask: &Value, work: impl FnOnce(&mut Inner) -> (u16, Value)) -> Response {
        let fault = self.faults.take(call, self.about(ask));
        match fault {
            Some(Fault::Before(how)) => return how.answer().await,
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            _ => {}
        }
        let (status, body) = work(&mut self.inner.lock().unwrap());
        match fault {
            Some(Fault::After(how)) => how.answer().await,
            _ => (StatusCode::from_u16(status).unwrap(), Json(body)).into_response(),
        }
    }
}

async fn service(State(books): State<Arc<Books>>, At(method): At<String>, Json(ask): Json<Value>) -> Response {
    if ![MERCHANT, OTHER_MERCHANT].iter().any(|merchant| ask["merchant_id"] == *merchant) {
        let (status, body) = refused(-10);
        return (StatusCode::from_u16(status).unwrap(), Json(body)).into_response();
    }
    match method.as_str() {
        "request.json" => books.ask(Call::Create, &ask, |inner| request(inner, &ask)).await,
        "verify.json" => books.ask(Call::Verify, &ask, |inner| verify(inner, &ask)).await,
        "inquiry.json" => books.ask(Call::Read, &ask, |inner| inquiry(inner, &ask)).await,
        "unVerified.json" => books.ask(Call::List, &ask, |inner| unverified(inner, &ask)).await,
        _ => StatusCode::NOT_FOUND.into_response(),
    }
}

async fn lists(State(books): State<Arc<Books>>, headers: HeaderMap, Json(ask): Json<Value>) -> Response {
    if headers.get("authorization").is_none_or(|value| value != format!("Bearer {TOKEN}").as_str()) {
        return (StatusCode::UNAUTHORIZED, Json(json!({"message": "Unauthenticated."}))).into_response();
    }
    let is_refund = ask["query"].as_str().is_some_and(|query| query.contains("AddRefund"));
    books.ask(if is_refund { Call::Refund } else { Call::List }, &ask, |inner| graph(inner, &ask)).await
}

async fn page(State(books): State<Arc<Books>>, At(authority): At<String>) -> Response {
    match books.inner.lock().unwrap().store.get::<Session>("session", &authority) {
        Some(session) => format!("{} rials for {}", session.amount, session.description).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

/// The button of the page.
async fn button(State(books): State<Arc<Books>>, At(authority): At<String>) -> Response {
    let mut inner = books.inner.lock().unwrap();
    if inner.store.get::<Session>("session", &authority).is_none() {
        return StatusCode::NOT_FOUND.into_response();
    }
    let to = inner.end(&authority, "PAID", None);
    (StatusCode::FOUND, [("location", to)]).into_response()
}

fn router(books: Arc<Books>) -> Router {
    Router::new()
        .route("/pg/v4/payment/{method}", post(service))
        .route("/pg/StartPay/{authority}", get(page).post(button))
        .route("/api/v4/graphql", post(lists))
        .with_state(books)
}
