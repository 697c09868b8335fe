//! The commands that run until they are told to stop: everything at once, or one part of it.

use super::failure::CliError;
use super::node::NodeDeed;
use crate::metrics;
use crate::platform::data_dir::{DataDir, HeldDataDir};
use crate::platform::parts::{HistorySettings, MailSettings, Parts};
use crate::platform::stop::Stop;
use crate::platform::up::{self, UpConfig, UpError};
use crate::platform::{import, migrate as migrations, samples};
use anyhow::Context as _;
use clap::Args;
use flatrender_activities::agent::{self, NodeArgs};
use flatrender_activities::storage::{BadStorage, StorageSettings};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::net::TcpListener;

/// Runs the whole platform on this machine: database, API, worker and a render node.
///
/// Everything is kept in one folder; stop and start again, and everything is still there. Without DATABASE_URL a
/// private PostgreSQL is started in the folder, with no port and no password. Ctrl-C stops it in order: running
/// renders go on with the next start.
#[derive(Debug, Clone, Args)]
pub struct UpArgs {
    /// Folder for everything [default: ~/.local/share/flatrender, /var/lib/flatrender for root].
    #[arg(long, alias = "data-dir", value_name = "DIR", env = "FLATRENDER_DATA")]
    data: Option<PathBuf>,
    /// Address to listen on. Port 0 takes a free one.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787", env = "FLATRENDER_LISTEN")]
    listen: SocketAddr,
    /// Use this PostgreSQL database, and start none.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Keep bytes in this folder or bucket (s3://bucket/prefix?region=…&endpoint=…) instead of the data folder.
    #[arg(long, value_name = "DIR|s3://…", env = "FLATRENDER_STORAGE")]
    storage: Option<String>,
    /// Offer the templates in this folder instead of the ones that come with the program.
    #[arg(long, value_name = "DIR")]
    templates: Option<PathBuf>,
    /// Do not ask for stills of scenes that have none.
    #[arg(long)]
    no_stills: bool,
    #[command(flatten)]
    mail: MailSettings,
    #[command(flatten)]
    history: HistorySettings,
    #[command(flatten)]
    internal: InternalListen,
    /// Stop when standard input ends.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

/// Where the data of one service is.
#[derive(Debug, Clone, Args)]
struct Database {
    /// The PostgreSQL database.
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: String,
}

/// Where a service keeps bytes.
#[derive(Debug, Clone, Args)]
struct Storage {
    /// Folder of the stored files, or s3://bucket/prefix?region=…&endpoint=…; every API and worker needs the same one.
    ///
    /// The keys of a bucket are in AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or in the file AWS_SHARED_CREDENTIALS_FILE. Other
    /// settings are public_endpoint=…, where clients reach it, and path_style=false, when the bucket is in the host's name.
    #[arg(long, value_name = "DIR|s3://…", env = "FLATRENDER_STORAGE")]
    storage: String,
    /// Folder for work in progress [default: scratch in the storage folder, or flatrender in the temporary folder].
    #[arg(long, value_name = "DIR", env = "FLATRENDER_SCRATCH")]
    scratch: Option<PathBuf>,
    /// Folder of the installation's key, the same for every API and worker [default: private in the storage folder].
    #[arg(long, value_name = "DIR", env = "FLATRENDER_PRIVATE")]
    private: Option<PathBuf>,
}

/// Where machines of ours are listened to.
#[derive(Debug, Clone, Args)]
struct InternalListen {
    /// Address for machines of ours alone, such as renderers of stills: never to be reached from outside
    /// [default: 127.0.0.1, with the port after that of --listen].
    #[arg(long, value_name = "ADDR", env = "FLATRENDER_INTERNAL_LISTEN")]
    internal_listen: Option<SocketAddr>,
}

impl InternalListen {
    /// The address, beside that of everybody. A port that is free on one address may be any on another.
    fn beside(&self, public: SocketAddr) -> SocketAddr {
        let port = if public.port() == 0 { 0 } else { public.port().wrapping_add(1) };
        self.internal_listen.unwrap_or_else(|| (std::net::Ipv4Addr::LOCALHOST, port).into())
    }
}

/// Runs the API only: one of as many as wanted.
#[derive(Debug, Clone, Args)]
pub struct ServeArgs {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    storage: Storage,
    #[command(flatten)]
    mail: MailSettings,
    /// Address to listen on.
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:8787", env = "FLATRENDER_LISTEN")]
    listen: SocketAddr,
    #[command(flatten)]
    internal: InternalListen,
    /// Do not offer the templates that come with the program.
    #[arg(long)]
    no_samples: bool,
    /// Do not ask for stills of their scenes.
    #[arg(long)]
    no_stills: bool,
}

/// Runs a worker only: it continues workflows, and mixes, encodes and checks films.
#[derive(Debug, Clone, Args)]
pub struct WorkerArgs {
    #[command(flatten)]
    database: Database,
    #[command(flatten)]
    storage: Storage,
    #[command(flatten)]
    mail: MailSettings,
    #[command(flatten)]
    history: HistorySettings,
    /// Address to answer GET /metrics on, for Prometheus [default: none].
    #[arg(long, value_name = "ADDR", env = "FLATRENDER_METRICS")]
    metrics: Option<SocketAddr>,
}

/// Runs a render node: it fetches work from a server over HTTP and renders frames.
///
/// It enrols once with a token from `flatrender node token`, and has no access to the database. With a command it does something
/// else: `doctor` looks at this machine, the others are for operators, beside the database.
#[derive(Debug, Clone, Args)]
pub struct NodeCommand {
    #[command(subcommand)]
    deed: Option<NodeDeed>,
    #[command(flatten)]
    node: NodeArgs,
    /// Stop when standard input ends.
    #[arg(long, hide = true)]
    exit_with_parent: bool,
}

/// Brings the database to the state this program needs. Running it again changes nothing.
#[derive(Debug, Clone, Args)]
pub struct MigrateArgs {
    #[command(flatten)]
    database: Database,
}

/// `flatrender up`.
///
/// # Errors
/// One line: see [`UpError`].
pub async fn up(args: UpArgs) -> Result<(), CliError> {
    let stop = Stop::on_signals(args.exit_with_parent).context("cannot watch for signals")?;
    let data = DataDir::choose(args.data.as_deref()).map_err(|e| CliError::Usage(e.to_string()))?;
    let database_url = args.database_url.filter(|url| !url.is_empty());
    let storage = args.storage.filter(|text| !text.is_empty()).as_deref().map(storage_of).transpose()?;
    let config = UpConfig {
        data,
        storage,
        listen: args.listen,
        internal_listen: args.internal.beside(args.listen),
        database_url,
        templates: args.templates,
        stills: !args.no_stills,
        mail: args.mail,
        history: args.history,
    };
    up::run(config, &stop, greet).await.map_err(explain)
}

fn greet(url: &str, held: &HeldDataDir) {
    println!("FlatRender runs at {url} (Ctrl-C stops it)");
    println!("  API      {url}/docs");
    println!("  API key  in {}", held.path().join("api-key").display());
    println!("  render   flatrender render --template promo --data my.json --out my.mp4");
}

/// What the person can change is a wrong argument; the rest went wrong here.
fn explain(error: UpError) -> CliError {
    match error {
        UpError::Data(e) => CliError::Usage(e.to_string()),
        UpError::Listen(..) => CliError::Usage(error.to_string()),
        other => CliError::Here(other.into()),
    }
}

/// `flatrender serve`.
///
/// # Errors
/// The database, the storage or the address cannot be used.
pub async fn serve(args: ServeArgs) -> Result<(), CliError> {
    let stop = Stop::on_signals(false).context("cannot watch for signals")?;
    let parts = open(&args.database, &args.storage, args.mail).await?;
    if !args.no_samples {
        let packages = samples::packages(None).map_err(anyhow::Error::from)?;
        import::templates(&parts.db, parts.storage.as_ref(), &packages).await.map_err(anyhow::Error::from)?;
        if !args.no_stills {
            parts.ask_for_stills(&packages).await.map_err(anyhow::Error::from)?;
        }
    }
    let listener = listen(args.listen).await?;
    let internal = listen(args.internal.beside(args.listen)).await?;
    let (address, inside) = (listener.local_addr(), internal.local_addr());
    println!("listening on http://{}", address.context("cannot tell the address")?);
    // The first line is the only one: whoever started this may have stopped reading.
    tracing::info!(address = ?inside.ok(), "machines of ours are listened to");
    tokio::select! {
        served = parts.clone().serve(listener, internal, stop.gently.clone()) => served.context("the API ended")?,
        () = stop.hurry.cancelled() => {}
    }
    parts.close().await;
    Ok(())
}

/// `flatrender worker`.
///
/// # Errors
/// The database or the storage cannot be used.
pub async fn worker(args: WorkerArgs) -> Result<(), CliError> {
    let stop = Stop::on_signals(false).context("cannot watch for signals")?;
    let listener = match args.metrics {
        Some(address) => Some(listen(address).await?),
        None => None,
    };
    let parts = open(&args.database, &args.storage, args.mail).await?.keeping(args.history);
    tokio::select! {
        worked = parts.clone().work(stop.gently.clone()) => worked.context("the worker ended")?,
        served = count(listener, &stop) => served.context("cannot serve the metrics any longer")?,
        () = stop.hurry.cancelled() => {}
    }
    parts.close().await;
    Ok(())
}

async fn listen(address: SocketAddr) -> Result<TcpListener, CliError> {
    let listener = TcpListener::bind(address).await;
    listener.map_err(|e| CliError::Usage(format!("cannot listen on {address}: {e}")))
}

/// Shows what the worker counts, for as long as it works.
async fn count(listener: Option<TcpListener>, stop: &Stop) -> std::io::Result<()> {
    if let Some(listener) = listener {
        println!("metrics on http://{}/metrics", listener.local_addr()?);
        metrics::serve(listener, stop.hurry.clone()).await?;
    }
    std::future::pending().await
}

async fn open(database: &Database, storage: &Storage, mail: MailSettings) -> Result<Parts, CliError> {
    let settings = storage_of(&storage.storage)?;
    let beside = |name: &str| settings.folder().map(|folder| folder.join(name));
    let scratch = storage.scratch.clone().or_else(|| beside("scratch"));
    let scratch = scratch.unwrap_or_else(|| std::env::temp_dir().join("flatrender"));
    make(&scratch)?;
    let homeless = || CliError::Usage("with a bucket, name the folder of the installation's key with --private".into());
    let private = storage.private.clone().or_else(|| beside("private")).ok_or_else(homeless)?;
    let mail = mail.linking_to("http://127.0.0.1:8787");
    let parts = Parts::open(&database.database_url, &settings, &scratch, &private, mail).await;
    parts.map_err(|e| CliError::Here(e.into()))
}

fn storage_of(text: &str) -> Result<StorageSettings, CliError> {
    text.parse().map_err(|error: BadStorage| CliError::Usage(error.to_string()))
}

fn make(folder: &Path) -> Result<(), CliError> {
    let made = std::fs::create_dir_all(folder);
    made.map_err(|e| CliError::Usage(format!("cannot make the folder {}: {e}", folder.display())))
}

/// `flatrender node`.
///
/// # Errors
/// The server does not accept the node, or there is no renderer.
pub async fn node(args: NodeCommand) -> Result<(), CliError> {
    match args.deed {
        Some(NodeDeed::Doctor { json }) => {
            let ill = || CliError::Unhealthy("this machine cannot be a node yet".to_owned());
            return agent::doctor::run(&args.node.into(), json).await.then_some(()).ok_or_else(ill);
        }
        Some(deed) => return super::node::run(deed).await,
        None => {}
    }
    let stop = Stop::on_signals(args.exit_with_parent).context("cannot watch for signals")?;
    tokio::select! {
        ended = agent::run(args.node.into(), stop.gently.clone()) => ended.context("the node stopped")?,
        // Dropping the agent ends its renderers.
        () = stop.hurry.cancelled() => {}
    }
    Ok(())
}

/// `flatrender migrate`.
///
/// # Errors
/// The database cannot be reached, or a migration failed.
pub async fn migrate(args: MigrateArgs) -> Result<(), CliError> {
    let count = migrations::run(&args.database.database_url).await.map_err(anyhow::Error::from)?;
    println!("the database is up to date ({count} migrations)");
    Ok(())
}
