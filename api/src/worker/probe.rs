//! Uploads, looked at by the media tools.

use crate::file_mgr::{
    probe::{MediaProbe, ProbeError, Probed},
    upload::LIMIT_BYTES,
};
use flatrender_activities::media::{
    sniff::Kind,
    upload::{Upload, UploadError, UploadInspector, UploadLimits},
};
use futures::future::BoxFuture;
use std::path::{Path, PathBuf};

struct Inspector(UploadInspector);

/// Looks at uploads with our own decoders and the program `ffprobe`.
pub fn upload_probe(ffprobe: PathBuf) -> impl MediaProbe {
    let limits = UploadLimits { size_bytes: LIMIT_BYTES, ..UploadLimits::default() };
    Inspector(UploadInspector::new(ffprobe, limits))
}

impl MediaProbe for Inspector {
    fn inspect<'a>(&'a self, path: &'a Path) -> BoxFuture<'a, Result<Probed, ProbeError>> {
        Box::pin(async { self.0.inspect(path).await.map(probed).map_err(refusal) })
    }
}

fn probed(upload: Upload) -> Probed {
    let kind = match upload.kind() {
        Kind::Image(_) => "image",
        Kind::Audio(_) => "audio",
        Kind::Video(_) => "video",
        Kind::Archive => "archive",
    };
    let (size, duration_ms) = match upload {
        Upload::Image { size, .. } => (Some(size), None),
        Upload::Audio { duration_ms, .. } => (None, Some(duration_ms)),
        Upload::Video { size, duration_ms, .. } => (Some(size), Some(duration_ms)),
        Upload::Archive => (None, None),
    };
    Probed { kind, content_type: upload.kind().content_type(), size, duration_ms }
}

fn refusal(error: UploadError) -> ProbeError {
    let text = error.to_string();
    match (error.code(), error) {
        (_, UploadError::Unchecked(cause)) => ProbeError::Unchecked(cause),
        (Some("file.empty"), _) => ProbeError::Empty,
        (Some("file.unsupported_type"), _) => ProbeError::UnsupportedType(text),
        (Some("file.too_large"), _) => ProbeError::TooLarge(text),
        _ => ProbeError::Corrupt(text),
    }
}
