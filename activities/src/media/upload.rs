//! What a customer uploaded: looked at with suspicion, before anything else sees it.

use super::{
    ffmpeg::RunError,
    probe,
    probe::Probe,
    sniff,
    sniff::{AudioKind, ImageKind, Kind},
};
use image::{ImageError, ImageFormat, ImageReader};
use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::{Path, PathBuf},
    sync::Arc,
};
use tokio::sync::Semaphore;

/// The longest side of a picture, in pixels.
const SIDE: u32 = 16_384;
/// The longest file of a picture; decoders hold all of it.
const PICTURE_BYTES: u64 = 128 * 1024 * 1024;
/// The most memory a picture may take while it is decoded.
const DECODER_BYTES: u64 = 512 * 1024 * 1024;
/// Pictures and sounds that are looked at at once; the others wait.
const AT_ONCE: usize = 2;

/// Bounds of what is taken in.
#[derive(Debug, Clone, Copy)]
pub struct UploadLimits {
    /// Longest file.
    pub size_bytes: u64,
    /// Most pixels of a picture.
    pub pixels: u64,
    /// Longest sound.
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
}

impl Upload {
    /// Its kind.
    pub fn kind(&self) -> Kind {
        match *self {
            Self::Image { kind, .. } => Kind::Image(kind),
            Self::Audio { kind, .. } => Kind::Audio(kind),
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
    #[error("the file is not a picture (PNG, JPEG, WebP) or sound (WAV, MP3, M4A, AAC, Ogg, FLAC)")]
    UnsupportedType,
    /// It begins like one and does not go on like one.
    #[error("the file is damaged")]
    Corrupt,
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
            Self::Corrupt => Some("file.corrupt"),
            Self::TooLarge { .. } => Some("file.too_large"),
            Self::Unchecked(_) => None,
        }
    }
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
        Self { ffprobe, limits, turns: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Tells what the file at `path` is. Pictures are decoded whole, of sounds the first second.
    ///
    /// # Errors
    /// Why it is not taken in.
    pub async fn inspect(&self, path: &Path) -> Result<Upload, UploadError> {
        let _turn = self.turns.acquire().await.map_err(|e| UploadError::Unchecked(Box::new(e)))?;
        let (file, limit) = (path.to_owned(), self.limits.size_bytes);
        let kind = blocking(move || kind(&file, limit)).await?;
        match kind {
            Kind::Image(kind) => {
                let (file, pixels) = (path.to_owned(), self.limits.pixels);
                let size = blocking(move || image_size(&file, kind, pixels)).await?;
                Ok(Upload::Image { kind, size })
            }
            Kind::Audio(kind) => {
                let duration_ms = self.duration_ms(path, kind).await?;
                Ok(Upload::Audio { kind, duration_ms })
            }
        }
    }

    async fn duration_ms(&self, path: &Path, kind: AudioKind) -> Result<u64, UploadError> {
        let (folder, name) = split(path)?;
        let probe = probe::sound(&self.ffprobe, folder, kind.demuxer(), &name).await.map_err(refused)?;
        let seconds = audible_seconds(&probe)?;
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

/// The size is read and judged before a pixel is decoded.
fn image_size(path: &Path, kind: ImageKind, pixels: u64) -> Result<[u32; 2], UploadError> {
    if path.metadata().map_err(unchecked)?.len() > PICTURE_BYTES {
        return Err(UploadError::TooLarge { limit: PICTURE_BYTES, unit: "bytes" });
    }
    let [width, height]: [u32; 2] = reader(path, kind)?.into_dimensions().map_err(undecodable)?.into();
    if u64::from(width) * u64::from(height) > pixels || width.max(height) > SIDE {
        return Err(UploadError::TooLarge { limit: pixels, unit: "pixels" });
    }
    reader(path, kind)?.decode().map_err(undecodable)?;
    if kind == ImageKind::Jpeg && !ends_as_jpeg(path)? {
        return Err(UploadError::Corrupt);
    }
    Ok([width, height])
}

fn reader(path: &Path, kind: ImageKind) -> Result<ImageReader<BufReader<File>>, UploadError> {
    let format = match kind {
        ImageKind::Png => ImageFormat::Png,
        ImageKind::Jpeg => ImageFormat::Jpeg,
        ImageKind::Webp => ImageFormat::WebP,
    };
    let mut reader = ImageReader::with_format(BufReader::new(File::open(path).map_err(unchecked)?), format);
    let mut limits = image::Limits::default();
    limits.max_alloc = Some(DECODER_BYTES);
    reader.limits(limits);
    Ok(reader)
}

/// Decoders of JPEG fill what is missing with grey; the marker at the end tells whether all of it came. Cameras
/// write more behind it, so it is looked for anywhere.
fn ends_as_jpeg(path: &Path) -> Result<bool, UploadError> {
    let bytes = std::fs::read(path).map_err(unchecked)?;
    Ok(bytes.windows(2).rev().any(|pair| pair == [0xff, 0xd9]))
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
        RunError::Refused { .. } => UploadError::Corrupt,
        other => UploadError::Unchecked(Box::new(other)),
    }
}

fn undecodable(error: ImageError) -> UploadError {
    match error {
        ImageError::IoError(error) if error.kind() != io::ErrorKind::UnexpectedEof => unchecked(error),
        ImageError::Limits(_) => UploadError::TooLarge { limit: DECODER_BYTES, unit: "bytes of pixels" },
        _ => UploadError::Corrupt,
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
