//! The parts of a running platform, as this program puts them together.
//!
//! One place, so that every command runs the same server and the same worker.

use super::import::{self, ImportError};
use super::samples::Package;
use crate::render::patience::{self, BadLimit};
use crate::serve::{self, Listen, ServeConfig, ServeError};
use crate::vault::Vault;
use crate::worker::{self, BadSetting, Placeholders, WorkError, WorkerConfig};
use flatrender_activities::storage::StorageSettings;
use flatrender_activities::{
    egress::{Egress, Reach},
    message::{Mailer, MailerConfig, MailerError},
    notify::{Courier, CourierConfig, MAIL_PATIENCE},
    pay::Places,
};
use flatrender_engine::operations::Retention;
use flatrender_workflows::contracts::storage::{BlobStore, StorageError};
use flatrender_workflows::definitions::limit::Limits;
use flatrender_workflows::models::file_mgr::blob_claim::BlobClaims;
use sqlx::postgres::PgPoolOptions;
use sqlx::{Executor, PgPool};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

/// Connections of the API and of the steps of workflows; the engine opens a few of its own.
pub(crate) const CONNECTIONS: u32 = 20;
/// How long a request waits for a connection. A database that is starting again needs a moment.
const ACQUIRE: Duration = Duration::from_secs(10);
/// A transaction that its client has forgotten, or was cut off from, gives its locks back.
const LIMITS: &str = "set idle_in_transaction_session_timeout = '60s';
    set tcp_keepalives_idle = 10; set tcp_keepalives_interval = 5; set tcp_keepalives_count = 3";

/// Looks at media; found in the search path.
const PROBE: &str = "ffprobe";

