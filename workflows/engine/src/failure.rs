//! Why a step, an activity or a run did not succeed: what is stored with the attempt and what decides
//! whether another attempt can cure it.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::time::Duration;

/// A failure as it is kept in the record of a run.
///
/// `code` is stable and documented (`render.missing_font`); `message` is for people and may change.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, thiserror::Error)]
#[error("{code}: {message}")]
pub struct Failure {
    /// Stable identifier, `domain.reason` in snake case.
    pub code: String,
    /// One sentence for people.
    pub message: String,
    /// Whether another attempt may succeed.
    pub retryable: bool,
    /// Seconds to wait before the next attempt when the other side named them; overrides the backoff.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<f64>,
    /// Evidence: frames, exit codes, log tails. Null when there is none.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub details: Value,
}

/// Code of a failure that a cancellation caused.
pub const CANCELLED: &str = "workflow.cancelled";
/// Code of an attempt whose lease went to somebody else.
pub const LEASE_LOST: &str = "workflow.lease_lost";

impl Failure {
    /// A failure that no retry can cure.
    pub fn permanent(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            code: code.into(),
            message: message.into(),
            retryable: false,
            retry_after_seconds: None,
            details: Value::Null,
        }
    }

    /// A failure that may pass by itself.
    pub fn transient(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self { retryable: true, ..Self::permanent(code, message) }
    }

    /// The attempt or run was asked to stop.
    pub fn cancelled() -> Self {
        Self::permanent(CANCELLED, "cancelled on request")
    }

    /// The attempt's lease expired or was taken over; whatever it still does is refused.
    pub fn lease_lost() -> Self {
        Self::permanent(LEASE_LOST, "the lease of this attempt was lost; a newer attempt owns the task")
    }

    /// What a panic of `whom` leaves behind; it is in the log, too.
    #[cfg(any(feature = "store", feature = "remote-worker"))]
    pub(crate) fn panicked(whom: &str, payload: &(dyn std::any::Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        let message = text.unwrap_or("a panic without a message");
        tracing::error!(panic = message, "{whom} panicked");
        Self::transient("workflow.panicked", message)
    }

    /// Adds evidence.
    #[must_use]
    pub fn with_details(mut self, details: Value) -> Self {
        self.details = details;
        self
    }

    /// Asks for the next attempt no earlier than `delay` from now.
    #[must_use]
    pub fn after(mut self, delay: Duration) -> Self {
        self.retryable = true;
        self.retry_after_seconds = Some(delay.as_secs_f64());
        self
    }

    /// Whether a cancellation caused it.
    pub fn is_cancelled(&self) -> bool {
        self.code == CANCELLED
    }

    /// Whether the attempt no longer owns its task.
    pub fn is_lease_lost(&self) -> bool {
        self.code == LEASE_LOST
    }
}
