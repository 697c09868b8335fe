//! Finding the PostgreSQL server programs installed on this machine.

use std::cmp::Reverse;
use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::PostgresError;
use crate::platform::account::Account;

/// Oldest major version the platform runs on.
pub const OLDEST: u32 = 15;
/// Newest major version looked for in versioned folders.
const NEWEST: u32 = 21;
/// Names the folder of the programs to use, ahead of every other place.
pub const BIN_VAR: &str = "FLATRENDER_PG_BIN";

/// The server programs of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Programs {
    /// Folder of `postgres` and `initdb`.
    pub bin: PathBuf,
    /// Major version, such as 15.
    pub major: u32,
}

impl Programs {
    /// The newest installation `runner` can use: the folder in `FLATRENDER_PG_BIN`, else what packages install,
    /// else `PATH`. `runner` is the account that will run it when that is not the one of this process.
    ///
    /// # Errors
    /// [`PostgresError::NotInstalled`], naming what was found and why it does not do, and how to install it.
    pub fn discover(runner: Option<&Account>) -> Result<Self, PostgresError> {
        Self::among(places(), runner)
    }

    fn among(places: Vec<PathBuf>, runner: Option<&Account>) -> Result<Self, PostgresError> {
        let mut found = Vec::new();
        for place in places {
            match Self::at(&place) {
                Some(closed) if runner.is_some_and(|r| !r.can_reach(&closed.bin)) => {
                    found.push(format!("{}, closed to other accounts", closed.bin.display()));
                }
                Some(programs) if programs.major >= OLDEST => return Ok(programs),
                Some(old) => found.push(format!("version {} in {}", old.major, old.bin.display())),
                None => {}
            }
        }
        found.dedup();
        let found = if found.is_empty() { String::new() } else { format!(" (found only {})", found.join(", ")) };
        Err(PostgresError::NotInstalled { found, install: install_command() })
    }

    fn at(dir: &Path) -> Option<Self> {
        if !dir.join("initdb").is_file() {
            return None;
        }
        // A link in a folder of links: the real folder holds the rest of the installation.
        let bin = std::fs::canonicalize(dir.join("postgres")).ok()?.parent()?.to_path_buf();
        let out = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
        let major = parse_major(&String::from_utf8_lossy(&out.stdout))?;
        Some(Self { bin, major })
    }
}

/// `postgres (PostgreSQL) 17.2 (Debian 17.2-1)` → 17, `postgres (PostgreSQL) 18beta1` → 18.
fn parse_major(text: &str) -> Option<u32> {
    let version = text.split_once("(PostgreSQL)")?.1.trim_start();
    let digits = version.find(|c: char| !c.is_ascii_digit()).unwrap_or(version.len());
    version[..digits].parse().ok()
}

/// Every folder that may hold the programs, best first.
fn places() -> Vec<PathBuf> {
    let mut places: Vec<PathBuf> = env::var_os(BIN_VAR).into_iter().map(PathBuf::from).collect();
    for root in ["/usr/lib/postgresql", "/usr/local/lib/postgresql"] {
        places.extend(versioned(Path::new(root)));
    }
    for major in (OLDEST..=NEWEST).rev() {
        places.push(format!("/opt/homebrew/opt/postgresql@{major}/bin").into());
        places.push(format!("/usr/local/opt/postgresql@{major}/bin").into());
        places.push(format!("/home/linuxbrew/.linuxbrew/opt/postgresql@{major}/bin").into());
        places.push(format!("/Applications/Postgres.app/Contents/Versions/{major}/bin").into());
        places.push(format!("/usr/pgsql-{major}/bin").into());
    }
    places.extend(env::var_os("PATH").iter().flat_map(env::split_paths));
    places
}

/// `root/17/bin`, `root/15/bin`: newest first.
fn versioned(root: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root).into_iter().flatten().flatten();
    let mut versions: Vec<(u32, PathBuf)> =
        entries.filter_map(|e| Some((e.file_name().to_str()?.parse().ok()?, e.path().join("bin")))).collect();
    versions.sort_by_key(|(major, _)| Reverse(*major));
    versions.into_iter().map(|(_, bin)| bin).collect()
}

/// The one command that installs PostgreSQL here.
pub fn install_command() -> &'static str {
    if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else if Path::new("/usr/bin/dnf").exists() {
        "sudo dnf install postgresql-server"
    } else if Path::new("/usr/bin/apk").exists() {
        "apk add postgresql"
    } else {
        "sudo apt install postgresql"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn install(dir: &Path, version: &str) -> PathBuf {
        let bin = dir.join(version).join("bin");
        std::fs::create_dir_all(&bin).unwrap();
        for name in ["postgres", "initdb"] {
            std::fs::write(bin.join(name), format!("#!/bin/sh\necho 'postgres (PostgreSQL) {version}'\n")).unwrap();
            std::fs::set_permissions(bin.join(name), std::fs::Permissions::from_mode(0o755)).unwrap();
        }
        bin
    }

    #[test]
    fn versions_are_read() {
        assert_eq!(parse_major("postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"), Some(15));
        assert_eq!(parse_major("postgres (PostgreSQL) 19beta2"), Some(19));
        assert_eq!(parse_major("sh: not found"), None);
    }

    #[test]
    fn an_old_one_is_passed_over_and_named_when_there_is_no_other() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (install(dir.path(), "13.4"), install(dir.path(), "16.1"));
        let chosen = Programs::among(vec![old.clone(), new], None).unwrap();
        assert_eq!(chosen.major, 16);
        let line = Programs::among(vec![old], None).unwrap_err().to_string();
        assert!(line.contains("version 13") && line.contains("install postgresql"), "{line}");
    }

    #[test]
    fn the_newest_version_comes_first() {
        let dir = tempfile::tempdir().unwrap();
        for version in ["9", "15", "17", "junk"] {
            std::fs::create_dir_all(dir.path().join(version)).unwrap();
        }
        let found = versioned(dir.path());
        assert!(found[0].ends_with("17/bin") && found.len() == 3);
    }
}
