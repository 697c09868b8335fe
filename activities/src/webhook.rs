//! Calling webhooks of tenants: signed by Standard Webhooks 1.0, through the [`Egress`].

use crate::egress::{Egress, client::EgressError};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use flatrender_engine::{Attempt, Failure, Handler};
use flatrender_workflows::contracts::webhook::{CallSlowWebhook, CallWebhook, WebhookAnswer};
use hmac::{Hmac, KeyInit as _, Mac as _};
use reqwest::{
    Method, Request,
    header::{CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use ring::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use sha2::Sha256;
use std::{fmt, sync::Arc, time::Instant};
use uuid::Uuid;

/// Secrets begin with this, as people see them; it is no part of the key.
pub const SECRET_KIND: &str = "whsec_";
/// The same of private keys, which nobody sees, and of the public ones. Source: Standard Webhooks 1.0, "Asymmetric signatures".
const PRIVATE_KIND: &str = "whsk_";
const PUBLIC_KIND: &str = "whpk_";
/// Most of an answer that is kept, in bytes.
const EXCERPT_BYTES: usize = 4096;

/// Opens the sealed secret of a webhook; none when it does not open.
pub type Opener = Arc<dyn Fn(Uuid, &[u8]) -> Option<Vec<u8>> + Send + Sync>;

/// Calls webhooks. Cheap to clone.
#[derive(Clone)]
pub struct Caller {
    egress: Egress,
    open: Opener,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller").field("egress", &self.egress).finish_non_exhaustive()
    }
}

impl Caller {
    /// One that goes out through `egress`, which has the patience that a call may take, and opens secrets with `open`.
    pub fn new(egress: Egress, open: Opener) -> Self {
        Self { egress, open }
    }

    fn write(&self, call: CallWebhook, at: DateTime<Utc>) -> Result<Request, Failure> {
        let unopened =
            || Failure::permanent("webhook.secret", format!("the secret of webhook {} does not open", call.webhook_id));
        let id = call.event_id.to_string();
        let mut signatures = vec![];
        for sealed in &call.secrets {
            let sealed = hex::decode(sealed).map_err(|_| unopened())?;
            let secret = (self.open)(call.webhook_id, &sealed).ok_or_else(unopened)?;
            signatures.push(sign(&secret, &id, at, call.body.as_bytes()).ok_or_else(unopened)?);
        }
        let value = |text: &str| HeaderValue::from_str(text).map_err(|_| unopened());
        let url =
            call.url.parse().map_err(|_| Failure::permanent("webhook.url", "the address of the webhook is none"))?;
        let mut request = Request::new(Method::POST, url);
        let headers = request.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert("webhook-id", value(&id)?);
        headers.insert("webhook-timestamp", value(&at.timestamp().to_string())?);
        headers.insert("webhook-signature", value(&signatures.join(" "))?);
        *request.body_mut() = Some(call.body.into());
        Ok(request)
    }

    async fn call(&self, call: CallWebhook) -> Result<WebhookAnswer, Failure> {
        let (at, began) = (Utc::now(), Instant::now());
        let (webhook_id, request) = (call.webhook_id, self.write(call, at)?);
        let reply = self.egress.send_briefly(request, EXCERPT_BYTES).await;
        let took_ms = u32::try_from(began.elapsed().as_millis()).unwrap_or(u32::MAX);
        Ok(match reply {
            Ok(reply) => WebhookAnswer {
                status: Some(reply.status.as_u16()),
                excerpt: excerpt(&reply.headers, &reply.body),
                retry_after_seconds: retry_after(&reply.headers, at),
                took_ms,
            },
            Err(error) => {
                // Whoever runs the platform may know why; the tenant hears that nobody answers.
                let causes = causes(&error);
                tracing::debug!(%webhook_id, error = %causes, "a webhook gives no answer");
                WebhookAnswer { status: None, excerpt: None, retry_after_seconds: None, took_ms }
            }
        })
    }
}

impl Handler<CallWebhook> for Caller {
    async fn handle(&self, _: &Attempt, call: CallWebhook) -> Result<WebhookAnswer, Failure> {
        self.call(call).await
    }
}

impl Handler<CallSlowWebhook> for Caller {
    async fn handle(&self, _: &Attempt, call: CallSlowWebhook) -> Result<WebhookAnswer, Failure> {
        self.call(call.0).await
    }
}

/// The signature of a message: `v1,…` by a secret `whsec_…`, `v1a,…` by a private key `whsk_…`; none when it is neither. Source: Standard
/// Webhooks 1.0, "Signature scheme".
pub fn sign(secret: &[u8], id: &str, at: DateTime<Utc>, body: &[u8]) -> Option<String> {
    let secret = std::str::from_utf8(secret).ok()?;
    let message = signed(id, at, body);
    if let Some(key) = secret.strip_prefix(PRIVATE_KIND) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&BASE64.decode(key).ok()?).ok()?;
        return Some(format!("v1a,{}", BASE64.encode(pair.sign(&message))));
    }
    let key = BASE64.decode(secret.strip_prefix(SECRET_KIND)?).ok()?;
    let mut mac = Hmac::<Sha256>::new_from_slice(&key).ok()?;
    mac.update(&message);
    Some(format!("v1,{}", BASE64.encode(mac.finalize().into_bytes())))
}

