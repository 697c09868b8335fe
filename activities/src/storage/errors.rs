//! What an error of the store below means here, and which of ours a retry can cure.

use flatrender_engine::Failure;
use flatrender_workflows::contracts::storage::StorageError;
use std::{error::Error, io};

/// What a storage error means for an attempt: a full or unreachable storage may recover, content that is
/// missing or different will not.
pub fn failure(error: &StorageError) -> Failure {
    let message = error.to_string();
    match error {
        StorageError::NotFound(_) => Failure::permanent("storage.not_found", message),
        StorageError::NotUploaded(_) => Failure::permanent("storage.not_uploaded", message),
        StorageError::Mismatch { .. } => Failure::permanent("storage.mismatch", message),
        StorageError::TooLong { .. } => Failure::permanent("storage.too_long", message),
        StorageError::BadRange { .. } => Failure::permanent("storage.bad_range", message),
        StorageError::BeingRemoved(_) => Failure::transient("storage.being_removed", message),
        StorageError::Full(_) => Failure::transient("storage.full", message),
        StorageError::Io(cause) => Failure::transient("storage.unavailable", format!("{message}: {cause}")),
    }
}

/// An error of the store. A full disk is recognised wherever it stands in the chain of causes.
pub(super) fn from_store(error: object_store::Error) -> StorageError {
    match io_cause(&error).filter(|io| is_full(io)) {
        Some(io) => StorageError::Full(io::Error::new(io.kind(), io.to_string())),
        None => StorageError::Io(Box::new(error)),
    }
}

/// An error of a file of this machine.
pub(super) fn from_io(error: io::Error) -> StorageError {
    if is_full(&error) { StorageError::Full(error) } else { StorageError::Io(Box::new(error)) }
}

/// A blocking task that panicked or was cut off.
pub(super) fn from_join(error: tokio::task::JoinError) -> StorageError {
    StorageError::Io(Box::new(error))
}

fn io_cause(error: &object_store::Error) -> Option<&io::Error> {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(io) = error.downcast_ref::<io::Error>() {
            return Some(io);
        }
        cause = error.source();
    }
    None
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As the local store reports it: an error of its own around the one of the system.
    #[derive(Debug, thiserror::Error)]
    #[error("cannot copy data to file")]
    struct CannotCopy(#[source] io::Error);

    #[test]
    fn a_full_disk_is_told_apart_from_a_broken_one() {
        let full = CannotCopy(io::Error::from(io::ErrorKind::StorageFull));
        let error = from_store(object_store::Error::Generic { store: "LocalFileSystem", source: Box::new(full) });
        assert!(matches!(error, StorageError::Full(_)), "{error:?}");
        assert_eq!(failure(&error).code, "storage.full");
        assert!(failure(&error).retryable);
        assert!(matches!(from_io(io::Error::other("broken")), StorageError::Io(_)));
    }
}
