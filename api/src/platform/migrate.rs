//! Bringing a database to the state this program needs.

use chrono::Utc;
use flatrender_workflows::models::time_series;
use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions as _, Connection as _, PgConnection};
use std::time::Duration;

/// Every migration, in order. The files are part of the program.
static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations");
/// How long to wait for another program that migrates, or for a table somebody holds.
const LOCK_TIMEOUT: &str = "60s";
/// How long a database may take to accept a connection.
const CONNECT: Duration = Duration::from_secs(30);

/// Why a database cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum MigrateError {
    /// The address makes no sense.
    #[error("DATABASE_URL is not the address of a PostgreSQL database: {0}")]
    Address(#[source] sqlx::Error),
    /// Nobody answers there.
    #[error("cannot connect to the database: {0}")]
    Connect(#[source] sqlx::Error),
    /// The database was made by a program whose migrations are not ours.
    #[error(
        "the database was made by another version of this program (its migration {0} is not the one of this version), and was left as it is. \
         Run the version that made it; or begin anew with an empty one: another folder (--data), or another database (DATABASE_URL)"
    )]
    Foreign(i64),
    /// A migration failed; what it changed has been taken back.
    #[error("cannot migrate the database: {0}")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    /// The months ahead could not be made.
    #[error("cannot make the months of time series: {0}")]
    Months(#[from] sqlx::Error),
}

impl From<sqlx::migrate::MigrateError> for MigrateError {
    fn from(error: sqlx::migrate::MigrateError) -> Self {
        match error {
            sqlx::migrate::MigrateError::VersionMismatch(version)
            | sqlx::migrate::MigrateError::VersionMissing(version) => Self::Foreign(version),
            other => Self::Migrate(other),
        }
    }
}

/// Applies what is missing, and tells how many migrations the program knows. Doing it again changes nothing.
///
/// On a connection of its own, which is closed afterwards: a migration that fails keeps its lock for as long as
/// its connection lives, and in a pool that is for ever.
///
/// # Errors
/// [`MigrateError`]. Two programs may do this at the same time: one waits for the other, for a minute.
pub async fn run(database_url: &str) -> Result<usize, MigrateError> {
    let options: PgConnectOptions = database_url.parse().map_err(MigrateError::Address)?;
    // A migration that takes its time would be logged as one slow statement of many pages.
    let options = options.options([("lock_timeout", LOCK_TIMEOUT)]).disable_statement_logging();
    let connected = tokio::time::timeout(CONNECT, PgConnection::connect_with(&options)).await;
    let mut connection = connected
        .unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
        .map_err(MigrateError::Connect)?;
    let applied: Result<(), MigrateError> = async {
        MIGRATIONS.run(&mut connection).await?;
        // Time goes on between two migrations: the months ahead are made each time.
        time_series::ensure_months(&mut connection, Utc::now()).await?;
        Ok(())
    }
    .await;
    let _ = connection.close().await;
    applied.map(|()| MIGRATIONS.iter().count())
}
