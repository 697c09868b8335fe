//! The headers of tus.

use crate::problem::{Code, Problem};
use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts},
};
use base64::{Engine as _, engine::general_purpose::STANDARD as BASE64};
use chrono::{DateTime, Utc};
use flatrender_workflows::{contracts::storage::BlobHash, models::file_mgr::upload::Upload};
use sha1::Sha1;
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;
use uuid::Uuid;

/// The version of tus that is spoken.
pub const VERSION: &str = "1.0.0";
pub const RESUMABLE: HeaderName = HeaderName::from_static("tus-resumable");
pub const SUPPORTED: HeaderName = HeaderName::from_static("tus-version");
pub const EXTENSION: HeaderName = HeaderName::from_static("tus-extension");
pub const MAX_SIZE: HeaderName = HeaderName::from_static("tus-max-size");
pub const CHECKSUM_ALGORITHM: HeaderName = HeaderName::from_static("tus-checksum-algorithm");
pub const OFFSET: HeaderName = HeaderName::from_static("upload-offset");
pub const LENGTH: HeaderName = HeaderName::from_static("upload-length");
pub const EXPIRES: HeaderName = HeaderName::from_static("upload-expires");
pub const METADATA: HeaderName = HeaderName::from_static("upload-metadata");
pub const METHOD_OVERRIDE: HeaderName = HeaderName::from_static("x-http-method-override");
const CHECKSUM: HeaderName = HeaderName::from_static("upload-checksum");
/// What bytes of an upload are sent as.
pub const OFFSET_STREAM: &str = "application/offset+octet-stream";

/// Longest metadata, and most entries of it.
const METADATA_BYTES: usize = 8192;
const METADATA_ENTRIES: usize = 32;
/// The longest request that is checked as a whole: it waits on the disk until all of it has come.
pub const CHECKED_BYTES: u64 = 64 * 1024 * 1024;
/// What files may be uploaded for.
const PURPOSES: [&str; 6] = ["asset", "voiceover", "music", "package", "avatar", "font"];

/// What a file is uploaded for, when it is known.
pub fn purpose(text: &str) -> Option<&'static str> {
    PURPOSES.into_iter().find(|purpose| *purpose == text)
}

/// A client that speaks our version of tus.
#[derive(Debug, Clone, Copy)]
pub struct Tus;

impl<S: Sync> FromRequestParts<S> for Tus {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        match parts.headers.get(RESUMABLE) {
            Some(version) if version == VERSION => Ok(Self),
            _ => Err(Problem::new(Code::UploadVersion, "say tus-resumable: 1.0.0")
                .with_header(SUPPORTED, HeaderValue::from_static(VERSION))),
        }
    }
}

/// Whether the body is bytes of an upload.
pub fn is_offset_stream(headers: &HeaderMap) -> bool {
    headers.get(header::CONTENT_TYPE).is_some_and(|kind| kind == OFFSET_STREAM)
}

/// The length of an upload to be begun.
///
/// # Errors
/// `header.invalid`
pub fn length(headers: &HeaderMap) -> Result<u64, Problem> {
    number(headers, &LENGTH)
}

/// Where the bytes begin.
///
/// # Errors
/// `header.invalid`
pub fn offset(headers: &HeaderMap) -> Result<u64, Problem> {
    number(headers, &OFFSET)
}

fn number(headers: &HeaderMap, name: &HeaderName) -> Result<u64, Problem> {
    let text = headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let number = text.parse::<u64>().ok().filter(|n| plain && i64::try_from(*n).is_ok());
    number.ok_or_else(|| invalid(format!("{name} is a number of bytes")))
}

