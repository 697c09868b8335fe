//! The database of operators' commands, and what is written down of what they do.

use super::{admin, failure::CliError};
use anyhow::Context as _;
use clap::Args;
use flatrender_workflows::models::{
    Db, Role, Scope,
    identity::audit::{self, Entry},
};
use sqlx::PgPool;
use std::path::PathBuf;
use uuid::Uuid;

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

/// Writes down in the chain of the tenant whose it is that it was done, and why, in the transaction of the deed.
pub(super) async fn note(
    db: Db<'_>,
    tenant_id: Uuid,
    deed: (&str, &str),
    reason: Option<&str>,
) -> Result<(), CliError> {
    let (action, object) = deed;
    let entry = Entry {
        tenant_id,
        actor: "cli",
        action,
        object,
        reason,
        before: None,
        after: None,
        ip: None,
        request_id: None,
    };
    Scope::tenant(Role::Identity, tenant_id).enter(&mut *db).await.context("cannot write it down")?;
    audit::record(db, &entry).await.context("cannot write it down")?;
    Ok(())
}
