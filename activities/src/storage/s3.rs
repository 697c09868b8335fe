//! A bucket of an S3-compatible store: what there is beyond reading and writing objects.
//!
//! An upload whose content was not known beforehand lies under a temporary key and is then copied by the store itself to
//! the key of its content: at once up to 5 GiB, longer ones in parts (UploadPartCopy), so that nothing limits a blob but
//! the 10,000 parts of its upload.

use super::{errors, keys};
use flatrender_workflows::contracts::storage::{BlobHash, Claims, Shelf, SignedGet, StorageError};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::{
    ObjectStoreExt,
    aws::{AmazonS3, AwsCredentialProvider},
    multipart::{MultipartStore, PartId},
    path::Path as Key,
    prefix::PrefixStore,
    signer::{HeaderName, HeaderValue, Method, SignedUrlOptions, Signer},
};
use std::{ops::Range, sync::Arc, time::Duration};

/// Parts of one upload, at most. Source: "Amazon S3 multipart upload limits", Amazon S3 User Guide.
pub(super) const PARTS: u64 = 10_000;
/// What is copied with one request, at most; the same source says 5 GiB, and smaller copies are sooner done again.
const COPY_BYTES: u64 = 1 << 30;
/// Parts that are copied at a time.
const COPIES: usize = 4;
/// A store that copies one part for longer does not answer any more.
const COPY_PATIENCE: Duration = Duration::from_secs(600);
/// No signature may be good for longer. Source: "Authenticating Requests: Using Query Parameters", Amazon S3 API Reference.
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

const COPY_SOURCE: HeaderName = HeaderName::from_static("x-amz-copy-source");
const COPY_RANGE: HeaderName = HeaderName::from_static("x-amz-copy-source-range");

/// Part of a bucket: all keys below a prefix.
#[derive(Debug, Clone)]
pub(super) struct Bucket {
    /// For our own requests.
    pub(super) store: PrefixStore<AmazonS3>,
    /// The same bucket at the address that clients reach.
    pub(super) public: PrefixStore<AmazonS3>,
    /// What it is opened with.
    pub(super) keys: AwsCredentialProvider,
    /// `/<bucket>/<prefix>`, as a source of copies is named.
    pub(super) root: String,
    /// For requests that the store's own client does not know.
    pub(super) http: reqwest::Client,
    /// Who keeps what is stored from being removed.
    pub(super) claims: Option<Arc<dyn Claims>>,
}

impl Bucket {
    /// Makes `to` of `from`, `size_bytes` long. The content goes through the store alone.
    pub(super) async fn copy(&self, from: &Key, to: &Key, size_bytes: u64) -> Result<(), StorageError> {
        match size_bytes <= COPY_BYTES {
            true => self.store.copy(from, to).await.map_err(errors::from_store),
            false => self.copy_in_parts(from, to, size_bytes, COPY_BYTES).await,
        }
    }

    /// An address to read a blob at.
    pub(super) async fn sign_get(
        &self,
        shelf: &Shelf,
        hash: &BlobHash,
        says: SignedGet<'_>,
    ) -> Result<String, StorageError> {
        let options = SignedUrlOptions::new().with_query([
            ("response-content-type", says.content_type),
            ("response-content-disposition", says.disposition),
        ]);
        self.sign(Method::GET, &keys::blob(shelf, hash), says.valid_for, &options).await.map(Into::into)
    }

    /// An address for one request by somebody else.
    pub(super) async fn sign(
        &self,
        method: Method,
        key: &Key,
        valid_for: Duration,
        options: &SignedUrlOptions,
    ) -> Result<reqwest::Url, StorageError> {
        self.public.signed_url_opts(method, key, valid_for.min(LONGEST), options).await.map_err(errors::from_store)
    }

    /// What requests are signed with at this moment.
    pub(super) async fn secret_key(&self) -> Result<String, StorageError> {
        let keys = self.keys.get_credential().await.map_err(errors::from_store)?;
        Ok(keys.secret_key.clone())
    }

    async fn copy_in_parts(&self, from: &Key, to: &Key, size_bytes: u64, part_bytes: u64) -> Result<(), StorageError> {
        let id = self.store.create_multipart(to).await.map_err(errors::from_store)?;
        let parts = stream::iter((0..).zip(ranges(size_bytes, part_bytes)));
        let copies = parts.map(|(index, range)| self.copy_part(from, to, &id, index, range));
        let copied = match copies.buffered(COPIES).try_collect().await {
            Ok(parts) => self.store.complete_multipart(to, &id, parts).await.map(drop).map_err(errors::from_store),
            Err(error) => Err(error),
        };
        if copied.is_err() {
            // What is left behind costs room until the bucket expires it; the error is what the caller must hear.
            let _ = self.store.abort_multipart(to, &id).await;
        }
        copied
    }

