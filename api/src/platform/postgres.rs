//! A private PostgreSQL for one data folder: no port, no password, nobody else's business.
//!
//! The server is found among the installed ones, gets a cluster of its own, is watched while the platform runs,
//! and is stopped with it. If the platform is killed, the server stays, and the next start adopts it.

pub mod cluster;
pub mod place;
pub mod programs;

use crate::platform::account::{Account, is_root};
use crate::platform::process::Backoff;
use cluster::{Cluster, Server};
use place::Place;
use programs::Programs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Why there is no private PostgreSQL. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum PostgresError {
    /// No usable server programs.
    #[error("no PostgreSQL 15 or newer is installed{found}: run `{install}`, or set DATABASE_URL")]
    NotInstalled {
        /// What was found instead, in brackets, or nothing.
        found: String,
        /// The command that installs it.
        install: &'static str,
    },
    /// Started as root where there is no account without rights.
    #[error(
        "PostgreSQL does not run as root, and there is no account flatrender, postgres or nobody: run `useradd --system flatrender`"
    )]
    NoAccount,
    /// The account of this process has no name.
    #[error(
        "this process runs as user {} which has no name on this system, and PostgreSQL needs one: add it to /etc/passwd, or set DATABASE_URL",
        nix::unistd::geteuid()
    )]
    Nameless,
    /// The account that runs the server cannot enter the folder.
    #[error("{path} can no longer be entered by the account {account}, which runs its database: open it with `chmod a+x`, on it and the folders above it", path = path.display())]
    Closed {
        /// The data folder.
        path: PathBuf,
        /// The account.
        account: String,
    },
    /// The files are somebody else's.
    #[error("{path} belongs to another user (id {uid}): start as that user, or choose another folder with --data", path = path.display())]
    NotOurs {
        /// The file.
        path: PathBuf,
        /// Its owner.
        uid: u32,
    },
    /// The cluster was made by another major version.
    #[error(
        "the database was made by PostgreSQL {made_by} and this machine has {ours}: install {made_by}, or move the data with pg_upgrade"
    )]
    Version {
        /// Version on disk.
        made_by: String,
        /// Version installed.
        ours: u32,
    },
    /// A folder or file cannot be used.
    #[error("cannot use {path}: {source}", path = path.display())]
    Folder {
        /// Where.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A program cannot be run.
    #[error("cannot run {program}: {source}")]
    Run {
        /// Its name.
        program: &'static str,
        /// Why.
        source: io::Error,
    },
    /// `initdb` failed.
    #[error("cannot make a database: initdb said: {said}")]
    Initdb {
        /// Its last line.
        said: String,
    },
    /// The server ended right away.
    #[error("PostgreSQL ended at start and said: {said}")]
    Ended {
        /// Its reason.
        said: String,
    },
    /// The server takes too long.
    #[error("PostgreSQL was not ready in {seconds} s: see {log}", log = log.display())]
    Slow {
        /// How long it was given.
        seconds: u64,
        /// Its log.
        log: PathBuf,
    },
    /// An earlier server neither works nor ends.
    #[error(
        "an earlier PostgreSQL (pid {pid}) of this folder neither answers nor ends: stop it with `kill -QUIT {pid}`"
    )]
    Stuck {
        /// Its pid.
        pid: i32,
    },
}

impl PostgresError {
    fn folder(path: &Path, source: io::Error) -> Self {
        Self::Folder { path: path.to_path_buf(), source }
    }
}

/// A running private PostgreSQL. Dropping it leaves the server running; [`PrivatePostgres::stop`] ends it.
#[derive(Debug)]
pub struct PrivatePostgres {
    cluster: Cluster,
    adopted: bool,
    stopping: CancellationToken,
    keeper: JoinHandle<()>,
}

impl PrivatePostgres {
    /// Starts, or adopts, the server of the data folder `dir`, which exists.
    ///
    /// # Errors
    /// One line for the person who started it: see [`PostgresError`].
    pub async fn start(dir: &Path) -> Result<Self, PostgresError> {
        let runner = match is_root() {
            true => Some(Account::unprivileged().ok_or(PostgresError::NoAccount)?),
            false => None,
        };
        let programs = Programs::discover(runner.as_ref())?;
        let place = Place::prepare(dir, runner.as_ref())?;
        let cluster = Cluster { programs, place, runner };
        cluster.create().await?;
        let server = cluster.start().await?;
        let adopted = matches!(server, Server::Adopted(_));
        let stopping = CancellationToken::new();
        let keeper = tokio::spawn(keep(cluster.clone(), server, stopping.clone()));
        Ok(Self { cluster, adopted, stopping, keeper })
    }

    /// Address of the database, through the socket.
    pub fn database_url(&self) -> String {
        url(&self.cluster.place)
    }

    /// Whether the server was already running.
    pub fn was_adopted(&self) -> bool {
        self.adopted
    }

    /// The cluster behind it.
    pub fn cluster(&self) -> &Cluster {
        &self.cluster
    }

    /// Stops the server and waits until it has ended.
    pub async fn stop(self) {
        self.stopping.cancel();
        let _ = self.keeper.await;
        self.cluster.place.tidy();
    }
}

/// Address of the database of the data folder `dir`, if its server takes connections now.
pub fn running_url(dir: &Path) -> Option<String> {
    let place = Place::existing(dir)?;
    std::os::unix::net::UnixStream::connect(place.socket()).ok()?;
    Some(url(&place))
}

/// Says everything: what is left out would be taken from PGPORT, PGSSLMODE and the like, which speak of other servers.
fn url(place: &Place) -> String {
    let host = percent_encode(&place.socket_dir);
    format!("postgres:///postgres?host={host}&port=5432&user=flatrender&sslmode=disable&application_name=flatrender")
}

/// Watches the server, and starts it again when it dies, until told to stop it.
async fn keep(cluster: Cluster, mut server: Server, stopping: CancellationToken) {
    let mut backoff = Backoff::new(Duration::from_millis(200), Duration::from_secs(10));
    loop {
        tokio::select! {
            () = stopping.cancelled() => return server.stop(&cluster).await,
            () = server.ended(&cluster) => tracing::warn!("the private PostgreSQL ended; starting it again"),
        }
        match restart(&cluster, &mut backoff, &stopping).await {
            Some(again) => server = again,
            None => return,
        }
    }
}

async fn restart(cluster: &Cluster, backoff: &mut Backoff, stopping: &CancellationToken) -> Option<Server> {
    loop {
        let delay = backoff.delay();
        tokio::select! {
            () = stopping.cancelled() => return None,
            () = tokio::time::sleep(delay) => {}
        }
        backoff.begins();
        match cluster.start().await {
            Ok(server) => {
                tracing::info!("the private PostgreSQL runs again");
                return Some(server);
            }
            Err(e) => tracing::error!("the private PostgreSQL does not start: {e}"),
        }
    }
}

/// A path as a value in the query of an address.
fn percent_encode(path: &Path) -> String {
    use std::os::unix::ffi::OsStrExt;
    let plain = |b: u8| b.is_ascii_alphanumeric() || b"/-._~".contains(&b);
    path.as_os_str()
        .as_bytes()
        .iter()
        .map(|&b| if plain(b) { char::from(b).to_string() } else { format!("%{b:02X}") })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_with_spaces_survives_the_address() {
        assert_eq!(percent_encode(Path::new("/Users/a b/ü")), "/Users/a%20b/%C3%BC");
    }
}
