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
#[cfg(windows)]
#[expect(unsafe_code, reason = "the system's own interface")]
pub fn free_bytes(folder: &Path) -> Option<u64> {
    use std::os::windows::ffi::OsStrExt;
    use windows_sys::Win32::Storage::FileSystem::GetDiskFreeSpaceExW;
    let path: Vec<u16> = folder.as_os_str().encode_wide().chain([0]).collect();
    let mut free = 0;
    // SAFETY: the path ends with a zero; `free` outlives the call, and the other two numbers are not asked for.
    let told = unsafe { GetDiskFreeSpaceExW(path.as_ptr(), &raw mut free, std::ptr::null_mut(), std::ptr::null_mut()) };
    (told != 0).then_some(free)
}
