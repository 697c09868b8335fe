//! Answers that a client may have already: their tag is a hash of what they say.

use crate::problem::Problem;
use axum::{
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use flatrender_workflows::contracts::storage::BlobHash;
use serde::Serialize;

/// The answer, or 304 when the client has it.
///
/// # Errors
/// The view cannot be written.
pub fn tagged(asked: &HeaderMap, view: &impl Serialize) -> Result<Response, Problem> {
    let body = serde_json::to_vec(view).map_err(|e| Problem::internal(&e))?;
    let etag = format!("\"{}\"", &BlobHash::of(&body).as_str()[..32]);
    let known = asked.get_all(header::IF_NONE_MATCH).iter().filter_map(|v| v.to_str().ok());
    let known = known.flat_map(|v| v.split(',')).any(|tag| tag.trim().trim_start_matches("W/") == etag);
    let kept = [(header::ETAG, etag), (header::CACHE_CONTROL, "private, no-cache".to_owned())];
    Ok(match known {
        true => (StatusCode::NOT_MODIFIED, kept).into_response(),
        false => (kept, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
    })
}
