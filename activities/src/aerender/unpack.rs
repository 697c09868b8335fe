//! Unpacking a package that strangers made: nothing outside its folder, nothing but files, and not too much.
//!
//! Before anything is written the package as a whole is looked at: see [`archive`].

use crate::archive::{self, ArchiveError, Budget};
use std::{
    fs, io,
    io::{Read, Write},
    path::{Component, Path, PathBuf},
};
use zip::ZipArchive;

/// How much a package may hold.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Files and folders.
    pub entries: usize,
    /// All files together, unpacked.
    pub bytes: u64,
}

impl Default for Bounds {
    fn default() -> Self {
        Self { entries: 10_000, bytes: 8 << 30 }
    }
}

/// Why a package was not unpacked.
#[derive(Debug, thiserror::Error)]
pub enum UnpackError {
    /// It is not a zip, or a broken one.
    #[error("the package is not a sound zip")]
    Broken(#[source] zip::result::ZipError),
    /// An entry would leave the folder, or is no plain file or folder.
    #[error("entry {0:?} of the package is not allowed")]
    Forbidden(String),
    /// It holds more than it may.
    #[error("the package holds more than it may")]
    TooMuch,
    /// The file system of this machine did not do it.
    #[error("the package cannot be unpacked here")]
    Io(#[source] io::Error),
}

impl From<ArchiveError> for UnpackError {
    fn from(error: ArchiveError) -> Self {
        match error {
            ArchiveError::Broken(why) => Self::Broken(zip::result::ZipError::InvalidArchive(why.into())),
            ArchiveError::Forbidden(entry) => Self::Forbidden(entry),
            ArchiveError::TooMuch(_) => Self::TooMuch,
            ArchiveError::Io(error) => Self::Io(error),
        }
    }
}

/// Bytes of all files of `zip`, unpacked, as it says itself. Nothing is unpacked for it.
///
/// # Errors
/// As [`unpack`].
pub fn measure(zip: &Path, bounds: Bounds) -> Result<u64, UnpackError> {
    let entries = archive::check(zip, budget(bounds))?;
    Ok(entries.iter().map(|entry| entry.size_bytes).sum())
}

fn budget(bounds: Bounds) -> Budget {
    Budget { entries: bounds.entries, bytes: bounds.bytes, ..Budget::default() }
}

/// Unpacks `zip` into `folder`, which must be empty. On an error the folder holds a part.
///
/// # Errors
/// As [`UnpackError`] says. Sizes are measured, not believed.
pub fn unpack(zip: &Path, folder: &Path, bounds: Bounds) -> Result<(), UnpackError> {
    archive::check(zip, budget(bounds))?;
    let file = fs::File::open(zip).map_err(UnpackError::Io)?;
    let mut archive = ZipArchive::new(io::BufReader::new(file)).map_err(UnpackError::Broken)?;
    if archive.len() > bounds.entries {
        return Err(UnpackError::TooMuch);
    }
    let mut left = bounds.bytes;
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).map_err(UnpackError::Broken)?;
        let path = allowed(entry.name(), entry.is_symlink(), entry.unix_mode())
            .ok_or_else(|| UnpackError::Forbidden(entry.name().chars().take(200).collect()))?;
        let path = folder.join(path);
        if entry.is_dir() {
            fs::create_dir_all(&path).map_err(UnpackError::Io)?;
        } else {
            left -= write(&mut entry, &path, left)?;
        }
    }
    Ok(())
}

/// The entry's path below the folder; none when it is not plainly inside, or not a file or folder.
fn allowed(name: &str, is_symlink: bool, mode: Option<u32>) -> Option<PathBuf> {
    const KIND: u32 = 0o170_000;
    let plain_kind = !is_symlink && mode.is_none_or(|m| matches!(m & KIND, 0 | 0o100_000 | 0o040_000));
    let path = Path::new(name);
    let plain_name = !name.is_empty() && name.len() <= 1024 && !name.contains(['\\', ':', '\0']);
    let inside = path.components().all(|c| matches!(c, Component::Normal(_)));
    (plain_kind && plain_name && inside).then(|| path.to_owned())
}

