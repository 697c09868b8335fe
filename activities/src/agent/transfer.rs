//! Inputs and frames over HTTP: what `aerender` asks of the world, answered by the server.
//!
//! A request that gets no answer is repeated until it gets one. That ends, because the attempt does: its lease is
//! lost when the server stays away, and losing it drops these futures.

use super::{
    client::{ClientError, TaskClient},
    retry::Backoff,
};
use crate::aerender::{FrameSink, InputSource, ProvenFrame, TransferError};
use flatrender_workflows::contracts::{render::FrameRef, storage::BlobRef};
use std::{
    error::Error,
    mem,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{fs, io::AsyncWriteExt};

/// Times that another content than announced is fetched again.
const REFETCHES: u32 = 2;

/// The server's storage, as one attempt may use it.
#[derive(Clone)]
pub struct Transfer {
    /// The calls.
    pub task: TaskClient,
    /// First and longest pause between requests.
    pub retry: (Duration, Duration),
    /// Stored frames that the server has not been told of.
    pub untold: Arc<Untold>,
}

/// Frames that wait to be noted: whoever has the turn tells of all of them in one request.
#[derive(Debug, Default)]
pub struct Untold {
    frames: Mutex<Vec<FrameRef>>,
    turn: tokio::sync::Mutex<()>,
}

/// Why one request did not do it.
enum Trouble {
    /// Another request may.
    Passing(Box<dyn Error + Send + Sync>),
    /// No other will.
    Final(TransferError),
}

impl InputSource for Transfer {
    async fn fetch(&self, blob: &BlobRef, path: &Path) -> Result<(), TransferError> {
        let mut backoff = Backoff::new(self.retry);
        let mut mismatches = 0;
        loop {
            match self.download(blob, path).await {
                Ok(()) => return Ok(()),
                Err(Trouble::Final(TransferError::Mismatch)) if mismatches < REFETCHES => mismatches += 1,
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error)) => tracing::warn!(%error, "cannot fetch an input yet"),
            }
            backoff.pause().await;
        }
    }
}

impl FrameSink for Transfer {
    async fn store(&self, frame: ProvenFrame) -> Result<(), TransferError> {
        let mut backoff = Backoff::new(self.retry);
        loop {
            match self.upload(&frame).await {
                Ok(()) => break,
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error)) => tracing::warn!(frame = frame.frame, %error, "cannot store a frame yet"),
            }
            backoff.pause().await;
        }
        self.tell(FrameRef { frame: frame.frame, blob: frame.blob }).await
    }

    async fn kept(&self) -> Result<Vec<u32>, TransferError> {
        let mut backoff = Backoff::new(self.retry);
        loop {
            match self.task.kept_frames().await.map_err(Trouble::from) {
                Ok(kept) => return Ok(kept),
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error)) => tracing::warn!(%error, "cannot ask for kept frames yet"),
            }
            backoff.pause().await;
        }
    }
}

impl Transfer {
    /// Tells the server that a frame is stored, so that it is not rendered again whatever becomes of us.
    async fn tell(&self, frame: FrameRef) -> Result<(), TransferError> {
        self.untold.frames.lock().unwrap_or_else(PoisonError::into_inner).push(frame);
        let _turn = self.untold.turn.lock().await;
        let frames = mem::take(&mut *self.untold.frames.lock().unwrap_or_else(PoisonError::into_inner));
        let mut backoff = Backoff::new(self.retry);
        while !frames.is_empty() {
            match self.task.note_frames(&frames).await.map_err(Trouble::from) {
                Ok(()) => break,
                Err(Trouble::Final(error)) => return Err(error),
                Err(Trouble::Passing(error)) => tracing::warn!(%error, "cannot tell of stored frames yet"),
            }
            backoff.pause().await;
        }
        Ok(())
    }

    async fn download(&self, blob: &BlobRef, path: &Path) -> Result<(), Trouble> {
        let mut response = self.task.input(&blob.sha256).await?;
        let mut file = fs::File::create(path).await?;
        let mut length = 0;
        while let Some(chunk) = response.chunk().await.map_err(|e| Trouble::Passing(Box::new(e)))? {
            length += chunk.len() as u64;
            if length > blob.size_bytes {
                return Err(Trouble::Final(TransferError::Mismatch));
            }
            file.write_all(&chunk).await?;
        }
        file.flush().await?;
        if length == blob.size_bytes { Ok(()) } else { Err(Trouble::Final(TransferError::Mismatch)) }
    }

    async fn upload(&self, frame: &ProvenFrame) -> Result<(), Trouble> {
        if self.task.has_frame(&frame.blob.sha256).await? {
            return Ok(());
        }
        let png = fs::read(&frame.path).await?;
        Ok(self.task.put_frame(&frame.blob.sha256, png.into()).await?)
    }
}

impl From<ClientError> for Trouble {
    fn from(error: ClientError) -> Self {
        Self::Final(match error {
            ClientError::Unreachable(cause) => return Self::Passing(cause),
            // It ran out while the server was away, and is ours again once it is renewed; or it is not, and then
            // the renewal tells, and ends the attempt.
            ClientError::LeaseLost => return Self::Passing("the lease has run out".into()),
            ClientError::Unauthorized => TransferError::LeaseLost,
            ClientError::NotFound => TransferError::NotFound,
            ClientError::Full => TransferError::Full,
            ClientError::Rejected { ref code, .. } if code.contains("mismatch") => TransferError::Mismatch,
            rejected => TransferError::Other(Box::new(rejected)),
        })
    }
}

impl From<std::io::Error> for Trouble {
    fn from(error: std::io::Error) -> Self {
        Self::Final(error.into())
    }
}
