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
    /// How long it may be kept by whom. What anybody may keep, pages of anybody may show and read.
    pub cache: &'static str,
}

/// Opened on its own, content runs nothing, sends nothing and is of no origin: not ours, whatever is in it.
const NOTHING_RUNS: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox";

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
            let mut response = (StatusCode::NOT_MODIFIED, kept).into_response();
            self.share(response.headers_mut());
            return Ok(response);
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
        set(headers, header::CONTENT_SECURITY_POLICY, NOTHING_RUNS);
        self.share(headers);
    }

    fn share(&self, headers: &mut HeaderMap) {
        if self.cache.starts_with("public") {
            set(headers, header::ACCESS_CONTROL_ALLOW_ORIGIN, "*");
            set(headers, header::ACCESS_CONTROL_EXPOSE_HEADERS, "accept-ranges, content-length, content-range, etag");
            set(headers, header::HeaderName::from_static("cross-origin-resource-policy"), "cross-origin");
        }
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

/// A name to save under, as ASCII for all and in UTF-8 for those that read it (RFC 6266, RFC 8187). Nothing in a name ends
/// the header, leaves its quotes or the folder, or makes the name read otherwise than it is.
pub fn attachment(name: &str) -> String {
    let name = saved_name(name);
    let plain = |c: char| if c.is_ascii_alphanumeric() || "._- ".contains(c) { c } else { '_' };
    let ascii: String = name.chars().map(plain).collect();
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"._-".contains(&b);
    let encoded: String =
        name.bytes().map(|b| if fine(b) { char::from(b).to_string() } else { format!("%{b:02X}") }).collect();
    format!("attachment; filename=\"{ascii}\"; filename*=UTF-8''{encoded}")
}

/// The name without what turns the direction of text, which may hide an ending, and with `_` for what no system takes in
/// the name of a file. A name that begins with a dot would be hidden, and one that ends with a dot or space loses it.
fn saved_name(name: &str) -> String {
    let turns = |c: &char| matches!(c, '\u{061c}' | '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
    let taken = |c: char| if c.is_control() || "<>:\"/\\|?*".contains(c) { '_' } else { c };
    let name: String = name.chars().filter(|c| !turns(c)).map(taken).collect();
    let name = name.trim_end_matches(['.', ' ']).trim_start();
    match name.strip_prefix('.') {
        Some(rest) => format!("_{rest}"),
        None if name.is_empty() => "download".to_owned(),
        None => name.to_owned(),
    }
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

    /// What a client that knows RFC 8187 saves under, and what others do.
    fn names(name: &str) -> (String, String) {
        let value = attachment(name);
        assert!(HeaderValue::from_str(&value).is_ok_and(|v| v.to_str().is_ok()), "{value:?} is no header");
        let (plain, extended) = value.split_once("; filename*=UTF-8''").expect("two names");
        let plain = plain.strip_prefix("attachment; filename=\"").and_then(|n| n.strip_suffix('"')).expect("quotes");
        assert!(!plain.contains(['"', '\\', '%', ';', '/']), "{plain:?}");
        let mut bytes = Vec::new();
        let mut rest = extended.bytes();
        while let Some(byte) = rest.next() {
            let mut digit = || char::from(rest.next().expect("two digits")).to_digit(16).expect("a digit") as u8;
            bytes.push(if byte == b'%' { digit() << 4 | digit() } else { byte });
        }
        (plain.to_owned(), String::from_utf8(bytes).expect("UTF-8"))
    }

    #[test]
    fn a_name_is_saved_as_it_reads_and_never_leaves_its_header() {
        for (name, saved) in [
            ("film.mp4", "film.mp4"),
            ("my film (final) [2].mp4", "my film (final) [2].mp4"),
            ("فیلم نوروز.mp4", "فیلم نوروز.mp4"),
            ("می\u{200c}خواهم.mp4", "می\u{200c}خواهم.mp4"),
            ("👩\u{200d}👧 trip.mp4", "👩\u{200d}👧 trip.mp4"),
            ("50% off; it's 100%25.mp4", "50% off; it's 100%25.mp4"),
            ("a\"b.mp4", "a_b.mp4"),
            ("a\r\nSet-Cookie: x=1\r\n\r\n.mp4", "a__Set-Cookie_ x=1____.mp4"),
            ("invoice\u{202e}4pm.exe", "invoice4pm.exe"),
            ("\u{2066}a\u{2069}\u{200f}b\u{feff}.mp4", "ab.mp4"),
            ("../../etc/passwd", "_._.._etc_passwd"),
            ("..\\..\\boot.ini", "_._.._boot.ini"),
            (".htaccess", "_htaccess"),
            ("film.mp4. . ", "film.mp4"),
            ("nul\0l\u{7f}\u{85}.mp4", "nul_l__.mp4"),
            ("\u{202e}", "download"),
            ("", "download"),
        ] {
            let (plain, extended) = names(name);
            assert_eq!(extended, saved, "{name:?}");
            let as_ascii = |c: char| if c.is_ascii_alphanumeric() || "._- ".contains(c) { c } else { '_' };
            assert_eq!(plain, saved.chars().map(as_ascii).collect::<String>(), "{name:?}");
        }
    }
}