/// Whether one of the signatures of a message is good by what its receiver has: a secret `whsec_…` or a public key `whpk_…`; none when it
/// is neither. How old the message is has to be looked at, too.
pub fn is_signed(secret: &str, id: &str, at: DateTime<Utc>, body: &[u8], signatures: &str) -> Option<bool> {
    let Some(key) = secret.strip_prefix(PUBLIC_KIND) else {
        let good = sign(secret.as_bytes(), id, at, body)?;
        return Some(signatures.split(' ').any(|given| given == good));
    };
    let key = UnparsedPublicKey::new(&ED25519, BASE64.decode(key).ok()?);
    let message = signed(id, at, body);
    let mut given = signatures.split(' ').filter_map(|given| BASE64.decode(given.strip_prefix("v1a,")?).ok());
    Some(given.any(|signature| key.verify(&message, &signature).is_ok()))
}

/// A private key `whsk_…` of this seed, and its public key `whpk_…`.
pub fn key_pair(seed: &[u8; 32]) -> (String, String) {
    // A seed of 32 bytes is good, whatever they are (RFC 8032, 5.1.5).
    let public =
        Ed25519KeyPair::from_seed_unchecked(seed).map(|pair| BASE64.encode(pair.public_key())).unwrap_or_default();
    (format!("{PRIVATE_KIND}{}", BASE64.encode(seed)), format!("{PUBLIC_KIND}{public}"))
}

fn signed(id: &str, at: DateTime<Utc>, body: &[u8]) -> Vec<u8> {
    [format!("{id}.{}.", at.timestamp()).as_bytes(), body].concat()
}

/// The begin of an answer, if it is text; what is none within it is left out.
fn excerpt(headers: &HeaderMap, body: &[u8]) -> Option<String> {
    let kind =
        headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("text/plain").to_ascii_lowercase();
    let is_text = kind.starts_with("text/") || kind.contains("json") || kind.contains("xml");
    if body.is_empty() || !is_text {
        return None;
    }
    let text = String::from_utf8_lossy(body);
    let mut text: String = text
        .chars()
        .filter(|c| *c != char::REPLACEMENT_CHARACTER && (!c.is_control() || "\n\t".contains(*c)))
        .collect();
    while text.len() > EXCERPT_BYTES {
        text.pop();
    }
    Some(text)
}

