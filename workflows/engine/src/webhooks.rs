//! Signals from outside: signed webhooks, as [Standard Webhooks](https://www.standardwebhooks.com) 1.0 has them, for any axum
//! application (feature `http`). Who signs, and which run a payload is about, says the application.
//!
//! ```text
//!   sender ──POST, signed──▶ signature, time ──▶ what it means ──▶ a signal, once ──▶ run
//! ```
//!
//! | | status and `delivery`, or the code of the problem |
//! |---|---|
//! | a signal that its run has not had | 200 `accepted` |
//! | the same `webhook-id` again, whenever | 200 `repeated`; nothing is added |
//! | the run is over | 200 `closed`: it is of no use to send it again |
//! | it means nothing here | 200 `ignored` |
//! | there is no such run, or not yet: senders try again | 404 `run.unknown` |
//! | signed with none of the secrets, or too long ago, or in the future | 401 `webhook.unauthentic` |
//! | a header is missing or unreadable, the body is no JSON, or not what it should be | 400 `webhook.invalid`, or the code of the failure |
//! | the body is too long | 413 `webhook.invalid` |
//! | the database is away: send it again | 503 `server.unavailable` |
//!
//! The time is the database's, like that of everything else here; nobody reaches the database without a good signature.

use crate::{
    client::{Client, Error},
    failure::Failure,
    remote::problem,
    signals::Delivery,
    store,
    workflow::Workflow,
};
use axum::{
    Json,
    body::Bytes,
    extract::{DefaultBodyLimit, rejection::BytesRejection},
    http::HeaderMap,
    response::{IntoResponse, Response},
    routing::{MethodRouter, post},
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chrono::{DateTime, Utc};
use hmac::{Hmac, KeyInit as _, Mac as _};
use serde::Serialize;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use std::{fmt, sync::Arc, time::Duration};
use uuid::Uuid;

/// What secrets begin with when they are shown to people; it is no part of the key.
const PREFIX: &str = "whsec_";
/// Bytes of a key, by the specification.
const KEY: std::ops::RangeInclusive<usize> = 24..=64;
/// How far the time of a webhook may be from ours, by the specification.
const TOLERANCE: Duration = Duration::from_secs(5 * 60);
/// Longer ids are kept by their hash.
const LONGEST_ID: usize = 100;

/// What a sender may sign with: one secret, or during a rotation the old one and the new.
#[derive(Clone)]
pub struct Secrets {
    keys: Arc<[Hmac<Sha256>]>,
    tolerance: Duration,
}

/// A secret that is none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a secret is the base64 of 24 to 64 bytes, with or without whsec_ before it, and there is at least one")]
pub struct BadSecret;

/// A webhook whose signature is good.
#[derive(Debug, Clone, PartialEq)]
pub struct Webhook {
    /// The same for every time it is sent.
    pub id: String,
    /// When it was sent.
    pub sent_at: DateTime<Utc>,
    /// Its body.
    pub payload: Value,
}

/// The signal that a webhook is.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    to: To,
    name: String,
    payload: Value,
}

#[derive(Debug, Clone, PartialEq)]
enum To {
    Run(Uuid),
    Key { kind: &'static str, tenant_id: Uuid, key: String },
}

impl Message {
    /// The signal `name` for a run.
    pub fn to_run(run_id: Uuid, name: impl Into<String>, payload: Value) -> Self {
        Self { to: To::Run(run_id), name: name.into(), payload }
    }

    /// The signal `name` for the run of `W` that was started under a business key.
    pub fn to_key<W: Workflow>(
        tenant_id: Uuid,
        business_key: impl Into<String>,
        name: impl Into<String>,
        payload: Value,
    ) -> Self {
        let to = To::Key { kind: W::NAME, tenant_id, key: business_key.into() };
        Self { to, name: name.into(), payload }
    }
}

/// Why a webhook is not taken.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It cannot be read.
    #[error("{0}")]
    Invalid(String),
    /// Nobody who has a secret has sent it, or it was sent at another time.
    #[error("{0}")]
    Unauthentic(&'static str),
}

impl Secrets {
    /// These secrets, as base64 with or without `whsec_`.
    ///
    /// # Errors
    /// [`BadSecret`].
    pub fn new<S: AsRef<str>>(secrets: impl IntoIterator<Item = S>) -> Result<Self, BadSecret> {
        let key = |secret: S| {
            let secret = secret.as_ref();
            let key = STANDARD.decode(secret.strip_prefix(PREFIX).unwrap_or(secret)).map_err(|_| BadSecret)?;
            if !KEY.contains(&key.len()) {
                return Err(BadSecret);
            }
            Hmac::new_from_slice(&key).map_err(|_| BadSecret)
        };
        let keys: Arc<[_]> = secrets.into_iter().map(key).collect::<Result<_, _>>()?;
        if keys.is_empty() { Err(BadSecret) } else { Ok(Self { keys, tolerance: TOLERANCE }) }
    }

