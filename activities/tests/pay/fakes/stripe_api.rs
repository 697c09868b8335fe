//! What Stripe answers.

use super::{
    faults::{Call, Fault, How},
    server::post,
    stripe::{ACCOUNT, Books, Inner, LIVE_KEY, Pay, TEST_KEY, payment_of},
    stripe_objects::{Charge, Event, Intent, Kept, Metadata, Refund, Session},
};
use axum::{
    Json, Router,
    body::Bytes,
    extract::{Path as At, RawQuery, State},
    http::{HeaderMap, StatusCode},
    response::{IntoResponse as _, Response},
    routing::{get, post as posted},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, sync::Arc};
use uuid::Uuid;

type Form = BTreeMap<String, String>;

fn form(text: &str) -> Form {
    let url = reqwest::Url::parse(&format!("http://form/?{text}")).unwrap();
    url.query_pairs().map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
}

fn metadata(form: &Form, prefix: &str) -> Metadata {
    let of = |name: &String| name.strip_prefix(prefix)?.strip_suffix(']').map(str::to_owned);
    form.iter().filter_map(|(name, value)| Some((of(name)?, value.clone()))).collect()
}

fn error(status: u16, kind: &str, code: &str, param: Option<&str>) -> (u16, Value) {
    let message = format!("{code}: what was sent is not good, such as {TEST_KEY}");
    (status, json!({"error": {"type": kind, "code": code, "param": param, "message": message}}))
}

fn invalid(code: &str, param: Option<&str>) -> (u16, Value) {
    error(400, "invalid_request_error", code, param)
}

fn reply((status, body): (u16, Value)) -> Response {
    let headers = [("request-id", "req_fake1")];
    (StatusCode::from_u16(status).unwrap(), headers, Json(body)).into_response()
}

/// Whether the key is one of ours, and of which mode.
fn caller(headers: &HeaderMap) -> Option<bool> {
    match headers.get("authorization").and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ")) {
        Some(TEST_KEY) => Some(false),
        Some(LIVE_KEY) => Some(true),
        _ => None,
    }
}

fn stranger() -> Response {
    reply(error(401, "invalid_request_error", "", None))
}

impl Books {
    async fn ask(
        &self,
        call: Call,
        about: Option<Uuid>,
        headers: &HeaderMap,
        work: impl FnOnce(&mut Inner, bool) -> (u16, Value),
    ) -> Response {
        let Some(live) = caller(headers) else { return stranger() };
        match self.faults.take(call, about) {
            Some(Fault::Before(how)) => return how.answer().await,
            Some(Fault::After(how)) => {
                work(&mut self.inner.lock().unwrap(), live);
                return how.answer().await;
            }
            Some(Fault::Slow(time)) => tokio::time::sleep(time).await,
            None => {}
        }
        reply(work(&mut self.inner.lock().unwrap(), live))
    }

