//! What is recorded of a run, what its definition asks for, and the form in which both are stored.

use crate::{
    activity::{Activity, Labels, Policy},
    failure::Failure,
    payload::Payloads,
    workflow::Context,
};
use chrono::{DateTime, Utc};
use futures::future::BoxFuture;
use serde_json::{Value, json};

/// What was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Step,
    Activity,
    Timer,
    Cancel,
    Signal,
    Child,
    Start,
    Patch,
    Compensation,
}

impl Kind {
    pub(crate) fn parse(name: &str) -> Self {
        match name {
            "step" => Self::Step,
            "activity" => Self::Activity,
            "timer" => Self::Timer,
            "signal" => Self::Signal,
            "child" => Self::Child,
            "start" => Self::Start,
            "patch" => Self::Patch,
            "compensation" => Self::Compensation,
            _ => Self::Cancel,
        }
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Step => "step",
            Self::Activity => "activity",
            Self::Timer => "timer",
            Self::Cancel => "cancel",
            Self::Signal => "signal",
            Self::Child => "child",
            Self::Start => "start",
            Self::Patch => "patch",
            Self::Compensation => "compensation",
        }
    }

    /// Whether only the definition brings it about; the rest comes from outside, at any time.
    pub(crate) fn is_own(self) -> bool {
        !matches!(self, Self::Cancel | Self::Signal)
    }
}

/// One entry of the record of a run.
#[derive(Debug, Clone)]
pub(crate) struct Record {
    pub seq: i64,
    pub key: String,
    pub kind: Kind,
    pub name: Option<String>,
    pub outcome: Result<Value, Failure>,
    pub recorded_at: DateTime<Utc>,
}

/// Work of a run that was asked for and is not recorded yet.
#[derive(Debug, Clone)]
pub(crate) struct InFlight {
    pub key: String,
    pub kind: Kind,
    pub name: Option<String>,
}

/// Something that a definition has asked for, in the order of asking.
#[derive(Debug)]
pub(crate) enum Ask {
    Activity(Request),
    Run(RunRequest),
    /// Nobody waits for this activity or child any more.
    Withdraw(String),
    /// That the definition came by.
    Mark {
        key: String,
        kind: Kind,
        name: Option<&'static str>,
        output: Value,
    },
}

impl Ask {
    /// The value that is stored with it.
    pub(crate) fn payload(&self) -> Option<&Value> {
        match self {
            Self::Activity(request) => Some(&request.input),
            Self::Run(request) => Some(&request.input),
            Self::Mark { output, .. } => Some(output),
            Self::Withdraw(_) => None,
        }
    }

    pub(crate) fn payload_mut(&mut self) -> Option<&mut Value> {
        match self {
            Self::Activity(request) => Some(&mut request.input),
            Self::Run(request) => Some(&mut request.input),
            Self::Mark { output, .. } => Some(output),
            Self::Withdraw(_) => None,
        }
    }
}

/// An activity that a definition has asked for.
#[derive(Debug, Clone)]
pub(crate) struct Request {
    pub key: String,
    pub queue: &'static str,
    pub activity: &'static str,
    pub input: Value,
    pub labels: Labels,
    pub limit_key: String,
    pub warm_key: Option<String>,
    pub policy: Policy,
    /// Done also when the run is cancelled.
    pub shielded: bool,
}

impl Request {
    pub(crate) fn new<A: Activity>(key: &str, input: &A, payloads: &Payloads) -> Result<Self, Failure> {
        Ok(Self {
            key: key.to_owned(),
            queue: A::QUEUE,
            activity: A::NAME,
            input: payloads.encode(input)?,
            labels: input.labels(),
            limit_key: limit_key(input)?,
            warm_key: warm_key(input)?,
            policy: input.policy(),
            shielded: false,
        })
    }
}

/// The limit key of an activity; empty when it has none.
///
/// # Errors
/// `workflow.bad_key`.
pub(crate) fn limit_key(activity: &impl Activity) -> Result<String, Failure> {
    Ok(fitting("limit", activity.limit_key())?.unwrap_or_default())
}

/// The warm key of an activity.
///
/// # Errors
/// `workflow.bad_key`.
pub(crate) fn warm_key(activity: &impl Activity) -> Result<Option<String>, Failure> {
    fitting("warm", activity.warm_key())
}