/// Why the parts cannot be put together.
#[derive(Debug, thiserror::Error)]
pub enum PartsError {
    /// The database cannot be reached.
    #[error("cannot connect to the database: {0}")]
    Database(#[from] sqlx::Error),
    /// The storage cannot be opened.
    #[error("cannot use the storage: {0}")]
    Storage(#[from] StorageError),
    /// The key of the installation cannot be read or made.
    #[error("cannot use the key file {0}: {1}")]
    Key(PathBuf, std::io::Error),
    /// The environment asks for the mock in production, or for something that cannot be understood.
    #[error(transparent)]
    Setting(#[from] BadSetting),
    /// The environment says something else than how long films may take.
    #[error(transparent)]
    Limit(#[from] BadLimit),
    /// Mail cannot be sent like this.
    #[error(transparent)]
    Mail(#[from] MailerError),
}

/// How letters are sent, and where their links lead.
#[derive(Debug, Clone, clap::Args)]
pub struct MailSettings {
    /// Mail server, as smtp://user:password@host:587?tls=required or smtps://…; without one, letters are laid into a folder.
    #[arg(long, value_name = "URL", env = "FLATRENDER_SMTP_URL", hide_env_values = true)]
    smtp_url: Option<String>,
    /// Address that letters come from.
    #[arg(long, value_name = "ADDRESS", default_value = "noreply@localhost.localdomain", env = "FLATRENDER_MAIL_FROM")]
    mail_from: String,
    /// Address under which people reach the platform: letters link to it, identity providers send people back there, passkeys are bound
    /// to its host name [default: where the API listens].
    #[arg(long, value_name = "URL", env = "FLATRENDER_PUBLIC_URL")]
    public_url: Option<String>,
}

impl MailSettings {
    /// Letters link to `url` where nothing else was said.
    #[must_use]
    pub fn linking_to(mut self, url: &str) -> Self {
        self.public_url.get_or_insert_with(|| url.to_owned());
        self
    }

    fn mailer(self, folder: PathBuf, vault: Vault) -> Result<Mailer, MailerError> {
        Mailer::new(MailerConfig {
            server: self.smtp_url,
            folder,
            from: self.mail_from,
            public_url: self.public_url.unwrap_or_default(),
            links: Arc::new(move |id| vault.link(id)),
        })
    }
}

/// How long what is over is remembered.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct HistorySettings {
    /// Days that records and attempts of workflows are kept after their month is over; 0 keeps them for ever.
    #[arg(long, value_name = "DAYS", default_value_t = 90, env = "FLATRENDER_KEEP_HISTORY",
          value_parser = clap::value_parser!(u32).range(..=36_500))]
    keep_history: u32,
}

impl From<HistorySettings> for Retention {
    fn from(settings: HistorySettings) -> Self {
        match settings.keep_history {
            0 => Self::forever(),
            days => {
                let keep = Duration::from_secs(u64::from(days) * 86_400);
                Self::forever().runs(keep).jobs(keep).fires(keep)
            }
        }
    }
}

/// What the server and the worker are made of. Cheap to clone.
#[derive(Clone)]
pub struct Parts {
    /// The database.
    pub db: PgPool,
    /// Where bytes live.
    pub storage: Arc<dyn BlobStore>,
    /// What only servers and workers know.
    pub vault: Vault,
    scratch: PathBuf,
    mailer: Mailer,
    courier: Courier,
    public_url: String,
    retention: Retention,
    placeholders: Placeholders,
    limits: Limits,
}

impl Parts {
    /// Connects to the database and opens the storage. Work happens in `scratch`; the key of the
    /// installation, and letters that no server takes, are in `private`.
    ///
    /// # Errors
    /// [`PartsError`].
    pub async fn open(
        database_url: &str,
        storage: &StorageSettings,
        scratch: &Path,
        private: &Path,
        mail: MailSettings,
    ) -> Result<Self, PartsError> {
        let (placeholders, limits) = (Placeholders::from_env()?, patience::from_env()?);
        let key = private.join("secret.key");
        let vault = Vault::open(&key).map_err(|e| PartsError::Key(key, e))?;
        let public_url = mail.public_url.clone().unwrap_or_default();
        let mailer = mail.mailer(private.join("mail"), vault.clone())?;
        let courier = courier(mailer.clone(), &vault, &public_url);
        let db = PgPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .after_connect(|db, _| Box::pin(async move { db.execute(LIMITS).await.map(drop) }))
            .connect(database_url)
            .await?;
        let storage: Arc<dyn BlobStore> = Arc::new(storage.open()?.with_claims(Arc::new(BlobClaims::new(db.clone()))));
        Ok(Self {
            db,
            storage,
            vault,
            scratch: scratch.to_path_buf(),
            mailer,
            courier,
            public_url,
            retention: Retention::forever(),
            placeholders,
            limits,
        })
    }

    /// What is over is remembered for so long; for ever unless this is said.
    #[must_use]
    pub fn keeping(mut self, history: HistorySettings) -> Self {
        self.retention = history.into();
        self
    }

    /// Serves the API until `stopping`, then answers what it has begun; `internal` is for machines of ours alone.
    ///
    /// # Errors
    /// The listener failed.
    pub async fn serve(
        self,
        listener: TcpListener,
        internal: TcpListener,
        stopping: CancellationToken,
    ) -> Result<(), ServeError> {
        let probe = Arc::new(worker::upload_probe(PROBE.into()));
        let Self { db: pool, storage, vault, public_url, limits, .. } = self;
        let (listen, internal) = (Listen::Bound(listener), Some(internal));
        serve::run(ServeConfig { listen, internal, pool, storage, limits, probe, vault, public_url }, stopping).await
    }

    /// Asks for stills of the scenes of these templates that have none.
    ///
    /// # Errors
    /// See [`ImportError`].
    pub async fn ask_for_stills(&self, packages: &[Package]) -> Result<(), ImportError> {
        import::ask_for_stills(&self.db, self.limits, self.public_url.trim_end_matches('/'), packages).await
    }

    /// Continues workflows and does media work until `stopping`, then gives back what is unfinished.
    ///
    /// # Errors
    /// The worker cannot go on.
    pub async fn work(self, stopping: CancellationToken) -> Result<(), WorkError> {
        let Self { db: pool, storage, vault, scratch, mailer, courier, public_url, retention, placeholders, limits } =
            self;
        let (ffmpeg, ffprobe) = ("ffmpeg".into(), PROBE.into());
        let cashier = worker::cashier(Egress::new(Reach::from_env()), vault.clone(), Places::from_env());
        let cashier = cashier.reached_at(&public_url);
        let webhooks = worker::webhook_caller(Egress::new(Reach::from_env()), vault);
        let config = WorkerConfig {
            pool,
            storage,
            scratch,
            ffmpeg,
            ffprobe,
            slots: None,
            mailer,
            courier,
            webhooks,
            cashier,
            retention,
            placeholders,
            limits,
        };
        worker::run(config, stopping).await
    }

    /// Closes the connections.
    pub async fn close(self) {
        self.db.close().await;
    }
}

/// Carries what people are told, with the secrets of this installation.
fn courier(mailer: Mailer, vault: &Vault, public_url: &str) -> Courier {
    let (opens, marks) = (vault.clone(), vault.clone());
    Courier::new(CourierConfig {
        mailer,
        egress: Egress::new(Reach::from_env()),
        opener: Arc::new(move |sealed| opens.unseal(&sealed.place, &hex::decode(&sealed.hex).ok()?).ok()),
        marks: Arc::new(move |purpose| marks.mark(purpose)),
        public_url: public_url.trim_end_matches('/').to_owned(),
        mail_patience: MAIL_PATIENCE,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn history_is_kept_for_the_days_that_were_said_and_for_ever_at_none() {
        assert_eq!(Retention::from(HistorySettings { keep_history: 0 }), Retention::forever());
        let week = Duration::from_secs(7 * 86_400);
        let kept = Retention::from(HistorySettings { keep_history: 7 });
        assert_eq!(kept, Retention::forever().runs(week).jobs(week).fires(week));
    }
}