    /// How far the time of a webhook may be from ours; 5 minutes by default.
    #[must_use]
    pub fn tolerance(self, tolerance: Duration) -> Self {
        Self { tolerance, ..self }
    }

    /// The id of a webhook that was signed with one of the secrets, and when it says that it was sent. In constant time for each
    /// signature.
    fn signed(&self, headers: &HeaderMap, body: &[u8]) -> Result<(String, DateTime<Utc>), Refused> {
        let header = |name: &str| {
            let text = headers.get(name).and_then(|value| value.to_str().ok()).filter(|text| !text.is_empty());
            text.ok_or_else(|| Refused::Invalid(format!("the header {name} is missing, or not readable")))
        };
        let (id, at, signatures) = (header("webhook-id")?, header("webhook-timestamp")?, header("webhook-signature")?);
        let sent_at = at.parse().ok().and_then(|seconds| DateTime::from_timestamp(seconds, 0));
        let sent_at =
            sent_at.ok_or_else(|| Refused::Invalid("webhook-timestamp is no number of seconds".to_owned()))?;
        let signed =
            signatures.split(' ').filter_map(|one| STANDARD.decode(one.strip_prefix("v1,")?).ok()).any(|one| {
                let good = |key: &Hmac<Sha256>| {
                    let mut mac = key.clone();
                    [id.as_bytes(), b".", at.as_bytes(), b".", body].into_iter().for_each(|part| mac.update(part));
                    mac.verify_slice(&one).is_ok()
                };
                self.keys.iter().any(good)
            });
        if signed { Ok((id.to_owned(), sent_at)) } else { Err(Refused::Unauthentic("no signature is good")) }
    }

    /// A webhook, if it is one at the time `now`.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn read(&self, headers: &HeaderMap, body: &[u8], now: DateTime<Utc>) -> Result<Webhook, Refused> {
        let (id, sent_at) = self.signed(headers, body)?;
        self.in_time(sent_at, now)?;
        Ok(Webhook { id, sent_at, payload: read(body)? })
    }

    fn in_time(&self, sent_at: DateTime<Utc>, now: DateTime<Utc>) -> Result<(), Refused> {
        let off = (now - sent_at).abs().to_std().unwrap_or(Duration::MAX);
        if off <= self.tolerance { Ok(()) } else { Err(Refused::Unauthentic("it was sent at another time")) }
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secrets").field("count", &self.keys.len()).field("tolerance", &self.tolerance).finish()
    }
}

fn read(body: &[u8]) -> Result<Value, Refused> {
    serde_json::from_slice(body).map_err(|error| Refused::Invalid(format!("the body is no JSON: {error}")))
}

/// Receives webhooks where the application mounts it. `meaning` says which signal a webhook is; none: it is of no interest; a
/// [permanent](Failure::permanent) failure: it is not what it should be; a transient one: another time.
pub fn receive<S, F, M>(client: Client, secrets: Secrets, meaning: F) -> MethodRouter<S>
where
    S: Clone + Send + Sync + 'static,
    F: Fn(Webhook) -> M + Clone + Send + Sync + 'static,
    M: Future<Output = Result<Option<Message>, Failure>> + Send,
{
    let longest = client.payloads.ceiling().saturating_mul(2).max(2 << 20);
    let answer = async move |headers: HeaderMap, body: Result<Bytes, BytesRejection>| match body {
        Ok(body) => take(&client, &secrets, &meaning, &headers, &body).await.unwrap_or_else(|refusal| refusal),
        Err(rejection) => problem(rejection.status().as_u16(), "webhook.invalid", rejection.body_text()),
    };
    post(answer).layer(DefaultBodyLimit::max(longest))
}

