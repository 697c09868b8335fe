//! Uploads that clients send straight to a bucket: `incoming/<id>` until they are hashed, then the key of their content.

use super::{errors, intake, intake::Intake, keys, put, read, s3::Bucket};
use flatrender_workflows::contracts::storage::{BlobHash, BlobRef, DirectPart, DirectUploads, Shelf, StorageError};
use futures::{TryStreamExt, future::BoxFuture};
use object_store::{
    Error, ObjectStoreExt,
    multipart::{MultipartStore, PartId},
    signer::{HeaderName, HeaderValue, Method, SignedUrlOptions},
};
use std::io;
use uuid::Uuid;

impl DirectUploads for Bucket {
    fn begin(&self, upload: Uuid) -> BoxFuture<'_, Result<String, StorageError>> {
        Box::pin(async move { self.store.create_multipart(&keys::upload(upload)).await.map_err(errors::from_store) })
    }

    fn sign_part<'a>(&'a self, part: &'a DirectPart<'a>) -> BoxFuture<'a, Result<String, StorageError>> {
        let mut options = SignedUrlOptions::new()
            .with_query([("partNumber", part.number.to_string()), ("uploadId", part.name.to_owned())]);
        if let Some(md5) = part.md5 {
            let Ok(value) = HeaderValue::from_str(md5) else {
                let refused = io::Error::new(io::ErrorKind::InvalidInput, "a hash has letters only");
                return Box::pin(std::future::ready(Err(errors::from_io(refused))));
            };
            options = options.with_signed_header(HeaderName::from_static("content-md5"), value);
        }
        Box::pin(async move { self.sign(Method::PUT, &keys::upload(part.upload), part.valid_for, &options).await })
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

    fn shelve<'a>(
        &'a self,
        upload: Uuid,
        shelf: &'a Shelf,
        expected: Option<&'a BlobHash>,
        limit_bytes: u64,
    ) -> BoxFuture<'a, Result<BlobRef, StorageError>> {
        Box::pin(async move {
            let key = keys::upload(upload);
            let found = self.store.get(&key).await.map_err(|error| not_uploaded(error, upload))?;
            if found.meta.size > limit_bytes {
                return Err(StorageError::TooLong { limit_bytes });
            }
            let mut intake = Intake::new(Box::pin(found.into_stream().map_err(io::Error::from)), limit_bytes);
            intake.drain().await?;
            let blob = intake.finish();
            intake::check(expected, &blob.sha256)?;
            put::claim(self.claims.as_deref(), shelf, &blob.sha256).await?;
            if !read::is_intact(&self.store, shelf, &blob.sha256, Some(blob.size_bytes)).await? {
                self.copy(&key, &keys::blob(shelf, &blob.sha256), blob.size_bytes).await?;
            }
            Ok(blob)
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

fn not_uploaded(error: Error, upload: Uuid) -> StorageError {
    match error {
        Error::NotFound { .. } => StorageError::NotUploaded(upload),
        other => errors::from_store(other),
    }
}
