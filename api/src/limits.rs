//! How often somebody may ask: what a request took of its budgets is told in every answer (draft-ietf-httpapi-ratelimit-headers),
//! and one that got nothing is refused with 429. The buckets are rows that all servers share.

use crate::{
    app::App,
    peer::{ClientAddress, network_of},
    problem::{Code, Problem},
};
use axum::{
    extract::Request,
    http::{Extensions, HeaderMap, HeaderName, HeaderValue, header, request::Parts},
    middleware::Next,
    response::Response,
};
use flatrender_workflows::models::{
    Role, Scope,
    identity::rate_bucket::{self, Budget, Rate},
};
use std::sync::{Arc, Mutex, PoisonError};
use uuid::Uuid;

/// Who asked, as far as it was found out while the request was served. Log and limits read it afterwards.
#[derive(Debug, Clone, Default)]
pub struct Notes(Arc<Mutex<Noted>>);

/// What [`Notes`] hold.
#[derive(Debug, Clone, Default)]
pub struct Noted {
    /// The tenant.
    pub tenant_id: Option<Uuid>,
    /// The API key.
    pub key_id: Option<Uuid>,
    /// The person.
    pub user_id: Option<Uuid>,
    /// What the request took.
    pub budgets: Vec<Budget>,
}

impl Notes {
    /// The notes of a request; outside of a server, such that nobody reads.
    pub fn of(extensions: &Extensions) -> Self {
        extensions.get::<Self>().cloned().unwrap_or_default()
    }

    /// Adds to them.
    pub fn add(&self, add: impl FnOnce(&mut Noted)) {
        add(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// What they are now.
    pub fn read(&self) -> Noted {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Keeps notes of the request and tells in its answer what is left of its budgets.
pub async fn tell(mut request: Request, next: Next) -> Response {
    let notes = Notes::default();
    request.extensions_mut().insert(notes.clone());
    let mut response = next.run(request).await;
    announce(response.headers_mut(), &notes.read().budgets);
    response
}

/// Puts budgets into the headers of an answer; the old ones tell of the scarcest.
fn announce(headers: &mut HeaderMap, budgets: &[Budget]) {
    let share = |b: &&Budget| b.tokens / b.rate.limit.max(1.0);
    let Some(scarcest) = budgets.iter().min_by(|a, b| share(a).total_cmp(&share(b))) else { return };
    let join = |text: fn(&Budget) -> String| budgets.iter().map(text).collect::<Vec<_>>().join(", ");
    let fields = [
        ("ratelimit-policy", join(|b| format!("{:?};q={};w={}", b.name, b.rate.limit, b.rate.window_seconds))),
        ("ratelimit", join(|b| format!("{:?};r={};t={}", b.name, b.tokens.floor(), b.reset()))),
        ("ratelimit-limit", scarcest.rate.limit.to_string()),
        ("ratelimit-remaining", scarcest.tokens.floor().to_string()),
        ("ratelimit-reset", scarcest.reset().to_string()),
    ];
    for (name, value) in fields {
        if let Ok(value) = HeaderValue::from_str(&value) {
            headers.insert(HeaderName::from_static(name), value);
        }
    }
}

/// Notes what a request took and refuses it when one bucket was empty.
///
/// # Errors
/// `rate.limited`
pub fn settle(notes: &Notes, budgets: Vec<Budget>) -> Result<(), Problem> {
    let refused = budgets.iter().find(|b| !b.granted).copied();
    notes.add(|noted| noted.budgets.extend(budgets));
    let Some(budget) = refused else { return Ok(()) };
    metrics::counter!("flatrender_requests_limited_total", "budget" => budget.name).increment(1);
    let wait = budget.retry_after();
    let detail =
        format!("{} requests in {} s are agreed; try again in {wait} s", budget.rate.limit, budget.rate.window_seconds);
    Err(Problem::new(Code::RateLimited, detail).with_header(header::RETRY_AFTER, wait.into()))
}

/// Takes a token of a person of a tenant, and one of the tenant.
///
/// # Errors
/// `rate.limited`, or the database cannot be reached.
pub async fn take_as_user(app: &App, parts: &Parts, tenant_id: Uuid, user_id: Uuid) -> Result<(), Problem> {
    let notes = Notes::of(&parts.extensions);
    notes.add(|n| (n.tenant_id, n.user_id) = (Some(tenant_id), Some(user_id)));
    let mut tx = app.db.begin(Scope::tenant(Role::Identity, tenant_id)).await?;
    let budgets = rate_bucket::take(&mut tx, tenant_id, &format!("user:{user_id}")).await?;
    tx.commit().await?;
    settle(&notes, budgets)
}

/// Takes a token of the address that a request without a credential came from.
///
/// # Errors
/// `rate.limited`, or the database cannot be reached.
pub async fn take_as_address(app: &App, parts: &Parts, name: &'static str, rate: Rate) -> Result<(), Problem> {
    let from = parts.extensions.get::<ClientAddress>().and_then(|a| a.0);
    let key = from.map_or_else(|| "unknown".to_owned(), |ip| network_of(ip).to_string());
    let mut tx = app.db.begin(Scope::platform(Role::Identity)).await?;
    let budget = rate_bucket::take_public(&mut tx, name, &key, rate).await?;
    tx.commit().await?;
    settle(&Notes::of(&parts.extensions), vec![budget])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_headers_tell_every_budget_and_the_scarcest() {
        let budget =
            |name, limit, tokens| Budget { name, granted: true, rate: Rate { limit, window_seconds: 60.0 }, tokens };
        let mut headers = HeaderMap::new();
        announce(&mut headers, &[budget("caller", 60.0, 30.5), budget("tenant", 600.0, 100.0)]);
        let read = |name: &str| headers[name].to_str().unwrap().to_owned();
        assert_eq!(read("ratelimit-policy"), r#""caller";q=60;w=60, "tenant";q=600;w=60"#);
        assert_eq!(read("ratelimit"), r#""caller";r=30;t=30, "tenant";r=100;t=50"#);
        assert_eq!(
            (read("ratelimit-limit"), read("ratelimit-remaining"), read("ratelimit-reset")),
            ("600".into(), "100".into(), "50".into())
        );
    }

    #[test]
    fn a_refusal_says_when_to_come_back() {
        let empty =
            Budget { name: "tenant", granted: false, rate: Rate { limit: 6.0, window_seconds: 60.0 }, tokens: 0.5 };
        assert_eq!((empty.retry_after(), empty.reset()), (5, 55));
        assert_eq!(settle(&Notes::default(), vec![empty]).unwrap_err().code(), Code::RateLimited);
        let never = Budget { rate: Rate { limit: 0.0, window_seconds: 60.0 }, tokens: 0.0, ..empty };
        assert_eq!(never.retry_after(), 86_400);
    }
}
