//! Requests to Stripe, and what its errors mean.

use super::{Stripe, VERSION, objects::Page};
use crate::{
    egress::client::Reply,
    pay::line::{Effect, plain},
};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::pay::{AMOUNT_LIMITS, CURRENCY, MERCHANT_CONFIG, NOT_FOUND, REFUSED};
use reqwest::{
    Method, Request, StatusCode, Url,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderValue},
};
use serde::{Deserialize, de::DeserializeOwned};
use sha2::{Digest as _, Sha256};
use uuid::Uuid;

/// Objects a page.
const PAGE: usize = 100;
/// Most pages of a list.
const PAGES: usize = 100;
/// Most objects that are kept of a list.
const KEPT: usize = 10_000;

/// Why something that has an effect has no answer that says so.
pub(super) enum Trouble {
    /// It will not work, or not now.
    Failed(Failure),
    /// Nobody knows what came of it. `kept`: Stripe has kept this answer with the key, and will give no other.
    Broken { kept: bool, failure: Failure },
    /// The key was used for something else.
    Differs,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

/// What is left of a list.
pub(super) struct Found<T> {
    pub(super) items: Vec<T>,
    /// Whether these are all.
    pub(super) complete: bool,
}

/// An object that lists can go on after.
pub(super) trait Listed: DeserializeOwned {
    fn id(&self) -> &str;
}

#[derive(Deserialize)]
struct Refusal {
    error: Error,
}

#[derive(Deserialize)]
struct Error {
    #[serde(rename = "type")]
    kind: Option<String>,
    code: Option<String>,
    decline_code: Option<String>,
    param: Option<String>,
}

/// The key of an effect: one for each of ours, and one more each time that one has failed for ever. At most 255 bytes.
pub(super) fn key(what: &str, id: Uuid, turn: u32) -> String {
    if turn == 0 { format!("flatrender:{what}:{id}") } else { format!("flatrender:{what}:{id}:{turn}") }
}

impl Stripe<'_> {
    /// Tells one key from another.
    pub(super) fn fingerprint(&self) -> [u8; 32] {
        Sha256::digest(self.settings.secret_key.as_bytes()).into()
    }

    fn request(&self, method: Method, path: &str) -> Result<Request, Failure> {
        let none = |what: &str| Failure::permanent(MERCHANT_CONFIG, format!("{what} of Stripe cannot be used"));
        let url = Url::parse(&format!("{}{path}", self.base)).map_err(|_| none("the address"))?;
        let mut request = Request::new(method, url);
        let mut credential =
            HeaderValue::from_str(&format!("Bearer {}", self.settings.secret_key)).map_err(|_| none("the key"))?;
        credential.set_sensitive(true);
        request.headers_mut().insert(AUTHORIZATION, credential);
        request.headers_mut().insert("stripe-version", HeaderValue::from_static(VERSION));
        Ok(request)
    }

    pub(super) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Failure> {
        let reply = self.line.call(self.request(Method::GET, path)?, Effect::None).await?;
        if reply.status.is_success() {
            return self.line.read(&reply, Effect::None);
        }
        if reply.status.is_server_error() || reply.status == StatusCode::CONFLICT {
            return Err(self.line.broken(reply.status, Effect::None));
        }
        Err(refusal(&reply).unwrap_or_else(|| self.line.broken(reply.status, Effect::None)))
    }

    /// Has an effect, at most once a key; without a key it is one that may happen twice.
    pub(super) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        form: &[(&str, String)],
        key: Option<&str>,
    ) -> Result<T, Trouble> {
        let mut request = self.request(Method::POST, path)?;
        let kind = HeaderValue::from_static("application/x-www-form-urlencoded");
        request.headers_mut().insert(CONTENT_TYPE, kind);
        if let Some(key) = key {
            let value = HeaderValue::from_str(key)
                .map_err(|_| Failure::permanent(REFUSED, "the key of the request is none"))?;
            request.headers_mut().insert("idempotency-key", value);
        }
        *request.body_mut() = Some(encoded(form).into());
        let reply = self.line.call(request, Effect::Some).await?;
        if reply.status.is_success() {
            return Ok(self.line.read(&reply, Effect::Some)?);
        }
        let error = serde_json::from_slice::<Refusal>(&reply.body).ok().map(|refusal| refusal.error);
        // Somebody uses the key at this moment.
        if reply.status.is_server_error() || reply.status == StatusCode::CONFLICT {
            let kept = reply.headers.get("idempotent-replayed").is_some_and(|value| value == "true");
            return Err(Trouble::Broken { kept, failure: self.line.broken(reply.status, Effect::Some) });
        }
        if error.as_ref().is_some_and(|error| error.kind.as_deref() == Some("idempotency_error")) {
            return Err(Trouble::Differs);
        }
        Err(refusal(&reply).unwrap_or_else(|| self.line.broken(reply.status, Effect::Some)).into())
    }

    /// Those of a list that `wanted` picks, page by page, the newest first.
    pub(super) async fn pages<T: Listed>(&self, path: &str, wanted: impl Fn(&T) -> bool) -> Result<Found<T>, Failure> {
        let mut items = vec![];
        let mut after = String::new();
        for _ in 0..PAGES {
            let page: Page<T> = self.get(&format!("{path}&limit={PAGE}{after}")).await?;
            let last = page.data.last().map(|object| object.id().to_owned());
            items.extend(page.data.into_iter().filter(&wanted).take(KEPT - items.len()));
            match last {
                Some(last) if page.has_more && super::is_id(&last, "") => after = format!("&starting_after={last}"),
                _ => return Ok(Found { items, complete: true }),
            }
            if items.len() >= KEPT {
                break;
            }
        }
        Ok(Found { items, complete: false })
    }
}

/// What a refusal means; none when it is none that can be read. Only codes of it are told: its words may hold what was sent.
fn refusal(reply: &Reply) -> Option<Failure> {
    let error = serde_json::from_slice::<Refusal>(&reply.body).ok()?.error;
    let code = error.code.as_deref().unwrap_or_default();
    let ours = match (reply.status, code) {
        (StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, _) => MERCHANT_CONFIG,
        (_, "api_key_expired" | "account_invalid" | "platform_api_key_expired" | "testmode_charges_only") => {
            MERCHANT_CONFIG
        }
        (StatusCode::NOT_FOUND, _) | (_, "resource_missing") => NOT_FOUND,
        (_, "amount_too_small" | "amount_too_large" | "parameter_invalid_integer") => AMOUNT_LIMITS,
        (_, "currency_not_supported") => CURRENCY,
        _ if error.param.as_deref().is_some_and(|param| param.contains("currency")) => CURRENCY,
        _ if error.param.as_deref().is_some_and(|param| param.contains("unit_amount")) => AMOUNT_LIMITS,
        _ => REFUSED,
    };
    let request = reply.headers.get("request-id").and_then(|id| id.to_str().ok()).unwrap_or_default();
    let words = [
        Some(reply.status.as_u16().to_string()),
        error.kind.as_deref().map(plain),
        error.code.as_deref().map(plain),
        error.decline_code.as_deref().map(plain),
        error.param.as_deref().map(plain),
        Some(plain(request)),
    ];
    let words: Vec<String> = words.into_iter().flatten().filter(|word| !word.is_empty()).collect();
    Some(Failure::permanent(ours, format!("Stripe refused: {}", words.join(" "))))
}

fn encoded(form: &[(&str, String)]) -> String {
    let url = Url::parse_with_params("http://form/", form.iter().map(|(name, value)| (*name, value.as_str())));
    url.ok().and_then(|url| url.query().map(str::to_owned)).unwrap_or_default()
}
