//! Re-reads stored frames and proves each. A bad frame is a finding, not a failure: the workflow repairs it.

use super::{Media, blocking, frame, render, unless_ended};
use flatrender_engine::{Attempt, Failure, Handler, Progress};
use flatrender_workflows::contracts::{
    media::{VerifiedFrames, VerifyFrames},
    render::{FaultReason, FrameFault, FrameRef},
    storage::{BlobHash, Shelf, StorageError},
};
use futures::{StreamExt, stream};

impl Handler<VerifyFrames> for Media {
    async fn handle(&self, cx: &Attempt, input: VerifyFrames) -> Result<VerifiedFrames, Failure> {
        unless_ended(cx, self.verify_frames(cx, input)).await
    }
}

impl Media {
    async fn verify_frames(&self, cx: &Attempt, input: VerifyFrames) -> Result<VerifiedFrames, Failure> {
        let (shelf, total) = (render(cx, input.render_id), input.frames.len() as u32);
        let checks = input.frames.into_iter().map(|frame| self.verify_frame(&shelf, frame, input.size));
        let mut checks = stream::iter(checks).buffered(self.threads.max(1));
        let (mut done, mut faults) = (0, Vec::new());
        while let Some(fault) = checks.next().await {
            faults.extend(fault?);
            done += 1;
            cx.heartbeat(Progress { done, total, ..Progress::default() })?;
        }
        Ok(VerifiedFrames { good: total - faults.len() as u32, faults })
    }

    async fn verify_frame(
        &self,
        shelf: &Shelf,
        frame: FrameRef,
        size: [u32; 2],
    ) -> Result<Option<FrameFault>, Failure> {
        let number = frame.frame;
        let fault = |reason| Some(FrameFault { frame: number, reason });
        let png = match self.read(shelf, &frame.blob, frame::LIMIT_BYTES).await {
            Ok(png) => png,
            Err(StorageError::NotFound(_)) => return Ok(fault(FaultReason::Missing)),
            Err(StorageError::TooLong { .. }) => return Ok(fault(FaultReason::Corrupt)),
            Err(error) => return Err(crate::storage::failure(&error)),
        };
        let hash = frame.blob.sha256;
        Ok(blocking(move || check(&png, &hash, size)).await?.err().and_then(fault))
    }
}

fn check(png: &[u8], hash: &BlobHash, size: [u32; 2]) -> Result<(), FaultReason> {
    if BlobHash::of(png) != *hash {
        return Err(FaultReason::WrongHash);
    }
    frame::check(png, size)
}
