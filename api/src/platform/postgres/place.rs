//! Where a private cluster keeps its files, so that the account that runs it can reach them.
//!
//! ```text
//! DIR/postgres            0711, ours; a link to /var/lib/flatrender/clusters/<hash> when DIR is closed to the account
//!   data/                 0700, the account's: the cluster itself
//!   run/                  0700, the account's: the socket (or /tmp/flatrender-<hash>, when its path gets too long)
//!   pg_hba.conf …         who may connect
//!   postgres.log          what the server says
//! ```

use super::PostgresError;
use crate::platform::account::{Account, make_dir};
use sha2::{Digest as _, Sha256};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Where clusters live whose folder is closed to the account that runs them.
const SHARED_ROOT: &str = "/var/lib/flatrender";
/// Systems allow 104 to 108 bytes for the path of a socket.
const MOST_SOCKET_BYTES: usize = 100;
/// Name of the socket in its folder. The number is only a name: no port is opened.
pub const SOCKET: &str = ".s.PGSQL.5432";

/// The folders of one private cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Holds everything else.
    pub home: PathBuf,
    /// The cluster.
    pub data: PathBuf,
    /// The socket's folder.
    pub socket_dir: PathBuf,
}

impl Place {
    /// Makes the folders for the cluster of `dir`, which exists, for `runner` (none: the account of this process).
    ///
    /// # Errors
    /// A folder cannot be made, or belongs to somebody else.
    pub fn prepare(dir: &Path, runner: Option<&Account>) -> Result<Self, PostgresError> {
        let dir = std::fs::canonicalize(dir).map_err(|e| PostgresError::folder(dir, e))?;
        let home = prepare_home(&dir, runner)?;
        let place = Self { data: home.join("data"), socket_dir: socket_dir(&home), home };
        place.refuse_strangers(runner)?;
        make_private(&place.socket_dir, runner)?;
        Ok(place)
    }

    /// The folders of a cluster that `dir` already has; makes nothing.
    pub fn existing(dir: &Path) -> Option<Self> {
        let home = std::fs::canonicalize(dir.join("postgres")).ok()?;
        Some(Self { data: home.join("data"), socket_dir: socket_dir(&home), home })
    }

    /// The socket.
    pub fn socket(&self) -> PathBuf {
        self.socket_dir.join(SOCKET)
    }

    /// Takes the socket's folder away when it is in `/tmp`; the server has ended.
    pub fn tidy(&self) {
        if !self.socket_dir.starts_with(&self.home) {
            let _ = std::fs::remove_dir(&self.socket_dir);
        }
    }

    /// A cluster made by another account stays with that account.
    fn refuse_strangers(&self, runner: Option<&Account>) -> Result<(), PostgresError> {
        let mine = runner.map_or_else(|| nix::unistd::geteuid().as_raw(), |r| r.uid);
        match std::fs::metadata(&self.data) {
            Ok(meta) if meta.uid() != mine => Err(PostgresError::NotOurs { path: self.data.clone(), uid: meta.uid() }),
            _ => Ok(()),
        }
    }
}

/// The folder below `dir`, or a link there to one the runner can reach.
fn prepare_home(dir: &Path, runner: Option<&Account>) -> Result<PathBuf, PostgresError> {
    let home = dir.join("postgres");
    let linked = std::fs::symlink_metadata(&home).is_ok_and(|meta| meta.is_symlink());
    match runner {
        Some(account) if linked || !account.can_reach(dir) => link_home(dir, &home, account),
        _ => {
            make_dir(&home, 0o711).map_err(|e| PostgresError::folder(&home, e))?;
            Ok(home)
        }
    }
}

fn link_home(dir: &Path, link: &Path, account: &Account) -> Result<PathBuf, PostgresError> {
    if link.is_dir() && !link.is_symlink() {
        return Err(PostgresError::Closed { path: dir.to_path_buf(), account: account.name.clone() });
    }
    let home = std::fs::read_link(link).unwrap_or_else(|_| Path::new(SHARED_ROOT).join("clusters").join(hash(dir)));
    for folder in [Path::new(SHARED_ROOT), home.parent().unwrap_or(&home), &home] {
        make_dir(folder, 0o711).map_err(|e| PostgresError::folder(folder, e))?;
    }
    if !link.is_symlink() {
        std::os::unix::fs::symlink(&home, link).map_err(|e| PostgresError::folder(link, e))?;
    }
    Ok(home)
}

/// `home/run`, or a short folder when the path of a socket there would be too long for the system.
fn socket_dir(home: &Path) -> PathBuf {
    let dir = home.join("run");
    let bytes = dir.as_os_str().len() + 1 + SOCKET.len();
    if bytes <= MOST_SOCKET_BYTES { dir } else { Path::new("/tmp").join(format!("flatrender-{}", hash(home))) }
}

/// A folder for the runner alone. One that somebody else made first, in `/tmp` say, is refused.
pub fn make_private(dir: &Path, runner: Option<&Account>) -> Result<(), PostgresError> {
    let fail = |e| PostgresError::folder(dir, e);
    make_dir(dir, 0o700).map_err(fail)?;
    let me = nix::unistd::geteuid().as_raw();
    let meta = std::fs::symlink_metadata(dir).map_err(fail)?;
    let theirs = runner.map_or(me, |r| r.uid);
    if !meta.is_dir() || (meta.uid() != me && meta.uid() != theirs) || meta.mode() & 0o077 != 0 {
        return Err(PostgresError::NotOurs { path: dir.to_path_buf(), uid: meta.uid() });
    }
    runner.map_or(Ok(()), |r| r.own(dir)).map_err(fail)
}

/// Sixteen hexadecimal digits that tell one folder from another.
fn hash(path: &Path) -> String {
    hex::encode(&Sha256::digest(path.as_os_str().as_bytes())[..8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_path_gets_a_short_socket() {
        assert_eq!(socket_dir(Path::new("/srv/fr/postgres")), Path::new("/srv/fr/postgres/run"));
        let long = PathBuf::from(format!("/srv/{}/postgres", "x".repeat(90)));
        let short = socket_dir(&long).join(SOCKET);
        assert!(short.as_os_str().len() <= MOST_SOCKET_BYTES);
        assert_eq!(socket_dir(&long), socket_dir(&long), "the next start finds the same socket");
        assert_ne!(socket_dir(&long), socket_dir(&long.join("y")));
    }

    #[test]
    fn a_socket_folder_others_can_open_is_refused() {
        use std::os::unix::fs::PermissionsExt;
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        make_private(&run, None).unwrap();
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o777)).unwrap();
        assert!(matches!(make_private(&run, None), Err(PostgresError::NotOurs { .. })));
    }
}