/// Length of the body, where it is announced.
pub fn announced(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// A time as HTTP writes it.
pub fn date(at: DateTime<Utc>) -> HeaderValue {
    let text = at.format("%a, %d %b %Y %H:%M:%S GMT").to_string();
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// What is known of an upload, as it was told when it began.
pub fn metadata(upload: &Upload) -> HeaderValue {
    let mut text = format!("filename {},purpose {}", BASE64.encode(&upload.name), BASE64.encode(&upload.purpose));
    if let Some(folder) = upload.folder_id {
        text += &format!(",folder_id {}", BASE64.encode(folder.to_string()));
    }
    HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""))
}

/// What a client says of an upload when it begins.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Metadata {
    /// How the file will be called: `filename`, or `name`.
    pub name: Option<String>,
    /// What it is for.
    pub purpose: &'static str,
    /// The folder the file comes into.
    pub folder_id: Option<Uuid>,
    /// SHA-256 of the whole.
    pub sha256: Option<BlobHash>,
}

impl Metadata {
    /// Reads `Upload-Metadata`. What we do not know is not looked at; clients send more than we want.
    ///
    /// # Errors
    /// `header.invalid`
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let mut told = Self { name: None, purpose: PURPOSES[0], folder_id: None, sha256: None };
        let Some(value) = headers.get(METADATA) else { return Ok(told) };
        let text = value.to_str().map_err(|_| malformed())?;
        if text.len() > METADATA_BYTES || text.split(',').count() > METADATA_ENTRIES {
            return Err(malformed());
        }
        for entry in text.split(',').map(str::trim).filter(|entry| !entry.is_empty()) {
            let (key, value) = entry.split_once(' ').unwrap_or((entry, ""));
            let value =
                BASE64.decode(value).ok().and_then(|bytes| String::from_utf8(bytes).ok()).ok_or_else(malformed)?;
            match key {
                "filename" => told.name = Some(value),
                "name" => told.name = told.name.or(Some(value)),
                "purpose" => {
                    let detail = || invalid(format!("a purpose is one of {}", PURPOSES.join(", ")));
                    told.purpose = purpose(&value).ok_or_else(detail)?;
                }
                "folder_id" => {
                    let id = value.parse().map_err(|_| invalid("folder_id is the id of a folder, in base64".into()))?;
                    told.folder_id = Some(id);
                }
                "sha256" => {
                    let hash = value
                        .parse()
                        .map_err(|_| invalid("sha256 is 64 hexadecimal digits, in base64 as all metadata".into()))?;
                    told.sha256 = Some(hash);
                }
                _ => {}
            }
        }
        Ok(told)
    }
}

/// What the bytes of one request are checked by.
#[derive(Debug, Clone)]
pub struct Checksum {
    hasher: Hasher,
    expected: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Hasher {
    Sha256(Sha256),
    Sha1(Sha1),
}

impl Checksum {
    /// Reads `Upload-Checksum`; none when there is none.
    ///
    /// # Errors
    /// `header.invalid`, `upload.checked_too_large`
    pub fn of(headers: &HeaderMap) -> Result<Option<Self>, Problem> {
        let Some(value) = headers.get(CHECKSUM) else { return Ok(None) };
        let malformed = || invalid("upload-checksum is `sha256` or `sha1`, a space, and the hash in base64".into());
        let (algorithm, hash) = value.to_str().ok().and_then(|v| v.split_once(' ')).ok_or_else(malformed)?;
        let (hasher, length) = match algorithm {
            "sha256" => (Hasher::Sha256(Sha256::new()), 32),
            "sha1" => (Hasher::Sha1(Sha1::new()), 20),
            _ => return Err(malformed()),
        };
        let expected = BASE64.decode(hash).ok().filter(|hash| hash.len() == length).ok_or_else(malformed)?;
        if announced(headers).is_some_and(|length| length > CHECKED_BYTES) {
            return Err(too_much_to_check());
        }
        Ok(Some(Self { hasher, expected }))
    }

    /// Takes more of the bytes.
    pub fn update(&mut self, bytes: &[u8]) {
        match &mut self.hasher {
            Hasher::Sha256(hasher) => hasher.update(bytes),
            Hasher::Sha1(hasher) => hasher.update(bytes),
        }
    }

