//! Uploads, looked at by the media tools.

use crate::file_mgr::{
    probe::{MediaProbe, ProbeError, Probed},
    upload::LIMIT_BYTES,
};
use flatrender_activities::media::upload::{Upload, UploadError, UploadInspector, UploadLimits};
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
    Probed {
        kind: upload.class(),
        content_type: upload.kind().content_type(),
        size: upload.size(),
        duration_ms: upload.duration_ms(),
    }
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
