//! Room on the disk.

use std::path::Path;

/// Bytes that may still be written below `folder`; none where the system does not tell.
#[cfg(unix)]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    let stat = nix::sys::statvfs::statvfs(folder).ok()?;
    #[allow(clippy::unnecessary_cast, reason = "the field's type differs by system")]
    Some(stat.blocks_available() as u64 * stat.fragment_size() as u64)
}

/// Bytes that may still be written below `folder`; none where the system does not tell.
#[cfg(not(unix))]
pub fn free_bytes(_folder: &Path) -> Option<u64> {
    None
}
