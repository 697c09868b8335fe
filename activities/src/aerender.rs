//! The driver of `aerender`: After Effects' command line and our own renderer's, by the same code.
//!
//! The driver believes no exit code and no line of output; both are hints. What counts is [`evidence`]: every
//! planned frame exists, decodes to its last byte, has the planned size and a recorded hash. A frame goes to the
//! [`FrameSink`] as soon as it is proven, so storing overlaps rendering. Whole pictures that look wrong are rendered
//! once more ([`doubt`]). Words, timers and the end of the process only explain what is missing ([`classes`]).
//!
//! ```text
//! RenderFrames ─▶ prepare ─▶ ranges still missing ─▶ driver: spawn, observe, end ─▶ verdict
//!                 (cache)        ▲                      │ files → harvest → sink        │
//!                                └── frames on disk ────┘                    RenderedFrames or Failure
//! ```
//! Nothing here knows where tasks come from, where inputs are kept or where frames go.

pub mod account;
pub mod cache;
pub mod classes;
pub mod classify;
pub mod command;
pub mod doubt;
pub mod driver;
pub mod evidence;
pub mod harvest;
pub mod lines;
pub mod prepare;
pub mod process;
pub mod render;
pub mod silence;
pub mod timers;
pub mod transcript;
pub mod unpack;
pub mod verdict;

pub use process::ProcessId;
pub use render::{Aerender, Job};
pub use timers::Limits;

use flatrender_workflows::contracts::storage::BlobRef;
use std::path::{Path, PathBuf};

/// A frame that exists, decodes fully and has the planned size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProvenFrame {
    /// Its number in the composition, 0-based.
    pub frame: u32,
    /// Where its PNG lies; stays there until the attempt ends.
    pub path: PathBuf,
    /// Hash and length of the PNG.
    pub blob: BlobRef,
}

/// Where packages and assets come from.
pub trait InputSource: Send + Sync + 'static {
    /// Writes a blob to `path`, a new file. The caller checks length and hash.
    fn fetch(&self, blob: &BlobRef, path: &Path) -> impl Future<Output = Result<(), TransferError>> + Send;
}

/// Where proven frames go.
pub trait FrameSink: Send + Sync + 'static {
    /// Stores a frame. Storing the same frame twice is harmless. Dropping the future stops it.
    fn store(&self, frame: ProvenFrame) -> impl Future<Output = Result<(), TransferError>> + Send;

    /// Frames of the task that earlier attempts have stored: none of them is rendered again, and none reported.
    fn kept(&self) -> impl Future<Output = Result<Vec<u32>, TransferError>> + Send {
        async { Ok(Vec::new()) }
    }
}

/// Why bytes did not come or go. Passing trouble of the network is not among them: it is the transport's to retry.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// The other side does not have it, or does not let this attempt have it.
    #[error("it is not there")]
    NotFound,
    /// The other side got something else than was announced.
    #[error("the content is not what was announced")]
    Mismatch,
    /// The other side has no room.
    #[error("no room is left there")]
    Full,
    /// No room is left on this machine.
    #[error("no room is left here")]
    DiskFull,
    /// The attempt is over: another one owns the task.
    #[error("the lease is lost")]
    LeaseLost,
    /// Anything else; another attempt may succeed.
    #[error("the transfer failed")]
    Other(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<std::io::Error> for TransferError {
    fn from(error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => Self::DiskFull,
            _ => Self::Other(Box::new(error)),
        }
    }
}
