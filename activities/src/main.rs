//! `flatrender-node`: the render node's agent as a program of its own.

use anyhow::Context;
use clap::Parser;
use flatrender_activities::{
    agent::{self, NodeArgs, client, doctor},
    log,
};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// Renders for a FlatRender server on this machine
#[derive(Parser)]
#[command(version)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    #[command(flatten)]
    node: NodeArgs,
}

#[derive(clap::Subcommand)]
enum Command {
    /// Looks whether this machine can render for the server, and says how to mend what is wrong
    Doctor {
        /// Print the findings as JSON
        #[arg(long)]
        json: bool,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    log::start(filter, std::io::IsTerminal::is_terminal(&std::io::stderr()));
    let cli = Cli::parse();
    client::install_crypto();
    if let Some(Command::Doctor { json }) = cli.command {
        anyhow::ensure!(doctor::run(&cli.node.into(), json).await, "this machine cannot be a node yet");
        return Ok(());
    }
    let shutdown = CancellationToken::new();
    tokio::select! {
        ended = agent::run(cli.node.into(), shutdown.clone()) => ended.context("the node stopped"),
        () = told_twice(shutdown) => anyhow::bail!("ended at once, without giving work back"),
    }
}

/// The first signal drains. Resolves at the second; dropping the agent then kills its renderers.
async fn told_twice(shutdown: CancellationToken) {
    signalled().await;
    tracing::info!("draining: no more work is claimed; once more to end at once");
    shutdown.cancel();
    signalled().await;
}

#[cfg(unix)]
async fn signalled() {
    use tokio::signal::unix::{SignalKind, signal};
    let (Ok(mut terminate), Ok(mut interrupt)) = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()))
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// Also the window that is closed, and whoever signs out or shuts the machine down: Windows ends the process some seconds after it
/// has said so.
#[cfg(windows)]
async fn signalled() {
    use tokio::signal::windows::{ctrl_break, ctrl_c, ctrl_close, ctrl_logoff, ctrl_shutdown};
    let (Ok(mut interrupt), Ok(mut stop), Ok(mut close), Ok(mut logoff), Ok(mut shutdown)) =
        (ctrl_c(), ctrl_break(), ctrl_close(), ctrl_logoff(), ctrl_shutdown())
    else {
        return std::future::pending().await;
    };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = stop.recv() => {}
        _ = close.recv() => {}
        _ = logoff.recv() => {}
        _ = shutdown.recv() => {}
    }
}
