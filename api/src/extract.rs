//! Extractors whose refusals are problems: JSON bodies, path and query.

mod body;
pub(crate) mod json;
pub mod page;

pub use body::{drain, idle_limited};
pub use json::Json;

use crate::problem::{Code, Problem};
use axum::extract::{FromRequestParts, rejection};

/// Parts of the address.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(Problem))]
pub struct Path<T>(pub T);

impl From<rejection::PathRejection> for Problem {
    fn from(refusal: rejection::PathRejection) -> Self {
        Self::new(Code::PathInvalid, refusal.body_text())
    }
}

/// Parameters behind the question mark.
#[derive(Debug, FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(Problem))]
pub struct Query<T>(pub T);

impl From<rejection::QueryRejection> for Problem {
    fn from(refusal: rejection::QueryRejection) -> Self {
        Self::new(Code::QueryInvalid, refusal.body_text())
    }
}