/// Writes one file of at most `left` bytes. How long it was.
fn write(entry: &mut impl Read, path: &Path, left: u64) -> Result<u64, UnpackError> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(UnpackError::Io)?;
    }
    // Two entries of one name are two opinions about one file.
    let mut file = fs::File::create_new(path).map_err(|error| match error.kind() {
        io::ErrorKind::AlreadyExists => UnpackError::Forbidden(path.display().to_string()),
        _ => UnpackError::Io(error),
    })?;
    let mut buffer = vec![0; 64 * 1024];
    let mut written = 0;
    loop {
        let read = entry.read(&mut buffer).map_err(|e| UnpackError::Broken(e.into()))?;
        if read == 0 {
            return Ok(written);
        }
        written += read as u64;
        if written > left {
            return Err(UnpackError::TooMuch);
        }
        file.write_all(&buffer[..read]).map_err(UnpackError::Io)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zip::{ZipWriter, write::SimpleFileOptions};

    const SMALL: Bounds = Bounds { entries: 4, bytes: 1000 };

    fn unpacked(fill: impl FnOnce(&mut ZipWriter<fs::File>)) -> Result<tempfile::TempDir, UnpackError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("package.zip");
        let mut writer = ZipWriter::new(fs::File::create(&path).unwrap());
        fill(&mut writer);
        writer.finish().unwrap();
        let target = folder.path().join("target");
        fs::create_dir(&target).unwrap();
        unpack(&path, &target, SMALL).map(|()| folder)
    }

    fn add(writer: &mut ZipWriter<fs::File>, name: &str, bytes: &[u8]) {
        writer.start_file(name, SimpleFileOptions::default()).unwrap();
        writer.write_all(bytes).unwrap();
    }

    #[test]
    fn a_plain_package_is_unpacked() {
        let folder = unpacked(|w| {
            w.add_directory("images", SimpleFileOptions::default()).unwrap();
            add(w, "project.json", b"{}");
            add(w, "fonts/a/b.ttf", b"ttf");
        });
        let target = folder.as_ref().unwrap().path().join("target");
        assert_eq!(fs::read(target.join("fonts/a/b.ttf")).unwrap(), b"ttf");
        assert!(target.join("images").is_dir());
    }

    #[test]
    fn nothing_leaves_the_folder() {
        for name in ["../evil", "a/../../evil", "/etc/evil", "a\\..\\evil", "C:evil"] {
            let refused = unpacked(|w| add(w, name, b"x"));
            assert!(matches!(refused, Err(UnpackError::Forbidden(_))), "{name}");
        }
    }

    #[test]
    fn a_link_is_not_unpacked() {
        let refused = unpacked(|w| w.add_symlink("link", "/etc/passwd", SimpleFileOptions::default()).unwrap());
        assert!(matches!(refused, Err(UnpackError::Forbidden(_))));
    }

    #[test]
    fn a_package_that_swells_is_stopped() {
        assert!(matches!(unpacked(|w| add(w, "bomb", &[0; 1001])), Err(UnpackError::TooMuch)));
        let two = unpacked(|w| {
            add(w, "a", &[0; 600]);
            add(w, "b", &[0; 600]);
        });
        assert!(matches!(two, Err(UnpackError::TooMuch)));
        let many = unpacked(|w| (0..5).for_each(|n| add(w, &format!("{n}"), b"")));
        assert!(matches!(many, Err(UnpackError::TooMuch)));
    }

    #[test]
    fn what_is_no_zip_is_named_so() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("x"), b"<html>not found</html>").unwrap();
        let refused = unpack(&folder.path().join("x"), folder.path(), SMALL);
        assert!(matches!(refused, Err(UnpackError::Broken(_))));
    }
}