    /// The same with a key: what was answered first is answered for ever, a failure of its own too.
    async fn act(
        &self,
        call: Call,
        path: &str,
        headers: &HeaderMap,
        body: &Bytes,
        work: impl FnOnce(&mut Inner, bool, &Form) -> (u16, Value),
    ) -> Response {
        let Some(live) = caller(headers) else { return stranger() };
        let form = form(std::str::from_utf8(body).unwrap());
        let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok()).map(str::to_owned);
        // What is only repeated does not go wrong.
        let known = key.as_ref().is_some_and(|key| self.inner.lock().unwrap().store.get::<Kept>("key", key).is_some());
        let about = payment_of(&metadata(&form, "metadata["));
        let fault = if known { None } else { self.faults.take(call, about) };
        if let Some(Fault::Before(how)) = fault
            && !matches!(how, How::Status(500..))
        {
            return how.answer().await;
        }
        if let Some(Fault::Slow(time)) = fault {
            tokio::time::sleep(time).await;
        }
        let answer = {
            let mut inner = self.inner.lock().unwrap();
            let kept = key.as_ref().and_then(|key| inner.store.get::<Kept>("key", key));
            match (kept, fault) {
                (Some(kept), _) if kept.path != path || kept.form != form => {
                    reply(error(400, "idempotency_error", "", None))
                }
                (Some(kept), _) => {
                    let mut answer = reply((kept.status, kept.body));
                    answer.headers_mut().insert("idempotent-replayed", "true".parse().unwrap());
                    answer
                }
                (None, fault) => {
                    let mut done = match fault {
                        Some(Fault::Before(_)) => (500, json!({})),
                        _ => work(&mut inner, live, &form),
                    };
                    if let Some(Fault::Before(How::Status(status)) | Fault::After(How::Status(status))) = fault {
                        done = (status, json!({"error": {"type": "api_error", "message": "broken"}}));
                    }
                    // What is not good at all was never begun, and is not kept.
                    if let Some(key) = key.filter(|_| !(400..500).contains(&done.0)) {
                        let kept = Kept { path: path.to_owned(), form, status: done.0, body: done.1.clone() };
                        inner.store.put("key", &key, &kept);
                    }
                    reply(done)
                }
            }
        };
        match fault {
            Some(Fault::After(how)) if !matches!(how, How::Status(_)) => how.answer().await,
            _ => answer,
        }
    }

    fn url(&self) -> String {
        self.url.lock().unwrap().clone()
    }

    /// Which payment of ours a session or a refund is about.
    fn about(&self, id: &str) -> Option<Uuid> {
        let inner = self.inner.lock().unwrap();
        let session = inner.store.get::<Session>("session", id).map(|session| session.metadata);
        let metadata = session.or_else(|| inner.store.get::<Refund>("refund", id).map(|refund| refund.metadata))?;
        payment_of(&metadata)
    }
}

fn create(inner: &mut Inner, live: bool, form: &Form, url: &str) -> (u16, Value) {
    let field = |name: &str| form.get(name).cloned().unwrap_or_default();
    let unit = "line_items[0][price_data][unit_amount]";
    let Ok(amount) = field(unit).parse::<i64>() else { return invalid("parameter_invalid_integer", Some(unit)) };
    if amount < 50 {
        return invalid("amount_too_small", None);
    }
    let currency = field("line_items[0][price_data][currency]");
    if !["usd", "eur", "jpy", "isk"].contains(&currency.as_str()) {
        return invalid("", Some("line_items[0][price_data][currency]"));
    }
    if field("mode") != "payment" || field("success_url").is_empty() {
        return invalid("parameter_missing", Some("success_url"));
    }
    let now = inner.now();
    let expires_at = field("expires_at").parse().unwrap_or(now + 86_400);
    if !(1800..=86_400).contains(&(expires_at - now)) {
        return invalid("", Some("expires_at"));
    }
    let session = Session {
        id: inner.id(if live { "cs_live" } else { "cs_test" }),
        created: now,
        live,
        reference: form.get("client_reference_id").cloned(),
        amount,
        currency,
        status: "open".into(),
        payment_status: "unpaid".into(),
        expires_at,
        success_url: field("success_url"),
        metadata: metadata(form, "metadata["),
        intent_metadata: metadata(form, "payment_intent_data[metadata]["),
        intent: None,
    };
    inner.store.put("session", &session.id, &session);
    if let Some((_, to)) = inner.early.take_if(|(of, _)| of.is_none() || *of == session.reference) {
        inner.pay(&session.id, Pay::default(), "succeeded");
        let events: Vec<Event> = inner.store.all("event");
        let webhook = inner.webhook(&events.last().unwrap().id);
        std::thread::spawn(move || post(&to, ("stripe-signature", &webhook.signature), &webhook.body)).join().unwrap();
    }
    (200, inner.session(&session.id).to_json(url))
}

fn read(inner: &Inner, id: &str, expand: bool, url: &str) -> (u16, Value) {
    let Some(session) = inner.store.get::<Session>("session", id) else {
        return error(404, "invalid_request_error", "resource_missing", Some("session"));
    };
    let mut json = session.to_json(url);
    if let Some(intent) = session.intent.filter(|_| expand) {
        let intent: Intent = inner.store.get("intent", &intent).unwrap();
        json["payment_intent"] = intent.to_json();
        let charge: Option<Charge> = intent.charge.and_then(|id| inner.store.get("charge", &id));
        json["payment_intent"]["latest_charge"] = charge.map_or(Value::Null, |charge| charge.to_json());
    }
    (200, json)
}

