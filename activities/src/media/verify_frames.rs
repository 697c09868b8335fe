//! Re-reads stored frames and proves each. A bad frame is a finding, not a failure: the workflow repairs it.

use super::{Media, blocking, frame, render, unless_ended};
use crate::aerender::doubt::{Doubts, Pictures};
use flatrender_engine::{Attempt, Failure, Handler, Progress};
use flatrender_workflows::contracts::{
    media::{VerifiedFrames, VerifyFrames},
    render::{FaultReason, FrameFault, FrameRef},
    storage::{BlobHash, Shelf, StorageError},
};
use futures::{StreamExt, stream};

/// Fewest frames that say something of each other.
const LEAST_DOUBTED: usize = 8;

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
        let (mut done, mut faults, mut pictures) = (0, Vec::new(), Pictures::new());
        while let Some(checked) = checks.next().await {
            let (frame, checked) = checked?;
            match checked {
                Ok(blank) => drop(pictures.insert(frame.frame, (frame.blob.sha256, blank))),
                Err(reason) => faults.push(FrameFault { frame: frame.frame, reason }),
            }
            done += 1;
            cx.heartbeat(Progress { done, total, ..Progress::default() })?;
        }
        Ok(VerifiedFrames { good: pictures.len() as u32, faults, doubts: doubts(pictures, input.film_frames) })
    }

    async fn verify_frame(
        &self,
        shelf: &Shelf,
        frame: FrameRef,
        size: [u32; 2],
    ) -> Result<(FrameRef, Result<bool, FaultReason>), Failure> {
        let png = match self.read(shelf, &frame.blob, frame::LIMIT_BYTES).await {
            Ok(png) => png,
            Err(StorageError::NotFound(_)) => return Ok((frame, Err(FaultReason::Missing))),
            Err(StorageError::TooLong { .. }) => {
                self.drop_spoiled(shelf, &frame.blob.sha256).await;
                return Ok((frame, Err(FaultReason::Corrupt)));
            }
            Err(error) => return Err(crate::storage::failure(&error)),
        };
        let hash = frame.blob.sha256.clone();
        let checked = blocking(move || check(&png, &hash, size)).await?;
        if checked == Err(FaultReason::WrongHash) {
            self.drop_spoiled(shelf, &frame.blob.sha256).await;
        }
        Ok((frame, checked))
    }

    /// Removes what is not the content that its name says: as long as it would be, it would be taken for it when it is stored again.
    async fn drop_spoiled(&self, shelf: &Shelf, hash: &BlobHash) {
        let _ = self.storage.remove(shelf, hash).await;
    }
}

fn check(png: &[u8], hash: &BlobHash, size: [u32; 2]) -> Result<bool, FaultReason> {
    if BlobHash::of(png) != *hash {
        return Err(FaultReason::WrongHash);
    }
    frame::check(png, size)
}

/// What looks wrong among good frames. Of frames that do not follow each other nothing can be said.
fn doubts(pictures: Pictures, film_frames: Option<u32>) -> Vec<FrameFault> {
    let consecutive = pictures.keys().zip(pictures.keys().skip(1)).all(|(a, b)| a + 1 == *b);
    if !consecutive || pictures.len() < LEAST_DOUBTED {
        return vec![];
    }
    let blank = |frame: &u32| pictures.get(frame).is_some_and(|(_, blank)| *blank);
    let reason = |frame: &u32| if blank(frame) { FaultReason::Black } else { FaultReason::Duplicate };
    let doubted = Doubts::within(pictures.clone(), film_frames).frames();
    doubted.iter().map(|frame| FrameFault { frame: *frame, reason: reason(frame) }).collect()
}
