//! What goes wrong, on command.

use axum::{
    body::{Body, Bytes},
    http::{StatusCode, header},
    response::{IntoResponse as _, Response},
};
use futures::{StreamExt as _, stream};
use std::{collections::VecDeque, io, sync::Mutex, time::Duration};
use uuid::Uuid;

/// What is called.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
    /// A payment is opened.
    Create,
    /// A payment is looked at.
    Read,
    /// A payment is verified: ZarinPal.
    Verify,
    /// A payment is closed: Stripe.
    Expire,
    /// Money is given back.
    Refund,
    /// A list is read, of refunds too.
    List,
    /// Whose the account is.
    Account,
}

/// How it goes wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// No answer comes, ever.
    Hang,
    /// The connection is cut within the answer.
    Cut,
    /// An answer of this status with an empty object.
    Status(u16),
    /// JSON that ends too early.
    Malformed,
    /// A page of a proxy instead of JSON, with 200.
    Html,
    /// More than anybody would read.
    Long,
    /// It wants to be left alone for these seconds.
    Throttled(u64),
}

/// What goes wrong, and when.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Before anything was done.
    Before(How),
    /// After it was done.
    After(How),
    /// Nothing, but it takes this long.
    Slow(Duration),
}

/// Of which payment alone, what is called, and how it goes wrong.
#[derive(Default)]
pub struct Faults(Mutex<VecDeque<(Option<Uuid>, Call, Fault)>>);

impl Faults {
    /// The next call of this kind goes wrong so; told twice, the one after it, too.
    pub fn add(&self, call: Call, fault: Fault) {
        self.0.lock().unwrap().push_back((None, call, fault));
    }

    /// The same of calls about one payment of ours.
    pub fn add_for(&self, payment: Uuid, call: Call, fault: Fault) {
        self.0.lock().unwrap().push_back((Some(payment), call, fault));
    }

    pub fn clear(&self) {
        self.0.lock().unwrap().clear();
    }

    /// What goes wrong with a call; `about` is the payment of ours that it is about, where it says so.
    pub fn take(&self, call: Call, about: Option<Uuid>) -> Option<Fault> {
        let mut faults = self.0.lock().unwrap();
        let place = faults.iter().position(|(of, kind, _)| *kind == call && (of.is_none() || *of == about))?;
        faults.remove(place).map(|(_, _, fault)| fault)
    }
}

impl How {
    pub async fn answer(self) -> Response {
        let json = [(header::CONTENT_TYPE, "application/json")];
        match self {
            Self::Hang => std::future::pending().await,
            Self::Cut => {
                let begin = stream::iter([Ok(Bytes::from_static(b"{\"id\":"))]);
                let cut = stream::iter([Err(io::Error::other("cut"))]);
                (json, Body::from_stream(begin.chain(cut))).into_response()
            }
            Self::Status(status) => (StatusCode::from_u16(status).unwrap(), json, "{}").into_response(),
            Self::Malformed => (json, "{\"id\": \"cs_test_1\", \"data\": {").into_response(),
            Self::Html => "<html><body>Service temporarily unavailable</body></html>".into_response(),
            Self::Long => (json, "[".repeat(8 << 20)).into_response(),
            Self::Throttled(seconds) => {
                (StatusCode::TOO_MANY_REQUESTS, [("retry-after", seconds.to_string())], "{}").into_response()
            }
        }
    }
}
