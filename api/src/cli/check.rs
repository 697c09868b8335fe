//! `flatrender check`: whether everything that is always true of the database is true of this one.

use super::{admin, failure::CliError};
use anyhow::Context as _;
use clap::Args;
use flatrender_workflows::models::invariants::{self, Breach};
use sqlx::postgres::PgPoolOptions;
use std::path::PathBuf;

/// Checks the database against every rule it should keep. Changes nothing; ends with exit code 1 when a rule is broken.
///
/// For cron, for CI after the tests, and for after a restored backup. Prints a line for each row that breaks a rule.
#[derive(Debug, Clone, Args)]
pub struct CheckArgs {
    /// The PostgreSQL database [default: the private one of the data folder, when it runs].
    #[arg(long, value_name = "URL", env = "DATABASE_URL", hide_env_values = true)]
    database_url: Option<String>,
    /// Data folder of the platform on this machine.
    #[arg(long, alias = "data-dir", value_name = "DIR", env = "FLATRENDER_DATA")]
    data: Option<PathBuf>,
    /// Also forbid what only development may have, such as pictures of the mock.
    #[arg(long)]
    production: bool,
    /// Print JSON.
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// There is no database, or a rule is broken.
pub async fn run(args: CheckArgs) -> Result<(), CliError> {
    let url = admin::database(args.database_url, args.data.as_deref())?;
    let db = PgPoolOptions::new().max_connections(1).connect(&url).await.context("cannot connect to the database")?;
    let breaches = invariants::check(&db, args.production).await.context("cannot check the database")?;
    match args.json {
        true => println!("{}", serde_json::json!({ "ok": breaches.is_empty(), "breaches": breaches })),
        false => breaches.iter().for_each(|b| println!("{}", line(b))),
    }
    match breaches.len() {
        0 if args.json => Ok(()),
        0 => {
            println!("every rule is kept");
            Ok(())
        }
        1 => Err(CliError::Unhealthy("1 row breaks a rule".into())),
        n => Err(CliError::Unhealthy(format!("{n} rows break a rule"))),
    }
}

fn line(breach: &Breach) -> String {
    format!("{:>2}  {}: {}", breach.invariant, breach.rule, breach.row)
}