fn refund(inner: &mut Inner, form: &Form) -> (u16, Value) {
    let Some(intent) = inner.store.get::<Intent>("intent", form.get("payment_intent").map_or("", String::as_str))
    else {
        return error(404, "invalid_request_error", "resource_missing", Some("payment_intent"));
    };
    let charge: Charge = inner.store.get("charge", intent.charge.as_deref().unwrap()).unwrap();
    let left = charge.amount - charge.refunded;
    let amount = form.get("amount").and_then(|amount| amount.parse().ok()).unwrap_or(left);
    if charge.status != "succeeded" || left == 0 {
        return invalid("charge_already_refunded", None);
    }
    if amount > left || amount < 1 {
        return invalid("", Some("amount"));
    }
    let status = inner.refunds_become.clone();
    let refund = Refund {
        id: inner.id("re"),
        intent: intent.id,
        created: inner.now(),
        amount,
        currency: charge.currency,
        failure_reason: (status == "failed").then(|| "lost_or_stolen_card".to_owned()),
        status,
        metadata: metadata(form, "metadata["),
    };
    inner.keep_refund(&refund, "refund.created");
    (200, refund.to_json())
}

/// A page of a list, the newest first.
fn page(all: Vec<(i64, Value)>, query: &str) -> (u16, Value) {
    let query = form(query);
    let number = |name: &str| query.get(name).and_then(|text| text.parse::<i64>().ok());
    let limit = number("limit").unwrap_or(10);
    if !(1..=100).contains(&limit) {
        return invalid("parameter_invalid_integer", Some("limit"));
    }
    let fits = |at: i64| {
        number("created[gte]").is_none_or(|from| at >= from) && number("created[lt]").is_none_or(|until| at < until)
    };
    let mut rows: Vec<Value> = all.into_iter().rev().filter(|(at, _)| fits(*at)).map(|(_, row)| row).collect();
    if let Some(after) = query.get("starting_after") {
        let place = rows.iter().position(|row| row["id"] == after.as_str()).map_or(rows.len(), |place| place + 1);
        rows.drain(..place);
    }
    let has_more = rows.len() > limit as usize;
    rows.truncate(limit as usize);
    (200, json!({"object": "list", "data": rows, "has_more": has_more, "url": "/v1/list"}))
}