/// `Retry-After`, as seconds or as a date (RFC 9110, 10.2.3).
fn retry_after(headers: &HeaderMap, now: DateTime<Utc>) -> Option<u32> {
    let text = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = text.parse::<u64>() {
        return Some(u32::try_from(seconds).unwrap_or(u32::MAX));
    }
    let until = DateTime::parse_from_rfc2822(text).ok()?;
    u32::try_from((until.with_timezone(&Utc) - now).num_seconds().max(0)).ok()
}

fn causes(error: &EgressError) -> String {
    let mut text = error.to_string();
    let mut cause = std::error::Error::source(error);
    while let Some(inner) = cause {
        text = format!("{text}: {inner}");
        cause = inner.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(seconds, 0).expect("a time")
    }

    /// The vector that the specification and its libraries are tested with.
    #[test]
    fn the_reference_vector_is_signed_as_the_specification_has_it() {
        let secret = b"whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
        let signed = sign(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", at(1_614_265_330), b"{\"test\": 2432232314}");
        assert_eq!(signed.as_deref(), Some("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="));
        assert_eq!(sign(b"MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", "a", at(0), b""), None, "a secret says what it is");
        assert_eq!(sign(b"whsec_%", "a", at(0), b""), None);
    }

    /// RFC 8032, 7.1, TEST 1 gives the public key of a seed.
    #[test]
    fn a_key_pair_signs_what_its_public_half_verifies() {
        let seed = "9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60";
        let public = "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a";
        let seed: [u8; 32] = hex::decode(seed).expect("hexadecimal").try_into().expect("32 bytes");
        let (private, shown) = key_pair(&seed);
        assert_eq!(shown, format!("whpk_{}", BASE64.encode(hex::decode(public).expect("hexadecimal"))));
        let signature = sign(private.as_bytes(), "id", at(5), b"body").expect("it signs");
        let good = |id: &str, seconds: i64, body: &[u8], given: &str| is_signed(&shown, id, at(seconds), body, given);
        assert!(signature.starts_with("v1a,"));
        assert_eq!(good("id", 5, b"body", &format!("v1,AAAA {signature}")), Some(true));
        for forged in [
            good("other", 5, b"body", &signature),
            good("id", 6, b"body", &signature),
            good("id", 5, b"bodY", &signature),
            good("id", 5, b"body", &signature.replace("v1a", "v1")),
        ] {
            assert_eq!(forged, Some(false));
        }
        assert_eq!(is_signed("whsk_AAAA", "id", at(5), b"", ""), None);
    }

    #[test]
    fn an_answer_is_kept_as_four_kilobytes_of_text_at_most() {
        let kind = |kind: &'static str| HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(kind))]);
        assert_eq!(excerpt(&kind("text/html; charset=utf-8"), b"<b>no\0</b>\r\n").as_deref(), Some("<b>no</b>\n"));
        assert_eq!(excerpt(&kind("application/problem+json"), b"{}").as_deref(), Some("{}"));
        assert_eq!(excerpt(&kind("image/png"), b"\x89PNG"), None);
        assert_eq!(excerpt(&HeaderMap::new(), b"\xff\xfeok").as_deref(), Some("ok"));
        let long = excerpt(&kind("text/plain"), "é".repeat(EXCERPT_BYTES).as_bytes()).expect("text");
        assert_eq!(long.len(), EXCERPT_BYTES);
    }

    #[test]
    fn the_time_to_come_back_is_read_in_both_spellings() {
        let said = |text: &'static str| {
            retry_after(&HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(text))]), at(784_111_777))
        };
        assert_eq!((said("120"), said(" 0 "), said("99999999999")), (Some(120), Some(0), Some(u32::MAX)));
        assert_eq!(said("Sun, 06 Nov 1994 08:51:37 GMT"), Some(120));
        assert_eq!(said("Sun, 06 Nov 1994 08:00:00 GMT"), Some(0), "that is over");
        assert_eq!((said("soon"), said("-5")), (None, None));
    }
}
