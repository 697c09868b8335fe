//! One cluster and its server process: made once, started or adopted, stopped.
//!
//! A pid file lies: it survives a crash, and after `kill -9` of a server nobody has waited for, its number still
//! answers. What counts is that the socket takes a connection and the server has written that it is ready.

use super::PostgresError;
use super::place::Place;
use super::programs::Programs;
use crate::platform::account::Account;
use crate::platform::process;
use nix::sys::signal::Signal;
use std::fs::{self, File};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::net::UnixStream;
use tokio::process::{Child, Command};
use tokio::time::{Instant, sleep};

/// How long a server may take until it accepts connections; recovery after a crash included.
const START: Duration = Duration::from_secs(120);
/// How long a fast shutdown may take before the server is told to stop at once.
const FAST_STOP: Duration = Duration::from_secs(20);
/// Between two looks.
const TICK: Duration = Duration::from_millis(20);
/// The log is put aside at this size when the server starts.
const MOST_LOG_BYTES: u64 = 16 * 1024 * 1024;

/// A cluster on disk and how to run it.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// The installation that runs it.
    pub programs: Programs,
    /// Its folders.
    pub place: Place,
    /// Who runs it, when that is not the account of this process.
    pub runner: Option<Account>,
}

/// A running server.
#[derive(Debug)]
pub enum Server {
    /// Started by this process.
    Ours(Child),
    /// Left by an earlier process; its pid.
    Adopted(i32),
}

impl Cluster {
    /// Makes the cluster if there is none. A half-made one, left by a crash, is made again.
    ///
    /// # Errors
    /// `initdb` failed, or a cluster of another major version is there.
    pub async fn create(&self) -> Result<(), PostgresError> {
        let version = self.place.data.join("PG_VERSION");
        if let Ok(made_by) = fs::read_to_string(&version) {
            let made_by = made_by.trim().to_owned();
            let same = made_by == self.programs.major.to_string();
            return if same { Ok(()) } else { Err(PostgresError::Version { made_by, ours: self.programs.major }) };
        }
        let fresh = self.place.home.join("data.new");
        let fail = |e| PostgresError::folder(&fresh, e);
        if fresh.exists() {
            fs::remove_dir_all(&fresh).map_err(fail)?;
        }
        super::place::make_private(&fresh, self.runner.as_ref())?;
        let out =
            self.initdb(&fresh).output().await.map_err(|e| PostgresError::Run { program: "initdb", source: e })?;
        if !out.status.success() {
            return Err(PostgresError::Initdb { said: last_line(&String::from_utf8_lossy(&out.stderr)) });
        }
        fs::rename(&fresh, &self.place.data).map_err(fail)
    }

    fn initdb(&self, data: &Path) -> Command {
        let mut command = self.command("initdb");
        command.args(["--username=flatrender", "--auth-local=peer", "--auth-host=reject", "--encoding=UTF8"]);
        command.args(["--data-checksums", "--no-instructions"]);
        match self.programs.major {
            17.. => command.args(["--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"]),
            _ if cfg!(target_os = "macos") => command.arg("--locale=C"),
            _ => command.arg("--locale=C.UTF-8"),
        };
        command.arg("-D").arg(data);
        command
    }

    /// Adopts the server that is already running, or starts one, and waits until it accepts connections.
    ///
    /// # Errors
    /// The server ended at start, with its last words, or was not ready in time.
    pub async fn start(&self) -> Result<Server, PostgresError> {
        self.write_access()?;
        if let Some(pid) = self.running().await? {
            return Ok(Server::Adopted(pid));
        }
        let log = self.open_log()?;
        let begins = log.metadata().map_or(0, |meta| meta.len());
        let mut child = self.spawn(log)?;
        let deadline = Instant::now() + START;
        while !self.is_ready().await {
            if child.try_wait().is_ok_and(|status| status.is_some()) {
                return Err(PostgresError::Ended { said: self.last_words(begins) });
            }
            if Instant::now() > deadline {
                Server::Ours(child).stop(self).await;
                return Err(PostgresError::Slow { seconds: START.as_secs(), log: self.log_path() });
            }
            sleep(TICK).await;
        }
        Ok(Server::Ours(child))
    }

    fn spawn(&self, log: File) -> Result<Child, PostgresError> {
        let fail = |e| PostgresError::Run { program: "postgres", source: e };
        let mut command = self.command("postgres");
        command.arg("-D").arg(&self.place.data).arg("-k").arg(&self.place.socket_dir);
        for file in ["hba_file", "ident_file"] {
            command.arg("-c").arg(format!("{file}={}", self.place.home.join(access_file(file)).display()));
        }
        command.args(["-c", "listen_addresses=", "-c", "unix_socket_permissions=0700", "-c", "fsync=on"]);
        command.stdout(log.try_clone().map_err(fail)?).stderr(log);
        // Its own group, so that a Ctrl-C reaches us first and we stop it last.
        command.process_group(0).spawn().map_err(fail)
    }

