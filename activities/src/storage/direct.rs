//! Uploads that clients send straight to a bucket: `incoming/<id>` until somebody has looked at them, then the key of their content.

use super::{
    errors,
    intake::Intake,
    keys, put, read,
    s3::{self, Bucket},
    sign,
};
use flatrender_workflows::contracts::storage::{BlobRef, DirectPart, DirectUploads, SentPart, Shelf, StorageError};
use futures::{TryStreamExt, future::BoxFuture};
use object_store::{
    Error, ObjectStoreExt,
    multipart::{MultipartStore, PartId},
    signer::{HeaderName, HeaderValue, Method, SignedUrlOptions, Signer},
};
use serde::Deserialize;
use std::{io, path::Path, time::Duration};
use tokio::io::AsyncWriteExt;
use uuid::Uuid;

/// A store that lists the parts of an upload for longer does not answer any more.
const LIST_PATIENCE: Duration = Duration::from_secs(60);

impl DirectUploads for Bucket {
    fn begin(&self, upload: Uuid) -> BoxFuture<'_, Result<String, StorageError>> {
        Box::pin(async move { self.store.create_multipart(&keys::upload(upload)).await.map_err(errors::from_store) })
    }

    fn sign_part<'a>(&'a self, part: &'a DirectPart<'a>) -> BoxFuture<'a, Result<String, StorageError>> {
        Box::pin(async move {
            let mut options = SignedUrlOptions::new()
                .with_query([("partNumber", part.number.to_string()), ("uploadId", part.name.to_owned())]);
            let mut headers = vec![("content-length", part.size_bytes.to_string())];
            if let Some(md5) = part.md5 {
                let value = HeaderValue::from_str(md5).map_err(|_| {
                    errors::from_io(io::Error::new(io::ErrorKind::InvalidInput, "a hash has letters only"))
                })?;
                options = options.with_signed_header(HeaderName::from_static("content-md5"), value);
                headers.push(("content-md5", md5.to_owned()));
            }
            let url = self.sign(Method::PUT, &keys::upload(part.upload), part.valid_for, &options).await?;
            // The store's client leaves the length out of what it signs.
            let secret = self.secret_key().await?;
            Ok(sign::with_headers(Method::PUT.as_str(), url, &headers, &secret)?.into())
        })
    }

    fn parts<'a>(
        &'a self,
        upload: Uuid,
        name: &'a str,
        after: u32,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<SentPart>, StorageError>> {
        Box::pin(async move {
            let options = SignedUrlOptions::new().with_query([
                ("max-parts", limit.to_string()),
                ("part-number-marker", after.to_string()),
                ("uploadId", name.to_owned()),
            ]);
            let key = keys::upload(upload);
            let url = self.store.signed_url_opts(Method::GET, &key, LIST_PATIENCE, &options).await;
            let url = url.map_err(errors::from_store)?;
            // An error says where it happened, and that address is signed.
            let io = |error: reqwest::Error| StorageError::Io(Box::new(error.without_url()));
            let answer = self.http.get(url).timeout(LIST_PATIENCE).send().await.map_err(io)?;
            let status = answer.status();
            let text = answer.text().await.map_err(io)?;
            match status.as_u16() {
                200 => listed(&text, after, limit),
                // Some stores say of an upload they no longer know that it is forbidden.
                403 | 404 => Err(StorageError::NotUploaded(upload)),
                _ => Err(StorageError::Io(format!("the parts were not listed: {status}: {}", s3::code(&text)).into())),
            }
        })
    }

    fn complete<'a>(
        &'a self,
        upload: Uuid,
        name: &'a str,
        etags: &'a [String],
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        let parts = etags.iter().map(|etag| PartId { content_id: etag.clone() }).collect();
        Box::pin(async move {
            let key = keys::upload(upload);
            let completed = self.store.complete_multipart(&key, &name.to_owned(), parts).await;
            let Err(error) = completed else { return Ok(()) };
            // Done before: the store has forgotten the upload and kept the object.
            self.store.head(&key).await.map(drop).map_err(|_| not_uploaded(error, upload))
        })
    }

    fn fetch<'a>(
        &'a self,
        upload: Uuid,
        path: &'a Path,
        limit_bytes: u64,
    ) -> BoxFuture<'a, Result<BlobRef, StorageError>> {
        Box::pin(async move {
            let found = self.store.get(&keys::upload(upload)).await.map_err(|error| not_uploaded(error, upload))?;
            if found.meta.size > limit_bytes {
                return Err(StorageError::TooLong { limit_bytes });
            }
            let mut file = tokio::fs::File::create(path).await.map_err(errors::from_io)?;
            let mut intake = Intake::new(Box::pin(found.into_stream().map_err(io::Error::from)), limit_bytes);
            while let Some(chunk) = intake.chunk(usize::MAX).await? {
                file.write_all(&chunk).await.map_err(errors::from_io)?;
            }
            file.flush().await.map_err(errors::from_io)?;
            Ok(intake.finish())
        })
    }

    fn shelve<'a>(
        &'a self,
        upload: Uuid,
        shelf: &'a Shelf,
        blob: &'a BlobRef,
    ) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            put::claim(self.claims.as_deref(), shelf, &blob.sha256).await?;
            match read::is_intact(&self.store, shelf, &blob.sha256, Some(blob.size_bytes)).await? {
                true => Ok(()),
                false => self.copy(&keys::upload(upload), &keys::blob(shelf, &blob.sha256), blob.size_bytes).await,
            }
        })
    }

    fn discard<'a>(&'a self, upload: Uuid, name: &'a str) -> BoxFuture<'a, Result<(), StorageError>> {
        Box::pin(async move {
            let key = keys::upload(upload);
            match self.store.abort_multipart(&key, &name.to_owned()).await {
                // Some stores say of an upload they no longer know that it is forbidden.
                Ok(()) | Err(Error::NotFound { .. } | Error::PermissionDenied { .. }) => {}
                Err(error) => return Err(errors::from_store(error)),
            }
            match self.store.delete(&key).await {
                Ok(()) | Err(Error::NotFound { .. }) => Ok(()),
                Err(error) => Err(errors::from_store(error)),
            }
        })
    }
}

