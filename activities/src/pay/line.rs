//! The line to a gateway: what comes back, and what it means that nothing does. Nothing of a request, and nothing of an answer but codes,
//! gets into the text of a failure.

use crate::egress::{
    Egress,
    client::{EgressError, Reply},
};
use flatrender_engine::Failure;
use flatrender_workflows::contracts::pay::{MERCHANT_CONFIG, THROTTLED, UNKNOWN_OUTCOME, UNREACHABLE};
use reqwest::{Request, StatusCode, header};
use serde::de::DeserializeOwned;
use std::time::Duration;

/// Most of an answer that is read: a hundred charges with everything that belongs to them.
const ANSWER_BYTES: usize = 4 << 20;
/// When a gateway wants to be left alone and does not say for how long, in seconds.
const A_WHILE: f64 = 30.0;

/// What a request does over there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    /// It asks.
    None,
    /// Something happens: when no answer comes, it may have.
    Some,
}

/// Asks a gateway, by its name for people.
#[derive(Clone, Copy)]
pub(super) struct Line<'a> {
    pub(super) egress: &'a Egress,
    pub(super) whom: &'static str,
}

impl Line<'_> {
    /// Sends a request. An answer of any status is one, but for those that ask us to come back later.
    pub(super) async fn call(&self, request: Request, effect: Effect) -> Result<Reply, Failure> {
        let reply = self.egress.send(request, ANSWER_BYTES).await.map_err(|error| match &error {
            EgressError::Refused(_) => {
                Failure::permanent(MERCHANT_CONFIG, format!("the address of {} may not be called: {error}", self.whom))
            }
            // Nobody was there: nothing can have happened.
            EgressError::Silent(cause) if cause.is_connect() => self.silent(Effect::None),
            EgressError::Silent(_) | EgressError::TooLong(_) => self.silent(effect),
        })?;
        let after = || {
            let said = reply.headers.get(header::RETRY_AFTER).and_then(|v| v.to_str().ok()?.trim().parse::<f64>().ok());
            said.filter(|seconds| seconds.is_finite())
        };
        let wait = match reply.status {
            StatusCode::TOO_MANY_REQUESTS => Some(after().unwrap_or(A_WHILE)),
            StatusCode::SERVICE_UNAVAILABLE => after(),
            _ => None,
        };
        match wait {
            Some(seconds) => Err(self.throttled(seconds)),
            None => Ok(reply),
        }
    }

    /// Reads an answer as what it should be.
    pub(super) fn read<T: DeserializeOwned>(&self, reply: &Reply, effect: Effect) -> Result<T, Failure> {
        serde_json::from_slice(&reply.body).map_err(|_| {
            let text = format!("{} answered {} with something that cannot be read", self.whom, reply.status.as_u16());
            of(effect, text)
        })
    }

    /// What it is that a gateway broke down.
    pub(super) fn broken(&self, status: StatusCode, effect: Effect) -> Failure {
        of(effect, format!("{} answered {}", self.whom, status.as_u16()))
    }

    /// What it is that no answer came.
    pub(super) fn silent(&self, effect: Effect) -> Failure {
        of(effect, format!("{} gave no answer", self.whom))
    }

    pub(super) fn throttled(&self, seconds: f64) -> Failure {
        let text = format!("{} wants to be asked later", self.whom);
        Failure::transient(THROTTLED, text).after(Duration::from_secs_f64(seconds.clamp(1.0, 3600.0)))
    }
}

fn of(effect: Effect, text: String) -> Failure {
    match effect {
        Effect::None => Failure::transient(UNREACHABLE, text),
        Effect::Some => Failure::transient(UNKNOWN_OUTCOME, text),
    }
}

/// A code of a gateway as it may be shown: letters, digits and what joins them, at most eighty.
pub(super) fn plain(code: &str) -> String {
    code.chars().filter(|c| c.is_ascii_alphanumeric() || "_-.[]".contains(*c)).take(80).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_is_shown_and_nothing_that_somebody_wrote_into_it() {
        assert_eq!(plain("amount_too_small"), "amount_too_small");
        assert_eq!(plain("line_items[0]<script>\n\u{202e}é sk/"), "line_items[0]scriptsk");
        assert_eq!(plain(&"a".repeat(500)).len(), 80);
    }

    #[test]
    fn what_has_an_effect_and_no_answer_is_not_known() {
        let egress = Egress::default();
        let line = Line { egress: &egress, whom: "Stripe" };
        assert_eq!(line.silent(Effect::Some).code, UNKNOWN_OUTCOME);
        assert_eq!(line.silent(Effect::None).code, UNREACHABLE);
        let throttled = line.throttled(f64::MAX);
        assert_eq!((throttled.retryable, throttled.retry_after_seconds), (true, Some(3600.0)));
    }
}
