//! `flatrender usage`: what a tenant used, as a table for people and programs.

use super::{failure::CliError, server::ServerArgs};
use anyhow::Context as _;
use chrono::NaiveDate;
use clap::Args;
use reqwest::{Method, header::ACCEPT};
use std::path::PathBuf;
use uuid::Uuid;

/// Prints what the tenant used, day by day, as CSV: day, metric, quantity, and whether it is final.
///
/// Takes a key with the scope `admin`; for another tenant, an access token of somebody who runs the platform.
#[derive(Debug, Clone, Args)]
pub struct UsageArgs {
    /// The first day [default: that of the server].
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// The last day [default: today].
    #[arg(long, value_name = "DAY")]
    to: Option<NaiveDate>,
    /// Of this tenant, by its id [default: the one that the key belongs to].
    #[arg(long, value_name = "ID")]
    tenant: Option<Uuid>,
    /// Prints JSON instead.
    #[arg(long)]
    json: bool,
    /// Writes it to this file.
    #[arg(long, short, value_name = "FILE")]
    out: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
///
/// # Errors
/// The server refuses, or the file cannot be written.
pub async fn run(args: UsageArgs) -> Result<(), CliError> {
    let client = args.server.connect().await?;
    let days = [("from", args.from), ("to", args.to)].map(|(name, day)| day.map(|day| (name, day.to_string())));
    let days: Vec<_> = days.into_iter().flatten().collect();
    let kind = if args.json { "application/json" } else { "text/csv" };
    let path = match args.tenant {
        Some(id) => format!("/v1/platform/tenants/{id}/usage"),
        None => "/v1/usage".to_owned(),
    };
    let answer = client.send(client.call(Method::GET, &path).query(&days).header(ACCEPT, kind)).await?;
    let table = answer.text().await.map_err(|e| client.lost(&e))?;
    match args.out {
        Some(path) => Ok(std::fs::write(&path, table).with_context(|| format!("cannot write {}", path.display()))?),
        None => {
            print!("{table}");
            Ok(())
        }
    }
}
