//! `flatrender doctor`: whether this machine can do the work, and what to do where it cannot.

mod checks;
mod probe;

use super::failure::CliError;
use super::server::ServerArgs;
use anyhow::Context as _;
use clap::Args;
use serde::Serialize;
use std::io::IsTerminal as _;

/// Looks whether this machine can do the work, and says how to mend what is missing.
///
/// Checks PostgreSQL, ffmpeg and its encoders, the jail of programs that read what others send, the fonts of the templates, room on the
/// disk, the storage (by writing, reading and removing an object), the renderer (by rendering a frame) and the server. Ends with exit
/// code 1 when something that is needed is missing.
#[derive(Debug, Clone, Args)]
pub struct DoctorArgs {
    /// Print the findings as JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// How bad a finding is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// All is well.
    Ok,
    /// It works, but not for long, or not everything does.
    Warn,
    /// Films cannot be made until this is mended.
    Fail,
}

/// What was looked at, what was found, and how to mend it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How bad it is.
    pub status: Verdict,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mend: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, status: Verdict::Ok, detail: detail.into(), mend: None }
    }

    fn bad(name: &'static str, status: Verdict, detail: impl Into<String>, mend: impl Into<String>) -> Self {
        Self { name, status, detail: detail.into(), mend: Some(mend.into()) }
    }
}

/// Runs the command.
///
/// # Errors
/// [`CliError::Unhealthy`] when a finding is [`Verdict::Fail`].
pub async fn run(args: DoctorArgs) -> Result<(), CliError> {
    let findings = look(&args.server).await;
    match args.json {
        true => println!("{}", serde_json::to_string_pretty(&findings).context("cannot write JSON")?),
        false => findings.iter().for_each(show),
    }
    let failed: Vec<&str> = findings.iter().filter(|f| f.status == Verdict::Fail).map(|f| f.name).collect();
    match failed.is_empty() {
        true => Ok(()),
        false => Err(CliError::Unhealthy(format!("this machine cannot make films yet: {}", failed.join(", ")))),
    }
}

async fn look(server: &ServerArgs) -> Vec<Finding> {
    let mut findings = vec![checks::postgres().await];
    findings.extend(checks::media().await);
    findings.push(checks::jail().await);
    findings.push(checks::fonts());
    findings.push(checks::disk(server));
    findings.push(checks::storage(server).await);
    findings.push(probe::renderer().await);
    findings.push(checks::server(server).await);
    findings
}

fn show(finding: &Finding) {
    let colours = std::io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let (word, colour) = match finding.status {
        Verdict::Ok => ("ok", 32),
        Verdict::Warn => ("warn", 33),
        Verdict::Fail => ("fail", 31),
    };
    let word = if colours { format!("\x1b[{colour}m{word:<4}\x1b[0m") } else { format!("{word:<4}") };
    println!("{word}  {:<10} {}", finding.name, finding.detail);
    if let Some(mend) = &finding.mend {
        println!("      {:<10} → {mend}", "");
    }
}