    async fn copy_part(
        &self,
        from: &Key,
        to: &Key,
        id: &str,
        index: u32,
        range: Range<u64>,
    ) -> Result<PartId, StorageError> {
        let failed = |error: String| StorageError::Io(error.into());
        let value = |text: String| HeaderValue::from_str(&text).map_err(|e| failed(e.to_string()));
        let headers = [
            (COPY_SOURCE, value(format!("{}{from}", self.root))?),
            (COPY_RANGE, value(format!("bytes={}-{}", range.start, range.end - 1))?),
        ];
        let mut options =
            SignedUrlOptions::new().with_query([("partNumber", (index + 1).to_string()), ("uploadId", id.to_owned())]);
        let mut request = reqwest::header::HeaderMap::new();
        for (name, header) in headers {
            options = options.with_signed_header(name.clone(), header.clone());
            request.insert(name, header);
        }
        let url =
            self.store.signed_url_opts(Method::PUT, to, COPY_PATIENCE, &options).await.map_err(errors::from_store)?;
        // An error says where it happened, and that address is signed.
        let io = |error: reqwest::Error| StorageError::Io(Box::new(error.without_url()));
        let put = self.http.put(url).headers(request).timeout(COPY_PATIENCE);
        let answer = put.send().await.map_err(io)?;
        let status = answer.status();
        // A copy that fails late is answered with 200 all the same, and an error in place of the tag.
        let text = answer.text().await.map_err(io)?;
        let tag = etag(&text).filter(|_| status.is_success());
        let content_id = tag.ok_or_else(|| failed(format!("a part was not copied: {status}: {}", code(&text))))?;
        Ok(PartId { content_id })
    }
}

/// `0..size_bytes` in parts.
fn ranges(size_bytes: u64, part_bytes: u64) -> impl Iterator<Item = Range<u64>> {
    let starts = (0..size_bytes).step_by(usize::try_from(part_bytes).unwrap_or(usize::MAX));
    starts.map(move |start| start..size_bytes.min(start + part_bytes))
}

/// The entity tag in a CopyPartResult. A tag is hexadecimal digits in quotes, which may be written as entities.
fn etag(xml: &str) -> Option<String> {
    let tag = element(xml, "ETag")?.replace("&quot;", "\"").replace("&#34;", "\"");
    (!tag.is_empty()).then_some(tag)
}

pub(super) fn code(xml: &str) -> &str {
    element(xml, "Code").unwrap_or("no reason given")
}

fn element<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}

#[cfg(test)]
#[path = "../../tests/storage/server.rs"]
mod server;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::storage::{Credentials, StorageSettings};

    #[tokio::test]
    async fn the_store_copies_what_is_too_long_for_one_copy_in_parts() {
        let server = server::S3Server::start();
        let Ok(StorageSettings::S3(settings)) = server.storage("a/prefix").parse() else { panic!("a bucket") };
        let storage = settings.open(Some(Credentials::new(server::KEY, server::SECRET))).unwrap();
        let bucket = storage.bucket.as_deref().unwrap();
        let content: Vec<u8> = (0..11 << 20).map(|i: u32| (i % 251) as u8).collect();
        let [from, to, nothing] = ["incoming/x", "public/y", "incoming/nothing"].map(Key::from);
        bucket.store.put(&from, content.clone().into()).await.unwrap();
        bucket.copy_in_parts(&from, &to, content.len() as u64, 5 << 20).await.unwrap();
        assert!(std::fs::read(server.objects().join("a/prefix/public/y")).unwrap() == content);
        let refused = bucket.copy_in_parts(&nothing, &to, 1, 5 << 20).await.unwrap_err();
        let StorageError::Io(cause) = refused else { panic!("{refused}") };
        assert_eq!(cause.to_string(), "a part was not copied: 404 Not Found: NoSuchKey");
    }

    #[test]
    fn parts_cover_all_of_it_once() {
        assert_eq!(ranges(10, 4).collect::<Vec<_>>(), [0..4, 4..8, 8..10]);
        assert_eq!(ranges(8, 4).collect::<Vec<_>>(), [0..4, 4..8]);
    }

    #[test]
    fn a_tag_is_found_and_an_error_is_not_one() {
        let copied = "<CopyPartResult><ETag>&quot;9b2c&quot;</ETag><LastModified>x</LastModified></CopyPartResult>";
        assert_eq!(etag(copied).as_deref(), Some("\"9b2c\""));
        let failed = "<Error><Code>InternalError</Code><Message>try again</Message></Error>";
        assert_eq!((etag(failed), code(failed)), (None, "InternalError"));
    }
}
