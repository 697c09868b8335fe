//! Everything that can stop a render, and the stable code under which it is known outside.

use std::io;

/// Why a render stopped. Each variant has a code (see [`RenderError::code`]) that outlives its wording.
///
/// A *permanent* error comes from the package, the data or the request: the same render fails again on every
/// machine. The others are about this machine or this moment, and another attempt may pass.
#[derive(Debug, thiserror::Error)]
pub enum RenderError {
    /// `render.project_not_found` (permanent): nothing to open at the given path.
    #[error("{message}")]
    ProjectNotFound {
        /// What was looked for.
        message: String,
        /// What the file system said, if it was asked.
        #[source]
        source: Option<io::Error>,
    },
    /// `render.bad_project` (permanent): the document is broken, or beyond our limits.
    #[error("{0}")]
    BadProject(String),
    /// `render.bad_data` (permanent): `data.json` is broken, or a value in it makes no sense.
    #[error("{0}")]
    BadData(String),
    /// `render.unknown_field` (permanent): `data.json` names something that the project does not have.
    #[error("{0}")]
    UnknownField(String),
    /// `render.unsafe_path` (permanent): a name points out of the package.
    #[error("{0}")]
    UnsafePath(String),
    /// `render.missing_font` (permanent): the package does not bring a font that a text needs.
    #[error("{0}")]
    MissingFont(String),
    /// `render.missing_glyph` (permanent): no font of the package has a character of a text.
    #[error("{0}")]
    MissingGlyph(String),
    /// `render.missing_image` (permanent): a picture is named but is not in the package.
    #[error("{0}")]
    MissingImage(String),
    /// `render.unsupported_image` (permanent): a picture is not a PNG, JPEG or WebP that we can read.
    #[error("{0}")]
    UnsupportedImage(String),
    /// `render.comp_not_found` (permanent): no composition has the given name or number.
    #[error("{0}")]
    CompositionNotFound(String),
    /// `render.template_not_found` (permanent): no render settings or output module has the given name.
    #[error("{0}")]
    TemplateNotFound(String),
    /// `render.no_output` (permanent): no `-output`, or nothing that says what to render.
    #[error("{0}")]
    NoOutput(String),
    /// `render.frame_out_of_range` (permanent): a frame that the composition does not have.
    #[error("{0}")]
    FrameOutOfRange(String),
    /// `render.output_unwritable`: the output folder is absent or refuses our files.
    #[error("cannot write {path}")]
    OutputUnwritable {
        /// The file or folder.
        path: String,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// `render.disk_full`: no room for the next frame.
    #[error("no room left to write {path}")]
    DiskFull {
        /// The file that did not fit.
        path: String,
        /// What the file system said.
        #[source]
        source: io::Error,
    },
    /// `render.engine_failed`: the rasteriser refused what we prepared, or a thread of ours broke.
    #[error("{0}")]
    EngineFailed(String),
}

impl RenderError {
    /// The stable code, `render.…`: stored, matched and translated by others, so never renamed.
    pub fn code(&self) -> &'static str {
        match self {
            Self::ProjectNotFound { .. } => "render.project_not_found",
            Self::BadProject(_) => "render.bad_project",
            Self::BadData(_) => "render.bad_data",
            Self::UnknownField(_) => "render.unknown_field",
            Self::UnsafePath(_) => "render.unsafe_path",
            Self::MissingFont(_) => "render.missing_font",
            Self::MissingGlyph(_) => "render.missing_glyph",
            Self::MissingImage(_) => "render.missing_image",
            Self::UnsupportedImage(_) => "render.unsupported_image",
            Self::CompositionNotFound(_) => "render.comp_not_found",
            Self::TemplateNotFound(_) => "render.template_not_found",
            Self::NoOutput(_) => "render.no_output",
            Self::FrameOutOfRange(_) => "render.frame_out_of_range",
            Self::OutputUnwritable { .. } => "render.output_unwritable",
            Self::DiskFull { .. } => "render.disk_full",
            Self::EngineFailed(_) => "render.engine_failed",
        }
    }

    /// Whether the same render fails on every machine and at every attempt.
    pub fn is_permanent(&self) -> bool {
        !matches!(self, Self::OutputUnwritable { .. } | Self::DiskFull { .. } | Self::EngineFailed(_))
    }

    /// The message with its causes, on one line.
    pub fn one_line(&self) -> String {
        let mut line = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            line = format!("{line}: {error}");
            cause = error.source();
        }
        line.replace(['\r', '\n'], " ")
    }

    /// Sorts a failed write into the two things a caller can do about it.
    pub(crate) fn writing(path: &std::path::Path, source: io::Error) -> Self {
        let path = path.display().to_string();
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::DiskFull { path, source },
            _ => Self::OutputUnwritable { path, source },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_disk_is_told_from_a_closed_folder() {
        let path = std::path::Path::new("out/frame.png");
        let full = RenderError::writing(path, io::ErrorKind::StorageFull.into());
        let closed = RenderError::writing(path, io::ErrorKind::PermissionDenied.into());
        assert_eq!((full.code(), closed.code()), ("render.disk_full", "render.output_unwritable"));
        assert!(!full.is_permanent());
    }

    #[test]
    fn a_message_and_its_cause_share_one_line() {
        let error = RenderError::ProjectNotFound { message: "a".into(), source: Some(io::Error::other("b\nc")) };
        assert_eq!(error.one_line(), "a: b c");
    }
}
