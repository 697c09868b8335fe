//! What is told to webhooks of tenants.

use flatrender_engine::{Activity, Policy};
use serde::{Deserialize, Serialize};
use std::time::Duration;
use uuid::Uuid;

/// The queue of those who call webhooks.
pub const WEBHOOK_QUEUE: &str = "webhook";
/// The queue of those who call webhooks that take long to answer: nobody else waits for them.
pub const SLOW_WEBHOOK_QUEUE: &str = "webhook.slow";
/// Longest time of a call, from the name to the last byte.
pub const CALL: Duration = Duration::from_secs(20);

/// Nothing came back: no such name, a port that is closed or says nothing, a certificate that is not good, or no answer in time. Which
/// of them it was is not told: it would tell of networks.
pub const NO_ANSWER: &str = "webhook.no_answer";
/// An answer other than 2xx came back.
pub const BAD_STATUS: &str = "webhook.bad_status";

/// Calls a webhook once, signed by Standard Webhooks 1.0. Whatever comes of it is the outcome, not a failure: when to call again is
/// decided elsewhere. A repeat sends the same `webhook-id`. Fails for good with `webhook.secret` when its secret does not open.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CallWebhook {
    /// The webhook.
    pub webhook_id: Uuid,
    /// The event: the `webhook-id`.
    pub event_id: Uuid,
    /// What is called.
    pub url: String,
    /// What signs, sealed, hexadecimal, the newest first.
    pub secrets: Vec<String>,
    /// The body, JSON.
    pub body: String,
    /// Which of the calls that the webhook may get at a time it is, from 0.
    pub lane: u32,
}

/// The same for a webhook that has taken long to answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct CallSlowWebhook(pub CallWebhook);

/// What came of a call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookAnswer {
    /// The status; none when nothing came back.
    pub status: Option<u16>,
    /// The begin of the answer, when it is text: at most 4096 bytes.
    pub excerpt: Option<String>,
    /// For how long the receiver asked to be left alone, in seconds.
    pub retry_after_seconds: Option<u32>,
    /// How long it took, in milliseconds.
    pub took_ms: u32,
}

impl WebhookAnswer {
    /// Whether the receiver has taken it.
    pub fn is_good(&self) -> bool {
        self.status.is_some_and(|status| (200..300).contains(&status))
    }

    /// Why it failed; none when it did not.
    pub fn error(&self) -> Option<&'static str> {
        match self.status {
            None => Some(NO_ANSWER),
            Some(_) => (!self.is_good()).then_some(BAD_STATUS),
        }
    }
}

/// Lost with its worker it is sent again; a receiver knows it by its id.
fn once() -> Policy {
    Policy {
        max_failures: 3,
        max_losses: 10,
        lease: Duration::from_secs(30),
        start_to_close: Duration::from_secs(40),
        ..Policy::default()
    }
}

impl Activity for CallWebhook {
    const NAME: &'static str = "CallWebhook";
    const QUEUE: &'static str = WEBHOOK_QUEUE;
    type Output = WebhookAnswer;

    fn policy(&self) -> Policy {
        once()
    }

    /// One call a lane at a time: a webhook gets as many as it has lanes.
    fn limit_key(&self) -> Option<String> {
        Some(format!("{}:{}", self.webhook_id, self.lane))
    }
}

impl Activity for CallSlowWebhook {
    const NAME: &'static str = "CallSlowWebhook";
    const QUEUE: &'static str = SLOW_WEBHOOK_QUEUE;
    type Output = WebhookAnswer;

    fn policy(&self) -> Policy {
        once()
    }

    fn limit_key(&self) -> Option<String> {
        self.0.limit_key()
    }
}
