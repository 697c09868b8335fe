//! The data folder of one platform: everything it keeps, and how the command line finds it.
//!
//! ```text
//! DIR/lock          held while a platform runs on this folder
//! DIR/server.json   where the running server is
//! DIR/api-key       a key of the default tenant, 0600
//! DIR/postgres/     the private PostgreSQL (see `postgres::place`)
//! DIR/storage/      files of the customers and the finished films, unless a bucket or another folder keeps them
//! DIR/private/      the key of the installation, and letters that no mail server takes
//! DIR/node/         what the platform's own render node keeps
//! ```

use super::account::{is_root, make_dir};
use serde::{Deserialize, Serialize};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

/// Why a data folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// No home to put it in.
    #[error("there is no home folder to keep data in: choose one with --data")]
    Homeless,
    /// It cannot be made or written.
    #[error("cannot use {path}: {source}", path = path.display())]
    Unusable {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// Another platform runs on it.
    #[error("flatrender already runs on {path}{at}: stop it first, or choose another folder with --data", path = path.display())]
    Busy {
        /// The folder.
        path: PathBuf,
        /// Its pid and address, in brackets, when known.
        at: String,
    },
}

/// Where the running server of a data folder is: `server.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerFile {
    /// Address of the API, without a slash at the end.
    pub url: String,
    /// The file that holds a key.
    pub api_key_file: PathBuf,
    /// The process that runs it.
    pub pid: i32,
}

/// A data folder, not necessarily in use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DataDir(PathBuf);

/// A data folder that is ours until this is dropped.
#[derive(Debug)]
pub struct HeldDataDir {
    dir: DataDir,
    _lock: File,
}

impl DataDir {
    /// The folder `chosen`, else this account's own: `$XDG_DATA_HOME/flatrender` or `~/.local/share/flatrender`,
    /// `~/Library/Application Support/FlatRender` on macOS, `/var/lib/flatrender` for root.
    ///
    /// # Errors
    /// [`DataDirError::Homeless`].
    pub fn choose(chosen: Option<&Path>) -> Result<Self, DataDirError> {
        let dir = match chosen {
            Some(dir) => dir.to_path_buf(),
            None => default_dir(is_root(), &|name| std::env::var_os(name).map(PathBuf::from))?,
        };
        std::path::absolute(&dir).map(Self).map_err(|source| DataDirError::Unusable { path: dir, source })
    }

    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the folder if it is missing.
    ///
    /// # Errors
    /// [`DataDirError::Unusable`].
    pub fn make(&self) -> Result<(), DataDirError> {
        // Root's must let the database's account through; what is secret in it has a mode of its own.
        let mode = if is_root() { 0o711 } else { 0o700 };
        make_dir(&self.0, mode).map_err(|e| self.unusable(&self.0, e))
    }

    /// Makes the folder if it is missing, and takes it for this process.
    ///
    /// # Errors
    /// [`DataDirError::Busy`] when a platform runs on it.
    pub fn hold(self) -> Result<HeldDataDir, DataDirError> {
        self.make()?;
        let path = self.0.join("lock");
        let open = File::options().create(true).truncate(false).write(true).mode(0o600).open(&path);
        let lock = open.map_err(|e| self.unusable(&path, e))?;
        match lock.try_lock() {
            Ok(()) => Ok(HeldDataDir { dir: self, _lock: lock }),
            Err(TryLockError::WouldBlock) => {
                let at = self.server().map(|s| format!(" ({}, pid {})", s.url, s.pid));
                Err(DataDirError::Busy { path: self.0, at: at.unwrap_or_default() })
            }
            Err(TryLockError::Error(e)) => Err(self.unusable(&path, e)),
        }
    }

    /// Where the server that runs on this folder is; none when there is none, or it was killed.
    pub fn server(&self) -> Option<ServerFile> {
        let text = fs::read(self.0.join("server.json")).ok()?;
        let server: ServerFile = serde_json::from_slice(&text).ok()?;
        super::process::is_alive(server.pid).then_some(server)
    }

    /// The file that holds a key of the default tenant.
    pub fn api_key_file(&self) -> PathBuf {
        self.0.join("api-key")
    }

    fn unusable(&self, path: &Path, source: io::Error) -> DataDirError {
        DataDirError::Unusable { path: path.to_path_buf(), source }
    }
}