/// What of a ListPartsResult is looked at. Source: "ListParts", Amazon S3 API Reference.
#[derive(Debug, Deserialize)]
struct ListPartsResult {
    #[serde(default, rename = "Part")]
    parts: Vec<ListedPart>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListedPart {
    part_number: u32,
    size: u64,
    #[serde(rename = "ETag")]
    etag: String,
}

fn listed(xml: &str, after: u32, limit: u32) -> Result<Vec<SentPart>, StorageError> {
    let list: ListPartsResult = quick_xml::de::from_str(xml).map_err(|error| StorageError::Io(Box::new(error)))?;
    let sent = |p: ListedPart| SentPart { number: p.part_number, size_bytes: p.size, etag: p.etag };
    let mut parts: Vec<SentPart> = list.parts.into_iter().map(sent).filter(|part| part.number > after).collect();
    parts.sort_unstable_by_key(|part| part.number);
    parts.truncate(limit as usize);
    Ok(parts)
}

fn not_uploaded(error: Error, upload: Uuid) -> StorageError {
    match error {
        Error::NotFound { .. } => StorageError::NotUploaded(upload),
        other => errors::from_store(other),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The answer that Amazon's reference of ListParts shows, shortened.
    #[test]
    fn parts_are_read_as_amazon_lists_them() {
        let xml = r#"<?xml version="1.0" encoding="UTF-8"?>
            <ListPartsResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">
              <Bucket>example-bucket</Bucket><Key>example-object</Key><UploadId>XXBsb2FkIElEIGZvciBlbHZpbmcncyVcdS1tb3ZpZS5tMnRzEEEwbG9hZA</UploadId>
              <Initiator><ID>arn:aws:iam::111122223333:user/some-user</ID></Initiator><StorageClass>STANDARD</StorageClass>
              <PartNumberMarker>1</PartNumberMarker><NextPartNumberMarker>3</NextPartNumberMarker><MaxParts>2</MaxParts>
              <IsTruncated>true</IsTruncated>
              <Part><PartNumber>2</PartNumber><LastModified>2010-11-10T20:48:34.000Z</LastModified>
                <ETag>&quot;7778aef83f66abc1fa1e8477f296d394&quot;</ETag><Size>10485760</Size></Part>
              <Part><PartNumber>3</PartNumber><LastModified>2010-11-10T20:48:33.000Z</LastModified>
                <ETag>&quot;aaaa18db4cc2f85cedef654fccc4a4x8&quot;</ETag><Size>10485760</Size></Part>
            </ListPartsResult>"#;
        let parts = listed(xml, 1, 1000).unwrap();
        assert_eq!(parts.iter().map(|p| (p.number, p.size_bytes)).collect::<Vec<_>>(), [(2, 10485760), (3, 10485760)]);
        assert_eq!(parts[0].etag, "\"7778aef83f66abc1fa1e8477f296d394\"");
        assert_eq!(listed(xml, 2, 1000).unwrap(), parts[1..]);
        assert_eq!(listed(xml, 1, 1).unwrap(), parts[..1]);
        assert!(listed("<ListPartsResult><Key>x</Key></ListPartsResult>", 0, 1).unwrap().is_empty());
        assert!(listed("<html>", 0, 1).is_err());
    }
}
