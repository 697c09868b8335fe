//! The package: a folder, or a zip of its contents. The only place that opens its files.
//!
//! A name inside a package is relative, uses `/`, and never leads out of it, neither by its spelling nor by
//! a symbolic link. Every read has a bound, so that a crafted package cannot fill the memory.

use std::{
    fs::File,
    io::{self, Read},
    path::{Component, Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use zip::{ZipArchive, result::ZipError};

use crate::RenderError;

/// An opened package.
#[derive(Debug)]
pub(crate) struct Package {
    files: Files,
    document: String,
}

#[derive(Debug)]
enum Files {
    /// The folder's real path, links resolved.
    Folder(PathBuf),
    Zip(Mutex<ZipArchive<File>>),
}

/// Why a file of the package could not be read; the caller knows what the file meant.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReadError {
    #[error("there is no such file in the package")]
    Absent,
    #[error("the path leads out of the package")]
    Unsafe,
    #[error("the file is larger than {0} MB")]
    TooLarge(u64),
    #[error("{0}")]
    Io(#[from] io::Error),
}

impl Package {
    /// Opens a package folder, a zip of one, or the path of a document inside a package folder.
    pub(crate) fn open(path: &Path) -> Result<Self, RenderError> {
        let failed = |source| RenderError::ProjectNotFound {
            message: format!("cannot open project {}", path.display()),
            source: Some(source),
        };
        let real = path.canonicalize().map_err(failed)?;
        if real.is_dir() {
            return Ok(Self { files: Files::Folder(real), document: "project.json".into() });
        }
        if is_zip(&real).map_err(failed)? {
            let archive = File::open(&real).map_err(failed)?;
            let archive = ZipArchive::new(archive)
                .map_err(|error| RenderError::BadProject(format!("{}: {error}", path.display())))?;
            return Ok(Self { files: Files::Zip(Mutex::new(archive)), document: "project.json".into() });
        }
        let document = real.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let folder = real.parent().unwrap_or(Path::new("/")).to_owned();
        Ok(Self { files: Files::Folder(folder), document })
    }

    /// The name of the Lottie document.
    pub(crate) fn document(&self) -> &str {
        &self.document
    }

    /// The bytes of file `name`, at most `limit_bytes` of them.
    pub(crate) fn read(&self, name: &str, limit_bytes: u64) -> Result<Vec<u8>, ReadError> {
        let name = inside(name)?;
        match &self.files {
            Files::Folder(folder) => {
                let path = folder.join(&name).canonicalize().map_err(absent)?;
                if !path.starts_with(folder) {
                    return Err(ReadError::Unsafe);
                }
                if !path.is_file() {
                    return Err(ReadError::Absent);
                }
                read_bounded(File::open(path).map_err(absent)?, limit_bytes)
            }
            Files::Zip(archive) => {
                let mut archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
                let file = archive.by_name(&name).map_err(|error| match error {
                    ZipError::FileNotFound => ReadError::Absent,
                    other => ReadError::Io(io::Error::other(other)),
                })?;
                read_bounded(file, limit_bytes)
            }
        }
    }

    /// The names of the files directly in `folder`, sorted; none when the folder is absent.
    pub(crate) fn list(&self, folder: &str) -> Result<Vec<String>, io::Error> {
        let mut names = match &self.files {
            Files::Folder(root) => match std::fs::read_dir(root.join(folder)) {
                Ok(entries) => entries
                    .map(|entry| Ok(format!("{folder}/{}", entry?.file_name().to_string_lossy())))
                    .collect::<Result<Vec<_>, io::Error>>()?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => vec![],
                Err(error) => return Err(error),
            },
            Files::Zip(archive) => {
                let archive = archive.lock().unwrap_or_else(PoisonError::into_inner);
                let prefix = format!("{folder}/");
                let inside =
                    |name: &&str| name.strip_prefix(&prefix).is_some_and(|n| !n.is_empty() && !n.contains('/'));
                archive.file_names().filter(inside).map(str::to_owned).collect()
            }
        };
        names.sort();
        Ok(names)
    }
}

/// The name in its plain spelling (`a/b`), if it stays inside.
fn inside(name: &str) -> Result<String, ReadError> {
    // A backslash or a drive letter is only a strange name here, but a way out on another system.
    if name.is_empty() || name.contains(['\\', ':', '\0']) {
        return Err(ReadError::Unsafe);
    }
    let mut parts = vec![];
    for part in Path::new(name).components() {
        match part {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::CurDir => {}
            _ => return Err(ReadError::Unsafe),
        }
    }
    Ok(parts.join("/"))
}

fn absent(error: io::Error) -> ReadError {
    match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => ReadError::Absent,
        _ => ReadError::Io(error),
    }
}

fn read_bounded(source: impl Read, limit_bytes: u64) -> Result<Vec<u8>, ReadError> {
    let mut bytes = vec![];
    source.take(limit_bytes + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit_bytes {
        return Err(ReadError::TooLarge(limit_bytes >> 20));
    }
    Ok(bytes)
}

fn is_zip(path: &Path) -> io::Result<bool> {
    let mut magic = [0; 4];
    match File::open(path)?.read_exact(&mut magic) {
        Ok(()) => Ok(magic == *b"PK\x03\x04"),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_never_leads_out_of_the_package() {
        for name in ["../a", "/etc/passwd", "a/../../b", "..\\a", "C:/a", ""] {
            assert!(matches!(inside(name), Err(ReadError::Unsafe)), "{name}");
        }
        assert_eq!(inside("./assets/logo.png").expect("inside"), "assets/logo.png");
    }

    #[cfg(unix)]
    #[test]
    fn a_link_that_leads_out_of_the_package_is_refused() {
        let (outside, folder) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        std::fs::write(outside.path().join("secret"), "x").unwrap();
        std::os::unix::fs::symlink(outside.path().join("secret"), folder.path().join("logo.png")).unwrap();
        let package = Package::open(folder.path()).unwrap();
        assert!(matches!(package.read("logo.png", 10), Err(ReadError::Unsafe)));
    }

    #[test]
    fn a_file_beyond_its_bound_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), [0; 11]).unwrap();
        let package = Package::open(folder.path()).unwrap();
        assert!(matches!(package.read("a", 10), Err(ReadError::TooLarge(_))));
    }
}
