//! Addresses for one request, signed with headers that the client of the store leaves out: the length of a part.
//!
//! Signature Version 4 in the query. Source: "Authenticating Requests: Using Query Parameters", Amazon S3 API Reference.

use super::errors;
use flatrender_workflows::contracts::storage::StorageError;
use hmac::{Hmac, KeyInit as _, Mac};
use reqwest::Url;
use sha2::{Digest as _, Sha256};
use std::{borrow::Cow, fmt::Write as _, io};

const SIGNATURE: &str = "X-Amz-Signature";
const SIGNED_HEADERS: &str = "X-Amz-SignedHeaders";
/// The body is not part of the signature: somebody else has it.
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";

/// The address `url`, which is signed already, signed anew: it now works only with these `headers`, lower case, and its host. The address
/// says when, for how long and in which scope.
///
/// # Errors
/// [`StorageError::Io`] when the address is none that was signed.
pub(super) fn with_headers(
    method: &str,
    mut url: Url,
    headers: &[(&str, String)],
    secret: &str,
) -> Result<Url, StorageError> {
    let host = url.host_str().unwrap_or_default();
    let host = url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"));
    let mut headers: Vec<(&str, &str)> = headers.iter().map(|(name, value)| (*name, value.as_str())).collect();
    headers.push(("host", &host));
    headers.sort_unstable();
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let mut query: Vec<(String, String)> = url.query_pairs().into_owned().collect();
    query.retain(|(name, _)| name != SIGNATURE && name != SIGNED_HEADERS);
    query.push((SIGNED_HEADERS.into(), names));
    let told = |name: &str| query.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str());
    let scope = told("X-Amz-Credential").and_then(|credential| credential.split_once('/')).map(|(_, scope)| scope);
    let (Some(scope), Some(at)) = (scope, told("X-Amz-Date")) else {
        return Err(errors::from_io(io::Error::other("the address is not signed")));
    };
    let canonical_query = canonical_query(&query);
    let request = canonical_request(method, url.path(), &canonical_query, &headers, UNSIGNED);
    let signature = signature(secret, scope, at, &request);
    url.set_query(Some(&format!("{canonical_query}&{SIGNATURE}={signature}")));
    Ok(url)
}

/// What is signed of a request; its path as it is sent.
fn canonical_request(method: &str, path: &str, query: &str, headers: &[(&str, &str)], payload: &str) -> String {
    let mut text = format!("{method}\n{path}\n{query}\n");
    for (name, value) in headers {
        let _ = writeln!(text, "{name}:{}", value.trim());
    }
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let _ = write!(text, "\n{names}\n{payload}");
    text
}

fn canonical_query(pairs: &[(String, String)]) -> String {
    let mut pairs: Vec<_> = pairs.iter().map(|(name, value)| (encoded(name), encoded(value))).collect();
    pairs.sort_unstable();
    pairs.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join("&")
}

/// Everything but letters, digits and `-._~` as `%XX`.
fn encoded(text: &str) -> Cow<'_, str> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"-._~".contains(&b);
    if text.bytes().all(plain) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for byte in text.bytes() {
        match plain(byte) {
            true => out.push(char::from(byte)),
            false => {
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out.into()
}

/// `scope` is `<day>/<region>/<service>/aws4_request`.
fn signature(secret: &str, scope: &str, at: &str, request: &str) -> String {
    let text = format!("AWS4-HMAC-SHA256\n{at}\n{scope}\n{}", hex::encode(Sha256::digest(request)));
    let key = scope.split('/').fold(format!("AWS4{secret}").into_bytes(), |key, part| hmac(&key, part));
    hex::encode(hmac(&key, &text))
}

fn hmac(key: &[u8], text: &str) -> Vec<u8> {
    // Keys of HMAC may have any length.
    let mut mac = Hmac::<Sha256>::new_from_slice(key).unwrap_or_else(|_| unreachable!("any length is a key"));
    mac.update(text.as_bytes());
    mac.finalize().into_bytes().to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of Amazon's own examples.
    const SECRET: &str = "wJalrXUtnFEMI/K7MDENG/bPxRfiCYEXAMPLEKEY";
    const SCOPE: &str = "20130524/us-east-1/s3/aws4_request";
    const AT: &str = "20130524T000000Z";
    const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    /// "Authenticating Requests: Using Query Parameters", the example.
    #[test]
    fn an_address_is_signed_as_amazon_shows_it() {
        let address = "https://examplebucket.s3.amazonaws.com/test.txt?X-Amz-Algorithm=AWS4-HMAC-SHA256&\
                       X-Amz-Credential=AKIAIOSFODNN7EXAMPLE%2F20130524%2Fus-east-1%2Fs3%2Faws4_request&\
                       X-Amz-Date=20130524T000000Z&X-Amz-Expires=86400&X-Amz-SignedHeaders=host&X-Amz-Signature=0";
        let signed = with_headers("GET", Url::parse(address).unwrap(), &[], SECRET).unwrap();
        let signature = "aeeed9bbccd4d02ee5c0109b86d86835f995330da4c265957d157751f604d404";
        assert!(signed.as_str().ends_with(&format!("&X-Amz-Signature={signature}")), "{signed}");
        let other =
            with_headers("PUT", Url::parse(address).unwrap(), &[("content-length", "7".into())], SECRET).unwrap();
        assert!(other.as_str().contains("X-Amz-SignedHeaders=content-length%3Bhost"), "{other}");
        assert!(!other.as_str().contains(signature));
        assert!(with_headers("GET", Url::parse("https://example.com/x").unwrap(), &[], SECRET).is_err());
    }

    /// "Examples: Signature Calculations", with several headers, and with a query.
    #[test]
    fn headers_and_queries_are_signed_as_amazon_shows_it() {
        let host = ("host", "examplebucket.s3.amazonaws.com");
        let hash = ("x-amz-content-sha256", NOTHING);
        let date = ("x-amz-date", AT);
        let get = canonical_request("GET", "/test.txt", "", &[host, ("range", "bytes=0-9"), hash, date], NOTHING);
        assert_eq!(
            signature(SECRET, SCOPE, AT, &get),
            "f0e8bdb87c964420e857bd35b5d6ed310bd44f0170aba48dd91039c6036bdb41"
        );
        let query = [("prefix", "J"), ("max-keys", "2")].map(|(name, value)| (name.to_owned(), value.to_owned()));
        let list = canonical_request("GET", "/", &canonical_query(&query), &[host, hash, date], NOTHING);
        assert_eq!(
            signature(SECRET, SCOPE, AT, &list),
            "34b48302e7b5fa45bde8084f4b7868a86f0a534bc59db6670ed5711ef69dc6f7"
        );
    }

    #[test]
    fn what_is_no_letter_is_escaped_in_a_query() {
        assert_eq!(encoded("a b/ü~"), "a%20b%2F%C3%BC~");
        assert_eq!(encoded("plain-._~"), "plain-._~");
    }
}
