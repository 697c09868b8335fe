//! `flatrender up`: everything, in one process tree, on one folder.
//!
//! ```text
//! start   PostgreSQL ─▶ migrations ─▶ key, templates ─▶ API ─▶ worker ─▶ node
//! stop    worker (gives its work back) ─▶ node (gives its work back) ─▶ API ─▶ PostgreSQL
//! ```
//! The API ends after the node, which reports to it, and the database after everything that writes to it.

use super::data_dir::{DataDir, DataDirError, HeldDataDir};
use super::import::{self, ImportError};
use super::migrate::{self, MigrateError};
use super::node_process::NodeProcess;
use super::parts::{HistorySettings, MailSettings, Parts, PartsError};
use super::postgres::{PostgresError, PrivatePostgres};
use super::process;
use super::samples::{self, Package, PackageError};
use super::stop::Stop;
use flatrender_activities::storage::StorageSettings;
use flatrender_workflows::models::DEFAULT_TENANT;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// How long the worker may take to give its work back, and the API to answer what it has begun.
const DRAIN: Duration = Duration::from_secs(25);

/// What to run, and where.
#[derive(Debug, Clone)]
pub struct UpConfig {
    /// Where everything is kept.
    pub data: DataDir,
    /// Where the API listens; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Where machines of ours are listened to.
    pub internal_listen: SocketAddr,
    /// A database to use instead of a private one.
    pub database_url: Option<String>,
    /// Where bytes are kept, when not in the data folder.
    pub storage: Option<StorageSettings>,
    /// Templates to offer instead of ours: a folder of packages.
    pub templates: Option<PathBuf>,
    /// Whether stills of their scenes are asked for where there are none.
    pub stills: bool,
    /// How letters are sent.
    pub mail: MailSettings,
    /// How long what is over is remembered.
    pub history: HistorySettings,
}

