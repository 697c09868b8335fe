//! The database of operators' commands, and what is written down of what they do.

use super::{admin, failure::CliError};
use anyhow::Context as _;
use clap::Args;
use flatrender_workflows::models::{
    DEFAULT_TENANT, Db, Role, Scope,
    identity::audit::{self, Entry},
};
use sqlx::PgPool;
use std::path::PathBuf;

/// Where the platform is.
#[derive(Debug, Clone, Args)]
pub(super) struct Here {
    /// The PostgreSQL database [default: the private one of the data folder, when it runs].
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Data folder of the platform on this machine.
    #[arg(long = "data", alias = "data-dir", value_name = "DIR", env = "FLATRENDER_DATA")]
    platform: Option<PathBuf>,
    /// Print JSON.
    #[arg(long)]
    pub(super) json: bool,
}

impl Here {
    pub(super) async fn database(&self) -> Result<PgPool, CliError> {
        let url = admin::database(self.database_url.clone(), self.platform.as_deref())?;
        Ok(PgPool::connect(&url).await.context("cannot connect to the database")?)
    }
}

/// Writes down that it was done, in the transaction of the deed.
pub(super) async fn note(db: Db<'_>, action: &str, object: &str) -> Result<(), CliError> {
    let (tenant_id, actor) = (DEFAULT_TENANT, "cli");
    let entry =
        Entry { tenant_id, actor, action, object, reason: None, before: None, after: None, ip: None, request_id: None };
    Scope::tenant(Role::Identity, DEFAULT_TENANT).enter(&mut *db).await.context("cannot write it down")?;
    audit::record(db, &entry).await.context("cannot write it down")?;
    Ok(())
}
