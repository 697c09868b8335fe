//! The sample templates: part of the program, or a folder of packages chosen with `--templates`.

use flatrender_workflows::contracts::template::{Manifest, ManifestError};
use rust_embed::Embed;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Cursor, Write as _};
use std::path::{Path, PathBuf};

/// Our own templates, as they are in `templates/`; how they were made stays there.
#[derive(Embed)]
#[folder = "../templates"]
#[exclude = "make/*"]
#[exclude = "*/__pycache__/*"]
#[exclude = "*.md"]
struct Bundled;

/// Why a package cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum PackageError {
    /// A file cannot be read or written.
    #[error("cannot use {path}: {source}", path = path.display())]
    File {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The folder is no package.
    #[error("template {name}: {file} is missing")]
    Missing {
        /// Name of its folder.
        name: String,
        /// The file.
        file: String,
    },
    /// Its manifest is wrong.
    #[error("template {name}: {source}")]
    Manifest {
        /// Name of its folder.
        name: String,
        /// What is wrong.
        source: ManifestError,
    },
    /// It cannot be packed.
    #[error("cannot pack template {0}")]
    Pack(String, #[source] zip::result::ZipError),
}

/// A template package in memory.
#[derive(Debug, Clone)]
pub struct Package {
    /// What customers may fill in.
    pub manifest: Manifest,
    /// Every file by its path in the package.
    pub files: BTreeMap<String, Vec<u8>>,
}

impl Package {
    /// Reads a package from its files, and checks that everything its manifest names is there.
    ///
    /// # Errors
    /// [`PackageError::Missing`] or [`PackageError::Manifest`].
    pub fn new(name: &str, files: BTreeMap<String, Vec<u8>>) -> Result<Self, PackageError> {
        let missing = |file: &str| PackageError::Missing { name: name.into(), file: file.into() };
        let text = files.get("template.json").ok_or_else(|| missing("template.json"))?;
        let manifest = Manifest::parse(text).map_err(|source| PackageError::Manifest { name: name.into(), source })?;
        let needed = manifest.files().chain(["project.json"]).find(|file| !files.contains_key(*file));
        match needed.map(missing) {
            Some(error) => Err(error),
            None => Ok(Self { manifest, files }),
        }
    }

    /// The package as one zip. The same files give the same bytes, so importing it again makes no new version.
    ///
    /// # Errors
    /// [`PackageError::Pack`].
    pub fn zip(&self) -> Result<Vec<u8>, PackageError> {
        let mut zip = zip::ZipWriter::new(Cursor::new(Vec::new()));
        let options = zip::write::SimpleFileOptions::default()
            .last_modified_time(zip::DateTime::default())
            .compression_method(zip::CompressionMethod::Deflated)
            .unix_permissions(0o644);
        let mut pack = || {
            for (path, bytes) in &self.files {
                zip.start_file(path.as_str(), options)?;
                zip.write_all(bytes)?;
            }
            Ok(())
        };
        let packed = pack().and_then(|()| zip.finish());
        packed.map(Cursor::into_inner).map_err(|e| PackageError::Pack(self.manifest.slug.clone(), e))
    }

    /// A picture of it, PNG, if it brings one.
    pub fn preview(&self) -> Option<&[u8]> {
        self.files.get("preview.png").map(Vec::as_slice)
    }

    /// Writes the package into the folder `dir`.
    ///
    /// # Errors
    /// [`PackageError::File`].
    pub fn unpack(&self, dir: &Path) -> Result<(), PackageError> {
        for (name, bytes) in &self.files {
            let path = dir.join(name);
            let parent = path.parent().unwrap_or(dir);
            let write = std::fs::create_dir_all(parent).and_then(|()| std::fs::write(&path, bytes));
            write.map_err(|source| PackageError::File { path, source })?;
        }
        Ok(())
    }
}

/// The packages in the folder `dir`, a folder each; ours when there is none.
///
/// # Errors
/// A package is incomplete.
pub fn packages(dir: Option<&Path>) -> Result<Vec<Package>, PackageError> {
    match dir {
        Some(dir) => from_folder(dir),
        None => bundled(),
    }
}

fn bundled() -> Result<Vec<Package>, PackageError> {
    let paths: Vec<String> = Bundled::iter().map(|path| path.replace('\\', "/")).collect();
    let names: BTreeSet<&str> = paths.iter().filter_map(|path| Some(path.split_once('/')?.0)).collect();
    let package = |name: &str| {
        let inside = |path: &String| {
            Some((path.strip_prefix(name)?.strip_prefix('/')?.to_owned(), Bundled::get(path)?.data.into_owned()))
        };
        Package::new(name, paths.iter().filter_map(inside).collect())
    };
    names.into_iter().map(package).collect()
}

fn from_folder(dir: &Path) -> Result<Vec<Package>, PackageError> {
    let fail = |path: &Path, source| PackageError::File { path: path.to_path_buf(), source };
    let entries = std::fs::read_dir(dir).map_err(|e| fail(dir, e))?;
    let mut folders: Vec<PathBuf> = entries.flatten().map(|e| e.path()).collect();
    folders.retain(|folder| folder.join("template.json").is_file());
    folders.sort();
    let package = |folder: &PathBuf| {
        let mut files = BTreeMap::new();
        read_tree(folder, "", &mut files).map_err(|e| fail(folder, e))?;
        Package::new(&folder.file_name().unwrap_or_default().to_string_lossy(), files)
    };
    folders.iter().map(package).collect()
}

fn read_tree(dir: &Path, prefix: &str, files: &mut BTreeMap<String, Vec<u8>>) -> io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let (entry, name) = entry.map(|e| (e.path(), e.file_name().to_string_lossy().into_owned()))?;
        if name.starts_with('.') || name == "__pycache__" {
            continue;
        }
        match entry.is_dir() {
            true => read_tree(&entry, &format!("{prefix}{name}/"), files)?,
            false => _ = files.insert(format!("{prefix}{name}"), std::fs::read(&entry)?),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn our_templates_are_whole_and_pack_the_same_twice() {
        let packages = packages(None).unwrap();
        let slugs: Vec<&str> = packages.iter().map(|p| p.manifest.slug.as_str()).collect();
        assert_eq!(slugs, ["lower-third", "promo", "story"]);
        let promo = &packages[1];
        assert_eq!(promo.zip().unwrap(), promo.zip().unwrap());
        assert!(promo.preview().is_some() && !promo.files.keys().any(|f| f.ends_with(".py")));
    }

    #[test]
    fn a_folder_of_packages_is_read_as_the_bundled_ones_are() {
        let dir = tempfile::tempdir().unwrap();
        let promo = packages(None).unwrap().remove(1);
        promo.unpack(&dir.path().join("promo")).unwrap();
        let read = packages(Some(dir.path())).unwrap();
        assert_eq!(read.len(), 1);
        assert_eq!(read[0].files, promo.files);
    }

    #[test]
    fn a_missing_file_is_named() {
        let mut files = packages(None).unwrap().remove(1).files;
        files.remove("audio/music.m4a");
        let line = Package::new("promo", files).unwrap_err().to_string();
        assert_eq!(line, "template promo: audio/music.m4a is missing");
    }
}
