//! Trace contexts: which request, in the end, something is done for. One id goes from the caller who starts a run through its
//! steps, activities and children to every worker, remote ones included.
//!
//! ```text
//!   caller ──start──▶ run ──▶ step          a context is (trace, span): the trace stays, each arrow leads to
//!                      ├────▶ attempt ──▶ …  a span of its own, whose parent is the one before
//!                      └────▶ child ────▶ …
//! ```
//! The form is that of [W3C Trace Context, level 1](https://www.w3.org/TR/trace-context/). Nothing is stored, logged or passed on
//! where no context is there: a caller makes or receives one and starts runs within its [`TraceContext::scope`].

use crate::activity::LeasedTask;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::{fmt, str::FromStr};
use tracing::{Instrument, Span};
use uuid::Uuid;

/// The header that carries a context between processes.
pub const TRACEPARENT: &str = "traceparent";

tokio::task_local! {
    static CURRENT: TraceContext;
}

/// A place in a trace. As text it is a `traceparent`: `00-<32 hex digits: trace>-<16: span>-<2: flags>`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: u128,
    span_id: u64,
    flags: u8,
}

/// A text that is no `traceparent`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent")]
pub struct InvalidTraceparent;

impl TraceContext {
    /// The beginning of a new trace, to be recorded.
    pub fn root() -> Self {
        let trace_id = Uuid::new_v4().as_u128();
        Self { trace_id, span_id: new_span_id(), flags: 1 }
    }

    /// A span of its own below this one.
    #[must_use]
    pub fn child(&self) -> Self {
        Self { span_id: new_span_id(), ..*self }
    }

    /// The context of the future that asks, if it runs in the [`TraceContext::scope`] of one: of the request, of the
    /// definition, of the step or of the attempt.
    pub fn current() -> Option<Self> {
        CURRENT.try_with(|current| *current).ok()
    }

    /// Runs `future` with this as the current context: runs and jobs that it starts belong to this trace.
    pub fn scope<F: Future>(self, future: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, future)
    }

    /// The id of the trace: 32 hex digits.
    pub fn trace_id(&self) -> String {
        format!("{:032x}", self.trace_id)
    }

    /// The id of the span: 16 hex digits.
    pub fn span_id(&self) -> String {
        format!("{:016x}", self.span_id)
    }

    /// Whether the caller keeps what it knows of this trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & 1 == 1
    }
}

/// Never zero, which would mean none.
fn new_span_id() -> u64 {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    // Each half of a version 4 UUID has fixed bits, at different places.
    (high ^ low.rotate_left(32)).max(1)
}

impl FromStr for TraceContext {
    type Err = InvalidTraceparent;

    /// Reads version 00, and of later versions what they have in common with it; a text of more than 128 bytes is none.
    fn from_str(text: &str) -> Result<Self, InvalidTraceparent> {
        let bytes = text.as_bytes();
        let length = bytes.len();
        let longer = bytes.get(55).is_none_or(|b| *b == b'-') && length <= 128;
        let separated = length >= 55 && [2, 35, 52].iter().all(|at| bytes[*at] == b'-');
        if !separated || !longer || !text.is_ascii() {
            return Err(InvalidTraceparent);
        }
        let version = hex(&text[..2])?;
        let (trace_id, span_id, flags) = (hex(&text[3..35])?, hex(&text[36..52])?, hex(&text[53..55])?);
        if version == 0xff || (version == 0 && length != 55) || trace_id == 0 || span_id == 0 {
            return Err(InvalidTraceparent);
        }
        // Two and sixteen digits fit; of the flags only the first is defined.
        Ok(Self { trace_id, span_id: span_id as u64, flags: flags as u8 & 1 })
    }
}

/// Lower case only, as the standard has it.
fn hex(digits: &str) -> Result<u128, InvalidTraceparent> {
    if digits.bytes().any(|b| !matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
        return Err(InvalidTraceparent);
    }
    u128::from_str_radix(digits, 16).map_err(|_| InvalidTraceparent)
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace_id, self.span_id, self.flags)
    }
}

