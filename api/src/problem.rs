//! Every error a client can see: RFC 9457 problems with stable codes.
//!
//! Which codes there are is in [`code`]; how refusals of axum itself become problems is in [`crate::extract`].

pub mod code;

pub use code::Code;

use crate::request_id;
use axum::{
    http::{HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use flatrender_engine::remote::Refused;
use flatrender_workflows::{contracts::storage::StorageError, models::render::freeze::Fault};
use serde::{Deserialize, Serialize};
use std::{borrow::Cow, error::Error};
use utoipa::ToSchema;

/// Most faults told at once.
const MOST_FAULTS: usize = 50;
/// PostgreSQL's code for a text that is none. Of what is valid UTF-8, NUL alone is refused, wherever a client put it.
const NO_TEXT: &str = "22021";
/// When a client may try again after the server was short of something.
const RETRY_AFTER_SECONDS: &str = "2";

/// Why a request was not done.
///
/// `From` errors of the database and the engine make internal problems: the client is told nothing, the log all.
#[derive(Debug)]
pub struct Problem {
    code: Code,
    detail: Cow<'static, str>,
    errors: Vec<Fault>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

/// A problem as a client reads it (`application/problem+json`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// Address of the kind of problem, made of its code.
    #[serde(rename = "type")]
    #[schema(example = "/docs#problem-request.invalid")]
    pub kind: String,
    /// The kind of problem in words; the same for every problem with this code.
    #[schema(example = "The request does not fit")]
    pub title: String,
    /// HTTP status.
    #[schema(example = 422)]
    pub status: u16,
    /// This problem in words.
    #[schema(example = "text \"title\" is required")]
    pub detail: String,
    /// Id of the request, as in the header `x-request-id`: name it when asking for help.
    pub instance: String,
    /// Stable code: what a program decides by.
    #[schema(example = "request.invalid")]
    pub code: String,
    /// Every single thing that is wrong with the request's body.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Fault>,
}

impl Problem {
    /// A problem of a kind, in words.
    pub fn new(code: Code, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { code, detail: detail.into(), errors: vec![], headers: vec![] }
    }

    /// A request whose body has faults.
    pub fn faulty(code: Code, faults: Vec<Fault>) -> Self {
        let more = faults.len().saturating_sub(1);
        let first = faults.first().map(|f| f.detail.clone()).unwrap_or_default();
        let detail = if more == 0 { first } else { format!("{first} (and {more} more, see errors)") };
        Self { errors: faults.into_iter().take(MOST_FAULTS).collect(), ..Self::new(code, detail) }
    }

    /// A request whose body has one fault, at a JSON pointer.
    pub fn fault(pointer: impl Into<String>, code: &str, detail: impl Into<String>) -> Self {
        let fault = Fault { pointer: pointer.into(), code: code.into(), detail: detail.into() };
        Self::faulty(Code::RequestInvalid, vec![fault])
    }

    /// Something that is none of the client's business. Logged here, once, with its causes.
    pub fn internal(error: &(dyn Error + 'static)) -> Self {
        tracing::error!(error = %causes(error), "a request failed");
        Self::new(Code::Internal, "the server met an error; it is logged under this request's id")
    }

    /// Something the server is short of for the moment. Logged here, once, with its causes.
    pub fn unavailable(error: &(dyn Error + 'static)) -> Self {
        tracing::warn!(error = %causes(error), "a request met an unavailable service");
        Self::new(Code::Unavailable, "the server cannot do this right now; try again in a moment")
            .with_header(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_SECONDS))
    }

    /// Adds a header to the answer.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    /// What kind of problem it is.
    pub fn code(&self) -> Code {
        self.code
    }

    /// What happened, in words.
    pub(crate) fn told(&self) -> &str {
        &self.detail
    }

    /// When to try again, in seconds, where it says so.
    pub(crate) fn retry_after_seconds(&self) -> Option<f64> {
        let (_, seconds) = self.headers.iter().find(|(name, _)| name.as_str() == header::RETRY_AFTER.as_str())?;
        seconds.to_str().ok()?.parse().ok()
    }

    /// What a client reads of it.
    pub(crate) fn body(&self) -> ProblemBody {
        let code = self.code.as_str();
        ProblemBody {
            kind: format!("/docs#problem-{code}"),
            title: self.code.title().to_owned(),
            status: self.code.status().as_u16(),
            detail: self.detail.clone().into_owned(),
            instance: request_id::current(),
            code: code.to_owned(),
            errors: self.errors.clone(),
        }
    }
}

/// An error and what caused it, on one line.
fn causes(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let body = serde_json::to_vec(&self.body()).unwrap_or_default();
        let kind = HeaderValue::from_static("application/problem+json");
        let mut response = (self.code.status(), [(header::CONTENT_TYPE, kind)], body).into_response();
        response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response.headers_mut().extend(self.headers);
        response.extensions_mut().insert(self.code);
        response
    }
}

impl From<sqlx::Error> for Problem {
    fn from(error: sqlx::Error) -> Self {
        use sqlx::Error::{Database, Io, PoolClosed, PoolTimedOut, Tls, WorkerCrashed};
        match error {
            Io(_) | PoolClosed | PoolTimedOut | Tls(_) | WorkerCrashed => Self::unavailable(&error),
            Database(ref db) if is_restarting(db.code().as_deref()) => Self::unavailable(&error),
            Database(ref db) if db.code().as_deref() == Some(NO_TEXT) => {
                Self::new(Code::RequestInvalid, "no text may hold the character NUL")
            }
            _ => Self::internal(&error),
        }
    }
}

/// Whether PostgreSQL says that it is starting, stopping or full (classes 57P and 53), or that somebody else was in the way (class 40), or
/// for too long (55P03, 57014).
fn is_restarting(sqlstate: Option<&str>) -> bool {
    sqlstate.is_some_and(|code| {
        let classes = ["57P", "53", "40"];
        classes.iter().any(|class| code.starts_with(class)) || matches!(code, "55P03" | "57014")
    })
}

impl From<flatrender_engine::client::Error> for Problem {
    fn from(error: flatrender_engine::client::Error) -> Self {
        use flatrender_engine::client::Error;
        match error {
            Error::LeaseLost(_) => Self::lease_lost(),
            Error::Unrecordable(failure) => Self::new(Code::NodeBadOutput, failure.message),
            Error::Payload(ref failure) => Self::internal(failure),
            Error::Database(error) => error.into(),
        }
    }
}

impl From<Refused> for Problem {
    fn from(refused: Refused) -> Self {
        match refused {
            // Whose it is, or whether it exists, is not for nodes to know.
            Refused::LeaseLost | Refused::Foreign => Self::lease_lost(),
            Refused::Invalid(why) => Self::new(Code::NodeBadOutput, why),
            Refused::Unavailable(error) => error.into(),
            Refused::Queue(_) => Self::new(Code::AuthForbidden, refused.to_string()),
        }
    }
}

impl From<StorageError> for Problem {
    fn from(error: StorageError) -> Self {
        match &error {
            StorageError::NotFound(_) | StorageError::NotUploaded(_) => {
                Self::new(Code::BlobNotFound, "this content is not there")
            }
            StorageError::Mismatch { .. } => Self::new(Code::BlobMismatch, error.to_string()),
            StorageError::TooLong { .. } => Self::new(Code::BodyTooLarge, error.to_string()),
            StorageError::BadRange { .. } => Self::new(Code::RangeNotSatisfiable, error.to_string()),
            StorageError::Full(_) => {
                tracing::error!(error = %causes(&error), "the storage has no room left");
                Self::new(Code::StorageFull, "the server's storage has no room left; its operators have to make some")
            }
            StorageError::BeingRemoved(_) | StorageError::Io(_) => Self::unavailable(&error),
        }
    }
}

impl Problem {
    /// The lease of a node's attempt is not, or no longer, its own.
    pub fn lease_lost() -> Self {
        Self::new(Code::LeaseLost, "the task is not leased to this node under this token; stop the attempt")
    }

    /// There is no such thing, or it is not the caller's, which looks the same.
    pub fn not_found(code: Code, what: &'static str) -> Self {
        debug_assert_eq!(code.status(), StatusCode::NOT_FOUND);
        Self::new(code, format!("there is no such {what}"))
    }
}
