//! What a customer uploaded: looked at with suspicion, before anything else sees it.
//!
//! What it is decides its content alone, and a program that is not ours looks at it in a jail, told which format to read.

use super::{
    ffmpeg::RunError,
    picture, probe,
    probe::Probe,
    sniff,
    sniff::{AudioKind, ImageKind, Kind, VideoKind},
};
use crate::archive::{self, ArchiveError, Budget};
use std::{
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Semaphore;

/// The longest side of a film, in pixels.
const FILM_SIDE: u32 = 8192;
/// Pictures and sounds that are looked at at once; the others wait.
const AT_ONCE: usize = 2;

/// Bounds of what is taken in.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    /// Longest file.
    pub size_bytes: u64,
    /// Most pixels of a picture.
    pub pixels: u64,
    /// Longest sound or film.
    pub audio_seconds: f64,
}

impl Default for UploadLimits {
    fn default() -> Self {
        Self { size_bytes: 512 * 1024 * 1024, pixels: 50_000_000, audio_seconds: 3600.0 }
    }
}

/// What an uploaded file really is.
#[derive(Debug, Clone, PartialEq)]
pub enum Upload {
    /// A picture that decodes.
    Image {
        /// Its kind.
        kind: ImageKind,
        /// Width and height in pixels, as stored.
        size: [u32; 2],
    },
    /// A sound whose beginning decodes.
    Audio {
        /// Its kind.
        kind: AudioKind,
        /// Its length; an estimate for MP3 and AAC that do not tell.
        duration_ms: u64,
    },
    /// A film whose beginning decodes.
    Video {
        /// Its kind.
        kind: VideoKind,
        /// Width and height in pixels.
        size: [u32; 2],
        /// Its length.
        duration_ms: u64,
    },
    /// A zip within its budget, every file of which unpacks.
    Archive,
}

impl Upload {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match *self {
            Self::Image { kind, .. } => Kind::Image(kind),
            Self::Audio { kind, .. } => Kind::Audio(kind),
            Self::Video { kind, .. } => Kind::Video(kind),
            Self::Archive => Kind::Archive,
        }
    }

    /// `image`, `audio`, `video` or `archive`.
    pub fn class(&self) -> &'static str {
        match self {
            Self::Image { .. } => "image",
            Self::Audio { .. } => "audio",
            Self::Video { .. } => "video",
            Self::Archive => "archive",
        }
    }

    /// Width and height in pixels, of pictures and films.
    pub fn size(&self) -> Option<[u32; 2]> {
        match *self {
            Self::Image { size, .. } | Self::Video { size, .. } => Some(size),
            Self::Audio { .. } | Self::Archive => None,
        }
    }

    /// Length of sounds and films.
    pub fn duration_ms(&self) -> Option<u64> {
        match *self {
            Self::Audio { duration_ms, .. } | Self::Video { duration_ms, .. } => Some(duration_ms),
            Self::Image { .. } | Self::Archive => None,
        }
    }
}