impl fmt::Debug for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for TraceContext {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TraceContext {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Reads a field that may hold anything: what is no context counts as none.
pub(crate) fn lenient<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<TraceContext>, D::Error> {
    let value = Option::<serde_json::Value>::deserialize(deserializer)?;
    Ok(value.as_ref().and_then(|value| parse(value.as_str())))
}

/// What is no context counts as none: nobody is refused for it.
pub(crate) fn parse(text: Option<&str>) -> Option<TraceContext> {
    text?.parse().ok()
}

/// The span of a run's stay in the memory of a worker.
#[cfg(feature = "store")]
pub(crate) fn run_span(parent: Option<TraceContext>, own: Option<TraceContext>, run_id: Uuid, kind: &str) -> Span {
    let Some((parent, own)) = parent.zip(own) else { return Span::none() };
    tracing::info_span!(
        "run", run.id = %run_id, kind, trace_id = own.trace_id(), span_id = own.span_id(), parent_id = parent.span_id()
    )
}

/// The span of a step while it is done for the first time; a replay does nothing.
#[cfg(feature = "store")]
pub(crate) fn step_span(parent: Option<TraceContext>, own: Option<TraceContext>, key: &str) -> Span {
    let Some((parent, own)) = parent.zip(own) else { return Span::none() };
    tracing::info_span!("step", key, trace_id = own.trace_id(), span_id = own.span_id(), parent_id = parent.span_id())
}

/// The span of an attempt at a task.
pub(crate) fn attempt_span(task: &LeasedTask, own: Option<TraceContext>) -> Span {
    let Some((parent, own)) = task.traceparent.zip(own) else { return Span::none() };
    tracing::info_span!(
        "attempt", task.id = task.task_id, run.id = %task.run_id, activity = task.activity, attempt = task.attempt_no,
        trace_id = own.trace_id(), span_id = own.span_id(), parent_id = parent.span_id()
    )
}

/// Does `future` in the span and with the context of a piece of work; without a context it is done as it is.
pub(crate) async fn within<F: Future>(context: Option<TraceContext>, span: Span, future: F) -> F::Output {
    match context {
        Some(context) => context.scope(future).instrument(span).await,
        None => future.await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const FROM_THE_STANDARD: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    #[test]
    fn a_traceparent_is_read_and_written() {
        let context: TraceContext = FROM_THE_STANDARD.parse().unwrap();
        assert_eq!(context.trace_id(), "4bf92f3577b34da6a3ce929d0e0e4736");
        assert_eq!(context.span_id(), "00f067aa0ba902b7");
        assert!(context.is_sampled());
        assert_eq!(context.to_string(), FROM_THE_STANDARD);
        let child = context.child();
        assert_eq!(child.trace_id(), context.trace_id());
        assert_ne!(child.span_id(), context.span_id());
    }

    #[test]
    fn a_later_version_is_read_as_far_as_it_is_known() {
        let later = format!("cc{}-what-is-to-come", &FROM_THE_STANDARD[2..]);
        assert_eq!(later.parse::<TraceContext>().unwrap().to_string(), FROM_THE_STANDARD);
    }

    #[test]
    fn what_is_no_traceparent_is_none() {
        let (trace, span) = ("4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7");
        for text in [
            "",
            "00",
            "00-----------------------------------------------------",
            &format!("ff-{trace}-{span}-01"),
            &format!("00-{trace}-{span}-01-more"),
            &format!("cc-{trace}-{span}-01more"),
            &format!("cc-{trace}-{span}-01-{}", "x".repeat(100)),
            &format!("00-{trace}-{span}-0"),
            &format!("00-{}-{span}-01", trace.to_uppercase()),
            &format!("00-{}-{span}-01", "0".repeat(32)),
            &format!("00-{trace}-{}-01", "0".repeat(16)),
            &format!("00-+{}-{span}-01", &trace[1..]),
            &format!("00-{trace}-{span}-é"),
            &format!("00_{trace}_{span}_01"),
            &format!(" {FROM_THE_STANDARD}"),
        ] {
            assert_eq!(text.parse::<TraceContext>(), Err(InvalidTraceparent), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_text_is_too_wild(text in ".{0,160}") {
            if let Ok(context) = text.parse::<TraceContext>() {
                prop_assert_eq!(context.to_string().parse(), Ok(context));
            }
        }
    }

    #[tokio::test]
    async fn a_context_is_current_within_its_scope_alone() {
        let context = TraceContext::root();
        assert_eq!(TraceContext::current(), None);
        assert_eq!(context.scope(async { TraceContext::current() }).await, Some(context));
        assert_eq!(TraceContext::current(), None);
    }
}