impl HeldDataDir {
    /// The folder itself.
    pub fn path(&self) -> &Path {
        &self.dir.0
    }

    /// The key kept in this folder, if there is one.
    pub fn api_key(&self) -> Option<String> {
        let text = fs::read_to_string(self.dir.api_key_file()).ok()?;
        Some(text.trim().to_owned()).filter(|key| !key.is_empty())
    }

    /// Keeps a key for the command line, readable by this account alone.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn keep_api_key(&self, key: &str) -> Result<(), DataDirError> {
        self.replace("api-key", format!("{key}\n").as_bytes(), 0o600)
    }

    /// Says where the server is.
    ///
    /// # Errors
    /// The file cannot be written.
    pub fn announce(&self, url: &str) -> Result<(), DataDirError> {
        let pid = std::process::id() as i32;
        let server = ServerFile { url: url.to_owned(), api_key_file: self.dir.api_key_file(), pid };
        let text = serde_json::to_vec_pretty(&server).unwrap_or_default();
        self.replace("server.json", &text, 0o644)
    }

    /// Takes the announcement back. There may be none.
    pub fn withdraw(&self) {
        let _ = fs::remove_file(self.dir.0.join("server.json"));
    }

    /// A folder in this one, for this account alone.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf, DataDirError> {
        let path = self.dir.0.join(name);
        make_dir(&path, 0o700).map_err(|e| self.dir.unusable(&path, e))?;
        Ok(path)
    }

    /// A reader sees the old text or the new one, never a part.
    fn replace(&self, name: &str, text: &[u8], mode: u32) -> Result<(), DataDirError> {
        let (path, fresh) = (self.dir.0.join(name), self.dir.0.join(format!("{name}.new")));
        let _ = fs::remove_file(&fresh);
        let write = || {
            let mut file = File::options().create_new(true).write(true).mode(mode).open(&fresh)?;
            file.write_all(text)?;
            file.sync_all()?;
            fs::rename(&fresh, &path)
        };
        write().map_err(|e| self.dir.unusable(&path, e))
    }
}

fn default_dir(root: bool, var: &dyn Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, DataDirError> {
    if root {
        return Ok("/var/lib/flatrender".into());
    }
    let home = var("HOME").filter(|h| h.is_absolute());
    if cfg!(target_os = "macos") {
        return home.map(|h| h.join("Library/Application Support/FlatRender")).ok_or(DataDirError::Homeless);
    }
    let data = var("XDG_DATA_HOME").filter(|d| d.is_absolute()).or_else(|| Some(home?.join(".local/share")));
    data.map(|d| d.join("flatrender")).ok_or(DataDirError::Homeless)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_os = "linux")]
    fn each_account_has_a_folder_of_its_own() {
        let vars = |name: &str| match name {
            "HOME" => Some("/home/sara".into()),
            _ => None,
        };
        assert_eq!(default_dir(false, &vars).unwrap(), Path::new("/home/sara/.local/share/flatrender"));
        assert_eq!(default_dir(true, &vars).unwrap(), Path::new("/var/lib/flatrender"));
        assert!(matches!(default_dir(false, &|_| None), Err(DataDirError::Homeless)));
    }

    #[test]
    fn a_folder_is_held_once_and_says_by_whom() {
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::choose(Some(dir.path())).unwrap().hold().unwrap();
        held.announce("http://127.0.0.1:8787").unwrap();
        let line = DataDir::choose(Some(dir.path())).unwrap().hold().unwrap_err().to_string();
        assert!(line.contains("already runs") && line.contains("http://127.0.0.1:8787, pid"), "{line}");
        drop(held);
        DataDir::choose(Some(dir.path())).unwrap().hold().unwrap();
    }

    #[test]
    fn the_key_is_for_its_owner_alone() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().unwrap();
        let held = DataDir::choose(Some(dir.path())).unwrap().hold().unwrap();
        assert_eq!(held.api_key(), None);
        held.keep_api_key("fr_live_x").unwrap();
        held.keep_api_key("fr_live_y").unwrap();
        assert_eq!(held.api_key().as_deref(), Some("fr_live_y"));
        assert_eq!(fs::metadata(dir.path().join("api-key")).unwrap().mode() & 0o777, 0o600);
    }
}
