//! The command line of `flatrender`: what each command takes, and how each ends.

pub mod admin;
pub mod answers;
pub mod api;
pub mod billing;
pub mod check;
pub mod cleanup;
pub mod client;
pub mod demo;
pub mod differences;
pub mod doctor;
pub mod download;
pub mod failure;
pub mod files;
pub mod film;
pub mod follow;
mod here;
pub mod import;
mod nexrender;
pub mod node;
pub mod notifications;
pub mod operate;
pub mod order;
pub mod payments;
pub mod progress;
pub mod render;
pub mod runs;
pub mod schedule;
pub mod server;
pub mod services;
pub mod simulate;
pub mod snapshots;
pub mod sse;
pub mod templates;
pub mod traced;
mod upload;
pub mod usage;
pub mod webhooks;

use clap::{Parser, Subcommand};
use failure::{CliError, EXIT_CODES};
use flatrender_activities::log;
use std::process::ExitCode;
use tracing_subscriber::EnvFilter;

/// Turns templates and your data into videos.
///
/// `flatrender up` runs the whole platform on this machine; `flatrender render` makes a film with it. Set
/// FLATRENDER_URL and FLATRENDER_API_KEY to work with a server elsewhere.
#[derive(Debug, Parser)]
#[command(name = "flatrender", version, after_help = EXIT_CODES, max_term_width = 110)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
    /// Print JSON where there is an answer, and say a failure as a problem (RFC 9457), the last line of standard error.
    #[arg(long, global = true)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum Command {
    Up(services::UpArgs),
    Render(render::RenderArgs),
    Import(import::ImportArgs),
    Templates(templates::TemplatesArgs),
    Snapshots(snapshots::SnapshotsArgs),
    Traced(traced::TracedArgs),
    Files(files::FilesArgs),
    Plans(billing::PlansArgs),
    Credits(billing::CreditsArgs),
    Coupons(billing::CouponsArgs),
    Payments(payments::PaymentsArgs),
    Refunds(payments::RefundsArgs),
    Invoices(payments::InvoicesArgs),
    Gateways(payments::GatewaysArgs),
    Differences(differences::DifferencesArgs),
    Demo(demo::DemoArgs),
    Doctor(doctor::DoctorArgs),
    Serve(services::ServeArgs),
    Worker(services::WorkerArgs),
    Node(services::NodeCommand),
    Migrate(services::MigrateArgs),
    Admin(admin::AdminArgs),
    Check(check::CheckArgs),
    Schedule(schedule::ScheduleArgs),
    Cleanup(cleanup::CleanupArgs),
    Notifications(notifications::NotificationsArgs),
    Simulate(simulate::SimulateArgs),
    Usage(usage::UsageArgs),
    Api(api::ApiArgs),
    Webhooks(webhooks::WebhooksArgs),
    Runs(runs::RunsArgs),
    Operate(operate::OperateArgs),
}

/// Reads the command line, runs the command, and says in one line why it failed if it did.
pub async fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(e) => return misread(&e),
    };
    log();
    match run(cli.command).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => end(&e, cli.json),
    }
}

/// The last line, and the exit code.
fn end(error: &CliError, as_json: bool) -> ExitCode {
    match as_json {
        true => eprintln!("{}", error.json()),
        false => eprintln!("error: {}", error.line()),
    }
    ExitCode::from(error.exit_code())
}

/// The arguments make no sense, or ask for help. Programs are told in their way, too: what is wrong, without how it is used.
fn misread(error: &clap::Error) -> ExitCode {
    if error.use_stderr() && std::env::args_os().any(|arg| arg == "--json") {
        let text = error.to_string();
        let wrong = text.split("\n\n").next().unwrap_or_default().trim_start_matches("error: ");
        return end(&CliError::Usage(wrong.to_owned()), true);
    }
    let _ = error.print();
    ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
}

