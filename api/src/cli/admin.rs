//! `flatrender admin`: what only somebody with the database may do.

use super::failure::CliError;
use crate::platform::data_dir::DataDir;
use crate::platform::{
    import,
    owner::{self, NewOwner, OwnerError},
};
use anyhow::Context as _;
use clap::builder::PossibleValuesParser;
use clap::{Args, Subcommand};
use flatrender_workflows::models::{DEFAULT_TENANT, identity::tenant_api_key::SCOPES};
use sqlx::PgPool;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Makes keys and tokens. Needs the database: DATABASE_URL, or the platform running on this machine.
#[derive(Debug, Clone, Args)]
pub struct AdminArgs {
    #[command(subcommand)]
    command: AdminCommand,
    /// The PostgreSQL database [default: the private one of the data folder, when it runs].
    #[arg(long, global = true, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Data folder of the platform on this machine.
    #[arg(long, alias = "data-dir", global = true, value_name = "DIR", env = "FLATRENDER_DATA")]
    data: Option<PathBuf>,
    /// Print JSON.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Clone, Subcommand)]
#[expect(clippy::enum_variant_names, reason = "they are what is typed")]
enum AdminCommand {
    /// Makes an API key and prints it. It is shown this once and cannot be had again.
    CreateKey {
        /// A name to tell it from others.
        #[arg(long, default_value = "made by hand")]
        name: String,
        /// The tenant it speaks for [default: the first one].
        #[arg(long, value_name = "UUID")]
        tenant: Option<Uuid>,
        /// What it may do; may be given more than once [default: render, files, templates].
        #[arg(long = "scope", value_name = "SCOPE", value_parser = PossibleValuesParser::new(SCOPES))]
        scopes: Vec<String>,
    },
    /// Makes a one-time token for a render node and prints it: good for one hour and one node.
    CreateNodeToken,
    /// Makes a person the owner of a tenant and prints a one-time token, good for one hour, to set their password with.
    CreateOwner {
        /// Their address.
        #[arg(long)]
        email: String,
        /// What they are called.
        #[arg(long, default_value = "")]
        name: String,
        /// The tenant, by its slug.
        #[arg(long, value_name = "SLUG", default_value = "default")]
        tenant: String,
        /// They may administer the platform, too; in the tenant `default` only.
        #[arg(long)]
        platform_admin: bool,
    },
}

/// Runs the command.
///
/// # Errors
/// There is no database, or it refuses.
pub async fn run(args: AdminArgs) -> Result<(), CliError> {
    let db = PgPool::connect(&database(args.database_url, args.data.as_deref())?)
        .await
        .context("cannot connect to the database")?;
    let (what, secret) = match args.command {
        AdminCommand::CreateKey { name, tenant, scopes } if scopes.is_empty() => {
            let key = import::create_key(&db, tenant.unwrap_or(DEFAULT_TENANT), &name).await;
            ("api_key", key.context("cannot make a key")?)
        }
        AdminCommand::CreateKey { name, tenant, scopes } => {
            let key = import::create_key_for(&db, tenant.unwrap_or(DEFAULT_TENANT), &name, &scopes).await;
            let many = || CliError::Usage("the tenant has as many keys as it may; revoke one first".into());
            ("api_key", key.context("cannot make a key")?.ok_or_else(many)?)
        }
        AdminCommand::CreateNodeToken => {
            ("node_token", import::create_node_token(&db).await.context("cannot make a token")?)
        }
        AdminCommand::CreateOwner { email, name, tenant, platform_admin } => {
            let new = NewOwner { email: &email, name: &name, tenant: &tenant, platform_admin };
            let token = owner::create_owner(&db, new).await.map_err(|e| match e {
                OwnerError::Database(e) => CliError::Here(anyhow::Error::new(e).context("cannot make an owner")),
                wrong => CliError::Usage(wrong.to_string()),
            })?;
            if !args.json {
                eprintln!(
                    "Set the password within an hour: POST /v1/auth/reset-password with this token and a password."
                );
            }
            ("password_token", token)
        }
    };
    match args.json {
        true => println!("{}", serde_json::json!({ what: secret.reveal() })),
        false => println!("{}", secret.reveal()),
    }
    Ok(())
}

/// Address of a database: the given one, or the private one of a data folder, when it runs.
///
/// # Errors
/// There is neither.
pub fn database(url: Option<String>, data_dir: Option<&Path>) -> Result<String, CliError> {
    if let Some(url) = url.filter(|url| !url.is_empty()) {
        return Ok(url);
    }
    let dir = DataDir::choose(data_dir).map_err(|e| CliError::Usage(e.to_string()))?;
    let none = || {
        CliError::Usage(format!("no database: set DATABASE_URL, or start `flatrender up` on {}", dir.path().display()))
    };
    crate::platform::postgres::running_url(dir.path()).ok_or_else(none)
}