/// The answer to a webhook; an error is one, too.
async fn take<F, M>(
    client: &Client,
    secrets: &Secrets,
    meaning: &F,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Response, Response>
where
    F: Fn(Webhook) -> M,
    M: Future<Output = Result<Option<Message>, Failure>>,
{
    let (id, sent_at) = secrets.signed(headers, body).map_err(refusal)?;
    let now = store::runs::now(client.pool()).await.map_err(|error| away(error.into()))?;
    secrets.in_time(sent_at, now).map_err(refusal)?;
    let webhook = Webhook { id: id.clone(), sent_at, payload: read(body).map_err(refusal)? };
    let Some(message) = meaning(webhook).await.map_err(misunderstood)? else { return Ok(delivered("ignored")) };
    match deliver(client, &id, message).await.map_err(away)? {
        Delivery::Unknown => Err(problem(404, "run.unknown", "there is no such run, or not yet".to_owned())),
        delivery => Ok(delivered(delivery)),
    }
}

async fn deliver(client: &Client, id: &str, message: Message) -> Result<Delivery, Error> {
    // One statement writes, and is a transaction of its own.
    let mut db = client.pool().acquire().await?;
    let run_id = match message.to {
        To::Run(run_id) => Some(run_id),
        To::Key { kind, tenant_id, key } => store::runs::by_key(&mut db, kind, tenant_id, Some(&key)).await?,
    };
    let Some(run_id) = run_id else { return Ok(Delivery::Unknown) };
    let key = match id.len() {
        ..=LONGEST_ID => format!("webhook:{id}"),
        _ => format!("webhook:{}", hex::encode(Sha256::digest(id))),
    };
    let delivery = client.signal(&mut db, run_id, &message.name, Some(&key), &message.payload).await?;
    client.announce();
    Ok(delivery)
}

fn delivered(delivery: impl Serialize) -> Response {
    Json(json!({ "delivery": delivery })).into_response()
}

fn refusal(refused: Refused) -> Response {
    match &refused {
        Refused::Invalid(_) => problem(400, "webhook.invalid", refused.to_string()),
        Refused::Unauthentic(_) => problem(401, "webhook.unauthentic", refused.to_string()),
    }
}

fn misunderstood(failure: Failure) -> Response {
    problem(if failure.retryable { 503 } else { 400 }, &failure.code, failure.message)
}

fn away(error: Error) -> Response {
    if let Error::Unrecordable(failure) = error {
        return problem(400, "webhook.invalid", failure.message);
    }
    tracing::warn!(error = &error as &dyn std::error::Error, "cannot take a webhook");
    problem(503, "server.unavailable", "the server cannot do it at the moment".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of the libraries of Standard Webhooks: the same in each of them.
    const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
    const BODY: &[u8] = br#"{"test": 2432232314}"#;
    const SENT_AT: i64 = 1_614_265_330;
    const SIGNATURE: &str = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=";

    fn headers(signature: &str) -> HeaderMap {
        let sent = [
            ("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek"),
            ("webhook-timestamp", "1614265330"),
            ("webhook-signature", signature),
        ];
        sent.into_iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    fn at(seconds: i64) -> DateTime<Utc> {
        DateTime::from_timestamp(SENT_AT + seconds, 0).unwrap()
    }

    #[test]
    fn the_vectors_of_the_specification_are_good_for_five_minutes() {
        let other = "v1,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";
        let v2 = "v2,Ceo5qEr07ixe2NLpvHk3FH9bwy/WavXrAFQ/9tdO6mc=";
        for secret in [SECRET, &SECRET[PREFIX.len()..]] {
            let secrets = Secrets::new([secret]).unwrap();
            for signature in [SIGNATURE, &format!("{other} {v2} {SIGNATURE} {other}")] {
                for seconds in [-300, 0, 300] {
                    let webhook = secrets.read(&headers(signature), BODY, at(seconds)).unwrap();
                    assert_eq!(webhook.id, "msg_p5jXN8AQM9LWM0D4loKWxJek");
                    assert_eq!((webhook.sent_at, webhook.payload), (at(0), json!({ "test": 2_432_232_314_u32 })));
                }
                for seconds in [-301, 301, 86_400] {
                    let read = secrets.read(&headers(signature), BODY, at(seconds));
                    assert!(matches!(read, Err(Refused::Unauthentic(_))), "{read:?}");
                }
            }
            for signature in [other, "v1,", &SIGNATURE[..8], &SIGNATURE.replace("v1", "v2"), &SIGNATURE[3..]] {
                let read = secrets.read(&headers(signature), BODY, at(0));
                assert!(matches!(read, Err(Refused::Unauthentic(_))), "{signature}: {read:?}");
            }
        }
    }

    #[test]
    fn a_secret_has_24_to_64_bytes_and_is_not_shown() {
        for (bytes, good) in [(23, false), (24, true), (64, true), (65, false)] {
            assert_eq!(Secrets::new([STANDARD.encode(vec![7; bytes])]).is_ok(), good, "{bytes}");
        }
        assert_eq!(Secrets::new(Vec::<String>::new()).unwrap_err(), BadSecret);
        assert_eq!(Secrets::new([SECRET, "whsec_?"]).unwrap_err(), BadSecret);
        assert_eq!(format!("{:?}", Secrets::new([SECRET]).unwrap()), "Secrets { count: 1, tolerance: 300s }");
    }
}
