//! Which account of the system runs what, and which folders it can reach.
//!
//! PostgreSQL refuses to run as root. Started as root, the platform runs it as an account without rights.

use nix::unistd::{Gid, Uid, User, geteuid};
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Accounts tried in this order when the platform was started as root.
pub const UNPRIVILEGED: [&str; 3] = ["flatrender", "postgres", "nobody"];

/// An account of the system.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Its name.
    pub name: String,
    /// Its number.
    pub uid: u32,
    /// Its first group.
    pub gid: u32,
}

impl Account {
    /// The account of this process; none when its number has no name (some containers).
    pub fn me() -> Option<Self> {
        User::from_uid(geteuid()).ok().flatten().map(Self::from)
    }

    /// The account that runs servers which refuse root: the first of [`UNPRIVILEGED`] that exists.
    pub fn unprivileged() -> Option<Self> {
        UNPRIVILEGED.iter().find_map(|name| User::from_name(name).ok().flatten()).map(Self::from)
    }

    /// Whether this account may enter `dir` and every folder above it.
    pub fn can_reach(&self, dir: &Path) -> bool {
        dir.ancestors()
            .all(|a| a.as_os_str().is_empty() || std::fs::metadata(a).is_ok_and(|meta| self.can_enter(&meta)))
    }

    fn can_enter(&self, meta: &std::fs::Metadata) -> bool {
        let bit = match () {
            () if meta.uid() == self.uid => 0o100,
            () if meta.gid() == self.gid => 0o010,
            () => 0o001,
        };
        meta.is_dir() && meta.mode() & bit != 0
    }

    /// Gives `path` to this account.
    ///
    /// # Errors
    /// What the system says.
    pub fn own(&self, path: &Path) -> io::Result<()> {
        std::os::unix::fs::lchown(path, Some(self.uid), Some(self.gid))
    }
}

impl From<User> for Account {
    fn from(user: User) -> Self {
        let (uid, gid): (Uid, Gid) = (user.uid, user.gid);
        Self { name: user.name, uid: uid.as_raw(), gid: gid.as_raw() }
    }
}

/// Whether this process is root's.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Makes `dir` and what is missing above it, and gives the last folder `mode` if it had to be made.
///
/// # Errors
/// What the system says.
pub fn make_dir(dir: &Path, mode: u32) -> io::Result<()> {
    if dir.is_dir() {
        return Ok(());
    }
    if let Some(parent) = dir.parent() {
        std::fs::create_dir_all(parent)?;
    }
    match std::os::unix::fs::DirBuilderExt::mode(&mut std::fs::DirBuilder::new(), mode).create(dir) {
        Err(e) if e.kind() != io::ErrorKind::AlreadyExists => Err(e),
        // The mask of the process may have taken bits away.
        _ => std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_closed_folder_above_keeps_others_out() {
        let dir = tempfile::tempdir().unwrap();
        let inner = dir.path().join("a/b");
        make_dir(&inner, 0o755).unwrap();
        let stranger = Account { name: "stranger".into(), uid: 4_000_001, gid: 4_000_001 };
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o711)).unwrap();
        assert!(stranger.can_reach(&inner));
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        assert!(!stranger.can_reach(&inner));
    }
}