    /// Whether the bytes were what was announced.
    ///
    /// # Errors
    /// `upload.checksum`
    pub fn check(self) -> Result<(), Problem> {
        let found = match self.hasher {
            Hasher::Sha256(hasher) => hasher.finalize().to_vec(),
            Hasher::Sha1(hasher) => hasher.finalize().to_vec(),
        };
        match bool::from(found.ct_eq(&self.expected)) {
            true => Ok(()),
            false => {
                Err(Problem::new(Code::UploadChecksum, "the bytes are not what was announced; none of them is kept"))
            }
        }
    }
}

/// A request that is longer than one with a checksum may be.
pub fn too_much_to_check() -> Problem {
    let detail = format!("a request with upload-checksum has at most {CHECKED_BYTES} bytes");
    Problem::new(Code::UploadCheckedTooLarge, detail)
}

fn malformed() -> Problem {
    invalid("upload-metadata is up to 32 keys with values in base64, separated by commas".into())
}

fn invalid(detail: String) -> Problem {
    Problem::new(Code::HeaderInvalid, detail)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, value: &str) -> HeaderMap {
        HeaderMap::from_iter([(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())])
    }

    #[test]
    fn metadata_is_read_and_what_is_unknown_is_not_looked_at() {
        let hash = BASE64.encode("a".repeat(64));
        let told =
            Metadata::of(&headers("upload-metadata", &format!("filename 2Yo=,filetype YQ==, empty,sha256 {hash}")))
                .unwrap();
        assert_eq!((told.name.as_deref(), told.purpose), (Some("ي"), "asset"));
        assert_eq!(told.sha256.unwrap().as_str(), "a".repeat(64));
        for wrong in ["filename ä", "filename /w==", "purpose ZXhwb3J0", "sha256 YQ==", "folder_id YQ=="] {
            let mut map = HeaderMap::new();
            map.insert(METADATA, HeaderValue::from_bytes(wrong.as_bytes()).unwrap());
            assert_eq!(Metadata::of(&map).unwrap_err().code(), Code::HeaderInvalid, "{wrong}");
        }
    }

    #[test]
    fn a_length_is_digits_that_fit() {
        assert_eq!(length(&headers("upload-length", "17")).unwrap(), 17);
        for wrong in ["", "-1", "+1", "1.0", "99999999999999999999", "9223372036854775808"] {
            assert_eq!(length(&headers("upload-length", wrong)).unwrap_err().code(), Code::HeaderInvalid, "{wrong}");
        }
    }

    #[test]
    fn a_checksum_is_of_one_of_two_kinds_and_has_its_length() {
        let sum = |text: &str| Checksum::of(&headers("upload-checksum", text));
        let mut right = sum("sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=").unwrap().unwrap();
        right.update(b"hello ");
        right.update(b"world");
        assert!(right.clone().check().is_ok());
        right.update(b"!");
        assert_eq!(right.check().unwrap_err().code(), Code::UploadChecksum);
        for wrong in ["sha1 YQ==", "sha256 Kq5sNclPz7QV2+lfQIuc6R7oRu0=", "md5 YQ==", "sha1"] {
            assert_eq!(sum(wrong).unwrap_err().code(), Code::HeaderInvalid, "{wrong}");
        }
    }

    #[test]
    fn a_request_with_a_checksum_is_as_long_as_a_piece_on_the_disk_may_be() {
        let mut headers = headers("upload-checksum", "sha1 Kq5sNclPz7QV2+lfQIuc6R7oRu0=");
        headers.insert(header::CONTENT_LENGTH, CHECKED_BYTES.into());
        assert!(Checksum::of(&headers).unwrap().is_some());
        headers.insert(header::CONTENT_LENGTH, (CHECKED_BYTES + 1).into());
        assert_eq!(Checksum::of(&headers).unwrap_err().code(), Code::UploadCheckedTooLarge);
    }
}
