//! Work with ffmpeg and pictures: frames are proven, encoded, joined with sound, and the film is proven again.
//!
//! One file an activity. What happens next, and what a fault means for a render, is decided in `workflows`.
//!
//! The exit code of ffmpeg proves nothing about a sequence of pictures: an empty file ends it quietly and early.
//! So every frame is checked before, and every output is counted after.

mod assemble_video;
mod clear_shelf;
mod derive_file;
mod doctor;
mod draw_contact_sheet;
mod encode_part;
pub mod ffmpeg;
pub mod frame;
pub mod jail;
mod make_still;
mod mix_audio;
mod mp4;
mod picture;
pub mod probe;
mod process;
mod scenes;
pub mod scratch;
pub mod sniff;
mod take_upload;
pub mod upload;
mod verify_frames;
mod verify_video;
mod wav;

pub use doctor::Finding;

use flatrender_engine::{Attempt, Failure};
use flatrender_workflows::contracts::{
    media::FRAME_LOST,
    render::FrameRef,
    storage::{BlobRef, BlobStore, Shelf, StorageError},
};
use futures::TryStreamExt;
use scratch::Scratch;
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Semaphore;
use uuid::Uuid;

/// The tools of every media activity. The tenant an attempt works for is that of its task.
#[derive(Clone)]
pub struct Media {
    /// Where frames, parts, sound and films live.
    pub storage: Arc<dyn BlobStore>,
    /// A folder of this machine; each attempt works in a folder of its own below it.
    pub scratch: PathBuf,
    /// The program `ffmpeg`.
    pub ffmpeg: PathBuf,
    /// The program `ffprobe`.
    pub ffprobe: PathBuf,
    /// How many cores an attempt may keep busy, at least 1. No output depends on it.
    pub threads: usize,
    /// Turns to look at what was uploaded: a picture takes much memory.
    pub looks: Arc<Semaphore>,
}

impl Media {
    /// With `ffmpeg` and `ffprobe` from the search path and all cores of this machine.
    pub fn new(storage: Arc<dyn BlobStore>, scratch: PathBuf) -> Self {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        Self { storage, scratch, ffmpeg: "ffmpeg".into(), ffprobe: "ffprobe".into(), threads, looks: upload::turns() }
    }

    fn scratch(&self, cx: &Attempt) -> Result<Scratch, Failure> {
        Scratch::create(&self.scratch, cx)
    }

    async fn fetch(&self, shelf: &Shelf, blob: &BlobRef, path: &Path) -> Result<(), Failure> {
        self.storage.fetch(shelf, &blob.sha256, path).await.map_err(|e| crate::storage::failure(&e))
    }

    /// As [`Self::fetch`], of a frame; one that is not there as it was recorded is lost.
    async fn fetch_frame(&self, shelf: &Shelf, frame: &FrameRef, path: &Path) -> Result<(), Failure> {
        let fetched = self.storage.fetch(shelf, &frame.blob.sha256, path).await;
        fetched.map_err(|error| frame_failure(frame, &error))
    }

    async fn store(&self, shelf: &Shelf, path: &Path) -> Result<BlobRef, Failure> {
        self.storage.put_file(shelf, path).await.map_err(|e| crate::storage::failure(&e))
    }

    /// A whole blob in memory, if it is at most `limit_bytes` long.
    async fn read(&self, shelf: &Shelf, blob: &BlobRef, limit_bytes: u64) -> Result<Vec<u8>, StorageError> {
        let body = self.storage.open(shelf, &blob.sha256, None).await?;
        if body.size_bytes > limit_bytes {
            return Err(StorageError::TooLong { limit_bytes });
        }
        let whole = Vec::with_capacity(body.size_bytes as usize);
        let chunks = body.stream.map_err(|e| StorageError::Io(Box::new(e)));
        chunks
            .try_fold(whole, async |mut whole, chunk| {
                Ok({
                    whole.extend_from_slice(&chunk);
                    whole
                })
            })
            .await
    }
}

/// What an error of reading a frame means for an attempt: one that is not as it was recorded can be rendered again.
fn frame_failure(frame: &FrameRef, error: &StorageError) -> Failure {
    match error {
        StorageError::NotFound(_) | StorageError::Mismatch { .. } | StorageError::TooLong { .. } => {
            Failure::permanent(FRAME_LOST, format!("frame {} is lost: {error}", frame.frame))
        }
        _ => crate::storage::failure(error),
    }
}

/// The shelf of what the tenant of this attempt keeps.
fn files(cx: &Attempt) -> Shelf {
    Shelf::Files { tenant_id: cx.task().tenant_id }
}

/// The shelf of what a render of this tenant needs until it ends.
fn render(cx: &Attempt, render_id: Uuid) -> Shelf {
    Shelf::Render { tenant_id: cx.task().tenant_id, render_id }
}

/// Does `work` unless the attempt must end before; then `work` is dropped, which stops what it started.
async fn unless_ended<T>(cx: &Attempt, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::select! {
        biased;
        failure = cx.ended() => Err(failure),
        done = work => done,
    }
}

/// Does `work` on a thread that may wait and compute.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, Failure> {
    tokio::task::spawn_blocking(work)
        .await
        .map_err(|e| Failure::transient("media.crashed", format!("the work stopped half-way: {e}")))
}

/// A broken folder or disk of this worker; another one may have better luck.
fn disk_failure(error: std::io::Error) -> Failure {
    Failure::transient("media.disk", format!("cannot work in the scratch folder: {error}"))
}

/// `work` is refused because its input makes no sense. No retry cures that.
fn invalid(message: impl Into<String>) -> Failure {
    Failure::permanent("media.invalid_input", message)
}