    /// The pid of the server that already serves this cluster. Waits for one that is starting or stopping.
    async fn running(&self) -> Result<Option<i32>, PostgresError> {
        let deadline = Instant::now() + START;
        loop {
            let Some(pid) = self.pid() else { return Ok(None) };
            if self.is_ready().await {
                return Ok(Some(pid));
            }
            if !self.is_server(pid) {
                // Left by a crash, and its number may be somebody else's by now: the server would refuse to start.
                let _ = fs::remove_file(self.pid_file());
                return Ok(None);
            }
            if Instant::now() > deadline {
                return Err(PostgresError::Stuck { pid });
            }
            sleep(TICK).await;
        }
    }

    /// Whether `pid` is a live server of this cluster, as far as this system can tell.
    fn is_server(&self, pid: i32) -> bool {
        let named = process::find(pid).is_some_and(|p| !p.zombie && (p.name == "postgres" || p.name == "postmaster"));
        // A server works in its data folder. Where that cannot be read, the name has to do.
        let elsewhere = fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd != self.place.data);
        named && !elsewhere
    }

    async fn is_ready(&self) -> bool {
        // Line 8 of the pid file says how far the server is.
        let ready = fs::read_to_string(self.pid_file())
            .is_ok_and(|text| text.lines().nth(7).is_some_and(|line| line.trim() == "ready"));
        ready && UnixStream::connect(self.place.socket()).await.is_ok()
    }

    /// Exactly two people of the system may connect, both as the cluster's only role: us and who runs the server.
    fn write_access(&self) -> Result<(), PostgresError> {
        let me = Account::me().ok_or(PostgresError::Nameless)?;
        let runner = self.runner.as_ref().map_or(&me.name, |r| &r.name);
        let ident = format!("ours \"{}\" flatrender\nours \"{runner}\" flatrender\n", me.name);
        for (file, text) in [("hba_file", "local all all peer map=ours\n"), ("ident_file", &ident)] {
            let path = self.place.home.join(access_file(file));
            fs::write(&path, text).map_err(|e| PostgresError::folder(&path, e))?;
        }
        Ok(())
    }

    fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.bin.join(program));
        command.env_clear().env("PATH", "/usr/bin:/bin").env("LC_ALL", "C").env("TZ", "UTC");
        command.current_dir(&self.place.home).stdin(Stdio::null());
        if let Some(runner) = &self.runner {
            command.uid(runner.uid).gid(runner.gid);
        }
        command
    }

    fn open_log(&self) -> Result<File, PostgresError> {
        let path = self.log_path();
        if fs::metadata(&path).is_ok_and(|meta| meta.len() > MOST_LOG_BYTES) {
            let _ = fs::rename(&path, path.with_extension("log.1"));
        }
        let open = File::options().create(true).append(true).read(true).mode(0o600).open(&path);
        open.map_err(|e| PostgresError::folder(&path, e))
    }

    /// What the server said last, from byte `begins` of its log.
    fn last_words(&self, begins: u64) -> String {
        let mut text = String::new();
        if let Ok(mut log) = File::open(self.log_path()) {
            let _ = log.seek(SeekFrom::Start(begins)).and_then(|_| log.read_to_string(&mut text));
        }
        let fatal = text.lines().find(|line| line.contains("FATAL") || line.contains("PANIC"));
        fatal.map_or_else(|| last_line(&text), str::to_owned)
    }

    fn log_path(&self) -> PathBuf {
        self.place.home.join("postgres.log")
    }

    fn pid_file(&self) -> PathBuf {
        self.place.data.join("postmaster.pid")
    }

    fn pid(&self) -> Option<i32> {
        fs::read_to_string(self.pid_file()).ok()?.lines().next()?.trim().parse().ok()
    }
}

impl Server {
    /// The server's pid; none once it has been waited for.
    pub fn pid(&self) -> Option<i32> {
        match self {
            Self::Ours(child) => child.id().map(|id| id as i32),
            Self::Adopted(pid) => Some(*pid),
        }
    }

    /// Ends when the server has ended.
    pub async fn ended(&mut self, cluster: &Cluster) {
        match self {
            Self::Ours(child) => {
                let _ = child.wait().await;
            }
            Self::Adopted(pid) => {
                while cluster.is_server(*pid) {
                    sleep(TICK * 5).await;
                }
            }
        }
    }

    /// Stops the server: fast, which loses nothing; at once when that takes too long; at last by force.
    pub async fn stop(mut self, cluster: &Cluster) {
        for (how, patience) in
            [(Signal::SIGINT, FAST_STOP), (Signal::SIGQUIT, FAST_STOP / 4), (Signal::SIGKILL, FAST_STOP)]
        {
            let Some(pid) = self.pid() else { return };
            process::signal(pid, how);
            if tokio::time::timeout(patience, self.ended(cluster)).await.is_ok() {
                return;
            }
        }
    }
}

fn access_file(setting: &str) -> &'static str {
    if setting == "hba_file" { "pg_hba.conf" } else { "pg_ident.conf" }
}

fn last_line(text: &str) -> String {
    text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("nothing").trim().to_owned()
}