/// Why an upload is not taken in.
#[derive(Debug, thiserror::Error)]
pub enum UploadError {
    /// It has no bytes.
    #[error("the file is empty")]
    Empty,
    /// It is none of the kinds that are taken in, whatever its name says.
    #[error(
        "the file is no picture (PNG, JPEG, WebP), sound (WAV, MP3, M4A, AAC, Ogg, FLAC), film (MP4, MOV, WebM) or zip"
    )]
    UnsupportedType,
    /// It begins like one and does not go on like one.
    #[error("the file is damaged")]
    Corrupt,
    /// It is a zip that is not taken in.
    #[error("{0}")]
    Archive(#[source] ArchiveError),
    /// It is longer or larger than allowed.
    #[error("the file has more than {limit} {unit}")]
    TooLarge {
        /// The limit.
        limit: u64,
        /// Of what.
        unit: &'static str,
    },
    /// It could not be looked at, which is not its fault.
    #[error("cannot look at the file")]
    Unchecked(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl UploadError {
    /// The stable code for clients; none when it is not the file's fault.
    pub fn code(&self) -> Option<&'static str> {
        match self {
            Self::Empty => Some("file.empty"),
            Self::UnsupportedType => Some("file.unsupported_type"),
            Self::Archive(ArchiveError::TooMuch(_)) => Some("file.too_large"),
            Self::Corrupt | Self::Archive(_) => Some("file.corrupt"),
            Self::TooLarge { .. } => Some("file.too_large"),
            Self::Unchecked(_) => None,
        }
    }
}

/// Turns to look at uploads.
pub(super) fn turns() -> Arc<Semaphore> {
    Arc::new(Semaphore::new(AT_ONCE))
}

/// Looks at uploads, a few at a time.
#[derive(Debug, Clone)]
pub struct UploadInspector {
    ffprobe: PathBuf,
    limits: UploadLimits,
    turns: Arc<Semaphore>,
}

impl UploadInspector {
    /// With the program `ffprobe`.
    pub fn new(ffprobe: PathBuf, limits: UploadLimits) -> Self {
        Self::sharing(ffprobe, limits, turns())
    }

    /// The same, in turn with others who have these [`turns`].
    pub(super) fn sharing(ffprobe: PathBuf, limits: UploadLimits, turns: Arc<Semaphore>) -> Self {
        Self { ffprobe, limits, turns }
    }

    /// Tells what the file at `path` is. Pictures and archives are decoded whole, of sounds and films the first second. Of a
    /// picture our own encoding takes its place; everything else stays as it came.
    ///
    /// # Errors
    /// Why it is not taken in.
    pub async fn inspect(&self, path: &Path) -> Result<Upload, UploadError> {
        let _turn = self.turns.acquire().await.map_err(|e| UploadError::Unchecked(Box::new(e)))?;
        let (file, limit) = (path.to_owned(), self.limits.size_bytes);
        let kind = blocking(move || kind(&file, limit)).await?;
        let file = path.to_owned();
        match kind {
            Kind::Image(kind) => {
                let pixels = self.limits.pixels;
                let size = blocking(move || picture::keep(&file, kind, pixels)).await?;
                Ok(Upload::Image { kind, size })
            }
            Kind::Audio(AudioKind::M4a) => self.footage(path, VideoKind::Mp4).await,
            Kind::Audio(kind) => {
                let (folder, name) = split(path)?;
                let probe = probe::sound(&self.ffprobe, folder, kind.demuxer(), &name).await.map_err(refused)?;
                Ok(Upload::Audio { kind, duration_ms: self.duration_ms(audible_seconds(&probe)?)? })
            }
            Kind::Video(kind) => self.footage(path, kind).await,
            Kind::Archive => {
                let proven = blocking(move || archive::prove(&file, Budget::default()).map_err(not_taken));
                proven.await.map(|_| Upload::Archive)
            }
        }
    }

    /// A film; or a sound, for which the container of films is used as well.
    async fn footage(&self, path: &Path, kind: VideoKind) -> Result<Upload, UploadError> {
        let (folder, name) = split(path)?;
        let probe = probe::footage(&self.ffprobe, folder, kind.demuxer(), &name).await.map_err(refused)?;
        let Some(film) = probe.first("video") else {
            // Only the one that is usual for it.
            return match kind {
                VideoKind::Mp4 => {
                    let duration_ms = self.duration_ms(audible_seconds(&probe)?)?;
                    Ok(Upload::Audio { kind: AudioKind::M4a, duration_ms })
                }
                _ => Err(UploadError::UnsupportedType),
            };
        };
        let (Some(width @ 1..), Some(height @ 1..), Some(1..)) = (film.width, film.height, film.frames()) else {
            return Err(UploadError::Corrupt);
        };
        if width.max(height) > FILM_SIDE {
            return Err(UploadError::TooLarge { limit: FILM_SIDE.into(), unit: "pixels to a side" });
        }
        let seconds = probe.seconds().or(film.seconds()).filter(|s| s.is_finite() && *s > 0.0);
        let duration_ms = self.duration_ms(seconds.ok_or(UploadError::Corrupt)?)?;
        Ok(Upload::Video { kind, size: [width, height], duration_ms })
    }

    fn duration_ms(&self, seconds: f64) -> Result<u64, UploadError> {
        if seconds > self.limits.audio_seconds {
            return Err(UploadError::TooLarge { limit: self.limits.audio_seconds as u64, unit: "seconds" });
        }
        Ok((seconds * 1000.0).round() as u64)
    }
}

/// Length of a file that holds sound that decodes, and no film.
fn audible_seconds(probe: &Probe) -> Result<f64, UploadError> {
    if probe.first("video").is_some() {
        return Err(UploadError::UnsupportedType);
    }
    let sound = probe.first("audio").ok_or(UploadError::UnsupportedType)?;
    if sound.frames().unwrap_or(0) == 0 {
        return Err(UploadError::Corrupt);
    }
    let seconds = probe.seconds().or(sound.seconds()).filter(|s| s.is_finite() && *s > 0.0);
    seconds.ok_or(UploadError::Corrupt)
}

fn kind(path: &Path, limit_bytes: u64) -> Result<Kind, UploadError> {
    let file = File::open(path).map_err(unchecked)?;
    match file.metadata().map_err(unchecked)?.len() {
        0 => return Err(UploadError::Empty),
        size if size > limit_bytes => return Err(UploadError::TooLarge { limit: limit_bytes, unit: "bytes" }),
        _ => {}
    }
    let mut head = Vec::new();
    file.take(sniff::HEAD_BYTES as u64).read_to_end(&mut head).map_err(unchecked)?;
    sniff::kind(&head).ok_or(UploadError::UnsupportedType)
}

fn split(path: &Path) -> Result<(&Path, String), UploadError> {
    let name = path.file_name().and_then(|n| n.to_str());
    let (Some(folder), Some(name)) = (path.parent(), name) else {
        return Err(unchecked(io::Error::from(io::ErrorKind::InvalidFilename)));
    };
    // A name must never be taken for an option or a protocol.
    Ok((folder, format!("./{name}")))
}

fn refused(error: RunError) -> UploadError {
    match error {
        // A codec that is none of sound, such as that of a film.
        RunError::Refused { tail, .. } if tail.contains("not on whitelist") => UploadError::UnsupportedType,
        // Killed: it has used up its time. What a file makes a program do, it does again.
        RunError::Refused { .. }
        | RunError::Killed { .. }
        | RunError::Stuck(_)
        | RunError::TooLong(_)
        | RunError::Garbled(_) => UploadError::Corrupt,
        other => UploadError::Unchecked(Box::new(other)),
    }
}

fn not_taken(error: ArchiveError) -> UploadError {
    match error {
        ArchiveError::Io(error) => unchecked(error),
        error => UploadError::Archive(error),
    }
}

fn unchecked(error: io::Error) -> UploadError {
    UploadError::Unchecked(Box::new(error))
}

/// A decoder that panics has met a file it cannot read.
async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, UploadError> + Send + 'static,
) -> Result<T, UploadError> {
    tokio::task::spawn_blocking(work).await.unwrap_or(Err(UploadError::Corrupt))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn a_file_is_to_blame_for_what_it_makes_a_program_do_and_for_nothing_else() {
        let nonsense = serde_json::from_str::<Probe>("no").unwrap_err();
        let its_own = [RunError::TooLong(1), RunError::Stuck(Duration::from_secs(60)), RunError::Garbled(nonsense)];
        for error in its_own {
            assert_eq!(refused(error).code(), Some("file.corrupt"));
        }
        let missing = RunError::Unusable { program: "ffprobe".into(), source: io::ErrorKind::NotFound.into() };
        assert_eq!(refused(missing).code(), None);
    }
}