/// Why the platform does not run. Each is one line.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The data folder.
    #[error(transparent)]
    Data(#[from] DataDirError),
    /// The private database.
    #[error(transparent)]
    Postgres(#[from] PostgresError),
    /// The migrations.
    #[error(transparent)]
    Migrate(#[from] MigrateError),
    /// The parts of the server.
    #[error(transparent)]
    Parts(#[from] PartsError),
    /// A template.
    #[error(transparent)]
    Package(#[from] PackageError),
    /// The key or the templates.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// The database refused.
    #[error("the database refused: {0}")]
    Database(#[from] sqlx::Error),
    /// The address is taken, or not ours.
    #[error("cannot listen on {0}: {1} (choose another address with --listen)")]
    Listen(SocketAddr, io::Error),
    /// A part that should run for ever has ended.
    #[error("the {0} ended by itself: {1}")]
    Ended(&'static str, String),
}

/// Runs the platform until it is told to stop. `ready` is called once, with the address, when it can be used.
///
/// # Errors
/// See [`UpError`]. Whatever happened, everything that was started has been stopped.
pub async fn run(config: UpConfig, stop: &Stop, ready: impl FnOnce(&str, &HeldDataDir)) -> Result<(), UpError> {
    let _ = process::this_program();
    // A wrong template is found before anything is started.
    let packages = samples::packages(config.templates.as_deref())?;
    let held = config.data.hold()?;
    let bind = async |at| TcpListener::bind(at).await.map_err(|e| UpError::Listen(at, e));
    let listeners = Listeners { public: bind(config.listen).await?, internal: bind(config.internal_listen).await? };
    let postgres = match &config.database_url {
        Some(_) => None,
        None => Some(PrivatePostgres::start(held.path()).await?),
    };
    let database_url = config.database_url.or_else(|| postgres.as_ref().map(PrivatePostgres::database_url));
    let settings = Settings {
        database_url: database_url.unwrap_or_default(),
        storage: config.storage,
        mail: config.mail,
        history: config.history,
        stills: config.stills,
    };
    let ran = platform(listeners, settings, &packages, &held, stop, ready).await;
    held.withdraw();
    if let Some(postgres) = postgres {
        postgres.stop().await;
    }
    ran
}

struct Listeners {
    public: TcpListener,
    internal: TcpListener,
}

struct Settings {
    database_url: String,
    storage: Option<StorageSettings>,
    mail: MailSettings,
    history: HistorySettings,
    stills: bool,
}

async fn platform(
    listeners: Listeners,
    settings: Settings,
    packages: &[Package],
    held: &HeldDataDir,
    stop: &Stop,
    ready: impl FnOnce(&str, &HeldDataDir),
) -> Result<(), UpError> {
    let Settings { database_url, storage, mail, history, stills } = settings;
    migrate::run(&database_url).await?;
    let listening = listeners.public.local_addr().map_err(|e| UpError::Ended("listener", e.to_string()))?;
    let url = format!("http://{}", reachable(listening));
    let private = held.folder("private")?;
    let storage = match storage {
        Some(storage) => storage,
        None => StorageSettings::Folder(held.folder("storage")?),
    };
    let parts = Parts::open(&database_url, &storage, &empty_scratch(held)?, &private, mail.linking_to(&url)).await?;
    ensure_key(held, &parts).await?;
    import::templates(&parts.db, parts.storage.as_ref(), packages).await?;
    if stills {
        parts.ask_for_stills(packages).await?;
    }
    let mut running = Running::start(parts.clone().keeping(history), listeners, &url, held)?;
    held.announce(&url)?;
    ready(&url, held);
    let ended = tokio::select! {
        () = stop.gently.cancelled() => Ok(()),
        ended = running.first_to_end() => Err(ended),
    };
    running.stop(stop).await;
    parts.close().await;
    ended
}

/// The folder for work in progress. Whatever is in it is of an earlier life: we hold the data folder.
fn empty_scratch(held: &HeldDataDir) -> Result<PathBuf, DataDirError> {
    let folder = held.folder("scratch")?;
    if let Err(error) = std::fs::remove_dir_all(&folder) {
        tracing::warn!(%error, "cannot empty the scratch folder");
    }
    held.folder("scratch")
}

/// A key in the folder that opens this database: the one that is there, or a new one.
async fn ensure_key(held: &HeldDataDir, parts: &Parts) -> Result<(), UpError> {
    if let Some(key) = held.api_key()
        && import::key_works(&parts.db, &key).await?
    {
        return Ok(());
    }
    let key = import::create_key(&parts.db, DEFAULT_TENANT, "flatrender up").await?;
    Ok(held.keep_api_key(key.reveal())?)
}

/// The address under which this machine reaches a listener.
fn reachable(mut address: SocketAddr) -> SocketAddr {
    if address.ip().is_unspecified() {
        address.set_ip(match address {
            SocketAddr::V4(_) => std::net::Ipv4Addr::LOCALHOST.into(),
            SocketAddr::V6(_) => std::net::Ipv6Addr::LOCALHOST.into(),
        });
    }
    address
}

/// A part that runs until its token is cancelled.
struct Part {
    name: &'static str,
    token: CancellationToken,
    task: JoinHandle<Result<(), String>>,
}

impl Part {
    fn start<F>(name: &'static str, run: impl FnOnce(CancellationToken) -> F) -> Self
    where
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let token = CancellationToken::new();
        Self { name, task: tokio::spawn(run(token.clone())), token }
    }

    async fn ended(&mut self) -> UpError {
        let how = match (&mut self.task).await {
            Ok(Ok(())) => "nobody told it to".to_owned(),
            Ok(Err(e)) => e,
            Err(e) => e.to_string(),
        };
        UpError::Ended(self.name, how)
    }

    async fn stop(mut self, hurry: &CancellationToken) {
        self.token.cancel();
        if self.task.is_finished() {
            return;
        }
        tokio::select! {
            _ = &mut self.task => return,
            () = tokio::time::sleep(DRAIN) => tracing::warn!("the {} does not end in time", self.name),
            () = hurry.cancelled() => {}
        }
        self.task.abort();
    }
}

/// What runs on top of the database.
struct Running {
    api: Part,
    worker: Part,
    node: JoinHandle<()>,
    node_draining: CancellationToken,
    hurry: CancellationToken,
}

impl Running {
    fn start(parts: Parts, listeners: Listeners, url: &str, held: &HeldDataDir) -> Result<Self, DataDirError> {
        let (node_draining, hurry) = (CancellationToken::new(), CancellationToken::new());
        let node = NodeProcess { server: url.to_owned(), db: parts.db.clone(), data: held.folder("node")? };
        let (serving, working) = (parts.clone(), parts);
        Ok(Self {
            api: Part::start("API", |token| async move {
                let Listeners { public, internal } = listeners;
                serving.serve(public, internal, token).await.map_err(|e| e.to_string())
            }),
            worker: Part::start("worker", |token| async move { working.work(token).await.map_err(|e| e.to_string()) }),
            node: tokio::spawn(node.keep(node_draining.clone(), hurry.clone())),
            node_draining,
            hurry,
        })
    }

    async fn first_to_end(&mut self) -> UpError {
        tokio::select! {
            ended = self.api.ended() => ended,
            ended = self.worker.ended() => ended,
        }
    }

    async fn stop(self, stop: &Stop) {
        self.worker.stop(&stop.hurry).await;
        self.node_draining.cancel();
        let (mut node, hurry) = (self.node, self.hurry);
        tokio::select! {
            _ = &mut node => {}
            () = stop.hurry.cancelled() => {
                hurry.cancel();
                let _ = node.await;
            }
        }
        self.api.stop(&stop.hurry).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_for_everybody_is_reached_on_this_machine() {
        let address = |text: &str| reachable(text.parse().unwrap()).to_string();
        assert_eq!(address("0.0.0.0:8787"), "127.0.0.1:8787");
        assert_eq!(address("[::]:8787"), "[::1]:8787");
        assert_eq!(address("192.168.1.5:80"), "192.168.1.5:80");
    }
}
