//! `flatrender render`: one film, from data on this machine to an MP4 on this machine.

use super::failure::CliError;
use super::order::OrderArgs;
use super::server::ServerArgs;
use super::{film, progress};
use anyhow::Context as _;
use clap::Args;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Renders a film and downloads it.
///
/// Talks to the server named by --server, or to the one that runs on this machine. When there is none, one is
/// started for the time of the render. Ctrl-C cancels the render on the server.
#[derive(Debug, Clone, Args)]
pub struct RenderArgs {
    #[command(flatten)]
    order: OrderArgs,
    /// Where to put the film. Written only when all of it is there.
    #[arg(long, short, value_name = "FILE", default_value = "film.mp4")]
    out: PathBuf,
    /// Print the finished render as JSON on standard output, and no progress.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// Runs the command.
///
/// # Errors
/// See [`CliError`].
pub async fn run(args: RenderArgs) -> Result<(), CliError> {
    let begun = Instant::now();
    let order = args.order.read()?;
    check_out(&args.out)?;
    let server = args.server.connect_or_start("127.0.0.1:0", &[]).await?;
    let made = film::make(&server.client, order, &args.out, args.json).await;
    server.stop().await;
    let film = made?;
    if args.json {
        let mut json = film.render.json;
        json["file"] = args.out.to_string_lossy().into();
        println!("{}", serde_json::to_string_pretty(&json).context("cannot write JSON")?);
    } else {
        println!(
            "{} ({}, in {})",
            args.out.display(),
            describe(&film.render.value),
            progress::duration(begun.elapsed())
        );
    }
    Ok(())
}

/// `1280×720, 300 frames, 10.0 s`.
pub fn describe(render: &super::answers::Render) -> String {
    format!("{}×{}, {} frames, {:.1} s", render.width, render.height, render.frames.total, render.duration_seconds)
}

/// Better to know now than after the render.
pub(super) fn check_out(out: &Path) -> Result<(), CliError> {
    let dir = out.parent().filter(|d| !d.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if out.is_dir() {
        return Err(CliError::Usage(format!("--out: {} is a folder", out.display())));
    }
    match dir.is_dir() {
        true => Ok(()),
        false => Err(CliError::Usage(format!("--out: there is no folder {}", dir.display()))),
    }
}