fn fitting(what: &str, key: Option<String>) -> Result<Option<String>, Failure> {
    match key {
        Some(key) if key.len() > 200 || key.contains('\0') => {
            Err(Failure::permanent("workflow.bad_key", format!("the {what} key {key:?} is longer than 200 bytes")))
        }
        key => Ok(key.filter(|key| !key.is_empty())),
    }
}

/// A run that a definition has asked for.
#[derive(Debug, Clone)]
pub(crate) struct RunRequest {
    pub key: String,
    pub kind: &'static str,
    pub version: i32,
    pub priority: i16,
    pub input: Value,
    pub business_key: Option<String>,
    pub detached: bool,
}

/// What goes on in place of a run.
#[derive(Debug, Clone)]
pub(crate) struct Successor {
    pub kind: &'static str,
    pub version: i32,
    pub priority: i16,
    pub input: Value,
}

/// How to take back what has succeeded.
pub(crate) struct Undo {
    pub key: String,
    pub name: Option<&'static str>,
    pub body: Box<dyn FnOnce(Context) -> BoxFuture<'static, Result<(), Failure>> + Send>,
}

impl std::fmt::Debug for Undo {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Undo").field("key", &self.key).field("name", &self.name).finish_non_exhaustive()
    }
}

/// Why a definition cannot go on.
#[derive(Debug, Clone)]
pub(crate) enum Broken {
    /// It does not fit the record: other code may.
    Mismatch(Failure),
    /// What it asks for cannot be stored.
    Refused(Failure),
    /// What was stored outside is not what it was.
    Unreadable(Failure),
}

/// Encodes what lies in a row and nowhere else.
///
/// # Errors
/// `workflow.unrecordable` when it cannot be JSON, holds a NUL character or is larger than 256 KiB.
pub(crate) fn to_payload(value: &impl serde::Serialize) -> Result<Value, Failure> {
    Payloads::inline().encode(value)
}

/// Encodes a value of any size.
///
/// # Errors
/// `workflow.unrecordable` when it cannot be JSON, holds a NUL character or looks like a reference to a payload.
pub(crate) fn to_json(value: &impl serde::Serialize) -> Result<Value, Failure> {
    let unrecordable = |why: String| Failure::permanent("workflow.unrecordable", why);
    let json = serde_json::to_value(value).map_err(|e| unrecordable(format!("not JSON: {e}")))?;
    if holds_nul(&json) {
        return Err(unrecordable("PostgreSQL cannot store the character NUL".to_owned()));
    }
    if Payloads::is_reference(&json) {
        return Err(unrecordable("it looks like a reference of the engine's".to_owned()));
    }
    Ok(json)
}

/// How long a value is as PostgreSQL writes it, in bytes.
pub(crate) fn written_size(json: &Value) -> usize {
    struct Counter(usize);
    impl std::io::Write for Counter {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            // jsonb prints a blank after each comma and colon.
            self.0 += bytes.len() + bytes.iter().filter(|b| matches!(b, b',' | b':')).count();
            Ok(bytes.len())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    let mut counter = Counter(0);
    match serde_json::to_writer(&mut counter, json) {
        Ok(()) => counter.0,
        Err(_) => usize::MAX,
    }
}

fn holds_nul(json: &Value) -> bool {
    match json {
        Value::String(text) => text.contains('\0'),
        Value::Array(items) => items.iter().any(holds_nul),
        Value::Object(fields) => fields.iter().any(|(name, value)| name.contains('\0') || holds_nul(value)),
        _ => false,
    }
}

/// A failure that PostgreSQL can store: evidence that it cannot is left out.
pub(crate) fn storable(failure: &Failure) -> Value {
    to_payload(failure).unwrap_or_else(|_| {
        let message: String = failure.message.chars().filter(|c| *c != '\0').take(2000).collect();
        let bare = Failure { message, details: Value::Null, ..failure.clone() };
        to_payload(&bare)
            .unwrap_or_else(|_| json!(Failure::permanent("workflow.unrecordable", "the failure cannot be stored")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::INLINE;

    #[test]
    fn what_postgres_cannot_store_is_refused_at_once() {
        assert!(to_payload(&"x".repeat(INLINE - 2)).is_ok());
        assert!(to_payload(&"x".repeat(INLINE)).is_err());
        assert!(to_payload(&"a\0b").is_err());
    }
}
