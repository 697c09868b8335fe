//! Finding the server a command talks to, or starting one for the time of the command.

use super::client::Client;
use super::failure::CliError;
use crate::platform::data_dir::{DataDir, ServerFile};
use crate::platform::process;
use anyhow::Context as _;
use clap::Args;
use nix::sys::signal::Signal;
use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::{Instant, sleep};

/// How long a platform may take to start: making a database the first time, or recovering one.
const START: Duration = Duration::from_secs(180);
/// How long it may take to stop: running work is given back, the database closes.
const STOP: Duration = Duration::from_secs(45);

/// Which server to talk to.
#[derive(Debug, Clone, Default, Args)]
pub struct ServerArgs {
    /// Address of the server [default: the one that runs on the data folder].
    #[arg(long, value_name = "URL", env = "FLATRENDER_URL")]
    pub server: Option<String>,
    /// API key [default: the one kept in the data folder].
    #[arg(long, value_name = "KEY", env = "FLATRENDER_API_KEY", hide_env_values = true)]
    pub api_key: Option<String>,
    /// Data folder of the platform on this machine [default: a folder of this account].
    #[arg(long, value_name = "DIR", env = "FLATRENDER_DATA")]
    pub data_dir: Option<PathBuf>,
}

/// A server to talk to, perhaps started for this command.
#[derive(Debug)]
pub struct Server {
    /// How to talk to it.
    pub client: Client,
    /// How long it took to start; none when it was already running.
    pub started_in: Option<Duration>,
    child: Option<Platform>,
}

/// A platform started for one command.
#[derive(Debug)]
struct Platform {
    process: Child,
    /// It ends when this does. Kept apart: waiting for a process closes what it reads.
    _lifeline: Option<ChildStdin>,
}

impl ServerArgs {
    /// The data folder.
    pub fn data_dir(&self) -> Result<DataDir, CliError> {
        DataDir::choose(self.data_dir.as_deref()).map_err(|e| CliError::Usage(e.to_string()))
    }

    /// A running server: the one named, else the one that runs on the data folder; none when there is none.
    ///
    /// # Errors
    /// A server is named and no key is known for it, or the key's file cannot be read.
    pub async fn running(&self) -> Result<Option<Client>, CliError> {
        let local = self.data_dir().ok().and_then(|dir| dir.server());
        let Some(url) = &self.server else {
            let Some(local) = local else { return Ok(None) };
            let client = Client::new(&local.url, &self.key(Some(&local))?)?;
            return Ok(client.is_ready().await.then_some(client));
        };
        let same = local.filter(|l| l.url.trim_end_matches('/') == url.trim_end_matches('/'));
        Client::new(url, &self.key(same.as_ref())?).map(Some)
    }

    /// A running server.
    ///
    /// # Errors
    /// [`CliError::NoServer`], saying how to start one.
    pub async fn connect(&self) -> Result<Client, CliError> {
        let none = "no server runs on this machine: start one with `flatrender up`, or name one with --server";
        self.running().await?.ok_or_else(|| CliError::NoServer(none.into()))
    }

    /// A running server, or one of our own for as long as the command takes. Extra arguments go to `flatrender up`.
    ///
    /// # Errors
    /// The platform does not start; the line says why.
    pub async fn connect_or_start(&self, listen: &str, extra: &[&str]) -> Result<Server, CliError> {
        if let Some(client) = self.running().await? {
            return Ok(Server { client, started_in: None, child: None });
        }
        let dir = self.data_dir()?;
        eprintln!("Starting FlatRender, with its data in {} …", dir.path().display());
        let begun = Instant::now();
        let mut platform = spawn_up(&dir, listen, extra)?;
        match self.wait_until_ready(&dir, &mut platform).await {
            Ok(client) => Ok(Server { client, started_in: Some(begun.elapsed()), child: Some(platform) }),
            Err(e) => {
                stop(platform).await;
                Err(e)
            }
        }
    }

    async fn wait_until_ready(&self, dir: &DataDir, platform: &mut Platform) -> Result<Client, CliError> {
        let deadline = Instant::now() + START;
        loop {
            if platform.process.try_wait().context("cannot watch the platform")?.is_some() {
                return Err(CliError::Here(anyhow::anyhow!("the platform did not start: {}", last_words(dir.path()))));
            }
            let pid = platform.process.id().map(|id| id as i32);
            if let Some(server) = dir.server().filter(|s| Some(s.pid) == pid) {
                let client = Client::new(&server.url, &self.key(Some(&server))?)?;
                if client.is_ready().await {
                    return Ok(client);
                }
            }
            if Instant::now() > deadline {
                let log = log_file(dir.path());
                return Err(CliError::NoServer(format!(
                    "the platform was not ready in {} s: see {}",
                    START.as_secs(),
                    log.display()
                )));
            }
            sleep(Duration::from_millis(25)).await;
        }
    }

    fn key(&self, local: Option<&ServerFile>) -> Result<String, CliError> {
        if let Some(key) = &self.api_key {
            return Ok(key.trim().to_owned());
        }
        let missing = "no API key: set FLATRENDER_API_KEY, or make one with `flatrender admin create-key`";
        let file = &local.ok_or_else(|| CliError::Usage(missing.into()))?.api_key_file;
        let key = std::fs::read_to_string(file).map_err(|e| CliError::unreadable("API key", file, e))?;
        Ok(key.trim().to_owned())
    }
}

impl Server {
    /// Stops the platform if this command started it, and waits until all of it has ended.
    pub async fn stop(self) {
        if let Some(platform) = self.child {
            stop(platform).await;
        }
    }

    /// The process of the platform, if this command started it.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().and_then(|platform| platform.process.id())
    }
}

/// Runs this very program as `up`. It ends when its standard input does, so it cannot outlive this command.
fn spawn_up(dir: &DataDir, listen: &str, extra: &[&str]) -> Result<Platform, CliError> {
    dir.make().map_err(|e| CliError::Usage(e.to_string()))?;
    let path = log_file(dir.path());
    let open = File::options().create(true).write(true).truncate(true).mode(0o600).open(&path);
    let log = open.with_context(|| format!("cannot write {}", path.display()))?;
    let mut command = Command::new(process::this_program());
    command
        .arg("up")
        .arg("--data")
        .arg(dir.path())
        .args(["--listen", listen, "--exit-with-parent", "--no-stills"])
        .args(extra);
    command.stdin(Stdio::piped()).stdout(log.try_clone().context("cannot write the log")?).stderr(log);
    // Its own group: a Ctrl-C first cancels the render, and the platform has to be there for that.
    let mut process = command.process_group(0).spawn().context("cannot start the platform")?;
    Ok(Platform { _lifeline: process.stdin.take(), process })
}

async fn stop(mut platform: Platform) {
    let Some(pid) = platform.process.id() else { return };
    process::signal(pid as i32, Signal::SIGTERM);
    if tokio::time::timeout(STOP, platform.process.wait()).await.is_err() {
        eprintln!("the platform does not stop; ending it by force");
        let _ = platform.process.kill().await;
    }
}

fn log_file(dir: &Path) -> PathBuf {
    dir.join("up.log")
}

/// The reason the platform gave for ending.
fn last_words(dir: &Path) -> String {
    let text = std::fs::read_to_string(log_file(dir)).unwrap_or_default();
    let line = text.lines().rev().find_map(|line| line.strip_prefix("error: "));
    let last = line.or_else(|| text.lines().rev().find(|line| !line.trim().is_empty()));
    last.map_or_else(|| format!("see {}", log_file(dir).display()), str::to_owned)
}
