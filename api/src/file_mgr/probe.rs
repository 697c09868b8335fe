//! What the API asks of whoever looks at uploads.

use futures::future::BoxFuture;
use std::{error::Error, path::Path};

/// Tells what a file really is, by its content alone.
pub trait MediaProbe: Send + Sync + 'static {
    /// Looks at a file of this machine, and leaves in its place what is to be kept: of a picture an encoding of our own, of
    /// everything else the file itself. Its length and hash are told afterwards.
    fn inspect<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Probed, ProbeError>>;
}

/// A file that is taken in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Probed {
    /// `image`, `audio`, `video` or `archive`.
    pub kind: &'static str,
    /// Media type.
    pub content_type: &'static str,
    /// Width and height in pixels, of pictures and films.
    pub size: Option<[u32; 2]>,
    /// Length in milliseconds, of sounds and films.
    pub duration_ms: Option<u64>,
}

/// Why a file is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// It has no bytes.
    #[error("the file is empty")]
    Empty,
    /// It is of no kind that is taken in.
    #[error("{0}")]
    UnsupportedType(String),
    /// It is damaged.
    #[error("{0}")]
    Corrupt(String),
    /// It has too many pixels or is too long.
    #[error("{0}")]
    TooLarge(String),
    /// It could not be looked at, which is not its fault.
    #[error("cannot look at the file")]
    Unchecked(#[source] Box<dyn Error + Send + Sync>),
}
