//! JSON bodies, in and out.

use super::drain;
use crate::problem::{Code, Problem};
use axum::{
    body::Body,
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
    response::{IntoResponse, Response},
};
use bytes::{Bytes, BytesMut};
use flatrender_workflows::models::render::freeze::Fault;
use futures::StreamExt;
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use serde_path_to_error::Segment;

/// Longest JSON body.
pub const LIMIT_BYTES: usize = 1024 * 1024;

/// A JSON body. What is wrong with one is told with a pointer to the field.
#[derive(Debug)]
pub struct Json<T>(pub T);

impl<T: Serialize> IntoResponse for Json<T> {
    fn into_response(self) -> Response {
        axum::Json(self.0).into_response()
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Json<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let (parts, body) = request.into_parts();
        if !is_json(&parts.headers) {
            return Err(Problem::new(Code::BodyNotJson, "send the body with content-type: application/json"));
        }
        let bytes = read(&parts.headers, body).await?;
        parse(&bytes).map(Self)
    }
}

fn is_json(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    kind == "application/json" || (kind.starts_with("application/") && kind.ends_with("+json"))
}

/// The whole body, when it is short enough.
async fn read(headers: &HeaderMap, body: Body) -> Result<Bytes, Problem> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|v| v.to_str().ok()?.parse::<usize>().ok());
    let mut chunks = body.into_data_stream();
    let mut whole = BytesMut::new();
    let mut fits = announced.is_none_or(|length| length <= LIMIT_BYTES);
    while fits && let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::new(Code::BodyUnreadable, "the body ended early"))?;
        fits = whole.len() + chunk.len() <= LIMIT_BYTES;
        whole.extend_from_slice(&chunk);
    }
    if fits {
        return Ok(whole.freeze());
    }
    drain(headers, chunks).await;
    Err(Problem::new(Code::BodyTooLarge, format!("a JSON body has at most {LIMIT_BYTES} bytes")))
}

/// Reads JSON; serde_json itself refuses nesting deeper than 128.
fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(refusal)?;
    reader.end().map_err(|e| Problem::new(Code::BodySyntax, e.to_string()))?;
    Ok(value)
}

/// Reads a part of a body, with pointers that begin there.
///
/// # Errors
/// As of a body.
pub(crate) fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Problem> {
    serde_path_to_error::deserialize(value).map_err(refusal)
}

fn refusal(error: serde_path_to_error::Error<serde_json::Error>) -> Problem {
    let pointer = pointer(error.path());
    let error = error.into_inner();
    if !error.is_data() {
        return Problem::new(Code::BodySyntax, error.to_string());
    }
    let detail = error.to_string();
    let fault = match named(&detail) {
        Some(("unknown field", field)) => {
            Fault { pointer: within(&pointer, field), code: "field.unknown".into(), detail }
        }
        Some((_, field)) => Fault { pointer: within(&pointer, field), code: "field.missing".into(), detail },
        None => Fault { pointer, code: "field.type".into(), detail },
    };
    Problem::faulty(Code::RequestInvalid, vec![fault])
}

/// The field that serde names in its message, and what is wrong with it.
fn named(detail: &str) -> Option<(&'static str, &str)> {
    ["unknown field", "missing field"].into_iter().find_map(|what| {
        let field = detail.strip_prefix(what)?.strip_prefix(" `")?.split('`').next()?;
        Some((what, field))
    })
}

/// A pointer to `field`; serde's path ends with the field already when the field is an unknown one.
fn within(pointer: &str, field: &str) -> String {
    let last = format!("/{}", escape(field));
    if pointer.ends_with(&last) { pointer.to_owned() } else { format!("{pointer}{last}") }
}

/// A path as a JSON pointer (RFC 6901).
fn pointer(path: &serde_path_to_error::Path) -> String {
    path.iter()
        .filter_map(|segment| match segment {
            Segment::Seq { index } => Some(format!("/{index}")),
            Segment::Map { key } => Some(format!("/{}", escape(key))),
            Segment::Enum { .. } | Segment::Unknown => None,
        })
        .collect()
}

fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

#[cfg(test)]
mod tests {
    use super::*;
    use flatrender_workflows::models::render::order::RenderOrder;

    fn refused(json: &str) -> String {
        let problem = parse::<RenderOrder>(json.as_bytes()).expect_err("must be refused");
        format!("{problem:?}")
    }

    #[test]
    fn a_wrong_field_is_pointed_at() {
        let unknown = refused(r#"{"template": "promo", "data": {"colours": {}}}"#);
        assert!(unknown.contains(r#"pointer: "/data/colours", code: "field.unknown""#), "{unknown}");
        let kind = refused(r#"{"template": "promo", "data": {"scenes": [{"id": "a", "seconds": "4"}]}}"#);
        assert!(kind.contains(r#"pointer: "/data/scenes/0/seconds", code: "field.type""#), "{kind}");
        let missing = refused(r#"{"data": {}}"#);
        assert!(missing.contains(r#"pointer: "/template", code: "field.missing""#), "{missing}");
    }

    #[test]
    fn a_body_nested_too_deep_is_refused() {
        let deep =
            format!(r#"{{"template": "promo", "metadata": {{"a": {}1{}}}}}"#, "[".repeat(50_000), "]".repeat(50_000));
        assert!(refused(&deep).contains("BodySyntax"));
    }
}
