//! `flatrender usage`: what the tenant used, as a table for people and programs.

use super::{failure::CliError, server::ServerArgs};
use anyhow::Context as _;
use chrono::NaiveDate;
use clap::Args;
use reqwest::{Method, header::ACCEPT};
use std::path::PathBuf;

/// Prints what the tenant used, day by day, as CSV: day, metric, quantity, and whether it is final.
///
/// Takes a key with the scope `admin`.
#[derive(Debug, Clone, Args)]
pub struct UsageArgs {
    /// The first day [default: that of the server].
    #[arg(long, value_name = "DAY")]
    from: Option<NaiveDate>,
    /// The last day [default: today].
    #[arg(long, value_name = "DAY")]
    to: Option<NaiveDate>,
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
    let answer = client.send(client.call(Method::GET, "/v1/usage").query(&days).header(ACCEPT, kind)).await?;
    let table = answer.text().await.map_err(|e| client.lost(&e))?;
    match args.out {
        Some(path) => Ok(std::fs::write(&path, table).with_context(|| format!("cannot write {}", path.display()))?),
        None => {
            print!("{table}");
            Ok(())
        }
    }
}
