//! One file out of a package. Its name only finds it; where it goes is ours to say.

use std::{
    fs::File,
    io::{self, BufReader, Read},
    path::Path,
};
use zip::{ZipArchive, result::ZipError};

/// The longest sound in a package.
const LIMIT_BYTES: u64 = 512 * 1024 * 1024;

/// Why a file did not come out.
#[derive(Debug, thiserror::Error)]
pub(super) enum MemberError {
    /// No such file in the package.
    #[error("is not in its package")]
    Absent,
    /// The package or the file in it is damaged, locked, or no plain file.
    #[error("cannot be taken out of its package")]
    Unreadable,
    /// Longer than announced or allowed.
    #[error("is too long")]
    TooLong,
    /// This machine's disk.
    #[error("cannot be written")]
    Disk(#[source] io::Error),
}

/// Copies the file `member` of the package at `package` to `target`. Its checksum is verified on the way.
pub(super) fn extract(package: &Path, member: &str, target: &Path) -> Result<(), MemberError> {
    let file = File::open(package).map_err(MemberError::Disk)?;
    let mut archive = ZipArchive::new(BufReader::new(file)).map_err(|_| MemberError::Unreadable)?;
    let entry = archive.by_name(member).map_err(|error| match error {
        ZipError::FileNotFound => MemberError::Absent,
        _ => MemberError::Unreadable,
    })?;
    if !entry.is_file() || entry.encrypted() {
        return Err(MemberError::Unreadable);
    }
    copy(entry, target)
}

/// What the package announces is not believed: the bytes are counted.
fn copy(entry: impl Read, target: &Path) -> Result<(), MemberError> {
    let mut limited = Judged(entry.take(LIMIT_BYTES + 1), false);
    let mut file = File::create(target).map_err(MemberError::Disk)?;
    match io::copy(&mut limited, &mut file) {
        Ok(length) if length > LIMIT_BYTES => Err(MemberError::TooLong),
        Ok(_) => Ok(()),
        Err(_) if limited.1 => Err(MemberError::Unreadable),
        Err(error) => Err(MemberError::Disk(error)),
    }
}

/// Remembers that reading failed, to tell it from writing.
struct Judged<R>(R, bool);

impl<R: Read> Read for Judged<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).inspect_err(|_| self.1 = true)
    }
}