async fn run(command: Command) -> Result<(), CliError> {
    match command {
        Command::Up(args) => services::up(args).await,
        Command::Render(args) => render::run(args).await,
        Command::Import(args) => import::run(args).await,
        Command::Templates(args) => templates::run(args).await,
        Command::Snapshots(args) => snapshots::run(args).await,
        Command::Traced(args) => traced::run(args).await,
        Command::Files(args) => files::run(args).await,
        Command::Plans(args) => billing::plans(args).await,
        Command::Credits(args) => billing::credits(args).await,
        Command::Coupons(args) => billing::coupons(args).await,
        Command::Payments(args) => payments::payments(args).await,
        Command::Refunds(args) => payments::refunds(args).await,
        Command::Invoices(args) => payments::invoices(args).await,
        Command::Gateways(args) => payments::gateways(args).await,
        Command::Differences(args) => differences::differences(args).await,
        Command::Demo(args) => demo::run(args).await,
        Command::Doctor(args) => doctor::run(args).await,
        Command::Serve(args) => services::serve(args).await,
        Command::Worker(args) => services::worker(args).await,
        Command::Node(args) => services::node(args).await,
        Command::Migrate(args) => services::migrate(args).await,
        Command::Admin(args) => admin::run(args).await,
        Command::Check(args) => check::run(args).await,
        Command::Schedule(args) => schedule::run(args).await,
        Command::Cleanup(args) => cleanup::run(args).await,
        Command::Notifications(args) => notifications::run(args).await,
        Command::Simulate(args) => simulate::run(args).await,
        Command::Usage(args) => usage::run(args).await,
        Command::Api(args) => api::run(args).await,
        Command::Webhooks(args) => webhooks::run(args).await,
        Command::Runs(args) => runs::run(args).await,
        Command::Operate(args) => operate::run(args).await,
    }
}

/// Logs go to standard error, so that standard output is the command's answer. `FLATRENDER_LOG` says how much, and
/// `FLATRENDER_LOG_FORMAT=json` for whom.
fn log() {
    let filter = EnvFilter::try_from_env("FLATRENDER_LOG").or_else(|_| EnvFilter::try_from_default_env());
    let filter = filter.unwrap_or_else(|_| {
        // What checks passkeys prints all that a client sent; why one was refused is told by us.
        let quiet = "webauthn_rs_core=off";
        EnvFilter::new(format!(
            "warn,flatrender_api=info,flatrender_activities=info,flatrender_engine::trace=info,{quiet}"
        ))
    });
    let colours = std::io::IsTerminal::is_terminal(&std::io::stderr()) && std::env::var_os("NO_COLOR").is_none();
    log::start(filter, colours);
}

/// Whether a line that is shown somewhere would be understood, by its words: nothing is done.
#[cfg(test)]
pub(crate) fn understands(words: &[String]) -> Result<(), String> {
    let read = Cli::try_parse_from(words).map_err(|e| e.to_string())?;
    match read.command {
        Command::Api(args) => api::understands(&args).map_err(|e| e.to_string()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_takes_json() {
        fn look(command: &clap::Command) {
            let takes = command.get_arguments().any(|arg| arg.get_long() == Some("json"));
            assert!(takes, "{} refuses --json", command.get_name());
            command.get_subcommands().filter(|sub| sub.get_name() != "help").for_each(look);
        }
        let mut command = Cli::command();
        command.build();
        look(&command);
    }

    #[test]
    fn json_is_asked_for_before_or_behind_a_command() {
        for line in [
            "--json runs list",
            "runs --json list",
            "runs list --json",
            "webhooks events --json",
            "traced list promo --json",
        ] {
            let read = Cli::try_parse_from(["flatrender"].into_iter().chain(line.split(' '))).unwrap();
            assert!(read.json, "{line}");
        }
        assert!(!Cli::try_parse_from(["flatrender", "runs", "list"]).unwrap().json);
    }

    #[test]
    fn the_data_folder_is_called_the_same_wherever_it_is_asked_for() {
        for command in [["up"].as_slice(), &["admin", "create-key"], &["check"]] {
            for flag in ["--data", "--data-dir"] {
                let read = Cli::try_parse_from(["flatrender"].iter().chain(command).chain(&[flag, "here"]));
                assert!(read.is_ok(), "{command:?} {flag}: {:?}", read.err());
            }
        }
    }

    #[test]
    fn a_key_is_made_for_scopes_there_are() {
        let read = |scope: &str| Cli::try_parse_from(["flatrender", "admin", "create-key", "--scope", scope]);
        assert!(read("admin").is_ok());
        assert!(read("everything").unwrap_err().to_string().contains("render, files, templates"));
    }
}
