//! Changes of what somebody may have changed meanwhile: `ETag` tells at which revision it is, `If-Match` which one is meant.

use crate::{
    extract::Json,
    problem::{Code, Problem},
};
use axum::{
    extract::FromRequestParts,
    http::{StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use std::convert::Infallible;

/// The revision that a change is meant for; none when the client does not say, or says that any will do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct IfMatch(pub Option<i32>);

/// What no revision is: it never matches.
const NEVER: i32 = -1;

impl<S: Send + Sync> FromRequestParts<S> for IfMatch {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        let value = parts.headers.get(header::IF_MATCH).map(|v| v.to_str().unwrap_or_default().trim());
        Ok(Self(value.filter(|v| *v != "*").map(revision)))
    }
}

impl IfMatch {
    /// Whether a change may be made of what is at this revision, and is held until the change is made.
    ///
    /// # Errors
    /// `revision.stale`
    pub fn check(self, rev: i32) -> Result<(), Problem> {
        if self.0.is_none_or(|meant| meant == rev) { Ok(()) } else { Err(stale(rev)) }
    }
}

fn revision(tag: &str) -> i32 {
    let inner = tag.strip_prefix('"').and_then(|t| t.strip_suffix('"'));
    inner.and_then(|t| t.parse().ok()).filter(|rev| *rev >= 0).unwrap_or(NEVER)
}

/// An answer with something that is at a revision.
pub struct Revised<T> {
    /// How the request went.
    pub status: StatusCode,
    /// At which revision it is.
    pub rev: i32,
    /// What is at it.
    pub view: T,
}

impl<T> Revised<T> {
    /// What was asked for.
    pub fn ok(rev: i32, view: T) -> Self {
        Self { status: StatusCode::OK, rev, view }
    }
}

impl<T: Serialize> IntoResponse for Revised<T> {
    fn into_response(self) -> Response {
        (self.status, [(header::ETAG, format!("\"{}\"", self.rev))], Json(self.view)).into_response()
    }
}

/// The refusal of a change that was meant for another revision.
pub fn stale(rev: i32) -> Problem {
    Problem::new(Code::RevisionStale, format!("it has changed and is at revision {rev}; look again, then repeat"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_is_a_revision_or_matches_nothing() {
        assert_eq!(revision("\"7\""), 7);
        for tag in ["7", "W/\"7\"", "\"-7\"", "\"x\"", "\"1\", \"2\"", ""] {
            assert_eq!(revision(tag), NEVER, "{tag}");
        }
    }

    #[test]
    fn a_change_is_made_of_the_revision_that_it_is_meant_for() {
        for (meant, fits) in [(None, true), (Some(7), true), (Some(6), false), (Some(NEVER), false)] {
            assert_eq!(IfMatch(meant).check(7).is_ok(), fits, "{meant:?}");
        }
    }
}
