//! A worker beside the server: it continues renders and does their media work. The one place besides `main.rs` where
//! workflows meet the tools of `activities`.

mod probe;

pub use probe::upload_probe;

use flatrender_activities::media::Media;
use flatrender_engine::{Worker, worker::Builder};
use flatrender_workflows::{
    contracts::{
        media::{
            AssembleVideo, ClearShelf, DrawContactSheet, EncodePart, MEDIA_QUEUE, MixAudio, VerifyFrames, VerifyVideo,
        },
        storage::BlobStore,
    },
    definitions::render_video::RenderVideo,
};
use sqlx::PgPool;
use std::{error::Error, path::PathBuf, sync::Arc};
use tokio_util::sync::CancellationToken;

/// What a worker is made of.
pub struct WorkerConfig {
    /// Its database, migrated.
    pub pool: PgPool,
    /// Where bytes live.
    pub storage: Arc<dyn BlobStore>,
    /// A folder for the files of attempts.
    pub scratch: PathBuf,
    /// The program `ffmpeg`.
    pub ffmpeg: PathBuf,
    /// The program `ffprobe`.
    pub ffprobe: PathBuf,
    /// Media activities at a time; by the number of cores when absent.
    pub slots: Option<usize>,
}

/// Why a worker cannot work.
#[derive(Debug, thiserror::Error)]
#[error("the worker ended by itself")]
pub struct WorkError(#[source] Box<dyn Error + Send + Sync>);

/// Works until `shutdown`: then what runs is finished within a grace or given back.
///
/// # Errors
/// When the runtime underneath ends by itself.
pub async fn run(config: WorkerConfig, shutdown: CancellationToken) -> Result<(), WorkError> {
    builder(config).run(shutdown).await.map_err(|e| WorkError(Box::new(e)))
}

/// The definitions and handlers of a worker.
fn builder(config: WorkerConfig) -> Builder {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let slots = config.slots.unwrap_or(cores).max(1);
    let media = Media {
        storage: config.storage,
        scratch: config.scratch,
        ffmpeg: config.ffmpeg,
        ffprobe: config.ffprobe,
        // One film alone uses every core; several share them by the scheduler of the machine.
        threads: cores,
    };
    Worker::builder(config.pool)
        .workflow::<RenderVideo>()
        .queue(MEDIA_QUEUE, slots)
        .handler::<VerifyFrames>(media.clone())
        .handler::<EncodePart>(media.clone())
        .handler::<MixAudio>(media.clone())
        .handler::<AssembleVideo>(media.clone())
        .handler::<VerifyVideo>(media.clone())
        .handler::<DrawContactSheet>(media.clone())
        .handler::<ClearShelf>(media)
}