pub(super) fn router(books: Arc<Books>) -> Router {
    type Shared = State<Arc<Books>>;
    async fn open(State(books): Shared, headers: HeaderMap, body: Bytes) -> Response {
        let url = books.url();
        let work = |inner: &mut Inner, live: bool, form: &Form| create(inner, live, form, &url);
        books.act(Call::Create, "/v1/checkout/sessions", &headers, &body, work).await
    }
    async fn look(State(books): Shared, At(id): At<String>, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
        let (url, expand) = (books.url(), query.unwrap_or_default().contains("latest_charge"));
        books.ask(Call::Read, books.about(&id), &headers, |inner, _| read(inner, &id, expand, &url)).await
    }
    async fn close(State(books): Shared, At(id): At<String>, headers: HeaderMap, body: Bytes) -> Response {
        let work = |inner: &mut Inner, _: bool, _: &Form| match inner.store.get::<Session>("session", &id) {
            None => error(404, "invalid_request_error", "resource_missing", Some("session")),
            Some(session) if session.status != "open" => invalid("resource_already_exists", None),
            Some(_) => {
                inner.expire(&id);
                (200, inner.session(&id).to_json(""))
            }
        };
        books.act(Call::Expire, "expire", &headers, &body, work).await
    }
    async fn give(State(books): Shared, headers: HeaderMap, body: Bytes) -> Response {
        let work = |inner: &mut Inner, _: bool, form: &Form| refund(inner, form);
        books.act(Call::Refund, "/v1/refunds", &headers, &body, work).await
    }
    async fn given(State(books): Shared, At(id): At<String>, headers: HeaderMap) -> Response {
        let work = |inner: &mut Inner, _| match inner.store.get::<Refund>("refund", &id) {
            Some(refund) => (200, refund.to_json()),
            None => error(404, "invalid_request_error", "resource_missing", Some("id")),
        };
        books.ask(Call::Read, books.about(&id), &headers, work).await
    }
    async fn list(
        State(books): Shared,
        At(kind): At<String>,
        RawQuery(query): RawQuery,
        headers: HeaderMap,
    ) -> Response {
        let query = query.unwrap_or_default();
        let work = |inner: &mut Inner, _: bool| page(rows(inner, &kind, &form(&query), &query), &query);
        books.ask(Call::List, None, &headers, work).await
    }
    async fn sessions(State(books): Shared, RawQuery(query): RawQuery, headers: HeaderMap) -> Response {
        let query = query.unwrap_or_default();
        let work = |inner: &mut Inner, _: bool| page(rows(inner, "sessions", &form(&query), &query), &query);
        books.ask(Call::List, None, &headers, work).await
    }
    async fn account(State(books): Shared, headers: HeaderMap) -> Response {
        books.ask(Call::Account, None, &headers, |_, _| (200, json!({"id": ACCOUNT, "object": "account"}))).await
    }
    /// The page that the payer sees, and its button.
    async fn page_of(State(books): Shared, At(id): At<String>) -> Response {
        match books.inner.lock().unwrap().store.get::<Session>("session", &id) {
            Some(session) => format!("{} of {}", session.amount, session.currency).into_response(),
            None => StatusCode::NOT_FOUND.into_response(),
        }
    }
    async fn pay(State(books): Shared, At(id): At<String>) -> Response {
        let mut inner = books.inner.lock().unwrap();
        if inner.store.get::<Session>("session", &id).is_none() {
            return StatusCode::NOT_FOUND.into_response();
        }
        let to = inner.pay(&id, Pay::default(), "succeeded");
        (StatusCode::SEE_OTHER, [("location", to)]).into_response()
    }
    Router::new()
        .route("/c/pay/{id}", get(page_of).post(pay))
        .route("/v1/checkout/sessions", posted(open).get(sessions))
        .route("/v1/checkout/sessions/{id}", get(look))
        .route("/v1/checkout/sessions/{id}/expire", posted(close))
        .route(
            "/v1/refunds",
            posted(give).get(async |books, query, headers| list(books, At("refunds".to_owned()), query, headers).await),
        )
        .route("/v1/refunds/{id}", get(given))
        .route("/v1/account", get(account))
        .route("/v1/{kind}", get(list))
        .with_state(books)
}

fn rows(inner: &Inner, kind: &str, query: &Form, raw: &str) -> Vec<(i64, Value)> {
    let types = reqwest::Url::parse(&format!("http://form/?{raw}")).unwrap();
    let types: Vec<String> =
        types.query_pairs().filter(|(name, _)| name.starts_with("types[")).map(|(_, kind)| kind.into_owned()).collect();
    match kind {
        "sessions" => {
            let all: Vec<Session> = inner.store.all("session");
            all.into_iter().map(|session| (session.created, session.to_json(""))).collect()
        }
        "refunds" => {
            let intent = query.get("payment_intent");
            let all: Vec<Refund> = inner.store.all("refund");
            let wanted = all.into_iter().filter(|refund| intent.is_none_or(|intent| refund.intent == *intent));
            wanted.map(|refund| (refund.created, refund.to_json())).collect()
        }
        "charges" => {
            let all: Vec<Charge> = inner.store.all("charge");
            all.into_iter().map(|charge| (charge.created, charge.to_json())).collect()
        }
        "events" => {
            let all: Vec<Event> = inner.store.all("event");
            let wanted = all.into_iter().filter(|event| types.is_empty() || types.contains(&event.kind));
            wanted.map(|event| (event.created, event.to_json())).collect()
        }
        _ => vec![],
    }
}
