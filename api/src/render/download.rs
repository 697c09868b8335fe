//! Answers with stored content: whole or a range of it (RFC 9110, sections 13 and 14).

use crate::{
    app::App,
    problem::{Code, Problem},
};
use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use flatrender_workflows::contracts::storage::{BlobRef, Shelf};
use std::ops::Range;

/// Stored content to answer with.
pub struct Download<'a> {
    /// Where it is.
    pub shelf: Shelf,
    /// The content; its hash is its entity tag.
    pub blob: &'a BlobRef,
    /// Its media type.
    pub content_type: &'a str,
    /// Its name when a client saves it; none to show it in place.
    pub save_as: Option<&'a str>,
    /// How long it may be kept by whom.
    pub cache: &'static str,
}

impl Download<'_> {
    /// Answers GET and HEAD, with 200, 206 or 304.
    ///
    /// # Errors
    /// `range.not_satisfiable`; `blob.not_found` when the content is gone.
    pub async fn answer(self, app: &App, method: &Method, asked: &HeaderMap) -> Result<Response, Problem> {
        let size = self.blob.size_bytes;
        let etag = format!("\"{}\"", self.blob.sha256);
        if asked.get(header::IF_NONE_MATCH).is_some_and(|v| lists(v, &etag)) {
            let kept = [(header::ETAG, etag.as_str()), (header::CACHE_CONTROL, self.cache)];
            return Ok((StatusCode::NOT_MODIFIED, kept).into_response());
        }
        let range = match wanted(method, asked, &etag, size) {
            Wanted::Whole => None,
            Wanted::Part(range) => Some(range),
            Wanted::Outside => return Err(outside(size)),
        };
        let span = range.clone().unwrap_or(0..size);
        let body = match *method == Method::HEAD {
            true => Body::empty(),
            false => Body::from_stream(app.storage.open(&self.shelf, &self.blob.sha256, range.clone()).await?.stream),
        };
        let status = if range.is_some() { StatusCode::PARTIAL_CONTENT } else { StatusCode::OK };
        let mut response = (status, body).into_response();
        self.describe(response.headers_mut(), &etag, span.end - span.start);
        if range.is_some() {
            set(
                response.headers_mut(),
                header::CONTENT_RANGE,
                &format!("bytes {}-{}/{size}", span.start, span.end - 1),
            );
        }
        Ok(response)
    }

    fn describe(&self, headers: &mut HeaderMap, etag: &str, length: u64) {
        set(headers, header::CONTENT_TYPE, self.content_type);
        set(headers, header::CONTENT_LENGTH, &length.to_string());
        set(headers, header::ETAG, etag);
        set(headers, header::ACCEPT_RANGES, "bytes");
        set(headers, header::CACHE_CONTROL, self.cache);
        let disposition = self.save_as.map_or_else(|| "inline".to_owned(), attachment);
        set(headers, header::CONTENT_DISPOSITION, &disposition);
    }
}

fn set(headers: &mut HeaderMap, name: header::HeaderName, value: &str) {
    if let Ok(value) = HeaderValue::from_str(value) {
        headers.insert(name, value);
    }
}

fn outside(size: u64) -> Problem {
    let problem = Problem::new(Code::RangeNotSatisfiable, format!("the content has {size} bytes"));
    match HeaderValue::from_str(&format!("bytes */{size}")) {
        Ok(value) => problem.with_header(header::CONTENT_RANGE, value),
        Err(_) => problem,
    }
}

/// A name to save under, as ASCII for all and in UTF-8 for those that read it (RFC 6266). Nothing in a name ends
/// the header or leaves its quotes.
fn attachment(name: &str) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._- ".contains(c) { c } else { '_' };
    let ascii: String = name.chars().map(plain).collect();
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let encoded: String =
        name.bytes().map(|b| if fine(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect();
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

/// Whether a list of entity tags names this one or any.
fn lists(value: &HeaderValue, etag: &str) -> bool {
    let value = value.to_str().unwrap_or_default();
    value.split(',').map(|tag| tag.trim().trim_start_matches("W/")).any(|tag| tag == "*" || tag == etag)
}

/// What of the content is asked for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    Whole,
    Part(Range<u64>),
    Outside,
}

/// Several ranges, other units and what does not parse are ignored, as the standard allows.
fn wanted(method: &Method, asked: &HeaderMap, etag: &str, size: u64) -> Wanted {
    let text = |name| asked.get(name).and_then(|v: &HeaderValue| v.to_str().ok());
    // If-Range: a part only of the content that the client has; we keep no dates, so only a tag can match.
    if *method != Method::GET || text(header::IF_RANGE).is_some_and(|tag| tag.trim() != etag) {
        return Wanted::Whole;
    }
    match text(header::RANGE).and_then(|r| r.trim().strip_prefix("bytes=")).and_then(one_range) {
        None => Wanted::Whole,
        Some(Ask::Last(0)) => Wanted::Outside,
        Some(Ask::Last(_)) if size == 0 => Wanted::Outside,
        Some(Ask::Last(n)) => Wanted::Part(size.saturating_sub(n)..size),
        Some(Ask::From(first, _)) if first >= size => Wanted::Outside,
        Some(Ask::From(first, last)) => Wanted::Part(first..last.map_or(size, |l| l.saturating_add(1).min(size))),
    }
}

enum Ask {
    /// From a byte to a byte (with it) or the end.
    From(u64, Option<u64>),
    /// The last bytes.
    Last(u64),
}

fn one_range(spec: &str) -> Option<Ask> {
    let (first, last) = spec.split_once('-')?;
    let number = |text: &str| text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    match (first.trim(), last.trim()) {
        ("", last) => number(last).map(Ask::Last),
        (first, "") => number(first).map(|f| Ask::From(f, None)),
        (first, last) => {
            let (first, last) = (number(first)?, number(last)?);
            (first <= last).then_some(Ask::From(first, Some(last)))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(range: &'static str) -> Wanted {
        let headers = HeaderMap::from_iter([(header::RANGE, HeaderValue::from_static(range))]);
        wanted(&Method::GET, &headers, "\"x\"", 100)
    }

    #[test]
    fn one_range_is_understood() {
        assert_eq!(asked("bytes=0-0"), Wanted::Part(0..1));
        assert_eq!(asked("bytes=90-"), Wanted::Part(90..100));
        assert_eq!(asked("bytes=90-999"), Wanted::Part(90..100));
        assert_eq!(asked("bytes=-5"), Wanted::Part(95..100));
        assert_eq!(asked("bytes=-500"), Wanted::Part(0..100));
    }

    #[test]
    fn a_range_outside_is_refused() {
        assert_eq!(asked("bytes=100-"), Wanted::Outside);
        assert_eq!(asked("bytes=-0"), Wanted::Outside);
    }

    #[test]
    fn what_is_no_single_range_gives_the_whole() {
        for range in ["bytes=5-4", "bytes=0-1,3-4", "items=0-1", "bytes=x", "bytes=-", "bytes=+1-2"] {
            assert_eq!(asked(range), Wanted::Whole, "{range}");
        }
    }

    #[test]
    fn a_name_cannot_leave_its_header() {
        assert_eq!(
            attachment("a\"b\r\nX: سلام.mp4"),
            "attachment; filename=\"a_b__X_ ____.mp4\"; filename*=UTF-8''a%22b%0D%0AX%3A%20%D8%B3%D9%84%D8%A7%D9%85.mp4"
        );
    }
}
