//! `flatrender`: the whole platform, each of its parts, and the command line that makes films with it.

use std::process::ExitCode;

#[tokio::main]
async fn main() -> ExitCode {
    flatrender_activities::agent::client::install_crypto();
    flatrender_api::cli::main().await
}
